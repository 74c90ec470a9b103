"""How good a teacher is for a robust student, from its predictions on labelled held-out examples.

Theorem 2 says what counts: A_y = E|p^t_y/π^t_y − η_y/π_y|. On real data η is unknown, and no number of labels at single
examples shows it. What can be estimated without bias rests on E|D| = max over |s(x)| ≤ 1 of E[s(x) D(x)], where
D_y = p^t_y/π^t_y − η_y/π_y: any signs s that were chosen without the labels they are applied to give a mean of
s(x) (p^t_y/π^t_y − 1(Y = y)/π_y), which is in expectation no more than A_y.

- `lower`: signs from bins of the prediction itself. It sees E[η | p] only, so that the constant teacher p = π looks
  perfect to it.
- `estimate`: signs from a second model of η, cross-fitted on the labels, that sees features too: at least what the
  teacher should have seen. Still no more than A_y in expectation, and below it where the second model is wrong.
- `refinement`: E|E[η | p] − η|/π by the same second model: how much of η the prediction leaves out. A_y lies between
  `lower` and calibration error + refinement.
- `upper`: E|p^t_y/π^t_y − 1(Y = y)/π_y|, never less than A_y; equal to it where labels are certain (η is 0 or 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from robustdistill.errors import InputError
from robustdistill.predictions import Predictions
from robustdistill.theory.tables import FloatArray
from robustdistill.theory.variances import LossVariances, empirical_loss_variances

IntArray = npt.NDArray[np.int64]

_FLOOR = 1e-12  # Of probabilities in features, so that their logarithms are finite.


@dataclass(frozen=True, eq=False)
class Estimates:
    """(C,) means and their standard errors over examples (given the fitted signs and marginals)."""

    values: FloatArray
    errors: FloatArray

    @property
    def worst(self) -> float:
        """The largest: what Theorem 2 takes. The largest of noisy values is too large on average."""
        return float(self.values.max())

    @property
    def mean(self) -> float:
        """The mean over classes, less noisy than the largest."""
        return float(self.values.mean())


@dataclass(frozen=True, eq=False)
class Fitness:
    """What a teacher's predictions show of A_y = E|p^t_y/π^t_y − η_y/π_y|, class by class; 0 is best, 2 the most.

    Attributes:
        class_names: C names.
        priors: (C,) π: those of the labels, or those that the examples were weighted to.
        marginals: (C,) π^t.
        lower: a lower bound, from the prediction alone.
        upper: an upper bound, from the labels.
        estimate: by a second model that sees features; None without them.
        refinement: how much of η the prediction leaves out, by that model; None without features.
        miscalibration: E|p_y − E[η_y | p_y]|/π_y, from below: what `lower` would be, did the loss divide by π.
        marginal_mismatch: (C,) |π^t_y/π_y − 1|: the part of it that dividing by π^t removes. A_y differs from the same
            error divided by π by no more than this.
        variances: what the teacher's labels and one-hot ones induce on the loss of a scorer, the teacher by default.
    """

    class_names: tuple[str, ...]
    priors: FloatArray
    marginals: FloatArray
    lower: Estimates
    upper: Estimates
    estimate: Estimates | None
    refinement: Estimates | None
    miscalibration: Estimates
    marginal_mismatch: FloatArray
    variances: LossVariances

    @property
    def headline(self) -> Estimates:
        """The estimate where there were features, else the upper bound: never the bound that a constant passes."""
        return self.upper if self.estimate is None else self.estimate

    @property
    def score(self) -> float:
        """The largest of the headline over classes: Theorem 2's approximation error for B = 1; small is good."""
        return self.headline.worst

    def as_dict(self) -> dict[str, Any]:
        """Plain lists and numbers."""
        parts = {"lower": self.lower, "estimate": self.estimate, "upper": self.upper}
        parts |= {"refinement": self.refinement, "miscalibration": self.miscalibration}
        columns = {
            name: None if part is None else {"values": part.values.tolist(), "errors": part.errors.tolist()}
            for name, part in parts.items()
        }
        return {
            "class_names": list(self.class_names),
            "score": self.score,
            "score_is": "upper" if self.estimate is None else "estimate",
            "priors": self.priors.tolist(),
            "marginals": self.marginals.tolist(),
            **columns,
            "marginal_mismatch": self.marginal_mismatch.tolist(),
            "variance": {
                "distilled": self.variances.distilled.tolist(),
                "one_hot": self.variances.one_hot.tolist(),
            },
        }


