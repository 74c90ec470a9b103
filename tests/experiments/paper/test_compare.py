from __future__ import annotations

import math

import pytest
from scipy import stats

from robustdistill.experiments.paper.compare import Beside, half_width
from robustdistill.experiments.paper.printed import Printed
from robustdistill.experiments.select import Estimate


def _printed(mean: float, error: float | None, n: int = 10) -> Printed:
    return Printed(mean, error, n, "")


def test_the_interval_is_students() -> None:
    for n in (2, 3, 5, 10, 30):
        expected = stats.t.ppf(0.975, n - 1) * 0.01
        assert half_width(0.01, n) == pytest.approx(expected, abs=1e-9)
    assert half_width(None, 3) is None
    assert half_width(0.01, 1) is None


@pytest.mark.parametrize("gap", [0.02, 0.05, 0.06, 0.07])
def test_overlap_is_that_of_the_two_intervals(gap: float) -> None:
    ours, paper = Estimate(0.70, 0.01, 3), _printed(0.70 + gap, 0.005)
    low, high = stats.t.interval(0.95, 2, ours.mean, ours.error)
    paper_low, paper_high = stats.t.interval(0.95, 9, paper.mean, paper.error)
    both = Beside(ours, paper)
    assert both.overlap == (max(low, paper_low) <= min(high, paper_high))
    assert both.difference == pytest.approx(-gap)
    assert both.difference_error == pytest.approx(math.sqrt(0.01**2 + 0.005**2))


def test_what_cannot_be_compared_is_not() -> None:
    ours, paper = Estimate(0.7, 0.01, 3), _printed(0.8, 0.01)
    assert Beside(None, paper).difference is None
    assert Beside(ours, None).overlap is None
    stand_in = Beside(ours, paper, comparable=False)
    assert (stand_in.difference, stand_in.overlap, stand_in.difference_error) == (None, None, None)
    once = Beside(Estimate(0.7, None, 1), paper)
    assert once.difference == pytest.approx(-0.1)
    assert (once.overlap, once.difference_error) == (None, None)
    unprinted = Beside(ours, _printed(0.28, None, 1))
    assert unprinted.overlap is None
    assert Beside(Estimate(math.nan, None, 2), paper).difference is None


def test_a_printed_error_of_zero_is_a_point() -> None:
    """CIFAR-100-LT's 0.00 ± 0.00."""
    assert Beside(Estimate(0.0, 0.0, 3), _printed(0.0, 0.0)).overlap is True
    assert Beside(Estimate(0.01, 0.0, 3), _printed(0.0, 0.0)).overlap is False
