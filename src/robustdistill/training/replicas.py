"""Several runs in one program: each is its own `fit`, and what they do alike at the same time is done at once.

A GPU is idle for most of a small model's step. So runs of one architecture (repeats, cells of a grid) take their steps
and validate together, as one stack of models (`training.stack`); all the rest each run does by itself, as if it were
alone. To that end every run has a thread, and only one of them moves at a time: from the point where its run waits for
a step or for logits until it waits for the next one. Then the stack does what all of them wait for.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from robustdistill.errors import InputError
from robustdistill.training.stack import Lesson, Stack, StackingError, architecture, settings_of

if TYPE_CHECKING:
    from robustdistill.data.batches import Batch
    from robustdistill.training.step import TrainStep

logger = logging.getLogger(__name__)

T = TypeVar("T")

_here = threading.local()


def train_together(calls: Sequence[Callable[[], T]]) -> list[T | Exception]:
    """Calls functions that call `fit` or `distill`, and trains their runs in one program; meant for GPUs.

    What that buys on yours, `benchmarks/gpu.py` measures; on CPUs it is slower than one run after the other.

    Runs whose models have the same architecture, optimiser settings and batch size are trained as one stack of models;
    objectives, methods, teachers, temperatures, targets and seeds may differ. Each run has its own folder, checkpoints
    and history, and the numbers that it would have alone, but for rounding: a convolution over stacked models adds in
    another order. What cannot be stacked is trained in turns, to the same bits as alone; a log line says why.

    A run that fails (it diverges, or its folder holds another run) leaves the others as they are. A run that goes on
    from a checkpoint and is behind the others catches up first.

    Args:
        calls: functions without arguments, such as `lambda: fit("resnet32", train, val, seed=1)`.

    Returns:
        What each call returned, in their order; the exception, where it raised one.

    Raises:
        InputError: there is no call, several processes train here, or this is called by a run that trains together.
        KeyboardInterrupt: with what was kept, as `fit` says it.

    >>> train_together([lambda: 1, lambda: 2])
    [1, 2]
    """
    if not calls:
        raise InputError("calls must be a list with at least one function, got an empty one")
    if getattr(_here, "replica", None) is not None:
        raise InputError("train_together must not be called by a run that is trained together with others")
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        raise InputError("train_together runs in one process, and several are connected here: start one")
    replicas = [Replica(call, index) for index, call in enumerate(calls)]
    with _as_it_was():
        try:
            for replica in replicas:
                replica.go_on()
            while waiting := [replica for replica in replicas if replica.asked is not None]:
                chosen = _next(waiting)
                for replica, answer in zip(chosen, _answers(chosen, waiting), strict=True):
                    replica.go_on(answer)
        except BaseException:
            for replica in replicas:
                replica.stop()
            said = [str(one.interrupted) for one in replicas if one.interrupted is not None]
            if words := "; ".join(dict.fromkeys(filter(None, said))):
                raise KeyboardInterrupt(words) from None
            raise
    return [replica.result for replica in replicas]


def joint_step(step: TrainStep, batch: Batch, costs: Tensor, weights: Tensor | None) -> Tensor | None:
    """The sum of losses of a step taken together with other runs; None where this run is to take it by itself."""
    replica: Replica | None = getattr(_here, "replica", None)
    return None if replica is None else replica.ask(Lesson(step, batch, costs, weights))


def joint_logits(model: nn.Module, inputs: Tensor) -> Tensor | None:
    """(B, C) of `inputs`, asked together with other runs; None where this run is to ask the model itself."""
    replica: Replica | None = getattr(_here, "replica", None)
    return None if replica is None else replica.ask(Question(model, inputs))


def speaks() -> bool:
    """Whether this run shows its progress: alone it does, and of several the first."""
    replica: Replica | None = getattr(_here, "replica", None)
    return replica is None or replica.index == 0


@dataclass(frozen=True)
class Question:
    """Inputs (B, ...) that a run wants its model's logits for."""

    model: nn.Module
    inputs: Tensor


Answer = Tensor | Exception | None  # None: the run is to find it by itself.


