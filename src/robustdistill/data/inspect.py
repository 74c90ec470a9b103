"""What data are there, and whether they are what they should be; a contact sheet to see them by eye. No torch."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustdistill.data.catalog import CATALOG, default_root
from robustdistill.data.encoded import EncodedExamples
from robustdistill.data.loading import load
from robustdistill.data.splits import Examples, Splits, subset_hash
from robustdistill.errors import InputError
from robustdistill.files import replacing

SHEET_CLASSES, SHEET_PICTURES = 20, 10
_CELL, _GAP, _LABEL = 64, 4, 190  # pixels of the contact sheet


@dataclass(frozen=True)
class Listed:
    """One data set of the catalogue and whether it is there.

    Attributes:
        name: what `load` takes.
        found: where its files lie, or "embedded"; None where they are missing.
        classes: the number of classes.
        shape: (height, width, channels) of a picture.
        train: the number of training examples.
        held_out: the number of examples that become validation and test.
        ratio: of the long tail, 1 for none; None where a published list makes the tail.
        page: where to download it; empty where nothing is to be downloaded.
    """

    name: str
    found: str | None
    classes: int
    shape: tuple[int, int, int]
    train: int
    held_out: int
    ratio: float | None
    page: str


@dataclass(frozen=True)
class SplitFacts:
    """One split: its size, the size of each class and of each group, and the hashes that runs record.

    `group_sizes` is empty where there is no group column, `class_sizes` where there are no labels.
    """

    examples: int
    class_sizes: dict[str, int]
    subset: str
    fingerprint: str
    group_sizes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Checked:
    """What `check` found.

    Attributes:
        name: of the data set.
        shape: of one example as it is stored, or streamed.
        dtype: uint8 for pictures, float32 for features.
        splits: "train", "val" and "test".
        disjoint: whether validation and test share no example.
        repeated: the number of pictures of the second split that are byte for byte in the first, for "train/val",
            "train/test" and "val/test"; None where pictures are streamed and none was read.
        problems: what is not as it should be, in words; empty where all is well.
        sheet: the contact sheet, or None for features.
        resize: (height, width) that pictures are resized to on the device; None for the size that they have.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    splits: dict[str, SplitFacts]
    disjoint: bool
    repeated: dict[str, int] | None
    problems: list[str] = field(default_factory=list)
    sheet: str | None = None
    resize: tuple[int, int] | None = None

    def as_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def listing(root: str | os.PathLike[str] | None = None) -> list[Listed]:
    """Every data set of the catalogue; `root` as `load` takes it. Files are looked for, not opened."""
    folder = default_root(root)
    listed = []
    for entry in CATALOG.values():
        places = [folder / name for name in entry.files if (folder / name).exists()]
        found = str(places[0]) if places else None if entry.files else "embedded"
        ratio = None if entry.name == "imagenet-lt" else entry.ratio
        listed.append(
            Listed(entry.name, found, entry.classes, entry.shape, entry.train, entry.held_out, ratio, entry.page)
        )
    return listed


def check(
    name: str, root: str | os.PathLike[str] | None = None, out: str | os.PathLike[str] | None = None, **arguments: Any
) -> Checked:
    """Loads a data set and looks whether it is whole: counts, class sizes, hashes, and that its splits are disjoint.

    Args:
        name: as `load` takes it.
        root: likewise.
        out: the contact sheet to write, a PNG: ten training pictures of each class, of 20 classes from the first to the
            last where there are more. None writes none, and neither do features.
        arguments: further ones of `load`, such as split_seed, ratio or verify.

    Raises:
        InputError: as `load`, or `out` does not end in .png.
    """
    if out is not None and Path(out).suffix.lower() != ".png":
        raise InputError(f"out must end in .png, got {str(out)!r}")
    data = load(name, root, **arguments)
    parts = {"train": data.train, "val": data.val, "test": data.test}
    disjoint = _disjoint(data.val, data.test)
    sheet = None
    if out is not None and data.train.inputs.dtype == np.uint8:
        sheet = str(write_sheet(data.train, Path(out)))
    return Checked(
        name=name,
        shape=tuple(data.train.inputs.shape[1:]),
        dtype=str(data.train.inputs.dtype),
        splits={split: _facts(part) for split, part in parts.items()},
        disjoint=disjoint,
        repeated=_repeated(parts),
        problems=_problems(name, data, disjoint, usual=not arguments.keys() & {"ratio", "profile", "val"}),
        sheet=sheet,
        resize=data.train.preprocessing.resize,
    )


