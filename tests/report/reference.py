"""Slow twins of what the report computes, written from the definitions."""

from __future__ import annotations

from typing import Any

import numpy as np


def paired_bootstrap(
    right: np.ndarray, labels: np.ndarray, draws: int, seed: int, k: int = 1
) -> tuple[float, tuple[float, float]]:
    """Difference of the second half of the columns' models to the first; (N, 2R) whether each model is right."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]

    def difference(chosen: list[np.ndarray]) -> float:
        recalls = np.array([right[rows].mean(axis=0) for rows in chosen])
        lowest = np.sort(recalls, axis=0)[:k].mean(axis=0)
        half = len(lowest) // 2
        return float(lowest[half:].mean() - lowest[:half].mean())

    drawn = [difference([rng.choice(rows, len(rows)) for rows in members]) for _ in range(draws)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return difference(members), (float(low), float(high))


def t_probability(t: float, degrees: int, steps: int = 200_001) -> float:
    """P(|T| ≤ t) by integrating the density of Student's T with the trapezoidal rule."""
    x: Any = np.linspace(0.0, t, steps)
    density = (1 + x**2 / degrees) ** (-(degrees + 1) / 2)
    whole: Any = np.tan(np.linspace(0.0, np.pi / 2, steps)[:-1])  # x = tan u maps the half line onto [0, π/2)
    half = np.trapezoid((1 + whole**2 / degrees) ** (-(degrees + 1) / 2) * (1 + whole**2), np.arctan(whole))
    return float(np.trapezoid(density, x) / half)
