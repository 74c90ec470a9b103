"""Training methods: what a method adds to the loop, one small module each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from robustdistill.data.batches import Batch
from robustdistill.errors import unknown


@dataclass(frozen=True)
class Card:
    """What a user should know of a method before choosing it.

    Attributes:
        equation: the loss of one example.
        source: paper and place.
        when: when to use it.
        when_not: when not to.
        deviations: where this differs from its source.
    """

    equation: str
    source: str
    when: str
    when_not: str
    deviations: str = "none"


class Method(Protocol):
    """The loss of a training step. The loop knows nothing else of it."""

    name: ClassVar[str]
    card: ClassVar[Card]

    def loss(self, batch: Batch, outputs: Tensor, costs: Tensor) -> Tensor:
        """(B,) losses of `outputs` (B, C) against `batch.targets`, with `costs` (C,) from the multipliers."""
        ...


def get(name: str) -> Method:
    """The method called `name`.

    Raises:
        InputError: there is none; the nearest is suggested.
    """
    from robustdistill.methods.margin import Margin
    from robustdistill.methods.weighted import Weighted

    methods: dict[str, type[Method]] = {method.name: method for method in (Margin, Weighted)}
    if name not in methods:
        raise unknown("method", name, methods)
    return methods[name]()
