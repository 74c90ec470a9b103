from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import robustdistill as rd
from robustdistill.data.batches import DeviceExamples
from robustdistill.errors import InputError
from robustdistill.training.distill import Teacher
from robustdistill.training.run import Run
from robustdistill.training.spec import Distillation
from robustdistill.training.targets import TeacherTargets
from training.problems import assert_same_run, assert_same_weights, picture_splits, short

IDENTITY = Distillation(teacher="several", teacher_model="linear", temperature=3.0, validation_temperature=2.0)


def linear(seed: int) -> nn.Module:
    layer = nn.Linear(36, 3)
    nn.init.normal_(layer.weight, std=0.5, generator=torch.Generator().manual_seed(seed))
    nn.init.zeros_(layer.bias)
    return nn.Sequential(nn.Flatten(), layer)


def mean_of_probabilities(teachers: list[nn.Module], data: DeviceExamples, temperature: float) -> np.ndarray:
    """The twin: one example and one teacher at a time, in float64."""
    inputs = data.batch(torch.arange(len(data))).inputs
    rows = []
    for picture in inputs:
        logits = [teacher(picture[None])[0].detach().double().numpy() / temperature for teacher in teachers]
        rows.append(sum(np.exp(one) / np.exp(one).sum() for one in logits) / len(teachers))
    return np.array(rows)


def distilled(teacher: Teacher, **settings: object) -> Run:
    settings = {"recipe": short(epochs=2, milestones=()), "seed": 2, "progress": False, "views": "off", **settings}
    return rd.distill(teacher, "convnet-2", *picture_splits(), **settings)


def tables_of(module: nn.Module) -> dict[str, rd.Predictions]:
    train, val = picture_splits()
    return {"train": rd.predict(module, train), "val": rd.predict(module, val)}


@pytest.mark.parametrize("tables", [(), (0,), (0, 1)])
def test_targets_are_the_mean_of_tempered_probabilities(tables: tuple[int, ...]) -> None:
    modules = [linear(0), linear(1)]
    sources = [tables_of(module) if place in tables else module for place, module in enumerate(modules)]
    train, val = (DeviceExamples(split) for split in picture_splits())
    targets = TeacherTargets(sources, IDENTITY.model_copy(update={"teacher_view": "clean"}), "teacher")
    priors, val_targets = targets.prepare(train, val)
    expected = mean_of_probabilities(modules, train, 3.0)
    np.testing.assert_allclose(priors, expected.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(val_targets, mean_of_probabilities(modules, val, 2.0), rtol=1e-4, atol=1e-7)
    batch = targets(train.batch(torch.tensor([5, 0, 17])))
    np.testing.assert_allclose(batch.targets, expected[[5, 0, 17]], rtol=1e-4, atol=1e-7)
    plain = mean_of_probabilities(modules, train, 1.0)[[5, 0, 17]]
    np.testing.assert_allclose(torch.softmax(batch.teacher_logits, dim=1), plain, rtol=1e-4, atol=1e-7)


def test_each_live_teacher_sees_the_students_view() -> None:
    modules = [linear(0), linear(1)]
    train, val = (DeviceExamples(split) for split in picture_splits())
    targets = TeacherTargets(modules, IDENTITY, "one-hot")
    targets.prepare(train, val)
    batch = train.batch(torch.arange(4), torch.tensor([0, 1, 2, 3]))
    with torch.no_grad():
        expected = sum(torch.softmax(module(batch.inputs) / 3, dim=1) for module in modules) / 2
    torch.testing.assert_close(targets(batch).targets, expected)


def test_order_does_not_matter_and_one_is_itself() -> None:
    first, second = linear(0), linear(1)
    one_way, other_way = distilled([first, second]), distilled((second, first))
    assert_same_run(one_way, other_way)
    assert one_way.spec.distillation is not None
    assert one_way.spec.distillation.teacher_model.count("Sequential") == 2
    alone, listed = distilled(first), distilled([first])
    assert_same_run(alone, listed)
    assert alone.spec.hash != one_way.spec.hash
    assert not torch.equal(alone.model.head.weight, one_way.model.head.weight)


def test_each_teacher_has_a_store_of_its_own(tmp_path: Path) -> None:
    both = [linear(0), linear(1)]
    kept = distilled(both, views=tmp_path)
    assert len(list(tmp_path.glob("*/rows.f16"))) == 2
    assert_same_weights(kept.model, distilled(both).model)
    assert_same_weights(kept.model, distilled(both, views=tmp_path).model)


def test_a_table_among_them_makes_the_view_clean() -> None:
    mixed = distilled([linear(0), tables_of(linear(1))])
    assert mixed.spec.distillation is not None
    assert mixed.spec.distillation.teacher_view == "clean"
    with pytest.raises(InputError, match="teacher_view='same' needs a model"):
        distilled([linear(0), tables_of(linear(1))], teacher_view="same")


@pytest.mark.parametrize(
    ("teachers", "message"),
    [
        ([], "empty list"),
        ([linear(0), linear(0)], "is in it twice"),
        ([linear(0), 3], r"or a list of such, got int"),
        ([linear(0), [linear(1)]], "got list"),
    ],
)
def test_lists_that_mean_nothing_are_refused(teachers: list[object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        distilled(teachers)  # type: ignore[arg-type]
