"""Data sets by name as training, validation and test examples.

Only `batches`, `datasets`, `samplers` and `stream` import torch; their names here do so on first use.

Example:
    data = robustdistill.data.load("cifar10-lt", root="~/data", split_seed=0, subset_seed=0)
    data.train.class_counts, len(data.val), len(data.test)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robustdistill.data.arrays import from_arrays
from robustdistill.data.catalog import CATALOG, Entry, default_root, names
from robustdistill.data.loading import load, split
from robustdistill.data.longtail import class_sizes, long_tail
from robustdistill.data.splits import Examples, Preprocessing, Splits

__all__ = [
    "CATALOG",
    "ClassBalancedSampler",
    "Entry",
    "Examples",
    "Preprocessing",
    "Splits",
    "class_sizes",
    "class_uniform",
    "default_root",
    "from_arrays",
    "from_dataset",
    "from_loader",
    "load",
    "long_tail",
    "names",
    "split",
]

if TYPE_CHECKING:
    from robustdistill.data.datasets import from_dataset, from_loader
    from robustdistill.data.samplers import ClassBalancedSampler, class_uniform


def __getattr__(name: str) -> Any:
    if name in ("ClassBalancedSampler", "class_uniform"):
        from robustdistill.data import samplers

        return getattr(samplers, name)
    if name in ("from_dataset", "from_loader"):
        from robustdistill.data import datasets

        return getattr(datasets, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
