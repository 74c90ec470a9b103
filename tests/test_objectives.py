from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import reference
from robustdistill.errors import InputError
from robustdistill.objectives import Objective

PRIORS = np.array([0.6, 0.25, 0.1, 0.05])
WEIGHTS = np.array([0.1, 0.2, 0.3, 0.4])

# (name, anchor, robustness), the rows of the table of objectives
TABLE = [
    ("standard", "standard", 0.0),
    ("balanced", "balanced", 0.0),
    ("robust", "balanced", 1.0),
    ("robust", "standard", 1.0),
    ("tradeoff:0.5", "balanced", 0.5),
    ("tradeoff:0.25", "balanced", 0.25),
    ("standard-tradeoff:0.5", "standard", 0.5),
    ("standard-tradeoff:0.9", "standard", 0.9),
]

alphas = st.floats(0.0, 1.0)
positive = st.floats(1e-6, 1.0)


def simplexes(size: int) -> st.SearchStrategy[np.ndarray]:
    return st.lists(positive, min_size=size, max_size=size).map(lambda v: np.array(v) / sum(v))


@pytest.mark.parametrize(("name", "anchor", "robustness"), TABLE)
def test_parse_gives_the_row_of_the_table(name: str, anchor: str, robustness: float) -> None:
    objective = Objective.parse(name)
    assert objective == Objective(anchor, robustness)
    assert hash(objective) == hash(Objective(anchor, robustness))
    assert objective.robustness == robustness
    assert str(objective) == name
    assert Objective.parse(objective) == objective
    assert objective.needs_multipliers is (robustness > 0)


@pytest.mark.parametrize(
    ("canonical", "others"),
    [
        ("robust", ["tradeoff:1", "tradeoff:1.0", "standard-tradeoff:1", "standard-tradeoff:1.00"]),
        ("balanced", ["tradeoff:0", "tradeoff:0.0", "tradeoff:-0.0"]),
        ("standard", ["standard-tradeoff:0", "standard-tradeoff:0.0"]),
        ("tradeoff:0.5", ["tradeoff:0.50", "tradeoff:.5", "tradeoff:5e-1"]),
        ("standard-tradeoff:0.5", ["standard-tradeoff:0.500"]),
    ],
)
def test_equal_meanings_are_equal_objects(canonical: str, others: list[str]) -> None:
    objectives = [Objective.parse(text) for text in [canonical, *others]]
    assert len(set(objectives)) == 1
    assert {str(objective) for objective in objectives} == {canonical}
    assert len({repr(objective) for objective in objectives}) == 1


def test_different_meanings_differ() -> None:
    names = ["standard", "balanced", "robust", "tradeoff:0.5", "tradeoff:0.25", "standard-tradeoff:0.5"]
    assert len({Objective.parse(name) for name in names}) == len(names)


def test_is_frozen() -> None:
    objective = Objective.parse("robust")
    with pytest.raises(dataclasses.FrozenInstanceError):
        objective.robustness = 0.5  # type: ignore[misc]


@given(anchor=st.sampled_from(["standard", "balanced"]), alpha=alphas)
def test_the_string_says_everything(anchor: str, alpha: float) -> None:
    objective = Objective(anchor, alpha)
    assert Objective.parse(str(objective)) == objective
    assert Objective.parse(str(objective)).robustness == alpha


