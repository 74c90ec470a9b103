"""Which step size and decay of the multipliers serve small and large data, short and long training.

    python benchmarks/step_size.py --data digits-lt --workers 2
    python benchmarks/step_size.py --data fashion-mnist-lt --root DIR --workers 2

train a robust teacher and two robust students of it (the teacher's validation labels, true ones) with each candidate,
and write a line for each to a CSV file as it comes: what is there is not trained again, so a stopped experiment goes
on. Then the tables of everything in that file are printed in Markdown. digits-lt needs no download.

A candidate is "paper" (γ = 0.1, no decay), TAU@DECAY such as 6@0.1 with γ = TAU · DECAY, or GAMMA+DECAY such as 0.3+0.
Rules in K, the updates that training makes, are TAU@C/K, where the decay is C/K, and S/K: γ = S/K without decay.
"""

from __future__ import annotations

import argparse
import csv
import math
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

import robustdistill as rd
from robustdistill.data.batches import batch_bounds
from robustdistill.environment import environment

STUDENT_SEED = 1000  # so that no student starts where a teacher of another seed did
ROLES = ("teacher", "student, teacher's labels", "student, true labels")
GRID = (
    *("paper", "6/K", "12@1/K", "12@0.03", "20@0.03", "20@0.02", "12@0.1"),
    *(f"{tau}@{decay}" for decay in ("0.03", "0.1", "0.3") for tau in (2, 3, 4, 6, 8)),
)
FINALISTS = ("paper", "12@0.03", "20@0.02", "6@0.1")
LARGEST_DECAY = 0.5  # of a rule in K
MEASURES = ("val_worst_class", "val_balanced", "test_worst_class", "test_balanced")

ABOUT = """## {data}, {epochs} epochs, {updates} updates

One update every {every} steps. Worst-class accuracy on validation; "mean" is over the models of a seed.
Standard error of a difference of two rows, and how far behind the best is still noise: {errors}.
✗ is further behind.

| candidate | γ | γ · K | n | {roles} | mean | behind the best | balanced | test: worst class | balanced \
| largest λ |
|---|--:|--:|--:|{columns}--:|--:|--:|--:|--:|--:|"""

SUMMARY = """## All of them

Of each candidate: the problems of more than one seed (a data set, a length, a model) it was tried on and in how many it
fails, how far it is behind the best of each length in the mean and at most; and against "paper", on the same lengths.

| candidate | problems | fails | behind | at most | validation: worst class | balanced | test: worst class | balanced |
|---|--:|--:|--:|--:|--:|--:|--:|--:|"""


FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """Models and recipe for a data set; how long to train, how often and what. No student where a teacher is costly."""

    teacher: str
    student: str | None
    recipe: rd.Recipe
    epochs: tuple[int, ...]
    seeds: int
    candidates: tuple[str, ...] = FINALISTS


PLANS = {
    "digits-lt": Plan("convnet-16", "convnet-8", rd.Recipe.named("digits-lt"), (15, 60, 240), 6, GRID),
    # The multipliers of both see 1,000 of the 5,000 validation images at a time: these runs have to be cheap.
    "fashion-mnist-lt": Plan(
        "convnet-8", "convnet-4", rd.Recipe.named("fashion-mnist-lt").with_(validation_sample=1000), (5, 20), 3
    ),
    "cifar10-lt": Plan(
        "resnet8",
        None,
        rd.Recipe.named("cifar10-lt").with_(schedule="cosine", precision="bfloat16", validation_sample=1000),
        (4, 12),
        2,
    ),
}


@dataclass(frozen=True)
class Task:
    """A teacher and its students: one candidate, one length, one seed."""

    data: str
    root: Path | None
    epochs: int
    every: int
    candidate: str
    seed: int

    @property
    def key(self) -> tuple[str, ...]:
        """What names it in the file."""
        return tuple(str(value) for value in (self.data, self.epochs, self.every, self.candidate, self.seed))


def pair(candidate: str, updates: int) -> tuple[float, float]:
    """γ and decay of a candidate where training makes so many updates."""
    if candidate == "paper":
        return 0.1, 0.0
    if found := re.fullmatch(r"([\d.]+)\+([\d.]+)", candidate):
        return float(found[1]), float(found[2])
    if found := re.fullmatch(r"([\d.]+)@([\d.]+)(/K)?", candidate):
        decay = min(LARGEST_DECAY, float(found[2]) / updates) if found[3] else float(found[2])
        return float(found[1]) * decay, decay
    if found := re.fullmatch(r"([\d.]+)/K", candidate):
        return float(found[1]) / updates, 0.0
    raise SystemExit(f"a candidate is paper, TAU@DECAY, TAU@C/K, S/K or GAMMA+DECAY, got {candidate!r}")


@lru_cache(maxsize=1)
def load(name: str, root: Path | None, seed: int) -> rd.data.Splits:
    return rd.data.load(name, root, seed, seed)


