"""Leases: which process is working on a run, on any file system that several machines share.

A lease is a small file that its owner replaces again and again ("beats") while it lives. Taking one is a hard link,
which exactly one process can make, on NFS too; no flock. Nobody compares clocks of two machines: a lease is dead when
the one who looks has seen it unchanged for as long as its owner said, by the looker's own clock that never jumps.

Between processes of one spec a lease spares work and is not what keeps results right: they write the same bits, each
file in one step. Between processes of different specs that were told one folder, it keeps their files from mixing.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from robustdistill import faults
from robustdistill.files import make_folder

logger = logging.getLogger(__name__)

LEASE = "lease.json"
SECONDS = 60.0  # After so long without a beat, a lease is dead.


class Leases:
    """The leases of one process: takes, keeps alive and gives back; a context manager that gives all back.

    Args:
        seconds: how long a lease outlives its last beat.
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, seconds: float = SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self._clock = seconds, clock
        self.owner = {
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "started": _started(os.getpid()),
        }
        self._held: dict[Path, str] = {}
        self._seen: dict[Path, tuple[str, float]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._beater = threading.Thread(target=self._keep_beating, name="leases", daemon=True)

    def __enter__(self) -> Self:
        self._beater.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._beater.join()
        for path in list(self._held):
            self.release(path.parent)

    def take(self, folder: Path) -> bool:
        """Takes the lease of a run's folder; False while another owner's is alive.

        Raises:
            OSError: the folder cannot be written to.
        """
        path = folder / LEASE
        make_folder(folder)
        token = uuid.uuid4().hex
        if not self._link(path, token):
            found = _read(path)
            if found is not None and not self._dead(path, found):
                return False
            if found is not None and not _remove(path, found):
                return False
            if not self._link(path, token):
                return False
        with self._lock:
            self._held[path] = token
            self._seen.pop(path, None)
        return True

    def release(self, folder: Path) -> None:
        """Gives a lease back; does nothing where somebody else has taken it over."""
        path = folder / LEASE
        with self._lock:
            token = self._held.pop(path, None)
        try:
            found = _read(path)
            if found is not None and json.loads(found).get("token") == token:
                path.unlink(missing_ok=True)
        except OSError as error:  # It dies in its time, and at once for those on this machine.
            logger.warning("the lease %s could not be given back: %s", path, error)

    def holds(self, folder: Path) -> bool:
        """Whether the lease of a folder is this process's still."""
        path = folder / LEASE
        with self._lock:
            token = self._held.get(path)
        found = _read(path)
        return token is not None and found is not None and json.loads(found).get("token") == token

    def is_own(self, folder: Path) -> bool:
        """Whether a folder's lease is of this process, by whatever `Leases` of it."""
        found = _read(folder / LEASE)
        return found is not None and self.owner.items() <= json.loads(found).items()

    def holder(self, folder: Path) -> str | None:
        """Who holds the lease of a folder, for people: "host, process 123"; None if nobody does who is alive."""
        found = _read(folder / LEASE)
        if found is None or self._dead(folder / LEASE, found):
            return None
        content = json.loads(found)
        return f"{content.get('host')}, process {content.get('pid')}"

    def _link(self, path: Path, token: str) -> bool:
        try:
            temporary = self._written(path, token)
            path.hardlink_to(temporary)
            faults.reach("after", path)
        except FileExistsError:
            return False
        finally:
            with suppress(OSError):
                _beside(path, token).unlink(missing_ok=True)
        return True

    def _written(self, path: Path, token: str) -> Path:
        """A lease beside its place. It is not synced: after a crash of the machine nobody holds it."""
        temporary = _beside(path, token)
        faults.reach("before", path)
        try:
            temporary.write_text(self._text(token), encoding="utf-8")
        except OSError as error:  # a full disk names no file
            raise OSError(error.errno, error.strerror, str(path)) from error
        faults.reach("middle", path, lambda: os.truncate(temporary, temporary.stat().st_size // 2))
        faults.reach("whole", path)
        return temporary

    def _text(self, token: str) -> str:
        # The deadline is for people; `beat` alone, which differs at each beat, says that the owner lives.
        deadline = (datetime.now(UTC) + timedelta(seconds=self.seconds)).isoformat(timespec="seconds")
        content = {**self.owner, "token": token, "seconds": self.seconds, "beat": time.time_ns(), "deadline": deadline}
        return json.dumps(content)

    def _dead(self, path: Path, found: str) -> bool:
        content = json.loads(found)
        if content.get("machine") == self.owner["machine"] and not _alive(content):
            return True
        before, since = self._seen.get(path, ("", 0.0))
        now = self._clock()
        if before != found:
            self._seen[path] = (found, now)
            return False
        return now - since > float(content.get("seconds", self.seconds))

    def _keep_beating(self) -> None:
        while not self._stop.wait(self.seconds / 4):
            self.beat()

    def beat(self) -> None:
        """Shows that the owner of these leases is alive; those taken over by somebody else are given up."""
        with self._lock:
            held = dict(self._held)
        for path, token in held.items():
            try:
                found = _read(path)
                if found is None or json.loads(found).get("token") != token:
                    logger.warning("the lease %s was taken over: was this machine asleep?", path)
                    with self._lock:
                        self._held.pop(path, None)
                    continue
                self._written(path, token).replace(path)
                faults.reach("after", path)
            except OSError as error:  # A full disk or a network that is away: the next beat tries again.
                logger.warning("the lease %s could not be renewed: %s", path, error)


_lent: set[Path] = set()


@contextmanager
def lent(folder: Path) -> Iterator[None]:
    """Lets this process work in a folder whose lease the process that told it to holds."""
    _lent.add(folder.resolve())
    try:
        yield
    finally:
        _lent.discard(folder.resolve())


def is_lent(folder: Path) -> bool:
    return folder.resolve() in _lent


def _beside(path: Path, token: str) -> Path:
    return path.with_name(f".{LEASE}.{token}")


def _machine() -> str:
    """Where a process number means one process: this boot of this machine, and this container on it.

    A host's name does not tell: containers on several machines may have one name, and all have a process 1.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def _read(path: Path) -> str | None:
    """A lease's text, None where there is none; what is no JSON object is an accident and counts as dead."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return text if isinstance(json.loads(text), dict) else "{}"
    except ValueError:
        return "{}"


def _remove(path: Path, dead: str) -> bool:
    """Takes a dead lease away; False if somebody was faster, whose lease is then put back."""
    aside = _beside(path, uuid.uuid4().hex)
    try:
        path.rename(aside)
    except FileNotFoundError:
        return True
    try:
        if _read(aside) == dead:
            return True
        try:
            path.hardlink_to(aside)
        except FileExistsError:
            logger.debug("%s was taken twice", path)
        return False
    finally:
        aside.unlink(missing_ok=True)


def _alive(content: dict[str, Any]) -> bool:
    """Whether the process that holds a lease of this machine is there, and not another one of its number."""
    pid = content.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return content.get("started") in (None, _started(pid))


def _started(pid: int) -> str | None:
    """When a process began, in the kernel's own ticks; None where that cannot be read."""
    try:
        # The second field is the program's name in parentheses and may hold spaces.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
