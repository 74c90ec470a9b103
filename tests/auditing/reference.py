"""Slow twins of the audit's formulas, written from their definitions."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import betainc
from scipy.stats import betabinom

from robustdistill import Predictions


def made_up(n: int = 400, classes: int = 4, seed: int = 0, groups: bool = False, kind: str = "logits") -> Predictions:
    """Predictions that are better on early classes than on late ones."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(classes, size=n - classes)])
    scores = rng.normal(size=(n, classes))
    scores[np.arange(n), labels] += np.linspace(3, 1, classes)[labels]
    owner = rng.choice(["north", "south", "10", "9"], n) if groups else None
    if kind == "probabilities":
        scores = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    if kind == "classes":
        scores = scores.argmax(axis=1)
    names = [f"class {index}" for index in range(classes)]
    return Predictions([f"row {index}" for index in range(n)], scores, kind, names, labels, owner)


def calibration_error(predicted: list[float], outcomes: list[bool], bins: int = 15) -> float:
    """Σ_b n_b/n · |mean prediction − frequency|."""
    found = 0.0
    for index in range(bins):
        inside = [i for i, p in enumerate(predicted) if min(int(p * bins), bins - 1) == index]
        if inside:
            mean = sum(predicted[i] for i in inside) / len(inside)
            rate = sum(outcomes[i] for i in inside) / len(inside)
            found += len(inside) / len(predicted) * abs(mean - rate)
    return found


def cell(table: Predictions, name: str | None, group: str | None) -> dict[str, object]:
    """What a line of the audit says of one class, one group (name None), or one class within a group."""
    chances = table.probabilities()
    true = [table.class_names[i] for i in table.labels]
    said = [table.class_names[i] for i in table.predicted]
    here = [group is None or table.groups[i] == group for i in range(len(table))]
    mine = [i for i in range(len(table)) if here[i] and name in (None, true[i])]
    claimed = [i for i in range(len(table)) if here[i] and name in (None, said[i])]
    mistakes: dict[str, int] = {}
    for i in mine:
        if true[i] != said[i]:
            key = said[i] if name is not None else f"{true[i]} → {said[i]}"
            mistakes[key] = mistakes.get(key, 0) + 1
    right = [true[i] == said[i] for i in claimed]
    confidence = [float(chances[i].max()) for i in claimed]
    return {
        "count": len(mine),
        "correct": sum(true[i] == said[i] for i in mine),
        "predicted": len(claimed),
        "precision": sum(right) / len(right) if right else math.nan,
        "confidence": sum(confidence) / len(confidence) if right else math.nan,
        "calibration_error": calibration_error(confidence, right) if right else math.nan,
        "most": max(mistakes.values(), default=0),
        "mistakes": mistakes,
    }


def chance_of_worst(correct: list[int], counts: list[int]) -> list[float]:
    """P(θ_y is the lowest), by integration over θ and over the grid of populations, on 120 intervals."""
    m, s = (part.ravel()[:, None] for part in np.meshgrid((np.arange(60) + 0.5) / 60, np.geomspace(0.5, 5000.0, 40)))
    weight = np.ones(len(m))
    for k, n in zip(correct, counts, strict=True):
        weight *= betabinom.pmf(k, n, m[:, 0] * s[:, 0], (1 - m[:, 0]) * s[:, 0])
    likely = weight > 1e-3 * weight.max()
    m, s, weight = m[likely], s[likely], weight[likely] / weight[likely].sum()
    edges = np.linspace(0, 1, 121)
    below = [betainc(m * s + k, (1 - m) * s + n - k, edges) for k, n in zip(correct, counts, strict=True)]
    found = []
    for y, one in enumerate(below):
        rest = np.prod([1 - (other[:, 1:] + other[:, :-1]) / 2 for j, other in enumerate(below) if j != y], axis=0)
        found.append(float(weight @ (np.diff(one, axis=1) * rest).sum(axis=1)))
    return found


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact test of a fair coin."""
    n, k = only_first + only_second, min(only_first, only_second)
    return 1.0 if n == 0 else min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)
