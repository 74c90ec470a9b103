"""Pictures that stay encoded where they lie: in files, in a zip, or in parquet tables. Decoded when asked for.

Everything here can be sent to worker processes, and none of it imports torch.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import numpy as np
import numpy.typing as npt

from robustdistill.archives import DAMAGED, read_member
from robustdistill.data.pictures import CLEAN_VIEW, centre_crop, decode, random_resized_crop
from robustdistill.data.splits import Examples, IntArray
from robustdistill.environment import cores
from robustdistill.errors import InputError

if TYPE_CHECKING:
    from robustdistill.data.splits import Preprocessing

Fit = Literal["exact", "crop"]
_CHUNK = 1024  # pictures read before they are decoded together: bounds what is held encoded


class Store(Protocol):
    """Where encoded pictures lie, by row."""

    def read(self, rows: IntArray) -> list[tuple[str, bytes]]:
        """(name for messages, encoded bytes) of each of `rows` (M,).

        Raises:
            InputError: it cannot be read.
        """
        ...

    def identity(self, rows: IntArray) -> bytes:
        """Bytes that say which pictures `rows` are, without reading them."""
        ...

    def blocks(self, rows: IntArray) -> IntArray | None:
        """(M,) which rows are read from disk together; None where each is read alone."""
        ...


def texts(names: Sequence[str]) -> npt.NDArray[np.bytes_]:
    """Names as one array: a million of them as Python strings would be copied by every worker that looks at them."""
    return np.array([name.encode() for name in names], dtype=np.bytes_)


@dataclass(frozen=True, eq=False)
class Files:
    """Pictures in files of their own: `names` (N,) are paths below `root`, with / in them."""

    root: Path
    names: npt.NDArray[np.bytes_]

    def read(self, rows: IntArray) -> list[tuple[str, bytes]]:
        found = []
        for name in self.names[rows].tolist():
            path = self.root / name.decode()
            try:
                found.append((str(path), path.read_bytes()))
            except OSError as error:
                raise InputError(f"{path}: cannot be read ({error})") from error
        return found

    def identity(self, rows: IntArray) -> bytes:
        return b"\n".join(self.names[rows].tolist())

    def blocks(self, rows: IntArray) -> IntArray | None:
        return None


@dataclass(eq=False)
class ZipMembers:
    """Pictures in a zip, read straight from it: `names` (N,) are its members."""

    path: Path
    names: npt.NDArray[np.bytes_]
    _opened: tuple[int, zipfile.ZipFile] | None = field(default=None, init=False, repr=False)

    def read(self, rows: IntArray) -> list[tuple[str, bytes]]:
        found = []
        try:
            archive = self._archive()
            for name in self.names[rows].tolist():
                member = name.decode()
                found.append((f"{self.path}: {member}", read_member(archive, member, self.path)))
        except DAMAGED as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{self.path}: damaged zip ({error})") from error
        return found

    def identity(self, rows: IntArray) -> bytes:
        return b"\n".join(self.names[rows].tolist())

    def blocks(self, rows: IntArray) -> IntArray | None:
        return None

    def _archive(self) -> zipfile.ZipFile:
        # A forked worker must not share the file position of the process that it came from.
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), zipfile.ZipFile(self.path))
        return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}


@dataclass(frozen=True, eq=False)
class ParquetRows:
    """Pictures in a column of parquet files, read a row group at a time.

    Attributes:
        files: the parquet files.
        column: of bytes, or of {bytes, path} as `datasets` writes.
        places: (N, 3) file, row group and row in the group of each picture.
    """

    files: tuple[Path, ...]
    column: str
    places: IntArray

    def read(self, rows: IntArray) -> list[tuple[str, bytes]]:
        places = self.places[rows]
        found: list[tuple[str, bytes]] = [("", b"")] * len(rows)
        for file, group in np.unique(places[:, :2], axis=0).tolist():
            positions = np.flatnonzero((places[:, 0] == file) & (places[:, 1] == group))
            cells = self._cells(file, group)
            for position in positions.tolist():
                row = int(places[position, 2])
                name = f"{self.files[file]}: row group {group} row {row}"
                cell = cells[row].as_py()
                content = cell.get("bytes") if isinstance(cell, dict) else cell
                if not isinstance(content, bytes):
                    raise InputError(f"{name}: expected the bytes of a picture, got {type(content).__name__}")
                found[position] = (name, content)
        return found

    def _cells(self, file: int, group: int) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.files[file]) as opened:
                return opened.read_row_group(group, columns=[self.column])[self.column]
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise InputError(f"{self.files[file]}: truncated, or not a parquet file ({error})") from error

    def identity(self, rows: IntArray) -> bytes:
        names = "\n".join(file.name for file in self.files)
        return names.encode() + np.ascontiguousarray(self.places[rows]).tobytes()

    def blocks(self, rows: IntArray) -> IntArray | None:
        _, numbers = np.unique(self.places[rows][:, :2], axis=0, return_inverse=True)
        return numbers.reshape(-1).astype(np.int64)


@dataclass(frozen=True, eq=False)
class EncodedPictures:
    """N pictures of a store, which look like a (N, H, W, 3) uint8 array until somebody wants the pixels.

    Attributes:
        store: where they lie.
        rows: (N,) rows of the store.
        size: (H, W) once decoded.
        fit: how a stored picture gets that size: "exact" refuses any other, "crop" resizes its shorter side to 256/224
            of `size` and cuts the centre.
        crops: K, where each picture has the views 1..K only, drawn from its row and the view; None where every number
            is a view.
    """

    store: Store
    rows: IntArray
    size: tuple[int, int]
    fit: Fit = "exact"
    crops: int | None = None

    dtype = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.rows), *self.size, 3)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, positions: npt.NDArray[np.integer[Any]]) -> EncodedPictures:
        return replace(self, rows=self.rows[positions])

    def pixels(
        self, positions: npt.NDArray[np.integer[Any]], views: Sequence[int] | None = None
    ) -> npt.NDArray[np.uint8]:
        """(M, H, W, 3) the pictures at `positions` (M,): clean, or each in its view (M,).

        A view other than `CLEAN_VIEW` is a random resized crop, mirrored half of the time. Which one, the view decides;
        of `crops` fixed ones the picture's row too, so that equal views of two pictures are no equal cuts.

        Raises:
            InputError: a picture cannot be read, or "exact" ones have another size.
        """
        out = np.empty((len(positions), *self.size, 3), dtype=np.uint8)
        rows = self.rows[positions]
        shown = [CLEAN_VIEW] * len(rows) if views is None else views
        wanted = zip(self.store.read(rows), rows.tolist(), shown, strict=True)
        for index, ((where, content), row, view) in enumerate(wanted):
            out[index] = self._decode(where, content, self._seed(row, view))
        return out

    def _seed(self, row: int, view: int) -> int | list[int] | None:
        """Of the crop that a view is; None where it is the clean one."""
        if view == CLEAN_VIEW:
            return None
        return view if self.crops is None else [row, view]

    def decoded(self) -> npt.NDArray[np.uint8]:
        """(N, H, W, 3) all of them, clean, decoded by one thread for each core.

        Raises:
            InputError: as `pixels`.
        """
        out = np.empty(self.shape, dtype=np.uint8)
        with ThreadPoolExecutor(cores()) as pool:  # Pillow decodes without holding the GIL
            for start in range(0, len(self), _CHUNK):
                read = self.store.read(self.rows[start : start + _CHUNK])
                for index, picture in enumerate(pool.map(self._clean, read)):
                    out[start + index] = picture
        return out

    def _clean(self, named: tuple[str, bytes]) -> npt.NDArray[np.uint8]:
        return self._decode(*named, None)

    def _decode(self, where: str, content: bytes, seed: int | list[int] | None) -> npt.NDArray[np.uint8]:
        picture = decode(content, where)
        if self.fit == "crop":
            picture = centre_crop(picture, self.size) if seed is None else random_resized_crop(picture, self.size, seed)
        if picture.shape[:2] != self.size:
            raise InputError(
                f"{where}: expected a picture of {self.size[0]}x{self.size[1]} pixels, got "
                f"{picture.shape[0]}x{picture.shape[1]}"
            )
        return picture

    def identity(self) -> Iterator[bytes]:
        """What a fingerprint is taken over: which pictures and how they are cut, not their pixels."""
        yield repr((self.shape, self.fit) if self.crops is None else (self.shape, self.fit, self.crops)).encode()
        yield self.store.identity(self.rows)

    def blocks(self) -> IntArray | None:
        """(N,) which pictures are read from disk together; None where each is read alone."""
        return self.store.blocks(self.rows)


@dataclass(frozen=True, eq=False)
class EncodedExamples(Examples):
    """Examples whose pictures are `EncodedPictures`; to everything that only looks at shapes and labels, the same.

    Their fingerprint is over the *places* of the pictures (paths or rows), labels, ids and preprocessing: reading a
    million files to hash them would take longer than an epoch. Pictures changed in place go unnoticed.
    """

    @classmethod
    def of(
        cls,
        pictures: EncodedPictures,
        labels: IntArray | None,
        ids: IntArray,
        class_names: tuple[str, ...],
        preprocessing: Preprocessing,
        name: str,
    ) -> EncodedExamples:
        """Examples around `pictures`."""
        return cls(cast("npt.NDArray[Any]", pictures), labels, ids, class_names, preprocessing, name)

    @property
    def pictures(self) -> EncodedPictures:
        return cast("EncodedPictures", self.inputs)

    def with_crops(self, crops: int | None) -> EncodedExamples:
        """The same examples, of which each has so many fixed crops; None makes them without end."""
        return replace(self, inputs=cast("npt.NDArray[Any]", replace(self.pictures, crops=crops)))

    def decoded(self) -> Examples:
        """The same examples in memory."""
        return Examples(
            self.pictures.decoded(),
            self.labels,
            self.ids,
            self.class_names,
            self.preprocessing,
            self.name,
            self.source,
            self.groups,
            self.group_names,
        )

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over places, labels, ids, class names and preprocessing."""
        digest = hashlib.sha256()
        for part in self.pictures.identity():
            digest.update(part)
        for numbers in (self.labels, self.ids):
            if numbers is not None:
                digest.update(f"{numbers.dtype}{numbers.shape}".encode())
                digest.update(np.ascontiguousarray(numbers).data)
        digest.update(repr((self.class_names, self.preprocessing)).encode())
        digest.update(self.group_identity)
        return digest.hexdigest()[:16]
