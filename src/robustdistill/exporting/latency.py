"""What a model costs: parameters, bytes, and the time of an inference on the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from robustdistill.exporting.deployed import Deployed

BATCH = 64
_WARM_UP, _FEWEST, _MOST = 3, 5, 200


@dataclass(frozen=True)
class Timing:
    """Seconds of one call on a batch: median and quartiles over rounds.

    Attributes:
        batch: examples in the call.
        rounds: calls that were timed.
        median, low, high: half of the rounds lie between low and high.
    """

    batch: int
    rounds: int
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Subject:
    """A model to be timed.

    Attributes:
        name: such as "student".
        engine: such as "onnxruntime 1.20".
        parameters: weights that are trained.
        size: in bytes, of its file or its weights.
        call: one inference on a batch of inputs as they are stored.
    """

    name: str
    engine: str
    parameters: int
    size: int
    call: Callable[[npt.NDArray[Any]], object]


@dataclass(frozen=True)
class Cost:
    """A subject, and the time of one example and of a batch."""

    name: str
    engine: str
    parameters: int
    size: int
    single: Timing
    batch: Timing

    @property
    def timings(self) -> tuple[Timing, Timing]:
        """Of one example and of a batch."""
        return self.single, self.batch


def in_torch(name: str, deployed: Deployed, parameters: int) -> Subject:
    """A deployed model as torch runs it, eagerly; its size is that of its weights."""

    def call(inputs: npt.NDArray[Any]) -> object:
        with torch.inference_mode():
            return deployed(torch.from_numpy(inputs))

    size = sum(value.numel() * value.element_size() for value in deployed.model.state_dict().values())
    return Subject(name, f"torch {torch.__version__.partition('+')[0]}", parameters, size, call)


def measure(
    subjects: Sequence[Subject], inputs: npt.NDArray[Any], *, threads: int = 1, seconds: float = 2.0
) -> list[Cost]:
    """Times all subjects on one example and on all of `inputs`, in turn, so that a busy spell hits all alike.

    Args:
        subjects: what to time.
        inputs: (B, ...) as they are stored; the first is the single example.
        threads: of torch. Subjects of other engines have theirs set where they are made.
        seconds: for each subject and batch size, within 5 to 200 rounds.
    """
    with _torch_threads(threads):
        singles = _timings(subjects, inputs[:1], seconds)
        batches = _timings(subjects, inputs, seconds)
    return [
        Cost(subject.name, subject.engine, subject.parameters, subject.size, single, batch)
        for subject, single, batch in zip(subjects, singles, batches, strict=True)
    ]


def _timings(subjects: Sequence[Subject], inputs: npt.NDArray[Any], seconds: float) -> list[Timing]:
    for _ in range(_WARM_UP):
        for subject in subjects:
            subject.call(inputs)
    taken: list[list[float]] = [[] for _ in subjects]
    end = time.perf_counter() + seconds * len(subjects)
    order = list(zip(subjects, taken, strict=True))
    while len(taken[0]) < _FEWEST or (len(taken[0]) < _MOST and time.perf_counter() < end):
        order.append(order.pop(0))  # a large model leaves the caches cold for whichever comes after it
        for subject, times in order:
            start = time.perf_counter()
            subject.call(inputs)
            times.append(time.perf_counter() - start)
    quartiles = [np.quantile(times, (0.25, 0.5, 0.75)).tolist() for times in taken]
    return [
        Timing(len(inputs), len(times), median, low, high)
        for times, (low, median, high) in zip(taken, quartiles, strict=True)
    ]


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
