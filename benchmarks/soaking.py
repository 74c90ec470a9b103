"""What the soak scripts share: a printed line for each promise, and how large this process is."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import time
from pathlib import Path

import torch

from robustdistill.environment import environment

SEED = int(os.environ.get("SEED", "0"))
_started = time.perf_counter()
_failed: list[str] = []


def head(title: str) -> None:
    """Prints what is done, where, and from which seed."""
    torch.set_num_threads(1)
    facts = environment()
    print(
        f"\n{title}\n{facts['processor']}, {facts['cores']} cores, 1 thread, python {facts['python']}, torch"
        f" {facts['torch']}, robustdistill {facts['git']}, {facts['date']}, SEED={SEED}",
        flush=True,
    )


def row(what: str, found: str, *, good: bool) -> None:
    """Prints what was promised, what was found, and whether that is kept."""
    print(f"  {'kept  ' if good else 'BROKEN'}  {what}: {found}", flush=True)
    if not good:
        _failed.append(what)


def foot() -> None:
    """Ends the script: with 1 where a promise was broken."""
    print(f"  {time.perf_counter() - _started:.0f} s", flush=True)
    sys.exit(1 if _failed else 0)


def resident() -> float:
    """MB of this process that are in memory."""
    return _status("VmRSS")


def held() -> float:
    """MB that are in use: resident ones without garbage, and without what the C library keeps for later."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return resident()


def peak() -> float:
    """MB that it had in memory at most, since it began."""
    return _status("VmHWM")


def _status(field: str) -> float:
    return float(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) / 1024


def open_files() -> int:
    """How many file descriptors this process holds, but for the fonts that matplotlib keeps open once it has drawn."""
    shown = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the listing itself
            shown.append(str(link.readlink()))
    return sum("matplotlib" not in path for path in shown)
