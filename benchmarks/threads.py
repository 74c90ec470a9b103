"""How long threads of a training step should turn in circles while they wait for one another: GOMP_SPINCOUNT.

    python benchmarks/threads.py [BUSY]

Median milliseconds of a step with two threads, each setting in processes of its own that take turns, while BUSY other
processes (0) compute as well. GNU's OpenMP, which torch brings along on Linux, reads the variable when it is loaded.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

STEPS = {"convnet-16,32": 300, "resnet8,128": 25, "resnet20,128": 10}
SETTINGS = ("default", "1000", "10000")
ROUNDS, LONGEST = 3, 60.0  # seconds that a process may take


def measure() -> None:
    """Prints the median of each model, in this process."""
    import torch

    from choices import step_of

    torch.set_num_threads(2)
    for model, count in STEPS.items():
        name, batch = model.split(",")
        step = step_of(name, int(batch), torch.device("cpu"), ("channels-last", "float32", "eager"))
        times = []
        for _ in range(3 + count):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        print(f"{1e3 * statistics.median(times[3:]):.2f}")


def once(setting: str) -> list[str]:
    """What a process with this setting finds, or that it was not through in time."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_NUM_THREADS")
    }
    if setting != "default":
        environment["GOMP_SPINCOUNT"] = setting
    command = [sys.executable, __file__, "measure"]
    try:
        found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONGEST, check=True)
    except subprocess.TimeoutExpired:
        return [f"> {LONGEST:.0f} s in all"] * len(STEPS)
    return found.stdout.split()


def main(busy: int) -> None:
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        found: dict[str, list[list[str]]] = {setting: [] for setting in SETTINGS}
        for _ in range(ROUNDS):
            for setting in SETTINGS:
                found[setting].append(once(setting))
    finally:
        for other in others:
            other.kill()
    print(f"| {busy} busy processes beside | {' | '.join(STEPS)} |\n{'|---' * (1 + len(STEPS))}|")
    for setting, rounds in found.items():
        print(f"| {setting} | {' | '.join(', '.join(each) for each in zip(*rounds, strict=True))} |")


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        measure()
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 0)
