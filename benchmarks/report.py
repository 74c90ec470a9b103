"""How long a report of many runs takes, apart for reading the records and for making the page, and how large it gets.

    python benchmarks/report.py --records 10000

The journal is made up: for each of four pairs of architectures, 7 teachers × 12 kinds of students × 3 temperatures ×
repeats, the manner of the paper's figures. Each part is timed in this process, once, from files that are in the page
cache; the ratio printed is to plain `json.loads` of the same files, the least that any reader has to do.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import os
import platform
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from robustdistill.report import page

OBJECTIVES = ("standard", "balanced", "robust", "tradeoff:0.25", "tradeoff:0.5", "tradeoff:0.75", "tradeoff:0.9")
TEMPERATURES = (1.0, 3.0, 5.0)
MODELS = (("resnet56", "resnet56"), ("resnet56", "resnet32"), ("resnet56", "resnet20"), ("resnet32", "resnet32"))
# What one record costs here depends on these two.
CLASSES, EPOCHS = 10, 30


def specs(records: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Specs and repeats, teachers before their students, at least `records` of them where nobody stops."""
    students = [(name, labels) for name in OBJECTIVES for labels in _labels(name)]
    per_repeat = len(OBJECTIVES) * (1 + len(students) * len(TEMPERATURES))
    repeats = math.ceil(records / (per_repeat * len(MODELS)))
    for number, (teacher_model, student_model) in enumerate(MODELS):
        data = {"name": "cifar10-lt", "split_seed": 0, "subset_seed": number, "train": "aa", "val": "bb"}
        for repeat, objective in itertools.product(range(repeats), OBJECTIVES):
            teacher = _spec("teacher", data, teacher_model, objective, repeat, "one-hot", None)
            yield teacher, repeat
            source = {
                "teacher": digest(teacher),
                "teacher_model": teacher_model,
                "teacher_objective": objective,
                "teacher_seed": repeat,
            }
            for (name, labels), temperature in itertools.product(students, TEMPERATURES):
                how = source | {"temperature": temperature, "validation_temperature": temperature}
                yield _spec("student", data, student_model, name, 1000 + repeat, labels, how), repeat


def _labels(objective: str) -> tuple[str, ...]:
    return ("one-hot",) if objective in ("standard", "balanced") else ("teacher", "one-hot")


def _spec(
    role: str, data: dict[str, Any], model: str, objective: str, seed: int, labels: str, how: dict[str, Any] | None
) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "role": role,
        "data": data,
        "model": model,
        "objective": objective,
        "seed": seed,
        "threads": 1,
        "recipe": {"name": "cifar10-lt", "epochs": EPOCHS},
        "validation_labels": labels,
        "distillation": how,
    }


def digest(spec: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:12]


def record(spec: dict[str, Any], repeat: int, classes: int, epochs: int, rng: np.random.Generator) -> dict[str, Any]:
    """A record of the size of a real one."""
    robust = spec["objective"] not in ("standard", "balanced")
    recall = np.clip(np.linspace(0.9, 0.6 if robust else 0.3, classes) + rng.normal(0, 0.02, classes), 0, 1)
    trace = rng.dirichlet(np.full(classes, 50.0), epochs).tolist()
    return {
        "schema": 1,
        "name": digest(spec),
        "hash": digest(spec),
        "spec": spec,
        "metrics": {split: _metrics(rng, recall) for split in ("val", "test")},
        "history": [
            {
                "epoch": epoch + 1,
                "loss": 1 / (epoch + 1),
                "learning_rate": 0.1,
                "worst_class": float(recall.min()) * epoch / epochs,
                "balanced": float(recall.mean()) * epoch / epochs,
                "standard": float(recall.mean()) * epoch / epochs,
                "multipliers": trace[epoch] if robust else None,
                "class_weights": trace[epoch],
                "seconds": 1.234,
            }
            for epoch in range(epochs)
        ],
        "class_names": [f"class {index}" for index in range(classes)],
        "train_counts": [int(5000 * 0.01 ** (index / (classes - 1))) for index in range(classes)],
        "parameters": 855_770 if spec["model"] == "resnet56" else 466_906,
        "seconds": 1000.0,
        "repeat": repeat,
        "command": "robustdistill grid plan.yaml",
        "environment": {"robustdistill": "0.1.0", "torch": "2.13.0", "python": "3.11.7", "cores": 2},
    }


def _metrics(rng: np.random.Generator, recall: np.ndarray) -> dict[str, Any]:
    counts = np.full(len(recall), 500)
    correct = rng.binomial(counts, recall)
    share = correct / counts
    fractions = {"worst_class": share.min(), "balanced": share.mean(), "standard": share.mean()}
    return {"correct": correct.tolist(), "counts": counts.tolist(), **{k: float(v) for k, v in fractions.items()}}


def write_journal(root: Path, records: int, classes: int = CLASSES, epochs: int = EPOCHS) -> Path:
    """Exactly `records` run folders below `root`, in the layout of `journal.write_record`."""
    rng = np.random.default_rng(0)
    for spec, repeat in itertools.islice(specs(records), records):
        content = record(spec, repeat, classes, epochs, rng)
        folder = root / content["name"]
        folder.mkdir(parents=True)
        lines = [f" {json.dumps(key)}: {_text(value)}" for key, value in content.items()]
        (folder / "record.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return root


def _text(value: Any) -> str:
    if isinstance(value, list) and isinstance(value[0], dict):
        return "[\n" + ",\n".join("  " + json.dumps(entry) for entry in value) + "\n ]"
    return json.dumps(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--keep", type=Path, help="an empty or absent folder for the journal and the page")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.keep or Path(temporary)
        if not (root / "runs").is_dir():
            write_journal(root / "runs", options.records, options.classes, options.epochs)
        paths = sorted((root / "runs").rglob("record.json"))
        start = time.perf_counter()
        size = 0
        for path in paths:
            text = path.read_bytes()
            json.loads(text)
            size += len(text)
        plain = time.perf_counter() - start
        start, busy = time.perf_counter(), time.process_time()
        found = page.read(root / "runs")
        scanned = time.perf_counter() - start
        written = page.write_records(found, root / "page")
        total = time.perf_counter() - start
        busy = time.process_time() - busy
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{len(found):,} records, {size / 1e6:,.0f} MB, {options.classes} classes, {options.epochs} epochs")
        print(f"json.loads of all   {plain:6.1f} s")
        print(f"scan                {scanned:6.1f} s  ({scanned / plain:.1f} times json.loads)")
        print(f"page                {total - scanned:6.1f} s")
        print(f"both                {total:6.1f} s on the clock, {busy:.1f} s of one core, {largest:,.0f} MB at most")
        print(f"index.html          {written.stat().st_size / 1e6:6.2f} MB")
        print(f"on {os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}, n = 1")


if __name__ == "__main__":
    main()
