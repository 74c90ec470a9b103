from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustdistill.errors import InputError
from robustdistill.groups import GroupKind, Groups
from robustdistill.losses import margin_loss, weighted_loss
from robustdistill.multipliers import ClassMultipliers
from robustdistill.risks import class_risks

# ---- the twin: groups as sets of examples, each loss and risk by its definition


def slow_groups(values: list[int], labels: list[int], kind: str) -> list[tuple[int, int | None]]:
    """(value, class) of each group, in order; class None where a group holds several classes."""
    classes_of = {a: {y for b, y in zip(values, labels, strict=True) if a == b} for a in values}
    nested = all(len(found) == 1 for found in classes_of.values())
    if kind == "class-group" or nested:
        return sorted({(a, y) for a, y in zip(values, labels, strict=True)})
    return [(a, None) for a in sorted(classes_of)]


def slow_loss(
    logits: np.ndarray, values: list[int], labels: list[int], kind: str, costs: list[float], row: int
) -> float:
    """The loss of one training example, from the text of the module."""
    groups = slow_groups(values, labels, kind)
    pairs = list(zip(values, labels, strict=True))
    sizes = [sum(pair == (a, y if y is not None else pair[1]) for pair in pairs) for a, y in groups]
    a, label = pairs[row]
    if groups[0][1] is None:
        p = np.exp(logits - logits.max())
        return -costs[groups.index((a, None))] * math.log(p[label] / p.sum())
    inside = []
    for y in range(len(logits)):
        of_class = [g for g, (_, owner) in enumerate(groups) if owner == y]
        mean = sum(costs[g] * sizes[g] for g in of_class) / sum(sizes[g] for g in of_class)
        inside.append(costs[groups.index((a, y))] if (a, y) in groups else mean)
    nested = len({value for value, _ in groups}) == len(groups)
    here = [g for g, (value, _) in enumerate(groups) if value == a]
    alone = len(set(values)) == 1
    weight = 1.0 if nested or alone else sum(sizes[g] * costs[g] for g in here) / sum(sizes[g] for g in here)
    scores = logits - np.log(inside)
    return weight * -math.log(np.exp(scores)[label] / np.exp(scores).sum())


DRAWS = st.integers(0, 10_000)


@pytest.mark.parametrize("kind", ["group", "class-group"])
@given(seed=DRAWS)
def test_losses_and_risks_are_those_of_the_twin(kind: GroupKind, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = [0, 1, 2, *rng.integers(0, 3, 9).tolist()]
    values = [0, 1, 1, *rng.integers(0, 3, 8).tolist(), 2]
    if seed % 3 == 0:  # groups that refine classes
        values = [2 * y + int(rng.integers(2)) for y in labels]
    groups = Groups.of(torch.tensor(values), torch.tensor(labels), kind, group_names=range(max(values) + 1))
    expected = slow_groups(values, labels, kind)
    assert len(groups.names) == len(expected)
    assert groups.refines == (expected[0][1] is not None)
    pairs = list(zip(values, labels, strict=True))
    sizes = [sum(pair[0] == a and y in (None, pair[1]) for pair in pairs) for a, y in expected]
    np.testing.assert_allclose(groups.priors, np.array(sizes) / len(labels), rtol=1e-12)

    costs = rng.uniform(0.2, 5.0, len(expected))
    logits = rng.normal(size=(len(labels), 3))
    inside, outside = groups.costs(torch.tensor(costs), torch.tensor(values))
    found = outside * margin_loss(torch.tensor(logits), torch.tensor(labels), inside)
    twin = [slow_loss(logits[row], values, labels, kind, costs.tolist(), row) for row in range(len(labels))]
    np.testing.assert_allclose(found, twin, rtol=1e-5)

    risks = groups.risks(torch.tensor(logits), torch.tensor(labels), torch.tensor(values))
    wrong = logits.argmax(axis=1) != labels
    for g, (a, y) in enumerate(expected):
        members = [row for row, pair in enumerate(pairs) if pair[0] == a and y in (None, pair[1])]
        assert float(risks.values[g]) == pytest.approx(wrong[members].mean())


def test_groups_that_are_the_classes_are_the_classes_to_the_last_bit() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([0] * 7 + [1] * 3 + [2] * 5)
    logits = torch.randn(15, 3)
    dro = ClassMultipliers("tradeoff:0.7", torch.bincount(labels))
    dro.update(class_risks(logits, labels, loss="cross-entropy"))
    for kind in ("group", "class-group"):
        groups = Groups.of(labels, labels, kind)
        assert torch.equal(groups.cells.diagonal(), torch.arange(3))
        own = ClassMultipliers("tradeoff:0.7", groups.masses)
        assert torch.equal(own.priors, dro.priors)
        own.update(groups.risks(logits, labels, labels, loss="cross-entropy"))
        assert torch.equal(own.costs, dro.costs)
        costs, weights = groups.costs(own.costs, labels)
        for loss in (margin_loss, weighted_loss):
            assert torch.equal(weights * loss(logits, labels, costs), loss(logits, labels, dro.costs))


def test_a_teachers_shares_fall_to_the_groups_of_their_classes() -> None:
    """Group = class, targets soft: all mass of a class is its group's, also that of examples of other classes."""
    torch.manual_seed(1)
    labels, targets = torch.tensor([0, 0, 1, 2, 2]), torch.rand(5, 3).double().softmax(dim=1)
    counts = torch.tensor([[2.0, 0, 0], [0, 1, 0], [0, 0, 2]])
    masses = torch.zeros(3, 3, dtype=torch.float64).index_add(0, labels, targets)
    groups = Groups(masses, "group", counts=counts)
    torch.testing.assert_close(groups.masses, targets.sum(dim=0))
    logits = torch.randn(5, 3)
    found = groups.risks(logits, targets, labels, loss="cross-entropy")
    expected = class_risks(logits, targets, loss="cross-entropy")
    torch.testing.assert_close(found.values, expected.values)
    torch.testing.assert_close(found.counts, expected.counts)


def test_soft_shares_by_hand() -> None:
    values, targets = torch.tensor([0, 1]), torch.tensor([[0.75, 0.25], [0.5, 0.5]])
    masses = torch.zeros(2, 2).index_add(0, values, targets)
    groups = Groups(masses, counts=torch.tensor([[3.0, 1.0], [2.0, 0.0]]), group_names="ab", class_names="xy")
    assert groups.names == ("x / a", "y / a", "x / b")
    assert groups.masses.tolist() == [0.75, 0.25 + 0.5, 0.5]  # what b has of y falls to y's only group
    risks = groups.risks(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), targets, values)
    assert risks.sums.tolist() == [0.0, 0.25, 0.5]
    assert risks.counts.tolist() == [0.75, 0.75, 0.5]
    assert groups.by_class([0.5, 0.3, 0.2]) == [0.7, 0.3]
    assert Groups(torch.full((2, 2), 5.0), "group").by_class([0.5, 0.5]) is None


