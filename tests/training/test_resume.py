"""Interrupted and gone on with: the same bits as never interrupted, and no folder mixes two runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import robustdistill as rd
from robustdistill.errors import InputError
from robustdistill.models import ModelLike
from robustdistill.training.progress import EpochProgress
from robustdistill.training.run import Run
from robustdistill.training.step import TrainStep
from training import problems
from training.problems import assert_same_run, assert_same_weights, history_of, picture_splits, short

pytestmark = pytest.mark.usefixtures("checkpoint_every_epoch")


def fitted(model: ModelLike, out: Path | None, **settings: Any) -> Run:
    train, val = picture_splits()
    settings = {"objective": "robust", "recipe": short(), "seed": 3, "progress": False, **settings}
    return rd.fit(model, train, val, out=out, **settings)


def distilled(teacher: Run, out: Path | None) -> Run:
    train, val = picture_splits()
    return rd.distill(teacher, "convnet-2", train, val, temperature=2.0, recipe=short(), out=out, progress=False)


def interrupt_at_step(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    original = TrainStep.__call__
    count = 0

    def step(self: TrainStep, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count > steps:
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(TrainStep, "__call__", step)


@pytest.mark.parametrize("after", [0, 4, 13, 20])
@pytest.mark.parametrize("model", ["convnet-4", problems.Dropout], ids=["convnet", "dropout"])
def test_a_resumed_run_is_the_uninterrupted_one(
    model: ModelLike, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five steps an epoch: before the first checkpoint, within an epoch, and between two."""
    whole = fitted(model, None)
    with monkeypatch.context() as patch:
        interrupt_at_step(patch, after)
        with pytest.raises(KeyboardInterrupt):
            fitted(model, tmp_path)
    assert not (tmp_path / "record.json").exists()
    assert (tmp_path / "checkpoint.safetensors").exists() == (after >= 5)
    torch.rand(3)
    resumed = fitted(model, tmp_path)
    assert_same_run(whole, resumed)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors", "record.json"]


@pytest.mark.parametrize(
    "recipe",
    [
        short(momentum=0.0),
        short(schedule="cosine", nesterov=True, every=1, validation_sample=12, decay=0.1),
        short(precision="bfloat16"),
    ],
    ids=["no momentum", "cosine and samples", "bfloat16"],
)
def test_whatever_the_recipe(recipe: rd.Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fitted("resnet8", None, recipe=recipe)
    with monkeypatch.context() as patch:
        interrupt_at_step(patch, 12)
        with pytest.raises(KeyboardInterrupt):
            fitted("resnet8", tmp_path, recipe=recipe)
    assert_same_run(whole, fitted("resnet8", tmp_path, recipe=recipe))


def test_interrupted_twice_and_between_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fitted(problems.Dropout, None)

    def update(self: EpochProgress, record: dict[str, Any]) -> None:
        if record["epoch"] in interrupt_after:
            interrupt_after.remove(record["epoch"])
            raise KeyboardInterrupt

    monkeypatch.setattr(EpochProgress, "update", update)
    interrupt_after = {2, 4}
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fitted(problems.Dropout, tmp_path)
    assert_same_run(whole, fitted(problems.Dropout, tmp_path))


def test_students_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = fitted("convnet-4", None)
    whole = distilled(teacher, None)
    with monkeypatch.context() as patch:
        interrupt_at_step(patch, 12)
        with pytest.raises(KeyboardInterrupt):
            distilled(teacher, tmp_path)
    assert_same_run(whole, distilled(teacher, tmp_path))


def test_interrupted_after_the_last_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fitted("convnet-4", None)

    def save(self: Run, folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", save)
        with pytest.raises(KeyboardInterrupt):
            fitted("convnet-4", tmp_path)
        interrupt_at_step(patch, 0)
        with pytest.raises(KeyboardInterrupt):
            fitted("convnet-4", tmp_path)
    resumed = fitted("convnet-4", tmp_path)
    assert_same_run(whole, resumed)
    assert resumed.scores.as_dict() == whole.scores.as_dict()


def test_a_finished_run_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fitted("convnet-4", tmp_path)
    written = (tmp_path / "record.json").stat().st_mtime_ns
    interrupt_at_step(monkeypatch, 0)
    loaded = fitted("convnet-4", tmp_path)
    assert_same_weights(first.model, loaded.model)
    assert history_of(loaded) == history_of(first)
    assert (tmp_path / "record.json").stat().st_mtime_ns == written


@pytest.mark.parametrize("model", [problems.Dropout, "training.problems:narrow", problems.Dropout()])
def test_a_finished_run_of_the_users_own_model_is_loaded(
    model: ModelLike, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fitted(model, tmp_path)
    interrupt_at_step(monkeypatch, 0)
    assert_same_weights(first.model, fitted(model, tmp_path).model)


def test_another_run_in_the_folder_is_refused_by_what_differs(tmp_path: Path) -> None:
    fitted("convnet-4", tmp_path)
    before = (tmp_path / "record.json").read_bytes()
    with pytest.raises(InputError, match=r"another run; they differ in recipe\.step_size 0\.1 -> 0\.3, seed 3 -> 4"):
        fitted("convnet-4", tmp_path, seed=4, recipe=short(step_size=0.3))
    assert (tmp_path / "record.json").read_bytes() == before


def interrupted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with monkeypatch.context() as patch:
        interrupt_at_step(patch, 12)
        with pytest.raises(KeyboardInterrupt):
            fitted("convnet-4", folder)
    return folder / "checkpoint.safetensors"


def test_another_runs_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = interrupted(tmp_path, monkeypatch)
    content = path.read_bytes()
    with pytest.raises(InputError, match="belongs to another run"):
        fitted("convnet-4", tmp_path, seed=4)
    assert path.read_bytes() == content


@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "foreign", "other metadata", "momentum"])
def test_a_damaged_checkpoint_is_refused(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = interrupted(tmp_path, monkeypatch)
    content = path.read_bytes()
    if damage == "foreign":
        save_file({"x": torch.zeros(3)}, path)
    elif damage == "other metadata":
        save_file({"x": torch.zeros(3)}, path, metadata={"robustdistill": json.dumps({"steps": 3})})
    elif damage == "momentum":
        tensors = load_file(path)
        save_file({**tensors, "optimizer/0/momentum_buffer": torch.zeros(())}, path)
    else:
        path.write_bytes({"empty": b"", "truncated": content[: len(content) // 2], "text": b"hello" * 99}[damage])
    with pytest.raises(InputError, match=r"checkpoint\.safetensors"):
        fitted("convnet-4", tmp_path)