def teacher_fitness(
    predictions: Predictions,
    *,
    temperature: float = 1.0,
    features: npt.ArrayLike | None = None,
    priors: npt.ArrayLike | None = None,
    second_model: Any = None,
    scorer: npt.ArrayLike | None = None,
    bins: int = 10,
    folds: int = 5,
    seed: int = 0,
) -> Fitness:
    """Estimates how far a teacher's predictions are from the class densities that a robust student needs (Theorem 2).

    Args:
        predictions: of the teacher on labelled examples that it was not trained on.
        temperature: of the student's targets.
        features: (N, D) what a second model may see beside these predictions: embeddings, few pixels, other models'
            log-probabilities (`Predictions.log_probabilities`). Without them nothing beyond p is seen.
        priors: (C,) priors of the students' training data, where the held-out examples have others: examples are
            weighted by class, as P(x | y) is the same. Counts are normalised.
        second_model: a scikit-learn classifier with `predict_proba`, cloned for each fold; by default logistic
            regression on standardised features.
        scorer: (N, C) logits of a student for the variances; by default the teacher's own.
        bins: of the prediction, for each class.
        folds: of the cross-fitting; signs come from the other folds.
        seed: of the folds.

    Raises:
        InputError: no labels, a class with fewer examples than folds, or a value out of range.
    """
    labels, probabilities = _checked(predictions, temperature, bins, folds)
    weights, shares = _class_weights(labels, predictions, priors)
    marginals = weights @ probabilities
    if len(absent := np.flatnonzero(marginals <= 0)):
        raise InputError(
            f"predictions must give every class some probability; {predictions.class_names[absent[0]]!r} has none"
        )
    hard = np.zeros_like(probabilities)
    hard[np.arange(len(labels)), labels] = 1.0
    parts = _folds(labels, folds, seed)
    calibrated = _calibrated(probabilities, hard, weights, parts, bins)
    normalised = probabilities / marginals
    off = normalised - hard / shares
    second = None
    if features is not None:
        given = np.asarray(features, dtype=np.float64)
        if given.ndim != 2 or len(given) != len(labels) or not np.isfinite(given).all():
            raise InputError(f"features must be finite and (N, D) with N = {len(labels)}, got {given.shape}")
        seen = np.hstack([np.log(np.maximum(probabilities, _FLOOR)), given])
        second = _second(seen, labels, shares, parts, second_model)
    gap = (probabilities - hard) / shares
    own = predictions.log_probabilities() if scorer is None else scorer
    return Fitness(
        class_names=predictions.class_names,
        priors=shares,
        marginals=marginals,
        lower=_mean(np.sign(normalised - calibrated / shares) * off, weights),
        upper=_mean(np.abs(off), weights),
        estimate=None if second is None else _mean(np.sign(normalised - second / shares) * off, weights),
        refinement=None if second is None else _refinement(calibrated, second, hard, shares, weights),
        miscalibration=_mean(np.sign(probabilities - calibrated) * gap, weights),
        marginal_mismatch=np.abs(marginals / shares - 1),
        variances=empirical_loss_variances(probabilities, labels, own),
    )


def _refinement(
    calibrated: FloatArray, second: FloatArray, hard: FloatArray, shares: FloatArray, weights: FloatArray
) -> Estimates:
    return _mean(np.sign(calibrated - second) * (calibrated - hard) / shares, weights)


