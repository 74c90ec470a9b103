"""What every data set becomes: examples with source ids, in three disjoint splits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from robustdistill.errors import InputError
from robustdistill.shown import is_plain

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Preprocessing:
    """How stored pixels become model inputs: scaled to [0, 1], normalised, augmented while training, and resized.

    Attributes:
        mean: per-channel mean of the training pixels, on the [0, 1] scale.
        std: per-channel standard deviation, likewise.
        pad: zero padding, in pixels a side, from which a random window of the original size is cut; 0 for no cropping.
        flip: whether a training image is mirrored left to right half of the time.
        resize: (height, width) that pictures get last, on the device that they are used on, by bilinear interpolation
            (with antialiasing where they shrink); None leaves them the size that they are stored in.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    pad: int = 0
    flip: bool = False
    resize: tuple[int, int] | None = None

    def __repr__(self) -> str:
        # Fingerprints are taken over this text: what later versions add is in it only where it is in use.
        resize = "" if self.resize is None else f", resize={self.resize!r}"
        return f"Preprocessing(mean={self.mean!r}, std={self.std!r}, pad={self.pad!r}, flip={self.flip!r}{resize})"

    @property
    def views(self) -> int:
        """The number of distinct outcomes of the augmentation: (2·pad + 1)² windows, twice that with flips."""
        return (2 * self.pad + 1) ** 2 * (2 if self.flip else 1)


