"""What the integrations of training libraries share: risks that are seen batch by batch, then move the multipliers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor

from robustdistill.errors import InputError, unknown
from robustdistill.methods.parts import over_processes
from robustdistill.multipliers import ClassMultipliers
from robustdistill.risks import MIN_MASS, RiskLoss, Risks, class_risks

logger = logging.getLogger(__name__)


class ObservedRisks:
    """Risks on validation batches as they come by, added over all processes before they move the multipliers.

    Args:
        multipliers: what they move.
        risk: the loss whose risks are measured, "zero-one" or "cross-entropy".
        class_names: C names, for messages.

    Raises:
        InputError: the risk is unknown, or there are not C names.
    """

    def __init__(self, multipliers: ClassMultipliers, risk: RiskLoss, class_names: Sequence[str] | None = None) -> None:
        if risk not in get_args(RiskLoss):
            raise unknown("risk loss", str(risk), get_args(RiskLoss))
        classes = len(multipliers.priors)
        if class_names is not None and len(class_names) != classes:
            raise InputError(f"class_names must be one for each of {classes} priors, got {len(class_names)}")
        self.multipliers, self.risk, self.class_names = multipliers, risk, class_names
        self._seen: Risks | None = None
        self._said = False

    def add(self, logits: Tensor, targets: Tensor) -> None:
        """Adds a batch of this process: logits (B, C) and labels (B,) or probabilities (B, C).

        Raises:
            InputError: there are not as many classes as priors, or as in `class_risks`.
        """
        place, classes = self.multipliers.priors.device, len(self.multipliers.priors)
        if logits.ndim != 2 or logits.shape[1] != classes:
            raise InputError(f"validation logits must be (B, {classes}), got {tuple(logits.shape)}")
        risks = class_risks(logits.detach().to(place), targets.detach().to(place), loss=self.risk)
        self._seen = risks if self._seen is None else self._seen + risks

    def discard(self) -> None:
        """Forgets what was added."""
        self._seen = None

    def move(self) -> None:
        """One update of the multipliers on what all processes have added, which is then forgotten.

        Raises:
            InputError: no process has added anything.
            DivergedError: the logits were not finite.
        """
        nothing = torch.zeros_like(self.multipliers.priors)
        seen, self._seen = self._seen or Risks(nothing, nothing), None
        risks = Risks(*over_processes(torch.stack([seen.sums, seen.counts])))
        self._warn_of_missing(risks)
        self.multipliers.update(risks)

    def _warn_of_missing(self, risks: Risks) -> None:
        missing = torch.nonzero(risks.counts < MIN_MASS).flatten().tolist()
        if len(missing) == len(risks.counts):
            raise InputError("validation must have examples: none has been seen since the last update")
        if missing and not self._said:
            self._said = True
            names = [self.class_names[index] if self.class_names else index for index in missing[:5]]
            logger.warning(
                "validation has less than one example of %d of %d classes (%s%s): their risk is unknown and their"
                " multipliers keep their share",
                len(missing),
                len(risks.counts),
                ", ".join(repr(name) for name in names),
                ", ..." if len(missing) > 5 else "",
            )


def place_of(device: torch.device) -> torch.device:
    """Where the multipliers of a model on `device` are kept: with it, but for Apple's GPUs, which lack float64."""
    return torch.device("cpu") if device.type == "mps" else device
