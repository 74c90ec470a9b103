"""Examples that stay encoded, as the training loop reads them: decoded and cut by worker processes, batch by batch.

`StreamedExamples` answers to what `DeviceExamples` answers to, so that one loop serves both; `on_device` chooses.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from robustdistill.data.batches import Batch, DeviceExamples, epoch_order, shares
from robustdistill.data.encoded import EncodedExamples, EncodedPictures
from robustdistill.data.pictures import CLEAN_VIEW
from robustdistill.data.splits import Examples, IntArray
from robustdistill.environment import RUNS_HERE, cores
from robustdistill.errors import InputError

VIEWS = 2**62  # more than anybody sees: a view is the seed of its crop
# Where launchers, and grids, tell a process how many of them run on its machine.
_LAUNCHERS = ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_LOCAL_SIZE")
_TOLD = (*_LAUNCHERS, RUNS_HERE)

_resident: WeakValueDictionary[tuple[int, str], DeviceExamples] = WeakValueDictionary()


def on_device(examples: Examples, device: torch.device | str = "cpu", workers: int | None = None) -> Loaded:
    """Examples as the training loop reads them: resident on the device, or streamed to it where they are encoded.

    What somebody else has resident there is shared.
    """
    if isinstance(examples, EncodedExamples):
        return StreamedExamples(examples, device, workers)
    place = id(examples), str(torch.device(device))  # whose number lives as long as they do, which `found` holds
    found = _resident.get(place)
    if found is None:
        found = _resident[place] = DeviceExamples(examples, device)
    return found


def augmented(examples: Examples) -> bool:
    """Whether there is more than one view of an example."""
    if isinstance(examples, EncodedExamples):
        return examples.pictures.fit == "crop"
    return examples.inputs.dtype == np.uint8 and examples.preprocessing.views > 1


def default_workers() -> int:
    """Decoding processes for each process that trains here: its share of the cores, at least 1 and at most 16."""
    told = (os.environ.get(name, "") for name in _TOLD)
    here = max((int(number) for number in told if number.isdigit()), default=1)
    return max(1, min(16, cores() // max(1, here)))


class PictureDataset(Dataset[Tensor]):
    """Pictures by (position, view), as (H, W, 3) uint8; the dataset that worker processes get."""

    def __init__(self, pictures: EncodedPictures) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        return self.__getitems__(np.array([key]))[0]

    def __getitems__(self, keys: IntArray) -> Tensor:
        """(B, H, W, 3) of keys (B, 2), a whole batch at once: some stores read many pictures as cheaply as one."""
        return torch.from_numpy(self.pictures.pixels(keys[:, 0], keys[:, 1].tolist()))


class StreamedExamples:
    """One split whose pictures are decoded as they are needed, by `workers` processes; labels are on `device`.

    A training view is a random resized crop, mirrored half of the time: any one, or one of the picture's K fixed ones
    where the examples were loaded with crops=K. The clean view is the centre crop. Views are numbers, so that a teacher
    can be shown the same one, and what an epoch shows depends on (seed, epoch) alone: not on the device, nor on the
    number of workers.

    Args:
        examples: encoded examples, as `load("imagenet")` gives.
        device: where batches go.
        workers: decoding processes; 0 decodes here. By default as many as there are cores, shared out among the
            processes that train on this machine; 16 at most.
    """

    def __init__(
        self, examples: EncodedExamples, device: torch.device | str = "cpu", workers: int | None = None
    ) -> None:
        if workers is not None and workers < 0:
            raise InputError(f"workers must be at least 0, got {workers}")
        self.examples, self.device = examples, torch.device(device)
        self.labels = None if examples.labels is None else torch.from_numpy(examples.labels).to(self.device)
        self.workers = default_workers() if workers is None else workers
        self._dataset = PictureDataset(examples.pictures)
        self._blocks = examples.pictures.blocks()
        mean, std = (
            torch.tensor(values, device=self.device)
            for values in (examples.preprocessing.mean, examples.preprocessing.std)
        )
        self._scale, self._shift = (1 / (255 * std))[:, None, None], (-mean / std)[:, None, None]
        self._wanted = _Wanted()
        self._loader: DataLoader[Tensor] | None = None
        self._busy = False

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def views(self) -> int:
        """The number of views of an example, the clean one among them."""
        pictures = self.examples.pictures
        if pictures.fit != "crop":
            return 1
        return VIEWS if pictures.crops is None else pictures.crops + 1

    @property
    def clean_view(self) -> int:
        """The view that is not augmented."""
        return CLEAN_VIEW

    def batch(self, positions: Tensor, views: Tensor | None = None, *, size: int | None = None) -> Batch:
        """The examples at `positions` (B,), each in its view (B,), decoded here; the clean one by default."""
        keys = _keys(positions, views)
        return self._batch(keys, self._dataset.__getitems__(keys), size)

    def sample(self, count: int) -> Batch:
        """The first `count` examples, unaugmented, or all where there are fewer: to try a model on."""
        return self.batch(torch.arange(min(count, len(self))))

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
        """Shuffled, augmented batches, as `DeviceExamples.epoch`.

        The clean view is not among those shown, unless it is the only one.
        """
        shown = range(CLEAN_VIEW + 1, self.views) if self.views > 1 else range(CLEAN_VIEW, CLEAN_VIEW + 1)
        order, views = epoch_order(
            self.examples, shown, seed=seed, epoch=epoch, class_uniform=class_uniform, blocks=self._blocks
        )
        keys, parts = _keys(order, views), shares(len(self), batch_size, rank, processes)
        yield from self._stream([keys[share] for share, _ in parts], [size for _, size in parts])

    def clean(self, batch_size: int, positions: Tensor | None = None) -> Iterator[Batch]:
        """Unaugmented batches in order, of all examples or of those at `positions` (M,)."""
        keys = _keys(torch.arange(len(self)) if positions is None else positions, None)
        batches = [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
        yield from self._stream(batches, [len(batch) for batch in batches])

    def _stream(self, batches: list[IntArray], sizes: list[int]) -> Iterator[Batch]:
        if self.workers == 0 or len(batches) <= 1:
            for keys, size in zip(batches, sizes, strict=True):
                yield self._batch(keys, self._dataset.__getitems__(keys), size)
            return
        # Workers are started once and kept: validation is read many times an epoch. While one pass is under way another
        # one over the same split gets workers of its own, since a DataLoader serves one pass at a time.
        own = self._busy
        wanted = _Wanted() if own else self._wanted
        if own:
            loader = self._new_loader(wanted, keep=False)
        else:
            loader = self._loader = self._loader or self._new_loader(wanted, keep=True)
            self._busy = True
        wanted.batches = batches
        try:
            for pixels, keys, size in zip(_pass(loader), batches, sizes, strict=True):
                yield self._batch(keys, pixels, size)
        finally:
            if not own:
                self._busy = False

    def _new_loader(self, wanted: _Wanted, *, keep: bool) -> DataLoader[Tensor]:
        return DataLoader(
            self._dataset,
            batch_sampler=wanted,  # type: ignore[arg-type]  # an array is as good as a list: `__getitems__` gets it
            num_workers=self.workers,
            collate_fn=_as_it_is,
            pin_memory=self.device.type == "cuda",
            persistent_workers=keep,
            generator=torch.Generator(),  # else each pass would draw from torch's global one
        )

    def _batch(self, keys: IntArray, pixels: Tensor, size: int | None) -> Batch:
        # From pinned memory, as the pixels: a copy from elsewhere would wait for the device.
        pairs = torch.from_numpy(keys)
        pairs = pairs.pin_memory() if self.device.type == "cuda" else pairs
        positions, views = pairs.to(self.device, non_blocking=True).unbind(dim=1)
        inputs = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float().mul_(self._scale)
        labels = None if self.labels is None else self.labels[positions]
        on_host = torch.from_numpy(keys).unbind(dim=1)
        return Batch(
            positions, views, inputs.add_(self._shift), size or len(keys), labels=labels, keys=(on_host[0], on_host[1])
        )


class _Wanted(Sampler[IntArray]):
    """The batches of the next pass over a loader whose workers stay."""

    def __init__(self) -> None:
        self.batches: list[IntArray] = []

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[IntArray]:
        return iter(self.batches)


def _pass(loader: DataLoader[Tensor]) -> Iterator[Tensor]:
    # Python 3.12 warns of forking a process with threads. Other ways of starting workers would run the user's script
    # again; these workers only decode, and take no lock that a thread of torch could hold.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*use of fork.*", category=DeprecationWarning)
        return iter(loader)


def _as_it_is(batch: Any) -> Any:
    return batch


def _keys(positions: Tensor, views: Tensor | None) -> IntArray:
    """(B, 2) positions and views, what workers are asked for."""
    pairs = [positions, torch.full_like(positions, CLEAN_VIEW) if views is None else views]
    keys: IntArray = torch.stack([numbers.cpu() for numbers in pairs], dim=1).numpy()
    return keys


Loaded = DeviceExamples | StreamedExamples  # What the training loop reads.