@dataclass(frozen=True, eq=False)
class Examples:
    """One split: inputs, labels and the row of the source that each example came from.

    Attributes:
        inputs: (N, H, W, channels) uint8 pictures, or what is used as it is: (N, ...) float32 features, with channels
            first where they are pictures (N, channels, H, W), or (N, L) int64 token ids.
        labels: (N,) int64 in [0, C), or None where the examples are unlabelled.
        ids: (N,) int64, the row in the source data set. Never the position in a subset: predictions join on it.
        class_names: C names.
        preprocessing: for uint8 pictures; ignored for others.
        name: what messages call this split, such as "cifar10-lt/train".
        source: the catalogue name and seeds that made it; recorded with every run.
        groups: (N,) int64 in [0, A), the values of a group column such as a country; None without one.
        group_names: A names of those values, whether they occur or not.

    Raises:
        InputError: where lengths differ, a class name has control characters, a label lies outside [0, C), a group
            outside [0, A), an id occurs twice, a feature is not finite or a token id is negative.
    """

    inputs: npt.NDArray[Any]
    labels: IntArray | None
    ids: IntArray
    class_names: tuple[str, ...]
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    name: str = "examples"
    source: dict[str, Any] = field(default_factory=dict)
    groups: IntArray | None = None
    group_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.inputs)
        if len(self.ids) != n:
            raise InputError(f"{self.name}: {n} inputs but {len(self.ids)} ids")
        if len(np.unique(self.ids)) != n:
            values, counts = np.unique(self.ids, return_counts=True)
            raise InputError(f"{self.name}: ids must be unique; id {values[counts > 1][0]} occurs {counts.max()} times")
        for name in self.class_names:
            if not is_plain(name):
                raise InputError(f"{self.name}: class names must be printable, got {name!r}")
        if self.inputs.dtype != np.uint8:
            self._check_features()
        if self.labels is not None:
            self._check_indices(self.labels, "labels", self.num_classes)
        if self.groups is not None:
            self._check_indices(self.groups, "groups", len(self.group_names))

    def _check_features(self) -> None:
        if self.inputs.dtype == np.int64:
            self._check_tokens()
            return
        if self.inputs.dtype != np.float32:
            raise InputError(
                f"{self.name}: inputs must be uint8 pictures, float32 features or int64 token ids,"
                f" got {self.inputs.dtype}"
            )
        finite = np.isfinite(self.inputs).all(axis=tuple(range(1, self.inputs.ndim)))
        if not finite.all():
            row = int(np.flatnonzero(~finite)[0])
            raise InputError(f"{self.name}: inputs must be finite; row {row} (id {self.ids[row]}) has NaN or infinity")

    def _check_tokens(self) -> None:
        if self.inputs.ndim < 2:
            raise InputError(f"{self.name}: integer inputs are token ids (N, L), got {self.inputs.shape}")
        negative = (self.inputs < 0).any(axis=tuple(range(1, self.inputs.ndim)))
        if negative.any():
            row = int(np.flatnonzero(negative)[0])
            raise InputError(
                f"{self.name}: token ids must not be negative; row {row} (id {self.ids[row]}) has"
                f" {self.inputs[row].min()}: give padding a token of its own, and features as floats"
            )

    def _check_indices(self, values: IntArray, what: str, size: int) -> None:
        if len(values) != len(self.inputs):
            raise InputError(f"{self.name}: {len(self.inputs)} inputs but {len(values)} {what}")
        outside = (values < 0) | (values >= size)
        if outside.any():
            row = int(np.flatnonzero(outside)[0])
            raise InputError(
                f"{self.name}: {what} must lie in 0..{size - 1}; row {row} (id {self.ids[row]}) has {values[row]}"
            )

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def channels(self) -> int:
        """Channels of the pictures, uint8 (N, H, W, channels) or float32 (N, channels, H, W); 0 for all others."""
        if self.inputs.dtype == np.float32:
            return int(self.inputs.shape[1]) if self.inputs.ndim == 4 else 0
        return int(self.inputs.shape[-1]) if self.inputs.dtype == np.uint8 else 0

    @cached_property
    def class_counts(self) -> IntArray:
        """(C,) the number of examples of each class.

        Raises:
            InputError: the examples carry no labels.
        """
        return np.bincount(self.require_labels(), minlength=self.num_classes).astype(np.int64)

    def require_labels(self) -> IntArray:
        """The labels, (N,).

        Raises:
            InputError: the examples carry no labels.
        """
        if self.labels is None:
            raise InputError(f"{self.name} has no labels, and this step needs them")
        return self.labels

    def require_every_class(self) -> None:
        """Raises InputError naming the first class that has no example."""
        missing = np.flatnonzero(self.class_counts == 0)
        if len(missing):
            first = int(missing[0])
            others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise InputError(
                f"{self.name} must have every class; class {first} ({self.class_names[first]!r}) has 0 examples{others}"
            )

    def subset(self, positions: npt.NDArray[np.integer[Any]], name: str | None = None) -> Examples:
        """The examples at `positions` (M,), in that order, with their source ids."""
        labels = None if self.labels is None else self.labels[positions]
        groups = None if self.groups is None else self.groups[positions]
        parts = {"inputs": self.inputs[positions], "ids": self.ids[positions], "labels": labels, "groups": groups}
        return replace(self, **parts, name=name or self.name)

    def with_groups(self, values: npt.ArrayLike, names: Sequence[str] | None = None) -> Examples:
        """The same examples with a group column.

        Args:
            values: (N,) a value for each example, text or whole numbers.
            names: the values there are, where not all of them occur here: `train.group_names` for the other splits. By
                default those that occur, sorted.

        Raises:
            InputError: the shape is another, a value is none of `names`, or empty.

        >>> data = Examples(np.zeros((3, 2), np.float32), None, np.arange(3), ("no", "yes"))
        >>> found = data.with_groups(["north", "south", "north"])
        >>> found.groups, found.group_names
        (array([0, 1, 0]), ('north', 'south'))
        """
        array = np.asarray(values)
        if array.shape != (len(self),) or array.dtype.kind not in "iubUO":
            raise InputError(
                f"{self.name}: groups must be text or whole numbers of shape ({len(self)},), got {array.dtype}"
                f" {array.shape}"
            )
        # Numbers are sorted as such: group 10 comes after 9.
        distinct = sorted(set(array.tolist())) if array.dtype.kind in "iub" else sorted({str(one) for one in array})
        known = tuple(str(one) for one in (distinct if names is None else names))
        index = {name: place for place, name in enumerate(known)}
        texts = [str(one) for one in array.tolist()]
        for row, text in enumerate(texts):
            if text not in index or text in ("", "None", "nan"):
                raise InputError(
                    f"{self.name}: row {row} (id {self.ids[row]}) has the group {text!r}; expected one of"
                    f" {', '.join(map(repr, known[:8]))}{', ...' if len(known) > 8 else ''}, and none that is empty"
                )
        groups = np.array([index[text] for text in texts], dtype=np.int64)
        return replace(self, groups=groups, group_names=known)

    def require_groups(self) -> IntArray:
        """The values of the group column, (N,).

        Raises:
            InputError: there is none.
        """
        if self.groups is None:
            raise InputError(
                f"{self.name} has no group column, and this step needs one: add it by with_groups(values) or, where"
                " a table has it, name it by group_column= (--group-column)"
            )
        return self.groups

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over inputs, labels, ids, class names and preprocessing: the identity that runs record."""
        digest = hashlib.sha256()
        for part in (self.inputs, self.labels, self.ids):
            if part is not None:
                digest.update(f"{part.dtype}{part.shape}".encode())
                digest.update(np.ascontiguousarray(part).data)
        digest.update(repr((self.class_names, self.preprocessing)).encode())
        digest.update(self.group_identity)
        return digest.hexdigest()[:16]

    @property
    def group_identity(self) -> bytes:
        """What fingerprints take of the group column; nothing without one, as before there were any."""
        if self.groups is None:
            return b""
        return repr(self.group_names).encode() + np.ascontiguousarray(self.groups).tobytes()


@dataclass(frozen=True, eq=False)
class Splits:
    """Training, validation and test examples of one data set, disjoint by source id within the held-out part."""

    train: Examples
    val: Examples
    test: Examples

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.train.class_names


def halves(count: int, seed: int) -> tuple[IntArray, IntArray]:
    """Positions of two random, disjoint halves of `count` rows, each sorted; the first has the odd one out."""
    order = np.random.default_rng(seed).permutation(count)
    middle = (count + 1) // 2
    return np.sort(order[:middle]), np.sort(order[middle:])


def subset_hash(ids: IntArray) -> str:
    """16 hex digits that identify a subset by the ids in it, whatever their order."""
    return hashlib.sha256(np.sort(ids).astype("<i8").tobytes()).hexdigest()[:16]
