"""Writes that fail on purpose, so that a test can see what a run is worth after its machine has died at a bad moment.

Every lasting file of this package is written through `files.replacing`, a lease or a view store, and each of these says
here what it is about to do. Nothing comes of that unless the environment variable ROBUSTDISTILL_FAULT was set when the
process started, or code is inside `injected`; no file that is read can do either. The variable's value is

    ACTION:MOMENT:NUMBER[+][:NAME]      "kill:middle:3:checkpoint.safetensors", "ENOSPC:before:1+"

ACTION is "kill" (SIGKILL to this process) or an error's name, which is raised as OSError (ENOSPC, EROFS, EACCES, EIO).
MOMENT is "before" anything is written, the "middle", with half of the bytes written, "whole", with all of them written
and synced but not yet under their name, or "after". NUMBER counts this process's writes from 1; a "+" means every write
from there on, as a disk that is full stays full. NAME is a pattern (fnmatch) for the names of files that count.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal, get_args

from robustdistill.errors import InputError

logger = logging.getLogger(__name__)

VARIABLE = "ROBUSTDISTILL_FAULT"
Moment = Literal["before", "middle", "whole", "after"]
MOMENTS: tuple[Moment, ...] = get_args(Moment)


@dataclass
class Fault:
    """What is to happen, and how many of the writes that it counts have begun.

    Attributes:
        action: "kill", or the name of an error number.
        moment: of a write.
        number: of the write, from 1.
        lasting: whether later ones fail too.
        name: pattern for the names of files that count.
        seen: writes that have begun.
        struck: how often it has happened; it stays 0 where the process is killed.
    """

    action: str
    moment: Moment
    number: int = 1
    lasting: bool = False
    name: str = "*"
    seen: int = 0
    struck: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def parse(cls, text: str) -> Fault:
        """The fault that the environment variable's value means.

        Raises:
            InputError: it means none.
        """
        action, _, rest = text.partition(":")
        moment, _, rest = rest.partition(":")
        number, _, name = rest.partition(":")
        lasting, number = number.endswith("+"), number.removesuffix("+")
        known = action == "kill" or action in errno.errorcode.values()
        for chosen in MOMENTS:
            if chosen == moment and known and number.isdecimal() and int(number) > 0:
                return cls(action, chosen, int(number), lasting, name or "*")
        raise InputError(
            f"{VARIABLE} must read ACTION:MOMENT:NUMBER[+][:NAME] (see robustdistill.faults), got {text!r}"
        )

    def reach(self, moment: Moment, path: Path, tear: Callable[[], None] | None) -> None:
        if not fnmatch(path.name, self.name):
            return
        with self.lock:
            self.seen += moment == "before"
            due = moment == self.moment and (self.seen >= self.number if self.lasting else self.seen == self.number)
            self.struck += due and self.action != "kill"
        if not due:
            return
        if tear is not None:
            tear()
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        number = getattr(errno, self.action)
        raise OSError(number, os.strerror(number), str(path))


_current: Fault | None = None


def reach(moment: Moment, path: Path, tear: Callable[[], None] | None = None) -> None:
    """Called by what writes `path`, at each moment of a write; `tear` leaves half of the bytes where that is asked for.

    Raises:
        OSError: this write was to fail.
    """
    if _current is not None:
        _current.reach(moment, path, tear)


@contextmanager
def injected(fault: Fault | str) -> Iterator[Fault]:
    """Lets writes fail in this block, on all threads of this process."""
    global _current
    before, _current = _current, Fault.parse(fault) if isinstance(fault, str) else fault
    try:
        yield _current
    finally:
        _current = before


if VARIABLE in os.environ:
    _current = Fault.parse(os.environ[VARIABLE])
    logger.warning("%s is set: writes of this process fail on purpose (%s)", VARIABLE, os.environ[VARIABLE])
