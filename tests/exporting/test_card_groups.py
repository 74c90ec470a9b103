"""Cards of runs whose multipliers are over groups: they say how good each group is, as others do of each class."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

import robustdistill as rd
from exporting import runs
from robustdistill.errors import InputError
from robustdistill.exporting import Facts, deploy, export_safetensors, load, model_card
from robustdistill.exporting.bygroup import all_groups
from robustdistill.exporting.card import Measured
from robustdistill.exporting.whole import export
from robustdistill.metrics import Scores
from robustdistill.postshift import PostShift
from robustdistill.training.run import Run

GROUPS = ("cat / land", "dog / land", "ship / land", "cat / water", "dog / water", "ship / water")
BY_GROUP = Scores(np.array([60, 60, 50, 8, 2, 9]), np.array([70, 70, 70, 10, 10, 10]), GROUPS)
BY_CLASS = Scores(np.array([68, 62, 59]), np.array([80, 80, 80]), runs.NAMES)


@pytest.fixture(scope="module")
def run() -> Run:
    return runs.trained_by_group()


@pytest.fixture(scope="module")
def facts(run: Run) -> Facts:
    return deploy(run, runs.grouped()).facts


def card_of(run: Run, facts: Facts, groups: Scores | None = BY_GROUP, **changes: object) -> str:
    measured = Measured(BY_CLASS, "test", "birds", groups=groups)
    return model_card(run, facts, replace(measured, **changes))  # type: ignore[arg-type]


def test_the_worst_group_stands_first_with_its_interval_and_count(run: Run, facts: Facts) -> None:
    card = card_of(run, facts)
    low, high = BY_GROUP.intervals()["worst_class"]
    first = next(line for line in card.splitlines() if line.startswith("| worst-"))
    assert (
        first
        == f"| worst-group accuracy (the lowest accuracy of any group) | 20.0 | {100 * low:.1f} to {100 * high:.1f} |"
    )
    low, high = BY_GROUP.wilson()[4]
    assert (
        "It is wrong most often on the group dog / water: 20.0 % right of 10 examples (95 % Wilson interval"
        f" {100 * low:.1f} to {100 * high:.1f})."
    ) in card
    assert "It is wrong most often on ship: 73.8 % right of 80 examples" in card
    assert "resampled within each class or group; that of the worst group is of the lowest of 6 noisy\n" in card
    assert "\naccuracies, and not corrected for that.\nThey do not" in card
    fields = yaml.safe_load(card.split("---\n")[1])
    (result,) = fields["model-index"][0]["results"]
    assert result["metrics"][0] == {"type": "worst_group_accuracy", "value": 0.2, "name": "Worst-group accuracy"}
    assert [metric["type"] for metric in result["metrics"][1:]] == [
        *("worst_class_accuracy", "balanced_accuracy", "accuracy")
    ]
    assert "worst-group-accuracy" in fields["tags"]


def test_each_group_has_a_row_worst_first(run: Run, facts: Facts) -> None:
    card = card_of(run, facts)
    rows = re.findall(r"^\| (\w+ / \w+) \| ([\d.]+) \| ([\d. to]+) \| (\d+) \| (\d+) \|$", card, flags=re.MULTILINE)
    intervals = [f"{100 * low:.1f} to {100 * high:.1f}" for low, high in BY_GROUP.wilson()]
    assert rows == [
        ("dog / water", "20.0", intervals[4], "10", "10"),
        ("ship / land", "71.4", intervals[2], "70", "70"),
        ("cat / water", "80.0", intervals[3], "10", "10"),
        ("cat / land", "85.7", intervals[0], "70", "70"),
        ("dog / land", "85.7", intervals[1], "70", "70"),
        ("ship / water", "90.0", intervals[5], "10", "10"),
    ]
    assert card.index("| group | accuracy %") < card.index("| class | recall %")
    assert "<details>" not in card


def test_it_says_what_groups_are_and_what_was_minimised(run: Run, facts: Facts) -> None:
    card = card_of(run, facts)
    assert "The 6 groups are the values of the column `place` within each class, CLASS / VALUE. The accuracy" in card
    assert "gets right.\n\nRecall is" in card
    assert "trained on labels to make its worst group good" in card
    assert "to minimise the loss of the worst group." in card
    assert "where the weakest group matters" in card
    assert "groups of another kind than these, were not looked at" in card
    assert "multipliers of groups within each class moved by" in card


@pytest.mark.parametrize(
    ("objective", "aim", "minimised"),
    [
        ("balanced", "treat groups alike on average", "the mean of the groups' losses, each group counting alike."),
        ("standard", "be right on average over examples", "the mean loss over examples."),
        ("tradeoff:0.5", "balance its worst group against its average", "plus 0.5 times the loss of the worst group."),
    ],
)
def test_other_objectives_over_a_plain_column(objective: str, aim: str, minimised: str) -> None:
    run = runs.trained_by_group("group", objective)
    groups = Scores(np.array([60, 5]), np.array([210, 30]), ("land", "water"))
    card = card_of(run, deploy(run, runs.grouped()).facts, groups)
    assert "The 2 groups are the values of the column `place`. The accuracy" in card
    assert aim in card
    assert minimised in card
    assert "| water | 16.7 |" in card


def test_few_examples_of_a_group_are_warned_of(run: Run, facts: Facts) -> None:
    card = card_of(run, facts)
    assert (
        "Fewer than 50 examples were measured of the groups cat / water, dog / water, ship / water: mind the width"
    ) in card
    assert "Fewer than 20 training examples were there of the groups cat / water, dog / water, ship / water." in card
    assert "Fewer than 50 examples were measured of cat" not in card


def test_a_group_that_was_not_met_is_unknown_and_not_left_out(run: Run, facts: Facts) -> None:
    met = Scores(np.array([60, 60, 50, 8, 9]), np.array([70, 70, 70, 10, 10]), (*GROUPS[:4], "ship / moon"))
    groups = all_groups(run, met)
    assert groups.class_names == (*GROUPS, "ship / moon")
    assert groups.counts.tolist() == [70, 70, 70, 10, 0, 0, 10]
    card = card_of(run, facts, groups)
    assert "| worst-group accuracy (the lowest accuracy of any group) | unknown |" in card
    assert "Nothing is known of the groups dog / water, ship / water: no example was there" in card
    assert "| dog / water | none seen |  | 0 | 10 |" in card
    assert "| ship / moon | 90.0 |" in card
    (result,) = yaml.safe_load(card.split("---\n")[1])["model-index"][0]["results"]
    assert result["metrics"][0]["type"] == "worst_class_accuracy"


def test_groups_of_one_name_are_refused_and_not_mixed(run: Run) -> None:
    with pytest.raises(InputError, match="two groups are called 'a / b / c'"):
        all_groups(run, Scores(np.array([1, 2]), np.array([3, 4]), ("a / b / c", "a / b / c")))


def test_many_groups_are_folded_and_lists_are_cut(run: Run, facts: Facts) -> None:
    names = tuple(f"cat / {index}" for index in range(400))
    card = card_of(run, facts, Scores(np.ones(400, dtype=int), np.full(400, 2), names))
    assert "<details><summary>All 400 groups, worst first</summary>" in card
    assert "cat / 11 and 388 more: mind the width" in card
    assert card.count("cat / 399") == 1


def test_scores_by_group_belong_to_runs_over_groups(run: Run, facts: Facts) -> None:
    with pytest.raises(InputError, match="this one is over class-group, got none"):
        card_of(run, facts, None)
    plain = runs.trained(runs.Tabular, runs.features())
    with pytest.raises(InputError, match="this one is over class, got those of 6 groups"):
        card_of(plain, facts)


def test_an_export_measures_by_group_with_the_shift_and_without(run: Run, tmp_path: Path) -> None:
    test = runs.grouped(seed=3)
    shift = PostShift.from_priors({"cat": 1.0, "dog": 1.0, "ship": 1e6})
    done = export(run, test, card=tmp_path / "card.md", shift=shift)
    table = rd.predict(run, test)
    before, after = (rd.evaluate(each, test, groups="class-group") for each in (table, shift.transform(table)))
    assert done.group_scores is not None
    assert done.group_scores.worst_class == after.worst_class < before.worst_class
    card = (tmp_path / "card.md").read_text()
    row = next(line for line in card.splitlines() if line.startswith("| worst-group"))
    assert row.split("|")[2].strip() == f"{100 * after.worst_class:.1f}"
    assert row.split("|")[4].strip() == f"{100 * before.worst_class:.1f}"
    assert any("makes the worst group worse here" in remark for remark in done.remarks)


def test_a_card_without_the_column_is_refused_before_anything_is_written(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no group column"):
        export(run, runs.features(), card=tmp_path / "card.md", safetensors=tmp_path / "s.safetensors")
    assert list(tmp_path.iterdir()) == []
    export(run, runs.features(), safetensors=tmp_path / "s.safetensors")


def test_files_say_that_the_objective_is_over_groups(run: Run, tmp_path: Path) -> None:
    export_safetensors(run, tmp_path / "s.safetensors", runs.grouped())
    assert load(tmp_path / "s.safetensors", model=runs.Tabular).facts.groups == "class-group"


def test_a_loaded_run_gives_the_same_card(run: Run, facts: Facts, tmp_path: Path) -> None:
    run.save(tmp_path)
    loaded = Run.load(tmp_path, model=runs.Tabular)
    assert card_of(loaded, facts) == card_of(run, facts)


@pytest.mark.parametrize(
    ("names", "counts"),
    [
        (["a"], [1, 2]),
        ([], []),
        ([1, 2], [1, 2]),
        (["a", "b"], [1, "2"]),
        (["a", "b"], [1, None]),
        (None, []),
    ],
)
def test_a_record_whose_groups_are_damaged_is_refused(run: Run, tmp_path: Path, names: object, counts: object) -> None:
    record = run.record() | {"group_names": names, "group_train_counts": counts}
    run.save(tmp_path)
    (tmp_path / "record.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"record\.json is damaged"):
        Run.load(tmp_path, model=runs.Tabular)
