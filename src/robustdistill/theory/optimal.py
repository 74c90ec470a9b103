"""Theorem 1: the best scorer of every objective on a finite problem, with a certificate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robustdistill.errors import DivergedError, InputError
from robustdistill.objectives import Objective
from robustdistill.theory import tables
from robustdistill.theory.problems import FiniteProblem, combined
from robustdistill.theory.solver import Dual, maximise
from robustdistill.theory.tables import FloatArray


@dataclass(frozen=True, eq=False)
class Optimum:
    """A scorer that minimises an objective with the cross-entropy loss.

    Attributes:
        objective: which.
        logits: (M, C) log(β_y η_y/π_y), −∞ where η is 0.
        multipliers: λ* (C,) on the simplex; None where the objective has none. They are positive: where the optimum is
            0, what is left (below 1e-9, usually far below) keeps the scorer defined where only such classes occur.
        class_weights: β (C,), summing to 1.
        class_risks: (C,) of this scorer.
        value: of the objective at this scorer: nothing is better by more than `gap`.
        dual: a lower bound of the objective over all scorers.
    """

    objective: Objective
    logits: FloatArray
    multipliers: FloatArray | None
    class_weights: FloatArray
    class_risks: FloatArray
    value: float
    dual: float

    @property
    def gap(self) -> float:
        """value − dual, the certified distance from the optimum (negative by no more than rounding)."""
        return self.value - self.dual


def optimal_scorer(problem: FiniteProblem, objective: Objective | str, *, tolerance: float = 1e-9) -> Optimum:
    """The minimiser of an objective over all scorers (Theorem 1): softmax_y(f(x)) ∝ β_y η_y(x)/π_y.

    β is π for the standard objective, 1/C for the balanced one, λ* for the robust one and (1 − α) · anchor + αλ* for
    trade-offs; λ* maximises the concave dual. For the distilled objectives (Eq. 5-8) take `problem.distilled(teacher)`.

    Args:
        problem: what is known.
        objective: an Objective or its string.
        tolerance: largest gap to be accepted.

    Raises:
        InputError: `tolerance` is not positive.
        DivergedError: no scorer was certified within `tolerance`.

    >>> found = optimal_scorer(FiniteProblem([0.5, 0.5], [[0.9, 0.1], [0.5, 0.5]]), "robust")
    >>> found.gap < 1e-12, found.class_risks.round(6)
    (True, array([0.569461, 0.569461]))
    """
    if not tolerance > 0:
        raise InputError(f"tolerance must be positive, got {tolerance}")
    objective = Objective.parse(objective)
    priors, classes = problem.priors, problem.num_classes
    anchor = priors if objective.anchor == "standard" else np.full(classes, 1 / classes)
    dual = Dual(problem.masses, problem.class_densities, anchor, objective.robustness)
    multipliers = maximise(dual) if objective.needs_multipliers else None
    share = anchor if multipliers is None else multipliers
    class_weights = dual.class_weights(share)
    logits = tables.log(class_weights * problem.class_densities)
    risks = problem.class_risks(logits)
    value, lower = combined(risks, objective, priors), dual.value(share)
    if not value - lower <= tolerance:
        raise DivergedError(
            f"no scorer of objective '{objective}' was certified: the gap is {value - lower:.3g}, wanted at most "
            f"{tolerance:g}; are some probabilities or masses near the smallest numbers? Drop them, or raise tolerance"
        )
    return Optimum(objective, logits, multipliers, class_weights, risks, value, lower)
