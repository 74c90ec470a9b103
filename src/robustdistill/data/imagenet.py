"""Readers of TinyImageNet and ImageNet. They list pictures; decoding is left to `encoded`.

Classes are WordNet ids, sorted, and the pictures of a class are sorted by file name, so that ids are the rows that the
usual folder loaders number in the same way.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from robustdistill.archives import DAMAGED, read_member
from robustdistill.data.encoded import EncodedPictures, Files, Fit, ParquetRows, Store, ZipMembers, texts
from robustdistill.data.formats import Options, Part, Source, check_md5
from robustdistill.data.pictures import SUFFIXES
from robustdistill.data.splits import IntArray
from robustdistill.data.tables import hub_class_names
from robustdistill.errors import InputError

TINY_FOLDER, TINY_ZIP = "tiny-imagenet-200", "tiny-imagenet-200.zip"
TINY_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
TINY_SIZE = (64, 64)
TINY_COUNTS = (200, 500, 50)  # classes; training and validation pictures of each
IMAGENET_FOLDERS = ("imagenet", "ImageNet", "ILSVRC2012")
IMAGENET_SIZE = (224, 224)
IMAGENET_COUNTS = (1000, 1_281_167, 50_000)  # classes, training and validation pictures


class Tree(Protocol):
    """Files by relative path, in a folder or a zip."""

    where: Path

    def files(self, folder: str) -> list[str]:
        """The names, sorted, of the files in `folder`; none where there is no such folder."""
        ...

    def text(self, name: str) -> str | None:
        """What a text file says; None where there is none."""
        ...

    def store(self, names: list[str]) -> Store:
        """The pictures of these paths."""
        ...


class FolderTree:
    def __init__(self, where: Path) -> None:
        self.where = where

    def files(self, folder: str) -> list[str]:
        path = self.where / folder
        if not path.is_dir():
            return []
        with os.scandir(path) as entries:  # a million files: one look at each folder, none at each file
            return sorted(entry.name for entry in entries if not entry.name.startswith("."))

    def text(self, name: str) -> str | None:
        path = self.where / name
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None

    def store(self, names: list[str]) -> Store:
        return Files(self.where, texts(names))


class ZipTree:
    def __init__(self, where: Path, prefix: str) -> None:
        self.where, self._prefix = where, prefix
        self._folders: dict[str, list[str]] = {}
        try:
            with zipfile.ZipFile(where) as archive:
                members = [name for name in archive.namelist() if name.startswith(prefix) and not name.endswith("/")]
        except DAMAGED as error:
            raise InputError(f"{where}: truncated, or not a zip file ({error})") from error
        for member in members:
            folder, _, name = member.removeprefix(prefix).rpartition("/")
            self._folders.setdefault(folder, []).append(name)

    def files(self, folder: str) -> list[str]:
        return sorted(self._folders.get(folder, []))

    def text(self, name: str) -> str | None:
        folder, _, file = name.rpartition("/")
        if file not in self._folders.get(folder, []):
            return None
        member = self._prefix + name
        try:
            with zipfile.ZipFile(self.where) as archive:
                return read_member(archive, member, self.where).decode("utf-8", errors="replace")
        except DAMAGED as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{self.where}: {member} is damaged ({error})") from error

    def store(self, names: list[str]) -> Store:
        return ZipMembers(self.where, texts([self._prefix + name for name in names]))


def read_tinyimagenet(root: Path, options: Options) -> Source:
    """TinyImageNet from the folder `tiny-imagenet-200` or its zip under `root`, read straight from the zip.

    The official *validation* pictures are the held-out part (the test pictures have no labels): they lie in one folder,
    and `val_annotations.txt` says what is on them. `verify` checks the zip by its published md5; of a folder, which has
    no published sum, it checks the numbers of classes and pictures.
    """
    folder, archive = root / TINY_FOLDER, root / TINY_ZIP
    if folder.is_dir():
        tree: Tree = FolderTree(folder)
    else:
        if options.verify:
            check_md5(archive, archive, TINY_MD5)
        tree = ZipTree(archive, f"{TINY_FOLDER}/")
    wnids = sorted((tree.text("wnids.txt") or "").split())
    if not wnids:
        raise InputError(f"{tree.where}: expected wnids.txt in it with a WordNet id on each line")
    if strange := [wnid for wnid in wnids if not re.fullmatch(r"\w[\w.-]{,63}", wnid)]:  # a path would lead elsewhere
        raise InputError(f"{tree.where}: wnids.txt must hold WordNet ids such as n01443537, got {strange[0][:80]!r}")
    train = [
        (f"train/{wnid}/images/{name}", j)
        for j, wnid in enumerate(wnids)
        for name in _pictures(tree.files(f"train/{wnid}/images"))
    ]
    val = _tiny_validation(tree, {wnid: j for j, wnid in enumerate(wnids)})
    if options.verify:
        _check_tiny_counts(tree, wnids, train, val)
    return Source(
        class_names=_class_names(wnids, tree.text("words.txt") or ""),
        train=_part(tree, train, TINY_SIZE, "exact"),
        val=_part(tree, val, TINY_SIZE, "exact"),
    )


def _tiny_validation(tree: Tree, classes: Mapping[str, int]) -> list[tuple[str, int]]:
    annotations = tree.text("val/val_annotations.txt")
    if annotations is None:
        raise InputError(f"{tree.where}: expected val/val_annotations.txt, which says what is on val/images/*.JPEG")
    present = set(tree.files("val/images"))
    found = []
    for number, line in enumerate(annotations.splitlines(), start=1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        where = f"{tree.where}: val/val_annotations.txt line {number}"
        if wnid not in classes:
            raise InputError(f"{where}: expected 'FILE<tab>WNID<tab>...' with an id of wnids.txt, got {line!r}")
        if name not in present:
            raise InputError(f"{where}: val/images has no {name!r}")
        found.append((f"val/images/{name}", classes[wnid]))
    return found


def _check_tiny_counts(tree: Tree, wnids: list[str], train: list[tuple[str, int]], val: list[tuple[str, int]]) -> None:
    classes, *each = TINY_COUNTS
    if len(wnids) != classes:
        raise InputError(
            f"{tree.where}: the published data have {classes} classes, this copy {len(wnids)}. "
            "Read it as it is with --no-verify (verify=False)"
        )
    for part, expected, pairs in (("train", each[0], train), ("val", each[1], val)):
        counts = np.bincount([j for _, j in pairs], minlength=classes)
        for j in np.flatnonzero(counts != expected)[:1].tolist():
            raise InputError(
                f"{tree.where}: the published data have {expected} pictures of each class in {part}, this copy "
                f"{counts[j]} of {wnids[j]}. Read it as it is with --no-verify (verify=False)"
            )


def _class_names(wnids: list[str], words: str) -> tuple[str, ...]:
    """The first English word of each id ("goldfish"); the id itself where there is none or two ids share it."""
    meanings = dict(line.split("\t", 1) for line in words.splitlines() if "\t" in line)
    names = [meanings.get(wnid, wnid).partition(",")[0].strip() or wnid for wnid in wnids]
    shared = Counter(names)
    return tuple(f"{name} ({wnid})" if shared[name] > 1 else name for name, wnid in zip(names, wnids, strict=True))


def read_imagenet(root: Path, options: Options) -> Source:
    """ImageNet (ILSVRC 2012) under `root`: class folders, or the parquet files of the Hugging Face hub.

    Class folders are `train/WNID/*.JPEG` and `val/WNID/*.JPEG`; parquet files are `train-*.parquet` and
    `validation-*.parquet`, in the folder or its `data/`. The official validation pictures are the held-out part.
    Nothing is decoded yet, and `verify` checks the numbers of classes and pictures: there is no published sum of these
    layouts.
    """
    folder = imagenet_folder(root)
    source = list_imagenet(folder, options)
    if options.verify:
        check_imagenet_counts(folder, source)
    return source


def list_imagenet(folder: Path, options: Options) -> Source:
    """Either layout of ImageNet as it lies in `folder`, whatever its counts."""
    return _imagenet_parquet(folder, options) if _shards(folder, "train") else _imagenet_tree(folder, options)


def imagenet_folder(root: Path) -> Path:
    """The folder of ImageNet below `root`."""
    for name in IMAGENET_FOLDERS:
        if (root / name).is_dir():
            return root / name
    raise InputError(f"{root}: expected the folder {' or '.join(map(repr, IMAGENET_FOLDERS))} in it")


def _imagenet_tree(folder: Path, options: Options) -> Source:
    tree = FolderTree(folder)
    wnids = [name for name in tree.files("train") if (folder / "train" / name).is_dir()]
    if not wnids:
        raise InputError(f"{folder}: expected train/WNID/*.JPEG and val/WNID/*.JPEG, or train-*.parquet, in it")
    if not any((folder / "val" / wnid).is_dir() for wnid in wnids):
        raise InputError(
            f"{folder / 'val'}: expected a folder for each class, as in train; the official archive holds all pictures "
            "in one folder and has to be sorted into classes first"
        )
    size = options.image_size or IMAGENET_SIZE
    parts = [
        _part(
            tree,
            [
                (f"{part}/{wnid}/{name}", j)
                for j, wnid in enumerate(wnids)
                for name in _pictures(tree.files(f"{part}/{wnid}"))
            ],
            size,
            "crop",
        )
        for part in ("train", "val")
    ]
    return Source(tuple(wnids), train=parts[0], val=parts[1])


def _shards(folder: Path, part: str) -> list[Path]:
    return sorted(folder.glob(f"{part}*.parquet")) or sorted((folder / "data").glob(f"{part}*.parquet"))


def _imagenet_parquet(folder: Path, options: Options) -> Source:
    found = {part: _shards(folder, part) for part in ("train", "val")}
    if not found["val"]:
        raise InputError(f"{folder}: expected validation-*.parquet beside train-*.parquet")
    names: tuple[str, ...] = ()
    parts, size = {}, options.image_size or IMAGENET_SIZE
    for part, files in found.items():
        places, labels, noted = _parquet_places(files)
        names = names or noted
        store = ParquetRows(tuple(files), "image", places)
        pictures = EncodedPictures(store, np.arange(len(places), dtype=np.int64), size, "crop")
        parts[part] = Part(pictures, labels)
    highest = max(int(part.labels.max(initial=-1)) for part in parts.values() if part.labels is not None)
    return Source(names or tuple(str(j) for j in range(highest + 1)), train=parts["train"], val=parts["val"])


def _parquet_places(files: list[Path]) -> tuple[IntArray, IntArray, tuple[str, ...]]:
    """Where each row is (N, 3), its label (N,), and the class names where `datasets` noted them. Reads no picture."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    places, labels = [], []
    names: tuple[str, ...] = ()
    for index, path in enumerate(files):
        try:
            with pq.ParquetFile(path) as opened:
                schema = opened.schema_arrow
                missing = [column for column in ("image", "label") if column not in schema.names]
                if missing:
                    raise InputError(f"{path}: expected the columns 'image' and 'label', got {', '.join(schema.names)}")
                sizes = [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]
                values: Any = opened.read(columns=["label"])["label"].to_numpy()
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: truncated, or not a parquet file ({error})") from error
        if values.dtype.kind not in "iu":
            raise InputError(f"{path}: labels must be integers without gaps, got {values.dtype}")
        names = names or hub_class_names(schema).get("label", ())
        labels.append(values.astype(np.int64))
        for group, rows in enumerate(sizes):
            places.append(np.stack([np.full(rows, index), np.full(rows, group), np.arange(rows)], axis=1))
    return np.concatenate(places).astype(np.int64), np.concatenate(labels), names


def check_imagenet_counts(folder: Path, source: Source, *, train: bool = True) -> None:
    """Refuses another number of classes or pictures than the published one, of training pictures only if `train`."""
    classes, *counts = IMAGENET_COUNTS
    found = [("classes", classes, len(source.class_names))]
    for name, expected, part in zip(("training", "validation"), counts, (source.train, source.val), strict=True):
        if part is not None and (train or name != "training"):
            found.append((f"{name} pictures", expected, len(part.inputs)))
    for what, expected, got in found:
        if expected != got:
            raise InputError(
                f"{folder}: the published data have {expected:,} {what}, this copy {got:,}. "
                "Read it as it is with --no-verify (verify=False)"
            )


def _pictures(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.lower().endswith(SUFFIXES)]


def _part(tree: Tree, pairs: list[tuple[str, int]], size: tuple[int, int], fit: Fit) -> Part:
    if not pairs:
        raise InputError(f"{tree.where}: expected pictures in train/ and val/, found none")
    store = tree.store([name for name, _ in pairs])
    labels = np.array([j for _, j in pairs], dtype=np.int64)
    return Part(EncodedPictures(store, np.arange(len(pairs), dtype=np.int64), size, fit), labels)
