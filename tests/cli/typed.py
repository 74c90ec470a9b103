"""The command as a user types it, run in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from robustdistill import cli


class Result(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Result]


def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """A function that runs `robustdistill ARGUMENTS`; what was printed before it does not count."""

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["robustdistill", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return Result(int(stopped.value.code or 0), captured.out, captured.err)

    return run
