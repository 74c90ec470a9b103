"""Where a run took place: versions, hardware and code, as every record keeps them."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import robustdistill

# The environment variable that tells a run of a grid how many runs its machine does side by side.
RUNS_HERE = "ROBUSTDISTILL_RUNS_HERE"


def environment(device: str = "cpu") -> dict[str, Any]:
    """Versions, processor, cores, device, git commit of the code where it is a checkout, and the date (UTC)."""
    return {
        "robustdistill": robustdistill.__version__,
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": device,
        "git": _git_commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def cores() -> int:
    """How many cores this process may use; those of the machine where the system does not say, as on macOS."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _processor() -> str:
    """The processor's name, which `platform` does not give on Linux."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.processor() or platform.machine()
    return platform.processor() or platform.machine()


@cache
def _git_commit() -> str | None:
    """The commit of this checkout, with "+" where files differ from it; None for an installed package."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) / "src" / "robustdistill" != folder:
            return None
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None
