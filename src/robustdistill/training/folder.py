"""One process at a time in a run's folder: two commands that were told one folder never mix their files."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from robustdistill.errors import FolderTakenError, InputError
from robustdistill.files import make_folder, sweep
from robustdistill.lease import LEASE, Leases, is_lent
from robustdistill.training.processes import Processes
from robustdistill.training.run import finished
from robustdistill.training.spec import CHECKPOINT, RunSpec

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0  # Between two looks at a lease of somebody else.
TOGETHER_SECONDS = 600.0  # So long at most one of several processes waits, since the others would give up after 30 min.


@dataclass
class Place:
    """A run's folder while this process works in it.

    Attributes:
        folder: None where nothing is kept.
        spec: of the run.
        finished: whether the folder holds that run already.
        leases: where this process holds the folder's; None where another one holds it for this one.
    """

    folder: Path | None
    spec: RunSpec
    finished: bool = False
    leases: Leases | None = None

    def check(self) -> None:
        """To be called before something is written: whether the folder is this process's still.

        It is not where this process was stopped for longer than a lease lives, and another one has taken over.

        Raises:
            FolderTakenError: another process works there.
            InputError: the folder holds another run by now.
        """
        if self.folder is None or self.leases is None or self.leases.holds(self.folder):
            return
        if not self.leases.take(self.folder):
            raise FolderTakenError(
                f"{self.folder} was taken over by {self.leases.holder(self.folder)} while this process did not answer:"
                " nothing more is written there by this one; the same command waits for the other"
            )
        finished(self.folder, self.spec)


@contextmanager
def alone_in(out: Path | str | None, spec: RunSpec, processes: Processes) -> Iterator[Place]:
    """Keeps other processes out of the run's folder during the block; waits where one is there already.

    A finished run is only read, hence needs nobody to stay away. What killed processes left half written is deleted.

    Raises:
        InputError: the folder holds another run, cannot be written to, or is that of another run of this process; or
            one of several processes has waited for `TOGETHER_SECONDS`.
    """
    folder = None if out is None else Path(out)
    with processes.agreeing():
        done = finished(folder, spec)
    processes.check_same(spec, finished=done)
    if done and folder is not None and processes.main:
        _tidy(folder)
    if folder is None or done or is_lent(folder):
        yield Place(folder, spec, done)
        return
    if not processes.main:
        with processes.agreeing():
            pass  # the main process waits for the folder
        yield _entered(folder, spec, processes, None)
        return
    with Leases() as leases:
        with processes.agreeing():
            _wait(leases, folder, TOGETHER_SECONDS if processes.count > 1 else float("inf"))
        yield _entered(folder, spec, processes, leases)


def _tidy(folder: Path) -> None:
    """Deletes what was left in a finished run's folder by who was killed after its record was written."""
    if not any((folder / name).exists() for name in (CHECKPOINT, LEASE)):
        return
    with suppress(OSError), Leases() as leases:  # it may be read-only, which is no harm
        if leases.take(folder):
            (folder / CHECKPOINT).unlink(missing_ok=True)
            sweep(folder)


def _entered(folder: Path, spec: RunSpec, processes: Processes, leases: Leases | None) -> Place:
    with processes.agreeing():
        done = finished(folder, spec)  # by whom was waited for
        if leases is not None and not done and (left := sweep(folder)):
            logger.info("%d files that a killed process has left half written in %s are deleted", left, folder)
        return Place(folder, spec, done, leases)


def _wait(leases: Leases, folder: Path, limit: float) -> None:
    check_writable(folder)
    began, told = time.monotonic(), False
    while not _taken(leases, folder):
        if leases.is_own(folder):
            raise InputError(
                f"out must be a folder of its own for each run, and another run of this process has {folder}"
            )
        holder = leases.holder(folder)
        if time.monotonic() - began > limit:
            raise InputError(f"out must be a folder that nobody works in, and {holder} works in {folder}")
        if holder is not None and not told:
            logger.warning("%s works in %s: this process waits until that has ended", holder, folder)
            told = True
        time.sleep(POLL_SECONDS)


def _taken(leases: Leases, folder: Path) -> bool:
    try:
        return leases.take(folder)
    except OSError as error:
        raise _not_writable(folder, error) from error


def check_writable(folder: Path) -> None:
    """Refuses a folder that cannot be written to before anything is trained, not after.

    Raises:
        InputError: naming `out`.
    """
    try:
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise _not_writable(folder, error) from error


def _not_writable(folder: Path, error: OSError) -> InputError:
    return InputError(f"out must be a folder that can be written to, and {folder} is not: {error}")
