"""Long-tailed subsets of a data set, as row indices."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from robustdistill.data.splits import IntArray
from robustdistill.errors import InputError, unknown

Profile = Literal["exponential", "step"]
PROFILES = ("exponential", "step")

# n_max · (1/ratio)^(j/(C-1)) is often a whole number that floating point puts just below itself, and truncation
# would then lose an image (10 · (1/1000)^(1/3) is 0.99…). Relative; far above rounding, far below any real gap.
_ROUNDING = 1e-9


def class_sizes(largest: int, ratio: float, num_classes: int, profile: Profile = "exponential") -> IntArray:
    """(C,) the number of images that each class keeps, from `largest` (class 0) to `largest` / `ratio` (class C-1).

    "exponential" (Cui et al. 2019): n_j = int(n_max · (1/ratio)^(j/(C-1))). "step" (Buda et al. 2018): the first half
    of the classes keeps n_max, the others int(n_max / ratio); with C odd the first half has the class more.

    >>> class_sizes(5000, 100, 10).tolist()
    [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]

    Raises:
        InputError: `ratio` is below 1 or not finite, `largest` is negative, or the profile is unknown.
    """
    if not (np.isfinite(ratio) and ratio >= 1):
        raise InputError(f"ratio must be a finite number of at least 1 (largest class over smallest), got {ratio}")
    if not 0 <= largest < 2**53:
        raise InputError(f"largest must be a number of images, got {largest}")
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    if profile == "exponential":
        exponents = np.arange(num_classes) / max(num_classes - 1, 1)
    else:
        exponents = (np.arange(num_classes) >= (num_classes + 1) // 2).astype(np.float64)
    sizes: IntArray = np.floor(largest * (1.0 / ratio) ** exponents * (1 + _ROUNDING)).astype(np.int64)
    return sizes


def long_tail(
    labels: npt.NDArray[np.integer[Any]],
    ratio: float,
    seed: int = 0,
    profile: Profile = "exponential",
    num_classes: int | None = None,
    largest: int | None = None,
) -> IntArray:
    """Positions (M,) int64, sorted, of a long-tailed subset in which class 0 is the largest and class C-1 the smallest.

    n_max is the size of the classes where all are alike, as in the paper's data. Where they are not (MNIST, SVHN), it
    is the largest n_max whose share every class has, so that the subset has exactly the profile asked for.

    Each class is shuffled by a generator of its own, seeded by (`seed`, class), and its first n_j images are kept: what
    one class keeps does not depend on the others, and with equal seeds the subset of a larger ratio lies within that of
    a smaller one.

    Args:
        labels: (N,) integers in [0, C).
        ratio: the largest class over the smallest, at least 1; 1 keeps n_max of every class.
        seed: the subset seed.
        profile: "exponential" or "step", see `class_sizes`.
        num_classes: C; by default the largest label plus one.
        largest: n_max; by default as above.

    Raises:
        InputError: labels are not integers in [0, C), a class has fewer images than it should keep or would keep none.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.size == 0 or labels.dtype.kind not in "iu":
        raise InputError(f"labels must be a (N,) array of integers, got {labels.dtype} of shape {labels.shape}")
    if seed < 0:
        raise InputError(f"seed must be at least 0, got {seed}")
    lowest, highest = int(labels.min()), int(labels.max())
    classes = highest + 1 if num_classes is None else num_classes
    if lowest < 0 or highest >= classes:
        raise InputError(f"labels must lie in 0..{classes - 1}, got {lowest if lowest < 0 else highest}")
    if classes > len(labels):
        absent = next(j for j in range(classes) if j not in labels)
        raise InputError(f"every class must have an image; class {absent} of {classes} has none")
    counts = np.bincount(labels, minlength=classes)
    if not counts.all():
        raise InputError(f"every class must have an image; class {int(np.argmin(counts))} of {classes} has none")
    largest = _affordable(counts, ratio, profile) if largest is None else largest
    sizes = class_sizes(largest, ratio, classes, profile)
    for j, (have, keep) in enumerate(zip(counts.tolist(), sizes.tolist(), strict=True)):
        if keep == 0:
            raise InputError(f"ratio {ratio:g} leaves class {j} with 0 of {have} images; choose a lower ratio")
        if have < keep:
            wanted = f"largest={largest} with ratio {ratio:g} ({profile}) keeps {keep} images"
            raise InputError(f"{wanted} of class {j}, which has only {have}")
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    kept = [np.random.default_rng([seed, j]).permutation(rows)[: sizes[j]] for j, rows in enumerate(by_class)]
    return np.sort(np.concatenate(kept)).astype(np.int64)


def _affordable(counts: IntArray, ratio: float, profile: Profile) -> int:
    """The largest n_max for which no class is asked for more images than its count (C,)."""
    low, high = 0, int(counts.max())
    while low < high:
        middle = (low + high + 1) // 2
        fits = bool((class_sizes(middle, ratio, len(counts), profile) <= counts).all())
        low, high = (middle, high) if fits else (low, middle - 1)
    return low
