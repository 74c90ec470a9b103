"""Tests against the oldest versions that pyproject.toml admits, in a virtual environment of their own, build/oldest:

    python scripts/oldest.py [arguments of pytest]

Every direct requirement is at its lower bound, what these need at its newest. Torch is the exception, at the version of
constraints.txt: its oldest one is published with CUDA only, which is some gigabytes; put `torch==2.9.0` into the
environment by hand to test with it. Warnings are errors, as always.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from lock import CUDA, ROOT, TOOLS, UV, name_of, pins

OLDEST = ROOT / "build" / "oldest"
EXTRAS = (
    "bench",
    "lightning",
    "onnx",
    "ray",
    "test",
    "tracking",
    "transformers",
)  # not docs and lint, which test nothing
LOCKED = "tests/security/test_supply.py::test_what_is_installed_here_needs_nothing_beyond_the_locks"  # not in here


def requirements() -> str:
    """The oldest versions, a line each."""
    if not (TOOLS / "bin" / "uv").exists():
        venv.create(TOOLS, with_pip=True)
        subprocess.run([TOOLS / "bin" / "python", "-m", "pip", "install", "--quiet", UV], check=True)
    torch = f"torch=={pins(ROOT / 'constraints.txt')['torch']}\n"
    with tempfile.TemporaryDirectory() as folder:
        (override := Path(folder) / "override.txt").write_text(torch, encoding="utf-8")
        words = ["pip", "compile", "--quiet", "--no-header", "--no-annotate", "--resolution", "lowest-direct"]
        words += ["--python-version", f"{sys.version_info[0]}.{sys.version_info[1]}", "--override", str(override)]
        words += [word for extra in EXTRAS for word in ("--extra", extra)]
        command = [TOOLS / "bin" / "uv", *words, "pyproject.toml"]
        found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return "".join(line + "\n" for line in found.splitlines() if not CUDA.match(name_of(line.partition("==")[0])))


def main() -> None:
    wanted, stamp = requirements(), OLDEST / "requirements.txt"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        venv.create(OLDEST, with_pip=True, clear=True)
        (OLDEST / "wanted.txt").write_text(wanted, encoding="utf-8")
        pip = [OLDEST / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, "-r", OLDEST / "wanted.txt"], check=True)
        subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--editable", ROOT], check=True)
        (OLDEST / "wanted.txt").rename(stamp)
    command = [OLDEST / "bin" / "python", "-m", "pytest", "--deselect", LOCKED, *sys.argv[1:]]
    raise SystemExit(
        subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False).returncode
    )


if __name__ == "__main__":
    main()
