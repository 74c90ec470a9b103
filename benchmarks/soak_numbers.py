"""A million updates of the multipliers at each of several step sizes: finite and on the simplex after every thousandth.

UPDATES=1000000 SEED=0. Risks are drawn from [0, 1], with a row now and then that is 0, 1, as large as a float32, or
unknown for a class.
"""

from __future__ import annotations

import os
import sys
import time

import torch

from robustdistill.environment import environment
from robustdistill.multipliers import FLOOR, ClassMultipliers
from robustdistill.risks import Risks

UPDATES, SEED = int(os.environ.get("UPDATES", "1000000")), int(os.environ.get("SEED", "0"))
PRIORS = [0.6, 0.25, 0.1, 0.05]
LARGEST = torch.finfo(torch.float32).max


def rows() -> list[Risks]:
    """What updates are given, again and again."""
    values = torch.rand(997, len(PRIORS), generator=torch.Generator().manual_seed(SEED)).double()
    counts = torch.ones_like(values)
    values[::7] = torch.tensor([0.0, 1.0, 1.0, LARGEST], dtype=torch.float64)
    values[3::11] = 0.0
    counts[5::13, 1] = 0.0
    return [Risks(value, count) for value, count in zip(values, counts, strict=True)]


def worst(step_size: float, decay: float, given: list[Risks]) -> tuple[float, float]:
    """The largest distance of the sum from 1 and the smallest share that were seen; NaN where one was not finite."""
    dro = ClassMultipliers("robust", PRIORS, step_size=step_size, decay=decay)
    off, least = 0.0, 1.0
    for update in range(UPDATES):
        dro.update(given[update % len(given)])
        if update % 1000 == 999:
            weights = dro.weights
            if not bool(weights.isfinite().all() and dro.costs.isfinite().all()):
                return float("nan"), float("nan")
            off, least = max(off, abs(float(weights.sum()) - 1)), min(least, float(weights.min()))
    return off, least


def main() -> int:
    torch.set_num_threads(1)
    facts, given, broken = environment(), rows(), 0
    print(
        f"\n{UPDATES:,} updates of the multipliers, at each step size\n{facts['processor']}, {facts['cores']} cores,"
        f" 1 thread, python {facts['python']}, torch {facts['torch']}, robustdistill {facts['git']}, {facts['date']},"
        f" SEED={SEED}\n  {'step size':>10} {'decay':>6} {'|sum - 1|':>10} {'least share':>12} {'seconds':>8}",
        flush=True,
    )
    for step_size in (1e-9, 0.1, 1.0, 1e6, 1e300):
        for decay in (0.0, 0.03):
            start = time.perf_counter()
            off, least = worst(step_size, decay, given)
            good = off < 1e-9 and least > FLOOR / 4
            broken += not good
            print(
                f"  {step_size:10g} {decay:6g} {off:10.1e} {least:12.2e} {time.perf_counter() - start:8.1f}"
                f"{'' if good else '  BROKEN'}",
                flush=True,
            )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
