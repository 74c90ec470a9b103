"""Damaged and odd input for every reader and public function, 100,000 times: `tests/fuzz` at length, with other inputs.

INPUTS=100000 SEED=0 WORKERS=2 set how many, which, and in how many processes. Each input must be accepted correctly or
refused by an error of ours that names the place, within a minute; a process that asks for more than 8 GiB of address
space, of which the libraries take half, is refused them, which fails the target.
"""

from __future__ import annotations

import os
import resource
import sys
import time
import traceback
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from fuzz.harness import fuzz, shares
from fuzz.targets import TARGETS
from robustdistill.environment import environment

INPUTS, SEED = int(os.environ.get("INPUTS", "100000")), int(os.environ.get("SEED", "0"))
WORKERS = int(os.environ.get("WORKERS", str(os.cpu_count() or 1)))
ADDRESSES = 8 * 2**30
LIBRARIES = ("hypothesis", "numpy", "pyarrow", "pillow", "pydantic", "pyyaml", "safetensors", "torch")


@dataclass(frozen=True)
class Found:
    """Of one target: inputs accepted and refused, what went wrong, seconds, and MB resident at most."""

    name: str
    accepted: int
    refused: int
    problem: str
    seconds: float
    resident: float


def one(index: int, inputs: int) -> Found:
    """Gives that many inputs to one target."""
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    target, start, problem = TARGETS[index], time.perf_counter(), ""
    try:
        fuzz(target, inputs, seed=SEED)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        problem = "\n".join(map(_told, getattr(error, "exceptions", [error])))
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    counts = target.counts
    return Found(target.name, counts["accepted"], counts["refused"], problem, time.perf_counter() - start, resident)


def _told(error: BaseException) -> str:
    """What went wrong, where, and for which input, at the length of some lines."""
    frames = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    lines = [f"    {type(error).__name__}: {str(error)[:500]} ({' < '.join(frames[:-5:-1])})"]
    return "\n".join(lines + [f"    {note[:1500]}" for note in getattr(error, "__notes__", [])])


def main() -> int:
    facts, wanted, began = environment(), shares(TARGETS, INPUTS), time.perf_counter()
    print(
        f"\n{sum(wanted.values()):,} inputs for {len(TARGETS)} targets\n{facts['processor']}, {facts['cores']} cores,"
        f" {WORKERS} processes, python {facts['python']}, {', '.join(f'{name} {version(name)}' for name in LIBRARIES)},"
        f" robustdistill {facts['git']}, {facts['date']}, SEED={SEED}\n"
        f"  {'target':28} {'inputs':>8} {'accepted':>9} {'refused':>8} {'seconds':>8}",
        flush=True,
    )
    found: list[Found] = []
    with ProcessPoolExecutor(WORKERS, max_tasks_per_child=1) as pool:  # so that memory is each target's own
        for one_found in pool.map(one, range(len(TARGETS)), [wanted[target.name] for target in TARGETS]):
            found.append(one_found)
            done = one_found.accepted + one_found.refused
            print(
                f"  {one_found.name:28} {done:8,} {one_found.accepted:9,} {one_found.refused:8,}"
                f" {one_found.seconds:8.1f}{'  BROKEN' if one_found.problem else ''}",
                flush=True,
            )
            if one_found.problem:
                print(one_found.problem, flush=True)
    accepted, refused = sum(one.accepted for one in found), sum(one.refused for one in found)
    broken = [one.name for one in found if one.problem]
    print(
        f"  {'in all':28} {accepted + refused:8,} {accepted:9,} {refused:8,} {time.perf_counter() - began:8.1f}\n"
        f"  at most {max(one.resident for one in found):.0f} MB resident;"
        f" {'broken: ' + ', '.join(broken) if broken else 'nothing broken'}"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
