"""One optimiser step. Nothing in it waits for the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robustdistill.data.batches import Batch
from robustdistill.methods import Method

if TYPE_CHECKING:
    from accelerate import Accelerator


class TrainStep:
    """Forward, the method's loss, backward, update.

    Attributes:
        count: steps done.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        method: Method,
        accelerator: Accelerator,
        *,
        precision: str,
        device: torch.device,
    ) -> None:
        self.model = accelerator.prepare(model) if accelerator.num_processes > 1 else model
        self.optimizer, self.method, self.accelerator = optimizer, method, accelerator
        self._autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
        self.count = 0

    def set_rate(self, rate: float) -> float:
        """Makes `rate` the learning rate from now on; returns it."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def __call__(self, batch: Batch, costs: Tensor) -> Tensor:
        """Learns from `batch`; returns the sum of its losses, not yet fetched from the device."""
        with self._autocast:
            outputs = self.model(batch.inputs)
        total = self.method.loss(batch, outputs, costs).sum()
        # Gradients are averaged over processes, the loss is a mean over the examples of all of them.
        self.accelerator.backward(total * (self.accelerator.num_processes / batch.size))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.count += 1
        return total.detach()