def run(task: Task) -> list[dict[str, str | int | float]]:
    """A line of the file for each model trained."""
    plan, seed = PLANS[task.data], task.seed
    data = load(task.data, task.root, seed)
    recipe = plan.recipe.with_(epochs=task.epochs, every=task.every)
    updates = task.epochs * len(batch_bounds(len(data.train), recipe.batch_size)) // task.every
    step_size, decay = pair(task.candidate, updates)
    recipe = recipe.with_(step_size=step_size, decay=decay)
    lines: list[dict[str, str | int | float]] = []

    def keep(role: str, trained: rd.Run) -> None:
        test = rd.evaluate(trained, data.test)
        assert trained.multipliers.updates == updates
        numbers = {
            "step_size": step_size,
            "decay": decay,
            "val_worst_class": trained.scores.worst_class,
            "val_balanced": trained.scores.balanced,
            "test_worst_class": test.worst_class,
            "test_balanced": test.balanced,
            "largest_multiplier": float(trained.multipliers.weights.max()),
            "seconds": trained.seconds,
        }
        rounded = {name: float(f"{value:.5g}") for name, value in numbers.items()}
        lines.append(dict(zip(KEY, task.key, strict=True)) | {"role": role, "updates": updates} | rounded)

    teacher = rd.fit(
        plan.teacher, data.train, data.val, objective="robust", recipe=recipe, seed=seed, threads=1, progress=False
    )
    keep("teacher", teacher)
    for role, labels in zip(ROLES[1:], ("teacher", "one-hot"), strict=True) if plan.student else ():
        student = rd.distill(
            teacher,
            plan.student or "",
            data.train,
            data.val,
            objective="robust",
            validation_labels=labels,  # type: ignore[arg-type]
            recipe=recipe,
            seed=STUDENT_SEED + seed,
            threads=1,
            progress=False,
        )
        keep(role, student)
    return lines


KEY = ("data", "epochs", "every", "candidate", "seed")
COLUMNS = (
    *KEY,
    "role",
    "updates",
    "step_size",
    "decay",
    *MEASURES,
    *("largest_multiplier", "seconds"),
)


def read(*paths: Path) -> pd.DataFrame:
    """The lines of these files, each once, whoever else was at work on them."""
    lines = pd.concat([pd.read_csv(path) for path in paths], ignore_index=True)
    return lines.drop_duplicates([*KEY, "role"])


def train_all(tasks: Sequence[Task], path: Path, workers: int) -> None:
    """Runs what the file lacks; a task's lines are written together when it ends."""
    done = set(read(path)[list(KEY)].astype(str).itertuples(index=False, name=None)) if path.is_file() else set()
    missing = [task for task in tasks if task.key not in done]
    for number, lines in enumerate(results(missing, workers), start=1):
        new = not path.is_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerows(lines)
        print(f"{number}/{len(missing)}: {', '.join(str(lines[0][name]) for name in KEY)}", file=sys.stderr, flush=True)


def results(tasks: Sequence[Task], workers: int) -> Iterator[list[dict[str, str | int | float]]]:
    if workers == 1:
        torch.set_num_threads(1)
        yield from map(run, tasks)
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # Read when torch is imported, by the workers as by this process.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for future in as_completed([pool.submit(run, task) for task in tasks]):
            yield future.result()


def noise(values: FloatArray) -> tuple[float, float]:
    """The standard error of the difference of two rows' means, from values (candidates, seeds), and how much is noise.

    Seeds are common to the rows, so what is left after the means of rows and columns is noise. It is pooled over the
    better half of the rows, since those that fail are wilder than those that are compared. The best of many is partly
    lucky: being behind it by less than the second number is no failure (Dunnett's one-sided 5 %, simulated).
    """
    rows, seeds = values.shape
    if min(rows, seeds) < 2:
        return math.nan, math.nan
    best = values[np.argsort(-values.mean(axis=1))[: max(4, math.ceil(rows / 2))]]
    left = best - best.mean(axis=1, keepdims=True) - best.mean(axis=0) + best.mean()
    freedom = (len(best) - 1) * (seeds - 1)
    error = float(np.sqrt(np.square(left).sum() / freedom * 2 / seeds))
    rng = np.random.default_rng(0)
    means = rng.normal(size=(100_000, rows))
    ahead = (means[:, 1:].max(axis=1) - means[:, 0]) / np.sqrt(2 * rng.chisquare(freedom, len(means)) / freedom)
    return error, error * float(np.quantile(ahead, 0.95))


def percent(lines: pd.DataFrame, column: str, role: str | None = None) -> pd.DataFrame:
    """(candidates, seeds) of one role, or of the mean over roles."""
    chosen = lines if role is None else lines[lines["role"] == role]
    return 100 * chosen.pivot_table(index="candidate", columns="seed", values=column, sort=False)


def complete(lines: pd.DataFrame) -> pd.DataFrame:
    """The seeds that "paper" was trained with, of the candidates that were trained with all of them."""
    known = lines.loc[lines["candidate"] == "paper", "seed"]
    lines = lines[lines["seed"].isin(known if len(known) else lines["seed"])]
    seeds = lines["seed"].nunique()
    return lines.groupby("candidate").filter(lambda group: group["seed"].nunique() == seeds)


