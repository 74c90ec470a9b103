"""`robustdistill audit` as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

import robustdistill as rd
from auditing.reference import made_up
from cli.typed import Command
from robustdistill.cli.output import out_console


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.npz"])
def test_every_format_gives_the_same_audit(command: Command, tmp_path: Path, name: str) -> None:
    table = made_up(200, groups=True)
    table.write(tmp_path / name)
    done = command("audit", name, "--json")
    assert done.code == 0
    found = json.loads(done.out)
    assert found["measures"]["worst_class"]["value"] == table.evaluate().worst_class
    assert [line["name"] for line in found["groups"]] == ["9", "10", "north", "south"]
    assert len(found["cells"]) == 16


def test_the_table_the_page_and_the_file(command: Command, tmp_path: Path) -> None:
    table = made_up(300, classes=30)
    table.write(tmp_path / "a.parquet")
    done = command("audit", "a.parquet", "--out", "page", "--teacher")
    assert done.code == 0
    assert "10 more that are better" in done.out
    assert f"{100 * table.evaluate().worst_class:.1f} %" in done.out
    assert "as a teacher, by temperature" in done.out
    assert "Try: " in done.out
    assert "page: page/index.html" in done.out
    assert "<title>robustdistill audit: a.parquet</title>" in (tmp_path / "page/index.html").read_text()
    assert json.loads((tmp_path / "page/audit.json").read_text())["rows"] == 300
    assert "more that are better" not in command("audit", "a.parquet", "--all").out


def test_a_narrow_terminal_gets_what_fits_and_is_told_of_the_rest(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up(300).write(tmp_path / "a.parquet")
    # The width itself: a console keeps the COLUMNS that were set when its module was first imported.
    monkeypatch.setattr(out_console, "_width", 200)
    assert "ECE %" in command("audit", "a.parquet").out
    monkeypatch.setattr(out_console, "_width", 80)
    done = command("audit", "a.parquet")
    assert "ECE %" not in done.out
    assert "Confidence and ECE of each class need 110 columns, or --out, or --json." in done.out
    assert all(word in done.out for word in ("recall", "interval", "precision", "mistaken", "verdict"))


def test_two_files_are_compared(command: Command, tmp_path: Path) -> None:
    table = made_up(300)
    table.write(tmp_path / "a.csv")
    replace(table, scores=-table.scores, labels=None).write(tmp_path / "b.npz")
    done = command("audit", "a.csv", "b.npz", "--out", "page")
    assert done.code == 0
    assert "a.csv against b.npz: 300 examples" in done.out
    assert "The worst class is worse" in done.out
    found = json.loads(command("audit", "a.csv", "b.npz", "--json").out)
    assert found["measures"]["balanced"]["difference"] < 0
    table.rows(np.arange(200)).write(tmp_path / "c.csv")
    refused = command("audit", "a.csv", "c.csv")
    assert (refused.code, "--common compares the shared ones" in refused.err) == (2, True)
    assert command("audit", "a.csv", "c.csv", "--common").code == 0


def test_columns_of_any_name(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "file,truth,cat,dog,country\na.png,cat,0.9,0.1,Peru\nb.png,dog,0.4,0.6,Chad\nc.png,dog,0.7,0.3,Chad\n"
    )
    options = ["label=truth", "id=file", "group=country", "probability=*"]
    done = command("audit", "a.csv", "--json", *(word for text in options for word in ("--column", text)))
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert [line["name"] for line in found["classes"]] == ["cat", "dog"]
    assert [line["recall"] for line in found["groups"]] == [0.5, 1.0]
    missing = command("audit", "a.csv", "--column", "label=thruth", "--column", "probability=*")
    assert missing.code == 2
    assert "did you mean 'truth'" in missing.err
    (tmp_path / "b.csv").write_text("prediction\ncat\ndog\n")
    assert "true classes, in a column 'label'" in command("audit", "b.csv").err


def test_a_split_is_chosen_not_mixed(command: Command, tmp_path: Path) -> None:
    table = replace(made_up(100), splits=np.array(["val", "test"] * 50))
    table.write(tmp_path / "a.csv")
    refused = command("audit", "a.csv")
    assert refused.code == 2
    assert "holds 2: test, val; choose with --split" in refused.err
    assert json.loads(command("audit", "a.csv", "--split", "val", "--json").out)["rows"] == 50
    assert "did you mean 'test'" in command("audit", "a.csv", "--split", "tset").err


def test_requirements_decide_the_exit_code(command: Command, tmp_path: Path) -> None:
    table = made_up(100)
    table.write(tmp_path / "a.csv")
    worst = table.evaluate().worst_class
    assert command("audit", "a.csv", "--require", f"worst_class={worst}").code == 0
    failed = command("audit", "a.csv", "--require", f"worst_class={worst + 0.01:.4f}", "--require", "standard=0.1")
    assert failed.code == 1
    assert "worst_class is" in failed.out
    assert command("audit", "a.csv", "--require", "worst=0.5").code == 2
    assert command("audit", "a.csv", "--require", "balanced=5").code == 2
    assert command("audit", "a.csv", "--require", "balanced").code == 2
    two = made_up(100, classes=3)
    two.write(tmp_path / "b.csv")
    assert "needs --worst-k" in command("audit", "b.csv", "--require", "worst_k=0.5").err


HEAD = "id,label,probability:cat,probability:dog"
GOOD = ["a,cat,0.9,0.1", "b,dog,0.4,0.6", "c,dog,0.7,0.3"]


@pytest.mark.parametrize(
    ("row", "line", "wanted"),
    [
        (1, "b,dog,0.4", ["line 3", "Expected 4 columns"]),
        (1, "b,dog,x,0.6", ["line 3", "column 'probability:cat'", "'x'"]),
        (2, "c,dgo,0.7,0.3", ["column 'label'", "row 2", "did you mean 'dog'"]),
        (1, "b,dog,0.4,nan", ["row 1", "id b", "column 'probability:dog'", "nan"]),
        (2, "a,dog,0.7,0.3", ["column 'id'", "rows 0 and 2"]),
        (1, "b,dog,0.4,0.7", ["row 1", "sums to 1.1", "'probability:cat' to 'probability:dog'"]),
        (1, "b,dog,-0.4,1.4", ["row 1", "column 'probability:cat'", "negative"]),
        (1, "b,,0.4,0.6", ["column 'label'", "row 1"]),
        (1, "b,7,0.4,0.6", ["column 'label'", "row 1"]),
    ],
)
def test_row_and_column_of_what_is_wrong_are_named(
    command: Command, tmp_path: Path, row: int, line: str, wanted: list[str]
) -> None:
    lines = [*GOOD[:row], line, *GOOD[row + 1 :]]
    (tmp_path / "bad.csv").write_text("\n".join([HEAD, *lines]) + "\n")
    done = command("audit", "bad.csv")
    assert done.code == 2
    for words in ("bad.csv", *wanted):
        assert words in done.err
    assert not done.out


@pytest.mark.parametrize("ending", ["parquet", "npz"])
@pytest.mark.parametrize(
    ("column", "row", "value", "wanted"),
    [
        ("dog", 1, float("nan"), ["row 1", "id b", "dog", "nan"]),
        ("dog", 1, 0.7, ["row 1", "id b", "sum", "1.1"]),
        ("dog", 1, -0.4, ["row 1", "id b", "dog", "negative"]),
        ("label", 2, "dgo", ["label", "row 2", "did you mean 'dog'"]),
        ("label", 2, "", ["label", "row 2"]),
        ("id", 2, "a", ["id", "rows 0 and 2"]),
    ],
)
def test_other_formats_name_them_too(
    command: Command, tmp_path: Path, ending: str, column: str, row: int, value: object, wanted: list[str]
) -> None:
    columns: dict[str, list[object]] = {
        "id": ["a", "b", "c"],
        "label": ["cat", "dog", "dog"],
        "cat": [0.9, 0.4, 0.7],
        "dog": [0.1, 0.6, 0.3],
    }
    columns[column][row] = value
    if ending == "npz":
        scores = np.array([columns["cat"], columns["dog"]], dtype=np.float64).T
        arrays = {"ids": np.array(columns["id"]), "labels": np.array(columns["label"]), "probabilities": scores}
        np.savez(tmp_path / "bad.npz", class_names=np.array(["cat", "dog"]), **arrays)
    else:
        named = {f"probability:{name}" if name in ("cat", "dog") else name: cells for name, cells in columns.items()}
        parquet.write_table(pa.table(named), tmp_path / "bad.parquet")
    done = command("audit", f"bad.{ending}")
    assert done.code == 2
    for words in (f"bad.{ending}", *wanted):
        assert words in done.err
    assert not done.out


@pytest.mark.parametrize("bad", [None, float("nan")])
def test_missing_values_in_parquet_are_named(command: Command, tmp_path: Path, bad: float | None) -> None:
    columns = {
        "id": ["a", "b", "c"],
        "label": ["cat", "dog", "dog"],
        "probability:cat": pa.array([0.9, 0.4, bad], pa.float64()),
        "probability:dog": pa.array([0.1, 0.6, 0.3], pa.float64()),
    }
    parquet.write_table(pa.table(columns), tmp_path / "bad.parquet")
    done = command("audit", "bad.parquet")
    assert done.code == 2
    assert "column 'probability:cat'" in done.err
    assert "row 2" in done.err


def test_usage_mistakes_are_refused(command: Command, tmp_path: Path) -> None:
    made_up(50).write(tmp_path / "a.csv")
    for arguments, message in [
        (("a.csv", "a.csv", "--teacher"), "--teacher judges one file"),
        (("a.csv", "--common"), "--common needs two files"),
        (("a.csv", "a.csv", "--leave-out-absent"), "is for one file"),
        (("a.csv", "--column", "label"), "--column must be ROLE=NAME"),
        (("a.csv", "--column", "lable=x"), "did you mean 'label'"),
        (("a.csv", "--column", "probability=p"), "one star"),
        (("none.csv",), "no such file"),
        (("a.txt",), "no such file|unknown ending"),
    ]:
        done = command("audit", *arguments)
        assert done.code == 2
        assert any(part in done.err for part in message.split("|"))


def test_auditing_and_shifting_never_import_torch(tmp_path: Path) -> None:
    table = made_up(200, groups=True)
    table.write(tmp_path / "a.parquet")
    replace(table, scores=table.scores / 2).write(tmp_path / "b.parquet")
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from robustdistill import cli\n"
        "for words in ('audit a.parquet --teacher --out page', 'audit a.parquet b.parquet --json',\n"
        "              'shift fit a.parquet -o s.json', 'shift apply b.parquet --shift s.json -o c.csv'):\n"
        "    sys.argv = ['robustdistill', *words.split()]\n"
        "    try:\n"
        "        cli.main()\n"
        "    except SystemExit as stopped:\n"
        "        assert not stopped.code, words\n"
        "assert sys.modules['torch'] is None\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(path).resolve()) for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert rd.Predictions.read(tmp_path / "c.csv").kind == "probabilities"
