"""Problems that are known exactly: finitely many instances, their masses, and the probability of every class on each.

Expectations are then sums, so that the optimum of an objective, the terms of a bound and the steps of an algorithm are
numbers instead of estimates.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from robustdistill.errors import InputError
from robustdistill.objectives import Objective
from robustdistill.theory import tables
from robustdistill.theory.tables import FloatArray

Loss = Literal["cross-entropy", "zero-one"]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FiniteProblem:
    """M instances with masses and class probabilities; every risk of every scorer is a finite sum.

    Attributes:
        masses: (M,) P(X = x), summing to 1; zeros are allowed.
        posteriors: (M, C) η, P(Y = y | X = x), rows summing to 1; zeros are allowed.
        points: (M, d) where the instances lie, for pictures and networks; None where they lie nowhere.

    Raises:
        InputError: a mass or probability is negative or not finite, a sum is not 1, or a class has prior 0: its risk
            would be a mean over nothing, and no objective but the standard one would be defined.

    >>> problem = FiniteProblem([0.5, 0.5], [[0.9, 0.1], [0.5, 0.5]])
    >>> problem.priors
    array([0.7, 0.3])
    >>> round(problem.risk([[0.0, 0.0], [0.0, 0.0]], "robust"), 4)
    0.6931
    """

    masses: FloatArray
    posteriors: FloatArray
    points: FloatArray | None = None

    def __post_init__(self) -> None:
        masses = tables.checked_masses(self.masses)
        posteriors = tables.checked_rows(self.posteriors, len(masses), "posteriors")
        object.__setattr__(self, "masses", masses)
        object.__setattr__(self, "posteriors", posteriors)
        if self.points is not None:
            points = np.asarray(self.points, dtype=np.float64)
            if points.ndim != 2 or len(points) != len(masses):
                raise InputError(f"points must be (M, d) with M = {len(masses)}, got {points.shape}")
            object.__setattr__(self, "points", points)
        if len(absent := np.flatnonzero(self.priors <= 0)):
            raise InputError(
                f"every class must have a positive prior; class {absent[0]} has 0, so that its risk, a mean over its "
                "instances, is undefined: leave the class out"
            )

    @cached_property
    def priors(self) -> FloatArray:
        """(C,) π, P(Y = y)."""
        return np.asarray(self.masses @ self.posteriors)

    @property
    def num_classes(self) -> int:
        return int(self.posteriors.shape[1])

    @cached_property
    def class_densities(self) -> FloatArray:
        """(M, C) η/π: how much more frequent an instance is in a class than overall."""
        return np.asarray(self.posteriors / self.priors)

    def class_risks(self, logits: npt.ArrayLike, loss: Loss = "cross-entropy") -> FloatArray:
        """(C,) E[ℓ(y, f(X)) | Y = y] = E[η_y ℓ(y, f)]/π_y; infinite where a class is excluded on its own instances.

        Args:
            logits: (M, C) scores; −∞ excludes a class.
            loss: "cross-entropy", or "zero-one" with ties going to the first class.
        """
        scores = tables.checked_logits(logits, self.posteriors.shape)
        weights = self.masses[:, None] * self.class_densities
        return np.asarray(tables.product(weights, tables.losses(scores, loss)).sum(axis=0))

    def risk(self, logits: npt.ArrayLike, objective: Objective | str, loss: Loss = "cross-entropy") -> float:
        """The value of an objective (Eq. 1-4); arguments as in `class_risks`."""
        return combined(self.class_risks(logits, loss), Objective.parse(objective), self.priors)

    def distilled(self, teacher: npt.ArrayLike) -> FiniteProblem:
        """The problem that a student sees: the same instances, with the teacher's probabilities in place of η.

        Its priors are π^t and its risks φ (Eq. 5-8), so everything said of a problem is said of its distilled version.

        Args:
            teacher: (M, C) p^t.

        Raises:
            InputError: `teacher` is no table of distributions, or gives a class no probability anywhere.
        """
        probabilities = tables.checked_rows(teacher, len(self.masses), "teacher")
        if probabilities.shape != self.posteriors.shape:
            raise InputError(f"teacher must be (M, C) = {self.posteriors.shape}, got {probabilities.shape}")
        if len(absent := np.flatnonzero(self.masses @ probabilities <= 0)):
            raise InputError(
                f"teacher must give every class some probability; class {absent[0]} has none, so that the distilled "
                "risk divides by a marginal of 0"
            )
        return FiniteProblem(self.masses, probabilities, self.points)

    def sample(self, count: int, seed: int) -> tuple[IntArray, IntArray]:
        """(count,) instances drawn by mass and (count,) labels drawn by η.

        Raises:
            InputError: `count` is not positive.
        """
        if count < 1:
            raise InputError(f"count must be at least 1, got {count}")
        rng = np.random.default_rng(seed)
        instances = rng.choice(len(self.masses), size=count, p=self.masses)
        below = np.cumsum(self.posteriors, axis=1)
        # Scaled by the last sum, so that rounding of it never leaves a draw without a class.
        labels = (below[instances] <= (rng.random(count) * below[instances, -1])[:, None]).sum(axis=1)
        return instances.astype(np.int64), labels.astype(np.int64)

    def counts(self, instances: npt.ArrayLike, labels: npt.ArrayLike) -> IntArray:
        """(M, C) how often a sample has each instance with each label."""
        table = np.zeros(self.posteriors.shape, dtype=np.int64)
        np.add.at(table, (np.asarray(instances), np.asarray(labels)), 1)
        return table


def combined(risks: FloatArray, objective: Objective, priors: FloatArray) -> float:
    """(1 − robustness) · average + robustness · worst of (C,) class risks."""
    average = float(risks.mean() if objective.anchor == "balanced" else priors @ risks)
    if not objective.needs_multipliers:
        return average
    worst = float(risks.max())
    return worst if objective.robustness == 1 else (1 - objective.robustness) * average + objective.robustness * worst


def random_table(
    instances: int, classes: int, seed: int, *, concentration: float = 0.5, zeros: float = 0.0, imbalance: float = 1.0
) -> FiniteProblem:
    """A random problem: masses and rows of η from Dirichlet distributions, some of them exactly zero.

    Args:
        instances: M.
        classes: C.
        seed: of the draw.
        concentration: of the rows; small ones are close to certain.
        zeros: chance of each entry of η to be zero. One instance of each class keeps it.
        imbalance: how much rarer the last class is than the first, in expectation.

    Raises:
        InputError: fewer instances than classes, or a setting out of range.

    >>> random_table(20, 3, seed=0).posteriors.shape
    (20, 3)
    """
    if not instances >= classes >= 2:
        raise InputError(f"instances >= classes >= 2 is needed, got {instances} instances and {classes} classes")
    if not (0 <= zeros < 1 and concentration > 0 and imbalance >= 1):
        raise InputError(
            "0 <= zeros < 1, concentration > 0 and imbalance >= 1 are needed, got "
            f"{zeros}, {concentration} and {imbalance}"
        )
    rng = np.random.default_rng(seed)
    rows = rng.gamma(concentration, size=(instances, classes)) + 1e-12
    rows *= imbalance ** (-np.arange(classes) / (classes - 1))
    dropped = rng.random(rows.shape) < zeros
    kept = np.arange(instances), np.concatenate([np.arange(classes), rng.integers(classes, size=instances - classes)])
    dropped[kept] = False
    rows[dropped] = 0.0
    return FiniteProblem(rng.dirichlet(np.ones(instances)), rows / rows.sum(axis=1, keepdims=True))


def gaussian_mixture(
    means: npt.ArrayLike, priors: npt.ArrayLike, *, scales: npt.ArrayLike = 1.0, cells: int = 60, margin: float = 4.0
) -> FiniteProblem:
    """Classes that are axis-aligned normal distributions, with x known up to a cell of a grid.

    The mass of each class in each cell is exact (differences of the normal distribution function; the outer cells reach
    to infinity), so this is no approximation of the quantised problem: priors are as given. Cells that no class reaches
    in double precision are left out.

    Args:
        means: (C,) or (C, d) with d of at most 3.
        priors: (C,) π, positive; counts are normalised.
        scales: standard deviations: a number, (C,) or (C, d).
        cells: on each axis.
        margin: how far the grid reaches beyond the means, in standard deviations.

    Raises:
        InputError: shapes do not fit, or a prior or scale is not positive.
    """
    centres = np.asarray(means, dtype=np.float64)
    centres = centres[:, None] if centres.ndim == 1 else centres
    share = np.asarray(priors, dtype=np.float64)
    if centres.ndim != 2 or not 1 <= centres.shape[1] <= 3 or len(centres) < 2:
        raise InputError(f"means must be (C,) or (C, d) with C >= 2 and d <= 3, got {np.shape(means)}")
    if share.shape != centres.shape[:1] or not (np.isfinite(share) & (share > 0)).all():
        raise InputError(f"priors must be ({len(centres)},) and positive, got {priors!r}")
    spread = np.asarray(scales, dtype=np.float64)
    spread = np.broadcast_to(spread[:, None] if spread.ndim == 1 else spread, centres.shape)
    if not (np.isfinite(centres).all() and np.isfinite(spread).all() and (spread > 0).all()):
        raise InputError(f"means must be finite and scales positive and finite, got {means!r} and {scales!r}")
    if cells < 2:
        raise InputError(f"cells must be at least 2, got {cells}")
    grids, inside = zip(
        *(_axis(centres[:, axis], spread[:, axis], cells, margin) for axis in range(centres.shape[1])), strict=True
    )
    joint = share / share.sum() * np.ones((1, 1))
    for chances in inside:
        joint = (joint[:, None, :] * chances[None]).reshape(-1, len(share))
    reached = joint.sum(axis=1) > 0
    points = np.array(list(itertools.product(*grids)))[reached]
    masses = joint[reached].sum(axis=1)
    return FiniteProblem(masses, joint[reached] / masses[:, None], points)


def _axis(means: FloatArray, scales: FloatArray, cells: int, margin: float) -> tuple[FloatArray, FloatArray]:
    """Cell centres (cells,) of one axis, and the chance of each class to fall in each, (cells, C)."""
    edges = np.linspace((means - margin * scales).min(), (means + margin * scales).max(), cells + 1)
    bounds = np.concatenate([[-np.inf], edges[1:-1], [np.inf]])
    standard = (bounds[:, None] - means) / scales
    tail = np.vectorize(math.erfc, otypes=[float])
    below, above = tail(-standard / math.sqrt(2)) / 2, tail(standard / math.sqrt(2)) / 2
    # Differences of the smaller tail, so that far cells keep their relative precision.
    chances = np.where(standard[:-1] > 0, above[:-1] - above[1:], below[1:] - below[:-1])
    return (edges[:-1] + edges[1:]) / 2, chances
