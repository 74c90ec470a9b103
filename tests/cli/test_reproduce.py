"""`robustdistill reproduce`, in this process."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from cli.typed import Command
from robustdistill.experiments.paper import scales
from robustdistill.training.recipe import Recipe


@pytest.fixture
def command(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `robustdistill reproduce ARGUMENTS` in an empty folder, where there are no data."""
    monkeypatch.setenv("ROBUSTDISTILL_DATA", str(tmp_path / "nothing"))
    return partial(command, "reproduce")


def test_counting_needs_no_data(command: Command, tmp_path: Path) -> None:
    found = command("table1", "--data", "cifar10-lt", "--dry-run", "--json")
    assert found.code == 0
    assert json.loads(found.out) == {"teachers": 30, "students": 540, "runs": 570}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("table5", "--data", "cifar10"), {"teachers": 0, "students": 0, "baselines": 20, "runs": 20}),
        (("table2", "--data", "cifar10", "--repeats", "1"), {"teachers": 2, "students": 24, "runs": 26}),
        (("figure1", "--data", "cifar100-lt"), {"teachers": 70, "students": 1470, "runs": 1540}),
        (("figure1", "--data", "digits-lt", "--scale", "tiny", "--alphas", "0,1", "--repeats", "1"), None),
    ],
)
def test_counts(command: Command, arguments: tuple[str, ...], expected: dict[str, int] | None) -> None:
    found = json.loads(command(*arguments, "--dry-run", "--json").out)
    assert found == (expected or {"teachers": 3, "students": 3 * 3 * 2, "runs": 21})


def test_a_dry_run_for_people_says_what_differs(command: Command) -> None:
    text = command("table1", "--data", "digits-lt", "--scale", "tiny", "--dry-run").out
    assert "Table 1 on digits-lt, in place of cifar10-lt, tiny scale: 117 runs (9 teachers, 108 students)." in text
    assert "student model: convnet-8 (paper: resnet56)" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("table1",), "--data must be one of cifar10, cifar100, cifar10-lt, cifar100-lt, tinyimagenet for table1"),
        (("table4", "--data", "digits", "--scale", "tiny"), "--data must be one of tinyimagenet-lt for table4"),
        (("table1", "--data", "digits-lt"), "can stand in at scale short or tiny"),
        (("table11", "--data", "cifar10"), "did you mean 'table1'"),
        (("table1", "--data", "cifar10", "--alphas", "0,1"), "--alphas is for figures only"),
        (("figure1", "--data", "cifar10-lt", "--alphas", "0,2"), "--alphas must be numbers from 0 to 1"),
        (("figure1", "--data", "cifar10-lt", "--alphas", "a"), "--alphas must be numbers"),
    ],
)
def test_what_cannot_be_run_is_refused(command: Command, arguments: tuple[str, ...], message: str) -> None:
    found = command(*arguments)
    assert found.code == 2
    assert message in found.err


def test_a_table_from_runs_to_page(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained for an epoch: all cells are filled, post-shift too; the second time nothing is trained."""
    recipe = Recipe.named("digits-lt").with_(epochs=1, every=4)
    monkeypatch.setattr(scales, "_recipe", lambda data, scale: recipe)
    monkeypatch.setattr(scales, "_temperatures", lambda data, scale: (1.0,))
    monkeypatch.setattr(
        scales, "_models", lambda teacher, students, data, scale: ("convnet-4", ("convnet-4", "convnet-2"))
    )
    tiny = ("table8", "--data", "digits-lt", "--scale", "tiny", "--repeats", "1", "--workers", "1")
    found = command(*tiny, "--json")
    assert found.code == 0, found.err
    result = json.loads(found.out)
    assert (result["teachers"], result["students"], result["failed"]) == (2, 2 * 2 * 2, 0)
    assert len(result["results"]) == 2 * 4 * 2
    assert all(row["worst_mean"] is not None and row["runs_done"] == row["runs_planned"] for row in result["results"])
    folder = tmp_path / "runs/reproduce/table8-digits-lt-tiny"
    assert Path(result["page"]) == folder / "index.html"
    assert "The paper has no numbers for digits-lt" in (folder / "index.html").read_text(encoding="utf-8")
    records = list((tmp_path / "runs/reproduce/runs").glob("*/record.json"))
    assert len(records) == 10
    before = {path: path.stat().st_mtime_ns for path in records}
    again = command(*tiny, "--quiet")
    assert again.code == 0
    assert "paper 5.02±0.20" in again.out
    assert {path: path.stat().st_mtime_ns for path in records} == before
    assert "10 done, 0 failed, 0 interrupted, 0 running, 0 left" in command(*tiny, "--dry-run").out
