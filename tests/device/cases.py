"""Runs on a strict device are those on the CPU. `test_device.py` starts this in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import robustdistill as rd
from data.official import imagenet_files, write_tree
from device.strict import NAME, register
from robustdistill import methods
from robustdistill.data import stream
from robustdistill.errors import DivergedError
from robustdistill.integrations.sklearn import RobustDistillClassifier
from robustdistill.integrations.torchmetrics import WorstClassAccuracy
from robustdistill.training import checkpoint
from robustdistill.training.run import Run
from training.problems import assert_same_run, history_of, picture_splits, short

TRAIN, VAL = picture_splits(flip=True)
PLACES = [np.resize(["here", "there"], len(part)) for part in (TRAIN, VAL)]
GROUPED = [part.with_groups(places, ("here", "there")) for part, places in zip((TRAIN, VAL), PLACES, strict=True)]
RECIPE = short(epochs=2, milestones=())
KNOWN = methods.known()


@pytest.fixture(scope="module", autouse=True)
def device() -> None:
    register()


@pytest.fixture(scope="module")
def teacher() -> Run:
    return rd.fit("convnet-4", TRAIN, VAL, objective="balanced", recipe=RECIPE, progress=False, device="cpu")


def assert_same_on_both(run: Callable[..., Run], **settings: Any) -> Run:
    """The device's run, whose every tensor is there and has the CPU's bits."""
    settings = {"recipe": RECIPE, "progress": False, **settings}
    here, there = run(device="cpu", **settings), run(device=NAME, **settings)
    assert all(value.device.type == NAME for value in there.model.state_dict().values())
    there.model.to("cpu")
    there.multipliers.to("cpu")
    assert_same_run(here, there)
    assert here.scores.as_dict() == there.scores.as_dict()
    return there


def fitted(model: Any = "resnet8", train: Any = TRAIN, val: Any = VAL, **settings: Any) -> Run:
    return rd.fit(model, train, val, **settings)


def distilled(teacher: Any, train: Any = TRAIN, val: Any = VAL, **settings: Any) -> Run:
    return rd.distill(teacher, "convnet-2", train, val, **{"temperature": 2.0, "views": "off", **settings})


@pytest.mark.parametrize("name", [name for name, kind in KNOWN.items() if not kind.needs_teacher])
def test_methods(name: str) -> None:
    assert_same_on_both(fitted, method=name, objective="robust" if KNOWN[name].uses_costs else "standard")


@pytest.mark.parametrize("name", [name for name, kind in KNOWN.items() if kind.needs_teacher])
def test_methods_of_teachers(name: str, teacher: Run) -> None:
    assert_same_on_both(
        distilled, teacher=teacher, method=name, objective="robust" if KNOWN[name].uses_costs else "standard"
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "tradeoff:0.5", "risk": "cross-entropy", "scorer": "averaged"},
        {"recipe": RECIPE.with_(validation_sample=12), "objective": "robust"},
        {"method": "group-dro:uniform=False"},
        {"method": "group-dro:validation=True"},
    ],
)
def test_settings(settings: dict[str, Any]) -> None:
    assert_same_on_both(fitted, **settings)


@pytest.mark.parametrize("method", ["margin", "weighted"])
@pytest.mark.parametrize("groups", ["group", "class-group"])
def test_groups(groups: str, method: str) -> None:
    assert_same_on_both(fitted, train=GROUPED[0], val=GROUPED[1], groups=groups, method=method, objective="robust")


@pytest.mark.parametrize(
    "settings",
    [
        {"teacher_view": "clean"},
        {"teacher_weight": 0.5},
        {"teacher_top": 2, "validation_labels": "one-hot"},
        {"teacher_precision": "float32"},
        {"groups": "class-group", "train": GROUPED[0], "val": GROUPED[1]},
        {"train": replace(TRAIN, labels=None)},
    ],
)
def test_distillation(settings: dict[str, Any], teacher: Run) -> None:
    assert_same_on_both(distilled, teacher=teacher, **settings)


def test_tables_and_several_teachers(teacher: Run) -> None:
    tables = {"train": rd.predict(teacher, TRAIN), "val": rd.predict(teacher, VAL)}
    assert_same_on_both(distilled, teacher=tables)
    assert_same_on_both(distilled, teacher=[tables, teacher], teacher_view="clean")
    assert_same_on_both(distilled, teacher=[teacher, teacher.model])


@pytest.mark.parametrize("top", [None, 2])
def test_views_are_stored_and_read(top: int | None, teacher: Run, tmp_path: Path) -> None:
    live = assert_same_on_both(distilled, teacher=teacher, teacher_top=top)
    for _ in range(2):  # first they are made, then read
        settings = {"teacher_top": top, "recipe": RECIPE, "progress": False, "device": NAME, "views": tmp_path}
        stored = distilled(teacher, **settings)
        stored.model.to("cpu")
        stored.multipliers.to("cpu")
        assert_same_run(stored, live)
    assert any(tmp_path.rglob("rows*"))


def test_a_run_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = checkpoint.Keeper.save

    def interrupted(keeper: checkpoint.Keeper, history: list[dict[str, Any]], steps: int) -> None:
        save(keeper, history, steps)
        if len(history) == 1:
            raise KeyboardInterrupt

    settings = {"objective": "robust", "recipe": short(epochs=3, milestones=()), "progress": False}
    monkeypatch.setattr(checkpoint.Keeper, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fitted(device=NAME, out=tmp_path, **settings)
    monkeypatch.undo()
    found = fitted(device=NAME, out=tmp_path, **settings)
    assert len(found.history) == 3
    found.model.to("cpu")
    found.multipliers.to("cpu")
    assert_same_run(found, fitted(device="cpu", **settings))
    assert_same_run(Run.load(tmp_path), found)


def test_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)  # with vmap, torch has it for its own devices only

    def one(device: str, seed: int) -> Run:
        settings = {"recipe": RECIPE, "progress": False, "objective": "robust"}
        return fitted("convnet-4", device=device, seed=seed, **settings)

    found = rd.train_together([lambda seed=seed: one(NAME, seed) for seed in range(3)])
    wanted = rd.train_together([lambda seed=seed: one("cpu", seed) for seed in range(3)])
    for ours, theirs in zip(found, wanted, strict=True):
        assert isinstance(ours, Run), ours
        assert ours.environment["replicas"] == 3
        assert history_of(ours) == history_of(theirs)
        for name, value in ours.model.cpu().state_dict().items():
            torch.testing.assert_close(value, theirs.model.state_dict()[name])


def test_pictures_that_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "default_workers", lambda: 0)
    write_tree(tmp_path / "imagenet", imagenet_files(train_each=8, val_each=8))
    for crops in (None, 2):
        data = rd.data.load("imagenet", tmp_path, verify=False, image_size=12, crops=crops)
        run = assert_same_on_both(fitted, model="convnet-4", train=data.train, val=data.val, objective="robust")
        assert_same_on_both(distilled, teacher=run, train=data.train, val=data.val)


def test_predictions_and_scores(teacher: Run) -> None:
    model = rd.models.build("resnet8", num_classes=3, in_channels=1)
    here = rd.predict(model, VAL)
    there = rd.predict(model, VAL, device=NAME)
    assert np.array_equal(here.scores, there.scores)
    assert rd.evaluate(teacher, VAL).as_dict() == rd.evaluate(teacher, VAL, device=NAME).as_dict()
    by_group = [rd.evaluate(teacher, GROUPED[1], groups="group", device=device).as_dict() for device in ("cpu", NAME)]
    assert by_group[0] == by_group[1]
    teacher.model.to("cpu")


def test_divergence_is_told_alike() -> None:
    told = []
    for device in ("cpu", NAME):
        with pytest.raises(DivergedError) as raised:
            fitted("convnet-4", recipe=short(learning_rate=1e30), objective="robust", progress=False, device=device)
        told.append((str(raised.value), raised.value.step, raised.value.ids))
    assert told[0] == told[1]


def test_a_loop_of_ones_own() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(64, 5, generator=generator), torch.arange(64) % 3
    teacher = torch.softmax(torch.randn(64, 3, generator=generator), dim=1)
    found = []
    for device in ("cpu", NAME):
        torch.manual_seed(0)
        model = nn.Linear(5, 3).to(device)
        x, y, p = inputs.to(device), labels.to(device), teacher.to(device)
        dro = rd.ClassMultipliers("tradeoff:0.5", p.mean(dim=0), step_size=0.5)
        groups = torch.arange(64, device=device) % 2
        for _ in range(3):
            loss = (
                rd.losses.margin_loss(model(x), p, dro.costs).mean()
                + rd.losses.weighted_loss(model(x), y, dro.costs).mean()
            )
            loss.backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= parameter.grad
            model.zero_grad()
            dro.update(rd.risks.class_risks(model(x).detach(), p) + rd.risks.class_risks(model(x).detach(), y))
        by_group = rd.risks.class_risks(model(x).detach(), y, groups=groups, num_groups=2)
        state = dro.state_dict()
        dro.load_state_dict({key: v.cpu() if isinstance(v, torch.Tensor) else v for key, v in state.items()})
        moved = rd.multipliers.exponentiated_gradient(dro.weights, torch.ones(3, device=device), 1.0)
        found.append([v.cpu() for v in (model.weight, dro.weights, dro.costs, by_group.values, moved)])
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


def test_a_million_logits_in_blocks() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(4, 70_000, generator=generator), torch.tensor([0, 69_999, 5, 7])
    costs = torch.rand(70_000, generator=generator) + 0.5
    found = []
    for device in ("cpu", NAME):
        f = logits.clone().to(device).requires_grad_()
        rd.losses.margin_loss(f, labels.to(device), costs.to(device)).sum().backward()
        soft = rd.losses.margin_loss(f, torch.softmax(logits, dim=1).to(device), costs.to(device))
        found.append((f.grad.cpu(), soft.detach().cpu()))
    torch.testing.assert_close(found[0], found[1])


def test_an_estimator() -> None:
    rows, labels = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3
    here, there = (
        RobustDistillClassifier(epochs=3, every=2, random_state=0, device=device).fit(rows, labels)
        for device in ("cpu", NAME)
    )
    assert np.array_equal(here.predict_proba(rows), there.predict_proba(rows))


def test_the_device_is_strict() -> None:
    there = torch.arange(3.0, device=NAME)
    for mixed in (
        lambda: there + torch.ones(3),
        lambda: torch.ones(3) * there,
        lambda: torch.stack([there, torch.ones(3)]),
    ):
        with pytest.raises(RuntimeError, match="expected all tensors on strict"):
            mixed()
    with pytest.raises(TypeError, match="to numpy"):
        there.numpy()
    with pytest.raises(TypeError, match="to numpy"):
        np.asarray(there)
    assert torch.equal((there + 1).cpu(), torch.tensor([1.0, 2.0, 3.0]))


def test_metrics_of_torchmetrics() -> None:
    metric = WorstClassAccuracy(num_classes=3).to(NAME)
    metric.update(torch.eye(3, device=NAME), torch.tensor([0, 2, 1], device=NAME))
    assert float(metric.compute()) == 0.0
