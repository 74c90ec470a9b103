from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import robustdistill as rd
from robustdistill.data import Examples, Splits, from_arrays, split
from robustdistill.errors import InputError
from robustdistill.experiments.journal import scan
from robustdistill.training.evaluate import score_test
from robustdistill.training.run import Run
from training.problems import assert_same_weights, history_of, picture_splits, short

RECIPE = rd.Recipe(epochs=15, batch_size=64, learning_rate=0.1, every=4, step_size=0.2, weight_decay=0.0)


def with_classes_as_groups(data: Examples) -> Examples:
    return data.with_groups([data.class_names[y] for y in data.require_labels()], data.class_names)


def spurious(seed: int = 0, size: int = 3000) -> Splits:
    """Two classes told apart by a noisy feature; another feature, the attribute, agrees with 95 % of the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, size)
    attribute = np.where(rng.random(size) < 0.95, labels, 1 - labels)
    features = np.stack([2 * labels - 1 + rng.normal(size=size), 2.0 * attribute - 1], axis=1)
    places = np.array(["land", "water"])[attribute]
    return split(from_arrays(features, labels, class_names=("wren", "gull"), groups=places), 0.25, 0.25)


def countries(seed: int = 0, size: int = 3000) -> Splits:
    """In the small country the same feature means less and is shifted: no linear scorer serves both."""
    rng = np.random.default_rng(seed)
    labels, south = rng.integers(0, 2, size), rng.random(size) < 0.1
    features = np.stack([2.0 * labels - 1 + 0.5 * rng.normal(size=size)], axis=1)
    features[south] += 1.5
    return split(from_arrays(features, labels, groups=np.where(south, "south", "north")), 0.25, 0.25)


def trained(data: Splits, objective: str, **settings: Any) -> Run:
    torch.manual_seed(0)
    model = nn.Linear(data.train.inputs.shape[1], 2)
    settings = {"recipe": RECIPE, "progress": False, **settings}
    return rd.fit(model, data.train, data.val, objective=objective, **settings)


@pytest.mark.parametrize("groups", ["group", "class-group"])
@pytest.mark.parametrize("method", ["margin", "weighted"])
def test_groups_that_are_the_classes_make_the_same_run(groups: Any, method: str) -> None:
    settings: dict[str, Any] = {"objective": "robust", "recipe": short(), "method": method, "progress": False}
    train, val = (with_classes_as_groups(part) for part in picture_splits())
    by_class = rd.fit("convnet-2", train, val, **settings)
    by_group = rd.fit("convnet-2", train, val, groups=groups, **settings)
    assert_same_weights(by_class.model, by_group.model)
    assert torch.equal(by_class.multipliers.weights, by_group.multipliers.weights)
    for ours, theirs in zip(history_of(by_class), history_of(by_group), strict=True):
        assert ours == {name: theirs[name] for name in ours}
        assert theirs["worst_group"] == ours["worst_class"]
    assert by_class.spec.hash != by_group.spec.hash


def test_students_by_class_and_by_groups_that_are_the_classes() -> None:
    train, val = (with_classes_as_groups(part) for part in picture_splits())
    teacher = rd.fit("convnet-4", train, val, recipe=short(), progress=False)
    one, other = (
        rd.distill(teacher, "convnet-2", train, val, groups=groups, recipe=short(), progress=False, views="off")
        for groups in ("class", "group")
    )
    torch.testing.assert_close(one.multipliers.priors, other.multipliers.priors)
    torch.testing.assert_close(one.multipliers.weights, other.multipliers.weights, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(one.model.head.weight, other.model.head.weight, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("method", ["margin", "weighted"])
def test_the_small_groups_within_classes_gain(method: str) -> None:
    data = spurious()
    plain = trained(data, "standard", groups="class-group", method=method)
    robust = trained(data, "robust", groups="class-group", method=method)
    worst = [rd.evaluate(run, data.test, groups="class-group") for run in (plain, robust)]
    assert worst[0].class_names == ("wren / land", "gull / land", "wren / water", "gull / water")
    assert worst[0].worst_class < 0.5
    assert worst[1].worst_class > 0.72  # 0.84 is the best: the noise of the feature
    assert robust.history[-1]["worst_group"] > plain.history[-1]["worst_group"] + 0.2
    assert len(robust.multipliers.weights) == 4
    assert sum(robust.history[-1]["multipliers"]) == pytest.approx(1)
    # Every class is good on average already: over classes there is nothing to gain.
    by_class = trained(data, "robust", groups="class")
    assert rd.evaluate(by_class, data.test, groups="class-group").worst_class < 0.55


def test_the_small_country_gains_by_weights_outside() -> None:
    data = countries()
    plain, robust = (trained(data, objective, groups="group") for objective in ("standard", "robust"))
    north_south = [rd.evaluate(run, data.test, groups="group").per_class for run in (plain, robust)]
    assert north_south[1][1] > north_south[0][1] + 0.1
    assert north_south[1].min() > north_south[0].min() + 0.1
    assert robust.multipliers.weights.argmax() == 1
    assert robust.history[-1]["multipliers"] is None
    assert len(robust.history[-1]["group_multipliers"]) == 2


def test_a_run_by_group_is_kept_and_listed(tmp_path: Path) -> None:
    data = spurious(size=400)
    recipe = RECIPE.with_(epochs=3)
    run = trained(data, "robust", groups="class-group", recipe=recipe, out=tmp_path / "run")
    kept = Run.load(tmp_path / "run", model=nn.Linear(2, 2))
    assert kept.spec.groups == "class-group"
    assert torch.equal(kept.multipliers.weights, run.multipliers.weights)
    assert kept.extra["group_names"] == ["wren / land", "gull / land", "wren / water", "gull / water"]
    (record,) = scan(tmp_path)
    assert record.spec.hash == run.spec.hash
    for scores, loaded in ((run.group_scores, kept.group_scores), (record.metrics.val.groups, kept.group_scores)):
        assert scores is not None
        assert loaded is not None
        assert loaded.counts.tolist() == list(scores.counts)
        assert loaded.correct.tolist() == list(scores.correct)
    assert kept.group_scores.worst_class == run.history[-1]["worst_group"] == record.metrics.val.groups.worst_group
    assert kept.group_scores.class_names == tuple(record.group_names)
    counts = [int(((data.train.groups == a) & (data.train.labels == y)).sum()) for a in (0, 1) for y in (0, 1)]
    assert record.group_train_counts == counts
    plain = run.spec.model_copy(update={"groups": "class"})
    assert plain.hash != run.spec.hash
    with pytest.raises(InputError, match="groups class-group -> group"):
        trained(data, "robust", groups="group", recipe=recipe, out=tmp_path / "run")


def test_scores_on_test_are_kept_by_class_and_by_group(tmp_path: Path) -> None:
    data = spurious(size=400)
    run = trained(data, "robust", groups="group", recipe=RECIPE.with_(epochs=2), out=tmp_path / "run")
    assert not run.tested
    score_test(run, data.test)
    run.save(tmp_path / "run")
    (record,) = scan(tmp_path)
    loaded = Run.load(tmp_path / "run", model=nn.Linear(2, 2))
    assert run.tested
    assert loaded.tested
    expected = rd.evaluate(run, data.test, groups="group")
    assert record.metrics.test is not None
    assert record.metrics.test.groups is not None
    assert record.metrics.test.groups.names == ["land", "water"]
    assert record.metrics.test.groups.worst_group == expected.worst_class == loaded.group_test.worst_class
    assert record.metrics.test.worst_class == rd.evaluate(run, data.test).worst_class
    by_class = trained(data, "robust", recipe=RECIPE.with_(epochs=1))
    score_test(by_class, data.test, rd.predict(by_class, data.test))
    assert by_class.tested
    assert by_class.group_test is None
    assert "groups" not in by_class.record()["metrics"]["test"]
    # Earlier records have no scores by group: their run is tested anew.
    content = json.loads((tmp_path / "run" / "record.json").read_text())
    for metrics in content["metrics"].values():
        del metrics["groups"]
    (tmp_path / "run" / "record.json").write_text(json.dumps(content))
    assert not Run.load(tmp_path / "run", model=nn.Linear(2, 2)).tested


def test_the_mean_of_iterates_is_scored_by_group() -> None:
    data = spurious(size=400)
    run = trained(data, "robust", groups="class-group", recipe=RECIPE.with_(epochs=2), scorer="averaged")
    assert run.group_scores is not None
    assert run.group_scores.worst_class == rd.evaluate(run, data.val, groups="class-group").worst_class


def test_a_student_by_group_of_unlabelled_examples() -> None:
    data = spurious()
    teacher = trained(data, "robust", groups="class-group")
    train = replace(data.train, labels=None)
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    settings: dict[str, Any] = {"recipe": RECIPE, "progress": False, "groups": "class-group", "temperature": 0.5}
    for val, labels in ((data.val, "one-hot"), (replace(data.val, labels=None), "teacher")):
        student = rd.distill(teacher, model, train, val, validation_labels=labels, **settings)
        assert len(student.multipliers.priors) == 4
        assert rd.evaluate(student, data.test, groups="class-group").worst_class > 0.65


def test_predictions_carry_the_groups() -> None:
    data = spurious(size=400)
    table = rd.predict(trained(data, "standard", recipe=RECIPE.with_(epochs=1)), data.test)
    assert table.groups is not None
    assert set(table.groups) == {"land", "water"}
    assert rd.evaluate(table, data.test, groups="group").counts.sum() == len(data.test)


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({}, {"groups": "country"}, "groups"),
        ({"groups": None}, {"groups": "group"}, r"has no group column.*with_groups"),
        ({}, {"groups": "group", "method": "group-dro", "objective": "standard"}, "no effect on method 'group-dro'"),
        ({"group_names": ("sea", "water")}, {"groups": "group"}, "train and val must have the same group names"),
    ],
)
def test_groups_that_cannot_be_are_refused(change: dict[str, Any], settings: dict[str, Any], message: str) -> None:
    data = spurious(size=200)
    with pytest.raises(InputError, match=message):
        trained(replace(data, val=replace(data.val, **change)), **{"objective": "robust", **settings})


def test_a_group_that_validation_or_training_lacks_is_refused() -> None:
    data = spurious(size=400)
    rare = (data.val.require_groups() == 1) & (data.val.require_labels() == 0)
    val = data.val.subset(np.flatnonzero(~rare))
    with pytest.raises(InputError, match=r"val must have every group of examples/train; .* 'wren / water'"):
        trained(replace(data, val=val), "robust", groups="class-group")
    rare = (data.train.require_groups() == 0) & (data.train.require_labels() == 1)
    train = data.train.subset(np.flatnonzero(~rare))
    with pytest.raises(InputError, match=r"train must have every group of examples/val; .* 'gull / land'"):
        trained(replace(data, train=train), "robust", groups="class-group")
    for groups in ("group", "country"):
        with pytest.raises(InputError, match=r"groups|group column"):
            rd.evaluate(nn.Linear(2, 2), replace(data.test, groups=None), groups=groups)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="needs examples"):
        rd.evaluate(rd.predict(nn.Linear(2, 2), data.test), groups="group")
