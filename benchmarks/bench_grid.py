"""The nine combinations of objectives, three times over, on long-tailed digits: as a grid, and each pipeline alone.

The grid trains each repeat's three teachers once and shares them, and what they say of every view, among nine students:
36 runs, in as many processes of one thread as there are cores. On the other side are 27 pipelines of a teacher and a
student each, 54 runs of the standard loop one after the other in one process. That one has one thread and loads its
pictures itself, which for these small ones is faster than two threads or loading processes.

Epochs are a third of the recipe's, for the table's sake. That is against the grid, whose processes start, and whose
runs are planned and written, however short they are; the standard loop writes nothing.
"""

from __future__ import annotations

import os
import tempfile
from itertools import product
from pathlib import Path

import torch

import robustdistill as rd
import standard
from robustdistill.experiments import execute, executors
from robustdistill.experiments.grid import DataSource, Grid
from timing import interleaved, row

TEACHER, STUDENT, TEMPERATURE, REPEATS = "convnet-16", "convnet-8", 3.0, 3
EPOCHS = int(os.environ.get("EPOCHS", "20"))
OBJECTIVES = ("standard", "balanced", "robust")
recipe = rd.Recipe.named("digits-lt").with_(epochs=EPOCHS)


def grid() -> None:
    jobs = Grid(
        data=DataSource("digits-lt"),
        teachers=[TEACHER],
        students=[STUDENT],
        recipe=recipe,
        validation_labels=("teacher",),
        temperatures=(TEMPERATURE,),
        repeats=REPEATS,
    ).jobs()
    assert len(jobs) == 36
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # where what teachers say is stored: nothing is, to begin with
        local = executors.make("local", execute.default_workers())
        outcomes = execute.run_all(jobs, Path(folder), executor=local)
        assert all(outcome.error is None for outcome in outcomes), outcomes


def pipelines() -> None:
    torch.set_num_threads(1)
    splits = rd.data.load("digits-lt")
    for repeat, (of_teacher, own) in product(range(REPEATS), product(OBJECTIVES, OBJECTIVES)):
        teacher = standard.train(TEACHER, of_teacher, splits, recipe, seed=repeat)
        student = standard.train(
            STUDENT, own, splits, recipe, seed=1000 + repeat, teacher=teacher, temperature=TEMPERATURE
        )
        for model in (teacher, student):
            standard.evaluate(model, splits.test, recipe.batch_size)


if __name__ == "__main__":
    what = f"nine combinations x {REPEATS} on digits-lt, {TEACHER} to {STUDENT}, {EPOCHS} epochs"
    ratios = interleaved(grid, pipelines, rounds=5, warm=False)
    row(what, "27 pipelines of the standard loop, one process", ratios, least=3)
