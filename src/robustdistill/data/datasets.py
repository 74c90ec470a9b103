"""What torch code has at hand as examples: map-style datasets and loaders of (x, y), read into memory once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from robustdistill.data.arrays import from_arrays
from robustdistill.data.splits import Examples, IntArray, Preprocessing
from robustdistill.errors import InputError

LIMIT_GIB = 4.0  # of inputs in memory, unless more is asked for
_BATCH = 256  # items read at once
_PROBES = 8  # items that are read twice, to see whether they stay what they are

Array = npt.NDArray[Any]
Pairs = Iterable[tuple[Any, Any]]


def from_dataset(
    dataset: Dataset[Any],
    *,
    class_names: Sequence[str] | None = None,
    workers: int = 0,
    limit_gib: float = LIMIT_GIB,
    preprocessing: Preprocessing | None = None,
    name: str = "examples",
) -> Examples:
    """Examples of a map-style dataset of (x, y), all of it in memory.

    x is a Pillow picture, a tensor or an array: uint8 pictures in either layout, floats that the model takes as they
    are, or token ids; y is a class. Ids are the indices of the dataset and, of a `Subset`, those of the dataset that it
    is a part of: a teacher's table of the whole serves every part.

    Args:
        dataset: without random transforms, which would be drawn once and for all; crop and mirror uint8 pictures by
            `preprocessing=Preprocessing(pad=4, flip=True)` instead.
        class_names: by default those of `dataset.classes`, else "0", "1", ... up to the highest y.
        workers: processes that read; 0 reads here.
        limit_gib: of memory; a larger dataset is refused before it is read.
        preprocessing, name: as in `from_arrays`.

    Raises:
        InputError: it has no length, is empty, too large or random, its items are no pairs of one shape, or as
            `from_arrays`.

    >>> pairs = torch.utils.data.TensorDataset(torch.eye(3), torch.tensor([0, 1, 1]))
    >>> from_dataset(pairs).class_counts
    array([1, 2])
    """
    size = _length(dataset)
    chunks = [list(range(start, min(start + _BATCH, size))) for start in range(0, size, _BATCH)]
    _check_repeats(lambda index: dataset[index], list(range(min(size, _PROBES))), name)
    loader: Pairs = DataLoader(
        dataset, batch_sampler=chunks, collate_fn=_listed, num_workers=workers, generator=torch.Generator()
    )

    def items() -> Iterator[tuple[Array, Any]]:
        for inputs, labels in loader:
            for x, y in zip(inputs, labels, strict=True):
                yield _input(x), y

    inputs, labels = _filled(items(), size, limit_gib, name)
    names = class_names or _classes_of(dataset)
    ids = _source_rows(dataset, np.arange(size))
    return from_arrays(inputs, labels, class_names=names, ids=ids, preprocessing=preprocessing, name=name)


def from_loader(
    loader: DataLoader[Any],
    *,
    class_names: Sequence[str] | None = None,
    limit_gib: float = LIMIT_GIB,
    preprocessing: Preprocessing | None = None,
    name: str = "examples",
) -> Examples:
    """Examples of a DataLoader of (x, y) over a map-style dataset, all of it in memory.

    What the loader visits in an epoch is read once, in the order of the dataset whatever its sampler shuffles, through
    its `collate_fn` and by its workers. Ids are as in `from_dataset`, and so are the other arguments.

    Raises:
        InputError: the loader visits an item twice, leaves some out by chance, or streams; batches are no pairs
            (x, y) of tensors of one shape; or as `from_dataset`.
    """
    if not isinstance(loader, DataLoader):
        raise InputError(
            f"loader must be a torch DataLoader, got {type(loader).__name__}: of batches in memory make arrays for"
            " from_arrays, such as np.concatenate([x for x, _ in batches])"
        )
    dataset = loader.dataset
    _length(dataset)
    if loader.batch_sampler is None:
        raise InputError("loader has no batches of its own (batch_size=None): give it a batch_size")
    with torch.random.fork_rng(devices=[]):  # a shuffling sampler draws; what comes after must not notice
        rows = np.array([index for batch in loader.batch_sampler for index in batch], dtype=np.int64)
    if loader.drop_last and len(rows) < len(loader.sampler):  # type: ignore[arg-type]
        raise InputError(f"loader drops {len(loader.sampler) - len(rows)} items by drop_last=True: set it to False")  # type: ignore[arg-type]
    order = np.unique(rows)
    if len(order) < len(rows):
        raise InputError(
            f"loader visits {len(rows) - len(order)} items again: without a sampler that draws with replacement, since"
            " the multipliers weigh classes here"
        )
    collate: Callable[[list[Any]], Any] = loader.collate_fn
    _check_repeats(lambda index: _pair(collate([dataset[index]]), name), order[:_PROBES].tolist(), name)
    step = loader.batch_size or _BATCH
    batches: Iterable[Any] = DataLoader(
        dataset,
        batch_sampler=[order[start : start + step].tolist() for start in range(0, len(order), step)],
        collate_fn=collate,
        num_workers=loader.num_workers,
        worker_init_fn=loader.worker_init_fn,
        generator=torch.Generator(),
    )

    def items() -> Iterator[tuple[Array, Any]]:
        for batch in batches:
            inputs, labels = _pair(batch, name)
            if not hasattr(inputs, "__len__") or len(inputs) != len(labels):
                raise InputError(f"{name}: x and y of a batch must have one length; collate_fn gives others")
            for x, y in zip(inputs, labels, strict=True):
                yield _input(x), y

    inputs, labels = _filled(items(), len(order), limit_gib, name)
    names = class_names or _classes_of(dataset)
    ids = _source_rows(dataset, order)
    return from_arrays(inputs, labels, class_names=names, ids=ids, preprocessing=preprocessing, name=name)


def _length(dataset: Any) -> int:
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise InputError(
            f"{type(dataset).__name__} is no map-style dataset, with a length and dataset[i]; examples of a stream have"
            " no ids: collect them, and pass arrays to from_arrays"
        )
    if not len(dataset):
        raise InputError(f"{type(dataset).__name__} holds no example")
    return len(dataset)


def _listed(items: list[Any]) -> tuple[list[Any], list[Any]]:
    pairs = [_pair(item, "the dataset") for item in items]
    return [x for x, _ in pairs], [y for _, y in pairs]


def _pair(item: Any, where: str) -> tuple[Any, Any]:
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        got = f"{len(item)} values" if isinstance(item, (tuple, list)) else type(item).__name__
        raise InputError(
            f"{where}: items must be pairs (x, y), got {got}: wrap it in a Dataset that returns the input and the class"
        )
    if isinstance(item[0], (dict, tuple, list)) and not _is_numbers(item[0]):
        raise InputError(
            f"{where}: x must be one tensor, array or picture, got {type(item[0]).__name__}: stack what the model takes"
            " into one tensor, and take it apart in the model's forward"
        )
    return item[0], item[1]


def _is_numbers(x: Any) -> bool:
    return isinstance(x, list) and bool(x) and all(isinstance(value, (int, float, torch.Tensor)) for value in x)


def _input(x: Any) -> Array:
    """x as an array, uint8 pictures with channels last."""
    if hasattr(x, "convert") and hasattr(x, "mode"):  # of Pillow
        return np.asarray(x if x.mode in ("L", "RGB") else x.convert("RGB"))
    array = x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
        return array.transpose(1, 2, 0)
    return array


def _label(y: Any, where: str) -> Any:
    if hasattr(y, "shape"):
        if math.prod(y.shape) != 1:
            raise InputError(
                f"{where}: y must be a class, got {tuple(y.shape)} {y.dtype}: take argmax of one-hot rows; a teacher's"
                " probabilities are a table, rd.Predictions"
            )
        y = y.item()
    if isinstance(y, float) and y.is_integer():
        y = int(y)
    if not isinstance(y, (int, str)):
        raise InputError(f"{where}: y must be a class, an integer or its name, got {y!r}")
    return y


def _filled(items: Iterator[tuple[Array, Any]], size: int, limit_gib: float, name: str) -> tuple[Array, list[Any]]:
    """(N, ...) inputs and N labels of as many items; refused before the second where they are too large."""
    labels: list[Any] = []
    inputs: Array = np.empty(0)
    for row, (x, y) in enumerate(items):
        if row == 0:
            needed = size * max(1, math.prod(x.shape)) * min(x.itemsize, 4 if x.dtype.kind == "f" else 8) / 2**30
            if needed > limit_gib:
                raise InputError(
                    f"{name}: {size} items of {x.shape} {x.dtype} take {needed:.1f} GiB in memory, and limit_gib is"
                    f" {limit_gib:g}: raise it, take a Subset, give uint8 pictures (a quarter of floats), or keep them"
                    " in a folder or table for data.load"
                )
            inputs = np.empty((size, *x.shape), dtype=np.float32 if x.dtype.kind == "f" else x.dtype)
        if (x.dtype == np.uint8) != (inputs.dtype == np.uint8) or (x.dtype.kind == "f") != (inputs.dtype.kind == "f"):
            raise InputError(f"{name}: x must be of one type, {inputs.dtype} as the first; item {row} is {x.dtype}")
        if x.shape != inputs.shape[1:]:
            raise InputError(
                f"{name}: x must be of one shape, {inputs.shape[1:]} as the first; item {row} has {x.shape}: pad or"
                " resize them all alike, in the dataset or in collate_fn"
            )
        inputs[row] = x
        labels.append(_label(y, f"{name}: item {row}"))
    return inputs, labels


def _check_repeats(read: Callable[[int], Any], indices: list[int], name: str) -> None:
    """Refuses a dataset that gives another x for the same index the second time."""
    for index in indices:
        first, second = (_input(_pair(read(index), name)[0]) for _ in range(2))
        if first.shape != second.shape or not np.array_equal(first, second, equal_nan=first.dtype.kind == "f"):
            raise InputError(
                f"{name}: item {index} is another one each time it is read: a random transform would be frozen as it is"
                " drawn now. Leave it out, and augment uint8 pictures by preprocessing=Preprocessing(pad=4, flip=True)"
            )


def _source_rows(dataset: Any, rows: IntArray) -> IntArray:
    """Indices in the dataset that a `Subset` (of a `Subset`) is a part of."""
    while isinstance(dataset, Subset):
        rows = np.asarray(dataset.indices, dtype=np.int64)[rows]
        dataset = dataset.dataset
    return rows.astype(np.int64)


def _classes_of(dataset: Any) -> tuple[str, ...] | None:
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    classes = getattr(dataset, "classes", None)
    if isinstance(classes, (list, tuple)) and len(classes) > 1 and all(isinstance(name, str) for name in classes):
        return tuple(classes)
    return None
