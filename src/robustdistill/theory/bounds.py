"""Theorems 2, 4 and 8 and Lemma 7, term by term.

That such a bound holds proves little, since the terms are loose; what they are for is comparison: which of them is
large, and what would make it smaller. τ stands where the proof of Theorem 8 has it, on the student's estimation error
Δ(n), and not on the one-hot validation error as in its statement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robustdistill.errors import InputError
from robustdistill.theory import tables
from robustdistill.theory.problems import FiniteProblem, Loss
from robustdistill.theory.tables import FloatArray


def approximation_errors(problem: FiniteProblem, teacher: npt.ArrayLike, tau: float = 1.0) -> FloatArray:
    """(C,) E|τ p^t_y/π^t_y − η_y/π_y|: how far the teacher is from the class densities (Theorem 2; with τ Theorem 8).

    The largest counts. It is 0 for a teacher that is right up to a factor for each class, and at least |τ − 1|.

    Args:
        problem: the truth.
        teacher: (M, C) p^t.
        tau: not negative.

    Raises:
        InputError: `tau` is negative or not finite, or `teacher` is no table of distributions.

    >>> problem = FiniteProblem([0.5, 0.5], [[0.9, 0.1], [0.5, 0.5]])
    >>> approximation_errors(problem, [[0.7, 0.3], [0.7, 0.3]]).round(4)
    array([0.2857, 0.6667])
    """
    if not (math.isfinite(tau) and tau >= 0):
        raise InputError(f"tau must be finite and not negative, got {tau}")
    with np.errstate(over="ignore"):  # an infinite error is one
        off = tau * problem.distilled(teacher).class_densities - problem.class_densities
    return np.asarray(problem.masses @ np.abs(off))


@dataclass(frozen=True, eq=False)
class Theorem2:
    """|L̂_rob-d(f) − L_rob(f)| ≤ B max_y approximation_y + max_y estimation_y, for one student and one sample.

    Attributes:
        approximation: (C,) E|p^t_y/π^t_y − η_y/π_y|.
        estimation: (C,) |φ_y(f) − φ̂_y(f)|.
        bound: B.
        distilled: L̂_rob-d(f), what the student sees.
        true: L_rob(f), what is wanted.
    """

    approximation: FloatArray
    estimation: FloatArray
    bound: float
    distilled: float
    true: float

    @property
    def difference(self) -> float:
        """The left-hand side."""
        return abs(self.distilled - self.true)

    @property
    def total(self) -> float:
        """The right-hand side."""
        return float(self.bound * self.approximation.max() + self.estimation.max())


def theorem2(
    problem: FiniteProblem,
    teacher: npt.ArrayLike,
    logits: npt.ArrayLike,
    train: npt.ArrayLike,
    *,
    bound: float | None = None,
    loss: Loss = "cross-entropy",
) -> Theorem2:
    """Both sides of Theorem 2.

    Args:
        problem: the truth.
        teacher: (M, C) p^t.
        logits: (M, C) the student f.
        train: (M,) how often S has each instance.
        bound: B; by default the largest loss on any class that teacher or truth gives a chance.
        loss: ℓ.

    Raises:
        InputError: a class has no mass in the sample, or the loss exceeds `bound` or is infinite.
    """
    distilled = problem.distilled(teacher)
    scores = tables.checked_logits(logits, problem.posteriors.shape)
    weights = np.asarray(train, dtype=np.float64)
    if weights.shape != problem.masses.shape or not (weights >= 0).all() or not weights.sum() > 0:
        raise InputError(f"train must be (M,) = {problem.masses.shape} counts, not negative and not all 0")
    sample = FiniteProblem(weights / weights.sum(), distilled.posteriors)
    possible = (problem.masses[:, None] > 0) & ((problem.posteriors > 0) | (distilled.posteriors > 0))
    largest = float(tables.losses(scores, loss)[possible].max())
    if not math.isfinite(largest):
        raise InputError("logits must give every class that can occur a probability; a loss is infinite, B cannot be")
    if bound is not None and not bound >= largest:
        raise InputError(f"bound must be at least the largest loss, {largest:.6g}, got {bound}")
    seen, expected = sample.class_risks(scores, loss), distilled.class_risks(scores, loss)
    return Theorem2(
        approximation=approximation_errors(problem, distilled.posteriors),
        estimation=np.abs(expected - seen),
        bound=largest if bound is None else float(bound),
        distilled=float(seen.max()),
        true=problem.risk(scores, "robust", loss),
    )


@dataclass(frozen=True)
class RobustBound:
    """How much worse than the best robust scorer the averaged student can be (Theorems 4 and 8), by its four reasons.

    Attributes:
        approximation: 2B max_y E|τ p^t_y/π^t_y − η_y/π_y|.
        validation: 2Δ(n_val, δ/2), with one-hot validation labels 2Δ_oh(n_val, δ/2).
        train: 2τΔ(n, δ/2).
        convergence: 4BZ √(log C / K).
        step_size: γ, for which it holds.
        validation_size: the smallest n_val for which it holds; None without a δ.
    """

    approximation: float
    validation: float
    train: float
    convergence: float
    step_size: float
    validation_size: int | None = None

    @property
    def total(self) -> float:
        """Their sum."""
        return self.approximation + self.validation + self.train + self.convergence


def theorem4(
    approximation: float | npt.ArrayLike,
    *,
    bound: float,
    Z: float,  # noqa: N803 (the paper's letter)
    classes: int,
    updates: int,
    delta_train: float = 0.0,
    delta_val: float = 0.0,
    delta: float | None = None,
) -> RobustBound:
    """The right-hand side of Theorem 4, for Algorithm 1.

    Args:
        approximation: E|p^t_y/π^t_y − η_y/π_y|, the largest or (C,) of them.
        bound: B, of the loss.
        Z: bound of 1/π^t_y; at least C.
        classes: C.
        updates: K.
        delta_train: Δ(n, δ/2), an input since no covering number of a network can be computed.
        delta_val: Δ(n_val, δ/2).
        delta: δ, for the size of the validation set.

    Raises:
        InputError: a value is out of range; with Z < C the marginals could not sum to 1.

    >>> terms = theorem4(0.1, bound=2.0, Z=10.0, classes=10, updates=10_000)
    >>> terms.approximation, round(terms.convergence, 4), round(terms.step_size, 6)
    (0.4, 1.2139, 0.000379)
    """
    return theorem8(
        approximation,
        bound=bound,
        Z=Z,
        classes=classes,
        updates=updates,
        tau=1.0,
        delta_train=delta_train,
        delta_val=delta_val,
        delta=delta,
    )


def theorem8(
    approximation: float | npt.ArrayLike,
    *,
    bound: float,
    Z: float,  # noqa: N803
    classes: int,
    updates: int,
    tau: float = 1.0,
    delta_train: float = 0.0,
    delta_val: float = 0.0,
    delta: float | None = None,
) -> RobustBound:
    """The right-hand side of Theorem 8 (Algorithm 2: one-hot validation labels) as its proof has it: 2Δ_oh + 2τΔ.

    Args:
        approximation: E|τ p^t_y/π^t_y − η_y/π_y| at this τ, the largest or (C,) of them, from
            `approximation_errors`.
        bound: B, of the loss.
        Z: bound of 1/π_y; at least C.
        classes: C.
        updates: K.
        tau: τ > 0, any: `best_tau` gives the one that makes the sum smallest.
        delta_train: Δ(n, δ/2).
        delta_val: Δ_oh(n_val, δ/2), with one-hot labels.
        delta: δ, for the size of the validation set.

    Raises:
        InputError: a value is out of range.
    """
    check_constants(bound=bound, Z=Z, classes=classes, delta=delta)
    errors = np.asarray(approximation, dtype=np.float64)
    for name, value in (("approximation", float(errors.max())), ("delta_train", delta_train), ("delta_val", delta_val)):
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"{name} must be finite and not negative, got {value}")
    if not (math.isfinite(tau) and tau >= 0):
        raise InputError(f"tau must be finite and not negative, got {tau}")
    if updates < 1:
        raise InputError(f"updates must be at least 1, got {updates}")
    return RobustBound(
        approximation=2 * bound * float(errors.max()),
        validation=2 * delta_val,
        train=2 * tau * delta_train,
        convergence=4 * bound * Z * math.sqrt(math.log(classes) / updates),
        step_size=step_size(bound, Z, classes, updates),
        validation_size=None if delta is None else validation_size(Z, classes, delta),
    )


def step_size(bound: float, Z: float, classes: int, updates: int) -> float:  # noqa: N803
    """γ = (1/(2BZ)) √(log C / K), of Theorems 4 and 8; raises as `check_constants`."""
    check_constants(bound=bound, Z=Z, classes=classes, delta=None)
    if updates < 1:
        raise InputError(f"updates must be at least 1, got {updates}")
    return math.sqrt(math.log(classes) / updates) / (2 * bound * Z)


def validation_size(Z: float, classes: int, delta: float) -> int:  # noqa: N803
    """The smallest n_val ≥ 8 Z log(2C/δ): then no class has less than half of its marginal in the validation set.

    Raises as `check_constants`.
    """
    check_constants(bound=1.0, Z=Z, classes=classes, delta=delta)
    wanted = 8 * Z * (math.log(2 * classes) - math.log(delta))
    if not wanted < 2**53:
        raise InputError(f"Z must be smaller: with {Z:.3g} no validation set is large enough ({wanted:.3g})")
    return math.ceil(wanted)


def check_constants(*, bound: float, Z: float, classes: int, delta: float | None) -> None:  # noqa: N803
    """Refuses constants that no problem can have.

    Raises:
        InputError: B, Z, C or δ is out of range.
    """
    if classes != int(classes) or classes < 2:
        raise InputError(f"classes must be a whole number of at least 2, got {classes}")
    if not (math.isfinite(bound) and bound > 0):
        raise InputError(f"bound (the largest loss) must be positive and finite, got {bound}")
    if not (math.isfinite(Z) and classes * (1 - 1e-12) <= Z):
        raise InputError(
            f"Z must be finite and at least the number of classes, {classes}, got {Z}: class priors sum to 1, so the "
            f"smallest is at most 1/{classes}, and Z bounds its inverse"
        )
    if delta is not None and not 0 < delta < 1:
        raise InputError(f"delta (the chance that the promise fails) must lie in (0, 1), got {delta}")


def best_tau(
    problem: FiniteProblem, teacher: npt.ArrayLike, *, bound: float = 1.0, delta_train: float = 0.0
) -> tuple[float, float]:
    """The τ in [0, 2] that minimises 2B max_y E|τ p^t_y/π^t_y − η_y/π_y| + 2τΔ(n), and that minimum (Theorem 8).

    The sum is convex in τ; τ > 2 cannot help, since the expectation is at least |τ − 1|. A τ of 0 says that the teacher
    promises nothing: the bound is then 2B, more than any loss.

    Args:
        problem: the truth.
        teacher: (M, C) p^t.
        bound: B.
        delta_train: Δ(n, δ/2).

    Raises:
        InputError: `bound` is not positive or `delta_train` is negative.
    """
    if not (math.isfinite(bound) and bound > 0 and math.isfinite(delta_train) and delta_train >= 0):
        raise InputError(f"bound must be positive and delta_train not negative, got {bound} and {delta_train}")
    theirs, truth = problem.distilled(teacher).class_densities, problem.class_densities

    def value(tau: float) -> float:
        return 2 * bound * float((problem.masses @ np.abs(tau * theirs - truth)).max()) + 2 * tau * delta_train

    def slope(tau: float) -> float:
        off = tau * theirs - truth
        worst = int((problem.masses @ np.abs(off)).argmax())
        return float(2 * bound * (problem.masses * theirs[:, worst]) @ np.sign(off[:, worst]) + 2 * delta_train)

    low, high = 0.0, 2.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return min(((tau, value(tau)) for tau in (0.0, low, high, 1.0)), key=lambda found: found[1])


def lemma7(
    variances: npt.ArrayLike,
    *,
    Z: float,  # noqa: N803
    samples: int,
    delta: float,
    bound: float,
    log_covering: float = 0.0,
    constant: float = 1.0,
) -> FloatArray:
    """(C,) Lemma 7's bound of |φ_y − φ̂_y|: constant · Z (√(V_y L/n) + L/n + B √(log(C/δ)/n)), L = log(C M_n/δ).

    The distribution-independent constant and the covering number M_n are unknown, so that only comparisons between
    teachers mean something: they differ in V. The paper's condition "π^t_y ≤ 1/Z" is a misprint of π^t_y ≥ 1/Z.

    Args:
        variances: (C,) V_{n,y}(f), the empirical variance of p^t_y ℓ(y, f): `loss_variances` gives it.
        Z: bound of 1/π^t_y.
        samples: n, at least 8 Z log(4C/δ).
        delta: δ.
        bound: B.
        log_covering: log M_n.
        constant: the constant.

    Raises:
        InputError: a value is out of range, or there are too few samples.
    """
    values = np.asarray(variances, dtype=np.float64)
    if values.ndim != 1 or not (np.isfinite(values) & (values >= 0)).all():
        raise InputError(f"variances must be (C,), finite and not negative, got {values}")
    check_constants(bound=bound, Z=Z, classes=len(values), delta=delta)
    if not (log_covering >= 0 and constant > 0):
        raise InputError(f"log_covering >= 0 and constant > 0 are needed, got {log_covering} and {constant}")
    needed = math.ceil(8 * Z * math.log(4 * len(values) / delta))
    if samples < needed:
        raise InputError(f"samples must be at least 8 Z log(4C/delta) = {needed}, got {samples}")
    complexity = math.log(len(values) / delta) + log_covering
    rest = complexity / samples + bound * math.sqrt(math.log(len(values) / delta) / samples)
    return np.asarray(constant * Z * (np.sqrt(values * complexity / samples) + rest))
