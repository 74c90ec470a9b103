"""`robustdistill report` as a user types it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from cli.typed import Command
from report.records import journal, record, save


@pytest.fixture
def command(command: Command) -> Command:
    """Runs `robustdistill report ARGUMENTS` in an empty folder."""
    return partial(command, "report")


def test_a_folder_of_runs_becomes_a_page(command: Command, tmp_path: Path) -> None:
    journal(tmp_path / "runs", repeats=2, temperatures=(3.0,), epochs=1)
    found = command("runs", "--out", "page")
    assert found.code == 0
    assert "Student: balanced" in found.out  # a row that no width of the terminal breaks
    assert "The best combination has a robust teacher or a robust student." in found.out
    assert (tmp_path / "page/index.html").resolve().as_uri() in found.out
    assert "30 finished runs" not in found.out


def test_json_gives_paths_cells_and_claims(command: Command, tmp_path: Path) -> None:
    journal(tmp_path / "runs", repeats=2, teachers=("standard", "robust"), epochs=1)
    found = command("runs", "--json", "--worst", "worst_3")
    assert found.code == 0
    content = json.loads(found.out)
    assert content["page"] == str((tmp_path / "runs/report/index.html").resolve())
    assert all(Path(path).is_file() for path in [content["page"], *content["files"]])
    assert {Path(path).suffix for path in content["files"]} == {".md", ".tex", ".csv", ".png", ".svg"}
    assert {cell["worst_metric"] for cell in content["cells"]} == {"worst_3"}
    assert {cell["temperature"] for cell in content["cells"] if cell["role"] == "student"} <= {1.0, 3.0}
    assert len(content["cells"]) == 2 * 5
    assert content["claims"][0]["claim"] == "robust-is-best"
    assert {claim["verdict"] for claim in content["claims"]} <= {"confirmed", "refuted", "undecided"}
    # The page lies below the runs, and must not be taken for one of them.
    assert json.loads(command("runs", "--json").out)["runs"] == content["runs"] == 2 * 2 * (1 + 4 * 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("empty",), "no record.json was found"),
        (("nowhere",), "not there"),
        (("file",), "a file"),
        (("runs", "--worst", "worst"), "worst_class or worst_K"),
        (("runs", "--worst", "worst_11"), "10 classes"),
        (("runs", "--worst", "worst_0"), "10 classes"),
        (("runs", "--out", "file"), "out must be a folder"),
    ],
)
def test_bad_input_ends_with_2_and_says_why(
    command: Command, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    save(tmp_path / "runs", record("teacher", epochs=1))
    found = command(*arguments)
    assert found.code == 2
    assert message in found.err
    assert "Traceback" not in found.err


def test_damaged_records_are_named_and_left_out(command: Command, tmp_path: Path) -> None:
    save(tmp_path / "runs", record("teacher", epochs=1))
    for index in range(8):
        (tmp_path / "runs" / f"torn{index}").mkdir()
        (tmp_path / "runs" / f"torn{index}" / "record.json").write_text('{"schema": 1, ')
    found = command("runs", "--quiet")
    assert found.code == 0
    assert found.err.count("left out") == 5
    assert "3 more" in found.err
