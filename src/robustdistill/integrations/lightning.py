"""Lightning: the loss with costs, and a callback that moves the multipliers and keeps them in checkpoints.

dro = ClassMultipliers("robust", priors)
module.loss = MarginLoss(dro)                          # called in training_step
trainer = lightning.Trainer(callbacks=[MultiplierUpdates(dro, loader=val_loader, every=16)])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import RandomSampler

from robustdistill.errors import InputError
from robustdistill.integrations.observed import ObservedRisks, place_of
from robustdistill.integrations.teachers import FrozenTeacher
from robustdistill.losses import margin_loss
from robustdistill.models import evaluating
from robustdistill.multipliers import ClassMultipliers
from robustdistill.risks import RiskLoss

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.trainer.states import TrainerFn
except ImportError as error:
    raise ImportError(
        "robustdistill.integrations.lightning needs lightning, which is not installed: "
        "pip install 'robustdistill[lightning]'"
    ) from error

__all__ = ["FrozenTeacher", "MarginLoss", "MultiplierUpdates"]

Predict = Callable[[LightningModule, Any], tuple[Tensor, Tensor]]


class MarginLoss(nn.Module):
    """The mean of `losses.margin_loss` with the multipliers' costs as they stand (Eq. 9). It has no state of its own.

    Args:
        multipliers: shared with the `MultiplierUpdates` that moves them.
    """

    def __init__(self, multipliers: ClassMultipliers) -> None:
        super().__init__()
        self.multipliers = multipliers

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """A scalar from logits (B, C) and labels (B,) or a teacher's probabilities (B, C)."""
        return margin_loss(logits, targets, self.multipliers.costs.to(logits.device)).mean()


def first_two(module: LightningModule, batch: Any) -> tuple[Tensor, Tensor]:
    """Logits and labels of a batch (x, y)."""
    inputs, labels = batch
    return module(inputs), labels


class MultiplierUpdates(Callback):
    """Moves the multipliers by validation risks (Algorithms 1-3), and saves and restores them with checkpoints.

    Without `loader` they move at the end of each validation epoch of the trainer, but for the sanity check, on what
    `validation_step` returns: {"logits": (B, C), "targets": labels (B,) or probabilities (B, C)}. With `loader` and
    `every` they move after every so many optimiser steps, on a pass of this callback's own over the loader.

    Several processes of DDP add their risks before an update. A `loader` is shared out by batches, so that each example
    counts once; Lightning's own sampler of a validation set repeats up to processes − 1 examples.

    Args:
        multipliers: shared with the `MarginLoss` in the module.
        loader: clean validation batches, in a fixed order.
        every: optimiser steps between updates, with `loader`.
        predict: from the module and a batch of `loader`, on the module's device, to logits (B, C) and targets, labels
            (B,) or a teacher's probabilities (B, C); by default batches are (x, y).
        risk: the loss whose risks move the multipliers, "zero-one" or "cross-entropy".
        class_names: C names, for messages.

    Raises:
        InputError: `loader` comes without `every` or the other way round, or a setting is unknown or has no effect.
    """

    def __init__(
        self,
        multipliers: ClassMultipliers,
        *,
        loader: Iterable[Any] | None = None,
        every: int | None = None,
        predict: Predict | None = None,
        risk: RiskLoss = "zero-one",
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if (loader is None) != (every is None):
            raise InputError("loader and every go together: leave out both to move λ at each validation epoch")
        if every is not None and every < 1:
            raise InputError(f"every must be at least 1 optimiser step, got {every}")
        if predict is not None and loader is None:
            raise InputError("predict has no effect without loader: validation_step returns logits and targets")
        self.multipliers, self.loader, self.every = multipliers, loader, every
        self.predict = predict or first_two
        self._risks = ObservedRisks(multipliers, risk, class_names)
        self._step = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses what would leave the multipliers where they are; moves them to the module's device."""
        for name, part in pl_module.named_modules():
            if isinstance(part, MarginLoss) and part.multipliers is not self.multipliers:
                raise InputError(f"the module's {name!r} must hold the multipliers of this callback, got others")
        if self.loader is None and not trainer.enable_validation:
            raise InputError("the trainer must validate for λ to move: give it a validation set, or this callback one")
        if trainer.world_size > 1 and isinstance(getattr(self.loader, "sampler", None), RandomSampler):
            raise InputError("loader must not shuffle: several processes share its batches, got a RandomSampler")
        self.multipliers.to(place_of(pl_module.device))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Counts from the step that a checkpoint restored."""
        self._step = trainer.global_step

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts a sum."""
        self._risks.discard()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Adds a batch of the first validation set.

        Raises:
            InputError: `validation_step` did not return logits and targets.
        """
        if not self._listens(trainer) or dataloader_idx > 0:
            return
        if not isinstance(outputs, Mapping) or not {"logits", "targets"} <= outputs.keys():
            came = f"keys {sorted(outputs)}" if isinstance(outputs, Mapping) else type(outputs).__name__
            raise InputError(f"validation_step must return {{'logits': ..., 'targets': ...}}, got {came}")
        self._risks.add(outputs["logits"], outputs["targets"])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Moves the multipliers, before a checkpoint of this validation is written."""
        if self._listens(trainer):
            self._risks.move()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves the multipliers on `loader` where a multiple of `every` has been reached."""
        before, self._step = self._step, trainer.global_step
        if self.loader is None or self.every is None or self._step // self.every == before // self.every:
            return
        self._risks.discard()
        with evaluating(pl_module), torch.no_grad(), trainer.precision_plugin.forward_context():
            for share in islice(self.loader, trainer.global_rank, None, trainer.world_size):
                here = trainer.strategy.batch_to_device(share, pl_module.device)
                self._risks.add(*self.predict(pl_module, here))
        self._risks.move()

    def _listens(self, trainer: Trainer) -> bool:
        """Whether this validation is one that moves the multipliers: none outside `fit`, nor the sanity check."""
        return self.loader is None and trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: λ, and what it belongs to."""
        return self.multipliers.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes back λ.

        Raises:
            InputError: the checkpoint is of another objective or of other priors.
        """
        self.multipliers.load_state_dict(state_dict)
