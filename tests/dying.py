"""Processes that die in the middle of what they do, at a write that is chosen."""

from __future__ import annotations

import os
import signal
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from robustdistill import faults


def in_a_child(action: Callable[[], Any], fault: str | None = None) -> int:
    """How a copy of this process ended that did `action`: its exit code, or minus the signal that killed it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*use of fork.*", category=DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            if fault is None:
                action()
            else:
                with faults.injected(fault):
                    action()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed(action: Callable[[], Any], fault: str) -> None:
    """Lets a copy of this process die at a write of `action`.

    Raises:
        AssertionError: it did not: no such write came.
    """
    assert in_a_child(action, f"kill:{fault}") == -signal.SIGKILL, fault
