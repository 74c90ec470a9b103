from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustdistill.data import CATALOG
from robustdistill.errors import InputError
from robustdistill.training.recipe import AUTO, RECIPES, Recipe, resolve, short

# name, epochs, end of warm-up, decays after, batch: the paper's Appendix E.2.2.
PAPER = [
    ("cifar10", 450, 15, (200, 300, 400), 128),
    ("cifar100", 450, 15, (200, 300, 400), 1024),
    ("cifar10-lt", 256, 15, (96, 192, 224), 128),
    ("cifar100-lt", 256, 15, (96, 192, 224), 1024),
]


@pytest.mark.parametrize(("name", "epochs", "warmup", "milestones", "batch"), PAPER)
def test_rows_of_the_paper(name: str, epochs: int, warmup: int, milestones: tuple[int, ...], batch: int) -> None:
    recipe = Recipe.named(name)
    assert (recipe.epochs, recipe.warmup_epochs, recipe.milestones, recipe.batch_size) == (
        epochs,
        warmup,
        milestones,
        batch,
    )
    assert (recipe.learning_rate, recipe.momentum, recipe.nesterov, recipe.weight_decay) == (0.1, 0.9, False, 1e-4)
    assert (recipe.schedule, recipe.drop, recipe.every) == ("steps", 0.1, 32)
    assert (recipe.step_size, recipe.decay, recipe.validation_sample) == (0.1, 0.0, None)


def test_names() -> None:
    assert {name: recipe.name for name, recipe in RECIPES.items()} == {name: name for name in RECIPES}
    with pytest.raises(InputError, match="unknown recipe 'cifar10lt': did you mean 'cifar10-lt'"):
        Recipe.named("cifar10lt")


def test_which_recipe_is_meant() -> None:
    own = Recipe(epochs=3)
    assert resolve(own, "digits-lt") is own
    assert resolve("cifar10", "digits-lt") == Recipe.named("cifar10")
    assert resolve(None, "digits-lt") == Recipe.named("digits-lt")
    assert resolve(None, "npz:mine.npz") == resolve(None, "") == Recipe.named("default")


def test_new_epochs_stretch_the_schedule() -> None:
    recipe = Recipe.named("cifar10-lt")
    half = recipe.with_(epochs=128)
    assert (half.epochs, half.warmup_epochs, half.milestones) == (128, 8, (48, 96, 112))
    assert recipe.with_(epochs=512).milestones == (192, 384, 448)
    assert recipe.with_(epochs=128, milestones=(10,), warmup_epochs=3).milestones == (10,)
    assert recipe.with_(epochs=128, milestones=(10,), warmup_epochs=3).warmup_epochs == 3
    assert recipe.with_(batch_size=64).milestones == recipe.milestones
    assert recipe.epochs == 256


@pytest.mark.parametrize("epochs", ["128", 128.0])
def test_what_reads_as_a_number_stretches_too(epochs: Any) -> None:
    """Either refused, or treated as the number that it is taken for."""
    try:
        recipe = Recipe.named("cifar10-lt").with_(epochs=epochs)
    except InputError:
        return
    assert recipe == Recipe.named("cifar10-lt").with_(epochs=128)


@given(name=st.sampled_from(sorted(RECIPES)), epochs=st.integers(1, 1000))
def test_any_number_of_epochs_is_valid(name: str, epochs: int) -> None:
    recipe = Recipe.named(name).with_(epochs=epochs)
    assert recipe.epochs == epochs
    assert list(recipe.milestones) == sorted(set(recipe.milestones))
    assert recipe.warmup_epochs <= epochs


BAD: list[tuple[str, Any]] = [
    ("epochs", 0),
    ("epochs", -3),
    ("epochs", "many"),
    ("batch_size", 0),
    ("learning_rate", 0.0),
    ("learning_rate", float("nan")),
    ("learning_rate", float("inf")),
    ("momentum", 1.0),
    ("momentum", -0.1),
    ("weight_decay", -1e-4),
    ("schedule", "linear"),
    ("warmup_epochs", -1),
    ("milestones", (20, 10)),
    ("milestones", (0, 10)),
    ("milestones", (10, 10)),
    ("drop", 0.0),
    ("drop", 1.5),
    ("every", 0),
    ("step_size", -0.1),
    ("step_size", float("inf")),
    ("step_size", "automatic"),
    ("decay", 1.0),
    ("validation_sample", 0),
    ("precision", "float16"),
    ("lr", 0.1),
]


@pytest.mark.parametrize(("setting", "value"), BAD)
def test_a_bad_setting_is_named(setting: str, value: Any) -> None:
    with pytest.raises(InputError, match=setting):
        Recipe.named("digits").with_(**{setting: value})


