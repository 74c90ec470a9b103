"""Real disks that are full, at many moments, and read-only: small tmpfs mounts, where this machine permits them.

A disk of 4 MB is filled until so many KB are left, and a run, a student with its teacher's views, a grid or a table of
predictions is written there. Either there was room, or what comes is an error of the disk that names a file, and no
half file is read. Then room is made, the same work is done again, and the numbers are those of a disk that never was
full. MOUNTS=off leaves this out.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import robustdistill as rd
from robustdistill.errors import InputError
from robustdistill.experiments.execute import run_all
from robustdistill.experiments.journal import scan
from robustdistill.experiments.tasks import load_data
from robustdistill.training import checkpoint
from soak_kills import GRID, RECIPE, TRAIN, VAL, lasting
from soaking import SEED, foot, head, row

SIZE = 4 * 2**20
LEFT = (0, 4, 8, 12, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 400, 512)  # KB


@contextmanager
def disk(size: int = SIZE) -> Iterator[Path | None]:
    """A disk of that many bytes; None where this process may not mount one."""
    with tempfile.TemporaryDirectory(prefix="robustdistill-disk-") as name:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", name]
        allowed = os.environ.get("MOUNTS") != "off" and shutil.which("mount") is not None
        if not allowed or subprocess.run(command, capture_output=True).returncode:
            yield None
            return
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "-l", name], check=True)


def fill(root: Path, left: int) -> Path:
    """Fills a disk but for `left` bytes; the file that does."""
    path = root / "filler"
    with path.open("wb") as file:
        file.write(b"x" * (shutil.disk_usage(root).free - left))
    return path


def train(root: Path) -> Any:
    return rd.fit("convnet-4", TRAIN, VAL, objective="robust", recipe=RECIPE, out=root / "run", progress=False)


def distil(root: Path, teacher: rd.Run) -> Any:
    return rd.distill(
        teacher, "convnet-2", TRAIN, VAL, recipe=RECIPE, views=root / "views", out=root / "run", progress=False
    )


def grid(root: Path) -> Any:
    outcomes = run_all(GRID.jobs(), root / "runs")
    for outcome in outcomes:
        if outcome.error is not None and not outcome.error.startswith("its teacher"):
            raise OSError(0, outcome.error)
    return outcomes


def tables(root: Path, teacher: rd.Run) -> Any:
    table = rd.predict(teacher, VAL)
    for ending in ("npz", "csv", "parquet"):
        table.write(root / f"val.{ending}")
    rd.PostShift().fit(table).save(root / "shift.json")
    rd.audit(table).write_html(root / "audit.html")
    return table


def tried(root: Path, work: Callable[[Path], Any], counts: Counter[str]) -> None:
    """Does the work on a disk that may be full; counts how it ended."""
    try:
        work(root)
        counts["done"] += 1
    except InputError as error:  # before anything is trained
        counts["refused"] += 1
        _check_clear(error, "No space left" in str(error) or "is the limit there" in str(error), counts)
    except OSError as error:
        counts["failed"] += 1
        _check_clear(error, "No space left on device: '" in str(error), counts)


def _check_clear(error: Exception, clear: bool, counts: Counter[str]) -> None:
    if not clear:
        counts["unclear"] += 1
        print(f"  unclear: {type(error).__name__}: {error}", flush=True)


def soak(name: str, work: Callable[[Path], Any]) -> None:
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        work(Path(folder))
        wanted = lasting(Path(folder))
    for left in LEFT:
        with disk() as root:
            assert root is not None
            filler = fill(root, left * 1024)
            tried(root, work, counts)
            if (root / "runs").exists():
                scan(root / "runs")  # whatever is there can be read, with no warning, or is not there
            filler.unlink()
            work(root)
            counts["unlike"] += lasting(root) != wanted
            counts["left over"] += sum(path.is_file() for path in root.rglob(".*"))
    bad = counts["unclear"] + counts["unlike"] + counts["left over"]
    row(
        f"{name}, {len(LEFT)} fillings of a real disk",
        f"{counts['done']} had room, {counts['failed']} failed and {counts['refused']} were refused,"
        f" {counts['unclear']} with an unclear error; with room again {counts['unlike']} differ,"
        f" {counts['left over']} files are left over",
        good=not bad and counts["done"] < len(LEFT),
    )


def read_only(name: str, work: Callable[[Path], Any]) -> None:
    """The disk is remounted read-only before the work, and writable again after it."""
    with disk() as root:
        assert root is not None
        subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
        try:
            work(root)
            said = "nothing"
        except (InputError, OSError) as error:
            said = str(error)
        subprocess.run(["mount", "-o", "remount,rw", str(root)], check=True)
        left = len(list(root.rglob("*")))
        work(root)
    row(f"{name}, a read-only disk", f"said {said!r}", good="Read-only file system" in said and not left)


def main() -> None:
    head("Full and read-only disks")
    checkpoint.CHECKPOINT_SECONDS = 0.0
    logging.getLogger("robustdistill").setLevel(logging.CRITICAL)
    with disk() as root:
        if root is None:
            print("  left out: this process may not mount a disk of its own", flush=True)
            foot()
    load_data(GRID.data)
    teacher = rd.fit("convnet-4", TRAIN, VAL, recipe=RECIPE, seed=SEED, progress=False)
    works: dict[str, Callable[[Path], Any]] = {
        "a run with checkpoints": train,
        "a student with views": lambda root: distil(root, teacher),
        "a grid": grid,
        "tables, shift, audit": lambda root: tables(root, teacher),
    }
    for name, work in works.items():
        soak(name, work)
        read_only(name, work)
    foot()


if __name__ == "__main__":
    main()
