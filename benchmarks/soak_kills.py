"""Processes that are killed at random moments: training, checkpoints, predictions, views, journal, pages.

Each kind of work is done once alone. Then it is begun again and again in new folders by processes that get SIGKILL
after a random time, until they are through, and what is there at the end is compared: weights and tables of predictions
bit by bit; records, with λ, histories and metrics, but for times and dates. A finished run may not be written a second
time. Work is done by forked copies of this process, which has everything imported and the data loaded, except for the
command's, which are new processes with two workers each.

KILLS=220 is how many, SEED=0 when.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import robustdistill as rd
from robustdistill import report
from robustdistill.data.splits import Examples, Preprocessing
from robustdistill.experiments.execute import run_all
from robustdistill.experiments.grid import DataSource, Grid
from robustdistill.experiments.tasks import load_data
from robustdistill.files import sweep
from robustdistill.predictions import Predictions
from robustdistill.training import checkpoint
from soaking import SEED, foot, head, row

KILLS = int(os.environ.get("KILLS", "220"))
LONGEST = 900.0  # Seconds that a process may take: one that takes longer hangs.


def pictures(name: str, count: int, seed: int) -> Examples:
    """16x16 pictures of 5 classes, bright bars in noise, with enough views that a store of them is filled for long."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 5
    inputs = rng.integers(0, 160, (count, 16, 16, 1))
    inputs[np.arange(count), :, 3 * labels + 1] += 90
    names = ("ant", "bee", "cat", "dog", "eel")
    shown = Preprocessing((0.4,), (0.2,), 1, True)
    return Examples(inputs.astype(np.uint8), labels, np.arange(count), names, shown, name, {"name": "bars"})


TRAIN, VAL = pictures("bars/train", 200, 0), pictures("bars/val", 100, 1)
RECIPE = rd.Recipe(epochs=12, batch_size=16, learning_rate=0.05, warmup_epochs=1, milestones=(8,), every=4)
GRID = Grid(
    data=DataSource("digits-lt"), teachers=("convnet-2",), students=("convnet-2",), repeats=1,
    teacher_objectives=("standard", "robust"), student_objectives=("robust",), validation_labels=("one-hot",),
    recipe=rd.Recipe.named("digits-lt").with_(epochs=6, every=8),
)  # fmt: skip


def train(folder: Path) -> None:
    rd.fit("convnet-4", TRAIN, VAL, objective="robust", recipe=RECIPE, out=folder / "run", progress=False)


def distil(folder: Path) -> None:
    teacher = rd.Run.load(TEACHER)
    rd.distill(
        teacher, "convnet-2", TRAIN, VAL, recipe=RECIPE, views=folder / "views", out=folder / "run", progress=False
    )


def grid(folder: Path) -> None:
    outcomes = run_all(GRID.jobs(), folder / "runs")
    assert not any(outcome.error for outcome in outcomes), outcomes


def pages(folder: Path) -> None:
    run = rd.Run.load(TEACHER)
    table = rd.predict(run, VAL)
    for ending in ("csv", "parquet", "npz"):
        table.write(folder / f"val.{ending}")
    rd.PostShift().fit(table).save(folder / "shift.json")
    rd.audit(table).write_html(folder / "audit.html")
    report.write(JOURNAL, folder / "page")
    run.save(folder / "copy")


COMMAND = (
    *("grid", "--epochs", "6", "--repeats", "1", "--teachers", "convnet-2", "--students", "convnet-2"),
    *("--workers", "2", "--quiet", "--out", "grid"),
)


@dataclass
class Work:
    """One kind of work: how it is begun, and the share of the kills that it gets."""

    name: str
    action: Callable[[Path], None] | None
    share: float


KINDS = (
    Work("training and checkpoints", train, 0.35),
    Work("views", distil, 0.22),
    Work("grid: training, predictions, journal", grid, 0.25),
    Work("tables, shift, audit, report, weights", pages, 0.13),
    Work("`robustdistill grid` with 2 workers", None, 0.05),
)


def begin(work: Work, folder: Path) -> Callable[[float | None], int | None]:
    """Starts a process; returns what waits for it, for so many seconds at most, and says how it ended."""
    folder.mkdir(parents=True, exist_ok=True)
    if work.action is None:
        process = subprocess.Popen(
            [sys.executable, "-m", "robustdistill", *COMMAND],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

        def wait(seconds: float | None) -> int | None:
            try:
                return process.wait(seconds if seconds is not None else LONGEST)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                return None if seconds is not None else -1

        return wait
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            checkpoint.CHECKPOINT_SECONDS = 0.0
            work.action(folder)
            code = 0
        finally:
            os._exit(code)

    def reap(seconds: float | None) -> int | None:
        until = time.monotonic() + (seconds if seconds is not None else LONGEST)
        while time.monotonic() < until:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.0005)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return None if seconds is not None else -1

    return reap


