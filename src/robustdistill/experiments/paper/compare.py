"""Our estimate of a figure beside the paper's: by how much they differ, and whether their intervals overlap."""

from __future__ import annotations

import math
from dataclasses import dataclass

from robustdistill.experiments.paper.printed import Printed
from robustdistill.experiments.select import Estimate
from robustdistill.report.intervals import t_quantile

INTERVALS = (
    "The intervals that are compared are 95 % ones, mean ± t · standard error with t of Student's distribution for"
    " n − 1 degrees of freedom (4.3 at n = 3, 2.3 at n = 10). Where one side has no standard error there is nothing to"
    " compare. Overlapping intervals do not show that two means are equal, and"
    " of many cells some are apart by chance."
)


@dataclass(frozen=True)
class Beside:
    """Ours and the paper's, fractions in [0, 1]. Either may be missing.

    Attributes:
        comparable: whether they are of the same data; a stand-in's figures are not.
    """

    ours: Estimate | None
    printed: Printed | None
    comparable: bool = True

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        if self.ours is None or self.printed is None or not self.comparable or math.isnan(self.ours.mean):
            return None
        return self.ours.mean - self.printed.mean

    @property
    def difference_error(self) -> float | None:
        """The standard error of the difference; None where one side has none."""
        if self.difference is None or self.ours is None or self.printed is None:
            return None
        if self.ours.error is None or self.printed.error is None:
            return None
        return math.hypot(self.ours.error, self.printed.error)

    @property
    def overlap(self) -> bool | None:
        """Whether the 95 % intervals overlap; None where one side has none."""
        if self.difference is None or self.ours is None or self.printed is None:
            return None
        ours = half_width(self.ours.error, self.ours.n)
        paper = half_width(self.printed.error, self.printed.n)
        return None if ours is None or paper is None else abs(self.difference) <= ours + paper


def half_width(error: float | None, n: int) -> float | None:
    """Half of the 95 % interval of a mean over n repeats with this standard error; None where there is none."""
    return None if error is None or n < 2 else t_quantile(n - 1) * error
