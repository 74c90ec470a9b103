"""What a model is trained towards: labels for a teacher, a teacher's probabilities for a student.

Priors belong to the targets: π is the mean of the targets in use over the clean training pictures, whatever view a
batch shows. Temperature is applied here, to untempered logits; student logits are never tempered.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from robustdistill.data.batches import Batch
from robustdistill.data.splits import Examples
from robustdistill.data.stream import Loaded
from robustdistill.errors import InputError
from robustdistill.models import check_outputs, evaluating
from robustdistill.predictions import Predictions
from robustdistill.risks import MIN_MASS, Risks, class_risks
from robustdistill.training.evaluate import BATCH_SIZE
from robustdistill.training.spec import Distillation
from robustdistill.training.views import Codec, Views, ViewsChoice, ask_in_blocks, codec, open_views

logger = logging.getLogger(__name__)

ValidationLabels = Literal["one-hot", "teacher"]
TeacherView = Literal["same", "clean"]


class Targets(Protocol):
    """The targets of training batches, and of the validation examples that move the multipliers."""

    validation_labels: ValidationLabels

    def prepare(self, train: Loaded, val: Loaded) -> tuple[Tensor, Tensor]:
        """Priors (C,) and validation targets, (M,) labels or (M, C) probabilities. Called once, before training."""
        ...

    def __call__(self, batch: Batch) -> Batch:
        """The batch with its targets."""
        ...

    def describe(self) -> Distillation | None:
        """What a run's spec says of the teacher; None without one."""
        ...


class OneHotTargets:
    """The data's own labels."""

    validation_labels: ValidationLabels = "one-hot"

    def prepare(self, train: Loaded, val: Loaded) -> tuple[Tensor, Tensor]:
        train.examples.require_every_class()
        assert train.labels is not None
        self._labels = train.labels
        return torch.from_numpy(train.examples.class_counts).to(train.device), one_hot_validation(val)

    def __call__(self, batch: Batch) -> Batch:
        return replace(batch, targets=self._labels[batch.positions])

    def describe(self) -> Distillation | None:
        return None


