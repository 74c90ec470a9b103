"""Rows of 16-bit words in one file: written once each, in any order and by any process, and read by random batch.

A file begins as a hole full of zeros, and every word that is written has its highest bit set. So a row is whole where
all its words are negative, and half a row, whatever stopped its writing, is never taken for one: there is no flag whose
order of writing would matter. Whoever writes a row writes the same bytes, so that two who do are no trouble.
"""

from __future__ import annotations

import errno
import mmap
import os
import weakref
from collections import deque
from itertools import repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robustdistill.errors import StaleStoreError

Words = npt.NDArray[np.int16]
Rows = npt.NDArray[np.int64]

MAPPED_BYTES = 2**27  # Larger files are read without mapping them, or reading at random would make all of one resident.


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
        self._mapped: Words | None = None
        if 0 < size <= MAPPED_BYTES:
            mapped = mmap.mmap(self._file, size, prot=mmap.PROT_READ)
            self._mapped = np.frombuffer(mapped, dtype=np.int16).reshape(rows, width)

    def read(self, rows: Rows) -> tuple[Words, npt.NDArray[np.bool_]]:
        """(M, W) the rows (M,) and (M,) whether each is whole; what is not is to be ignored."""
        if self._mapped is not None:
            words = self._mapped.take(rows, axis=0)
        else:
            words = np.empty((len(rows), self.width), dtype=np.int16)
            # A loop in C: the calls themselves are what takes the time.
            deque(map(os.preadv, repeat(self._file), _one_by_one(words), (rows * 2 * self.width).tolist()), maxlen=0)
        return words, np.asarray((words < 0).all(axis=1))

    def write(self, rows: Rows, words: Words) -> None:
        """Writes whole rows (M, W) at `rows` (M,).

        Not through memory: on a full disk that would kill the process, where this raises.

        Raises:
            OSError: the disk is full, or cannot be written to.
        """
        words = np.ascontiguousarray(words)
        for row, part in zip(rows.tolist(), _one_by_one(words), strict=True):
            if os.pwritev(self._file, part, row * 2 * self.width) != 2 * self.width:
                raise OSError(errno.ENOSPC, f"{self.path} could not be written to: is the disk full?")


def _one_by_one(words: Words) -> list[tuple[memoryview]]:
    if not len(words):
        return []
    flat, step = words.data.cast("B"), 2 * words.shape[1]
    return [(flat[start : start + step],) for start in range(0, len(flat), step)]