@pytest.mark.parametrize("alpha", [-0.1, 1.5, -1e-9, 1 + 1e-9, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("anchor", ["standard", "balanced"])
def test_refuses_alpha_outside_the_unit_interval(anchor: str, alpha: float) -> None:
    with pytest.raises(InputError):
        Objective(anchor, alpha)
    prefix = {"standard": "standard-tradeoff", "balanced": "tradeoff"}[anchor]
    with pytest.raises(InputError):
        Objective.parse(f"{prefix}:{alpha!r}")


@pytest.mark.parametrize(
    "text", ["tradeoff", "tradeoff:", "tradeoff:half", "standard-tradeoff", "robust:0.5", "balanced:0", "", "trade:0.5"]
)
def test_refuses_what_it_cannot_read(text: str) -> None:
    with pytest.raises(InputError):
        Objective.parse(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("rubust", "robust"), ("blanced", "balanced"), ("tradeof:0.5", "tradeoff"), ("Robust", "robust")],
)
def test_suggests_the_nearest_name(text: str, meant: str) -> None:
    with pytest.raises(InputError, match=meant) as caught:
        Objective.parse(text)
    assert text.split(":")[0] in str(caught.value)


def test_refuses_an_unknown_anchor() -> None:
    with pytest.raises(InputError, match="balanced"):
        Objective("balancd", 0.5)


@pytest.mark.parametrize(("name", "anchor", "robustness"), TABLE)
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_agrees_with_the_table(name: str, anchor: str, robustness: float, kind: str) -> None:
    objective = Objective.parse(name)
    priors, weights = (PRIORS, WEIGHTS) if kind == "numpy" else (torch.tensor(PRIORS), torch.tensor(WEIGHTS))
    for method, twin in [(objective.class_weights, reference.class_weights), (objective.costs, reference.costs)]:
        result = method(priors, weights)
        assert type(result) is type(priors)
        assert result.dtype == priors.dtype
        np.testing.assert_allclose(
            np.asarray(result), twin(anchor, robustness, PRIORS, WEIGHTS), rtol=1e-14, err_msg=name
        )


def test_hand_computed_values() -> None:
    priors, weights = np.array([0.8, 0.2]), np.array([0.25, 0.75])
    np.testing.assert_allclose(Objective.parse("standard").costs(priors, weights), [1, 1])
    np.testing.assert_allclose(Objective.parse("balanced").costs(priors, weights), [0.625, 2.5])
    np.testing.assert_allclose(Objective.parse("robust").costs(priors, weights), [0.3125, 3.75])
    np.testing.assert_allclose(Objective.parse("tradeoff:0.5").costs(priors, weights), [0.46875, 3.125])
    np.testing.assert_allclose(Objective.parse("standard-tradeoff:0.5").costs(priors, weights), [0.65625, 2.375])


@given(priors=simplexes(5), weights=simplexes(5))
def test_standard_costs_are_exactly_one(priors: np.ndarray, weights: np.ndarray) -> None:
    """The standard objective never divides by an estimate of the priors."""
    standard = Objective.parse("standard")
    assert (standard.costs(priors, weights) == 1.0).all()
    assert (standard.costs(torch.tensor(priors), torch.tensor(weights)) == 1.0).all()


@given(anchor=st.sampled_from(["standard", "balanced"]), alpha=alphas, priors=simplexes(6), weights=simplexes(6))
def test_class_weights_stay_on_the_simplex(anchor: str, alpha: float, priors: np.ndarray, weights: np.ndarray) -> None:
    objective = Objective(anchor, alpha)
    beta = objective.class_weights(priors, weights)
    assert (beta >= 0).all()
    assert beta.sum() == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose(objective.costs(priors, weights), beta / priors, rtol=1e-12)
    np.testing.assert_allclose(beta, reference.class_weights(anchor, alpha, priors, weights), rtol=1e-12, atol=1e-300)


@given(anchor=st.sampled_from(["standard", "balanced"]), priors=simplexes(4), weights=simplexes(4))
def test_limits_of_the_trade_off(anchor: str, priors: np.ndarray, weights: np.ndarray) -> None:
    start, nearly_start, nearly_end, end = (
        Objective(anchor, a).costs(priors, weights) for a in (0, 1e-12, 1 - 1e-12, 1)
    )
    np.testing.assert_allclose(nearly_start, start, rtol=1e-5)
    np.testing.assert_allclose(nearly_end, end, rtol=1e-5)
    np.testing.assert_allclose(end, weights / priors, rtol=1e-12)
    np.testing.assert_allclose(start, 1 / (4 * priors) if anchor == "balanced" else np.ones(4), rtol=1e-12)


@given(weights=simplexes(5), permutation=st.permutations(range(5)), alpha=alphas)
def test_permuting_classes_permutes_costs(weights: np.ndarray, permutation: list[int], alpha: float) -> None:
    priors = np.array([0.5, 0.2, 0.15, 0.1, 0.05])
    for anchor in ("standard", "balanced"):
        costs = Objective(anchor, alpha).costs(priors, weights)
        moved = Objective(anchor, alpha).costs(priors[permutation], weights[permutation])
        np.testing.assert_allclose(moved, costs[permutation], rtol=1e-14)


def test_balanced_and_standard_differ_unless_priors_are_uniform() -> None:
    uniform = np.full(4, 0.25)
    standard, balanced = Objective.parse("standard"), Objective.parse("balanced")
    np.testing.assert_allclose(standard.costs(uniform, WEIGHTS), balanced.costs(uniform, WEIGHTS))
    assert not np.allclose(standard.costs(PRIORS, WEIGHTS), balanced.costs(PRIORS, WEIGHTS))


@pytest.mark.parametrize("value", [0.5, None, ("robust",)])
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="objective must be a name"):
        Objective.parse(value)  # type: ignore[arg-type]


def test_the_range_of_a_trade_off_names_the_objective() -> None:
    with pytest.raises(InputError, match=r"objective 'tradeoff:2' needs a number in \[0, 1\]"):
        Objective.parse("tradeoff:2")
