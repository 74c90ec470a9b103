"""Distillation from stored predictions where pictures are streamed: K random crops of each, fixed once and for all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

import robustdistill as rd
from data.official import WNIDS, imagenet_files, write_tree
from data.test_imagenet import hub_name, parquet_shards
from robustdistill.data import stream
from robustdistill.training.run import Run
from training.problems import assert_same_run, short

K = 2


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    write_tree(root / "imagenet", imagenet_files(train_each=8, val_each=8))
    return root


@pytest.fixture(autouse=True)
def decoded_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few pictures are decoded sooner than a process starts."""
    monkeypatch.setattr(stream, "default_workers", lambda: 0)


def pictures(root: Path, name: str = "imagenet", crops: int | None = K) -> rd.Splits:
    return rd.data.load(name, root, verify=False, image_size=12, crops=crops)


def taught(root: Path, **settings: Any) -> Run:
    train, val = (getattr(pictures(root, **settings), part) for part in ("train", "val"))
    return rd.fit("convnet-4", train, val, objective="balanced", recipe=short(epochs=2), seed=1, progress=False)


def distilled(data: rd.Splits, teacher: Any, **settings: Any) -> Run:
    settings = {"recipe": short(epochs=4), "progress": False, "seed": 2, "temperature": 2.0, **settings}
    return rd.distill(teacher, "convnet-2", data.train, data.val, **settings)


class Counting(nn.Module):
    """A teacher that counts how often it is asked."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.asked = model, 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.asked += 1
        return self.model(inputs)


def test_stored_and_live_predictions_give_the_same_student(tree: Path, tmp_path: Path) -> None:
    teacher, data = taught(tree), pictures(tree)
    live = distilled(data, teacher, views="off")
    first = distilled(data, teacher, views=tmp_path)
    again = distilled(data, teacher, views=tmp_path)
    assert_same_run(live, first)
    assert_same_run(live, again)
    (path,) = tmp_path.glob("*/rows.f16")
    assert path.stat().st_size == (K + 1) * len(data.train) * len(WNIDS) * 2
    words = np.fromfile(path, dtype=np.int16).reshape(len(data.train), K + 1, len(WNIDS))
    filled = (words < 0).all(axis=2)
    assert not filled[:, 0].any()  # the clean view is not what training shows
    assert filled[:, 1:].mean() > 0.8


def test_once_all_views_are_met_the_teacher_is_asked_no_more(tree: Path, tmp_path: Path) -> None:
    counting, data = Counting(taught(tree).model), pictures(tree)
    distilled(data, counting, views=tmp_path, recipe=short(epochs=12))
    counting.asked = 0
    distilled(data, counting, views=tmp_path, seed=9)
    stored, counting.asked = counting.asked, 0
    distilled(data, counting, views="off", seed=9)
    steps = 4 * -(-len(data.train) // short().batch_size)
    assert counting.asked >= stored + steps - 7  # seven calls see whether the teacher's rows are independent


def test_random_crops_without_end_say_what_would_help(tree: Path, tmp_path: Path) -> None:
    teacher, data = taught(tree, crops=None), pictures(tree, crops=None)
    with pytest.raises(rd.errors.InputError, match="no view is met twice; crops=K fixes K of them"):
        distilled(data, teacher, views=tmp_path)


def in_tables(root: Path) -> None:
    parquet_shards(root / "imagenet" / "data", imagenet_files(train_each=8, val_each=8), path=hub_name)


@pytest.mark.parametrize(
    "write", [in_tables, lambda root: write_tree(root / "imagenet", imagenet_files(train_each=8, val_each=8))]
)
def test_teacher_and_student_on_a_listed_long_tail(write: Callable[[Path], Any], tmp_path: Path) -> None:
    write(tmp_path)
    lines = [f"train/{wnid}/{wnid}_{i}.JPEG {j}" for j, wnid in enumerate(WNIDS) for i in range((8, 4, 2)[j])]
    (tmp_path / "ImageNet_LT_train.txt").write_text("\n".join(lines))
    data = pictures(tmp_path, "imagenet-lt")
    assert data.train.class_counts.tolist() == [8, 4, 2]
    teacher = taught(tmp_path, name="imagenet-lt")
    student = distilled(data, teacher, views=tmp_path / "views", recipe=short(epochs=1, milestones=(), every=1))
    assert student.spec.data.model_dump()["crops"] == K
    assert int(rd.evaluate(student, data.test).counts.sum()) == len(data.test)
