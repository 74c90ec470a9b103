"""R models of one architecture trained as one: tensors (R, ...), a forward pass by `torch.func.vmap`, one optimiser.

Each model's own parameters, buffers and momenta become views of the stacked ones, so that whoever else looks at a model
while it trains (a checkpoint, a snapshot, a score) finds what it would find if the model trained alone.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from robustdistill.data.batches import Batch
from robustdistill.methods.margin import Margin
from robustdistill.methods.weighted import Weighted

if TYPE_CHECKING:
    from robustdistill.training.step import TrainStep

# How far stacked logits and statistics may lie from a model's own, as a share of the largest, for the stack to be used.
# Rounding stays far below; what a model does differently when it is stacked does not.
TRUST = {"float32": 1e-2, "bfloat16": 0.2}


class StackingError(Exception):
    """These models cannot be trained as one; the message says why."""


@dataclass(frozen=True)
class Lesson:
    """What one run wants to learn in its next step.

    Attributes:
        step: the run's.
        batch: with its targets.
        costs: (C,) or (B, C).
        weights: (B,) of the losses, where groups weigh outside them.
    """

    step: TrainStep
    batch: Batch
    costs: Tensor
    weights: Tensor | None = None


class Stack:
    """The models of `lessons` as one.

    Args:
        lessons: the next one of each run, whose models have one `architecture`.

    Attributes:
        steps: of the runs.
        forward: (model, parameters, buffers, inputs) to logits (R, B, C); a compiled one may take its place.

    Raises:
        StackingError: the models do something else when they are stacked, such as drawing random numbers.
    """

    def __init__(self, lessons: Sequence[Lesson]) -> None:
        self.steps = [lesson.step for lesson in lessons]
        self.forward = _forward
        models = [step.model for step in self.steps]
        self._parameters = _stacked([dict(model.named_parameters()) for model in models])
        self._buffers = _stacked([dict(model.named_buffers()) for model in models])
        for name, parameter in models[0].named_parameters():
            self._parameters[name].requires_grad_(parameter.requires_grad)
        self._try(lessons)
        for index, model in enumerate(models):
            _point(dict(model.named_parameters()), self._parameters, index)
            _point(dict(model.named_buffers()), self._buffers, index)
        self.optimizer = torch.optim.SGD(self._parameters.values(), **settings_of(self.steps[0]))
        self._join_momenta()

    def learn(self, lessons: Sequence[Lesson]) -> list[Tensor]:
        """One step of all models; each one's sum of losses, not yet fetched from the device.

        Args:
            lessons: one of each run, in the order of `steps`.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = settings_of(lessons[0].step)["lr"]
        losses = self._losses(lessons, self._outputs(lessons, self._buffers))
        for lesson, own in zip(lessons, losses.detach(), strict=True):
            lesson.step.losses = own
            lesson.step.replicas = max(lesson.step.replicas, len(lessons))
        totals = losses.sum(dim=1)
        (totals.sum() * (1 / lessons[0].batch.size)).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._share_momenta()
        return list(totals.detach().unbind())

    def holds(self, model: nn.Module) -> bool:
        """Whether `model` is one of its models."""
        return any(model is step.model for step in self.steps)

    def logits(self, models: Sequence[nn.Module], inputs: Sequence[Tensor]) -> list[Tensor]:
        """(B, C) of some of the models, each on its own (B, ...) inputs, in the mode that they are in."""
        known = [step.model for step in self.steps]
        lanes = [next(index for index, one in enumerate(known) if one is model) for model in models]
        parameters, buffers = self._parameters, self._buffers
        if len(lanes) < len(known):
            chosen = torch.tensor(lanes, device=inputs[0].device)
            parameters, buffers = ({n: v[chosen] for n, v in each.items()} for each in (parameters, buffers))
        return list(self.forward(models[0], parameters, buffers, torch.stack(list(inputs), dim=1)).unbind())

    def release(self, step: TrainStep) -> None:
        """Gives a run's model and momenta memory of their own again, in the layout that they train in alone."""
        for value in (*step.model.parameters(), *step.model.buffers()):
            value.data = value.data.clone()
        step.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for state in step.optimizer.state.values():
            if (momentum := state.get("momentum_buffer")) is not None:
                state["momentum_buffer"] = momentum.clone()

    def _outputs(self, lessons: Sequence[Lesson], buffers: dict[str, Tensor]) -> Tensor:
        """(R, B, C); updates running statistics in `buffers`."""
        inputs = torch.stack([lesson.batch.inputs for lesson in lessons], dim=1)
        with lessons[0].step.autocast(inputs.device):
            return self.forward(lessons[0].step.model, self._parameters, buffers, inputs)

    def _losses(self, lessons: Sequence[Lesson], outputs: Tensor) -> Tensor:
        """(R, B)."""
        method, targets = lessons[0].step.method, _joined_targets(lessons)
        if targets is not None:
            costs = torch.cat([lesson.costs.expand(outputs.shape[1:]) for lesson in lessons])
            batch = replace(lessons[0].batch, targets=targets)
            losses = method.loss(batch, outputs.flatten(0, 1), costs).view(outputs.shape[:2])
        else:
            each = zip(lessons, outputs, strict=True)
            losses = torch.stack([x.step.method.loss(x.batch, mine, x.costs) for x, mine in each])
        if all(lesson.weights is None for lesson in lessons):
            return losses
        ones = torch.ones_like(losses[0])
        return losses * torch.stack([ones if x.weights is None else x.weights for x in lessons])

    def _try(self, lessons: Sequence[Lesson]) -> None:
        """Compares a forward pass with those of the models themselves, running statistics too; changes nothing."""
        buffers = {name: value.clone() for name, value in self._buffers.items()}
        try:
            with torch.no_grad():
                outputs = self._outputs(lessons, buffers)
        except Exception as error:  # Whatever a user's model does not stand, or memory that is short.
            raise StackingError(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}") from error
        for index, lesson in enumerate(lessons):
            model, inputs = copy.deepcopy(lesson.step.model), lesson.batch.inputs
            with torch.no_grad(), lesson.step.autocast(inputs.device):
                expected = model(inputs)
            pairs = {"logits": (outputs[index], expected)}
            pairs |= {name: (buffers[name][index], value) for name, value in model.named_buffers()}
            for name, (found, wanted) in pairs.items():
                if not _near(found, wanted, TRUST[lesson.step.precision]):
                    raise StackingError(f"stacked, the {name} of {type(model).__name__} are others than alone")

    def _join_momenta(self) -> None:
        own = [[step.optimizer.state.get(p, {}) for p in step.model.parameters()] for step in self.steps]
        for parameter, states in zip(self._parameters.values(), zip(*own, strict=True), strict=True):
            momenta = [state.get("momentum_buffer") for state in states]
            if all(momentum is not None for momentum in momenta):
                self.optimizer.state[parameter]["momentum_buffer"] = torch.stack(momenta)
        self._shared = False
        self._share_momenta()

    def _share_momenta(self) -> None:
        """Makes the momenta of each run's optimiser views of the stacked ones, once they are there."""
        if self._shared or not self.optimizer.state:
            return
        for index, step in enumerate(self.steps):
            for own, parameter in zip(step.model.parameters(), self._parameters.values(), strict=True):
                momentum = self.optimizer.state.get(parameter, {}).get("momentum_buffer")
                if momentum is not None:
                    step.optimizer.state[own]["momentum_buffer"] = momentum[index]
        self._shared = True


