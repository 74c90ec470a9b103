from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from data.official import idx_arrays, write_idx
from robustdistill.cli.data import app
from robustdistill.data import CATALOG
from robustdistill.errors import InputError


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False, env={"COLUMNS": "100"})
    assert result.exit_code == code, result.output
    return result.output


def test_list(tmp_path):
    write_idx(tmp_path / "mnist", idx_arrays())
    text = run("list", "--root", str(tmp_path))
    for name in CATALOG:
        assert name in text
    assert "to be downloaded: cifar10, cifar10-lt, cifar100, cifar100-lt from https://www.cs.toronto.edu" in text
    assert "from https://ossci" not in text


def test_list_as_json(tmp_path):
    found = json.loads(run("list", "--root", str(tmp_path), "--json"))
    assert found["root"] == str(tmp_path)
    assert {row["name"]: row["found"] is not None for row in found["data"]}["digits"] is True
    assert [row["name"] for row in found["data"]] == list(CATALOG)


def test_check(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = run("check", "digits-lt")
    assert "100 68 46 32 22 15 10 7 4 3" in text
    assert "validation and test share no example" in text
    assert "all is as it should be" in text
    assert (tmp_path / "runs" / "data" / "digits-lt.png").is_file()


def test_check_as_json(tmp_path):
    sheet = tmp_path / "sheet.png"
    found = json.loads(run("check", "digits", "--out", str(sheet), "--ratio", "10", "--json"))
    assert found["splits"]["train"]["class_sizes"]["9"] == 10
    assert found["sheet"] == str(sheet)


def test_check_says_what_is_resized(tmp_path):
    text = run("check", "digits", "--image-size", "32", "--out", str(tmp_path / "a.png"))
    assert "pictures of 8x8x1" in text
    assert "models see them at 32x32: batches are resized on the device" in text
    assert "models see" not in run("check", "digits", "--out", str(tmp_path / "a.png"))


def test_problems_are_an_exit_code(tmp_path):
    write_idx(tmp_path / "mnist", idx_arrays())
    arguments = ("check", "mnist", "--root", str(tmp_path), "--out", str(tmp_path / "a.png"))
    text = run(*arguments, "--no-verify", code=1)
    assert "problem: 120 training examples instead of 60,000" in text
    assert "12 each" in text
    with pytest.raises(InputError, match="expected the published md5"):
        run(*arguments)


def test_a_table_is_checked_by_the_columns_that_training_takes(tmp_path):
    path, names = tmp_path / "birds.parquet", ["[bold]land", "water"]
    columns = {
        "song": np.arange(80.0),
        "kind": ["gull", "wren"] * 40,
        "ground": [names[row % 4 == 0] for row in range(80)],
    }
    pd.DataFrame(columns).to_parquet(path)
    arguments = ("check", f"parquet:{path}", "--label-column", "kind")
    with pytest.raises(InputError, match="name the image_column= or group_column="):
        run(*arguments)
    text = run(*arguments, "--group-column", "ground", "--val", "0.5")
    assert "groups of train: 18 '[bold]land', 6 'water'" in text
    assert "all is as it should be" in text
    found = json.loads(run(*arguments, "--group-column", "ground", "--json"))
    assert found["splits"]["train"]["group_sizes"] == {"[bold]land": 36, "water": 12}


def test_a_group_that_a_part_lacks_is_a_problem(tmp_path):
    path = tmp_path / "birds.parquet"
    ground = ["sea"] + ["land"] * 79
    pd.DataFrame({"song": np.arange(80.0), "label": ["gull", "wren"] * 40, "ground": ground}).to_parquet(path)
    text = run("check", f"parquet:{path}", "--group-column", "ground", code=1)
    assert "has no example of 1 groups: 'sea'" in text


@pytest.mark.parametrize(("name", "file"), [("folder:/my/birds", "birds"), ("npz:a.npz", "a"), ("hub:me/set", "set")])
def test_the_sheet_of_a_users_own_data(name, file):
    from robustdistill.cli.data import _file_name

    assert _file_name(name) == file


def test_help_shows_examples_that_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "robustdistill data list --root ~/data" in run("list", "--help")
    assert "robustdistill data check digits-lt" in run("check", "--help")
