"""The pictures and numbers of docs/theory.md: from Theorem 1 to a trained network, on problems that are known exactly.

    OMP_NUM_THREADS=1 python benchmarks/theory_pictures.py

writes docs/theory/*.png and prints the tables of the page in Markdown. No download.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

import robustdistill as rd
from robustdistill.data.splits import Examples
from robustdistill.environment import environment
from robustdistill.theory.convergence import example
from robustdistill.theory.figures import converged

Array = npt.NDArray[np.float64]

OBJECTIVES = ("standard", "balanced", "tradeoff:0.15", "robust")
COLOURS = ("#0072b2", "#d55e00", "#009e73")  # Okabe & Ito (2008)
NAMES = ("common", "middle", "rare")
PRIORS = (0.75, 0.2, 0.05)
DRAWS, SEEDS = 40, 5


def softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def tempered(probabilities: Array, temperature: float) -> Array:
    return softmax(np.log(np.maximum(probabilities, 1e-300)) / temperature)


def plane_problem() -> rd.theory.FiniteProblem:
    """Three overlapping classes on a plane, 15:1."""
    return rd.theory.gaussian_mixture([[0.0, 0.0], [1.6, 0.6], [0.4, 1.8]], PRIORS, cells=40)


def optimal(folder: Path) -> None:
    """Theorem 1 on a line."""
    problem = rd.theory.gaussian_mixture([-1.0, 0.6, 1.6], PRIORS, cells=240)
    figure = Figure(figsize=(10.4, 5.2), layout="constrained")
    print("\n| objective | λ* | class risks | value | certified gap |\n|---|---|---|--:|--:|")
    axes = figure.subplots(2, 2, sharex=True, sharey=True).ravel()
    for axis, objective in zip(axes, OBJECTIVES, strict=True):
        found = rd.theory.optimal_scorer(problem, objective)
        for y, name in enumerate(NAMES):
            axis.plot(problem.points[:, 0], softmax(found.logits)[:, y], color=COLOURS[y], label=name)
        axis.set_title(f"{objective}: worst class {found.class_risks.max():.3f}", loc="left", fontsize=10)
        shares = "–" if found.multipliers is None else numbers(found.multipliers)
        risks, gap = numbers(found.class_risks), f"{abs(found.gap):.0e}"
        print(f"| {objective} | {shares} | {risks} | {found.value:.4f} | {gap} |")
    finish(axes, xlabel="x", ylabel="softmax of the best scorer")
    axes[0].legend(frameon=False, fontsize=8.5)
    write(figure, folder / "optimal.png")


def rates(folder: Path) -> None:
    """Algorithm 1 against its bound."""
    found = example()
    print(f"\nB = {found.bound:.3g}, Z = {found.Z:.3g}, largest risk r = {found.largest_risk:.3g}\n")
    print("| K | gap, γ of Theorem 4 | 4BZ √(log C / K) | gap, γ for r | 2r √(log C / K) |\n|--:|--:|--:|--:|--:|")
    for row in zip(found.updates, found.gaps, found.bounds, found.tight_gaps, found.tight_bounds, strict=True):
        print("| {:,} | {:.2e} | {:.3g} | {:.2e} | {:.3g} |".format(*row))
    write(converged(found), folder / "convergence.png")


def teachers() -> dict[str, Array]:
    """Teachers of the plane's problem, from right to useless."""
    problem = plane_problem()
    truth, rng = problem.posteriors, np.random.default_rng(0)
    blind = np.empty_like(truth)
    for value in np.unique(problem.points[:, 0]):
        column = problem.points[:, 0] == value
        blind[column] = problem.masses[column] @ truth[column] / problem.masses[column].sum()
    return {
        "right": truth,
        "balanced": softmax(np.log(truth / problem.priors)),
        "temperature 3": tempered(truth, 3.0),
        "temperature 1/3": tempered(truth, 1 / 3),
        "noisy": softmax(np.log(truth) + rng.normal(size=truth.shape)),
        "blind to one axis": blind,
        "constant": np.tile(problem.priors, (len(truth), 1)),
    }


