"""Reading archives that somebody else packed: members by name, never written to disk, never more than is stated.

A zip of a few kilobytes can stand for gigabytes, and a member's name can be a path that leads out of any folder.
Nothing is unpacked here: members are read into memory, of at most so many bytes, and their names are only compared.
"""

from __future__ import annotations

import gzip
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from robustdistill.errors import InputError

LARGEST_MEMBER = 2**28  # bytes of a picture or a list in a zip; the largest list of the published data has 2 MB
LARGEST_UNPACKED = 2**30  # bytes of a whole tar.gz or .gz; CIFAR's have 180 MB
# What an .npz may be larger than it is packed, beyond a size that does no harm: arrays of zeros do not count as data.
_HARMLESS, _HARMLESS_TABLE, _MOST_FOLD = 2**28, 2**30, 100

# What reading a zip raises; RuntimeError where a member is encrypted.
DAMAGED = (zipfile.BadZipFile, OSError, EOFError, KeyError, ValueError, zlib.error, NotImplementedError, RuntimeError)


def read_member(archive: zipfile.ZipFile, name: str, where: Path) -> bytes:
    """The bytes of one member.

    Raises:
        InputError: it says that it is larger than `LARGEST_MEMBER`. What it says is all that is read.
        DAMAGED: whatever `zipfile` raises.
    """
    size = archive.getinfo(name).file_size
    if size > LARGEST_MEMBER:
        raise InputError(f"{where}: {name!r} has {size:,} bytes unpacked, at most {LARGEST_MEMBER:,} are read")
    return archive.read(name)


def tar_members(path: Path, wanted: Mapping[str, str]) -> dict[str, bytes]:
    """The bytes of the wanted members of a tar.gz (name in the archive -> key); those that it lacks are left out.

    Links and devices are not followed, whatever they point to.

    Raises:
        InputError: it is truncated or no tar.gz, or holds more than `LARGEST_UNPACKED` bytes.
    """
    contents: dict[str, bytes] = {}
    try:
        with gzip.open(path) as packed:
            unpacked: Any = _Bounded(packed, path)  # which has all that reading a tar as a stream asks for
            with tarfile.open(fileobj=unpacked, mode="r|") as tar:
                for member in tar:
                    key = wanted.get(member.name.removeprefix("./"))
                    # A sparse member is as large as it says, without a byte in the archive.
                    if key is None or not member.isreg() or member.issparse():
                        continue
                    stream = tar.extractfile(member)
                    assert stream is not None
                    contents[key] = stream.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: truncated, or not a tar.gz archive ({error})") from error
    return contents


def gunzip(path: Path) -> bytes:
    """What a .gz holds.

    Raises:
        InputError: it is truncated or no .gz, or holds more than `LARGEST_UNPACKED` bytes.
    """
    try:
        with gzip.open(path) as packed:
            return _Bounded(packed, path).read(LARGEST_UNPACKED)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: truncated, or not a gzip file ({error})") from error


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Bounded:
    """The head of an unpacked stream, as far as anybody asks; beyond the limit an error."""

    def __init__(self, packed: _Readable, path: Path) -> None:
        self._packed, self._path, self._left = packed, path, LARGEST_UNPACKED

    def read(self, size: int) -> bytes:
        found = self._packed.read(min(size, self._left))
        self._left -= len(found)
        if not self._left and self._packed.read(1):
            raise InputError(f"{self._path}: it holds more than the {LARGEST_UNPACKED:,} bytes that are read unpacked")
        return found


def check_table(rows: int, columns: int, path: Path) -> None:
    """Refuses a table of numbers that is far larger than its file, before it is made: equal values take no room there.

    Raises:
        InputError: of more than 1 GB, over 99 % are not in the file.
    """
    size, packed = 8 * rows * columns, path.stat().st_size
    if size > max(_HARMLESS_TABLE, _MOST_FOLD * packed):
        raise InputError(
            f"{path}: {packed:,} bytes that say they are {rows:,} rows of {columns} columns: a file made to fill the"
            " memory? If the table is yours and means it, write it without dictionaries and compression"
        )


def text_array(values: Sequence[str], what: str) -> npt.NDArray[np.str_]:
    """Texts as an array, whose cells are all as wide as the longest.

    Raises:
        InputError: one is so much longer than the others that it would take over 256 MB, 99 % of them for nothing.
    """
    longest, total = max(map(len, values), default=0), sum(map(len, values))
    if 4 * longest * len(values) > max(_HARMLESS, 4 * _MOST_FOLD * total):
        row = next(row for row, value in enumerate(values) if len(value) == longest)
        raise InputError(
            f"{what}: row {row} has {longest:,} characters, and all {len(values):,} would be given as many"
        )
    return np.array(values, dtype=str)


def check_expansion(archive: np.lib.npyio.NpzFile, where: Path) -> None:
    """Refuses an .npz whose arrays are far larger than what is packed, before any of them is made.

    Raises:
        InputError: of more than 256 MB, over 99 % are not in the file.
    """
    members = [] if archive.zip is None else archive.zip.infolist()
    size = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    if size > max(_HARMLESS, _MOST_FOLD * packed):
        raise InputError(
            f"{where}: {packed:,} bytes that say they unpack to {size:,}: a file made to fill the memory? If the "
            "arrays are yours and mean it, save them with numpy.savez, which packs nothing"
        )


@contextmanager
def damage_named(form: str) -> Iterator[None]:
    """Whatever a library says about a file that is not what its ending promises becomes an InputError.

    Args:
        form: what the file should be, such as "parquet".
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # Arrow, NumPy, zipfile, zlib, json and the codecs have no common base.
        raise InputError(f"not a whole {form} file ({error})") from error
