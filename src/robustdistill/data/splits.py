"""What every data set becomes: examples with source ids, in three disjoint splits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from robustdistill.errors import InputError

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Preprocessing:
    """How stored pixels become model inputs: scaled to [0, 1], normalised per channel, augmented while training.

    Attributes:
        mean: per-channel mean of the training pixels, on the [0, 1] scale.
        std: per-channel standard deviation, likewise.
        pad: zero padding, in pixels a side, from which a random window of the original size is cut; 0 for no cropping.
        flip: whether a training image is mirrored left to right half of the time.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    pad: int = 0
    flip: bool = False

    @property
    def views(self) -> int:
        """The number of distinct outcomes of the augmentation: (2·pad + 1)² windows, twice that with flips."""
        return (2 * self.pad + 1) ** 2 * (2 if self.flip else 1)


@dataclass(frozen=True, eq=False)
class Examples:
    """One split: inputs, labels and the row of the source that each example came from.

    Attributes:
        inputs: (N, H, W, channels) uint8 pictures, or (N, ...) float32 features that are used as they are.
        labels: (N,) int64 in [0, C), or None where the examples are unlabelled.
        ids: (N,) int64, the row in the source data set. Never the position in a subset: predictions join on it.
        class_names: C names.
        preprocessing: for pictures; ignored for float inputs.
        name: what messages call this split, such as "cifar10-lt/train".
        source: the catalogue name and seeds that made it; recorded with every run.

    Raises:
        InputError: where lengths differ, a label lies outside [0, C), an id occurs twice or a feature is not finite.
    """

    inputs: npt.NDArray[Any]
    labels: IntArray | None
    ids: IntArray
    class_names: tuple[str, ...]
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    name: str = "examples"
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.inputs)
        if len(self.ids) != n:
            raise InputError(f"{self.name}: {n} inputs but {len(self.ids)} ids")
        if len(np.unique(self.ids)) != n:
            values, counts = np.unique(self.ids, return_counts=True)
            raise InputError(f"{self.name}: ids must be unique; id {values[counts > 1][0]} occurs {counts.max()} times")
        if self.inputs.dtype != np.uint8:
            self._check_features()
        if self.labels is not None:
            self._check_labels(self.labels)

    def _check_features(self) -> None:
        if self.inputs.dtype != np.float32:
            raise InputError(f"{self.name}: inputs must be uint8 pictures or float32 features, got {self.inputs.dtype}")
        finite = np.isfinite(self.inputs).reshape(len(self.inputs), -1).all(axis=1)
        if not finite.all():
            row = int(np.flatnonzero(~finite)[0])
            raise InputError(f"{self.name}: inputs must be finite; row {row} (id {self.ids[row]}) has NaN or infinity")

    def _check_labels(self, labels: IntArray) -> None:
        if len(labels) != len(self.inputs):
            raise InputError(f"{self.name}: {len(self.inputs)} inputs but {len(labels)} labels")
        outside = (labels < 0) | (labels >= self.num_classes)
        if outside.any():
            row = int(np.flatnonzero(outside)[0])
            raise InputError(
                f"{self.name}: labels must lie in 0..{self.num_classes - 1};"
                f" row {row} (id {self.ids[row]}) has {labels[row]}"
            )

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def channels(self) -> int:
        """Channels of the pictures; 0 for features."""
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
        return replace(
            self, inputs=self.inputs[positions], labels=labels, ids=self.ids[positions], name=name or self.name
        )

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over inputs, labels, ids, class names and preprocessing: the identity that runs record."""
        digest = hashlib.sha256()
        for part in (self.inputs, self.labels, self.ids):
            if part is not None:
                digest.update(f"{part.dtype}{part.shape}".encode())
                digest.update(np.ascontiguousarray(part).data)
        digest.update(repr((self.class_names, self.preprocessing)).encode())
        return digest.hexdigest()[:16]


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
