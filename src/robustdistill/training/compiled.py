"""The training step's forward and backward as torch.compile makes them, for recipes that say so.

Off unless asked for: compiling takes long beside most trainings on a CPU, and other kernels give other bits, so it is a
setting of the recipe, and with it of the run's identity, that nothing chooses by itself. What it gained where it was
measured is in results/speed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustdistill.errors import InputError

logger = logging.getLogger(__name__)


def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A call that computes what `model` does, compiled when it is first called with inputs of a new shape.

    The module itself is left as it is: its state, and what evaluates it, are those of an ordinary one.

    Raises:
        InputError: on that call, where torch cannot compile it, for instance for want of a C++ compiler.
    """
    from torch._dynamo.exc import TorchDynamoException  # Here, since it takes a while.

    made = torch.compile(model, dynamic=False)  # A last batch of another size is compiled too, not the general case.
    logger.info("the training step is compiled; its first calls take a while")

    def call(inputs: Tensor) -> Tensor:
        try:
            outputs: Tensor = made(inputs)
        except TorchDynamoException as error:
            first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise InputError(
                f"recipe setting execution='compiled': torch.compile could not compile this model here ({first});"
                " it needs a C++ compiler on a CPU, and a model without data-dependent Python: or leave it at 'eager'"
            ) from error
        return outputs

    return call
