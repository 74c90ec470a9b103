"""The names that users write are a contract."""

from __future__ import annotations

import inspect

import pytest

import robustdistill as rd

CONTRACT = [
    "ClassMultipliers",
    "Groups",
    "Objective",
    "PostShift",
    "Predictions",
    "Recipe",
    "Risks",
    "Run",
    "Scores",
    "audit",
    "compare",
    "data.from_arrays",
    "data.from_dataset",
    "data.from_loader",
    "data.load",
    "data.long_tail",
    "data.split",
    "distill",
    "errors.DivergedError",
    "errors.InputError",
    "errors.StaleStoreError",
    "evaluate",
    "fit",
    "losses.margin_loss",
    "losses.weighted_loss",
    "metrics.balanced_accuracy",
    "metrics.per_class_recall",
    "metrics.standard_accuracy",
    "metrics.worst_class_accuracy",
    "metrics.worst_k_accuracy",
    "multipliers.exponentiated_gradient",
    "predict",
    "risks.class_risks",
    "theory.FiniteProblem",
    "theory.plan",
    "theory.teacher_fitness",
    "train_together",
]


@pytest.mark.parametrize("path", CONTRACT)
def test_name_is_there_and_documented(path: str) -> None:
    found = rd
    for part in path.split("."):
        found = getattr(found, part)
    assert inspect.getdoc(found)


def test_all_is_sorted_and_resolves() -> None:
    assert rd.__all__ == sorted(rd.__all__)
    assert set(dir(rd)) == set(rd.__all__)
    for name in rd.__all__:
        assert getattr(rd, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="robustdistil1"):
        rd.robustdistil1  # noqa: B018


@pytest.mark.parametrize("name", ["per_class_recall", "worst_class_accuracy", "balanced_accuracy", "standard_accuracy"])
def test_nobody_swaps_predictions_and_labels(name: str) -> None:
    with pytest.raises(TypeError):
        getattr(rd.metrics, name)([0, 1], [0, 1], 2)


def test_test_data_cannot_be_passed_to_training() -> None:
    for function in (rd.fit, rd.distill):
        assert not [name for name in inspect.signature(function).parameters if "test" in name]
