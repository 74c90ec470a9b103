"""What Theorem 4 or 8 asks for a wanted gap: how many updates, which step size, how large a validation set."""

from __future__ import annotations

import math
from dataclasses import dataclass

from robustdistill.errors import InputError
from robustdistill.theory.bounds import RobustBound, check_constants, step_size, theorem8, validation_size


@dataclass(frozen=True)
class Plan:
    """Settings with which the averaged student is within `gap` of the best robust scorer, with probability 1 − δ.

    Attributes:
        gap: as wanted.
        updates: K, the smallest that is enough.
        step_size: γ of each update.
        validation_size: n_val, the smallest that is enough for the updates; Δ(n_val) may ask for more.
        terms: the bound with these settings.
        vacuous: whether the gap is no less than B: then every scorer has it, and the plan promises nothing.
    """

    gap: float
    updates: int
    step_size: float
    validation_size: int
    terms: RobustBound
    vacuous: bool


def plan(
    gap: float,
    bound: float,
    Z: float,  # noqa: N803 (the paper's letter)
    classes: int,
    delta: float,
    *,
    approximation: float = 0.0,
    delta_train: float = 0.0,
    delta_val: float = 0.0,
    tau: float = 1.0,
) -> Plan:
    """The smallest K, its step size and the smallest n_val for which Theorem 4 (with τ: Theorem 8) promises `gap`.

    Args:
        gap: wanted bound of L_rob(f̄) − min L_rob.
        bound: B, the largest cross-entropy loss.
        Z: bound of 1/π^t_y (Theorem 4, teacher-labelled validation) or 1/π_y (Theorem 8, one-hot); at least C.
        classes: C.
        delta: δ, the chance that the promise fails.
        approximation: max_y E|τ p^t_y/π^t_y − η_y/π_y| of the teacher.
        delta_train: Δ(n, δ/2).
        delta_val: Δ(n_val, δ/2), for one-hot labels Δ_oh(n_val, δ/2).
        tau: τ; 1 is Theorem 4.

    Raises:
        InputError: a value is out of range; or no number of updates is enough, because teacher and samples alone
            already take up the gap: the message says what each takes.

    >>> plan(gap=1.0, bound=2.0, Z=10.0, classes=10, delta=0.05).updates
    14737
    """
    check_constants(bound=bound, Z=Z, classes=classes, delta=delta)
    if not (math.isfinite(gap) and gap > 0):
        raise InputError(f"gap must be positive and finite, got {gap}")
    settings = {"tau": tau, "delta_train": delta_train, "delta_val": delta_val, "delta": delta}
    fixed = theorem8(approximation, bound=bound, Z=Z, classes=classes, updates=1, **settings)
    left = gap - (fixed.approximation + fixed.validation + fixed.train)
    if left <= 0:
        raise InputError(
            f"gap must exceed what no number of updates removes, got {gap:g}: the teacher's approximation error takes "
            f"{fixed.approximation:g} (2B times it), validation {fixed.validation:g} (2 delta_val), training "
            f"{fixed.train:g} (2 tau delta_train), together {gap - left:g}; a better teacher or more data is needed"
        )
    share = 4 * bound * Z / left
    wanted = math.log(classes) * share * share  # ** raises where this is infinite
    if not wanted < 2**53:
        raise InputError(
            f"gap must be larger: of {gap:g}, {left:g} is left for the updates, and {wanted:.3g} would be needed"
        )
    updates = max(1, math.ceil(wanted))
    more = 1  # Rounding up the number is not always enough for the rounded bound.
    terms = theorem8(approximation, bound=bound, Z=Z, classes=classes, updates=updates, **settings)
    while terms.total > gap:
        updates, more = updates + more, 2 * more
        terms = theorem8(approximation, bound=bound, Z=Z, classes=classes, updates=updates, **settings)
    return Plan(
        gap=gap,
        updates=updates,
        step_size=step_size(bound, Z, classes, updates),
        validation_size=validation_size(Z, classes, delta),
        terms=terms,
        vacuous=gap >= bound,
    )