class Replica:
    """One run and the thread that it lives in, which stands still unless `go_on` is being called.

    Attributes:
        asked: what it waits for; None before it begins and once it has ended.
        result: what its call returned, or the exception that it raised.
        interrupted: the KeyboardInterrupt that has ended it.
        step: of the `fit` that it is in.
        stack: the one that its model is part of, if any.
        alone: whether its model was found to be none that can be stacked.
    """

    def __init__(self, call: Callable[[], Any], index: int) -> None:
        self.index = index
        self.asked: Lesson | Question | None = None
        self.result: Any = None
        self.interrupted: BaseException | None = None
        self.step: TrainStep | None = None
        self.stack: Stack | None = None
        self.alone = False
        self.count, self.threads = 0, torch.get_num_threads()
        self._answer: Answer = None
        self._architecture: Hashable = None
        self._random, self._stopping = _random_state(), False
        self._turn, self._rest = threading.Semaphore(0), threading.Semaphore(0)
        # A daemon: a run that hangs must not keep a program alive whose main thread has ended.
        run = contextvars.copy_context().run
        self._thread = threading.Thread(target=run, args=(self._live, call), name=f"replica {index}", daemon=True)

    def go_on(self, answer: Answer = None) -> None:
        """Lets it move until it asks for something or ends, with random numbers of its own."""
        self._answer, self.asked = answer, None
        _set_random_state(self._random)
        if not self._thread.is_alive():
            self._thread.start()
        self._turn.release()
        self._rest.acquire()
        self._random = _random_state()
        if self.asked is None:
            self._leave()

    def stop(self) -> None:
        """Ends it with a KeyboardInterrupt, unless it has ended or never began."""
        self._stopping = True
        while self._thread.is_alive():
            self._turn.release()
            self._thread.join(0.01)

    def ask(self, question: Lesson | Question) -> Tensor | None:
        """Called by the run: waits for the answer; None where the run is to find it by itself."""
        if isinstance(question, Lesson):
            if question.step is not self.step:
                self._leave()
                self.step, self.alone = question.step, False
                self._architecture = architecture(question.step)
            self.count = question.step.count
        self.threads = torch.get_num_threads()  # of this thread
        self.asked = question
        self._rest.release()
        self._turn.acquire()
        if self._stopping:
            raise KeyboardInterrupt
        if isinstance(self._answer, Exception):
            raise self._answer
        if isinstance(question, Lesson):
            self.count += 1
        return self._answer

    @property
    def learns(self) -> bool:
        """Whether it waits for a step, and not for logits."""
        return isinstance(self.asked, Lesson)

    def kind(self) -> Hashable:
        """What it has in common with those that are answered together with it."""
        if isinstance(self.asked, Lesson) and not self.alone:
            batch, rate = self.asked.batch, settings_of(self.asked.step)["lr"]
            return self._architecture, batch.inputs.shape, batch.inputs.device, batch.size, rate, self.threads
        if isinstance(self.asked, Question) and self.stack is not None and self.stack.holds(self.asked.model):
            return id(self.stack), self.asked.inputs.shape, self.threads
        return self.index

    def _leave(self) -> None:
        if self.stack is not None and self.step is not None:
            self.stack.release(self.step)
        self.stack = self.step = None

    def _live(self, call: Callable[[], Any]) -> None:
        self._turn.acquire()
        _here.replica = self
        try:
            self.result = call()
        except Exception as error:
            logger.warning("run %d of those trained together: %s: %s", self.index, type(error).__name__, error)
            self.result = error
        except BaseException as error:
            self.interrupted = error
        finally:
            self._rest.release()


def _next(waiting: Sequence[Replica]) -> list[Replica]:
    """Those whose turn it is: who is behind, who validates before who learns, and of these all that go together."""
    least = min((one.count, one.learns) for one in waiting)
    first = [one for one in waiting if (one.count, one.learns) == least]
    return [one for one in first if one.kind() == first[0].kind()]


def _answers(chosen: Sequence[Replica], waiting: Sequence[Replica]) -> Sequence[Answer]:
    """What these are told; an error of what they do together is told to each."""
    if len(chosen) == 1:
        _leave_empty(chosen[0], waiting)
        return [None]
    torch.set_num_threads(chosen[0].threads)
    try:
        lessons = [one.asked for one in chosen if isinstance(one.asked, Lesson)]
        if lessons:
            stack = _stack(chosen, lessons)
            return stack.learn(lessons) if stack is not None else [None] * len(chosen)
        questions = [one.asked for one in chosen if isinstance(one.asked, Question)]
        assert chosen[0].stack is not None
        with torch.inference_mode():
            return chosen[0].stack.logits([one.model for one in questions], [one.inputs for one in questions])
    except Exception as error:  # Memory that is short above all; each run then fails by itself, and says so.
        return [error] * len(chosen)


def _stack(chosen: Sequence[Replica], lessons: Sequence[Lesson]) -> Stack | None:
    """The stack of these runs, made anew where it had others; None where they cannot be stacked."""
    known = chosen[0].stack
    if known is not None and len(known.steps) == len(chosen) and all(one.stack is known for one in chosen):
        return known
    try:
        stack = Stack(lessons)
    except StackingError as reason:
        logger.warning("%d runs are trained in turns, not as one stack: %s", len(chosen), reason)
        for one in chosen:
            one.alone = True
        return None
    logger.info("%d runs are trained as one stack of models", len(chosen))
    for one in chosen:
        one.stack = stack
    return stack


def _leave_empty(one: Replica, waiting: Sequence[Replica]) -> None:
    """Takes the last run out of a stack that all others have left."""
    if one.learns and one.stack is not None and not any(o.stack is one.stack for o in waiting if o is not one):
        assert one.step is not None
        one.stack.release(one.step)
        one.stack = None


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Puts torch's random numbers and threads back after the block."""
    state, threads = _random_state(), torch.get_num_threads()
    try:
        yield
    finally:
        _set_random_state(state)
        torch.set_num_threads(threads)


def _random_state() -> tuple[Tensor, list[Tensor] | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if _cuda() else None


def _cuda() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _set_random_state(state: tuple[Tensor, list[Tensor] | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state_all(state[1])
