"""Random batches of rows from an ImageNet-sized table of a teacher's logits, 2.6 GB on disk.

NumPy's memory map is asked in two ways: as it is, which maps the whole file into the process within a few batches, and
giving its pages back after each batch, which is what keeps it below 300 MB.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path

import numpy as np

from robustdistill.training.rowfile import RowFile
from timing import interleaved, inverse, row

ROWS, CLASSES, BATCH = 1_280_000, 1000, 1024


def resident() -> float:
    """MB of this process that are in memory."""
    return float(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


def peak() -> float:
    return float(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", ".")) as folder:
    path, rng = Path(folder) / "rows", np.random.default_rng(0)
    store = RowFile(path, ROWS, CLASSES)
    words = rng.integers(-(2**15), 0, (20_000, CLASSES)).astype(np.int16)
    for start in range(0, ROWS, len(words)):
        store.write(np.arange(start, start + len(words)), words)
    written = peak()
    order = rng.integers(0, ROWS, BATCH * 50).reshape(50, BATCH)
    turn = iter(range(10**9))

    def ours() -> None:
        for _ in range(10):
            _, whole = store.read(order[next(turn) % 50])
            assert whole.all()

    del words
    Path("/proc/self/clear_refs").write_text("5")
    for _ in range(10):
        ours()
    read = peak()
    file = path.open("rb")
    mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    table = np.frombuffer(mapped, dtype=np.float16).reshape(ROWS, CLASSES)

    def theirs() -> None:
        for _ in range(10):
            table[order[next(turn) % 50]]

    def bounded() -> None:
        for _ in range(10):
            table[order[next(turn) % 50]]
            mapped.madvise(mmap.MADV_DONTNEED)

    what = f"random batch of {BATCH:,} rows, {ROWS:,} x {CLASSES:,} float16"
    row(what, "numpy memmap that gives its pages back", inverse(interleaved(ours, bounded)), most=1.1)
    ratios = inverse(interleaved(ours, theirs))
    row(what, f"numpy memmap as it is ({resident():,.0f} MB resident)", ratios, most=1.1)
    row("resident memory of that, at its peak", f"300 MB (while writing it: {written:.0f} MB)", [read / 300], most=1)
