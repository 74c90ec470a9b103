"""Maximises the dual of the robust and traded-off objectives over the simplex, to the precision of the machine.

With class densities r = η/π, class weights β = (1 − α) · anchor + α · λ and w = β · r, the smallest value that any
scorer gives Σ_y β_y R_y is G(β) = E[−Σ_y w_y log(w_y / Σ_j w_j)], attained by softmax(f) ∝ w. G is concave, with
gradient R, the class risks of that scorer, and Hessian E[r rᵀ/Σ_j w_j] − diag(1/β). Any λ gives a lower bound G(β) of
the objective and any scorer an upper one, so their difference certifies both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robustdistill.theory import tables
from robustdistill.theory.tables import FloatArray

_STEPS = 500  # Some 30 are usual.
_FIRST, _LAST, _SHRINK = 0.1, 1e-17, 0.1  # Weights of the barrier.
_SOLVED = 0.1  # Squared length of a Newton step, in the barrier's own metric, that ends one weight's turn.
_EXTRA = 2  # Steps at the last weight, for the digits that the Newton step's length does not show.
_TO_BOUNDARY = 0.995
_TRUST = 10.0  # How far slacks may be from those that the barrier implies.


@dataclass(frozen=True)
class Dual:
    """One objective's dual: masses (M,), class densities η/π (M, C), anchor (C,) on the simplex, robustness α > 0."""

    masses: FloatArray
    densities: FloatArray
    anchor: FloatArray
    robustness: float

    def class_weights(self, multipliers: FloatArray) -> FloatArray:
        """β (C,)."""
        return np.asarray((1 - self.robustness) * self.anchor + self.robustness * multipliers)

    def value(self, multipliers: FloatArray) -> float:
        """G(β), a lower bound of the objective for every λ on the simplex."""
        weighted = self.class_weights(multipliers) * self.densities
        return float(self.masses @ tables.product(weighted, -tables.log_softmax(tables.log(weighted))).sum(axis=1))

    def risks(self, multipliers: FloatArray) -> FloatArray:
        """(C,) class risks of the scorer that is best for λ."""
        scores = tables.log(self.class_weights(multipliers) * self.densities)
        weights = self.masses[:, None] * self.densities
        return np.asarray(tables.product(weights, -tables.log_softmax(scores)).sum(axis=0))

    def gap(self, risks: FloatArray, multipliers: FloatArray) -> float:
        """Primal value minus dual value: α (max_y R_y − Σ_y λ_y R_y)."""
        return float(self.robustness * (multipliers @ (risks.max() - risks)))

    def curvature(self, multipliers: FloatArray) -> FloatArray:
        """(C, C) the negative Hessian of G in β."""
        weights = self.class_weights(multipliers)
        totals = self.densities @ weights
        mixed = (self.densities * (self.masses / totals)[:, None]).T @ self.densities
        return np.asarray(np.diag(1 / weights) - mixed)


def maximise(dual: Dual) -> FloatArray:
    """(C,) λ that maximises G, positive everywhere: a class without a say keeps a share too small to matter.

    An interior-point method: Newton steps on G + μ Σ log λ while μ goes to 0, each scaled by estimates z of the slacks
    μ/λ (primal-dual) and shortened until it does not overshoot. The iterate of the smallest certified gap is returned.
    """
    classes, barrier = dual.densities.shape[1], _FIRST
    share = np.full(classes, 1 / classes)
    slack = barrier / share
    best, best_gap, finished = share, np.inf, 0
    for _ in range(_STEPS):
        risks = dual.risks(share)
        gap = dual.gap(risks, share)
        if gap < best_gap:
            best, best_gap = share, gap
        move, level = _newton(dual, share, slack, dual.robustness * risks + barrier / share)
        gain = float((dual.robustness * risks + barrier / share - level) @ move)
        if barrier <= _LAST and gain <= _SOLVED * barrier:
            finished += 1
            if finished > _EXTRA:
                break
        share, slack = _stepped(dual, share, slack, move, level, gain, barrier)
        if gain <= _SOLVED * barrier:
            barrier = max(_LAST, _SHRINK * barrier)
    return best


def _newton(dual: Dual, share: FloatArray, slack: FloatArray, slope: FloatArray) -> tuple[FloatArray, float]:
    """(C,) the direction, which sums to 0, and what all slopes come to at its end.

    The system is scaled by √λ, so that its entries stay of the order of 1 when shares go to 0.
    """
    classes, root = len(share), np.sqrt(share)
    system = np.zeros((classes + 1, classes + 1))
    curvature = dual.robustness**2 * dual.curvature(share)
    system[:classes, :classes] = root[:, None] * curvature * root + np.diag(slack)
    system[:classes, classes] = system[classes, :classes] = root
    solved = np.linalg.solve(system, np.append(root * slope, 0.0))
    return np.asarray(root * solved[:-1]), float(solved[-1])


def _stepped(
    dual: Dual,
    share: FloatArray,
    slack: FloatArray,
    move: FloatArray,
    level: float,
    gain: float,
    barrier: float,
) -> tuple[FloatArray, FloatArray]:
    """The longest step that stays positive and at whose end the objective does not fall faster than it rose."""
    step = min(1.0, _TO_BOUNDARY / max(float((-move / share).max()), _TO_BOUNDARY))
    for _ in range(60):
        found = share + step * move
        # A short Newton step does not overshoot, and its slopes are mostly rounding.
        if gain <= 1e-3 * barrier:
            break
        if (dual.robustness * dual.risks(found) + barrier / found - level) @ move >= -0.5 * gain:
            break
        step /= 2
    implied = barrier / found
    moved = slack + step * ((barrier - slack * move) / share - slack)
    return found / found.sum(), np.clip(moved, implied / _TRUST, implied * _TRUST)
