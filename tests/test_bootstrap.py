"""What scripts/bootstrap.sh says where it cannot set up .venv. That it can is shown by these tests running at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with what the script reads, and a folder `bin` of programs that has no Python."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "locks").mkdir()
    for name in (
        "scripts/bootstrap.sh",
        "pyproject.toml",
        *(f"locks/{part}.txt" for part in ("torch", "cuda", "rest")),
    ):
        shutil.copy(ROOT / name, tmp_path / name)
    for tool in ("sh", "dirname", "cat", "rm", "mkdir", "tail", "mv"):
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    return tmp_path


def fake_python(checkout: Path, name: str, script: str) -> Path:
    path = checkout / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def bootstrap(checkout: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(checkout / "bin"), "HOME": str(checkout), **variables}
    script = checkout / "scripts" / "bootstrap.sh"
    return subprocess.run(["sh", script], env=environment, capture_output=True, text=True, check=False, cwd="/")


OLD = 'case "$2" in *print*) echo 3.9;; *) exit 1;; esac'


def test_no_python(checkout: Path) -> None:
    done = bootstrap(checkout)
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed; found none." in done.stderr
    assert "apt-get install python3 python3-venv" in done.stderr
    assert not (checkout / ".venv").exists()


def test_only_an_old_python(checkout: Path) -> None:
    old = fake_python(checkout, "python3", OLD)
    done = bootstrap(checkout)
    assert done.returncode == 1
    assert f"found 3.9 at {old}." in done.stderr


def test_a_broken_python_counts_as_none(checkout: Path) -> None:
    fake_python(checkout, "python3", "exit 127")
    assert "found none." in bootstrap(checkout).stderr


def test_a_named_python_that_is_too_old_is_not_replaced_by_another(checkout: Path) -> None:
    old = fake_python(checkout, "python9", OLD)
    fake_python(checkout, "python3", f'exec "{sys.executable}" "$@"')
    done = bootstrap(checkout, PYTHON=str(old))
    assert done.returncode == 1
    assert f"found 3.9 at {old} (PYTHON={old})." in done.stderr


def test_a_python_without_venv(checkout: Path) -> None:
    script = f'case "$2" in *ensurepip*) exit 1;; *) exec "{sys.executable}" "$@";; esac'
    fake_python(checkout, "python3", script)
    done = bootstrap(checkout)
    assert done.returncode == 1
    assert "its venv or ensurepip module is missing" in done.stderr
    assert "apt-get install python3-venv" in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_venv_made_by_somebody_else_is_left_alone(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "mine").touch()
    done = bootstrap(checkout)
    assert done.returncode == 1
    assert "left alone" in done.stderr
    assert (checkout / ".venv" / "mine").exists()


def test_a_failed_installation_shows_why_and_is_begun_anew(checkout: Path) -> None:
    (checkout / "locks" / "torch.txt").write_text(f"torch==0.0.0 --hash=sha256:{'0' * 64}\n")
    fake_python(checkout, "python3", f'exec "{sys.executable}" "$@"')
    offline = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    first = bootstrap(checkout, **offline)
    assert first.returncode == 1
    assert "ERROR: Cannot install torch" in first.stderr or "No matching distribution found for torch" in first.stderr
    assert "the whole output is in .venv/bootstrap.log" in first.stderr
    (checkout / ".venv" / "half").touch()
    second = bootstrap(checkout, **offline)
    assert ".venv is incomplete: making it anew." in second.stdout
    assert not (checkout / ".venv" / "half").exists()
