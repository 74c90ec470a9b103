"""What somebody sees whose disk is full, whose data have gone, or who starts one command twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import robustdistill
from cli.typed import Command
from robustdistill import faults
from robustdistill.lease import LEASE

SMALL = ("--epochs", "2", "--quiet", "--model", "convnet-2")


def test_a_full_disk(command: Command) -> None:
    with faults.injected("ENOSPC:middle:1:record.json"):
        full = command("train", *SMALL)
    assert (full.code, full.out) == (1, "")
    assert "failed: [Errno 28] No space left on device: '" in full.err
    assert "runs/teacher/record.json'; what was finished is kept, and the same command goes on" in full.err
    assert "Traceback" not in full.err
    assert command("train", *SMALL).code == 0


def test_a_folder_that_is_read_only(command: Command) -> None:
    with faults.injected("EROFS:before:1+"):
        refused = command("train", *SMALL)
        assert refused.code == 2
        assert "error: out must be a folder that can be written to, and runs/teacher is not: [Errno 30]" in refused.err
        refused = command("grid", "--epochs", "1", "--repeats", "1", "--quiet")
        assert refused.code == 1
        assert "failed: [Errno 30] Read-only file system: '" in refused.err


def test_predictions_and_pages_on_a_full_disk(command: Command, tmp_path: Path) -> None:
    assert command("train", *SMALL).code == 0
    assert command("predict", "runs/teacher", "--split", "val", "--out", "val.csv").code == 0
    before = (tmp_path / "val.csv").read_bytes()
    for arguments in (
        ("predict", "runs/teacher", "--split", "test", "--out", "val.csv"),
        ("audit", "val.csv", "--out", "audit"),
        ("shift", "fit", "val.csv", "--out", "shift.json"),
        ("report", "runs", "--out", "page"),
        ("export", "runs/teacher", "--safetensors", "student.safetensors"),
    ):
        with faults.injected("ENOSPC:middle:1+"):
            full = command(*arguments)
        assert full.code == 1, full.err
        assert "failed: [Errno 28] No space left on device: '" in full.err
        assert "Traceback" not in full.err
    assert (tmp_path / "val.csv").read_bytes() == before
    left = [path.name for path in tmp_path.rglob("*") if path.is_file() and "runs" not in path.parts]
    assert sorted(left) == ["val.csv"]


def test_data_that_have_gone_before_a_run_is_gone_on_with(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (120, 6, 6)).astype(np.uint8)
    np.savez(tmp_path / "own.npz", train_images=pictures, train_labels=np.arange(120) % 3)
    monkeypatch.setattr("robustdistill.training.checkpoint.CHECKPOINT_SECONDS", -1.0)
    with faults.injected("ENOSPC:before:1:record.json"):
        assert command("train", "--data", "npz:own.npz", "--every", "1", *SMALL).code == 1
    (tmp_path / "own.npz").rename(tmp_path / "away.npz")
    gone = command("train", "--data", "npz:own.npz", "--every", "1", *SMALL)
    assert gone.code == 2
    assert "error: " in gone.err
    assert "own.npz" in gone.err
    assert "Traceback" not in gone.err
    (tmp_path / "away.npz").rename(tmp_path / "own.npz")
    assert command("train", "--data", "npz:own.npz", "--every", "1", *SMALL).code == 0


def test_a_teacher_that_has_gone(command: Command) -> None:
    gone = command("distill", "--teacher", "runs/teacher", *SMALL)
    assert gone.code == 2
    assert "holds no finished run (record.json is missing)" in gone.err


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(robustdistill.__file__).parents[1]), "COLUMNS": "200"}
    command = [sys.executable, "-m", "robustdistill", "train", "--json", "--model", "convnet-2", *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_one_command_twice_at_once(tmp_path: Path) -> None:
    """One trains, the other waits and has the same result; another one that is told the same folder is refused."""
    run = tmp_path / "runs" / "teacher"
    first = started(tmp_path, "--epochs", "40")
    until = time.monotonic() + 60
    while not (run / LEASE).exists() and time.monotonic() < until:
        time.sleep(0.02)
    first.send_signal(signal.SIGSTOP)  # so that the others are here in time
    others = [started(tmp_path, "--epochs", "40"), started(tmp_path, "--epochs", "40", "--seed", "1")]
    for other in others:
        assert other.stderr is not None
        assert "this process waits until that has ended" in other.stderr.readline()
    first.send_signal(signal.SIGCONT)
    (out, _), (same, _), (_, refused) = (process.communicate(timeout=120) for process in (first, *others))
    assert [process.returncode for process in (first, *others)] == [0, 0, 2]
    assert json.loads(out) == json.loads(same)
    assert "already holds another run; they differ in seed 0 -> 1" in refused
    assert sorted(path.name for path in run.iterdir()) == ["model.safetensors", "record.json"]
