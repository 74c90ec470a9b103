"""Slow float64 twins of the methods' losses, with plain Python loops, written from the papers' equations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from reference import FloatArray, as_probabilities, cross_entropy, log_one_plus_sum_exp


def log_softmax(scores: Any) -> list[float]:
    f = [float(s) for s in scores]
    return [-cross_entropy(f, y) for y in range(len(f))]


def kl(log_p: list[float], log_q: list[float]) -> float:
    """KL(p ‖ q) of logarithms; 0 log 0 = 0."""
    terms = []
    for lp, lq in zip(log_p, log_q, strict=True):
        p = math.exp(lp)
        if p > 0:
            terms.append(p * (lp - lq))
    return math.fsum(terms)


def soft_cross_entropy(scores: Any, p: Any) -> float:
    return math.fsum(float(p[y]) * cross_entropy(scores, y) for y in range(len(p)) if p[y] != 0)


def gamma(p: Any, y: int) -> float:
    """γ_avg(y, p) = p_y − (1/(C−1)) Σ_{y'≠y} p_{y'}."""
    return float(p[y]) - math.fsum(float(p[j]) for j in range(len(p)) if j != y) / (len(p) - 1)


def ada_margin(logits: Any, probabilities: Any, scale: float = 1.0) -> FloatArray:
    """Σ_y p_y log(1 + Σ_{j≠y} exp(scale · γ_y − (f_y − f_j)))."""
    f, p = np.asarray(logits, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    losses = np.zeros(len(f))
    for i in range(len(f)):
        for y in range(f.shape[1]):
            if p[i, y] != 0:
                exponents = [scale * gamma(p[i], y) - (f[i, y] - f[i, j]) for j in range(f.shape[1]) if j != y]
                losses[i] += p[i, y] * log_one_plus_sum_exp(exponents)
    return losses


def alphas(probabilities: Any, labels: Any) -> FloatArray:
    """α_y = max(0, mean over the examples of class y of γ_avg(y, p))."""
    p = np.asarray(probabilities, dtype=np.float64)
    result = np.zeros(p.shape[1])
    for y in range(p.shape[1]):
        own = [gamma(p[i], y) for i, label in enumerate(np.asarray(labels)) if label == y]
        result[y] = max(0.0, math.fsum(own) / len(own))
    return result


def ada_alpha(logits: Any, probabilities: Any, labels: Any, alpha: Any) -> FloatArray:
    """(1 − α_y) CE(f, y) + α_y CE(f, p)."""
    f, p = np.asarray(logits, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    losses = np.zeros(len(f))
    for i, y in enumerate(np.asarray(labels).tolist()):
        losses[i] = (1 - alpha[y]) * cross_entropy(f[i], y) + alpha[y] * soft_cross_entropy(f[i], p[i])
    return losses


def class_losses(logits: Any, labels: Any) -> list[float | None]:
    """L_y, the mean cross-entropy on the examples of class y; None where there are none."""
    f = np.asarray(logits, dtype=np.float64)
    result: list[float | None] = []
    for y in range(f.shape[1]):
        own = [cross_entropy(f[i], y) for i, label in enumerate(np.asarray(labels).tolist()) if label == y]
        result.append(math.fsum(own) / len(own) if own else None)
    return result


def group_dro_weights(q: list[float], losses: list[float | None], eta: float, penalty: list[float]) -> list[float]:
    """q_y ← q_y exp(η (L_y + C/√n_y)), then normalised; a class that is absent is not multiplied."""
    moved = [
        q_y if loss is None else q_y * math.exp(eta * (loss + extra))
        for q_y, loss, extra in zip(q, losses, penalty, strict=True)
    ]
    return [m / math.fsum(moved) for m in moved]


def group_dro_loss(q: list[float], losses: list[float | None]) -> float:
    return math.fsum(q_y * loss for q_y, loss in zip(q, losses, strict=True) if loss is not None)


def logit_adjustment(logits: Any, targets: Any, counts: Any, tau: float = 1.0) -> FloatArray:
    """−Σ_y p_y log softmax_y(f + τ log π)."""
    f, total = np.asarray(logits, dtype=np.float64), sum(float(n) for n in counts)
    p = as_probabilities(targets, f.shape[1])
    losses = np.zeros(len(f))
    for i in range(len(f)):
        shifted = [f[i, y] + tau * math.log(float(counts[y]) / total) for y in range(f.shape[1])]
        losses[i] = soft_cross_entropy(shifted, p[i])
    return losses


def effective_number_weights(counts: Any, beta: float) -> list[float]:
    """(1 − β)/(1 − β^n_y), scaled to sum to C."""
    raw = [(1 - beta) / (1 - beta ** float(n)) for n in counts]
    return [len(raw) * w / math.fsum(raw) for w in raw]


def ldam(logits: Any, labels: Any, counts: Any, weights: Any, max_margin: float = 0.5, scale: float = 30) -> FloatArray:
    """w_y/s · CE(s (f − Δ_y e_y), y) over the batch's mean weight, Δ_y = K/n_y^(1/4) with the largest at max_margin."""
    f, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels).tolist()
    rarity = [1 / float(n) ** 0.25 for n in counts]
    mean = math.fsum(float(weights[y]) for y in labels) / len(labels)
    losses = np.zeros(len(f))
    for i, y in enumerate(labels):
        scores = [
            scale * (f[i, j] - (max_margin * rarity[y] / max(rarity) if j == y else 0.0)) for j in range(f.shape[1])
        ]
        losses[i] = float(weights[y]) / mean * cross_entropy(scores, y) / scale
    return losses


