"""How fast Algorithm 1 closes its gap on a finite problem, beside the rate that Theorem 4 states."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robustdistill.errors import InputError
from robustdistill.theory import tables
from robustdistill.theory.algorithms import TabularRun, tabular_run
from robustdistill.theory.optimal import optimal_scorer
from robustdistill.theory.problems import FiniteProblem, random_table
from robustdistill.theory.tables import FloatArray

_ATTEMPTS = 20


@dataclass(frozen=True, eq=False)
class Convergence:
    """Gaps of Algorithm 1's averaged scorer, a run with its own step size for each K; no sampling error anywhere.

    With r a bound of the class risks, exponentiated gradient of step size √(log C / K)/r leaves a gap of at most
    2r √(log C / K). Theorem 4 takes r = 2BZ, which holds for every problem with these constants. On one problem the
    largest risk that occurs is a bound too, with longer steps.

    Attributes:
        updates: K of each run.
        gaps: (len(updates),) L_rob-d(f̄) − min L_rob-d with r = 2BZ, exact.
        bounds: (len(updates),) 4BZ √(log C / K).
        tight_gaps: (len(updates),) the same gaps with r the largest risk.
        tight_bounds: (len(updates),) 2r √(log C / K) for it.
        bound: B, no less than any loss of any iterate.
        Z: 1/min π^t_y.
        largest_risk: of any class at any iterate of the second kind of runs, or a little more.
    """

    updates: tuple[int, ...]
    gaps: FloatArray
    bounds: FloatArray
    tight_gaps: FloatArray
    tight_bounds: FloatArray
    bound: float
    Z: float
    largest_risk: float


def convergence(problem: FiniteProblem, teacher: npt.ArrayLike, updates: Sequence[int]) -> Convergence:
    """Runs Algorithm 1 for each number of updates, with the step sizes that the bounds are for.

    B and the largest risk are found: they decide the step size, which decides the losses.

    Args:
        problem: the instances.
        teacher: (M, C) p^t.
        updates: numbers of updates.

    Raises:
        InputError: no number of updates, or one that is not positive.
    """
    if len(updates) == 0 or min(updates) < 1:
        raise InputError(f"updates must be positive numbers, got {list(updates)}")
    distilled = problem.distilled(teacher)
    best = optimal_scorer(distilled, "robust")
    Z, root = float(1 / distilled.priors.min()), math.sqrt(math.log(problem.num_classes))  # noqa: N806

    def runs(scale: float) -> list[TabularRun]:
        return [
            tabular_run(problem, teacher, updates=count, step_size=root / math.sqrt(count) / scale) for count in updates
        ]

    def gaps(found: list[TabularRun]) -> FloatArray:
        return np.array([distilled.risk(run.averaged(), "robust") - best.value for run in found])

    start = math.log(problem.num_classes)
    bound, theirs = _settled(
        lambda bound: runs(2 * bound * Z),
        lambda run: largest_loss(problem, run),
        max(start, _largest(problem, distilled.posteriors, best.logits)),
    )
    risk, tight = _settled(runs, lambda run: float(run.risks.max()), max(start, best.value))
    rates = root / np.sqrt(np.array(updates))
    return Convergence(
        updates=tuple(updates),
        gaps=gaps(theirs),
        bounds=4 * bound * Z * rates,
        tight_gaps=gaps(tight),
        tight_bounds=2 * risk * rates,
        bound=bound,
        Z=Z,
        largest_risk=risk,
    )


def _settled(
    runs: Callable[[float], list[TabularRun]], largest: Callable[[TabularRun], float], start: float
) -> tuple[float, list[TabularRun]]:
    """The first scale that nothing in its runs exceeds, and these runs."""
    scale = start
    for _ in range(_ATTEMPTS):
        found = runs(scale)
        seen = max(largest(run) for run in found)
        if seen <= scale:
            break
        scale = 1.05 * seen
    return scale, found


def largest_loss(problem: FiniteProblem, run: TabularRun) -> float:
    """The largest cross-entropy of any iterate on an instance and a class that the teacher gives a chance there."""
    return max(_largest(problem, run.teacher, run.iterate(k)) for k in range(run.updates + 1))


def _largest(problem: FiniteProblem, teacher: FloatArray, logits: FloatArray) -> float:
    possible = (problem.masses[:, None] > 0) & (teacher > 0)
    return float(tables.losses(logits, "cross-entropy")[possible].max())


def example(updates: Sequence[int] = (16, 64, 256, 1024, 4096), seed: int = 2) -> Convergence:
    """Convergence on a random problem of three classes, with a teacher that is right."""
    problem = random_table(30, 3, seed, concentration=2.0, imbalance=3.0)
    return convergence(problem, problem.posteriors, updates)