@pytest.mark.parametrize(("setting", "value"), BAD)
def test_a_bad_setting_of_a_new_recipe_is_named(setting: str, value: Any) -> None:
    with pytest.raises(ValueError, match=setting):
        Recipe(**{setting: value})


def test_the_received_value_is_shown() -> None:
    with pytest.raises(InputError, match=r"batch_size.*got -7"):
        Recipe.named("digits").with_(batch_size=-7)


def test_an_automatic_step_size_is_a_pair_of_numbers() -> None:
    """So that a run's identity does not change when a later version finds a better pair."""
    recipe = Recipe.named("digits").with_(decay=0.03, step_size=0.2)
    automatic = recipe.with_(step_size="auto")
    assert automatic == recipe.with_(**AUTO)
    assert automatic == Recipe(**{**recipe.model_dump(exclude={"decay"}), "step_size": "auto"})
    assert (automatic.step_size, automatic.decay) == (AUTO["step_size"], AUTO["decay"])
    assert automatic.with_(epochs=60) == recipe.with_(epochs=60, step_size="auto")
    assert Recipe(**automatic.model_dump()) == automatic
    assert AUTO["step_size"] / AUTO["decay"] == pytest.approx(12)


def test_an_automatic_step_size_sets_the_decay_too() -> None:
    message = "^decay must be left out with step_size='auto', which sets it, got 0.1$"
    with pytest.raises(InputError, match=message):
        Recipe.named("digits").with_(step_size="auto", decay=0.1)
    with pytest.raises(ValueError, match="decay must be left out"):
        Recipe.model_validate({"step_size": "auto", "decay": 0.0})
    changed = Recipe.named("digits").with_(step_size="auto").with_(decay=0.3)
    assert (changed.step_size, changed.decay) == (AUTO["step_size"], 0.3)


def test_a_step_size_from_the_command_line_is_text() -> None:
    assert Recipe.named("digits").with_(step_size="0.25").step_size == 0.25
    with pytest.raises(InputError, match=r"^step_size must be a number or 'auto', got 'aut'$"):
        Recipe.named("digits").with_(step_size="aut")


def test_the_recipes_of_the_paper_keep_its_step_size() -> None:
    for name in (row[0] for row in (*PAPER, *LARGER)):
        assert (Recipe.named(name).step_size, Recipe.named(name).decay) == (0.1, 0.0)


def test_a_recipe_cannot_be_changed() -> None:
    recipe = Recipe.named("digits")
    with pytest.raises(ValueError, match="frozen"):
        recipe.epochs = 5  # type: ignore[misc]
    assert {recipe, Recipe.named("digits")} == {recipe}


# The rest of Appendix E.2.2; the paper prints no schedule for ImageNet-LT, which takes ImageNet's.
LARGER = [
    ("tinyimagenet", 200, 5, (75, 135), None),
    ("tinyimagenet-lt", 200, 5, (75, 135), None),
    ("imagenet", 90, 5, (30, 60, 80), 5000),
    ("imagenet-lt", 90, 5, (30, 60, 80), 5000),
]


@pytest.mark.parametrize(("name", "epochs", "warmup", "milestones", "sample"), LARGER)
def test_rows_of_larger_data(
    name: str, epochs: int, warmup: int, milestones: tuple[int, ...], sample: int | None
) -> None:
    recipe = Recipe.named(name)
    assert (recipe.epochs, recipe.warmup_epochs, recipe.milestones) == (epochs, warmup, milestones)
    assert (recipe.batch_size, recipe.validation_sample) == (1024, sample)
    assert (recipe.learning_rate, recipe.weight_decay, recipe.drop, recipe.step_size) == (0.1, 1e-4, 0.1, 0.1)


def test_every_data_set_has_a_recipe_of_its_own() -> None:
    assert set(CATALOG) <= set(RECIPES)


@pytest.mark.parametrize("name", [row[0] for row in PAPER])
def test_short_recipes_keep_proportions(name: str) -> None:
    recipe, brief = Recipe.named(name), Recipe.named(f"{name}-short")
    assert brief.epochs == 30
    assert brief == short(recipe)
    stretch = 30 / recipe.epochs
    assert abs(brief.warmup_epochs - recipe.warmup_epochs * stretch) <= 0.5
    assert all(abs(b - a * stretch) <= 0.5 for a, b in zip(recipe.milestones, brief.milestones, strict=True))
    kept = (
        "batch_size",
        "learning_rate",
        "momentum",
        "weight_decay",
        "schedule",
        "drop",
        "every",
        "step_size",
        "decay",
    )
    assert all(getattr(brief, setting) == getattr(recipe, setting) for setting in kept)
    assert short(recipe, 60).milestones == recipe.with_(epochs=60).milestones
