"""What the loop asks of a method, and what it tells one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from robustdistill.data.batches import Batch
from robustdistill.risks import RiskLoss, Risks


@dataclass(frozen=True)
class Card:
    """What a user should know of a method before choosing it.

    Attributes:
        title: the method's name in prose.
        equation: the loss of one example.
        source: paper and place.
        when: when to use it.
        when_not: when not to.
        deviations: where this differs from its source.
    """

    title: str
    equation: str
    source: str
    when: str
    when_not: str
    deviations: str = "none"


@dataclass(frozen=True)
class Context:
    """What a method may know before the first step.

    Attributes:
        epochs: that will be trained.
        class_counts: (C,) training examples of each class; None where training examples carry no labels.
        priors: (C,) mean of the targets in use, summing to 1.
        val_labels: (M,) labels of the validation examples; None where they have none.
        train_labels: (N,) likewise.
        teacher_val: gives (M, C) the teacher's probabilities on validation, at the temperature of the targets; None
            without a teacher. A call, because it may be a pass of the teacher over the split: made by who wants it.
        teacher_train: gives (N, C) likewise on the clean training examples.
    """

    epochs: int
    class_counts: Tensor | None
    priors: Tensor
    val_labels: Tensor | None = None
    train_labels: Tensor | None = None
    teacher_val: Callable[[], Tensor] | None = None
    teacher_train: Callable[[], Tensor] | None = None


@dataclass
class Method(ABC):
    """The loss of a training step; the loop knows nothing else of it. The fields of a subclass are its settings.

    Attributes:
        name: as in `fit(method=...)`; settings follow a colon.
        card: for the table of methods.
        needs_teacher: whether batches must carry a teacher's predictions.
        takes_teacher: whether a teacher's predictions are of any use to it.
        uses_temperature: whether the temperature of the targets matters; not where a method has one of its own.
        needs_labels: whether batches must carry the examples' own labels.
        uses_costs: whether the objective's costs enter the loss. Where not, only the standard objective is accepted.
        validation_risk: the loss of the risks that `on_validation` gets, None for that of the run.
    """

    name: ClassVar[str] = ""
    card: ClassVar[Card]
    needs_teacher: ClassVar[bool] = False
    takes_teacher: ClassVar[bool] = True
    uses_temperature: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False
    uses_costs: ClassVar[bool] = True
    validation_risk: ClassVar[RiskLoss | None] = None

    @property
    def watches_validation(self) -> bool:
        """Whether the method wants validation risks though the objective has no multipliers."""
        return False

    @property
    def class_uniform(self) -> bool:
        """Whether batches should be drawn with every class alike, with replacement."""
        return False

    def prepare(self, context: Context) -> None:
        """Called once, before the first step."""

    def on_epoch(self, epoch: int) -> None:
        """Called before each epoch, counted from 0."""

    def on_validation(self, risks: Risks) -> None:
        """Called with validation risks every `every` steps where `watches_validation`."""

    @abstractmethod
    def loss(self, batch: Batch, outputs: Tensor, costs: Tensor) -> Tensor:
        """(B,) losses of `outputs` (B, C) against `batch`, with `costs` (C,) or (B, C) from the multipliers."""

    def state(self) -> dict[str, Tensor]:
        """What moves during training besides the model, for checkpoints."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave."""
