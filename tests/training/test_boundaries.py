"""What is refused before training, what counts as one run, and what an interruption says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

import robustdistill as rd
from robustdistill.errors import InputError
from robustdistill.files import write_json
from robustdistill.training import checkpoint
from robustdistill.training.device import choose_device
from robustdistill.training.progress import EpochProgress
from robustdistill.training.recipe import Recipe
from robustdistill.training.spec import Distillation, RunSpec
from training.problems import assert_same_run, picture_splits, short


def spec(**changes: Any) -> RunSpec:
    fields = {
        "role": "student",
        "data": {"train": "a", "val": "b"},
        "model": "convnet-2",
        "objective": "standard",
        "seed": 0,
        "threads": 1,
        "recipe": Recipe(schedule="cosine"),
        "distillation": Distillation(teacher="t", teacher_model="m", temperature=1.0),
    }
    return RunSpec(**{**fields, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": Recipe(schedule="cosine", name="other")},
        {"recipe": Recipe(schedule="cosine", drop=0.5, milestones=(3,))},
        {"recipe": Recipe(schedule="cosine", step_size=0.5, decay=0.1, every=3, validation_sample=10)},
        {"risk": "cross-entropy"},
        {"validation_labels": "teacher"},
    ],
)
def test_what_has_no_influence_does_not_count(changes: dict[str, Any]) -> None:
    assert spec(**changes).hash == spec().hash
    if "name" not in str(changes) and "drop" not in str(changes.get("recipe", {})):
        assert spec(objective="robust", **changes).hash != spec(objective="robust").hash


def test_what_has_influence_counts() -> None:
    different = [spec(), spec(seed=1), spec(threads=2), spec(objective="balanced"), spec(method="dkd")]
    different += [spec(recipe=Recipe(schedule="steps")), spec(recipe=Recipe(schedule="steps", drop=0.5))]
    different += [
        spec(objective="robust"),
        spec(objective="robust", validation_labels="teacher"),
        spec(scorer="averaged"),
    ]
    assert len({one.hash for one in different}) == len(different)


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("mine")
    with pytest.raises(InputError, match="out must be a folder"):
        rd.fit("convnet-2", *picture_splits(), out=taken / "run", progress=False)
    assert taken.read_text() == "mine"


@pytest.mark.parametrize("device", ["cud", "cuda:99", "mps"])
def test_devices_that_are_not_there(device: str) -> None:
    with pytest.raises(InputError, match="device"):
        choose_device(device, torch.device("cpu"))


def interrupted(monkeypatch: pytest.MonkeyPatch, out: Path | None) -> str:
    """What an interruption in the third epoch says."""
    update = EpochProgress.update

    def stop(self: EpochProgress, record: dict[str, Any]) -> None:
        update(self, record)
        if record["epoch"] == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(EpochProgress, "update", stop)
        with pytest.raises(KeyboardInterrupt) as raised:
            rd.fit("convnet-2", *picture_splits(), recipe=short(epochs=5, milestones=()), out=out, progress=False)
    return str(raised.value)


def test_an_interruption_says_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no epoch was kept yet" in interrupted(monkeypatch, tmp_path / "early")
    assert not list((tmp_path / "early").iterdir())
    assert "nothing is kept without out=" in interrupted(monkeypatch, None)
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", -1.0)
    word = interrupted(monkeypatch, tmp_path / "late")
    assert "the first 2 epochs are kept in" in word
    assert (tmp_path / "late" / checkpoint.CHECKPOINT).is_file()


def test_a_long_history_of_many_classes_fits_in_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the 100 MB that safetensors allows for text in its header."""
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", -1.0)
    model = torch.nn.Linear(2, 3)
    keeper = checkpoint.Keeper(
        tmp_path,
        spec(),
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        rd.ClassMultipliers("robust", [1.0, 1.0]),
        rd.methods.get("margin"),
    )
    keeper.save([{"epoch": 1, "multipliers": "x" * 110_000_000}], steps=1)
    assert (tmp_path / checkpoint.CHECKPOINT).stat().st_size > 110_000_000


def test_new_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_json(tmp_path / "private.json", {"a": 1})
    finally:
        os.umask(before)
    assert (tmp_path / "private.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("seed", [-1, 2**63, 99999999999999999999])
def test_seeds_that_torch_cannot_take(seed: int) -> None:
    with pytest.raises(InputError, match="seed must lie in"):
        rd.fit("convnet-2", *picture_splits(), seed=seed, progress=False)


def test_lazy_parameters_have_their_shape_before_training() -> None:
    settings = {"recipe": short(epochs=2, milestones=()), "progress": False}
    here, again = (rd.fit("training.problems:linear", *picture_splits(), **settings) for _ in range(2))
    assert here.parameters == 36 * 3 + 3
    assert_same_run(here, again)