def lasting(folder: Path) -> dict[str, Any]:
    """What two folders of the same work have in common."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or "views" in path.parts:
            continue
        if path.name == "record.json":
            found[name] = timeless(json.loads(path.read_text()))
        elif path.suffix == ".npz":
            table = Predictions.read(path)
            found[name] = table.ids.tobytes(), table.scores.tobytes(), table.class_names
        elif path.suffix == ".html":  # with its date; `replacing` has it whole or not at all
            found[name] = path.read_text().rstrip().endswith("</html>")
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    for field in ("seconds", "environment", "command"):
        record.pop(field, None)
    for epoch in record["history"]:
        del epoch["seconds"]
    return record


def finished(folder: Path) -> dict[Path, int]:
    """Runs that are finished, with their test scores where those are wanted, and when each was."""
    wanted = '"test"' if (folder / "runs").exists() or (folder / "grid").exists() else '"metrics"'
    records = [path for path in folder.rglob("record.json") if "copy" not in path.parts]
    return {path: path.stat().st_mtime_ns for path in records if wanted in path.read_text()}


def soak(work: Work, base: Path, kills: int, chance: random.Random) -> Counter[str]:
    """Kills processes of one kind until there were enough; counts what happened."""
    alone = base / "alone"
    began = time.monotonic()
    assert begin(work, alone)(None) == 0, work.name
    whole, wanted = time.monotonic() - began, lasting(alone)
    counts: Counter[str] = Counter(files=len(wanted))
    while counts["kills"] < kills:
        counts["rounds"] += 1
        folder, done = base / f"round {counts['rounds']}", {}
        while True:
            counts["starts"] += 1
            last = counts["kills"] >= kills
            ended = begin(work, folder)(None if last else chance.uniform(0, 0.7 * whole))
            if ended is None:
                counts["kills"] += 1
                counts["half written"] += any(path.is_file() for path in folder.rglob(".*"))
                counts["checkpoints"] += any(folder.rglob("checkpoint.safetensors"))
            elif ended != 0:
                counts["errors"] += 1
                break
            now = finished(folder)
            counts["done twice"] += not done.items() <= now.items()
            done = now
            if ended == 0:
                break
        if work.action is pages:  # nobody owns the folder of pages and tables, where hidden leftovers stay
            counts["left over"] += sweep(folder)
        found = lasting(folder)
        if found != wanted:
            counts["unlike"] += 1
            names = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
            print(f"  unlike: {work.name}: {', '.join(names)}", flush=True)
        shutil.rmtree(folder)
    return counts


def main() -> None:
    head(f"{KILLS} kills at random moments, each work compared with one that was left alone")
    chance, total = random.Random(SEED), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="robustdistill-soak-") as name:
        global TEACHER, JOURNAL
        TEACHER, JOURNAL = Path(name) / "teacher", Path(name) / "journal"
        rd.fit("convnet-4", TRAIN, VAL, recipe=RECIPE, progress=False).save(TEACHER)
        load_data(GRID.data)
        grid(Path(name) / "for the page")
        (Path(name) / "for the page" / "runs").rename(JOURNAL)
        for index, work in enumerate(KINDS):
            share = round(KILLS * work.share) if index else KILLS - sum(round(KILLS * k.share) for k in KINDS[1:])
            counts = soak(work, Path(name) / str(index), share, chance)
            total += counts
            bad = counts["errors"] + counts["unlike"] + counts["done twice"]
            found = (
                f"{counts['kills']} kills of {counts['starts']} processes in {counts['rounds']} rounds;"
                f" {counts['half written']} left a half-written file, {counts['checkpoints']} a checkpoint;"
                f" {counts['files']} files compared: {counts['unlike']} rounds differ,"
                f" {counts['done twice']} runs done twice, {counts['errors']} errors"
            )
            row(work.name, found, good=not bad)
    row("kills in all", str(total["kills"]), good=total["kills"] >= KILLS)
    foot()


TEACHER = JOURNAL = Path()

if __name__ == "__main__":
    main()
