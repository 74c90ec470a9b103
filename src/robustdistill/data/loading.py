"""`load`: from a name to training, validation and test examples.

Validation never comes from the examples that a model is fitted to:

- a source with its own validation and test parts keeps both;
- a source with only one of them has that part split at random in half by `split_seed`, validation and test;
- a source with neither is split 60/20/20 by `split_seed`, every class alike;
- `val=SHARE` instead sets that share of every class of the training part aside, before any long tail is made of the
  rest, and the held-out part is the test set, whole.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from robustdistill.data import sources
from robustdistill.data.catalog import CATALOG, Entry, default_root
from robustdistill.data.encoded import EncodedExamples, EncodedPictures
from robustdistill.data.formats import Options, Part, Source
from robustdistill.data.longtail import Profile, long_tail
from robustdistill.data.splits import Examples, IntArray, Preprocessing, Splits, halves, subset_hash
from robustdistill.errors import InputError, StaleStoreError, unknown

if TYPE_CHECKING:
    from robustdistill.training.spec import DataIdentity

TEST_SHARE = VAL_SHARE = 0.2  # of a source that is one part only
LARGEST_CROPS = 2**31 - 1


def load(
    name: str,
    root: str | os.PathLike[str] | None = None,
    split_seed: int = 0,
    subset_seed: int = 0,
    *,
    verify: bool = True,
    ratio: float | None = None,
    profile: Profile = "exponential",
    val: float | None = None,
    pad: int | None = None,
    flip: bool | None = None,
    image_size: int | tuple[int, int] | None = None,
    crops: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    lists: str | os.PathLike[str] | None = None,
) -> Splits:
    """Training, validation and test examples of a data set, by its name.

    >>> digits = load("digits-lt", split_seed=0, subset_seed=0)
    >>> digits.train.class_counts.tolist(), len(digits.val), len(digits.test)
    ([100, 68, 46, 32, 22, 15, 10, 7, 4, 3], 399, 398)

    Args:
        name: one of `names()`, or npz:FILE, folder:DIR, parquet:FILE-or-DIR, hub:NAME.
        root: where official files lie, see `default_root`; a user's own files are named in full instead.
        split_seed: decides which held-out examples are validation and which are test.
        subset_seed: decides which examples of a class the long tail keeps.
        verify: refuse official files whose md5 is not the published one.
        ratio: of the long tail, largest class over smallest; None takes the catalogue's, 1 makes none.
        profile: of the long tail, see `long_tail`.
        val: the share of the training part to validate on; None follows the rule at the top of this module.
        pad: overrides the cropping of `Preprocessing`; a user's own pictures have 0.
        flip: overrides the mirroring likewise; a user's own pictures are not mirrored.
        image_size: the side, or (height, width), that models see. Pictures of a folder or a table are resized to it as
            they are read, since they may differ in size, and those of ImageNet cut to it as they are decoded. All
            others stay in memory as they are stored, and batches of them are resized on the device
            (`Preprocessing.resize`).
        crops: of ImageNet, a number K of random crops of each training picture, drawn once and for all from its row, in
            place of a new one each time. An epoch shows each picture in one of the K. With the clean one they are K + 1
            views, so that `distill` can store what a teacher says of them: (K + 1) · N · C · 2 bytes when full, 12.8 GB
            for ImageNet at K = 4.
        image_column: the pictures' column of a table; by default "image", "img" or "picture".
        label_column: the labels' column; by default "label", "labels", "fine_label", "target" or "class".
        group_column: a column of a table that says which group each example is in, such as a country; see `Groups`.
            What is split at random then is split within each group too.
        lists: of ImageNet-LT, the published list of training pictures or its folder; by default looked for in `root`.

    Returns:
        Three splits. Ids are rows of the source's training or held-out part (of the whole, for the digits and for a
        source of one part). Channel statistics are published constants, or those of the whole training part.
        ImageNet's pictures stay encoded: its splits are `EncodedExamples`, to be read by `data.stream`.

    Raises:
        InputError: an unknown name; files missing, truncated, of another format or another md5; labels outside
            0..C-1; a class missing from train; a seed, ratio or share out of range.
    """
    for argument, value in (("split_seed", split_seed), ("subset_seed", subset_seed)):
        if value < 0:
            raise InputError(f"{argument} must be at least 0, got {value}")
    if val is not None and not 0 < val < 1:
        raise InputError(f"val must be a share of train between 0 and 1, got {val}")
    if crops is not None:
        _check_crops(crops, name)
    options = Options(
        verify, _pair(image_size), image_column, label_column, group_column, None if lists is None else Path(lists)
    )
    source, entry = _read(name, root, options)
    preprocessing = None if entry is None else entry.preprocessing
    if ratio is None:
        ratio = 1.0 if entry is None else entry.ratio

    def examples(part: Part, split: str) -> Examples:
        ids = np.arange(len(part.inputs), dtype=np.int64) if part.ids is None else part.ids
        if isinstance(part.inputs, EncodedPictures):
            return EncodedExamples.of(
                part.inputs, part.labels, ids, source.class_names, Preprocessing(), f"{name}/{split}"
            )
        made = Examples(part.inputs, part.labels, ids, source.class_names, name=f"{name}/{split}")
        if part.groups is None:
            return made
        return made.with_groups(part.groups, None if split == "train" else train.group_names)

    train = examples(source.train, "train")
    train.require_every_class()
    if source.val is not None and source.test is not None:
        if val is not None:
            raise InputError(f"val={val} takes validation from train, but {name} has a validation part of its own")
        splits = Splits(train, examples(source.val, "val"), examples(source.test, "test"))
    else:
        part = source.test or source.val
        held_out = None if part is None else examples(part, "held-out")
        splits = _split(train, held_out, split_seed, val)
    if preprocessing is None:
        preprocessing = _statistics(splits.train)
    if entry is not None and entry.streamed and (pad is not None or flip is not None):
        raise InputError(f"pad and flip do nothing for {name}: its pictures are cut and mirrored as they are decoded")
    preprocessing = replace(
        preprocessing,
        pad=preprocessing.pad if pad is None else pad,
        flip=preprocessing.flip if flip is None else flip,
        resize=_resize(name, splits.train, options.image_size),
    )
    if ratio != 1:
        kept = long_tail(splits.train.require_labels(), ratio, subset_seed, profile, splits.train.num_classes)
        splits = replace(splits, train=splits.train.subset(kept))
    facts: dict[str, Any] = {"name": name, "split_seed": split_seed, "subset_seed": subset_seed, "ratio": float(ratio)}
    if ratio != 1 and profile != "exponential":
        facts["profile"] = profile
    # Only what was asked for: a run on data as the catalogue has them keeps its hash, whatever is added here.
    asked = {
        "val_share": val,
        "pad": pad,
        "flip": flip,
        "image_size": None if options.image_size is None else list(options.image_size),
        "crops": crops,
        "image_column": image_column,
        "label_column": label_column,
        "group_column": group_column,
    }
    facts |= {key: value for key, value in asked.items() if value is not None}
    if entry is None or not entry.streamed:
        splits = Splits(*(_decoded(part) for part in (splits.train, splits.val, splits.test)))
    elif isinstance(splits.train, EncodedExamples):
        splits = replace(splits, train=splits.train.with_crops(crops))
    finished = {
        split: replace(
            part, preprocessing=preprocessing, name=f"{name}/{split}", source={**facts, "subset": subset_hash(part.ids)}
        )
        for split, part in (("train", splits.train), ("val", splits.val), ("test", splits.test))
    }
    return Splits(**finished)


def split(examples: Examples, val: float = VAL_SHARE, test: float = TEST_SHARE, seed: int = 0) -> Splits:
    """Your own examples as training, validation and test parts: a share of every class (and of every group of it).

    Pictures whose preprocessing has no statistics yet get those of the channels of the training part.

    Args:
        examples: labelled.
        val: the share to validate on.
        test: the share to test on.
        seed: of the draw.

    Raises:
        InputError: a share is out of range, the examples have no labels, or a class is too small to be in every part.

    >>> digits = load("digits")
    >>> parts = split(digits.train, val=0.3, test=0.2, seed=1)
    >>> len(parts.train) + len(parts.val) + len(parts.test) == len(digits.train)
    True
    """
    if not (val > 0 and test > 0 and val + test < 1):
        raise InputError(f"val and test must be positive shares that leave something to train on, got {val} and {test}")
    if seed < 0:
        raise InputError(f"seed must be at least 0, got {seed}")
    rest, *taken = _stratified(_cells(examples), [val, test], seed)
    _check_partition(len(examples), rest, *taken)
    facts = {**examples.source, "split_seed": seed, "val_share": val, "test_share": test}
    made = {
        part: replace(examples.subset(positions, f"{examples.name}/{part}"), source=facts)
        for part, positions in zip(("train", "val", "test"), (rest, *taken), strict=True)
    }
    plain = Preprocessing()
    known = examples.preprocessing
    if examples.inputs.dtype == np.uint8 and (known.mean, known.std) == (plain.mean, plain.std):
        measured = _statistics(made["train"])
        known = replace(known, mean=measured.mean, std=measured.std)
        made = {part: replace(found, preprocessing=known) for part, found in made.items()}
    for found in made.values():
        found.require_every_class()
    return Splits(**made)


def load_recorded(
    recorded: DataIdentity,
    root: str | os.PathLike[str] | None = None,
    *,
    verify: bool = True,
    lists: str | os.PathLike[str] | None = None,
    name: str | None = None,
    **changes: Any,
) -> Splits:
    """The data that a run was trained on, loaded with every argument of `load` that the run recorded.

    Args:
        recorded: of the run's spec.
        root, verify, lists: as for `load`; they say where files are, and are not recorded.
        name: other data instead, with the run's seeds.
        changes: further arguments of `load` that are to differ from the recorded ones.

    Returns:
        As `load`. Where nothing was to differ, train and validation are those of the run, bit for bit.

    Raises:
        InputError: as `load`, or the run was on data that no name was recorded of, or that would have to be fetched.
        StaleStoreError: nothing was to differ, but the data have changed since.
    """
    known = recorded.model_dump()
    given = {key: value for key, value in changes.items() if value is not None}
    if name is None and recorded.name == "custom":
        raise InputError("the run was trained on examples of your own making: name the data to use (--data)")
    if name is None and sources.is_remote(recorded.name):
        # A record is a file, perhaps somebody else's: what it names is not fetched because it says so.
        raise InputError(
            f"the run was trained on {recorded.name!r}, which is fetched from the hub: name it (--data "
            f"{recorded.name}) to do that"
        )
    arguments = {key: known[key] for key in ("split_seed", "subset_seed") if known.get(key) is not None}
    if name in (None, recorded.name):
        arguments |= {key: known[key] for key in _RECORDED if known.get(key) is not None}
        if known.get("val_share") is not None:
            arguments["val"] = known["val_share"]
        if (size := arguments.get("image_size")) is not None:
            arguments["image_size"] = tuple(size)
    splits = load(name or recorded.name, root, verify=verify, lists=lists, **(arguments | given))
    if name is None and not given:
        for part, was in ((splits.train, recorded.train), (splits.val, recorded.val)):
            if part.fingerprint != was:
                raise StaleStoreError(
                    f"{part.name} is {part.fingerprint}, the run had {was}: the data have changed since. Name them all"
                    " the same (--data) to go on with what is there now"
                )
    return splits


_RECORDED = ("ratio", "profile", "pad", "flip", "image_size", "crops", "image_column", "label_column", "group_column")


def _decoded(part: Examples) -> Examples:
    """In memory: only now, when the long tail has left most pictures out."""
    return part.decoded() if isinstance(part, EncodedExamples) else part


def _check_crops(crops: int, name: str) -> None:
    streamed = [entry.name for entry in CATALOG.values() if entry.streamed]
    if name not in streamed:
        raise InputError(f"crops is for {', '.join(streamed)} only, and does nothing for {name!r}")
    if not 1 <= crops <= LARGEST_CROPS:
        raise InputError(f"crops must lie in 1..{LARGEST_CROPS}, got {crops}")


def _resize(name: str, train: Examples, size: tuple[int, int] | None) -> tuple[int, int] | None:
    """What pictures that did not get this size in reading are resized to on the device."""
    if size is None:
        return None
    if train.inputs.dtype != np.uint8:
        raise InputError(f"image_size is for pictures, and {name!r} holds features")
    return None if train.inputs.shape[1:3] == size else size


def _read(name: str, root: str | os.PathLike[str] | None, options: Options) -> tuple[Source, Entry | None]:
    kind, colon, target = name.partition(":")
    for argument in ("image_column", "label_column", "group_column", "lists"):
        takers = _takers(argument)
        if getattr(options, argument) is not None and (f"{kind}:" if colon else name) not in takers:
            raise InputError(f"{argument} is for {', '.join(takers)} only, and does nothing for {name!r}")
    if colon:
        if kind not in sources.READERS:
            raise unknown("kind of data", f"{kind}:", [f"{known}:" for known in sources.READERS])
        return sources.READERS[kind](target, options), None
    entry = CATALOG.get(name)
    if entry is None:
        raise unknown("data set", name, [*CATALOG, *(f"{known}:..." for known in sources.READERS)])
    folder = default_root(root)
    if entry.files and not entry.present(folder):
        state = "is empty" if folder.is_dir() and not any(folder.iterdir()) else "has none"
        state = state if folder.exists() else "does not exist"
        raise InputError(
            f"{name}: looked in {str(folder.absolute())!r} for {' or '.join(entry.files)}, but that folder {state}. "
            f"Download {entry.download} from {entry.page} and put it there, or name its folder with root= "
            "or the environment variable ROBUSTDISTILL_DATA"
        )
    try:
        return entry.reader(folder, options), entry
    except InputError as error:
        page = f" (official download page: {entry.page})" if entry.page else ""
        raise InputError(f"{name}: {error}{page}") from error


def _takers(argument: str) -> list[str]:
    """The kinds and names that an argument of `load` is for."""
    kinds = [f"{kind}:" for kind, taken in sources.ARGUMENTS.items() if argument in taken]
    return ["imagenet-lt"] if argument == "lists" else kinds


def _pair(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    pair = (size, size) if isinstance(size, int) else size
    if pair is not None and min(pair) < 1:
        raise InputError(f"image_size must be a side or (height, width) of at least 1 pixel, got {size}")
    return pair


def _split(train: Examples, held_out: Examples | None, seed: int, val: float | None) -> Splits:
    """The rule at the top of this module, for a source that has at most one held-out part."""
    if held_out is not None and val is None:
        if len(held_out) < 2:
            raise InputError(f"{held_out.name} must have 2 examples or more to be split in half, got {len(held_out)}")
        first, second = halves(len(held_out), seed)
        _check_partition(len(held_out), first, second)
        return Splits(train, held_out.subset(first), held_out.subset(second))
    shares = [VAL_SHARE if val is None else val, *([TEST_SHARE] if held_out is None else [])]
    if sum(shares) >= 1:
        raise InputError(f"val={val} and the test share {TEST_SHARE} leave nothing of {train.name}")
    rest, *taken = _stratified(_cells(train), shares, seed)
    _check_partition(len(train), rest, *taken)
    for split, positions in zip(("val", "test"), taken, strict=False):
        if len(positions) == 0:
            raise InputError(f"{train.name} is too small: no class has enough of its {len(train)} examples for {split}")
    test = train.subset(taken[1]) if held_out is None else held_out
    return Splits(train.subset(rest), train.subset(taken[0]), test)


def _cells(examples: Examples) -> IntArray:
    """(N,) the class of each example or, where there are groups, the group within the class."""
    labels = examples.require_labels()
    return labels if examples.groups is None else labels * len(examples.group_names) + examples.groups


def _stratified(labels: IntArray, shares: list[float], seed: int) -> list[IntArray]:
    """Sorted positions: first what is left, then each share of every class; each class keeps one in what is left."""
    cuts: list[list[IntArray]] = [[] for _ in range(len(shares) + 1)]
    for j in np.unique(labels).tolist():
        rows = np.random.default_rng([seed, j]).permutation(np.flatnonzero(labels == j))
        for cut, share in zip(cuts[1:], shares, strict=True):
            count = min(round(share * int((labels == j).sum())), len(rows) - 1)
            cut.append(rows[:count])
            rows = rows[count:]
        cuts[0].append(rows)
    return [np.sort(np.concatenate(cut)).astype(np.int64) for cut in cuts]


def _check_partition(count: int, *parts: IntArray) -> None:
    """What every measurement rests on: the parts are disjoint and together the whole."""
    if not np.array_equal(np.sort(np.concatenate(parts)), np.arange(count)):
        raise RuntimeError(f"the splits of {count} examples overlap or leave some out")


def _statistics(train: Examples) -> Preprocessing:
    """Channel means and deviations of uint8 pictures on the [0, 1] scale, exactly, from counts of the 256 levels."""
    if train.inputs.dtype != np.uint8:
        return Preprocessing()
    levels: npt.NDArray[Any] = np.arange(256) / 255
    mean, std = [], []
    for channel in range(train.inputs.shape[-1]):
        counts = np.bincount(train.inputs[..., channel].ravel(), minlength=256) / train.inputs[..., channel].size
        centre = float(counts @ levels)
        mean.append(round(centre, 6))
        # A channel that never varies is left at its scale: dividing by 0 would make it NaN.
        std.append(round(float(np.sqrt(counts @ (levels - centre) ** 2)), 6) or 1.0)
    return Preprocessing(tuple(mean), tuple(std))