def fitness(folder: Path, examples: int = 2000) -> None:
    """What the estimates of a teacher's fitness say, where the truth is known."""
    problem = plane_problem()
    print(
        f"\nLargest over classes, {examples:,} held-out examples, mean of {DRAWS} draws ± standard deviation of one.\n"
    )
    print(
        "| teacher | truth | lower | estimate | upper | left out | score without features |\n"
        "|---|--:|--:|--:|--:|--:|--:|"
    )
    found: dict[str, Array] = {}
    for name, teacher in teachers().items():
        progress(f"fitness of {name}")
        rows = []
        for seed in range(DRAWS):
            instances, labels = problem.sample(examples, seed)
            table = rd.Predictions(np.arange(examples), teacher[instances], "probabilities", NAMES, labels)
            one = rd.theory.teacher_fitness(table, features=problem.points[instances], seed=seed)
            rows.append([part.values for part in (one.lower, one.estimate, one.upper, one.refinement)])
        truth = rd.theory.approximation_errors(problem, teacher)
        found[name] = np.array([truth, *np.mean(rows, axis=0)[:3]])
        cells = [spread([row[part].max() for row in rows]) for part in range(4)]
        print(f"| {name} | {truth.max():.2f} | {' | '.join(cells)} | {np.mean([row[2].max() for row in rows]):.2f} |")
    print("\nBias by class (mean over draws minus the truth; standard error of each at most 0.02):\n")
    print("| teacher | lower | estimate | upper |\n|---|---|---|---|")
    for name, (truth, *parts) in found.items():
        print(f"| {name} | {' | '.join(numbers(part - truth, '+.2f') for part in parts)} |")
    figure = Figure(figsize=(10.4, 4.2), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for y, axis in enumerate(axes):
        for place, values in enumerate(found.values()):
            axis.plot(values[[1, 3], y], [place] * 2, color="#c3c9d0", linewidth=6, solid_capstyle="butt", zorder=1)
            axis.plot(values[2, y], place, "o", color=COLOURS[0], zorder=3)
            axis.plot(values[0, y], place, "|", color="black", markersize=16, markeredgewidth=2, zorder=2)
        axis.set_title(f"{NAMES[y]} class", loc="left", fontsize=10)
        axis.set_yticks(range(len(found)), list(found))
    finish(axes, xlabel="E|p/π^t − η/π|   (bar: bounds, dot: estimate, line: truth)")
    axes[0].invert_yaxis()
    write(figure, folder / "fitness.png")


def variance() -> None:
    """Appendix B's claim: the variance of the loss with a teacher's labels against that with one-hot labels."""
    problem = plane_problem()
    scorer = rd.theory.optimal_scorer(problem, "robust").logits
    print("\n| teacher | ratio by class | of the example's loss |\n|---|---|--:|")
    for name, teacher in teachers().items():
        found = rd.theory.loss_variances(problem, teacher, scorer)
        print(f"| {name} | {numbers(found.ratios, '.2f')} | {found.distilled_total / found.one_hot_total:.2f} |")


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(2, 32), torch.nn.ReLU(), torch.nn.Linear(32, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3)
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.layers(inputs)
        return output


def network(folder: Path, train: int = 6000, val: int = 3000) -> None:
    """Robust distillation with networks, measured exactly: their class risks are sums over the plane."""
    problem = plane_problem()
    recipe = rd.Recipe(epochs=30, batch_size=64, learning_rate=0.05, schedule="cosine", every=8, step_size=0.5)
    points = torch.tensor(problem.points, dtype=torch.float32)

    def logits(run: Any) -> Array:
        with torch.no_grad():
            return np.asarray(run.model.eval()(points).double().numpy())

    risks: dict[str, list[Array]] = {}
    last: dict[str, Array] = {}
    shares, errors = [], []
    for seed in range(SEEDS):
        progress(f"networks, seed {seed}")
        splits = [examples(problem, count, 10 * seed + part) for part, count in enumerate((train, val))]
        common: dict[str, Any] = {"recipe": recipe, "risk": "cross-entropy", "progress": False}
        teacher = rd.fit(Net, *splits, objective="standard", seed=seed, **common)
        students = {
            f"{objective} student": rd.distill(teacher, Net, *splits, objective=objective, seed=1000 + seed, **common)
            for objective in ("standard", "robust")
        }
        for name, run in {"standard teacher": teacher, **students}.items():
            last[name] = logits(run)
            risks.setdefault(name, []).append(problem.class_risks(last[name]))
        shares.append(students["robust student"].multipliers.weights.numpy())
        errors.append(rd.theory.approximation_errors(problem, softmax(logits(teacher))))
    exact = {name: rd.theory.optimal_scorer(problem, name) for name in ("standard", "robust")}
    print(f"\nCross-entropy by class, exact over the plane; networks: mean of {SEEDS} seeds ± standard error.\n")
    print(f"| scorer | {' | '.join(NAMES)} | worst |\n|---|--:|--:|--:|--:|")
    for name, found in exact.items():
        cells = " | ".join(f"{risk:.3f}" for risk in found.class_risks)
        print(f"| best {name} scorer (Theorem 1) | {cells} | {found.class_risks.max():.3f} |")
    for name, values in risks.items():
        table = np.array(values)
        cells = [spread(column, error=True) for column in (*table.T, table.max(axis=1))]
        print(f"| {name}, network | {' | '.join(cells)} |")
    print(f"\nλ* {numbers(exact['robust'].multipliers)}; λ of the networks {numbers(np.mean(shares, axis=0))}")
    print(f"the teachers' approximation error by class {numbers(np.mean(errors, axis=0))}")
    regions(folder, problem, {"Theorem 1, robust": exact["robust"].logits, **last})


def examples(problem: rd.theory.FiniteProblem, count: int, seed: int) -> Examples:
    instances, labels = problem.sample(count, seed)
    return Examples(problem.points[instances].astype(np.float32), labels, np.arange(count), NAMES)


def regions(folder: Path, problem: rd.theory.FiniteProblem, scorers: dict[str, Array]) -> None:
    figure = Figure(figsize=(10.4, 3.2), layout="constrained")
    axes = figure.subplots(1, len(scorers), sharey=True)
    tints = ListedColormap(["#9ecae8", "#f2b48a", "#8fd6bd"])
    for axis, (name, logits) in zip(axes, scorers.items(), strict=True):
        axis.scatter(
            *problem.points.T, c=logits.argmax(axis=1), cmap=tints, vmin=0, vmax=2, s=27, marker="s", linewidths=0
        )
        axis.set_title(f"{name}\nworst class {problem.class_risks(logits).max():.2f}", loc="left", fontsize=9.5)
        axis.set(xlim=(-2.5, 4), ylim=(-2.5, 4), aspect="equal")
        for centre, colour, label in zip([[0, 0], [1.6, 0.6], [0.4, 1.8]], COLOURS, NAMES, strict=True):
            axis.plot(*centre, "o", color=colour, markeredgecolor="white", label=label)
    axes[0].legend(frameon=False, fontsize=8, loc="lower left")
    write(figure, folder / "network.png")


def numbers(values: npt.ArrayLike, form: str = ".3f") -> str:
    return " ".join(f"{value:{form}}" for value in np.asarray(values))


def spread(values: npt.ArrayLike, error: bool = False) -> str:
    array = np.asarray(values)
    deviation = array.std(ddof=1) / (len(array) ** 0.5 if error else 1.0)
    return f"{array.mean():.3f} ± {deviation:.3f}" if error else f"{array.mean():.2f} ± {deviation:.2f}"


def finish(axes: npt.NDArray[Any], xlabel: str, ylabel: str = "") -> None:
    axis: Axes
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(True, color="#dde1e6", linewidth=0.7)
        axis.set_axisbelow(True)
    axes[0].get_figure().supxlabel(xlabel, fontsize=10)
    axes[0].get_figure().supylabel(ylabel, fontsize=10)


def write(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs" / "theory")
    folder = parser.parse_args().out
    torch.set_num_threads(1)
    begin = time.perf_counter()
    parts: dict[str, Callable[[], None]] = {
        "Theorem 1": lambda: optimal(folder),
        "Convergence": lambda: rates(folder),
        "Fitness": lambda: fitness(folder),
        "Variance": variance,
        "Network": lambda: network(folder),
    }
    for title, part in parts.items():
        print(f"\n## {title}")
        part()
    print(f"\n{time.perf_counter() - begin:.0f} s on one thread\n")
    for name, value in environment().items():
        print(f"- {name}: {value}")


if __name__ == "__main__":
    main()
