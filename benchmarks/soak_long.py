"""A day of grid work in one process: memory and open files stay as they are.

A day is counted in runs: the committed grids of CIFAR-10-LT (results/) took 179 s a run on average, so that two cores
do about 960 in 24 hours. Here each run is of a tiny problem and takes a moment; all that a run allocates, opens and
starts (data, model, lease and its thread, checkpoints, a store of views, tables, scores) is taken and given back as
often as on that day. After a tenth of the runs, which fills caches, neither memory nor open files may grow.

RUNS=960 is how many.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
from pathlib import Path

import numpy as np

import robustdistill as rd
from robustdistill import report
from robustdistill.experiments.journal import scan
from soak_kills import TRAIN, VAL
from soaking import foot, head, held, open_files, row

RUNS = int(os.environ.get("RUNS", "960"))
SAMPLED = 16  # runs between two looks at the memory
SLOPE = 10.0  # KB a run that memory may grow by; a leaked model of this size alone would be 12 KB, its data 50 KB.
RECIPE = rd.Recipe(epochs=2, batch_size=32, learning_rate=0.05, warmup_epochs=0, milestones=(1,), every=2)


def one(root: Path, index: int) -> None:
    """A run as a grid does it: a teacher or a student of one, saved, loaded, predicted with, evaluated, shifted."""
    folder, objective = root / f"runs/{index}", ("standard", "balanced", "robust", "tradeoff:0.5")[index % 4]
    settings = {"objective": objective, "recipe": RECIPE, "seed": index, "out": folder, "progress": False}
    if index % 3 == 0:
        rd.fit("convnet-4", TRAIN, VAL, **settings)
    else:
        teacher = rd.Run.load(root / f"runs/{index - index % 3}")
        rd.distill(teacher, "convnet-2", TRAIN, VAL, views=root / "views", **settings)
    run = rd.Run.load(folder)
    table = rd.predict(run, VAL)
    table.write(folder / ("val.npz", "val.csv", "val.parquet")[index % 3])
    run.test = rd.evaluate(run, VAL)
    run.save(folder)
    rd.PostShift().fit(table).save(folder / "shift.json")
    rd.audit(table)


def slope(values: list[float]) -> float:
    """By how much values grow from one to the next, by least squares."""
    return float(np.polyfit(np.arange(len(values)), values, 1)[0])


def main() -> None:
    head(f"{RUNS} runs in one process: about {24 * RUNS / 960:.0f} hours of a grid on two cores")
    logging.getLogger("robustdistill").setLevel(logging.ERROR)  # these teachers are bad, and it says so
    memory, files, threads = [], [], []
    with tempfile.TemporaryDirectory(prefix="robustdistill-soak-") as name:
        root = Path(name)
        for index in range(RUNS):
            one(root, index)
            if index % 48 == 47:  # what a grid prints now and then; of few runs, so that each costs the same
                report.write(root / "runs", root / "page")
                for folder in sorted(root.glob("runs/*")):
                    if int(folder.name) <= index - 3:
                        shutil.rmtree(folder)
                shutil.rmtree(root / "views")
            if index % SAMPLED == SAMPLED - 1:
                memory.append(held())
            files.append(float(open_files()))
            threads.append(float(threading.active_count()))
        left = len(scan(root / "runs"))
    start = RUNS // 10
    kept = memory[start // SAMPLED :]
    grown = 1024 * slope(kept) / SAMPLED
    row(
        "resident memory does not grow",
        f"{memory[0]:.1f} MB after {SAMPLED} runs, {kept[0]:.1f} MB after {start}, {kept[-1]:.1f} MB after {RUNS}"
        f" (at most {max(kept):.1f}): {grown:+.2f} KB a run; at most {SLOPE:g}",
        good=grown <= SLOPE,
    )
    opened = files[start:]
    row(
        "open files do not grow",
        f"{min(opened):.0f} to {max(opened):.0f}, {slope(opened):+.5f} a run",
        good=max(opened) - min(opened) <= 2 and opened[-1] <= opened[0],
    )
    row("no threads are left", f"{max(threads):.0f} at most", good=max(threads) == threads[0])
    row("runs that are left are read", str(left), good=left > 0)
    foot()


if __name__ == "__main__":
    main()
