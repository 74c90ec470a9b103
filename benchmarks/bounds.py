"""What bounds the rows of `make bench` that may fall short: the cheapest operation that they cannot do without."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable
from itertools import repeat
from pathlib import Path

import numpy as np
import torch

from robustdistill.training.rowfile import RowFile
from timing import interleaved, inverse, row


def times(count: int, run: Callable[[], object]) -> Callable[[], object]:
    return lambda: deque((run() for _ in range(count)), maxlen=0)  # results are let go at once


def exponentials() -> None:
    """Of a million float64, which any update of a million multipliers takes, in the fastest form that torch has."""
    array, out = torch.rand(1_000_000, dtype=torch.float64), torch.empty(1_000_000, dtype=torch.float64)
    for name in ("exp2", "exp"):
        one = getattr(torch, name)
        ratios = interleaved(times(20, lambda one=one: one(array, out=out)), times(20, lambda: array.mul_(1.0000001)))
        row(f"`torch.{name}` alone of 1,000,000 float64", "one read-write pass over them", inverse(ratios))


def system_calls() -> None:
    """One for each row, which is what reading without mapping costs whatever is read."""
    rows, width, batch = 200_000, 1000, 1024
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", ".")) as folder:
        path, rng = Path(folder) / "rows", np.random.default_rng(0)
        store = RowFile(path, rows, width)
        words = rng.integers(-(2**15), 0, (20_000, width)).astype(np.int16)
        for start in range(0, rows, len(words)):
            store.write(np.arange(start, start + len(words)), words)
        table, file = np.asarray(np.memmap(path, np.float16, "r", shape=(rows, width))), os.open(path, os.O_RDONLY)
        table.max()  # all of it is mapped
        wanted = rng.integers(0, rows, batch)
        offsets = (wanted * 2 * width).tolist()
        ratios = interleaved(
            times(10, lambda: deque(map(os.pread, repeat(file), repeat(1), offsets), maxlen=0)),
            times(10, lambda: table[wanted]),
        )
        row("reading one byte of each of 1,024 rows, a system call each", "numpy copying them, mapped", inverse(ratios))


if __name__ == "__main__":
    exponentials()
    system_calls()
