"""The benchmark that reports the study, on made-up records."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from theory.test_study import runs

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "good_teacher.py"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    spec = importlib.util.spec_from_file_location("good_teacher", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    module.main()


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    root, figures = runs(tmp_path / "runs", repeats=2), tmp_path / "figures"
    run(monkeypatch, str(root), "--draws", "100", "--figures", str(figures))
    page = capsys.readouterr().out
    assert "6 teachers, 6 points" in page
    assert page.count("![") == len(list(figures.glob("*.png"))) == 2
    columns = [line.replace(r"\|", "").count("|") for line in page.splitlines() if line.startswith("| ")]
    assert set(columns) == {5, 9}  # two kinds of tables, no bar within a cell
    for line in page.splitlines():
        if line.startswith("!["):
            assert (figures / line.rpartition("(")[2].rstrip(")")).is_file()


def test_nothing_to_study_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, str(runs(tmp_path, repeats=1, predictions=False)))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "nothing to study" in captured.err
