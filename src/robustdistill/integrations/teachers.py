"""A trained model as a teacher in somebody else's training loop."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from robustdistill.errors import InputError
from robustdistill.models import evaluating


class FrozenTeacher:
    """Calls a trained model as it should be called: in eval mode, without gradients, tempered in float32.

    It is no `nn.Module`, so that a model which keeps it as an attribute neither trains nor saves the teacher. The
    teacher is moved to where its inputs are; its weights and modes are left as they were.

    Args:
        model: returns logits (B, C), or an object or mapping with `logits`, as models of transformers do.
        temperature: T > 0 of softmax(f^t / T).

    Raises:
        InputError: the model is no module, or the temperature is not positive and finite.

    >>> teacher = FrozenTeacher(nn.Identity(), temperature=2.0)
    >>> teacher(torch.tensor([[0.0, 2.0]]))
    tensor([[0.2689, 0.7311]])
    """

    def __init__(self, model: nn.Module, *, temperature: float = 1.0) -> None:
        if not isinstance(model, nn.Module):
            raise InputError(f"teacher must be a trained module, got {type(model).__name__}")
        check_temperature("temperature", temperature)
        self.model, self.temperature = model, temperature

    def __call__(self, *inputs: Any, **named: Any) -> Tensor:
        """(B, C) probabilities for what the model takes."""
        return torch.softmax(self.logits(*inputs, **named) / self.temperature, dim=-1)

    def logits(self, *inputs: Any, **named: Any) -> Tensor:
        """(B, C) untempered logits, float32."""
        given = [value for value in (*inputs, *named.values()) if isinstance(value, Tensor)]
        if given:
            self.model.to(given[0].device)
        with evaluating(self.model), torch.no_grad():
            return logits_of(self.model(*inputs, **named)).float()

    def priors(self, batches: Iterable[Any]) -> Tensor:
        """(C,) float64: the mean of the teacher's probabilities, which are the priors of a student of it.

        Args:
            batches: inputs of the clean training examples: tensors, or mappings of the names that the model takes.

        Raises:
            InputError: there are no batches.
        """
        sums, count = [], 0
        for inputs in batches:
            probabilities = (self(**inputs) if hasattr(inputs, "keys") else self(inputs)).double().cpu()
            sums.append(probabilities.sum(dim=0))
            count += len(probabilities)
        if not count:
            raise InputError("batches must hold the training examples, got none")
        return torch.stack(sums).sum(dim=0) / count


def logits_of(outputs: Any) -> Tensor:
    """(B, C) logits of what a model returned: a tensor, `.logits`, or the first of a tuple.

    Raises:
        InputError: there are none.
    """
    found = outputs.get("logits") if hasattr(outputs, "get") else getattr(outputs, "logits", outputs)
    found = found[0] if isinstance(found, tuple) and found else found
    if not isinstance(found, Tensor):
        raise InputError(f"a model must return logits (B, C), or an object with .logits, got {type(outputs).__name__}")
    return found


def check_temperature(name: str, value: float) -> None:
    """Refuses a temperature that is not positive and finite."""
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} must be positive and finite, got {value}")
