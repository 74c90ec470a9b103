from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import robustdistill as rd
from robustdistill.training.recipe import AUTO, Recipe
from robustdistill.training.spec import Distillation, RunSpec
from training import problems

DISTILLATION: dict[str, Any] = {
    "teacher": "abc",
    "teacher_model": "convnet-8",
    "teacher_objective": "robust",
    "teacher_seed": 1,
    "temperature": 3.0,
    "validation_temperature": 3.0,
    "teacher_view": "same",
}
BASE: dict[str, Any] = {
    "role": "student",
    "data": {"name": "digits", "split_seed": 0, "subset_seed": 0, "train": "aa", "val": "bb"},
    "model": "convnet-4",
    "model_code": None,
    "objective": "robust",
    "method": "margin",
    "risk": "zero-one",
    "seed": 1,
    "threads": 1,
    "recipe": Recipe(epochs=3),
    "validation_labels": "teacher",
    "distillation": Distillation(**DISTILLATION),
}


def spec(**changes: Any) -> RunSpec:
    return RunSpec(**{**BASE, **changes})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("robust", "tradeoff:1"),
        ("robust", "standard-tradeoff:1.0"),
        ("balanced", "tradeoff:0"),
        ("standard", "standard-tradeoff:0"),
        ("tradeoff:0.5", "tradeoff:.50"),
    ],
)
def test_equal_meaning_is_one_run(first: str, second: str) -> None:
    assert spec(objective=first) == spec(objective=second)
    assert spec(objective=first).hash == spec(objective=second).hash


CHANGES: list[dict[str, Any]] = [
    {"data": {**BASE["data"], "train": "cc"}},
    {"data": {**BASE["data"], "val": "cc"}},
    {"data": {**BASE["data"], "subset_seed": 1}},
    {"data": {**BASE["data"], "ratio": 30.0}},
    {"model": "convnet-5"},
    {"model_code": "0123"},
    {"objective": "balanced"},
    {"objective": "tradeoff:0.5"},
    {"objective": "standard-tradeoff:0.5"},
    {"method": "weighted"},
    {"risk": "cross-entropy"},
    {"seed": 2},
    {"threads": 2},
    {"validation_labels": "one-hot"},
    {"schema_version": 99},
    *(
        {"recipe": Recipe(epochs=3).with_(**change)}
        for change in (
            {"epochs": 4},
            {"batch_size": 64},
            {"learning_rate": 0.2},
            {"momentum": 0.8},
            {"nesterov": True},
            {"weight_decay": 0.0},
            {"schedule": "cosine"},
            {"warmup_epochs": 1},
            {"milestones": (2,)},
            {"drop": 0.5},
            {"every": 16},
            {"step_size": 0.2},
            {"decay": 0.1},
            {"validation_sample": 10},
            {"precision": "bfloat16"},
            {"execution": "compiled"},
        )
    ),
    *(
        {"distillation": Distillation(**{**DISTILLATION, **change})}
        for change in (
            {"teacher": "abd"},
            {"temperature": 5.0},
            {"validation_temperature": 0.1},
            {"teacher_view": "clean"},
        )
    ),
]


def test_whatever_decides_the_numbers_changes_the_hash() -> None:
    hashes = [spec().hash, *(spec(**change).hash for change in CHANGES)]
    assert len(set(hashes)) == len(CHANGES) + 1


def test_an_automatic_step_size_is_its_numbers() -> None:
    automatic = spec(recipe=Recipe(epochs=3).with_(step_size="auto"))
    assert automatic.hash == spec(recipe=Recipe(epochs=3).with_(**AUTO)).hash
    assert automatic.hash != spec().hash
    assert automatic.model_dump(mode="json")["recipe"]["step_size"] == AUTO["step_size"]
    assert RunSpec(**json.loads(automatic.model_dump_json())) == automatic


def test_every_setting_of_a_recipe_is_covered_above() -> None:
    default = Recipe(epochs=3).model_dump()
    seen = {key for change in CHANGES if "recipe" in change for key, value in change["recipe"] if value != default[key]}
    assert seen == Recipe.model_fields.keys() - {"name"}


def test_the_hash_survives_json_and_other_processes() -> None:
    one = spec()
    assert RunSpec(**json.loads(json.dumps(one.model_dump(mode="json")))).hash == one.hash
    assert len(one.hash) == 12
    assert int(one.hash, 16) >= 0
    code = (
        "import sys, json; from robustdistill.training.spec import RunSpec;"
        "print(RunSpec(**json.load(sys.stdin)).hash, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=one.model_dump_json(),
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "5", "PYTHONPATH": str(Path(rd.__file__).parents[1])},
    )
    assert done.stdout.split() == [one.hash, "False"]


def test_root_and_device_are_not_part_of_it(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"recipe": problems.short(epochs=1, milestones=()), "progress": False}
    hashes = []
    for root, device in ((None, None), (tmp_path, "cpu")):
        data = rd.data.load("digits-lt", root=root)
        hashes.append(rd.fit("convnet-2", data.train, data.val, device=device, **settings).spec.hash)
    assert hashes[0] == hashes[1]


def test_other_fields_are_refused() -> None:
    with pytest.raises(ValueError, match="colour"):
        spec(colour="red")


@pytest.mark.parametrize("change", [{"role": "teacher"}, {"distillation": None}])
def test_students_and_only_students_have_a_teacher(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="distillation"):
        spec(**change)
