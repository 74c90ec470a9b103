from __future__ import annotations

from pathlib import Path

import pytest

from cli.typed import Command, typed


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `robustdistill ARGUMENTS` in an empty folder, `tmp_path`, on a terminal of 200 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return typed(monkeypatch, capsys)
