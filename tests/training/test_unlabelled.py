"""Label mixing, and data that carry no labels at all (Section 4 of the paper: unlabelled data abound)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import robustdistill as rd
from robustdistill.data.splits import Examples
from robustdistill.data.stream import on_device
from robustdistill.errors import InputError
from robustdistill.experiments.journal import Record
from robustdistill.experiments.select import choose
from robustdistill.training.spec import Distillation
from robustdistill.training.targets import TeacherTargets
from training.problems import picture_splits, short


@pytest.fixture(scope="module")
def teacher() -> rd.Run:
    return rd.fit("convnet-4", *picture_splits(), recipe=short(epochs=4, milestones=()), progress=False)


def unlabelled(examples: Examples) -> Examples:
    return replace(examples, labels=None)


def targets_of(teacher: rd.Run, weight: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Priors, targets of the clean training examples, and the teacher's own probabilities."""
    train, val = picture_splits()
    identity = Distillation(
        teacher="t", teacher_model="m", temperature=2.0, validation_temperature=2.0, teacher_weight=weight
    )
    targets = TeacherTargets(teacher.model, identity, "teacher")
    data = on_device(train)
    priors, _ = targets.prepare(data, on_device(val))
    batch = targets(data.batch(torch.arange(len(train))))
    assert batch.targets is not None
    return priors.numpy(), batch.targets.numpy(), targets.probabilities("train", data).numpy()


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_targets_and_priors_are_the_mixture(teacher: rd.Run, weight: float) -> None:
    train, _ = picture_splits()
    priors, mixed, probabilities = targets_of(teacher, weight)
    expected = np.array(
        [
            [(1 - weight) * float(label == j) + weight * row[j] for j in range(train.num_classes)]
            for label, row in zip(train.require_labels(), probabilities.astype(float), strict=True)
        ]
    )
    np.testing.assert_allclose(mixed, expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(priors, expected.mean(axis=0), rtol=1e-6)


def test_weight_0_is_training_on_labels(teacher: rd.Run) -> None:
    settings = {"recipe": short(epochs=2, milestones=()), "seed": 5, "progress": False, "objective": "balanced"}
    alone = rd.fit("convnet-2", *picture_splits(), **settings)
    mixed = rd.distill(
        teacher, "convnet-2", *picture_splits(), teacher_weight=0.0, validation_labels="one-hot", **settings
    )
    for one, other in zip(alone.model.parameters(), mixed.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_weights_outside_are_refused(teacher: rd.Run, weight: float) -> None:
    with pytest.raises(InputError, match="teacher_weight"):
        rd.distill(teacher, "convnet-2", *picture_splits(), teacher_weight=weight, progress=False)


def test_a_default_weight_leaves_the_hash_as_it_was(teacher: rd.Run) -> None:
    run = rd.distill(teacher, "convnet-2", *picture_splits(), recipe=short(epochs=1, milestones=()), progress=False)
    assert run.spec.distillation is not None
    other = run.spec.distillation.model_copy(update={"teacher_weight": 0.5})
    assert run.spec.model_copy(update={"distillation": other}).hash != run.spec.hash


def test_no_label_is_needed_to_distil(teacher: rd.Run) -> None:
    train, val = picture_splits()
    settings = {"recipe": short(epochs=3, milestones=()), "seed": 1, "progress": False, "objective": "robust"}
    with_labels = rd.distill(teacher, "convnet-2", train, val, **settings)
    without = rd.distill(teacher, "convnet-2", unlabelled(train), unlabelled(val), **settings)
    for one, other in zip(with_labels.model.parameters(), without.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(with_labels.multipliers.weights, without.multipliers.weights)
    assert (with_labels.selection_labels, without.selection_labels) == ("true", "teacher")
    says = np.bincount(rd.predict(teacher, val).predicted, minlength=train.num_classes)
    assert without.scores.counts.tolist() == says.tolist()
    records = [Record.model_validate(run.record()) for run in (with_labels, without)]
    assert "teacher's stood in" in choose(records[1:]).rule
    assert "teacher's stood in" not in choose(records[:1]).rule


def test_labels_are_asked_for_where_they_are_needed(teacher: rd.Run) -> None:
    train, val = picture_splits()
    one_hot = {"validation_labels": "one-hot", "objective": "balanced", "progress": False}
    with pytest.raises(InputError, match="no labels"):
        rd.distill(teacher, "convnet-2", train, unlabelled(val), **one_hot)
    with pytest.raises(InputError, match="no labels"):
        rd.fit("convnet-2", unlabelled(train), val, progress=False)
    with pytest.raises(InputError, match="no labels"):
        rd.distill(
            teacher, "convnet-2", unlabelled(train), val, teacher_weight=0.5, objective="standard", progress=False
        )
