"""What post-shift gains on test, how far its fit table flatters it, and what a large fit costs. No download.

    python benchmarks/post_shift.py > results/post-shift/README.md

prints a page in Markdown, with where and when it was made; progress goes to stderr.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

import robustdistill as rd
from robustdistill.environment import environment
from robustdistill.postshift import METHODS, Method

SHIFTS: tuple[Method | None, ...] = (None, *METHODS)
GAUSSIAN_SEEDS, DIGITS_SEEDS = 20, 6

# A model's table that is fitted on, and that of the test examples.
Pair = tuple[rd.Predictions, rd.Predictions]
Problem = Callable[[int], Pair]
Array = npt.NDArray[np.float64]

ABOUT = """# Post-shift: worst-class accuracy on test, and how far the fit table flatters

`PostShift()` of a frozen model, by both methods with their default settings, against the model as it is ("none").

- Gaussian: 10 classes in 6 dimensions, centres drawn anew for each seed; the model is the exact posterior under priors
  that fall from 30 to 1, so it is calibrated. Fit tables of 20, 100 or 500 examples a class; test has 2000 a class.
- digits-lt: convnet-8 on the embedded digits, trained for each objective; a seed sets the split, the long tail and the
  initialisation. The fit table is the validation split. The robust objective has already used it in training, to move
  its multipliers. The seeds share 1,797 images, so ± understates what other images would change.

Accuracy in percent, mean over n seeds ± its standard error. *gap*: the worst class on the fit table minus that on test.
(Of the unshifted Gaussian models it is negative: the lowest of ten accuracies over few examples is on average too low.)
*against gradient*: the worst class on test minus that of exponentiated-gradient, seed by seed.
"""


def gaussian(per_class: int, seed: int) -> Pair:
    rng = np.random.default_rng(seed)
    num_classes, dimensions = 10, 6
    centres = 1.3 * rng.uniform(0.5, 1.5, (num_classes, 1)) * rng.standard_normal((num_classes, dimensions))
    log_priors = -np.log(30) * np.arange(num_classes) / (num_classes - 1)

    def draw(count: int) -> rd.Predictions:
        labels = np.repeat(np.arange(num_classes), count)
        points = centres[labels] + rng.standard_normal((len(labels), dimensions))
        logits = log_priors - 0.5 * ((points[:, None] - centres) ** 2).sum(-1)
        return rd.Predictions(np.arange(len(labels)), logits, "logits", tuple("abcdefghij"), labels)

    test = draw(2000)  # first, so that it is the same for every size of the fit table
    return draw(per_class), test


def digits(objective: str, seed: int) -> Pair:
    data = rd.data.load("digits-lt", split_seed=seed, subset_seed=seed)
    run = rd.fit("convnet-8", data.train, data.val, objective=objective, seed=seed, progress=False)
    return rd.predict(run, data.val), rd.predict(run, data.test)


def problems() -> Iterator[tuple[str, int, Problem]]:
    for per_class in (20, 100, 500):
        yield f"Gaussian ({per_class})", GAUSSIAN_SEEDS, partial(gaussian, per_class)
    for objective in ("standard", "balanced", "robust"):
        yield f"digits-lt, {objective} (40)", DIGITS_SEEDS, partial(digits, objective)


def measured(problem: Problem, seeds: int) -> Array:
    """(len(SHIFTS), seeds, 3) in percent: worst class and balanced on test, worst class on the fit table."""
    values = np.empty((len(SHIFTS), seeds, 3))
    for seed in range(seeds):
        table, test = problem(seed)
        for row, method in enumerate(SHIFTS):
            shift = rd.PostShift(method=method).fit(table) if method else None
            here, there = ((shift.transform(part) if shift else part).evaluate() for part in (table, test))
            values[row, seed] = there.worst_class, there.balanced, here.worst_class
    return 100 * values


def cell(values: Array, sign: str = "") -> str:
    return f"{values.mean():{sign}.1f} ± {values.std(ddof=1) / len(values) ** 0.5:.1f}"


def print_accuracy() -> None:
    print("\n| model (fit examples a class) | n | shift | worst class | balanced | gap | against gradient |")
    print("|---|--:|---|--:|--:|--:|--:|")
    for name, seeds, problem in problems():
        print(name, file=sys.stderr, flush=True)
        values = measured(problem, seeds)
        gradient = values[SHIFTS.index("exponentiated-gradient"), :, 0]
        for method, (worst, balanced, fit_worst) in zip(SHIFTS, values.transpose(0, 2, 1), strict=True):
            against = "" if method == "exponentiated-gradient" else cell(worst - gradient, "+")
            gap = cell(fit_worst - worst, "+")
            print(f"| {name} | {seeds} | {method or 'none'} | {cell(worst)} | {cell(balanced)} | {gap} | {against} |")


def print_cost(num_classes: int = 1000, per_class: int = 50) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(num_classes), per_class)
    logits = rng.standard_normal((len(labels), num_classes), dtype=np.float32)
    logits -= np.linspace(0, 4, num_classes, dtype=np.float32)
    logits[np.arange(len(labels)), labels] += 3.5
    table = rd.Predictions(np.arange(len(labels)), logits, "logits", tuple(map(str, range(num_classes))), labels)
    print(f"\nOne fit on {len(labels):,} rows of {num_classes:,} classes in single precision (n = 1):\n")
    print("| method | CPU seconds | peak of memory beside the table, GB |\n|---|--:|--:|")
    for method in METHODS:
        print(f"cost of {method}", file=sys.stderr, flush=True)
        tracemalloc.start()
        begin = time.process_time()
        rd.PostShift(method=method).fit(table)
        seconds, peak = time.process_time() - begin, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        print(f"| {method} | {seconds:.1f} | {peak / 1e9:.1f} |")


def main() -> None:
    torch.set_num_threads(1)
    begin = time.perf_counter()
    print(ABOUT, end="")
    print_accuracy()
    print_cost()
    print("\nCommand: `OMP_NUM_THREADS=1 python benchmarks/post_shift.py`", end="")
    print(f" ({time.perf_counter() - begin:.0f} s, one thread)\n")
    for name, value in environment().items():
        print(f"- {name}: {value}")


if __name__ == "__main__":
    main()
