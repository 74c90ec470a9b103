"""Targets: what is typed, or given as a mapping: objectives, methods, names of data and models, recipes, commands."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st

import robustdistill as rd
from fuzz.harness import Target
from fuzz.mutations import LEAVES, damaged
from fuzz.tables import PLAN_TREES, files
from robustdistill import cli, methods, models
from robustdistill.data import load
from robustdistill.errors import InputError
from robustdistill.objectives import Objective

LETTERS = st.text("abcdeil-_:,.=0123456789robust \x00é", max_size=10)


@st.composite
def misspelt(draw: st.DrawFn, words: Sequence[str]) -> str:
    """One of `words`, or two joined, with some characters changed."""
    text = draw(st.sampled_from(words)) + draw(st.sampled_from(["", "", ":", ":0.5", ":1e309", ":nan", ",", "=", "x"]))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(LETTERS) + text[at + draw(st.integers(0, 3)) :]
    return text


def _objective_run(text: Any, place: Path) -> Any:
    objective = Objective.parse(text)
    assert Objective.parse(str(objective)) == objective
    assert 0 <= objective.robustness <= 1
    return objective


def _method_run(text: str, place: Path) -> Any:
    method = methods.get(text)
    assert methods.get(methods.text_of(method)) == method
    return method


def _model_run(text: str, place: Path) -> Any:
    if sum(character.isdigit() for character in text) > 3:
        raise InputError("not built here: it may be as large as it says")
    return models.build(text, num_classes=3, in_channels=1)


def _data_run(arguments: dict[str, Any], place: Path) -> Any:
    return load(root=place, **arguments)


def data_arguments() -> st.SearchStrategy[dict[str, Any]]:
    numbers = st.one_of(st.integers(-2, 12), st.sampled_from([2**31, 2**64, -(2**70)]))
    shares = st.one_of(st.floats(), st.sampled_from([0.2, 0.5, 1.0, 0.0, 10.0]))
    names = (
        "digits",
        "digits-lt",
        "cifar10",
        "mnist",
        "npz:",
        "npz:a",
        "folder:.",
        "folder:",
        "parquet:x",
        "imagenet-lt",
    )
    return st.fixed_dictionaries(
        {"name": st.one_of(st.sampled_from(["digits", "digits-lt"]), misspelt(names))},
        optional={
            "split_seed": numbers, "subset_seed": numbers, "ratio": shares, "val": shares, "pad": numbers,
            "flip": st.booleans(), "image_size": st.one_of(numbers, st.tuples(numbers, numbers)), "crops": numbers,
            "profile": st.sampled_from(["exponential", "step", "", "stairs"]), "verify": st.booleans(),
        },
    ).filter(lambda one: not one["name"].startswith("hub"))  # fmt: skip


def _recipe_run(changes: dict[str, Any], place: Path) -> Any:
    recipe = rd.Recipe.named("cifar10-lt").with_(**changes)
    assert rd.Recipe(**recipe.model_dump()) == recipe
    return recipe


def recipe_changes() -> st.SearchStrategy[dict[str, Any]]:
    names = st.sampled_from([*rd.Recipe.model_fields, "lr", ""])
    numbers = st.one_of(
        LEAVES, st.integers(-1, 400), st.floats(0, 2), st.sampled_from(["auto", "0.1", "cosine", "steps"])
    )
    return st.dictionaries(names, numbers, min_size=1, max_size=4)


# The command


def _command(*arguments: str) -> tuple[int, str]:
    """The exit status of the command, and what it says of what was wrong."""
    said = io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["robustdistill", *arguments]),
        mock.patch.object(cli, "_fail", lambda word, error: said.write(str(error))),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(said),
    ):
        try:
            cli.main()
        except SystemExit as ended:
            return int(ended.code or 0), said.getvalue()
    return 0, said.getvalue()


def _command_run(given: tuple[str, bytes, list[str]], place: Path) -> Any:
    command, content, options = given
    path = place / {"audit": "table.csv", "shift": "table.parquet", "grid": "plan.yaml"}[command]
    path.write_bytes(content)
    arguments = {
        "audit": ["audit", str(path), "--json"],
        "shift": ["shift", "fit", str(path), "--out", str(place / "shift.json")],
        "grid": ["grid", "--plan", str(path), "--dry-run", "--out", str(place / "runs")],
    }[command]
    status, said = _command(*arguments, *options)
    assert status in (0, 2), (status, said)
    if status == 2:
        assert said.strip()
        raise InputError(said if "\n" not in said.strip() else "usage: typer's box")


def command_lines() -> st.SearchStrategy[tuple[str, bytes, list[str]]]:
    options = {
        "audit": st.lists(st.sampled_from(["--worst-k=0", "--worst-k=2", "--teacher", "--nonsense"]), max_size=1),
        "shift": st.lists(
            st.sampled_from(["--robustness=2", "--robustness=0.5", "--method=x", "--tau=-1"]), max_size=1
        ),
        "grid": st.lists(st.sampled_from(["--repeats=0", "--workers=-1", "--nonsense"]), max_size=1),
    }
    import yaml

    contents = {
        "audit": damaged(files(".csv")),
        "shift": damaged(files(".parquet")),
        "grid": damaged(tuple(yaml.safe_dump(tree).encode() for tree in PLAN_TREES)),
    }
    return st.one_of(*(st.tuples(st.just(name), contents[name], options[name]) for name in contents))


OBJECTIVES = ("standard", "balanced", "robust", "tradeoff:0.5", "standard-tradeoff:1", "tradeoff:", "tradeoff:-0")
METHODS = (
    *("margin", "weighted", "ada-margin:scale=-0.5", "ada-alpha:source=train", "group-dro:eta=0.1,validation=True"),
    *("ldam-drw:max_margin=0.1,scale=2.0", "dkd:alpha=2.0,warmup=0.0", "balanced-kd:temperature=3.0", "logit-std-kd"),
)
MODELS = (
    "resnet8",
    "resnet20",
    "resnet50",
    "convnet-4",
    "convnet",
    "resnet18-small",
    "a.b:c",
    "json:loads",
    "json:nothing",
    "fuzz.runs:model",
)

TARGETS = [
    Target("objective", lambda: st.one_of(misspelt(OBJECTIVES), LEAVES), _objective_run, 4),
    Target("method", lambda: misspelt(METHODS), _method_run, 4),
    Target("model", lambda: misspelt(MODELS), _model_run, 2),
    Target("data, arguments", data_arguments, _data_run, 2),
    Target("recipe", recipe_changes, _recipe_run, 4),
    Target("command", command_lines, _command_run, 1),
]
