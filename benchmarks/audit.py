"""Seconds and peak memory of `robustdistill audit` on 1 million predictions over 100 classes, in parquet. No download.

    python benchmarks/audit.py [--rows 1000000] [--classes 100] [--float64] [--groups 5]

writes a made-up file to a temporary folder, audits it in a process of its own, page included, and prints both figures
against the targets of 20 seconds and 2 GB.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

TARGET_SECONDS, TARGET_GB = 20.0, 2.0
BLOCK = 100_000


def make(path: Path, rows: int, classes: int, wide: bool, groups: int) -> None:
    """Probabilities of a classifier whose classes differ in difficulty, labels as text, ids that are file names."""
    rng = np.random.default_rng(0)
    names = np.array([f"class {index:03d}" for index in range(classes)])
    dtype = np.float64 if wide else np.float32
    schema_writer = None
    for start in range(0, rows, BLOCK):
        size = min(BLOCK, rows - start)
        labels = rng.integers(classes, size=size)
        logits = rng.standard_normal((size, classes), dtype=np.float32)
        logits[np.arange(size), labels] += 1.5 + 2.5 * labels / classes
        weights = np.exp(logits.astype(dtype))
        scores = weights / weights.sum(axis=1, keepdims=True)
        columns = {
            "id": [f"picture-{start + row:07d}.jpg" for row in range(size)],
            "label": names[labels],
            **({"group": rng.integers(groups, size=size).astype(str)} if groups else {}),
            **{f"probability:{name}": scores[:, index] for index, name in enumerate(names)},
        }
        table = pa.table(columns)
        schema_writer = schema_writer or parquet.ParquetWriter(path, table.schema)
        schema_writer.write_table(table)
    if schema_writer is not None:
        schema_writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--float64", action="store_true", help="double precision, as pandas writes it")
    parser.add_argument("--groups", type=int, default=0, help="a group column with so many groups")
    parser.add_argument("--teacher", action="store_true", help="the teacher audit as well")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.parquet"
        make(path, given.rows, given.classes, given.float64, given.groups)
        print(f"{given.rows:,} rows x {given.classes} classes, {path.stat().st_size / 1e6:.0f} MB of parquet")
        command = [sys.executable, "-m", "robustdistill", "audit", str(path), "--out", str(Path(folder) / "audit")]
        begin = time.perf_counter()
        subprocess.run(
            [*command, *(["--teacher"] if given.teacher else [])],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONWARNINGS": "error"},
        )
        seconds = time.perf_counter() - begin
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    gigabytes = used.ru_maxrss * 1024 / 1e9  # Linux counts kilobytes
    print(f"seconds   {seconds:6.1f}   {seconds / TARGET_SECONDS:.2f} of the target of {TARGET_SECONDS:g}")
    print(f"CPU       {used.ru_utime + used.ru_stime:6.1f}   what it takes of one core that nobody else uses")
    print(f"peak GB   {gigabytes:6.2f}   {gigabytes / TARGET_GB:.2f} of the target of {TARGET_GB:g}")


if __name__ == "__main__":
    main()
