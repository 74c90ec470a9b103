"""Writes locks/*.txt, from which .venv is installed.

In them is every package at its version in constraints.txt, with the hashes of the files that may be installed. Run
it after a change of constraints.txt or of the requirements in pyproject.toml:

    python scripts/lock.py            # needs uv, which it installs into build/tools
    python scripts/lock.py --check    # asks nothing of the network: exits with 1 where the locks are of other versions

Only wheels for the Pythons and systems that are supported are in them, so that nothing is built, and no code of a
package runs, while it is installed. Three files, because torch comes in builds that need different packages:

    locks/torch.txt   torch alone
    locks/cuda.txt    what torch's CUDA builds need besides
    locks/rest.txt    everything else
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "locks"
TOOLS = ROOT / "build" / "tools"
UV = "uv==0.13.9"

OLDEST = "3.11.5"  # what the documentation's packages need; 3.11.0 to 3.11.4 do without them
PYTHONS = ("py3", "py311", "py312", "py313", "cp311", "cp312", "cp313")
# Files that no public index lists under this name, such as the CPU build of torch.
ALSO = {
    "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl": (
        "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"
    ),
}
CUDA = re.compile(r"^(nvidia-|cuda-|triton$)")

HEADER = """\
# Made by scripts/lock.py from constraints.txt: do not edit. {what}
# Wheels for CPython 3.11 to 3.13 on Linux and macOS.
"""
FILES = {
    "torch.txt": "Torch alone: which of its builds is taken depends on the machine.",
    "cuda.txt": "What torch needs besides where its build is one for CUDA.",
    "rest.txt": "All packages but torch and what its CUDA builds need.",
}


def name_of(text: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", text).lower()


def pins(path: Path) -> dict[str, str]:
    """name -> version, of the lines "name==version"."""
    found = re.findall(r"^([\w.-]+)==([^\s;\\]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {name_of(name): version for name, version in found}


def fits(wheel: str) -> bool:
    """Whether a wheel is for a Python and a system that are supported."""
    pythons, abi, platforms = wheel.removesuffix(".whl").split("-")[-3:]
    stable = abi == "abi3" and all(int(python[3:] or 0) <= 13 for python in pythons.split("."))
    interpreter = stable or any(python in PYTHONS for python in pythons.split("."))
    system = platforms == "any" or re.search(r"manylinux|macosx|(^|\.)linux", platforms) is not None
    return interpreter and not abi.endswith("t") and system


def resolved() -> list[dict[str, Any]]:
    """Every package of all extras, as uv finds them for all supported Pythons and systems at once."""
    if not (TOOLS / "bin" / "uv").exists():
        venv.create(TOOLS, with_pip=True)
        subprocess.run([TOOLS / "bin" / "python", "-m", "pip", "install", "--quiet", UV], check=True)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "pylock.toml"
        words = ["pip", "compile", "--quiet", "--universal", "--python-version", OLDEST, "--extra", "dev"]
        words += ["--constraint", "constraints.txt", "--format", "pylock.toml", "--output-file", str(out)]
        command = [TOOLS / "bin" / "uv", *words, "pyproject.toml"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        packages: list[dict[str, Any]] = tomllib.loads(out.read_text(encoding="utf-8"))["packages"]
    return packages


def lines(package: dict[str, Any]) -> Iterator[str]:
    """The entry of a package: its pin, where it is needed, and a hash for each file that fits."""
    name, version = package["name"], package["version"]
    files = {unquote(urlsplit(wheel["url"]).path.rpartition("/")[2]): wheel for wheel in package.get("wheels", [])}
    hashes = {wheel["hashes"]["sha256"] for file, wheel in files.items() if fits(file)}
    hashes |= {
        digest for file, digest in ALSO.items() if re.match(rf"{re.escape(name)}-{re.escape(version)}[+-]", file)
    }
    if not hashes:
        raise SystemExit(f"{name} {version} has no wheel for the supported Pythons and systems")
    marker = f" ; {package['marker']}" if "marker" in package else ""
    yield " \\\n    ".join([f"{name}=={version}{marker}", *(f"--hash=sha256:{digest}" for digest in sorted(hashes))])


def write() -> None:
    entries: dict[str, list[str]] = {file: [] for file in FILES}
    for package in resolved():
        if "emscripten'" in package.get("marker", "") and "!=" not in package["marker"]:
            continue  # of a browser
        name = package["name"]
        file = "torch.txt" if name == "torch" else "cuda.txt" if CUDA.match(name) else "rest.txt"
        entries[file] += lines(package)
    LOCKS.mkdir(exist_ok=True)
    for file, what in FILES.items():
        (LOCKS / file).write_text(HEADER.format(what=what) + "\n".join(entries[file]) + "\n", encoding="utf-8")
    check()


def check() -> None:
    """Exits with 1 unless the locks have the versions of constraints.txt, all of them and no other but CUDA's."""
    wanted = pins(ROOT / "constraints.txt")
    locked = {name: version for file in ("torch.txt", "rest.txt") for name, version in pins(LOCKS / file).items()}
    differing = sorted(
        f"{name} (constraints.txt {wanted.get(name)}, locks {locked.get(name)})"
        for name in wanted.keys() | locked.keys()
        if wanted.get(name) != locked.get(name)
    )
    if differing:
        raise SystemExit(f"the locks are stale, run scripts/lock.py: {', '.join(differing)}")


if __name__ == "__main__":
    check() if sys.argv[1:] == ["--check"] else write()