def print_problem(lines: pd.DataFrame) -> pd.DataFrame:
    """The table of a data set and length; returns its part of the summary by candidate."""
    first, roles = lines.iloc[0], [role for role in ROLES if role in set(lines["role"])]
    tested = [percent(lines, "val_worst_class", role) for role in roles]
    mean = percent(lines, "val_worst_class")
    errors, allowed = zip(*(noise(table.to_numpy()) for table in (*tested, mean)), strict=True)
    fails = [
        table.mean(axis=1).max() - table.mean(axis=1) > limit for table, limit in zip(tested, allowed[:-1], strict=True)
    ]
    behind = mean.mean(axis=1).max() - mean.mean(axis=1)
    others = {name: percent(lines, name).mean(axis=1) for name in MEASURES[1:]}
    largest = lines.groupby("candidate")["largest_multiplier"].mean()
    named = ", ".join(
        f"{name} {error:.1f} ({limit:.1f})"
        for name, error, limit in zip((*roles, "mean"), errors, allowed, strict=True)
    )
    print(
        ABOUT.format(
            **first[["data", "epochs", "updates", "every"]],
            errors=named,
            roles=" | ".join(roles),
            columns="--:|" * len(roles),
        )
    )
    # In the order of how firmly multipliers are held together, then of how fast they move.
    for candidate in lines.sort_values(["decay", "step_size"], kind="stable")["candidate"].unique():
        step_size = lines.loc[lines["candidate"] == candidate, "step_size"].iloc[0]
        cells = [
            f"{table.loc[candidate].mean():.1f}{' ✗' if bad[candidate] else ''}"
            for table, bad in zip(tested, fails, strict=True)
        ]
        cells += [f"{series[candidate]:.1f}" for series in (mean.mean(axis=1), behind, *others.values())]
        numbers = f"{step_size:.3g} | {step_size * first['updates']:.3g} | {mean.shape[1]}"
        print(f"| {candidate} | {numbers} | {' | '.join(cells)} | {largest[candidate]:.2f} |")
    print()
    table = pd.DataFrame({"fails": sum(bad.astype(int) for bad in fails), "behind": behind})
    against = {"val_worst_class": mean.mean(axis=1)} | others
    for name, series in against.items():
        table[name] = series - series.get("paper", math.nan)
    return table.assign(problems=len(roles))


def print_tables(lines: pd.DataFrame) -> None:
    """Every problem, then what holds over those of more than one seed."""
    parts = []
    for _, problem in lines.groupby(["data", "epochs", "every"], sort=False):
        kept = complete(problem)
        table = print_problem(kept)
        parts += [table] if kept["seed"].nunique() > 1 else []
    if not parts:
        return
    print(SUMMARY)
    together = pd.concat(parts)
    for candidate, of in sorted(together.groupby(level=0), key=lambda item: (-len(item[1]), item[1]["behind"].mean())):
        means = of.mean()
        counts = f"{of['problems'].sum()} | {of['fails'].sum()} | {means['behind']:.1f} | {of['behind'].max():.1f}"
        against = (f"{means[name]:+.1f}" for name in MEASURES)
        print(f"| {candidate} | {counts} | {' | '.join(against)} |")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=list(PLANS), default="digits-lt")
    parser.add_argument("--root", type=Path, help="folder of the data set's official files")
    parser.add_argument("--epochs", type=int, nargs="+", help="lengths of training; the data set's own by default")
    parser.add_argument("--every", type=int, help="steps between two updates; the recipe's by default")
    parser.add_argument("--candidates", nargs="+", help="see above; the data set's own by default")
    parser.add_argument("--seeds", type=int, help="how many, at least 2; the data set's own by default")
    parser.add_argument("--workers", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--out", type=Path, help="CSV file; runs/step-size/DATA.csv by default")
    parser.add_argument("--tables", type=Path, nargs="+", metavar="CSV", help="only print the tables of these files")
    chosen = parser.parse_args()
    if chosen.seeds is not None and chosen.seeds < 2:
        parser.error("--seeds must be at least 2: one seed has no spread")
    for path in chosen.tables or ():
        if not path.is_file():
            parser.error(f"--tables: there is no {path}")
    return chosen


def main() -> None:
    chosen = arguments()
    if chosen.tables:
        print_tables(read(*chosen.tables))
        return
    plan = PLANS[chosen.data]
    candidates = chosen.candidates or plan.candidates
    for candidate in candidates:
        pair(candidate, 1)
    tasks = [
        Task(chosen.data, chosen.root, epochs, chosen.every or plan.recipe.every, candidate, seed)
        for epochs in chosen.epochs or plan.epochs
        for seed in range(chosen.seeds or plan.seeds)
        for candidate in candidates
    ]
    path = chosen.out or Path("runs", "step-size", f"{chosen.data}.csv")
    begin = time.perf_counter()
    train_all(tasks, path, chosen.workers)
    print_tables(read(path))
    print(f"\nCommand: `python benchmarks/step_size.py {' '.join(sys.argv[1:])}`", end="")
    print(f" ({time.perf_counter() - begin:.0f} s, what was there already not counted)\n")
    for name, value in environment().items():
        print(f"- {name}: {value}")


if __name__ == "__main__":
    main()
