"""Examples on a device, and training batches made there: shuffled, cut and mirrored in one indexing, then normalised
and, where the data say so, resized.

The augmentation has finitely many outcomes, so a batch says which *view* of each example it shows: a number below
`Preprocessing.views`. Order and views of an epoch depend on (seed, epoch) alone: not on the device, and not on what ran
before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from robustdistill.data.samplers import class_uniform as draw_class_uniform
from robustdistill.data.samplers import epoch_generator
from robustdistill.data.splits import Examples, IntArray
from robustdistill.errors import InputError

_BLOCKS = 32  # shuffled together, where pictures are read in blocks


@dataclass(frozen=True)
class Batch:
    """What one optimiser step sees.

    Attributes:
        positions: (B,) positions of the examples in the split.
        views: (B,) which view of each is shown; all equal to `DeviceExamples.clean_view` where nothing is augmented.
        inputs: (B, channels, H, W) normalised float32 pictures, or (B, ...) features.
        size: examples in the optimiser step over all processes; B where there is one.
        targets: (B,) labels or (B, C) probabilities, once somebody has said what they are.
        labels: (B,) the examples' own labels, where they have them.
        teacher_logits: (B, C) a teacher's untempered logits, where the targets come from one.
        keys: positions and views once more, on the host: what a device was told need not be asked of it.
    """

    positions: Tensor
    views: Tensor
    inputs: Tensor
    size: int
    targets: Tensor | None = None
    labels: Tensor | None = None
    teacher_logits: Tensor | None = None
    keys: tuple[Tensor, Tensor] | None = None


class DeviceExamples:
    """One split, resident on `device`: pictures as uint8, so that CIFAR-10 takes 235 MB with its padding.

    They keep their stored size there. Those that are to be resized are resized batch by batch, after they were cut and
    mirrored: at 224 pixels TinyImageNet takes 1.6 GB so, and not 16 GB.
    """

    def __init__(self, examples: Examples, device: torch.device | str = "cpu") -> None:
        self.examples, self.device = examples, torch.device(device)
        self.labels = (
            None
            if examples.labels is None
            else torch.from_numpy(np.require(examples.labels, requirements=["C", "W"])).to(self.device)
        )
        self._is_picture = examples.inputs.dtype.name == "uint8"
        self._pad = examples.preprocessing.pad if self._is_picture else 0
        self._flip = examples.preprocessing.flip and self._is_picture
        self._resize = examples.preprocessing.resize if self._is_picture else None
        inputs = torch.from_numpy(np.require(examples.inputs, requirements=["C", "W"])).to(self.device)
        if self._is_picture:
            mean, std = (
                torch.tensor(values, device=self.device)
                for values in (examples.preprocessing.mean, examples.preprocessing.std)
            )
            self._scale, self._shift = (1 / (255 * std))[:, None, None], (-mean / std)[:, None, None]
            inputs = self._windows(inputs)
        self._inputs = inputs

    def _windows(self, inputs: Tensor) -> Tensor:
        """Every cut of every padded picture as a strided view, (N, 2·pad + 1, 2·pad + 1, channels, H, W); no copies."""
        height, width = inputs.shape[1:3]
        padded = F.pad(inputs, (0, 0, self._pad, self._pad, self._pad, self._pad))
        return padded.unfold(1, height, 1).unfold(2, width, 1)

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def views(self) -> int:
        """The number of views of an example."""
        return self.examples.preprocessing.views if self._is_picture else 1

    @property
    def clean_view(self) -> int:
        """The view that is the picture itself: the central cut, not mirrored."""
        return self._pad * (2 * self._pad + 1) + self._pad

    def batch(self, positions: Tensor, views: Tensor | None = None, *, size: int | None = None) -> Batch:
        """The examples at `positions` (B,), each in its view (B,); the clean one by default."""
        if views is None:
            views = torch.full_like(positions, self.clean_view)
        labels = None if self.labels is None else self.labels[positions]
        return Batch(positions, views, self._inputs_at(positions, views), size or len(positions), labels=labels)

    def sample(self, count: int) -> Batch:
        """The first `count` examples, unaugmented, or all where there are fewer: to try a model on."""
        return self.batch(torch.arange(min(count, len(self)), device=self.device))

    def _inputs_at(self, positions: Tensor, views: Tensor) -> Tensor:
        if not self._is_picture:
            return self._inputs[positions]
        side = 2 * self._pad + 1
        window = views % side**2
        pixels = self._inputs[positions, window // side, window % side]
        if self._flip:
            mirrored = (views >= side**2)[:, None, None, None]
            pixels = torch.where(mirrored, pixels.flip(-1), pixels)
        normalised = pixels.float().mul_(self._scale).add_(self._shift)
        return normalised if self._resize is None else resized(normalised, self._resize)

    def epoch(
        self,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        class_uniform: bool = False,
        rank: int = 0,
        processes: int = 1,
    ) -> Iterator[Batch]:
        """Shuffled, augmented batches that cover every example once, or that draw every class alike.

        Args:
            batch_size: examples in an optimiser step, over all processes together. The last batch may be smaller, or
                larger; see `batch_bounds`.
            seed: of the run.
            epoch: counted from 0.
            class_uniform: draw as many examples as there are with replacement, each class with the same chance.
            rank: this process; it gets every `processes`-th example of each batch.
            processes: the number of processes.

        Raises:
            InputError: the examples carry no labels to draw by, or as in `batch_bounds`.
        """
        drawn = epoch_order(self.examples, range(self.views), seed=seed, epoch=epoch, class_uniform=class_uniform)
        order, views = (numbers.to(self.device) for numbers in drawn)
        for share, size in shares(len(self), batch_size, rank, processes):
            batch = self.batch(order[share], views[share], size=size)
            yield replace(batch, keys=(drawn[0][share], drawn[1][share]))

    def clean(self, batch_size: int, positions: Tensor | None = None) -> Iterator[Batch]:
        """Unaugmented batches in order, of all examples or of those at `positions` (M,)."""
        if positions is None:
            positions = torch.arange(len(self), device=self.device)
        for start in range(0, len(positions), batch_size):
            yield self.batch(positions[start : start + batch_size])


def resized(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, channels, H, W) floating-point pictures at another (H, W): bilinear, antialiased where a side shrinks.

    What becomes of a picture does not depend on the others of its batch, nor on the layout in memory, to the last bit.
    """
    if pictures.shape[2:] == size:
        return pictures
    shrinks = size[0] < pictures.shape[2] or size[1] < pictures.shape[3]
    return F.interpolate(pictures, size=size, mode="bilinear", align_corners=False, antialias=shrinks)