@given(seed=DRAWS)
def test_the_best_scorer_decides_as_the_cost_weighted_error_asks(seed: int) -> None:
    """At an input that shows its value, margin and weighted loss have the same minimiser, f = log(c_y p_y)."""
    rng = np.random.default_rng(seed)
    values, labels = torch.tensor(rng.integers(0, 2, 60)), torch.tensor(rng.integers(0, 3, 60))
    groups = Groups.of(values, labels, num_classes=3)
    costs = torch.tensor(rng.uniform(0.2, 5.0, len(groups.names)))
    p = torch.tensor(rng.dirichlet(np.ones(3), 1))
    for value in (0, 1):
        inside, outside = groups.costs(costs, torch.tensor([value]))
        raw = costs[groups.cells[value]]
        torch.testing.assert_close((outside * inside)[0].double(), raw, rtol=1e-5, atol=0)
        logits = (raw * p).log().requires_grad_()
        for loss in (margin_loss, weighted_loss):
            (outside * loss(logits, p, inside)).sum().backward()
            assert float(logits.grad.abs().max()) < 1e-6  # type: ignore[union-attr]
            logits.grad = None


@given(seed=DRAWS)
def test_weights_outside_have_mean_one(seed: int) -> None:
    """Whatever λ is: one learning rate serves all, as for classes."""
    rng = np.random.default_rng(seed)
    values, labels = torch.tensor(rng.integers(0, 3, 50)), torch.tensor(rng.integers(0, 2, 50))
    for kind in ("group", "class-group"):
        groups = Groups.of(values, labels, kind, num_classes=2)
        dro = ClassMultipliers("robust", groups.priors, step_size=5.0)
        dro.update(groups.risks(torch.tensor(rng.normal(size=(50, 2))), labels, values))
        assert float(groups.costs(dro.costs, values)[1].mean()) == pytest.approx(1.0, rel=1e-5)


def test_values_that_training_does_not_have_take_no_part() -> None:
    values, labels = torch.tensor([0, 0, 2, 2]), torch.tensor([0, 1, 0, 1])
    for kind, names in (("group", ("a", "c")), ("class-group", ("x / a", "y / a", "x / c", "y / c"))):
        groups = Groups.of(values, labels, kind, group_names="abc", class_names="xy")
        assert groups.names == names
        assert groups.index(torch.tensor([1, 2]), torch.tensor([0, 0])).tolist() == [-1, len(names) // 2]
        risks = groups.risks(torch.eye(2), torch.tensor([0, 1]), torch.tensor([1, 1]))
        assert float(risks.counts.sum()) == (0.0 if kind == "group" else 2.0)
        assert groups.costs(torch.full((len(names),), 3.0), torch.tensor([1]))[1].tolist() == [1.0]


@pytest.mark.parametrize(
    ("masses", "settings", "message"),
    [
        (torch.ones(3), {}, r"must be \(A, C\), got \(3,\)"),
        (torch.ones(2, 2), {"counts": torch.ones(2, 3)}, r"got \(2, 2\) and \(2, 3\)"),
        (torch.ones(2, 2), {"kind": "attribute"}, "kind of groups"),
        (torch.ones(2, 2), {"group_names": "abc"}, "2 group_names and 2 class_names, got 3 and 2"),
        (torch.full((2, 2), 0.4), {}, "at least 2 groups, got 0"),
    ],
)
def test_what_makes_no_groups_is_refused(masses: torch.Tensor, settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Groups(masses, **settings)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="values must be integers"):
        Groups.of(torch.tensor([0.5]), torch.tensor([1]))
