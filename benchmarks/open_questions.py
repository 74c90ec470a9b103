"""What label mixing, imbalance and the number of training images do to worst-class and balanced accuracy.

    python benchmarks/open_questions.py --data digits-lt --repeats 6 --workers 2
    python benchmarks/open_questions.py --data fashion-mnist-lt --root DIR --temperatures 3 --repeats 3 --workers 2

prints a section in Markdown, with where and when it was made; progress goes to stderr. digits-lt needs no download.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

import robustdistill as rd
from robustdistill.data.catalog import CATALOG
from robustdistill.environment import environment

WEIGHTS = (0.25, 0.5, 0.75, 1.0)  # and 0, at which no teacher has a say
RATIOS = (1.0, 10.0, 30.0, 100.0)
SHARES = (1.0, 0.3, 0.1)
OBJECTIVES = ("standard", "balanced", "robust")
MIXED_TEACHERS = ("standard", "robust")
SMALLEST = 2  # training images a class
STUDENT_SEED = 1000  # so that no student starts where a teacher of another repeat did

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """Models and recipe for a data set."""

    teacher: str
    student: str
    recipe: rd.Recipe

    def recipe_for(self, images: int, reference: int) -> rd.Recipe:
        """The recipe with epochs for as many optimiser steps on `images` as it makes on `reference` images."""
        steps = [math.ceil(count / self.recipe.batch_size) for count in (reference, images)]
        return self.recipe.with_(epochs=max(1, round(self.recipe.epochs * steps[0] / steps[1])))


# Fashion-MNIST-LT's recipe makes 3,510 steps of 128 images, too many for this many runs: 3 epochs in batches of 32 make
# 1,398. The multipliers are moved less often, by more each time, so that γ · updates stays as it is, 11. A cosine over
# 3 epochs is another schedule than one over the 30 of a smaller set; a drop after two thirds is the same for both.
FASHION = rd.Recipe.named("fashion-mnist-lt").with_(
    epochs=3, warmup_epochs=0, schedule="steps", milestones=(2,), batch_size=32, every=64, step_size=0.5
)
PLANS = {
    "digits-lt": Plan("convnet-16", "convnet-8", rd.Recipe.named("digits-lt")),
    "fashion-mnist-lt": Plan("convnet-8", "convnet-4", FASHION),
}

ABOUT = """## {name}

- Training: {images} images, {ratio:g}:1. {teacher} -> {student}, all of them with the recipe {recipe.name} at
  {recipe.epochs} epochs of {batches} steps of {recipe.batch_size} images; multipliers move by {recipe.step_size:g} \
every {recipe.every} steps.
- Every run makes about as many optimiser steps: fewer images mean more epochs.
- Validation has {validation} images in every run, with true labels; it is not thinned. Test has {test}. Nothing was \
selected.
- A seed sets the split, the long tail, the initialisation and the order. Accuracy on test in percent, mean over n seeds
  ± its standard error. *against*: the difference, seed by seed.
"""

MIXING = """
### Label mixing

Robust students on the targets (1 − w) · label + w · teacher at temperature T. At w = 0 no teacher has a say.

| teacher | T | w | n | worst class | balanced | worst class, against w = 0 | balanced, against w = 0 |
|---|--:|--:|--:|--:|--:|--:|--:|"""

PAIRS = """
### {title}

A teacher and a student of the same objective; "standard" is the plain pair. T = 1, w = 1.
{how}

