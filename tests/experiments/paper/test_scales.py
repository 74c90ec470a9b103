from __future__ import annotations

import pytest

from experiments.paper.runs import figure, table
from robustdistill.errors import InputError
from robustdistill.experiments.paper import layouts
from robustdistill.experiments.paper.plan import counts
from robustdistill.experiments.paper.scales import SCALES, STAND_INS, stands_for
from robustdistill.training.recipe import Recipe


@pytest.mark.parametrize("name", layouts.NAMES)
def test_at_the_papers_scale_nothing_differs(name: str) -> None:
    kind, number = layouts.parse(name)
    for data in layouts.data_of(name):
        plan = table(number, data) if kind == "table" else figure(number, data)
        assert plan.setup.changes == ()
        assert plan.setup.recipe == Recipe.named(data)
        assert plan.setup.temperatures == (1.0, 3.0, 5.0)
        assert not plan.setup.stand_in


def test_the_short_scale_keeps_the_models() -> None:
    plan = table(6, "cifar10-lt", "short")
    assert (plan.setup.teacher, plan.setup.students) == ("resnet56", ("resnet32",))
    assert plan.setup.recipe == Recipe.named("cifar10-lt-short")
    changed = {change.what for change in plan.setup.changes}
    assert changed == {"epochs", "warmup epochs", "epochs of its drops", "repeats"}
    assert table(1, "tinyimagenet", "short").setup.recipe.name == "tinyimagenet-short"


def test_the_tiny_scale() -> None:
    digits = table(1, "digits-lt", "tiny").setup
    assert (digits.teacher, digits.students, digits.temperatures) == ("convnet-16", ("convnet-8",), (1.0, 3.0))
    assert digits.label_pairs == [(1.0, None), (1.0, 0.1), (3.0, None), (3.0, 0.1)]
    assert digits.recipe.with_(name="digits-lt") == Recipe.named("digits-lt")
    cifar = table(1, "cifar10-lt", "tiny").setup
    assert (cifar.teacher, cifar.students) == ("resnet14", ("resnet8",))
    assert cifar.label_pairs == [(1.0, None), (1.0, 0.1)]
    recipe = cifar.recipe
    assert (recipe.epochs, recipe.schedule, recipe.precision) == (6, "cosine", "bfloat16")
    assert (recipe.step_size, recipe.validation_sample) == (0.2, 1000)
    assert table(7, "imagenet", "tiny").setup.students == ("resnet14", "resnet8")


def test_all_that_a_scale_changes_is_listed() -> None:
    """Rebuilt from the two recipes and models, not from the code that lists it."""
    setup = table(4, "digits-lt", "tiny").setup
    listed = {change.what: (change.paper, change.here) for change in setup.changes}
    assert listed["data"] == ("tinyimagenet-lt", "digits-lt")
    assert listed["image side"] == ("224 pixels", "8 pixels")
    assert (listed["teacher model"], listed["student model"]) == (("resnet18", "convnet-16"), ("resnet18", "convnet-8"))
    assert listed["temperatures"] == ("1, 3, 5", "1, 3")
    assert listed["repeats"] == ("5", "3")
    assert listed["worst metric"] == ("worst-10 accuracy", "worst-class accuracy")
    paper, here = Recipe.named("tinyimagenet-lt").model_dump(), setup.recipe.model_dump()
    differing = {key for key in paper if paper[key] != here[key]} - {"name", "milestones", "drop"}
    others = {"data", "image side", "teacher model", "student model", "temperatures", "repeats", "worst metric"}
    assert len(listed) == len(differing) + len(others)
    assert dict(listed)["epochs"] == ("200", "60")


def test_tiny_imagenet_is_resized_as_in_the_paper() -> None:
    assert table(1, "tinyimagenet").setup.data.image_size == 224
    assert table(4, "tinyimagenet-lt", "short").setup.data.image_size == 224
    assert table(4, "tinyimagenet-lt", "tiny").setup.data.image_size == 32
    assert table(7, "imagenet").setup.data.image_size is None


def test_repeats() -> None:
    assert counts(table(1, "digits-lt", "tiny"))["runs"] == 3 * 3 + 3 * 3 * (2 + 2 + 2 + 4 + 2)
    assert table(1, "cifar10-lt", repeats=2).setup.repeats == 2
    # ImageNet's teachers are trained once, however often students are.
    assert counts(table(7, "imagenet", repeats=7))["teachers"] == 2
    assert [change.what for change in table(1, "cifar10-lt", repeats=2).setup.changes] == ["repeats"]


def test_a_smaller_grid_of_a_figure_is_listed() -> None:
    (change,) = figure(2, "cifar100-lt", alphas=(0.0, 1.0)).setup.changes
    assert (change.paper, change.here) == ("0, 0.25, 0.5, 0.75, 0.9, 1", "0, 1")


@pytest.mark.parametrize("name", layouts.NAMES)
def test_data_are_the_tables_own_or_stand_in_below_the_papers_scale(name: str) -> None:
    own = layouts.data_of(name)
    tails = {data.endswith("-lt") for data in own}
    for scale in SCALES:
        assert [stands_for(name, data, scale) for data in own] == list(own)
        for data in STAND_INS:
            if scale == "paper" or data.endswith("-lt") not in tails:
                with pytest.raises(InputError, match="data= must be one of"):
                    stands_for(name, data, scale)
            else:
                replaced = stands_for(name, data, scale)
                assert replaced in own
                assert replaced.endswith("-lt") == data.endswith("-lt")


def test_other_data_and_scales_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"data= must be one of tinyimagenet-lt for table4; digits-lt, .* can stand in"
    ):
        stands_for("table4", "cifar10", "short")
    with pytest.raises(InputError, match="did you mean 'tiny'"):
        stands_for("table4", "digits-lt", "tinny")  # type: ignore[arg-type]
