"""Writing files so that a reader sees the old content or the new, never half of one.

A file is written beside its place, synced, moved there in one step, and the folder is synced, so that what has been
reported as written is there after a crash. What a process that was killed left half written has a hidden name that
nobody reads; `sweep` takes it away.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robustdistill import faults

# What a disk says that is full, read-only, closed to this user, failing or gone; none of it is the writer's own fault.
DISK_ERRORS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO),
}
# As mkstemp, leases and safetensors (which writes beside the file it is given) name theirs.
_TEMPORARY = re.compile(r"\..+\.(?:[a-z0-9_]{8}|[0-9a-f]{32})(?:\.\w+)?|\.tmp[A-Za-z0-9]{6}")


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path` to write to; synced and moved onto it when the block ends without an error.

    Raises:
        OSError: it could not be written, naming `path`; what was there before is unchanged.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        faults.reach("before", path)
        make_folder(path.parent)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        temporary = written = Path(name)
        yield written
        faults.reach("middle", path, lambda: os.truncate(written, written.stat().st_size // 2))
        _sync(written)
        written.chmod(0o666 & ~_umask())
        faults.reach("whole", path)
        written.replace(path)
        _sync(path.parent)
        faults.reach("after", path)
    except OSError as error:
        named = error.filename is None or Path(str(error.filename)).name.startswith(f".{path.name}.")
        if error.errno is None or not named:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):  # the disk that could not be written to may not be cleared either
                temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, and has them last."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in reversed(missing):
        _sync(one.parent)


def sweep(folder: Path) -> int:
    """Deletes what killed processes left half written below a folder; how many files. Only for who alone writes there.

    Raises:
        OSError: the folder cannot be written to.
    """
    left = [path for path in folder.rglob(".*") if _TEMPORARY.fullmatch(path.name) and path.is_file()]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    except OSError as error:  # Some file systems cannot sync a folder, and keep names in order without.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(opened)


def _umask() -> int:
    """What this process's new files are denied; it can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write_json(path: Path | str, fields: dict[str, Any]) -> None:
    """Writes an object atomically; NaN becomes null, since JSON has no NaN.

    A line for each field and each entry of a list of objects: committed records stay short, their differences readable.
    """
    lines = [f" {json.dumps(name)}: {_text(value)}" for name, value in plain(fields).items()]
    with replacing(path) as temporary:
        temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _text(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
        return "[\n" + ",\n".join("  " + json.dumps(entry, allow_nan=False) for entry in value) + "\n ]"
    return json.dumps(value, allow_nan=False)


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: NaN and infinities become null, tuples lists, keys strings."""
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
