"""What a teacher says of every view of every example, kept once for all its students.

The augmentation has finitely many outcomes, and what a teacher says of one of them is the same whichever student asks,
at whatever temperature. Predictions are kept as float16 and used as float16 by whoever makes them too, so that a
student is the same, bit for bit, whether they were stored before, or by whom, or are not stored at all.

For that, a prediction must not depend on the batch that it was made in. A network's arithmetic does change with the
shape of its batch (a batch of one is computed in another order than one of 32), but not with what else is in it. So the
teacher is always asked in blocks of one shape, the last of them filled up. A teacher of which that is not true, such
as one whose batch norm has no running statistics, is found out by asking it twice, and its predictions are not stored.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robustdistill import models
from robustdistill.data.batches import Batch
from robustdistill.data.stream import VIEWS, Loaded
from robustdistill.environment import environment
from robustdistill.errors import InputError, StaleStoreError
from robustdistill.files import write_json
from robustdistill.training.rowfile import RowFile
from robustdistill.training.spec import differences

logger = logging.getLogger(__name__)

ViewsChoice = Path | str | Literal["off"] | None

SCHEMA = 1
LIMIT_BYTES = 20 * 2**30  # Of all stores in the user's cache folder. A folder that is named has the disk's limit alone.
_ABOUT, _ROWS = "about.json", "rows.f16"
_LOWEST = -65504.0  # of float16
_SIGN = -(2**15)  # the highest bit of a word
_LAST_FINITE = np.array([_LOWEST], dtype=np.float16).view(np.int16)[0]  # as a word; above it are infinity and NaN


class Codec(Protocol):
    """How logits become the words of a row, each with its highest bit set, and words logits."""

    classes: int
    width: int

    def sound(self, words: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
        """(B, W) words -> (B,) whether each row is what `encode` can have made: a disk may have changed it."""
        ...

    def encode(self, logits: Tensor) -> Tensor:
        """(B, C) float32 -> (B, W) int16."""
        ...

    def decode(self, words: Tensor) -> Tensor:
        """(B, W) int16 -> (B, C) float32."""
        ...


class Dense:
    """All C logits as float16, less the largest of them: none is positive, and no constant takes their precision."""

    def __init__(self, classes: int) -> None:
        self.classes = self.width = classes

    def sound(self, words: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
        return np.asarray((words <= _LAST_FINITE).all(axis=1))

    def encode(self, logits: Tensor) -> Tensor:
        return _negative_halves(logits - logits.amax(dim=1, keepdim=True))

    def decode(self, words: Tensor) -> Tensor:
        return words.view(torch.float16).float()


class Top:
    """The k largest log-probabilities, and what all other classes have together, which is spread over them evenly.

    A row takes 3k + 1 words instead of C. Temperatures act on what is put back, so at T > 1 the even tail weighs other
    than the teacher's own.
    """

    def __init__(self, classes: int, k: int) -> None:
        self.classes, self.k, self.width = classes, k, 3 * k + 1

    def sound(self, words: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
        halves, low, high = words[:, : self.k + 1], words[:, self.k + 1 : 2 * self.k + 1], words[:, 2 * self.k + 1 :]
        indices = (low & 0x7FFF).astype(np.int64) | ((high & 0x7FFF).astype(np.int64) << 15)
        return np.asarray((halves <= _LAST_FINITE).all(axis=1) & (indices < self.classes).all(axis=1))

    def encode(self, logits: Tensor) -> Tensor:
        log_probabilities = torch.log_softmax(logits, dim=1)
        top, indices = log_probabilities.topk(self.k, dim=1)
        rest = log_probabilities.scatter(1, indices, -math.inf).logsumexp(dim=1, keepdim=True)
        halves = _negative_halves(torch.cat([top, rest], dim=1))
        low, high = indices & 0x7FFF, indices >> 15  # 15 bits of a word are free
        return torch.cat([halves, *(part.to(torch.int16) | _SIGN for part in (low, high))], dim=1)

    def decode(self, words: Tensor) -> Tensor:
        halves, low, high = torch.split(words, [self.k + 1, self.k, self.k], dim=1)
        values = halves.contiguous().view(torch.float16).float()
        indices = (low & 0x7FFF).long() | ((high & 0x7FFF).long() << 15)
        tail = values[:, -1:] - math.log(self.classes - self.k)
        return torch.scatter(tail.repeat(1, self.classes), 1, indices, values[:, :-1])


def _negative_halves(values: Tensor) -> Tensor:
    """Values that are at most zero as the bits of float16; zero becomes −0, whose bits are not those of a hole."""
    return values.clamp(min=_LOWEST).half().view(torch.int16) | _SIGN


def codec(classes: int, top: int | None) -> Codec:
    """The codec of C classes; of the `top` largest where that is given.

    Raises:
        InputError: `top` is not below C.
    """
    if top is None:
        return Dense(classes)
    if not 1 <= top < classes:
        raise InputError(f"teacher_top must lie in 1..{classes - 1}, below the number of classes, got {top}")
    return Top(classes, top)


def block_size(device: torch.device) -> int:
    """Examples that a teacher is asked for at once: what is fast on a CPU is small, on a GPU large."""
    return 32 if device.type == "cpu" else 128


def ask_in_blocks(teacher: Callable[[Tensor], Tensor], inputs: Tensor, classes: int) -> Tensor:
    """(B, C) float32 what `teacher` says of `inputs` (B, ...), in blocks of one shape and one layout in memory."""
    size, layout = block_size(inputs.device), torch.contiguous_format
    if inputs.ndim == 4:
        layout = torch.channels_last
    answers = [torch.empty((0, classes), device=inputs.device)]
    for start in range(0, len(inputs), size):
        part = inputs[start : start + size]
        block = torch.empty((size, *part.shape[1:]), dtype=part.dtype, device=part.device, memory_format=layout)
        block[: len(part)] = part
        block[len(part) :] = part[:1]
        answers.append(teacher(block)[: len(part)].float())
    return torch.cat(answers)


class Views:
    """A store of one teacher's predictions by (example, view), filled as views are first met.

    Several processes may use one at once. Reading and writing happen on the host; on another device nothing waits for
    it, as long as batches say on the host what they show.

    Attributes:
        folder: where it lies.
        asked: predictions that were wanted so far.
        found: those of them that were there.
    """

    def __init__(self, folder: Path, rows: RowFile, views: int, codec: Codec) -> None:
        self.folder, self.views, self.codec = folder, views, codec
        self.asked = self.found = 0
        self._rows: RowFile = rows
        self._readable = self._writable = True
        self._pending: deque[tuple[Any, Tensor, Any]] = deque()

    def logits(self, batch: Batch, ask: Callable[[Tensor], Tensor]) -> Tensor:
        """(B, C) float32 what the teacher says of a batch; `ask` is called with the inputs that nobody met before."""
        positions, views = batch.keys or (batch.positions.cpu(), batch.views.cpu())
        rows = (positions * self.views + views).numpy()
        stored, whole = self._read(rows)
        whole &= self.codec.sound(stored)
        self.asked, self.found = self.asked + len(rows), self.found + int(whole.sum())
        words, device = torch.from_numpy(stored), batch.inputs.device
        if device.type != "cpu":
            words = words.pin_memory().to(device, non_blocking=True)
        if not whole.all():
            missing = torch.from_numpy((~whole).nonzero()[0])
            places = missing if device.type == "cpu" else missing.pin_memory().to(device, non_blocking=True)
            made = self.codec.encode(ask(batch.inputs[places]))
            words[places] = made
            self._keep(rows[missing.numpy()], made)
        return self.codec.decode(words)

    def _read(self, rows: Any) -> tuple[Any, Any]:
        try:
            return self._rows.read(rows)
        except OSError as error:
            if self._readable:
                logger.warning("%s cannot be read (%s); the teacher is asked instead", self.folder, error)
            self._readable = False
            return np.zeros((len(rows), self.codec.width), dtype=np.int16), np.zeros(len(rows), dtype=bool)

    def _keep(self, rows: Any, words: Tensor) -> None:
        if words.device.type == "cpu":
            self._write(rows, words)
            return
        # Written later, when the copy has arrived; what has not when the program ends is made again by the next one.
        host = torch.empty_like(words, device="cpu", pin_memory=True).copy_(words, non_blocking=True)
        event = torch.Event(words.device)
        event.record(torch.accelerator.current_stream(words.device))
        self._pending.append((rows, host, event))
        while self._pending and self._pending[0][2].query():
            self._write(*self._pending.popleft()[:2])

    def _write(self, rows: Any, words: Tensor) -> None:
        if not self._writable:
            return
        try:
            self._rows.write(rows, words.numpy())
        except OSError as error:
            self._writable = False
            logger.warning("no more teacher predictions are stored (%s); training goes on with the same numbers", error)


def cache_folder() -> Path:
    """Where stores lie by default: `robustdistill/views` in the user's cache folder (XDG_CACHE_HOME, or ~/.cache)."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root).expanduser() / "robustdistill" / "views"


