from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from robustdistill.data import load
from robustdistill.errors import InputError
from robustdistill.experiments.grid import DataSource, Grid
from robustdistill.experiments.plan import DataPlan, Plan, read
from robustdistill.training.recipe import Recipe

YAML = """
data: {name: cifar10-lt, ratio: 50, root: /data}
teachers: resnet56
students: [resnet32, resnet20]
student_objectives: [standard, "tradeoff:0.5", robust]
temperatures: [1, 3, 5]
validation_temperatures: [same, 0.1]
repeats: 10
fixed_teacher: true
recipe: {name: cifar10-lt-short, epochs: 60}
"""
TOML = """
teachers = "resnet56"
students = ["resnet32", "resnet20"]
student_objectives = ["standard", "tradeoff:0.5", "robust"]
temperatures = [1, 3, 5]
validation_temperatures = ["same", 0.1]
repeats = 10
fixed_teacher = true
[data]
name = "cifar10-lt"
ratio = 50
root = "/data"
[recipe]
name = "cifar10-lt-short"
epochs = 60
"""
MEANT = Grid(
    data=DataSource("cifar10-lt", root=Path("/data"), ratio=50),
    teachers=("resnet56",),
    students=("resnet32", "resnet20"),
    student_objectives=("standard", "tradeoff:0.5", "robust"),
    temperatures=(1, 3, 5),
    validation_temperatures=(None, 0.1),
    repeats=10,
    fixed_teacher=True,
    recipe=Recipe.named("cifar10-lt-short").with_(epochs=60),
)


def test_data_have_the_arguments_of_load() -> None:
    arguments = list(inspect.signature(load).parameters)
    assert [field.name for field in fields(DataSource)] == arguments
    assert list(DataPlan.model_fields) == arguments


@pytest.mark.parametrize(("name", "text"), [("plan.yaml", YAML), ("plan.yml", YAML), ("plan.toml", TOML)])
def test_a_file_means_a_grid(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    plan = Plan.of(read(path))
    assert plan.grid() == MEANT
    assert plan.grid().jobs() == MEANT.jobs()


def test_a_plan_s_text_is_the_plan_without_places(tmp_path: Path) -> None:
    plan = Plan.of({"data": {"name": "cifar10-lt", "ratio": 50, "root": "/data"}, "repeats": 2, "recipe": "cifar10"})
    path = tmp_path / "plan.yaml"
    path.write_text(plan.text())
    assert "/data" not in plan.text()
    again = Plan.of(read(path))
    assert again.data.root is None
    assert (
        again.grid().jobs()
        == Plan.of({"data": {"name": "cifar10-lt", "ratio": 50}, "repeats": 2, "recipe": "cifar10"}).grid().jobs()
    )


@pytest.mark.parametrize("name", ["höhle", "a\x85b", "a\u2028b", "a\nb", "‹a›"])
def test_a_plan_s_text_keeps_any_name(name: str, tmp_path: Path) -> None:
    plan, path = Plan.of({"data": name}), tmp_path / "plan.yaml"
    path.write_text(plan.text(), encoding="utf-8")
    assert Plan.of(read(path)) == plan
    assert "höhle" not in name or "höhle" in plan.text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "data: Field required"),
        ({"data": "digits-lt", "repeat": 3}, "repeat: .*fields are data, teachers"),
        ({"data": "digits-lt", "repeats": 0}, "repeats: .*got 0"),
        ({"data": "digits-lt", "repeats": "many"}, "repeats: "),
        ({"data": "digits-lt", "temperatures": [1, -3]}, "temperatures.1: .*got -3"),
        ({"data": "digits-lt", "temperatures": []}, "temperatures: "),
        ({"data": "digits-lt", "validation_labels": ["true"]}, "validation_labels.0"),
        ({"data": {"name": "digits-lt", "rato": 3}}, "data.rato: "),
        ({"data": "digits-lt", "recipe": 3}, "recipe: "),
    ],
)
def test_a_bad_field_is_named(content: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Plan.of(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"recipe": "cifar"}, "cifar10"),
        ({"recipe": {"epoch": 3}}, "recipe setting epoch"),
        ({"teacher_objectives": "rubust"}, "did you mean 'robust'"),
        ({"methods": "dk"}, "did you mean 'dkd'"),
    ],
)
def test_what_no_run_can_take_is_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Plan.of({"data": "digits-lt", **content}).grid()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("plan.yaml", "data: [", "is not valid YAML"),
        ("plan.toml", "data = ", "is not valid TOML"),
        ("plan.yaml", "- a\n- b\n", "must hold a mapping"),
        ("plan.yaml", "", "must hold a mapping"),
        ("plan.json", "{}", "must be a .yaml, .yml or .toml"),
        ("plan.yaml", "data: &a [1]\nrepeats: *a\n", "aliases"),
        ("plan.yaml", "data: !!python/object/apply:os.system ['true']\n", "is not valid YAML"),
        ("plan.yaml", "a: " + "[" * 5000, "is not valid YAML"),
        ("plan.yaml", "data: digits-lt\n" + "#" * 1_000_000, "more than 1,000,000 bytes"),
        ("plan.yaml", "\x00", "YAML|read"),
    ],
)
def test_a_file_that_is_no_plan_is_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"plan\.yaml cannot be read"):
        read(tmp_path / "plan.yaml")


def test_a_file_cannot_name_code_unless_it_is_trusted(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("data: digits-lt\nteachers: ['os:abort']\n")
    with pytest.raises(InputError, match="--allow-code"):
        read(path)
    assert read(path, allow_code=True)["teachers"] == ["os:abort"]