def balanced_kd(logits: Any, teacher: Any, labels: Any, weights: Any, t: float = 2.0, alpha: float = 1.0) -> FloatArray:
    """CE(f, y) + α T² KL(p̃ ‖ softmax(f/T)), p̃ the re-weighted and renormalised softmax(f^t/T)."""
    f, g = np.asarray(logits, dtype=np.float64), np.asarray(teacher, dtype=np.float64)
    losses = np.zeros(len(f))
    for i, y in enumerate(np.asarray(labels).tolist()):
        log_p = [math.log(float(w)) + lp for w, lp in zip(weights, log_softmax(g[i] / t), strict=True)]
        top = max(log_p)
        total = top + math.log(math.fsum(math.exp(lp - top) for lp in log_p))
        distilled = kl([lp - total for lp in log_p], log_softmax(f[i] / t))
        losses[i] = cross_entropy(f[i], y) + alpha * t**2 * distilled
    return losses


def dkd(
    logits: Any, teacher: Any, labels: Any, warm: float, alpha: float = 1.0, beta: float = 8.0, t: float = 4.0
) -> FloatArray:
    """CE(f, y) + warm T² (α · target-class KL + β · KL among the other classes)."""
    f, g = np.asarray(logits, dtype=np.float64) / t, np.asarray(teacher, dtype=np.float64) / t
    losses = np.zeros(len(f))
    for i, y in enumerate(np.asarray(labels).tolist()):
        others = [j for j in range(f.shape[1]) if j != y]
        binary, rest = [], []
        for scores in (g[i], f[i]):
            # log p_y and log(1 − p_y) = log Σ_{j≠y} e^{f_j} − log Σ_j e^{f_j}
            top = max(scores[j] for j in others)
            log_others = top + math.log(math.fsum(math.exp(scores[j] - top) for j in others))
            binary.append([-cross_entropy(scores, y), -log_one_plus_sum_exp([float(scores[y]) - log_others])])
            rest.append(log_softmax([scores[j] for j in others]))
        losses[i] = cross_entropy(f[i] * t, y) + warm * t**2 * (alpha * kl(*binary) + beta * kl(*rest))
    return losses


def logit_std_kd(logits: Any, teacher: Any, labels: Any, t: float = 2.0, weight: float = 9.0) -> FloatArray:
    """CE(f, y) + weight T² KL(softmax(z(f^t)/T) ‖ softmax(z(f)/T)), z the z-score with C − 1 in the deviation."""
    f, g = np.asarray(logits, dtype=np.float64), np.asarray(teacher, dtype=np.float64)
    losses = np.zeros(len(f))
    for i, y in enumerate(np.asarray(labels).tolist()):
        standard = []
        for scores in (g[i], f[i]):
            mean = math.fsum(scores) / len(scores)
            deviation = math.sqrt(math.fsum((s - mean) ** 2 for s in scores) / (len(scores) - 1))
            standard.append(log_softmax([(s - mean) / (deviation + 1e-7) / t for s in scores]))
        losses[i] = cross_entropy(f[i], y) + weight * t**2 * kl(*standard)
    return losses
