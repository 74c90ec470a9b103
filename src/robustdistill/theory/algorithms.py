"""Algorithms 1-3 on a finite problem, with the exact minimiser of Lemma 5 in place of steps of SGD."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from robustdistill.errors import InputError, unknown
from robustdistill.objectives import Objective
from robustdistill.theory import tables
from robustdistill.theory.problems import FiniteProblem, Loss
from robustdistill.theory.tables import FloatArray

ValidationLabels = Literal["teacher", "one-hot"]


def lemma5(teacher: npt.ArrayLike, costs: npt.ArrayLike) -> FloatArray:
    """(M, C) log(c_y p^t_y): what minimises the margin loss, and any weighted Σ_y c_y p^t_y ℓ(y, f), pointwise.

    Args:
        teacher: (M, C) p^t.
        costs: (C,) c.

    Raises:
        InputError: a cost is negative or not finite, or leaves an instance without any class: where all classes that
            the teacher allows cost 0, every scorer is a minimiser and none is *the* one.

    >>> lemma5([[0.5, 0.5]], [1.0, 0.0])
    array([[-0.69314718,        -inf]])
    """
    probabilities = tables.checked_rows(teacher, None, "teacher")
    prices = np.asarray(costs, dtype=np.float64)
    if prices.shape != probabilities.shape[1:]:
        raise InputError(f"costs must be (C,) = {probabilities.shape[1:]}, got {prices.shape}")
    if len(bad := np.flatnonzero(~(np.isfinite(prices) & (prices >= 0)))):
        raise InputError(f"costs must be finite and not negative; class {bad[0]} has {prices[bad[0]]:g}")
    if len(bad := np.flatnonzero(probabilities @ prices == 0)):
        raise InputError(
            f"costs must leave every instance a class; on instance {bad[0]} all classes with a probability cost 0"
        )
    return tables.log(prices * probabilities)


@dataclass(frozen=True, eq=False)
class TabularRun:
    """Every iterate of Algorithm 1, 2 or 3; f^k is log(costs^k · p^t), so multipliers are all there is to keep.

    Attributes:
        objective: what was minimised: robust for Algorithms 1 and 2.
        teacher: (M, C) p^t.
        step_size: γ.
        multipliers: (K + 1, C) λ^0 ... λ^K.
        class_weights: (K, C) β^1 ... β^K.
        costs: (K, C) β^k/π̂^t.
        start: (M, C) f^0.
        risks: (K, C) R̂ of f^0 ... f^{K−1}, by which λ^1 ... λ^K were made.
    """

    objective: Objective
    teacher: FloatArray
    step_size: float
    multipliers: FloatArray
    class_weights: FloatArray
    costs: FloatArray
    start: FloatArray
    risks: FloatArray

    @property
    def updates(self) -> int:
        """K."""
        return len(self.costs)

    def iterate(self, k: int) -> FloatArray:
        """(M, C) the logits of f^k, k in 0..K.

        Raises:
            InputError: k is none of these.
        """
        if not 0 <= k <= self.updates:
            raise InputError(f"k must lie in 0..{self.updates}, got {k}")
        return self.start if k == 0 else tables.log(self.costs[k - 1] * self.teacher)

    def averaged_costs(self, k: int | None = None) -> FloatArray:
        """(C,) λ̄ = (Π_{i=1..k} costs^i)^{1/k} of Proposition 3, over the first k iterates, all by default."""
        k = self.updates if k is None else k
        if not 1 <= k <= self.updates:
            raise InputError(f"k must lie in 1..{self.updates}, got {k}")
        return np.asarray(np.exp(np.log(self.costs[:k]).mean(axis=0)))

    def averaged(self, k: int | None = None) -> FloatArray:
        """(M, C) f̄, the mean of f^1 ... f^k, by its form in Proposition 3: log(λ̄ p^t)."""
        return tables.log(self.averaged_costs(k) * self.teacher)


def tabular_run(
    problem: FiniteProblem,
    teacher: npt.ArrayLike,
    objective: Objective | str = "robust",
    *,
    updates: int,
    step_size: float,
    validation_labels: ValidationLabels = "teacher",
    loss: Loss = "cross-entropy",
    train: npt.ArrayLike | None = None,
    validation: npt.ArrayLike | None = None,
    multipliers: npt.ArrayLike | None = None,
    start: npt.ArrayLike | None = None,
) -> TabularRun:
    """Distilled margin-based DRO: Algorithm 1 (teacher-labelled validation), 2 (one-hot) or 3 (a traded-off objective).

    Without samples the population takes their place: no estimation error is left.

    Args:
        problem: the instances.
        teacher: (M, C) p^t.
        objective: one that has multipliers.
        updates: K.
        step_size: γ; Algorithm 3 multiplies it by the objective's robustness.
        validation_labels: by whom validation is labelled.
        loss: ℓ of the risks that move λ.
        train: (M, C) how often S has each instance with each label, or (M,) weights; decides π̂^t only.
        validation: the same for S_val; labels are needed where they are "one-hot".
        multipliers: λ^0 (C,), uniform by default.
        start: (M, C) f^0. By default all scores are equal with the cross-entropy: no class is worse, so that λ^1 = λ^0,
            where the regret bound begins. With the zero-one loss ties would make the first class look perfect; there it
            is Lemma 5's fit to λ^0.

    Raises:
        InputError: the objective has no multipliers, a number is out of range, λ^0 has a zero (it would stay one for
            ever), a class has no mass in a sample, or a risk is infinite (the teacher excludes a true class).
    """
    objective, probabilities = Objective.parse(objective), problem.distilled(teacher).posteriors
    _check(objective, updates, step_size, validation_labels)
    classes = problem.num_classes
    marginals = _weights(train, problem, "train") @ probabilities
    share = _start(multipliers, classes)
    joint = _joint(problem, probabilities, validation, validation_labels)
    mass = joint.sum(axis=0)
    for name, amount in (("train: the teacher's marginal", marginals), ("validation: the mass", mass)):
        if len(absent := np.flatnonzero(amount <= 0)):
            raise InputError(f"{name} of every class must be positive; class {absent[0]} has 0")
    kept = [share]
    risks = np.empty((updates, classes))
    weights, costs = np.empty((updates, classes)), np.empty((updates, classes))
    anchor = marginals if objective.anchor == "standard" else np.full(classes, 1 / classes)
    scores = _first(start, probabilities, loss, objective.costs(marginals, share))
    first = scores
    for k in range(updates):
        risks[k] = tables.product(joint / mass, tables.losses(scores, loss)).sum(axis=0)
        if not np.isfinite(risks[k]).all():
            bad = int(np.flatnonzero(~np.isfinite(risks[k]))[0])
            raise InputError(
                f"risks must be finite: class {bad} occurs on an instance where the scorer of update {k} gives it "
                "probability 0; give the teacher a small probability there"
            )
        share = _moved(share, step_size * objective.robustness * risks[k])
        kept.append(share)
        weights[k] = (1 - objective.robustness) * anchor + objective.robustness * share
        costs[k] = weights[k] / marginals
        scores = tables.log(costs[k] * probabilities)
    return TabularRun(objective, probabilities, step_size, np.array(kept), weights, costs, first, risks)


def _check(objective: Objective, updates: int, step_size: float, validation_labels: str) -> None:
    if not objective.needs_multipliers:
        raise InputError(f"objective must have multipliers, such as 'robust' or 'tradeoff:0.5', got '{objective}'")
    if updates < 1:
        raise InputError(f"updates must be at least 1, got {updates}")
    if not (math.isfinite(step_size) and step_size > 0):
        raise InputError(f"step_size must be positive and finite, got {step_size}")
    if validation_labels not in ("teacher", "one-hot"):
        raise unknown("validation_labels", str(validation_labels), ["teacher", "one-hot"])


def _weights(sample: npt.ArrayLike | None, problem: FiniteProblem, name: str) -> FloatArray:
    """(M,) how much of a sample each instance is; the masses where there is no sample."""
    if sample is None:
        return problem.masses
    table = np.asarray(sample, dtype=np.float64)
    if table.shape not in (problem.masses.shape, problem.posteriors.shape):
        raise InputError(f"{name} must be (M,) or (M, C) = {problem.posteriors.shape}, got {table.shape}")
    if not (np.isfinite(table).all() and (table >= 0).all() and table.sum() > 0):
        raise InputError(f"{name} must hold counts or weights, not negative and not all 0")
    table = table.sum(axis=1) if table.ndim == 2 else table
    return np.asarray(table / table.sum())


def _joint(
    problem: FiniteProblem, probabilities: FloatArray, validation: npt.ArrayLike | None, labels: ValidationLabels
) -> FloatArray:
    """(M, C) the share of each instance with each label in validation, as the labeller has it."""
    if labels == "teacher":
        return _weights(validation, problem, "validation")[:, None] * probabilities
    if validation is None:
        return problem.masses[:, None] * problem.posteriors
    if np.shape(validation) != problem.posteriors.shape:
        raise InputError(
            f"validation must be (M, C) = {problem.posteriors.shape} counts where labels are one-hot, "
            f"got {np.shape(validation)}"
        )
    _weights(validation, problem, "validation")
    return np.asarray(validation, dtype=np.float64)


def _start(multipliers: npt.ArrayLike | None, classes: int) -> FloatArray:
    if multipliers is None:
        return np.full(classes, 1 / classes)
    share = tables.checked_masses(multipliers, "multipliers")
    if share.shape != (classes,):
        raise InputError(f"multipliers must be (C,) = ({classes},), got {share.shape}")
    if len(zero := np.flatnonzero(share == 0)):
        raise InputError(f"multipliers must be positive: class {zero[0]} has 0 and would keep it for ever")
    return share


def _first(start: npt.ArrayLike | None, probabilities: FloatArray, loss: str, costs: FloatArray) -> FloatArray:
    if start is not None:
        return tables.checked_logits(start, probabilities.shape)
    return np.zeros_like(probabilities) if loss == "cross-entropy" else tables.log(costs * probabilities)


def _moved(share: FloatArray, exponents: FloatArray) -> FloatArray:
    """λ · exp(exponents), normalised; the smallest positive number in place of 0, from which nothing could rise."""
    logs = np.log(share) + exponents
    moved = np.maximum(np.exp(logs - logs.max()), np.finfo(np.float64).tiny)
    return np.asarray(moved / moved.sum())
