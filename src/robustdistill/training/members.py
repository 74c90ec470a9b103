"""One teacher as training asks it: a live module, whose predictions may be stored, or tables of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from robustdistill.data.batches import Batch
from robustdistill.data.splits import Examples
from robustdistill.data.stream import Loaded
from robustdistill.errors import InputError
from robustdistill.models import check_outputs, evaluating
from robustdistill.predictions import Predictions
from robustdistill.training.spec import Distillation
from robustdistill.training.views import Codec, Views, ViewsChoice, ask_in_blocks, codec, open_views

KEPT = 2**31  # Logits, 8 GiB of them, that a teacher's predictions on clean examples may be.

TeacherSource = nn.Module | dict[str, Predictions]


class Member:
    """A teacher, alone or one of several. What it says is untempered logits, or log-probabilities of tables.

    Args:
        source: a module, run in eval mode and left as it was, or {"train": Predictions, "val": Predictions}.
        identity: what the student's spec says of the teacher.
        choice: where a module's predictions on augmented views are stored.

    Attributes:
        kept: (N, C) what it says of the clean training examples, where batches are read from there.
        views: the store of its predictions, where there is one.
    """

    def __init__(self, source: TeacherSource, identity: Distillation, choice: ViewsChoice) -> None:
        self.source, self.identity, self._choice = source, identity, choice
        self._codec: Codec | None = None
        self.kept: Tensor | None = None
        self.views: Views | None = None

    def is_live(self, train: Loaded) -> bool:
        """Whether it is asked at every step.

        Where the only view is the clean one its predictions are kept: a live teacher would say the same. Of very many
        classes they are not, since they would take more memory than the rest of the training.
        """
        large = len(train) * train.examples.num_classes > KEPT
        return (
            isinstance(self.source, nn.Module) and self.identity.teacher_view == "same" and (train.views > 1 or large)
        )

    def open_views(self, train: Loaded) -> None:
        """Opens the store of its predictions on the views of `train`, where they are wanted as they are stored."""
        if self.identity.teacher_precision != "float16" or not self.is_live(train):
            return
        module, classes = self.on(train), train.examples.num_classes
        self._codec = codec(classes, self.identity.teacher_top)
        self.views = open_views(self._choice, module, train, self._codec, self._ask_in_blocks)

    def on(self, data: Loaded) -> nn.Module:
        """The module, where the data are and checked against them."""
        assert isinstance(self.source, nn.Module)
        self.source.to(data.device)
        check_outputs(self.source, data.sample(2).inputs, data.examples.num_classes, name="teacher")
        return self.source

    def ask(self, inputs: Tensor) -> Tensor:
        """(B, C) a live teacher's logits, float32."""
        assert isinstance(self.source, nn.Module)
        # Not in inference mode: what that makes cannot be kept for a backward pass.
        with evaluating(self.source), torch.no_grad():
            logits: Tensor = self.source(inputs).float()
        return logits

    def shown(self, batch: Batch) -> Tensor:
        """(B, C) what it says of the views that a batch shows, kept, stored or asked for now."""
        if self.kept is not None:
            return self.kept[batch.positions]
        if self._codec is None:
            return self.ask(batch.inputs)
        if self.views is not None:
            return self.views.logits(batch, self._ask_in_blocks)
        return self._codec.decode(self._codec.encode(self._ask_in_blocks(batch.inputs)))

    def read(self, split: str, data: Loaded) -> Tensor | None:
        """(N, C) float32 log-probabilities of a table of "train" or "val", joined to the examples; None of a module."""
        if isinstance(self.source, nn.Module):
            return None
        table = self.source[split].match_classes(data.examples.class_names).join(data.examples.ids)
        _check_labels(split, table, data.examples)
        return torch.from_numpy(table.log_probabilities()).to(data.device, torch.float32)

    def _ask_in_blocks(self, inputs: Tensor) -> Tensor:
        """As `ask`, but so that no answer depends on the batch that it is asked in."""
        assert self._codec is not None
        return ask_in_blocks(self.ask, inputs, self._codec.classes)


def _check_labels(split: str, table: Predictions, examples: Examples) -> None:
    """Refuses a joined table whose own labels are not those of the examples: it is of other examples."""
    if table.labels is None or examples.labels is None:
        return
    wrong = np.flatnonzero(table.labels != examples.labels)
    if len(wrong):
        row, names = int(wrong[0]), examples.class_names
        raise InputError(
            f"the teacher's {split!r} predictions must carry the labels of {examples.name}, and differ in {len(wrong)}"
            f" of {len(examples)}; row {row} (id {examples.ids[row]}) is {names[table.labels[row]]!r} there and"
            f" {names[examples.labels[row]]!r} in the data: are they of another split or data set?"
        )
