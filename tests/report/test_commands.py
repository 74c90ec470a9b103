"""The printed command must make the very spec that it stands beside."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from cli.typed import typed
from report.records import record
from robustdistill.experiments.journal import Record, scan
from robustdistill.experiments.select import choose
from robustdistill.report import commands


def made(**settings: Any) -> Record:
    content = record(epochs=4, data="digits-lt", **settings)
    content["spec"]["recipe"] = {"name": "digits-lt", "epochs": 4, "batch_size": 32, "learning_rate": 0.05}
    content["spec"]["recipe"] |= {"schedule": "cosine", "every": 16}
    return Record.model_validate(content)


def test_training_again_by_the_printed_commands_gives_the_same_specs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = typed(monkeypatch, capsys)

    def run(line: str) -> None:
        done = command(*shlex.split(line)[1:], "--quiet")
        assert done.code == 0, done.err

    short = "--epochs 1 --batch-size 64 --every 2 --threads 1"
    run(f"robustdistill train --model convnet-4 --objective balanced {short} --ratio 20 --split-seed 3 --out first/t")
    run(
        f"robustdistill distill --teacher first/t --model convnet-4 --temperature 2 --objective tradeoff:0.5 {short} "
        "--seed 7 --validation-temperature 3 --teacher-weight 0.75 --step-size 0.3 --out first/s"
    )
    found = scan("first")
    group = next(group for group in choose(found).groups if group.role == "student")
    again = commands.reproduction(group, {one.hash: one for one in found})
    assert again.exact
    for line in again.lines:
        run(line)
    assert {one.hash for one in scan("runs")} == {one.hash for one in found}


def test_settings_without_an_option_give_the_recorded_command(tmp_path: Path) -> None:
    own = made(role="teacher")
    assert commands.command(own) is not None
    for change in ({"momentum": 0.5}, {"weight_decay": 0.1}):
        recipe = own.spec.recipe.model_copy(update=change)
        other = own.model_copy(update={"spec": own.spec.model_copy(update={"recipe": recipe})})
        assert commands.command(other) is None
        (group,) = choose([other]).groups
        assert commands.reproduction(group, {}) == commands.Reproduction(("robustdistill demo --repeats 3",), "", False)


def test_data_that_no_option_loads_have_no_command() -> None:
    own = made(role="teacher")
    for change in ({"name": "custom"}, {"profile": "step"}, {"image_size": [32, 64]}):
        data = own.spec.data.model_copy(update=change)
        assert commands.command(own.model_copy(update={"spec": own.spec.model_copy(update={"data": data})})) is None


def test_arguments_of_the_data_become_options() -> None:
    own = made(role="teacher")
    data = own.spec.data.model_copy(update={"image_size": [16, 16], "crops": 4, "val_share": 0.25, "flip": False})
    line = commands.command(own.model_copy(update={"spec": own.spec.model_copy(update={"data": data})}))
    assert line is not None
    assert "--no-flip --image-size 16 --val 0.25 --crops 4 --model" in line
    table = own.spec.data.model_copy(update={"name": "parquet:birds.parquet", "ratio": 1.0, "group_column": "ground"})
    spec = own.spec.model_copy(update={"data": table, "groups": "class-group"})
    line = commands.command(own.model_copy(update={"spec": spec}))
    assert line is not None
    assert "--data parquet:birds.parquet --group-column ground --model" in line
    assert "--groups class-group --seed" in line


def test_a_recipe_by_another_name_is_named() -> None:
    own = made(role="teacher")
    from robustdistill.training.recipe import Recipe

    recipe = Recipe.named("cifar10").with_(epochs=9)
    line = commands.command(own.model_copy(update={"spec": own.spec.model_copy(update={"recipe": recipe})}))
    assert line is not None
    assert "--recipe cifar10 --epochs 9" in line


def test_the_other_repeats_are_told_by_their_seeds() -> None:
    runs = [made(role=role, repeat=repeat) for repeat in range(3) for role in ("teacher", "student")]
    by_hash = {one.hash: one for one in runs}
    for student in (one for one in runs if one.spec.distillation):
        teacher = next(one for one in runs if one.repeat == student.repeat and one.spec.role == "teacher")
        by_hash[student.spec.distillation.teacher] = teacher  # type: ignore[union-attr]
    group = next(group for group in choose(runs).groups if group.role == "student")
    others = commands.reproduction(group, by_hash).others
    assert others == (
        "The other repeats: --seed 11 of the teacher with --seed 11; --seed 12 of the teacher with --seed 12."
    )
