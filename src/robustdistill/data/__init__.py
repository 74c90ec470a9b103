"""Data sets by name as training, validation and test examples. Nothing here imports torch but `batches`.

Example:
    data = robustdistill.data.load("cifar10-lt", root="~/data", split_seed=0, subset_seed=0)
    data.train.class_counts, len(data.val), len(data.test)
"""

from __future__ import annotations

from robustdistill.data.catalog import CATALOG, Entry, default_root, load, names
from robustdistill.data.longtail import class_sizes, long_tail
from robustdistill.data.splits import Examples, Preprocessing, Splits

__all__ = [
    "CATALOG",
    "Entry",
    "Examples",
    "Preprocessing",
    "Splits",
    "class_sizes",
    "default_root",
    "load",
    "long_tail",
    "names",
]
