"""Large: a journal of 10,000 runs, and 100,000 classes, in bounded memory.

JOURNAL=10000 runs, CLASSES=100000.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import robustdistill as rd
from robustdistill.data.splits import Examples
from robustdistill.experiments import journal
from robustdistill.report import page
from robustdistill.training import checkpoint
from soak_kills import TRAIN, VAL
from soaking import SEED, foot, head, open_files, peak, resident, row

JOURNAL = int(os.environ.get("JOURNAL", "10000"))
CLASSES = int(os.environ.get("CLASSES", "100000"))
JOURNAL_MB = 1000.0  # more than before, while 10,000 records of 30 epochs are read and reported
CLASSES_MB = 4000.0  # more than before; one (N, C) table of 100,000 examples and classes would be 40,000
FEATURES = 24


def measured(action: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a call returns, the seconds that it took, and by how many MB memory was higher at its peak than before."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before, began = resident(), time.perf_counter()
    result = action()
    return result, time.perf_counter() - began, peak() - before


def write_journal(root: Path, count: int) -> None:
    """Records of teachers and students of many seeds, each with a history, as if so many runs had been made."""
    recipe = rd.Recipe(epochs=3, batch_size=32, learning_rate=0.05, warmup_epochs=0, milestones=(), every=2)
    teacher = rd.fit("convnet-2", TRAIN, VAL, recipe=recipe, progress=False)
    run = rd.distill(teacher, "convnet-2", TRAIN, VAL, recipe=recipe, views="off", progress=False)
    for one in (teacher, run):
        one.test = rd.evaluate(one, VAL)
    for index in range(count):
        source = teacher if index % 10 == 0 else run
        objective = ("standard", "balanced", "robust", "tradeoff:0.5")[index % 4]
        record = source.record()
        spec = source.spec.model_copy(update={"seed": index, "objective": objective})
        if spec.distillation is not None:
            changed = {"teacher_seed": index // 10, "temperature": float(1 + index % 3)}
            spec = spec.model_copy(update={"distillation": spec.distillation.model_copy(update=changed)})
        history = [{**epoch, "epoch": place} for place in range(10) for epoch in record["history"]][:30]
        changes = {"hash": spec.hash, "spec": spec.model_dump(mode="json"), "history": history, "repeat": index // 100}
        journal.write_record(root / spec.hash, {**record, **changes, "name": spec.hash})


def soak_journal(root: Path) -> None:
    sync, os.fsync = os.fsync, lambda opened: None  # what is measured is reading
    try:
        write_journal(root, JOURNAL)
    finally:
        os.fsync = sync
    for histories in (False, True):
        records, seconds, memory = measured(lambda with_them=histories: journal.scan(root, histories=with_them))
        row(
            f"scan of {JOURNAL} runs {'with' if histories else 'without'} histories",
            f"{len(records)} records in {seconds:.1f} s, {memory:.0f} MB; at most {JOURNAL_MB:.0f}",
            good=len(records) == JOURNAL and memory <= JOURNAL_MB,
        )
        del records
    records = journal.scan(root, histories=False)
    index, seconds, memory = measured(lambda: page.write_records(records, root.parent / "page"))
    row(
        f"report of {JOURNAL} runs",
        f"{index.stat().st_size / 1e6:.1f} MB of page in {seconds:.0f} s, {memory:.0f} MB; at most {JOURNAL_MB:.0f}",
        good=memory <= JOURNAL_MB,
    )
    table, seconds, memory = measured(lambda: journal.table(records))
    row("its table", f"{len(table)} rows in {seconds:.1f} s, {memory:.0f} MB", good=len(table) == JOURNAL)


def many_classes(name: str, seed: int) -> Examples:
    """One example of each class: a random direction a class, the same in each part, and noise."""
    directions = np.random.default_rng(0).standard_normal((CLASSES, FEATURES), dtype=np.float32)
    noise = np.random.default_rng(seed).standard_normal((CLASSES, FEATURES), dtype=np.float32)
    order = np.random.default_rng(seed).permutation(CLASSES)
    names = tuple(f"class {index}" for index in range(CLASSES))
    inputs = (directions + 0.1 * noise)[order]
    return Examples(inputs, order.astype(np.int64), np.arange(CLASSES), names, name=name, source={"name": "many"})


class Linear(nn.Linear):
    """Features to classes; the teacher's weights are the directions themselves."""

    def __init__(self, scale: float = 0.0) -> None:
        super().__init__(FEATURES, CLASSES)
        if scale:
            directions = np.random.default_rng(0).standard_normal((CLASSES, FEATURES), dtype=np.float32)
            with torch.no_grad():
                self.weight.copy_(scale * torch.from_numpy(directions))
                self.bias.copy_(-scale / 2 * self.weight.pow(2).sum(dim=1) / scale**2)


def soak_classes(root: Path) -> None:
    train, val = many_classes("many/train", 1), many_classes("many/val", 2)
    recipe = rd.Recipe(
        epochs=1,
        batch_size=256,
        learning_rate=0.5,
        warmup_epochs=0,
        milestones=(),
        every=CLASSES // 256 // 2,
        validation_sample=2000,
    )
    settings: dict[str, Any] = {"objective": "robust", "recipe": recipe, "seed": SEED, "progress": False}
    run, seconds, memory = measured(lambda: rd.fit(Linear, train, val, out=root / "run", **settings))
    row(
        f"fit of {CLASSES} classes, one example each",
        f"{run.multipliers.updates} updates of {len(run.multipliers.weights)} multipliers, which sum to"
        f" 1 {float(run.multipliers.weights.sum()) - 1:+.0e}; {seconds:.0f} s, {memory:.0f} MB; at most"
        f" {CLASSES_MB:.0f}",
        good=memory <= CLASSES_MB and bool(run.multipliers.weights.isfinite().all()),
    )
    again = rd.Run.load(root / "run", model=Linear)
    same = torch.equal(again.multipliers.weights, run.multipliers.weights)
    row("it is loaded bit for bit", f"{(root / 'run/record.json').stat().st_size / 1e6:.0f} MB of record", good=same)
    student, seconds, memory = measured(
        lambda: rd.distill(
            Linear(scale=2.0), Linear, train, val, validation_labels="one-hot", temperature=2.0, **settings
        )
    )
    row(
        "distillation of them from a live teacher",
        f"{student.multipliers.updates} updates, {seconds:.0f} s, {memory:.0f} MB; at most {CLASSES_MB:.0f}",
        good=memory <= CLASSES_MB and bool(student.multipliers.weights.isfinite().all()),
    )
    scores, seconds, memory = measured(lambda: rd.evaluate(Linear(scale=2.0), val))
    row(
        "evaluation of the teacher",
        f"balanced {100 * scores.balanced:.1f} % over {len(scores.counts)} classes, {seconds:.0f} s, {memory:.0f} MB",
        good=memory <= CLASSES_MB and scores.balanced > 0.9,
    )


def main() -> None:
    head(f"A journal of {JOURNAL} runs, and {CLASSES} classes")
    checkpoint.CHECKPOINT_SECONDS = 0.0
    logging.getLogger("robustdistill").setLevel(logging.ERROR)
    opened = open_files()
    with tempfile.TemporaryDirectory(prefix="robustdistill-soak-") as name:
        soak_classes(Path(name))
        soak_journal(Path(name) / "runs")
    row("open files", f"{opened} before, {open_files()} after", good=open_files() <= opened)
    foot()


if __name__ == "__main__":
    main()
