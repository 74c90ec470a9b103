"""Class-balanced sampling for anybody's DataLoader."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Sampler

from robustdistill.errors import InputError


def class_uniform(labels: Tensor, size: int, generator: torch.Generator | None = None) -> Tensor:
    """(size,) int64 positions drawn with replacement: a class that occurs, uniformly, then one of its examples.

    Takes O(N log N + size) and no (C, N) table, whatever the number of classes.

    Args:
        labels: (N,) integers >= 0.
        size: how many to draw.
        generator: the source of randomness, on the CPU; torch's global one by default.

    Raises:
        InputError: labels are not (N,) integers of at least 0, or size is negative.
    """
    if labels.ndim != 1 or len(labels) == 0 or labels.is_floating_point() or int(labels.min()) < 0:
        raise InputError(f"labels must be (N,) integers of at least 0, got {labels.dtype} of {tuple(labels.shape)}")
    if size < 0:
        raise InputError(f"size must be at least 0, got {size}")
    labels = labels.cpu()
    by_class = torch.argsort(labels, stable=True)
    _, counts = torch.unique_consecutive(labels[by_class], return_counts=True)
    starts = counts.cumsum(0) - counts
    chosen = torch.randint(len(counts), (size,), generator=generator)
    # A uniform number in [0, 1) times the class's count, rounded down; double, so that it never rounds up to the count.
    share = torch.rand(size, generator=generator, dtype=torch.float64)
    return by_class[starts[chosen] + (share * counts[chosen]).long()]


class ClassBalancedSampler(Sampler[int]):
    """Draws every class alike, with replacement: `DataLoader(data, batch_size, sampler=ClassBalancedSampler(labels))`.

    What an epoch draws depends on (seed, epoch) alone. The epoch moves on by itself after each pass, so that no two
    passes are alike; `set_epoch` sets it, to repeat one or to go on with a run.

    Args:
        labels: (N,) integers >= 0, as an array, a list or a tensor.
        num_samples: draws in an epoch; N by default.
        seed: at least 0.

    Raises:
        InputError: labels are not (N,) integers, num_samples is below 1 or seed is negative.
    """

    def __init__(
        self, labels: Tensor | npt.NDArray[Any] | Sequence[int], num_samples: int | None = None, seed: int = 0
    ) -> None:
        if not isinstance(labels, Tensor):
            array = np.array(labels)
            if array.dtype.kind not in "iu" or (array.dtype.itemsize > 4 and array.dtype.kind == "u"):
                raise InputError(f"labels must be (N,) integers of at least 0, got {array.dtype} of {array.shape}")
            labels = torch.from_numpy(array)
        self.labels = labels
        class_uniform(self.labels, 0)  # refuses bad labels here, not at the first pass
        self.num_samples = len(self.labels) if num_samples is None else num_samples
        if self.num_samples < 1:
            raise InputError(f"num_samples must be at least 1, got {self.num_samples}")
        if seed < 0:
            raise InputError(f"seed must be at least 0, got {seed}")
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Makes the next pass that of `epoch`."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        positions = class_uniform(self.labels, self.num_samples, epoch_generator(self.seed, self.epoch))
        self.epoch += 1
        yield from positions.tolist()


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """A generator of its own for each (seed, epoch), on the CPU; any integers."""
    digest = hashlib.sha256(f"{seed} {epoch}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)
