"""The multipliers λ: which classes the objective cares about now.

`exponentiated_gradient` is one step of Algorithm 1-3 as a pure function; `ClassMultipliers` keeps λ, knows the priors
and turns both into the costs that the loss takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from robustdistill.errors import DivergedError, InputError
from robustdistill.objectives import Objective
from robustdistill.risks import Risks

FLOOR = 1e-8  # The smallest share a class can fall to: an exact zero could never rise again.
_BLOCK = 2**15
_LEAST_PRIOR = 1e-305  # 1/π is finite.
_LARGE = 1e3  # Of steps beyond it the logarithms lose digits.


def exponentiated_gradient(
    weights: Tensor, risks: Tensor, step_size: float, *, decay: float = 0.0, floor: float = FLOOR
) -> Tensor:
    """λ_j ∝ λ_j^(1−decay) · exp(step_size · R_j), on the simplex (Algorithms 1-3; decay 0 is the paper's update).

    A class whose risk is NaN was not seen: it keeps its share of λ while the others are updated among themselves. With
    decay > 0 and risks in [0, 1] this is mirror ascent on Σ_y λ_y R_y − KL(λ ‖ uniform)/τ with τ = step_size/decay, and
    multipliers never differ by more than a factor e^τ.

    Args:
        weights: λ (C,), non-negative, any floating dtype.
        risks: R (C,), NaN where unknown.
        step_size: γ (times the objective's robustness).
        decay: pull towards uniform in [0, 1].
        floor: the smallest share of the simplex a class keeps.

    Returns:
        (C,) float64, summing to 1.

    Raises:
        InputError: the shapes differ, weights are no weights, a risk is infinite, or a setting is out of range.
    """
    if weights.shape != risks.shape or weights.ndim != 1:
        raise InputError(f"weights and risks must both be (C,), got {tuple(weights.shape)} and {tuple(risks.shape)}")
    _check_settings(step_size, decay, floor)
    weights = weights.double()
    total = float(weights.sum()) if bool((weights >= 0).all()) else math.nan
    if not (math.isfinite(total) and total > 0):
        raise InputError(f"weights must be finite, not negative, and not all zero, got {weights.tolist()[:8]}")
    if bool(risks.isinf().any()):
        raise InputError(f"risks must be finite, or NaN where unknown, got {risks.tolist()[:8]}")
    scratch = risks.to(weights.device, torch.float64, copy=True)
    moved = _log_step(_logarithms(weights), scratch, step_size, decay=decay, floor=floor).exp()
    return torch.where(risks.isnan(), weights.double(), moved)


def _logarithms(weights: Tensor) -> Tensor:
    """log λ, finite where a weight is 0: it is lifted to the floor, and may be multiplied by 0 before."""
    return weights.clamp_min(torch.finfo(torch.float64).tiny).log()


def _differences(risks: Tensor, step_size: float) -> Tensor:
    """`risks`, less the highest where its product with the step is large: it could overflow, or swallow log λ.

    Only differences of risks count: the update is the same.
    """
    highest = risks.nan_to_num(nan=-math.inf).amax()
    if step_size * abs(float(highest)) <= _LARGE:
        return risks
    return (risks - highest).clamp_min(torch.finfo(risks.dtype).min)


def _log_step(log_weights: Tensor, risks: Tensor, step_size: float, *, decay: float, floor: float) -> Tensor:
    """The step on logarithms, all float64; `risks` may be overwritten."""
    lowest = math.log(min(floor, 1 / len(risks)))
    highest = float(risks.amax())  # NaN where one is
    if not step_size * abs(highest) <= _LARGE:
        risks = _differences(risks, step_size)
    # Where all are known, without masks and in place: for a million classes each pass over memory counts.
    if not math.isnan(highest):
        kept = log_weights if decay == 0 else (1 - decay) * log_weights
        moved = torch.add(kept, risks, alpha=step_size, out=risks)
        moved -= _log_total(moved)
        if bool(moved.amin() < lowest):
            moved.clamp_min_(lowest)
            moved -= _log_total(moved)
        return moved
    known = ~risks.isnan()
    moved = (1 - decay) * log_weights + step_size * torch.where(known, risks, 0.0)
    log_share = torch.where(known, log_weights, -math.inf).logsumexp(0)
    moved = moved - torch.where(known, moved, -math.inf).logsumexp(0) + log_share
    moved = moved.clamp_min(lowest)
    moved = moved - torch.where(known, moved, -math.inf).logsumexp(0) + log_share
    return torch.where(known, moved, log_weights)


def _log_total(log_weights: Tensor) -> Tensor:
    """log Σ exp of (C,). Many are summed in blocks that stay in a cache, by exp2: torch's exp of float64 is slower."""
    if len(log_weights) <= _BLOCK:
        return log_weights.logsumexp(0)
    highest = log_weights.amax()
    parts = [((block - highest) * math.log2(math.e)).exp2_().sum() for block in torch.split(log_weights, _BLOCK)]
    return highest + torch.stack(parts).sum().log()


class ClassMultipliers:
    """λ, the priors it goes with, and the costs they make.

    Multipliers are over groups; a class is a group by default, and priors then are the class priors.

    Args:
        objective: an Objective or its string.
        priors: π (C,), positive: the mean of the targets in use over the clean training examples. Counts are accepted
            and normalised.
        step_size: γ of each update (0.1 in the paper).
        decay: pull of each update towards uniform multipliers; 0 is the paper's update.
        floor: the smallest share of the simplex a class keeps.
        class_names: for messages.

    Raises:
        InputError: priors are not positive and finite, or a setting is out of range.

    >>> dro = ClassMultipliers("robust", torch.tensor([0.9, 0.1]), step_size=1.0)
    >>> dro.update(Risks(sums=torch.tensor([0.0, 5.0]), counts=torch.tensor([10.0, 10.0])))
    >>> dro.weights
    tensor([0.3775, 0.6225], dtype=torch.float64)
    >>> dro.costs
    tensor([0.4195, 6.2246])
    """

    def __init__(
        self,
        objective: Objective | str,
        priors: Tensor | Sequence[float],
        *,
        step_size: float = 0.1,
        decay: float = 0.0,
        floor: float = FLOOR,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.objective = Objective.parse(objective)
        self.priors = _check_priors(_float64(priors), class_names)
        _check_settings(step_size, decay, floor)
        if decay == 1:
            raise InputError("decay must lie in [0, 1), got 1: multipliers would forget all but the last risks")
        self.step_size, self.decay, self.floor = step_size, decay, floor
        self.updates = 0
        self._log_weights = torch.full_like(self.priors, -math.log(len(self.priors)))
        self._costs: Tensor | None = None

    @property
    def weights(self) -> Tensor:
        """λ (C,), float64, summing to 1."""
        return self._log_weights.exp()

    @property
    def class_weights(self) -> Tensor:
        """β (C,), float64: the weight of each class in the objective as it stands."""
        return self.objective.class_weights(self.priors, self.weights)

    @property
    def costs(self) -> Tensor:
        """β/π (C,), float32: what the losses take. The same tensor until the next update."""
        if self._costs is None:
            costs = self.objective.costs(self.priors, self.weights).float()
            # A prior may be 1e-40, of a sure teacher's softmax.
            self._costs = costs.clamp_(max=torch.finfo(costs.dtype).max)
        return self._costs

    def update(self, risks: Risks) -> None:
        """One exponentiated-gradient step on validation risks (Algorithm 3: the exponent is γ · α · R).

        Raises:
            InputError: the risks are over another number of classes.
            DivergedError: a risk is not finite.
        """
        if not risks.sums.shape == risks.counts.shape == self.priors.shape:
            got = f"{tuple(risks.sums.shape)} and {tuple(risks.counts.shape)}"
            raise InputError(f"risks must be over {len(self.priors)} classes, got sums and counts of {got}")
        if not bool(torch.stack([risks.sums.amin(), risks.sums.amax()]).isfinite().all()):  # both pass NaN on
            raise DivergedError(
                "a validation risk is not finite: the model's logits have overflowed; lower the learning rate"
            )
        step_size = self.step_size * self.objective.robustness
        self._log_weights = _log_step(
            self._log_weights,
            risks.values.to(self._log_weights),
            step_size,
            decay=self.decay,
            floor=self.floor,
        )
        self._costs = None
        self.updates += 1

    def to(self, device: torch.device | str) -> ClassMultipliers:
        """Moves priors and λ to `device`; returns itself."""
        self.priors, self._log_weights = self.priors.to(device), self._log_weights.to(device)
        self._costs = None
        return self

    def state_dict(self) -> dict[str, Any]:
        """Everything that moves, and what it belongs to."""
        return {
            "objective": str(self.objective),
            "priors": self.priors.clone(),
            "log_weights": self._log_weights.clone(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave.

        Raises:
            InputError: the state is of another objective or of other priors, or is none.
        """
        if absent := {"objective", "priors", "log_weights", "updates"} - state.keys():
            raise InputError(f"state must have what state_dict gives; it lacks {', '.join(sorted(absent))}")
        if state["objective"] != str(self.objective):
            raise InputError(
                f"state is of objective '{state['objective']}', these multipliers are of '{self.objective}'"
            )
        priors = state["priors"].to(self.priors)
        if priors.shape != self.priors.shape or not torch.allclose(priors, self.priors, rtol=1e-6, atol=0):
            raise InputError("state belongs to other priors: another data set, subset, teacher or temperature")
        log_weights = state["log_weights"].to(self._log_weights)
        whole = log_weights.shape == self.priors.shape and bool(log_weights.isfinite().all())
        if not whole or abs(float(log_weights.exp().sum()) - 1) > 1e-6:
            raise InputError(f"state must hold the logarithm of a share of 1 for each of {len(self.priors)} priors")
        self.priors = priors.clone()  # to the last bit: priors that are normalised twice differ in it
        self._log_weights = log_weights.clone()
        self._costs = None
        self.updates = int(state["updates"])


def _check_settings(step_size: float, decay: float, floor: float) -> None:
    if not (math.isfinite(step_size) and step_size >= 0):
        raise InputError(f"step_size must be finite and not negative, got {step_size}")
    if not 0 <= decay <= 1:
        raise InputError(f"decay must lie in [0, 1], got {decay}")
    if not 0 < floor < 1:
        raise InputError(f"floor must lie in (0, 1), got {floor}")


def _float64(values: Tensor | Sequence[float]) -> Tensor:
    return values.double() if isinstance(values, Tensor) else torch.tensor(values, dtype=torch.float64)


def _check_priors(priors: Tensor, class_names: Sequence[str] | None) -> Tensor:
    if priors.ndim != 1 or len(priors) < 2:
        raise InputError(f"priors must be (C,) with C >= 2, got {tuple(priors.shape)}")
    bad = torch.nonzero(~((priors > 0) & priors.isfinite())).flatten()
    if len(bad):
        index = int(bad[0])
        name = f" ({class_names[index]!r})" if class_names else ""
        raise InputError(f"priors must be positive and finite; class {index}{name} has {float(priors[index]):g}")
    shares = priors / priors.sum()
    if not bool((shares > _LEAST_PRIOR).all()):
        raise InputError(f"priors are too far apart, or their sum is too large: got {priors.tolist()[:8]}")
    return shares