def _joined_targets(lessons: Sequence[Lesson]) -> Tensor | None:
    """(R · B,) or (R · B, C), where one call of the method can take the rows of all runs; else None."""
    targets = [lesson.batch.targets for lesson in lessons if lesson.batch.targets is not None]
    kinds = {type(lesson.step.method) for lesson in lessons}
    # The methods that look at targets and costs alone, a row at a time.
    plain = len(kinds) == 1 and kinds <= {Margin, Weighted}
    alike = len(targets) == len(lessons) and len({one.ndim for one in targets}) == 1
    return torch.cat(targets) if plain and alike else None


def architecture(step: TrainStep) -> Hashable:
    """What two models and their optimisers must have in common to be stacked, besides the learning rate."""
    tensors = [
        (name, tuple(value.shape), value.dtype, value.requires_grad)
        for name, value in (*step.model.named_parameters(), *step.model.named_buffers())
    ]
    settings = tuple((name, value) for name, value in settings_of(step).items() if name != "lr")
    return type(step.model), tuple(tensors), settings, step.precision


def settings_of(step: TrainStep) -> dict[str, Any]:
    """Of its optimiser, which has one group."""
    (group,) = step.optimizer.param_groups
    return {name: value for name, value in group.items() if name != "params"}


def _forward(model: nn.Module, parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """(R, B, C) from (B, R, ...) inputs: convolutions then see (B, R · channels, ...) without a copy.

    In the default layout: on a CPU a stack of ResNets took 0.94 to 1.00 of that time with channels last.
    """

    def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor) -> Any:
        return functional_call(model, (parameters, buffers), (inputs,))

    outputs: Tensor = vmap(one, in_dims=(0, 0, 1), randomness="error")(parameters, buffers, inputs)
    return outputs


def _stacked(tensors: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([each[name].detach() for each in tensors]) for name in tensors[0]}


def _point(own: Mapping[str, Tensor], stacked: Mapping[str, Tensor], index: int) -> None:
    for name, value in own.items():
        value.data = stacked[name].detach()[index]


def _near(found: Tensor, wanted: Tensor, share: float) -> bool:
    """Whether they agree wherever `wanted` is finite, to a share of its largest."""
    if found.shape != wanted.shape:
        return False
    known = wanted.isfinite()
    found, wanted = found[known].double(), wanted[known].double()
    return not len(wanted) or bool((found - wanted).abs().max() <= share * wanted.abs().max())
