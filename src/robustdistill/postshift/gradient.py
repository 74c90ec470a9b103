"""Exponentiated gradient: Algorithm 3 of Narasimhan & Menon (2021) from any start."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from robustdistill.objectives import Objective
from robustdistill.postshift.fit_table import Candidate, FitTable
from robustdistill.predictions import FloatArray

FLOOR = 1e-8  # The smallest share of λ, as in `multipliers`: an exact zero could never rise again.

LARGEST = 500.0  # exponent that is taken as it is; from 710 on they overflow


def exponentiated_gradient(
    fit: FitTable, start: FloatArray, robustness: float, iterations: int, step_size: float
) -> Iterator[Candidate]:
    """Each iterate of Algorithm 3: w = exp(start)·β, and λ moved by the errors that w leaves."""
    objective = Objective("balanced", robustness)
    uniform = np.full(len(start), 1.0 / len(start))
    multipliers = uniform
    for _ in range(iterations if objective.needs_multipliers else 1):
        candidate = fit.candidate(start + np.log(objective.class_weights(uniform, multipliers)))
        yield candidate
        exponents = step_size * robustness * (1.0 - candidate.recalls)
        exponents -= max(0.0, exponents.max() - LARGEST)  # only differences count
        multipliers = multipliers * np.exp(exponents)
        multipliers = np.maximum(multipliers / multipliers.sum(), FLOOR)
        multipliers = multipliers / multipliers.sum()
