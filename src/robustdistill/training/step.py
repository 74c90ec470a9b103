"""One optimiser step. Nothing in it waits for the device."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from robustdistill.data.batches import Batch
from robustdistill.errors import InputError
from robustdistill.methods import Method
from robustdistill.methods.parts import over_processes
from robustdistill.training.batchnorm import JointBatchNorm
from robustdistill.training.compiled import compiled
from robustdistill.training.processes import Processes
from robustdistill.training.replicas import joint_step


class TrainStep:
    """Forward, the method's loss, backward, update.

    Where several processes train, each has a share of the batch. Losses are divided by the size of the whole batch and
    gradients are summed, so that shares of different sizes weigh as their examples do.

    Attributes:
        count: steps done.
        losses: (B,) of the last step, weighted, not yet fetched from the device.
        replicas: the most runs that have taken a step of theirs together with this one, itself among them.
    """

    losses: Tensor

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        method: Method,
        processes: Processes,
        *,
        precision: str,
        execution: str = "eager",
        seed: int,
    ) -> None:
        self.model, self.optimizer, self.method = model, optimizer, method
        self.processes, self.precision, self.seed = processes, precision, seed
        processes.share(model)
        self.execution = execution
        self._forward = compiled(model) if execution == "compiled" else model
        self._parameters: list[nn.Parameter] | None = None
        self.count, self.replicas = 0, 1

    def set_rate(self, rate: float) -> float:
        """Makes `rate` the learning rate from now on; returns it."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def __call__(self, batch: Batch, costs: Tensor, weights: Tensor | None = None) -> Tensor:
        """Learns from `batch`; returns the sum of its losses, not yet fetched from the device.

        Args:
            batch: with its targets.
            costs: (C,) or (B, C) that the method's loss takes.
            weights: (B,) of the losses, where groups weigh outside them.
        """
        total = None if self.execution == "compiled" else joint_step(self, batch, costs, weights)
        if total is None:
            total = self._step(batch, costs, weights)
        self.count += 1
        return total

    def autocast(self, device: torch.device) -> torch.autocast:
        """A context in which the model computes in the precision of training."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def _step(self, batch: Batch, costs: Tensor, weights: Tensor | None) -> Tensor:
        several = self.processes.count > 1
        if several:
            self._draw_apart()
        with JointBatchNorm() if several else nullcontext():
            total = self._loss(batch, costs, weights)
            (total * (1 / batch.size)).backward()  # type: ignore[no-untyped-call]
        if several:
            self._sum_gradients()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total.detach()

    def _loss(self, batch: Batch, costs: Tensor, weights: Tensor | None = None) -> Tensor:
        try:
            with self.autocast(batch.inputs.device):
                outputs = self._forward(batch.inputs)
        except RuntimeError as error:
            if len(batch.inputs):
                raise
            raise InputError(
                f"a batch of {batch.size} is too small for {self.processes.count} processes: one has no example, which"
                f" the model does not take ({error}); choose a batch_size that leaves a larger last batch"
            ) from error
        losses = self.method.loss(batch, outputs, costs)
        losses = losses if weights is None else losses * weights
        self.losses = losses.detach()
        return losses.sum()

    def _draw_apart(self) -> None:
        """Seeds torch anew: models that draw, such as those with dropout, must not draw alike on all processes."""
        digest = hashlib.sha256(f"{self.seed} {self.count} {self.processes.index}".encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:8]) >> 1)

    def _sum_gradients(self) -> None:
        """Adds the gradients of all processes, in one exchange for each dtype."""
        trained = [value for group in self.optimizer.param_groups for value in group["params"]]
        if self._parameters is None:
            # Who takes no part in the loss is left alone, as one process would; asked once, since it takes a wait.
            used = over_processes(torch.tensor([float(p.grad is not None) for p in trained], device=trained[0].device))
            self._parameters = [p for p, processes in zip(trained, used.tolist(), strict=True) if processes]
        kinds = defaultdict(list)
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            kinds[parameter.dtype].append(parameter.grad)
        for gradients in kinds.values():
            summed = over_processes(torch.cat([gradient.reshape(-1) for gradient in gradients]))
            for gradient, part in zip(gradients, torch.split(summed, [g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))
