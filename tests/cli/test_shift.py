"""`robustdistill shift` as a user types it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import robustdistill as rd
from auditing.reference import made_up
from cli.typed import Command
from robustdistill.postshift import cross_fitted


@pytest.fixture
def tables(tmp_path: Path) -> tuple[rd.Predictions, rd.Predictions]:
    val, test = made_up(300, groups=True), made_up(400, seed=1, groups=True)
    val.write(tmp_path / "val.parquet")
    test.write(tmp_path / "test.csv")
    return val, test


@pytest.mark.parametrize("ending", ["csv", "parquet", "npz"])
def test_fit_and_apply(
    command: Command, tmp_path: Path, tables: tuple[rd.Predictions, rd.Predictions], ending: str
) -> None:
    val, test = tables
    fitted = command("shift", "fit", "val.parquet", "-o", "shift.json")
    assert fitted.code == 0, fitted.err
    assert "cross-fitted, 5 folds" in fitted.out
    assert "robustdistill shift apply" in fitted.out
    applied = command("shift", "apply", "test.csv", "--shift", "shift.json", "-o", f"out.{ending}")
    assert applied.code == 0, applied.err
    assert "worst class" in applied.out
    shifted, shift = rd.Predictions.read(tmp_path / f"out.{ending}"), rd.PostShift().fit(val)
    assert shifted.kind == "probabilities"
    np.testing.assert_array_equal(shifted.ids, test.ids)
    np.testing.assert_array_equal(shifted.labels, test.labels)
    np.testing.assert_array_equal(shifted.groups, test.groups)
    np.testing.assert_allclose(shifted.scores, shift.predict_proba(test), rtol=1e-6)


def test_the_file_can_be_read_and_holds_the_curve(
    command: Command, tmp_path: Path, tables: tuple[rd.Predictions, rd.Predictions]
) -> None:
    val, test = tables
    assert command("shift", "fit", "val.parquet", "--robustness", "0.6", "--quiet").code == 0
    text = (tmp_path / "shift.json").read_text()
    found = json.loads(text)
    assert [line["class"] for line in found["classes"]] == list(val.class_names)
    assert all(f'"class": "{name}"' in text for name in val.class_names)
    assert len(text.splitlines()) > 15
    assert [point["robustness"] for point in found["curve"]] == [0, 0.25, 0.5, 0.6, 0.75, 0.9, 1]
    curve = rd.PostShift().curve(val, [0, 0.25, 0.5, 0.6, 0.75, 0.9, 1.0])
    for amount, point in zip([0, 0.25, 0.5, 0.6, 0.75, 0.9, 1.0], curve, strict=True):
        loaded = rd.PostShift.load(tmp_path / "shift.json", amount)
        np.testing.assert_array_equal(loaded.predict(test), point.predict(test))
        assert loaded.robustness == amount
        assert loaded.fit_scores_.as_dict() == point.fit_scores_.as_dict()
    assert rd.PostShift.load(tmp_path / "shift.json").robustness == 0.6
    assert command("shift", "apply", "test.csv", "--robustness", "0.5", "-o", "a.npz").code == 0
    refused = command("shift", "apply", "test.csv", "--robustness", "0.3", "-o", "b.npz")
    assert refused.code == 2
    assert "has a shift for (0, 0.25, 0.5, 0.6, 0.75, 0.9, 1), got 0.3" in refused.err
    assert not (tmp_path / "b.npz").exists()


def test_classes_are_matched_by_name_and_foreign_ones_refused(
    command: Command, tmp_path: Path, tables: tuple[rd.Predictions, rd.Predictions]
) -> None:
    _, test = tables
    assert command("shift", "fit", "val.parquet", "--quiet").code == 0
    test.match_classes(test.class_names[::-1]).write(tmp_path / "reversed.parquet")
    for name in ("test.csv", "reversed.parquet"):
        assert command("shift", "apply", name, "-o", f"{name}.npz").code == 0
    there, back = (rd.Predictions.read(tmp_path / f"{name}.npz") for name in ("test.csv", "reversed.parquet"))
    np.testing.assert_allclose(back.match_classes(there.class_names).scores, there.scores)
    replace(test, class_names=("class 0", "class 1", "class 2", "zebra")).write(tmp_path / "foreign.csv")
    refused = command("shift", "apply", "foreign.csv", "-o", "x.csv")
    assert refused.code == 2
    assert "foreign.csv" in refused.err
    assert "missing 'class 3'; extra 'zebra'" in refused.err
    assert not (tmp_path / "x.csv").exists()


def test_the_fit_table_itself_is_pointed_out(
    command: Command, tmp_path: Path, tables: tuple[rd.Predictions, rd.Predictions]
) -> None:
    command("shift", "fit", "val.parquet", "--quiet")
    assert "was fitted on" in command("shift", "apply", "val.parquet", "-o", "x.csv").err
    assert "was fitted on" not in command("shift", "apply", "test.csv", "-o", "x.csv").err


def test_json_and_refusals(command: Command, tmp_path: Path, tables: tuple[rd.Predictions, rd.Predictions]) -> None:
    val, test = tables
    found = json.loads(command("shift", "fit", "val.parquet", "--folds", "3", "--json").out)
    expected = cross_fitted(rd.PostShift(), val, [0.0, 0.25, 0.5, 0.75, 0.9, 1.0], 3)
    assert [point["cross_fitted"]["worst_class"] for point in found["curve"]] == [
        scores.worst_class for scores in expected
    ]
    assert found["coefficients"].keys() == set(val.class_names)
    replace(test, labels=None).write(tmp_path / "unlabelled.csv")
    applied = json.loads(command("shift", "apply", "unlabelled.csv", "-o", "x.csv", "--json").out)
    assert applied["before"] is None
    made_up(kind="classes").write(tmp_path / "classes.npz")
    for arguments, message in [
        (("fit", "unlabelled.csv"), "fitting needs labels"),
        (("fit", "classes.npz"), "predicted classes only"),
        (("fit", "val.parquet", "-o", "shift.txt"), "must be a .json file"),
        (("apply", "test.csv", "--shift", "none.json"), "cannot be read"),
        (("apply", "test.csv", "-o", "x.tsv"), "unknown ending"),
        (("apply", "classes.npz", "-o", "x.csv"), "predicted classes only"),
    ]:
        done = command("shift", *arguments)
        assert (done.code, message in done.err) == (2, True), done.err
