from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustdistill.training.recipe import RECIPES, Recipe
from robustdistill.training.schedule import learning_rate


def test_warm_up_of_the_paper() -> None:
    recipe = Recipe.named("cifar10")
    for epoch in range(15):
        assert learning_rate(recipe, epoch) == pytest.approx(0.1 * (epoch + 1) / 15)
    assert learning_rate(recipe, 15) == pytest.approx(0.1)


@pytest.mark.parametrize(("name", "milestones"), [("cifar10", (200, 300, 400)), ("cifar100-lt", (96, 192, 224))])
def test_a_drop_applies_once_its_epochs_are_completed(name: str, milestones: tuple[int, ...]) -> None:
    recipe = Recipe.named(name)
    for done, milestone in enumerate(milestones):
        assert learning_rate(recipe, milestone - 1) == pytest.approx(0.1 * 0.1**done)  # its last epoch, 0-based
        assert learning_rate(recipe, milestone) == pytest.approx(0.1 * 0.1 ** (done + 1))
    assert learning_rate(recipe, recipe.epochs - 1) == pytest.approx(1e-4)


def test_no_warm_up_starts_at_the_base_rate() -> None:
    assert learning_rate(Recipe(epochs=3, learning_rate=0.7), 0) == 0.7


def test_a_drop_during_warm_up_counts_too() -> None:
    recipe = Recipe(epochs=8, learning_rate=1.0, warmup_epochs=4, milestones=(2,), drop=0.5)
    assert [learning_rate(recipe, epoch) for epoch in range(5)] == pytest.approx([0.25, 0.5, 0.375, 0.5, 0.5])


def test_cosine() -> None:
    recipe = Recipe(epochs=12, learning_rate=2.0, warmup_epochs=2, schedule="cosine")
    rates = [learning_rate(recipe, epoch) for epoch in range(12)]
    assert rates[:3] == pytest.approx([1.0, 2.0, 2.0])
    assert rates[7] == pytest.approx(1.0)
    assert rates[11] == pytest.approx(1 + math.cos(math.pi * 0.9))


@given(name=st.sampled_from(sorted(RECIPES)), epochs=st.integers(1, 60))
def test_rates_are_positive_and_at_most_the_base(name: str, epochs: int) -> None:
    recipe = Recipe.named(name).with_(epochs=epochs)
    rates = [learning_rate(recipe, epoch) for epoch in range(epochs)]
    assert all(0 < rate <= recipe.learning_rate * (1 + 1e-12) for rate in rates)
    after = rates[max(0, recipe.warmup_epochs - 1) :]
    assert after == sorted(after, reverse=True)