def _facts(part: Examples) -> SplitFacts:
    sizes = {}
    if part.labels is not None:
        sizes = dict(zip(part.class_names, part.class_counts.tolist(), strict=True))
    groups = {}
    if part.groups is not None:
        counts = np.bincount(part.groups, minlength=len(part.group_names))
        groups = dict(zip(part.group_names, counts.tolist(), strict=True))
    return SplitFacts(len(part), sizes, subset_hash(part.ids), part.fingerprint, groups)


def _disjoint(val: Examples, test: Examples) -> bool:
    """Whether no example is in both. Parts that a source keeps apart each number their own rows from 0."""
    apart = all(np.array_equal(part.ids, np.arange(len(part))) for part in (val, test))
    return apart or not np.intersect1d(val.ids, test.ids).size


def _repeated(parts: dict[str, Examples]) -> dict[str, int] | None:
    if any(isinstance(part, EncodedExamples) for part in parts.values()):
        return None
    digests = {name: [_digest(row) for row in part.inputs] for name, part in parts.items()}
    pairs = (("train", "val"), ("train", "test"), ("val", "test"))
    return {f"{a}/{b}": len([d for d in digests[b] if d in known]) for a, b in pairs for known in [set(digests[a])]}


def _digest(row: npt.NDArray[Any]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=16).digest()


def _problems(name: str, data: Splits, disjoint: bool, *, usual: bool) -> list[str]:
    problems = [] if disjoint else ["validation and test share examples"]
    for part in (data.val, data.test):
        if part.labels is not None:
            missing = np.flatnonzero(part.class_counts == 0).tolist()
            names = ", ".join(repr(part.class_names[j]) for j in missing[:5])
            if missing:
                problems.append(f"{part.name} has no example of {len(missing)} classes: {names}")
        empty = [name for name, size in _facts(part).group_sizes.items() if size == 0]
        if empty:
            problems.append(f"{part.name} has no example of {len(empty)} groups: {', '.join(map(repr, empty[:5]))}")
    entry = CATALOG.get(name)
    if entry is None:
        return problems
    if data.train.num_classes != entry.classes:
        problems.append(f"{data.train.num_classes} classes instead of {entry.classes}")
    if usual and len(data.train) != entry.train:
        problems.append(f"{len(data.train):,} training examples instead of {entry.train:,}")
    if usual and len(data.val) + len(data.test) != entry.held_out:
        problems.append(f"{len(data.val) + len(data.test):,} held-out examples instead of {entry.held_out:,}")
    return problems


def write_sheet(examples: Examples, path: Path) -> Path:
    """A PNG of up to ten pictures of each class, a row for each of up to 20 classes, with name and number of examples.

    Where there are more classes, they are spread evenly from the first to the last; so are the pictures of a class.
    """
    from PIL import Image, ImageDraw, ImageFont

    labels = examples.require_labels()
    count = min(SHEET_CLASSES, examples.num_classes)
    classes = np.unique(np.linspace(0, examples.num_classes - 1, count).round().astype(int)).tolist()
    width = _LABEL + SHEET_PICTURES * (_CELL + _GAP) + _GAP
    sheet = Image.new("RGB", (width, len(classes) * (_CELL + _GAP) + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for line, j in enumerate(classes):
        top = _GAP + line * (_CELL + _GAP)
        rows = np.flatnonzero(labels == j)
        text = f"{_shortened(examples.class_names[j], 24)}\n{len(rows):,} examples"
        draw.multiline_text((_GAP + 2, top + _CELL // 2), text, "black", font, anchor="lm")
        spread = np.unique(np.linspace(0, len(rows) - 1, min(SHEET_PICTURES, len(rows))).round().astype(int))
        for column, pixels in enumerate(_pixels(examples, rows[spread])):
            picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
            enlarged = max(pixels.shape[:2]) < _CELL
            picture.thumbnail((_CELL, _CELL))
            if enlarged:  # small pictures in whole steps and unblurred, as they are
                step = _CELL // max(pixels.shape[:2])
                size = (picture.width * step, picture.height * step)
                picture = picture.resize(size, Image.Resampling.NEAREST)
            sheet.paste(picture, (_LABEL + _GAP + column * (_CELL + _GAP), top))
    with replacing(path) as temporary:
        sheet.save(temporary, "png")
    return path


def _pixels(examples: Examples, positions: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.uint8]:
    if isinstance(examples, EncodedExamples):
        return examples.pictures.pixels(positions)
    pixels: npt.NDArray[np.uint8] = examples.inputs[positions]
    return pixels


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