def open_views(
    choice: ViewsChoice, teacher: nn.Module, train: Loaded, codec: Codec, ask: Callable[[Tensor], Tensor]
) -> Views | None:
    """The store of `teacher` on the training examples, made where there is none yet.

    Args:
        choice: a folder for stores, "off", or None for the user's cache folder, where there is one with room enough.
        teacher: whose predictions are kept.
        train: the examples and their augmentation.
        codec: how predictions are kept.
        ask: (B, ...) inputs -> (B, C) the teacher's logits.

    Returns:
        None where nothing is to be stored; why is logged.

    Raises:
        InputError: the folder that is named cannot be used, or the views are too many for it.
        StaleStoreError: what is stored there is of another teacher or other data.
    """
    if choice == "off":
        return None
    root = cache_folder() if choice is None else Path(choice).expanduser()
    try:
        _check_possible(train, codec, ask, root, named=choice is not None)
        about = identity(teacher, train, codec)
        return open_store(root, about, train.views, codec)
    except (OSError, _Impossible) as error:
        if choice is not None:
            raise InputError(f"views: {root} cannot keep the teacher's predictions: {error}") from error
        logger.info("the teacher is asked at every step, its predictions are not stored: %s", error)
        return None


class _Impossible(Exception):  # noqa: N818, it says why there is no store, which is no error by default
    pass


