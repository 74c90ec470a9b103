"""Rows of 16-bit words in one file: written once each, in any order and by any process, and read by random batch.

A file begins as a hole full of zeros, and every word that is written has its highest bit set. So a row is whole where
all its words are negative, and half a row, whatever stopped its writing, is never taken for one: there is no flag whose
order of writing would matter. Whoever writes a row writes the same bytes, so that two who do are no trouble.

The file is never mapped into memory. To read a hole through a map takes room on some file systems (tmpfs), and where
there is none, or the disk fails, or somebody cuts the file short, the process is killed by a signal; calls raise.
"""

from __future__ import annotations

import errno
import os
import weakref
from itertools import repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robustdistill import faults
from robustdistill.errors import StaleStoreError

Words = npt.NDArray[np.int16]
Rows = npt.NDArray[np.int64]

MEMORY_BYTES = 2**27  # Rows of smaller files are kept in memory once they were read or written.


class RowFile:
    """`rows` rows of `width` words; takes no more of the disk than what was written.

    Args:
        path: of the file; made where there is none.
        rows: R.
        width: W, words in a row.

    Raises:
        StaleStoreError: the file has another size.
        OSError: it cannot be opened, or made.
    """

    def __init__(self, path: Path, rows: int, width: int) -> None:
        self.path, self.rows, self.width = path, rows, width
        size = 2 * rows * width
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        weakref.finalize(self, os.close, self._file)
        found = os.fstat(self._file).st_size
        if found == 0:
            os.truncate(self._file, size)
        elif found != size:
            raise StaleStoreError(f"{path} has {found} bytes and should have {size}: delete it, and it is made anew")
        # Zeros of which the system gives room to those rows alone that are set.
        self._known: Words | None = np.zeros((rows, width), dtype=np.int16) if size <= MEMORY_BYTES else None

    def read(self, rows: Rows) -> tuple[Words, npt.NDArray[np.bool_]]:
        """(M, W) the rows (M,) and (M,) whether each is whole; what is not is to be ignored.

        Raises:
            OSError: the file cannot be read.
        """
        if self._known is None:
            words = self._from_file(rows)
            return words, _whole(words)
        words = self._known.take(rows, axis=0)
        whole = _whole(words)
        if not whole.all():
            missing = (~whole).nonzero()[0]
            words[missing] = found = self._from_file(rows[missing])
            whole[missing] = there = _whole(found)
            self._known[rows[missing[there]]] = found[there]
        return words, whole

    def _from_file(self, rows: Rows) -> Words:
        words = np.empty((len(rows), self.width), dtype=np.int16)
        # A loop in C: the calls themselves are what takes the time.
        offsets = (rows * 2 * self.width).tolist()
        if sum(map(os.preadv, repeat(self._file), _one_by_one(words), offsets)) != words.nbytes:
            words[:] = 0  # Somebody has cut the file short: what is left of it is whole rows, one by one.
            for offset, part in zip(offsets, _one_by_one(words), strict=True):
                os.preadv(self._file, part, offset)
        return words

    def write(self, rows: Rows, words: Words) -> None:
        """Writes whole rows (M, W) at `rows` (M,).

        Raises:
            OSError: the disk is full, or cannot be written to.
        """
        words = np.ascontiguousarray(words)
        parts = list(zip(rows.tolist(), _one_by_one(words), strict=True))
        faults.reach("before", self.path)
        faults.reach("middle", self.path, lambda: self._tear(parts))
        for row, part in parts:
            if os.pwritev(self._file, part, row * 2 * self.width) != 2 * self.width:
                raise OSError(errno.ENOSPC, f"{self.path} could not be written to: is the disk full?")
        faults.reach("whole", self.path)
        if self._known is not None:
            self._known[rows] = words
        faults.reach("after", self.path)

    def _tear(self, parts: list[tuple[int, tuple[memoryview]]]) -> None:
        """Leaves half of the bytes of a write, the last of them half a row."""
        half = len(parts) // 2
        for row, (part,) in parts[:half]:
            os.pwrite(self._file, part, row * 2 * self.width)
        for row, (part,) in parts[half : half + 1]:
            os.pwrite(self._file, part[: self.width], row * 2 * self.width)


def _whole(words: Words) -> npt.NDArray[np.bool_]:
    return np.asarray((words < 0).all(axis=1))


def _one_by_one(words: Words) -> list[tuple[memoryview]]:
    if not len(words):
        return []
    flat, step = words.data.cast("B"), 2 * words.shape[1]
    return [(flat[start : start + step],) for start in range(0, len(flat), step)]
