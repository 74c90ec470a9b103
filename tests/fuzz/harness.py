"""What a fuzz target is, and what every input must come to: accepted, or refused in words that name the place."""

from __future__ import annotations

import signal
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from robustdistill.errors import DivergedError, InputError, StaleStoreError

OURS = (InputError, StaleStoreError, DivergedError)
SECONDS = 60  # that one input may take, on a machine that does much else; more is a hang
LONGEST = 2_000  # characters of a message
MEMORY = Path("/dev/shm")  # where files are written, if there is one: nothing then waits for a disk


class Hangs(BaseException):
    """Not an Exception: nobody's reader takes it for a damaged file."""


@dataclass
class Target:
    """Something that takes input from outside.

    Attributes:
        name: of the target.
        inputs: what it is given.
        run: takes one input and a folder for files, and returns what it was accepted as. Checks that itself.
        share: of all inputs, relative to others.
        named: what a refusal has to name, besides being ours; gets the input.
    """

    name: str
    inputs: Callable[[], st.SearchStrategy[Any]]
    run: Callable[[Any, Path], Any]
    share: float = 1.0
    named: Callable[[Any], str] | None = None
    counts: Counter[str] = field(default_factory=Counter)


def fuzz(target: Target, inputs: int, *, seed: int | None = None, limit: float = SECONDS) -> Counter[str]:
    """Gives `target` that many inputs; returns how many were accepted and refused, and how.

    Args:
        target: of the inputs.
        inputs: at most; fewer where there are no more.
        seed: of the inputs; None takes the same ones each time.
        limit: seconds that one input may take.

    Raises:
        Whatever a target raises that is none of our errors, AssertionError where a refusal says too little, Hangs.
    """
    target.counts = counts = Counter()
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        place = Path(folder)

        @hypothesis.settings(
            max_examples=inputs,
            database=None,
            deadline=None,
            derandomize=seed is None,
            suppress_health_check=list(HealthCheck),
            phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
        )
        @given(value=target.inputs())
        def one(value: Any) -> None:
            counts[_outcome(target, value, place, limit)] += 1

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", hypothesis.errors.HypothesisWarning)  # files are large to print
            (one if seed is None else hypothesis.seed(seed)(one))()
    return counts


def _outcome(target: Target, value: Any, place: Path, limit: float) -> str:
    with _in_time(target.name, limit), warnings.catch_warnings():
        # Of files that are damaged: Pillow and others say so on the way, and go on.
        warnings.filterwarnings("ignore", module="PIL")
        warnings.filterwarnings("ignore", category=UserWarning, message=".*(EXIF|Truncated|Metadata|IFD|TIFF).*")
        try:
            target.run(value, place)
        except OURS as error:
            message = str(error)
            assert message.strip(), "a refusal without a word"
            assert "\n" not in message, f"one line is to say it: {message!r}"
            assert len(message) < LONGEST, f"a message of {len(message)} characters: {message[:200]!r}..."
            if target.named is not None:
                assert target.named(value) in message, f"{target.named(value)!r} is not named: {message!r}"
            return "refused"
    return "accepted"


@contextmanager
def _in_time(name: str, limit: float) -> Iterator[None]:
    """Raises Hangs where the block does. In the main thread only, where signals arrive."""

    def rang(number: int, frame: Any) -> None:
        raise Hangs(f"{name}: more than {limit} s for one input")

    before = signal.signal(signal.SIGALRM, rang)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def shares(targets: list[Target], inputs: int) -> dict[str, int]:
    """How many of `inputs` each target gets."""
    whole = sum(target.share for target in targets)
    return {target.name: max(10, -(-int(inputs * target.share) // int(whole))) for target in targets}