def epoch_order(
    examples: Examples,
    views: range,
    *,
    seed: int,
    epoch: int,
    class_uniform: bool = False,
    blocks: IntArray | None = None,
) -> tuple[Tensor, Tensor]:
    """(N,) positions in the order of an epoch and (N,) a view out of `views` for each, decided by (seed, epoch) alone.

    Args:
        examples: what is drawn from.
        views: those that training shows.
        seed: of the run.
        epoch: counted from 0.
        class_uniform: draw as many examples as there are with replacement, each class with the same chance.
        blocks: (N,) which examples are read from disk together. So many blocks at a time are then shuffled together: a
            batch reads a few blocks, and not one for each of its pictures.

    Raises:
        InputError: the examples carry no labels to draw by.
    """
    generator = epoch_generator(seed, epoch)
    if class_uniform:
        order = draw_class_uniform(torch.from_numpy(examples.require_labels().copy()), len(examples), generator)
    else:
        order = torch.randperm(len(examples), generator=generator)
        if blocks is not None:
            order = _by_blocks(order, torch.from_numpy(blocks), generator)
    # A view belongs to the draw: an example that is drawn twice is shown in two of them.
    return order, torch.randint(views.start, views.stop, (len(examples),), generator=generator)


def _by_blocks(order: Tensor, blocks: Tensor, generator: torch.Generator) -> Tensor:
    turn = torch.randperm(int(blocks.max()) + 1, generator=generator)  # each block's place in the order of blocks
    window = (turn // _BLOCKS)[blocks[order]]
    return order[torch.argsort(window, stable=True)]


def shares(count: int, batch_size: int, rank: int = 0, processes: int = 1) -> list[tuple[slice, int]]:
    """This process's part of each batch of an epoch, as a slice of its order, and the size of the whole batch.

    Raises:
        InputError: as `batch_bounds`.
    """
    bounds = batch_bounds(count, batch_size, processes)
    return [(slice(start + rank, stop, processes), stop - start) for start, stop in bounds]


def batch_bounds(count: int, batch_size: int, processes: int = 1) -> list[tuple[int, int]]:
    """(start, stop) of each batch of an epoch, whatever the number of processes that share it.

    A last batch of one example is joined to the one before, since batch norm cannot take it. Of several processes some
    may get nothing of a last batch that has fewer examples than there are processes.

    Raises:
        InputError: there are more processes than examples in a batch or in all.
    """
    if processes > 1 and min(count, batch_size) < processes:
        raise InputError(
            f"{processes} processes need at least {processes} examples, one each, in a batch and in all;"
            f" got batch_size {batch_size} and {count} examples"
        )
    starts = list(range(0, count, batch_size))
    if len(starts) > 1 and count - starts[-1] < 2:
        starts.pop()
    return list(zip(starts, [*starts[1:], count], strict=True))