| {what} | images (largest, smallest class) | pair | n | teacher: worst class | balanced | student: worst class \
| balanced | worst class, against plain | balanced, against plain |
|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|"""


@dataclass(frozen=True)
class Setting:
    """A training set: the ratio of its long tail and the share of its images that is kept."""

    ratio: float
    share: float


@dataclass(frozen=True)
class Task:
    """All runs of one seed on one training set: the pairs, and label mixing at `temperatures` if there are any."""

    data: str
    root: Path | None
    setting: Setting
    reference: int
    seed: int
    temperatures: tuple[float, ...] = ()


@dataclass(frozen=True)
class Result:
    """Accuracies (2,) on test by run, worst class and balanced in percent, and the sizes of the training classes."""

    task: Task
    accuracy: dict[str, tuple[float, float]]
    class_counts: tuple[int, ...]


def thinned(examples: rd.data.Examples, share: float, seed: int) -> rd.data.Examples:
    """A random `share` of each class, at least `SMALLEST` examples where there are so many."""
    labels, rng = examples.require_labels(), np.random.default_rng(seed)
    kept = []
    for label in range(examples.num_classes):
        rows = rng.permutation(np.flatnonzero(labels == label))
        kept.append(rows[: max(SMALLEST, round(share * len(rows)))])
    return examples.subset(np.sort(np.concatenate(kept)))


def run(task: Task) -> Result:
    plan, seed = PLANS[task.data], task.seed
    data = rd.data.load(task.data, task.root, seed, seed, ratio=task.setting.ratio)
    train = thinned(data.train, task.setting.share, seed)
    recipe = plan.recipe_for(len(train), task.reference)
    accuracy = {}

    def keep(name: str, trained: rd.Run) -> None:
        scores = rd.evaluate(trained, data.test)
        accuracy[name] = 100 * scores.worst_class, 100 * scores.balanced

    def student(teacher: rd.Run, objective: str, temperature: float = 1.0, weight: float = 1.0) -> rd.Run:
        return rd.distill(
            teacher,
            plan.student,
            train,
            data.val,
            objective=objective,
            temperature=temperature,
            teacher_weight=weight,
            validation_labels="one-hot",
            recipe=recipe,
            seed=STUDENT_SEED + seed,
            threads=1,
            progress=False,
        )

    for objective in OBJECTIVES:
        teacher = rd.fit(
            plan.teacher, train, data.val, objective=objective, recipe=recipe, seed=seed, threads=1, progress=False
        )
        keep(f"{objective} teacher", teacher)
        keep(f"{objective} student", student(teacher, objective))
        for temperature in task.temperatures if objective in MIXED_TEACHERS else ():
            for weight in WEIGHTS:
                keep(mixture(objective, temperature, weight), student(teacher, "robust", temperature, weight))
    if task.temperatures:
        keep(mixture(), student(teacher, "robust", weight=0.0))
    return Result(task, accuracy, tuple(train.class_counts.tolist()))


def mixture(teacher: str = "none", temperature: float = 0.0, weight: float = 0.0) -> str:
    return f"{teacher} at {temperature:g}, mixed with {weight:g}"


def settings(name: str, root: Path | None, reference: int) -> tuple[list[Setting], list[Setting]]:
    """The training sets of the sweep over ratios, of `reference` images each, and of that over shares."""
    ratios = []
    for other in RATIOS:
        train = rd.data.load(name, root, ratio=other).train
        if train.class_counts.min() >= SMALLEST:
            ratios.append(Setting(other, min(1.0, reference / len(train))))
    return ratios, [Setting(CATALOG[name].ratio, share) for share in SHARES]


def cell(values: FloatArray, sign: str = "") -> str:
    return f"{values.mean():{sign}.1f} ± {values.std(ddof=1) / len(values) ** 0.5:.1f}"


class Table:
    """Results by setting and run; `of` gives them seed after seed, which is what pairs them."""

    def __init__(self, results: Sequence[Result]) -> None:
        self.results = sorted(results, key=lambda result: result.task.seed)

    def of(self, setting: Setting, name: str) -> FloatArray:
        """(2, seeds): worst class, balanced."""
        return np.array([result.accuracy[name] for result in self.results if result.task.setting == setting]).T

    def counts(self, setting: Setting) -> tuple[int, ...]:
        return next(result.class_counts for result in self.results if result.task.setting == setting)


def print_mixing(table: Table, setting: Setting, temperatures: Sequence[float]) -> None:
    print(MIXING)
    labels = table.of(setting, mixture())
    print(f"| none | | 0 | {labels.shape[1]} | {cell(labels[0])} | {cell(labels[1])} | | |")
    for teacher in MIXED_TEACHERS:
        for temperature in temperatures:
            for weight in WEIGHTS:
                values = table.of(setting, mixture(teacher, temperature, weight))
                cells = [cell(row) for row in values] + [cell(row, "+") for row in values - labels]
                print(f"| {teacher} | {temperature:g} | {weight:g} | {values.shape[1]} | {' | '.join(cells)} |")


def print_pairs(table: Table, rows: Sequence[tuple[str, Setting]], **texts: str) -> None:
    print(PAIRS.format(**texts))
    for name, setting in rows:
        counts = table.counts(setting)
        plain = table.of(setting, "standard student")
        for objective in OBJECTIVES:
            teacher, student = (table.of(setting, f"{objective} {role}") for role in ("teacher", "student"))
            against = [""] * 2 if objective == "standard" else [cell(row, "+") for row in student - plain]
            cells = [cell(row) for row in (*teacher, *student)] + against
            sizes = f"{sum(counts)} ({max(counts)}, {min(counts)})"
            print(f"| {name} | {sizes} | {objective} | {plain.shape[1]} | {' | '.join(cells)} |")


def run_all(tasks: Sequence[Task], workers: int) -> list[Result]:
    # Read when torch is imported, by the workers as by this process.
    os.environ["OMP_NUM_THREADS"] = "1"
    results = []
    with ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        for future in as_completed([pool.submit(run, task) for task in tasks]):
            results.append(future.result())
            print(f"{len(results)}/{len(tasks)}: {results[-1].task}", file=sys.stderr, flush=True)
    return results


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=list(PLANS), default="digits-lt")
    parser.add_argument("--root", type=Path, help="folder of the data set's official files")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0, 3.0], help="of label mixing")
    parser.add_argument("--repeats", type=int, default=6, help="seeds, at least 2")
    parser.add_argument("--workers", type=int, default=1, help="processes, of one thread each")
    chosen = parser.parse_args()
    if chosen.repeats < 2:
        parser.error("--repeats must be at least 2: one seed has no spread")
    return chosen


def main() -> None:
    chosen = arguments()
    begin = time.perf_counter()
    long_tail = rd.data.load(chosen.data, chosen.root)
    reference = len(long_tail.train)
    ratios, sizes = settings(chosen.data, chosen.root, reference)
    temperatures = tuple(chosen.temperatures)
    # The set of both sweeps goes first: with label mixing on it, it takes longest.
    tasks = [
        Task(chosen.data, chosen.root, setting, reference, seed, temperatures if setting == sizes[0] else ())
        for setting in dict.fromkeys([*sizes, *ratios])
        for seed in range(chosen.repeats)
    ]
    table = Table(run_all(tasks, chosen.workers))

    plan = PLANS[chosen.data]
    facts = {
        "name": chosen.data,
        "ratio": sizes[0].ratio,
        "images": reference,
        "validation": len(long_tail.val),
        "test": len(long_tail.test),
        "batches": math.ceil(reference / plan.recipe.batch_size),
    }
    print(ABOUT.format(teacher=plan.teacher, student=plan.student, recipe=plan.recipe, **facts), end="")
    print_mixing(table, sizes[0], temperatures)
    print_pairs(
        table,
        [(f"{setting.ratio:g}", setting) for setting in ratios],
        title="Imbalance",
        what="ratio",
        how="Less skewed sets are thinned, class by class, to about as many images as the most skewed one has.",
    )
    print_pairs(
        table,
        [(f"{setting.share:g}", setting) for setting in sizes],
        title="Number of training images",
        what="share",
        how=f"A share of the long tail's images of each class, but at least {SMALLEST}.",
    )
    root = " --root DIR" if chosen.root else ""
    options = f"--temperatures {' '.join(f'{value:g}' for value in temperatures)} --repeats {chosen.repeats}"
    print(f"\nCommand: `python benchmarks/open_questions.py --data {chosen.data}{root} {options}", end="")
    print(f" --workers {chosen.workers}` ({time.perf_counter() - begin:.0f} s)\n")
    for name, value in environment().items():
        print(f"- {name}: {value}")


if __name__ == "__main__":
    main()
