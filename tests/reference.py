"""Slow float64 twins of the formulas, with plain Python loops, written from the paper's equations.

They take anything that NumPy can read and never import the package or torch: what they share with the code under test
is the paper only.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def as_probabilities(targets: Any, num_classes: int) -> FloatArray:
    """(B, C) target probabilities from (B,) labels or (B, C) probabilities."""
    targets = np.asarray(targets)
    if targets.ndim == 2:
        return targets.astype(np.float64)
    one_hot = np.zeros((len(targets), num_classes))
    for i, label in enumerate(targets):
        one_hot[i, int(label)] = 1.0
    return one_hot


def as_rows(costs: Any, rows: int) -> FloatArray:
    """(B, C) costs from (C,) or (B, C) costs."""
    costs = np.asarray(costs, dtype=np.float64)
    return costs if costs.ndim == 2 else np.stack([costs] * rows)


def log_one_plus_sum_exp(exponents: list[float]) -> float:
    """log(1 + Σ_j exp(a_j)), finite for any finite a_j and accurate where it is tiny."""
    largest = max(exponents, default=0.0)
    if largest <= 0.0:
        return math.log1p(math.fsum(math.exp(a) for a in exponents))
    return largest + math.log(math.exp(-largest) + math.fsum(math.exp(a - largest) for a in exponents))


def margin_loss(logits: Any, targets: Any, costs: Any, *, class_average: bool = False) -> FloatArray:
    """Eq. 9, the pairwise form: Σ_y p_y log(1 + Σ_{j≠y} exp(log(c_y/c_j) − (f_y − f_j))), times 1/C on request."""
    f = np.asarray(logits, dtype=np.float64)
    rows, num_classes = f.shape
    p, c = as_probabilities(targets, num_classes), as_rows(costs, rows)
    losses = np.zeros(rows)
    for i in range(rows):
        scores, prices, terms = f[i].tolist(), c[i].tolist(), []
        for y in range(num_classes):
            if p[i, y] == 0.0:
                continue  # 0 · (a finite number)
            exponents = [
                math.log(prices[y] / prices[j]) - (scores[y] - scores[j]) for j in range(num_classes) if j != y
            ]
            terms.append(float(p[i, y]) * log_one_plus_sum_exp(exponents))
        losses[i] = math.fsum(terms)
    return losses / num_classes if class_average else losses


def weighted_loss(logits: Any, targets: Any, costs: Any, *, class_average: bool = False) -> FloatArray:
    """Σ_y c_y p_y ℓ(y, f) with the softmax cross-entropy ℓ(y, f) = log(1 + Σ_{j≠y} exp(f_j − f_y))."""
    f = np.asarray(logits, dtype=np.float64)
    rows, num_classes = f.shape
    p, c = as_probabilities(targets, num_classes), as_rows(costs, rows)
    losses = np.zeros(rows)
    for i in range(rows):
        losses[i] = math.fsum(
            float(c[i, y]) * float(p[i, y]) * cross_entropy(f[i], y) for y in range(num_classes) if p[i, y] != 0.0
        )
    return losses / num_classes if class_average else losses


def margin_gradient(logits: Any, targets: Any, costs: Any) -> FloatArray:
    """∂/∂f_k of Eq. 9, term by term: Σ_{y≠k} p_y q_{yk} − p_k Σ_{j≠k} q_{kj}.

    q_{yj} = exp(a_{yj}) / (1 + Σ_{i≠y} exp(a_{yi})) with a_{yj} = log(c_y/c_j) − (f_y − f_j).
    """
    f = np.asarray(logits, dtype=np.float64)
    rows, num_classes = f.shape
    p, c = as_probabilities(targets, num_classes), as_rows(costs, rows)
    gradient = np.zeros_like(f)
    for i in range(rows):
        for y in range(num_classes):
            a = {j: math.log(c[i, y] / c[i, j]) - (f[i, y] - f[i, j]) for j in range(num_classes) if j != y}
            log_total = log_one_plus_sum_exp(list(a.values()))
            for j, exponent in a.items():
                share = p[i, y] * math.exp(exponent - log_total)
                gradient[i, j] += share
                gradient[i, y] -= share
    return gradient


def cross_entropy(scores: Any, y: int) -> float:
    """ℓ(y, f) = −log softmax_y(f) = log(1 + Σ_{j≠y} exp(f_j − f_y))."""
    f = [float(s) for s in scores]
    return log_one_plus_sum_exp([f[j] - f[y] for j in range(len(f)) if j != y])


def zero_one(scores: Any, y: int) -> float:
    """1 where y is not the prediction; ties go to the first index."""
    f = [float(s) for s in scores]
    best = 0
    for j in range(1, len(f)):
        if f[j] > f[best]:
            best = j
    return float(y != best)


LOSSES = {"zero-one": zero_one, "cross-entropy": cross_entropy}


def class_risks(logits: Any, targets: Any, loss: str) -> tuple[FloatArray, FloatArray]:
    """Algorithms 1 and 2: sums Σ_x p_j(x) ℓ(j, f(x)) and masses Σ_x p_j(x), each (C,)."""
    f = np.asarray(logits, dtype=np.float64)
    rows, num_classes = f.shape
    p = as_probabilities(targets, num_classes)
    sums, counts = np.zeros(num_classes), np.zeros(num_classes)
    for j in range(num_classes):
        hit = [i for i in range(rows) if p[i, j] != 0.0]
        sums[j] = math.fsum(float(p[i, j]) * LOSSES[loss](f[i], j) for i in hit)
        counts[j] = math.fsum(float(p[i, j]) for i in hit)
    return sums, counts


def group_risks(logits: Any, targets: Any, groups: Any, num_groups: int, loss: str) -> tuple[FloatArray, FloatArray]:
    """Per group, the sum of Σ_y p_y(x) ℓ(y, f(x)) over its examples, and how many they are."""
    f = np.asarray(logits, dtype=np.float64)
    p = as_probabilities(targets, f.shape[1])
    sums, counts = np.zeros(num_groups), np.zeros(num_groups)
    for i, group in enumerate(np.asarray(groups).tolist()):
        for y in range(f.shape[1]):
            if p[i, y] != 0.0:
                sums[group] += p[i, y] * LOSSES[loss](f[i], y)
        counts[group] += 1
    return sums, counts


def class_weights(anchor: str, robustness: float, priors: Any, weights: Any) -> FloatArray:
    """β_y = (1 − α)·anchor_y + α·λ_y with anchor 1/C ("balanced") or π ("standard")."""
    priors, weights = np.asarray(priors, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    beta = np.zeros(len(priors))
    for y in range(len(priors)):
        start = {"balanced": 1.0 / len(priors), "standard": priors[y]}[anchor]
        beta[y] = (1.0 - robustness) * start + robustness * weights[y]
    return beta


def costs(anchor: str, robustness: float, priors: Any, weights: Any) -> FloatArray:
    """c_y = β_y / π_y."""
    beta = class_weights(anchor, robustness, priors, weights)
    return np.array([b / float(prior) for b, prior in zip(beta, np.asarray(priors), strict=True)])


def exponentiated_gradient(weights: Any, risks: Any, step_size: float, *, decay: float = 0.0) -> FloatArray:
    """λ_j ∝ λ_j^(1−decay)·exp(step·R_j) in 60 decimal digits; a NaN risk keeps its share. No floor."""
    before = [Decimal(float(w)) for w in np.asarray(weights)]
    values = [float(r) for r in np.asarray(risks)]
    with localcontext() as context:
        context.prec = 60
        known = [j for j, risk in enumerate(values) if not math.isnan(risk)]
        moved = {j: before[j] ** (1 - Decimal(decay)) * (Decimal(step_size) * Decimal(values[j])).exp() for j in known}
        missing = sum((before[j] for j in range(len(before)) if j not in moved), Decimal(0))
        scale = (sum(before, Decimal(0)) - missing) / sum(moved.values(), Decimal(0)) if moved else Decimal(1)
        return np.array([float(moved[j] * scale) if j in moved else float(w) for j, w in enumerate(before)])


def per_class_recall(predictions: Any, labels: Any, num_classes: int) -> FloatArray:
    """(C,) share of the examples of each class that are predicted right, NaN for a class without examples."""
    recalls = np.full(num_classes, math.nan)
    pairs = list(zip(np.asarray(predictions).tolist(), np.asarray(labels).tolist(), strict=True))
    for y in range(num_classes):
        hits = [prediction == label for prediction, label in pairs if label == y]
        if hits:
            recalls[y] = sum(hits) / len(hits)
    return recalls


def worst_k(recalls: Any, k: int) -> float:
    """The mean of the k lowest per-class recalls; NaN where a recall is unknown."""
    values = [float(r) for r in np.asarray(recalls)]
    return math.nan if any(math.isnan(v) for v in values) else sum(sorted(values)[:k]) / k


def wilson(correct: int, count: int, z: float) -> tuple[float, float]:
    """Wilson's score interval (1927): the p with |p̂ − p| ≤ z·sqrt(p(1 − p)/n)."""
    if count == 0:
        return math.nan, math.nan
    share = correct / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return centre - half, centre + half
