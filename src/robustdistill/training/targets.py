"""What a model is trained towards: labels for a teacher, a teacher's probabilities for a student.

Priors belong to the targets: π is the mean of the targets in use over the clean training pictures, whatever view a
batch shows. Temperature is applied here, to untempered logits; student logits are never tempered.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from robustdistill.data.batches import Batch
from robustdistill.data.stream import Loaded
from robustdistill.errors import InputError
from robustdistill.groups import joint
from robustdistill.risks import MIN_MASS, Risks, class_risks
from robustdistill.training.evaluate import BATCH_SIZE
from robustdistill.training.members import Member, TeacherSource
from robustdistill.training.spec import Distillation
from robustdistill.training.views import ViewsChoice

logger = logging.getLogger(__name__)

ValidationLabels = Literal["one-hot", "teacher"]
TeacherView = Literal["same", "clean"]


class Targets(Protocol):
    """The targets of training batches, and of the validation examples that move the multipliers."""

    validation_labels: ValidationLabels

    def prepare(self, train: Loaded, val: Loaded, sides: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Priors (C,) and validation targets, (M,) labels or (M, C) probabilities. Called once, before training.

        With `sides` (N,), the value of a group column for each training example, the first are masses (A, C): the
        targets summed over the examples with each value.
        """
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

    def prepare(self, train: Loaded, val: Loaded, sides: Tensor | None = None) -> tuple[Tensor, Tensor]:
        train.examples.require_every_class()
        assert train.labels is not None
        self._labels = train.labels
        counts = torch.from_numpy(train.examples.class_counts).to(train.device)
        if sides is not None:
            counts = joint(sides, train.labels, len(train.examples.group_names), len(counts))
        return counts, one_hot_validation(val)

    def __call__(self, batch: Batch) -> Batch:
        return replace(batch, targets=self._labels[batch.positions])

    def describe(self) -> Distillation | None:
        return None


class TeacherTargets:
    """A teacher's probabilities softmax(f^t / T), of a live module or of tables of its predictions.

    Several teachers are one whose probabilities are the mean of theirs at the temperature in use,
    (1/M) Σ_m softmax(f^m / T). As its untempered logits, for methods with a temperature of their own, serve the
    logarithms of that mean at T = 1.

    Args:
        teacher: a module, run in eval mode and left as it was, or {"train": Predictions, "val": Predictions}; or a list
            of such, summed in its order.
        identity: what the student's spec says of the teacher.
        validation_labels: "teacher" labels validation by the teacher (Algorithm 1), "one-hot" takes the true labels
            (Algorithm 2).
        views: where a module's predictions on augmented views are stored, see `training.views`; it changes no number.

    Attributes:
        members: the teachers.
    """

    def __init__(
        self,
        teacher: TeacherSource | Sequence[TeacherSource],
        identity: Distillation,
        validation_labels: ValidationLabels,
        views: ViewsChoice = "off",
    ) -> None:
        sources = [teacher] if isinstance(teacher, (nn.Module, dict)) else list(teacher)
        self.members = [Member(source, identity, views) for source in sources]
        self.identity, self.validation_labels = identity, validation_labels

    def prepare(self, train: Loaded, val: Loaded, sides: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.identity.teacher_weight < 1.0:
            train.examples.require_labels()
        for member in self.members:
            member.kept = None if member.is_live(train) else self._predict_one(member, "train", train)
            member.open_views(train)
        priors = self._survey(train, [member.kept for member in self.members], sides)
        if self.validation_labels == "one-hot":
            return priors, one_hot_validation(val)
        assert self.identity.validation_temperature is not None
        logits = [self._predict_one(member, "val", val) for member in self.members]
        self._survey(val, list(logits))
        targets = _mean(logits, self.identity.validation_temperature)
        _warn_of_missing(targets.sum(dim=0), val)
        return priors, targets

    def _survey(self, data: Loaded, kept: list[Tensor | None], sides: Tensor | None = None) -> Tensor:
        """(C,) the mean of the targets of a split's clean examples; warns where their teacher is near chance.

        With `sides` (N,), the values of a group column, they are sums (A, C), by value. Goes batch by batch, since the
        (N, C) of a large data set may be more than fits.
        """
        nothing = torch.zeros(data.examples.num_classes, dtype=torch.float64, device=data.device)
        total, errors, start = nothing, Risks(nothing, nothing), 0
        if sides is not None:
            total = nothing.repeat(len(data.examples.group_names), 1)
        for labels, logits in self._batches(data, kept):
            probabilities = _mean(logits, self.identity.temperature)
            if labels is not None:
                errors = errors + class_risks(probabilities, labels)
            mixed = self._mixed(probabilities, labels)
            if sides is None:
                total = total + mixed.sum(dim=0, dtype=torch.float64)
            else:
                total = total.index_add(0, sides[start : start + len(mixed)], mixed.double())
            start += len(mixed)
        _warn_if_useless(errors, data)
        return total if sides is not None else total / len(data)

    def __call__(self, batch: Batch) -> Batch:
        logits = [member.shown(batch) for member in self.members]
        targets = self._mixed(_mean(logits, self.identity.temperature), batch.labels)
        return replace(batch, targets=targets, teacher_logits=_joined(logits))

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
        return _mean([self._predict_one(member, split, data) for member in self.members], self.identity.temperature)

    def _predict_one(self, member: Member, split: str, data: Loaded) -> Tensor:
        """(N, C) untempered logits of a split's clean examples, float32; log-probabilities where a table has those."""
        found = member.read(split, data)
        if found is not None:
            return found
        member.on(data)
        return torch.cat([member.ask(batch.inputs) for batch in data.clean(BATCH_SIZE)])

    def _batches(self, data: Loaded, kept: list[Tensor | None]) -> Iterator[tuple[Tensor | None, list[Tensor]]]:
        """Labels (B,), where there are any, and each member's logits (B, C) of clean examples: kept, or asked for."""
        if all(logits is not None for logits in kept):
            for start in range(0, len(data), BATCH_SIZE):
                part = slice(start, start + BATCH_SIZE)
                known = [logits[part] for logits in kept if logits is not None]
                yield None if data.labels is None else data.labels[part], known
            return
        for member, logits in zip(self.members, kept, strict=True):
            if logits is None:
                member.on(data)
        for batch in data.clean(BATCH_SIZE):
            yield (
                batch.labels,
                [
                    member.ask(batch.inputs) if logits is None else logits[batch.positions]
                    for member, logits in zip(self.members, kept, strict=True)
                ],
            )


def _mean(logits: Sequence[Tensor], temperature: float) -> Tensor:
    """(B, C) (1/M) Σ_m softmax(f^m / T)."""
    total = torch.softmax(logits[0] / temperature, dim=1)
    for more in logits[1:]:
        total = total + torch.softmax(more / temperature, dim=1)
    return total / len(logits) if len(logits) > 1 else total


def _joined(logits: Sequence[Tensor]) -> Tensor:
    """(B, C) logits whose softmax is the mean of the members' at T = 1; those of the only one as they are."""
    if len(logits) == 1:
        return logits[0]
    stacked = torch.stack([torch.log_softmax(one, dim=1) for one in logits])
    return stacked.logsumexp(dim=0) - math.log(len(logits))


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
