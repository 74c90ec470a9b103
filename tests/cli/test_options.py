from __future__ import annotations

import os

import pytest

from cli.typed import Command
from robustdistill.cli.options import RecipeOptions
from robustdistill.errors import InputError
from robustdistill.training.recipe import AUTO, Recipe


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_that_wait_let_others_work(
    given: dict[str, str], found: str | None, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, given.get(name, ""))  # to be put back after the test
        if name not in given:
            monkeypatch.delenv(name)
    assert command("--version").code == 0
    assert os.environ.get("GOMP_SPINCOUNT") == found


def test_nothing_given_is_the_recipe_of_the_data() -> None:
    assert RecipeOptions().chosen("cifar10-lt") == Recipe.named("cifar10-lt")


def test_a_step_size_is_a_number_or_automatic() -> None:
    assert RecipeOptions(step_size="0.25").chosen("cifar10-lt").step_size == 0.25
    assert RecipeOptions(step_size="auto").chosen("cifar10-lt") == Recipe.named("cifar10-lt").with_(**AUTO)
    assert RecipeOptions(step_size="0.2", decay=0.05).chosen("digits").decay == 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (RecipeOptions(step_size="automatic"), "step_size must be a number or 'auto', got 'automatic'"),
        (RecipeOptions(step_size="auto", decay=0.1), "decay must be left out with step_size='auto'"),
        (RecipeOptions(step_size="-1"), "step_size: Input should be greater than or equal to 0"),
        (RecipeOptions(step_size="nan"), "step_size"),
    ],
)
def test_another_step_size_is_refused(options: RecipeOptions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        options.chosen("digits-lt")