def _checked(predictions: Predictions, temperature: float, bins: int, folds: int) -> tuple[IntArray, FloatArray]:
    if predictions.labels is None:
        raise InputError("predictions must have labels: a teacher's fitness is measured against them")
    for name, value, least in (("bins", bins, 2), ("folds", folds, 2)):
        if value < least:
            raise InputError(f"{name} must be at least {least}, got {value}")
    counts = np.bincount(predictions.labels, minlength=predictions.num_classes)
    if len(few := np.flatnonzero(counts < folds)):
        raise InputError(
            f"each class must have at least as many examples as folds ({folds}); {predictions.class_names[few[0]]!r} "
            f"has {counts[few[0]]}: pass fewer folds, or predictions on more examples"
        )
    soft = predictions.probabilities(temperature).astype(np.float64)
    return predictions.labels, soft / soft.sum(axis=1, keepdims=True)


def _class_weights(
    labels: IntArray, predictions: Predictions, priors: npt.ArrayLike | None
) -> tuple[FloatArray, FloatArray]:
    """(N,) weights summing to 1 and (C,) the class priors that they make."""
    shares = np.bincount(labels, minlength=predictions.num_classes) / len(labels)
    wanted = shares if priors is None else np.asarray(priors, dtype=np.float64)
    if wanted.shape != shares.shape or not (np.isfinite(wanted) & (wanted > 0)).all():
        raise InputError(f"priors must be ({len(shares)},), positive and finite, got {priors!r}")
    wanted = wanted / wanted.sum()
    weights = (wanted / shares)[labels]
    return weights / weights.sum(), wanted


def _folds(labels: IntArray, folds: int, seed: int) -> IntArray:
    """(N,) the fold of each example, dealt out class by class."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    part = np.empty(len(labels), dtype=np.int64)
    part[order] = np.arange(len(labels)) % folds
    return part


def _calibrated(
    probabilities: FloatArray, hard: FloatArray, weights: FloatArray, parts: IntArray, bins: int
) -> FloatArray:
    """(N, C) E[η_y | p_y] by bins, each example's from the other folds."""
    result = np.empty_like(probabilities)
    for fold in range(parts.max() + 1):
        fitted, held = parts != fold, parts == fold
        for y in range(probabilities.shape[1]):
            scores, truth = probabilities[fitted, y], hard[fitted, y]
            # Half of the edges where all examples are, half where the class is: a rare one has few scores of its own.
            halves = np.linspace(0, 1, bins // 2 + 2)[1:-1], np.linspace(0, 1, bins - bins // 2 + 1)[1:-1]
            edges = np.unique(
                np.concatenate([np.quantile(scores[truth > 0], halves[0]), np.quantile(scores, halves[1])])
            )
            bin_of = np.searchsorted(edges, scores, side="right")
            mass = np.bincount(bin_of, weights[fitted], minlength=len(edges) + 1)
            hits = np.bincount(bin_of, weights[fitted] * truth, minlength=len(edges) + 1)
            overall = hits.sum() / mass.sum()
            rates = np.divide(hits, mass, out=np.full(len(mass), overall), where=mass > 0)
            result[held, y] = rates[np.searchsorted(edges, probabilities[held, y], side="right")]
    return result


def _second(features: FloatArray, labels: IntArray, shares: FloatArray, parts: IntArray, model: Any) -> FloatArray:
    """(N, C) a second model of η, each example's from the other folds."""
    from sklearn.base import clone
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    base = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)) if model is None else model
    result = np.empty((len(labels), len(shares)))
    for fold in range(parts.max() + 1):
        fitted, held = parts != fold, parts == fold
        chances = clone(base).fit(features[fitted], labels[fitted]).predict_proba(features[held])
        # Fitted on the classes as they are among the examples; a change of priors is a factor for each class.
        factors = shares / np.bincount(labels[fitted], minlength=len(shares))
        result[held] = chances * factors / (chances * factors).sum(axis=1, keepdims=True)
    return result


def _mean(values: FloatArray, weights: FloatArray) -> Estimates:
    means = weights @ values
    errors = np.sqrt((weights**2) @ (values - means) ** 2)
    return Estimates(np.asarray(means), np.asarray(errors))