class TeacherTargets:
    """A teacher's probabilities softmax(f^t / T), of a live module or of tables of its predictions.

    Args:
        teacher: a module, run in eval mode and left as it was, or {"train": Predictions, "val": Predictions}.
        identity: what the student's spec says of the teacher.
        validation_labels: "teacher" labels validation by the teacher (Algorithm 1), "one-hot" takes the true labels
            (Algorithm 2).
        views: where a module's predictions on augmented views are stored, see `training.views`; it changes no number.
    """

    def __init__(
        self,
        teacher: nn.Module | dict[str, Predictions],
        identity: Distillation,
        validation_labels: ValidationLabels,
        views: ViewsChoice = "off",
    ) -> None:
        self.teacher, self.identity, self.validation_labels = teacher, identity, validation_labels
        self._choice = views
        self._codec: Codec | None = None
        self.views: Views | None = None

    def prepare(self, train: Loaded, val: Loaded) -> tuple[Tensor, Tensor]:
        if self.identity.teacher_weight < 1.0:
            train.examples.require_labels()
        # Where the only view is the clean one, its predictions are kept: a live teacher would say the same.
        live = isinstance(self.teacher, nn.Module) and self.identity.teacher_view == "same" and train.views > 1
        self._clean_logits = None if live else self._predict("train", train)
        if live and self.identity.teacher_precision == "float16":
            assert isinstance(self.teacher, nn.Module)
            self.teacher.to(train.device)
            check_outputs(self.teacher, train.sample(2).inputs, train.examples.num_classes, name="teacher")
            self._codec = codec(train.examples.num_classes, self.identity.teacher_top)
            self.views = open_views(self._choice, self.teacher, train, self._codec, self._ask_in_blocks)
        priors = self._survey(train, self._clean_logits)
        if self.validation_labels == "one-hot":
            return priors, one_hot_validation(val)
        assert self.identity.validation_temperature is not None
        logits = self._predict("val", val)
        self._survey(val, logits)
        targets = torch.softmax(logits / self.identity.validation_temperature, dim=1)
        _warn_of_missing(targets.sum(dim=0), val)
        return priors, targets

    def _survey(self, data: Loaded, logits: Tensor | None) -> Tensor:
        """(C,) the mean of the targets of a split's clean examples; warns where their teacher is near chance.

        Goes batch by batch, since the (N, C) of a large data set may be more than fits.
        """
        nothing = torch.zeros(data.examples.num_classes, dtype=torch.float64, device=data.device)
        total, errors = nothing, Risks(nothing, nothing)
        for labels, part in self._batches(data, logits):
            probabilities = self._tempered(part)
            if labels is not None:
                errors = errors + class_risks(probabilities, labels)
            total = total + self._mixed(probabilities, labels).sum(dim=0, dtype=torch.float64)
        _warn_if_useless(errors, data)
        return total / len(data)

    def __call__(self, batch: Batch) -> Batch:
        kept = self._clean_logits
        logits = self._shown(batch) if kept is None else kept[batch.positions]
        targets = self._mixed(self._tempered(logits), batch.labels)
        return replace(batch, targets=targets, teacher_logits=logits)

    def _shown(self, batch: Batch) -> Tensor:
        """(B, C) what a live teacher says of the views that a batch shows, stored or not."""
        if self._codec is None:
            return self._ask(batch.inputs)
        if self.views is not None:
            return self.views.logits(batch, self._ask_in_blocks)
        return self._codec.decode(self._codec.encode(self._ask_in_blocks(batch.inputs)))

    def _mixed(self, probabilities: Tensor, labels: Tensor | None) -> Tensor:
        """(1 − w) · one-hot + w · teacher, (B, C)."""
        weight = self.identity.teacher_weight
        if weight == 1.0 or labels is None:
            return probabilities
        mixed = weight * probabilities
        return mixed.scatter_add(1, labels.unsqueeze(1), torch.full_like(mixed[:, :1], 1 - weight))

    def describe(self) -> Distillation:
        return self.identity

    def probabilities(self, split: str, data: Loaded) -> Tensor:
        """(N, C) the teacher's probabilities on the clean examples of "train" or "val", at the targets' temperature."""
        return self._tempered(self._predict(split, data))

    def _tempered(self, logits: Tensor) -> Tensor:
        return torch.softmax(logits / self.identity.temperature, dim=1)

    def _predict(self, split: str, data: Loaded) -> Tensor:
        """(N, C) untempered logits of a split's clean examples, float32; log-probabilities where a table has those."""
        if isinstance(self.teacher, nn.Module):
            return torch.cat([logits for _, logits in self._batches(data, None)])
        table = self.teacher[split].match_classes(data.examples.class_names).join(data.examples.ids)
        _check_labels(split, table, data.examples)
        return torch.from_numpy(table.log_probabilities()).to(data.device, torch.float32)

    def _batches(self, data: Loaded, logits: Tensor | None) -> Iterator[tuple[Tensor | None, Tensor]]:
        """Labels (B,), where there are any, and logits (B, C) of clean examples: parts of `logits`, or asked for."""
        if logits is not None:
            for start in range(0, len(data), BATCH_SIZE):
                part = slice(start, start + BATCH_SIZE)
                yield None if data.labels is None else data.labels[part], logits[part]
            return
        assert isinstance(self.teacher, nn.Module)
        self.teacher.to(data.device)
        check_outputs(self.teacher, data.sample(2).inputs, data.examples.num_classes, name="teacher")
        for batch in data.clean(BATCH_SIZE):
            yield batch.labels, self._ask(batch.inputs)

    def _ask(self, inputs: Tensor) -> Tensor:
        """(B, C) a live teacher's logits, float32."""
        assert isinstance(self.teacher, nn.Module)
        # Not in inference mode: what that makes cannot be kept for a backward pass.
        with evaluating(self.teacher), torch.no_grad():
            logits: Tensor = self.teacher(inputs).float()
        return logits

    def _ask_in_blocks(self, inputs: Tensor) -> Tensor:
        """As `_ask`, but so that no answer depends on the batch that it is asked in."""
        assert self._codec is not None
        return ask_in_blocks(self._ask, inputs, self._codec.classes)


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


def _warn_if_useless(errors: Risks, data: Loaded) -> None:
    """Says so where the teacher's recall, averaged over the classes that are there, is near that of a coin."""
    recall = 1 - float(errors.values.nanmean())
    if recall <= 1.2 / len(errors.sums):  # not so where nothing is known
        logger.warning(
            "the teacher is right on %.1f %% of a class of %s on average, near chance: are its predictions for"
            " these rows, its columns in this order of classes, its pictures normalised in this way?",
            100 * recall,
            data.examples.name,
        )


def one_hot_validation(val: Loaded) -> Tensor:
    """The labels (M,) of validation examples; refused with the class's name where a class is missing."""
    val.examples.require_every_class()
    assert val.labels is not None
    return val.labels


def _warn_of_missing(mass: Tensor, val: Loaded) -> None:
    missing = torch.nonzero(mass < MIN_MASS).flatten().tolist()
    if len(missing) == len(mass):
        raise InputError(f"{val.examples.name}: the teacher puts less than one example's mass on every class")
    if missing:
        names = ", ".join(repr(val.examples.class_names[index]) for index in missing[:5])
        logger.warning(
            "the teacher puts less than one validation example's mass on %d of %d classes (%s%s): their risk is unknown"
            " and their multipliers keep their share; one-hot validation labels would move them",
            len(missing),
            len(mass),
            names,
            ", ..." if len(missing) > 5 else "",
        )
