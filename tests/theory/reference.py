"""Slow twins of the theory, with plain loops, written from the paper; they share nothing with the code under test."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def softmax_loss(scores: list[float], y: int) -> float:
    """ℓ_xent(y, z) = −z_y + log Σ_j exp z_j; infinite for an excluded class."""
    if scores[y] == -math.inf:
        return math.inf
    top = max(scores)
    return top - scores[y] + math.log(math.fsum(math.exp(score - top) for score in scores))


def zero_one_loss(scores: list[float], y: int) -> float:
    return 0.0 if scores.index(max(scores)) == y else 1.0


def class_risks(masses: Any, rows: Any, logits: Any, loss: Any = softmax_loss) -> list[float]:
    """(1/π_y) E[η_y(X) ℓ(y, f(X))] for each y."""
    masses, rows, logits = (np.asarray(part, dtype=float).tolist() for part in (masses, rows, logits))
    risks = []
    for y in range(len(rows[0])):
        prior = math.fsum(mass * row[y] for mass, row in zip(masses, rows, strict=True))
        terms = [
            mass * row[y] * loss(scores, y)
            for mass, row, scores in zip(masses, rows, logits, strict=True)
            if mass * row[y] > 0
        ]
        risks.append(math.fsum(terms) / prior)
    return risks


def normalised_distance(masses: Any, teacher: Any, truth: Any, tau: float = 1.0) -> list[float]:
    """E|τ p_y/π^t_y − η_y/π_y| for each y (Theorems 2 and 8)."""
    masses, teacher, truth = (np.asarray(part, dtype=float).tolist() for part in (masses, teacher, truth))
    found = []
    for y in range(len(truth[0])):
        theirs = math.fsum(mass * row[y] for mass, row in zip(masses, teacher, strict=True))
        prior = math.fsum(mass * row[y] for mass, row in zip(masses, truth, strict=True))
        found.append(
            math.fsum(
                mass * abs(tau * p[y] / theirs - eta[y] / prior)
                for mass, p, eta in zip(masses, teacher, truth, strict=True)
            )
        )
    return found


def algorithm(
    masses: Any, teacher: Any, joint: Any, *, alpha: float, anchor: Any, gamma: float, updates: int
) -> tuple[list[list[float]], list[list[list[float]]]]:
    """Algorithm 3 (Algorithm 1 for α = 1) with Lemma 5's minimiser: λ^0..λ^K and f^1..f^K, f^0 being constant.

    `joint` is the (M, C) validation mass by instance and label: the teacher's, or that of one-hot labels (Algorithm 2).
    """
    masses, teacher, joint = (np.asarray(part, dtype=float).tolist() for part in (masses, teacher, joint))
    classes, instances = len(teacher[0]), range(len(teacher))
    marginals = [math.fsum(masses[x] * teacher[x][y] for x in instances) for y in range(classes)]
    multipliers = [[1 / classes] * classes]
    scorers: list[list[list[float]]] = []
    current = [[0.0] * classes for _ in instances]
    for _ in range(updates):
        raised = []
        for j in range(classes):
            total = math.fsum(joint[x][j] for x in instances)
            risk = math.fsum(joint[x][j] * softmax_loss(current[x], j) for x in instances if joint[x][j] > 0) / total
            raised.append(multipliers[-1][j] * math.exp(gamma * alpha * risk))
        multipliers.append([value / math.fsum(raised) for value in raised])
        beta = [(1 - alpha) * anchor[y] + alpha * multipliers[-1][y] for y in range(classes)]
        current = [
            [
                math.log(beta[y] / marginals[y] * teacher[x][y]) if teacher[x][y] > 0 else -math.inf
                for y in range(classes)
            ]
            for x in instances
        ]
        scorers.append(current)
    return multipliers, scorers