def _check_possible(train: Loaded, codec: Codec, ask: Callable[[Tensor], Tensor], root: Path, *, named: bool) -> None:
    if train.views >= VIEWS:
        raise _Impossible("random crops are drawn anew each time and no view is met twice; crops=K fixes K of them")
    size = 2 * len(train) * train.views * codec.width
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    limit = free if named else min(LIMIT_BYTES, free // 2)
    if size > limit:
        raise _Impossible(
            f"{len(train)} examples x {train.views} views x {2 * codec.width} bytes are {size / 2**30:.1f} GiB, and"
            f" {limit / 2**30:.1f} GiB is the limit there"
            + ("" if named else "; name a folder of a larger disk with views=")
        )
    if not _rows_are_independent(train, codec, ask):
        raise _Impossible("what the teacher says of an example depends on the batch, or changes from call to call")


def _rows_are_independent(train: Loaded, codec: Codec, ask: Callable[[Tensor], Tensor]) -> bool:
    """Whether a few examples get the same words alone in their block, and among others in another place of it."""
    inputs = train.sample(5).inputs
    alone = codec.encode(torch.cat([ask(inputs[i : i + 1]) for i in range(len(inputs))]))
    return torch.equal(codec.encode(ask(inputs.flip(0))).flip(0), alone)


def identity(teacher: nn.Module, train: Loaded, codec: Codec) -> dict[str, Any]:
    """Everything that decides the numbers of a store."""
    device = train.device
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else environment()["processor"]
    return {
        "schema": SCHEMA,
        "teacher": models.code_version(teacher),
        "data": train.examples.fingerprint,
        "shape": [len(train), train.views, codec.classes],
        "top": codec.k if isinstance(codec, Top) else None,
        "block": block_size(device),
        "machine": [torch.__version__, device.type, where, torch.backends.cpu.get_cpu_capability()],
        "threads": torch.get_num_threads(),
    }


def open_store(root: Path, about: dict[str, Any], views: int, codec: Codec) -> Views:
    """The store of this identity below `root`, made where there is none yet.

    Raises:
        StaleStoreError: the folder of that name holds another one, or a damaged one.
        OSError: it cannot be opened.
    """
    text = json.dumps(about, sort_keys=True)
    folder = root / hashlib.sha256(text.encode()).hexdigest()[:16]
    rows, path = about["shape"][0] * views, folder / _ABOUT
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(found, dict):
                raise ValueError(f"expected an object, got {type(found).__name__}")
        except (ValueError, RecursionError) as error:
            raise StaleStoreError(f"{path} is damaged ({error}): delete that folder, and it is made anew") from error
        if found != about:
            raise StaleStoreError(
                f"{folder} holds predictions of another teacher or other data; they differ in"
                f" {differences(found, about)}: delete that folder, or name another one with views="
            )
        os.utime(path)
    elif root == cache_folder():
        _make_room(root, 2 * rows * codec.width)
    folder.mkdir(parents=True, exist_ok=True)
    store = Views(folder, RowFile(folder / _ROWS, rows, codec.width), views, codec)
    if not path.is_file():
        write_json(path, about)
    logger.info("the teacher's predictions are kept in %s (%.3g GB when full)", folder, 2e-9 * rows * codec.width)
    return store


def _make_room(root: Path, size: int) -> None:
    """Deletes stores in the cache, the longest unused first, until one of `size` bytes fits.

    Those who are reading one go on doing so: its file is gone only when the last has closed it.
    """
    stores = sorted((about.stat().st_mtime, about.parent) for about in root.glob(f"*/{_ABOUT}"))
    sizes = {folder: (folder / _ROWS).stat().st_size for _, folder in stores if (folder / _ROWS).is_file()}
    for _, folder in stores:
        if sum(sizes.values()) + size <= LIMIT_BYTES:
            return
        if sizes.pop(folder, 0):
            logger.info("%s is deleted: the stores of teachers' predictions are limited in size", folder)
            shutil.rmtree(folder, ignore_errors=True)
