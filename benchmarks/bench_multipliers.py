"""The exponentiated-gradient update of a million multipliers."""

from __future__ import annotations

from collections.abc import Callable

import torch

from robustdistill.multipliers import ClassMultipliers
from robustdistill.risks import Risks
from timing import interleaved, inverse, row

CLASSES = 1_000_000

dro = ClassMultipliers("robust", torch.rand(CLASSES) + 0.5)
risks = Risks(torch.rand(CLASSES, dtype=torch.float64) * 10, torch.full((CLASSES,), 10.0, dtype=torch.float64))
array = torch.rand(CLASSES, dtype=torch.float64)


def times(count: int, run: Callable[[], object]) -> Callable[[], object]:
    return lambda: [run() for _ in range(count)]


ratios = interleaved(times(20, lambda: dro.update(risks)), times(20, lambda: array.mul_(1.0000001)))
row("multiplier update, C = 1,000,000", "one read-write pass over as many float64", inverse(ratios), most=6)
