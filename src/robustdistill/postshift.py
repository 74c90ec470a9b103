"""Post-shift: better worst-class accuracy from a frozen classifier, by one coefficient a class. NumPy only.

A shifted classifier predicts argmax_y w_y·p_y(x); nothing is retrained, and any table of predictions will do.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, cast

import numpy as np
import numpy.typing as npt

from robustdistill.errors import InputError, unknown
from robustdistill.files import write_json
from robustdistill.metrics import Scores
from robustdistill.objectives import Objective
from robustdistill.predictions import FloatArray, IntArray, Predictions

Method = Literal["exponentiated-gradient", "search"]
Priors = Mapping[str, float] | Sequence[float] | npt.NDArray[Any]

METHODS: tuple[Method, ...] = ("exponentiated-gradient", "search")
FROM_PRIORS = "priors"  # what `method` says of a shift that was not fitted
SCHEMA = 1
FLOOR = 1e-8  # The smallest share of λ, as in `multipliers`: an exact zero could never rise again.
# Thresholds of the search that are closer than this (in log w) count as one: a coefficient between them would not
# survive rounding.
RESOLUTION = 1e-6
_CHUNK = 1 << 20  # entries of a block of rows that is worked on at once, so that it stays in the cache


class PostShift:
    """Coefficients w > 0 by which a frozen classifier's probabilities are multiplied (Narasimhan & Menon 2021, Alg. 3).

    They maximise (1 − robustness)·balanced + robustness·worst-class accuracy on a labelled table that the classifier
    was not trained on; of equals, the one with the better balanced accuracy is taken, then the first.

    Both methods start from w = 1/π, where π is the class prior *that the scores imply* [ours]: the one for which the
    probabilities w·p, normalised, are on average uniform over examples that weigh every class alike. Of a calibrated
    model that is the prior of its training set. It is found from the scores, so it needs no knowledge of the training
    set, and it makes the result equivariant: of a model whose probabilities are multiplied by s_y and normalised, the
    coefficients are divided by s_y, and the predictions stay. (Only nearly so where probabilities are below 1e-12, as
    which they count; not where `priors` are given, nor in the rare case that no shift found is as good as none.)

    - "exponentiated-gradient": w = β/π with β = (1 − robustness)/C + robustness·λ; λ starts uniform, and each iteration
      λ_y ← λ_y·exp(step_size·robustness·R_y), normalised, R_y the zero-one error on class y. [ours] The best iterate is
      kept, not the last, and w = 1 is a candidate too: never worse than the unshifted model, on the fit table.
    - "search" [ours]: each coefficient in turn, worst class first, is set to the best of all its values (an exact line
      search over the N scores at which a prediction flips, in the middle of the best interval) until none improves.
      Deterministic, and it ends: every move is a strict improvement over finitely many values. The outcome is a local
      optimum, because two classes that are worst together cannot both be helped by one coefficient.

    On 50,000 rows of 1,000 classes in single precision the first took 3 s and 1 GB, the second 40 s (n = 1; one core of
    an AMD EPYC, NumPy 2).

    Either over-fits the sample: accuracy on the fit table is too good, the more so the fewer examples a class has, so
    look at another table. Exponentiated gradient is the default because it does so less. Worst-class/balanced accuracy
    on *test* in percent (± standard error of the worst class over n models; the settings' defaults):

        fit table (examples a class)              n   unshifted        gradient         search
        10 Gaussian classes, priors 30:1 (20)    12   22.4 ± 6.5/68.1  56.6 ± 3.7/72.9  51.7 ± 4.3/73.8
        the same (100)                           12   22.9 ± 6.6/68.1  60.6 ± 3.0/73.1  57.8 ± 3.4/74.1
        the same (500)                           12   22.6 ± 6.5/68.0  63.9 ± 2.9/72.9  62.2 ± 3.0/73.4
        digits-lt, convnet-8, standard (40)       6   32.9 ± 5.9/83.0  72.5 ± 3.3/87.9  72.6 ± 2.7/88.8
        digits-lt, convnet-8, balanced (40)       6   64.9 ± 3.7/89.9  71.1 ± 4.6/88.1  65.1 ± 2.7/88.2
        CIFAR-10-LT, ResNet-14, standard (500)    3    0.2 ± 0.1/44.6  50.5 ± 1.4/58.5  49.0 ± 0.2/59.2
        CIFAR-10-LT, ResNet-14, robust (500)      3   52.4 ± 0.6/60.4  50.9 ± 1.9/59.7  50.9 ± 1.3/60.2

    On the fit tables of the Gaussian classes the worst class had 65, 64 and 66 % by gradient: a gap of 9, 4 and 2
    points (search: 11, 5 and 3). Steps of 0.3 fit better still and gave on test the same worst class within the errors
    at 1 to 3 points of balanced accuracy. A robustly trained model had nothing to gain.

    Attributes:
        class_names_: C names, in the order of the fit table.
        log_coefficients_: (C,) float64 log w, of mean 0.
        fit_scores_: accuracy of the shifted model on the fit table, optimistic; None where nothing was fitted.
        unshifted_scores_: of the unshifted model on the fit table; likewise.
        fingerprint_: 16 hex digits that identify the fit table; likewise.

    Args:
        robustness: 0 for balanced accuracy, 1 for that of the worst class, or between.
        method: "exponentiated-gradient" or "search".
        iterations: of exponentiated gradient.
        step_size: γ of exponentiated gradient; 0.1 in all experiments of the distillation paper.

    Raises:
        InputError: a setting is out of range.

    >>> scores = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]]
    >>> table = Predictions(range(4), scores, "probabilities", ("cat", "dog"), labels=[0, 0, 1, 1])
    >>> shift = PostShift().fit(table)
    >>> shift.predict(table)
    array([0, 0, 1, 1])
    >>> shift.unshifted_scores_.worst_class, shift.fit_scores_.worst_class
    (0.0, 1.0)
    """

    def __init__(
        self,
        robustness: float = 1.0,
        method: Method = "exponentiated-gradient",
        *,
        iterations: int = 100,
        step_size: float = 0.1,
    ) -> None:
        if method not in METHODS:
            raise unknown("post-shift method", str(method), METHODS)
        if iterations < 1:
            raise InputError(f"iterations must be at least 1, got {iterations}")
        if not (math.isfinite(step_size) and step_size > 0):
            raise InputError(f"step_size must be a positive number, got {step_size}")
        self.robustness = Objective("balanced", robustness).robustness
        self.method: str = method
        self.iterations, self.step_size = iterations, step_size
        self.tau_: float | None = None
        self.fit_scores_: Scores | None = None
        self.unshifted_scores_: Scores | None = None
        self.fingerprint_: str | None = None

    def fit(self, table: Predictions, priors: Priors | None = None) -> Self:
        """Finds the coefficients on a labelled table that the model was not trained on, such as validation.

        Args:
            table: logits or probabilities, with labels of every class.
            priors: π to use instead of the implied ones, as Algorithm 3 does with those of the training set: counts or
                shares, by class name or in the order of the table's classes.

        Raises:
            InputError: the table has no labels, holds predicted classes only, or lacks a class; priors are not
                positive or do not fit the classes.
        """
        (fitted,) = self._fit(table, [self.robustness], priors)
        vars(self).update(vars(fitted))
        return self

    def curve(
        self,
        table: Predictions,
        robustness: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0),
        priors: Priors | None = None,
    ) -> list[PostShift]:
        """Fitted shifts from balanced to worst-class accuracy, one for each `robustness`; this object stays as it is.

        What was tried for one point is a candidate for all: a point may so be better than from `fit` alone, and on the
        fit table worst-class accuracy never falls, nor balanced accuracy rises, with `robustness`. Only there: evaluate
        `[shift.transform(test).evaluate() for shift in shifts]` on other data.

        Raises:
            InputError: as `fit`, or a robustness is not in [0, 1].
        """
        if len(robustness) == 0:
            raise InputError("robustness must be a list of at least one value, got none")
        return self._fit(table, robustness, priors)

    def _fit(self, table: Predictions, robustness: Sequence[float], priors: Priors | None) -> list[PostShift]:
        if self.method not in METHODS:
            raise InputError("a shift made from priors has nothing to fit: make a PostShift() for that")
        method: Any = self.method
        points = [
            PostShift(value, method, iterations=self.iterations, step_size=self.step_size) for value in robustness
        ]
        fit = _FitTable.of(table)
        start = -fit.implied_log_priors() if priors is None else -np.log(_checked_priors(priors, table.class_names))
        candidates = [candidate for point in points for candidate in point._candidates(fit, start)]
        candidates.append(fit.candidate(np.zeros(table.num_classes)))
        fingerprint = _fingerprint(table)
        for point in points:
            merits = [_merit(candidate.recalls, point.robustness) for candidate in candidates]
            point._set(table.class_names, candidates[merits.index(max(merits))].offsets)
            point._record(table, fingerprint)
        return points

    def _candidates(self, fit: _FitTable, start: FloatArray) -> Iterator[_Candidate]:
        if self.method == "search":
            found = _search(fit, start, self.robustness)
            yield found
            unshifted = np.zeros_like(start)
            if _merit(fit.candidate(unshifted).recalls, self.robustness) > _merit(found.recalls, self.robustness):
                yield _search(fit, unshifted, self.robustness)
        else:
            yield from _exponentiated_gradient(fit, start, self.robustness, self.iterations, self.step_size)

    def _set(self, class_names: Sequence[str], offsets: FloatArray) -> None:
        self.class_names_ = tuple(class_names)
        self.log_coefficients_ = offsets

    def _record(self, table: Predictions, fingerprint: str) -> None:
        """What the table says of the coefficients just set."""
        self.fit_scores_ = Scores.of(
            self.predict(table),
            labels=cast(IntArray, table.labels),
            num_classes=table.num_classes,
            class_names=table.class_names,
        )
        self.unshifted_scores_ = table.evaluate()
        self.fingerprint_ = fingerprint

    @classmethod
    def from_priors(cls, priors: Priors, class_names: Sequence[str] | None = None, *, tau: float = 1.0) -> PostShift:
        """Post-hoc logit adjustment (Menon et al. 2021): w = π^−τ, that is argmax_y f_y(x) − τ·log π_y.

        Nothing is fitted: τ = 1 gives the best balanced accuracy of a calibrated model. `fit_tau` chooses τ.

        Args:
            priors: the training set's class counts or shares, by class name or in the order of `class_names`.
            class_names: C names; may be left out where `priors` has them.
            tau: τ, any finite number; 0 shifts nothing.

        Raises:
            InputError: priors are not positive or do not fit the names, or τ is not finite.
        """
        if class_names is None:
            if not isinstance(priors, Mapping):
                raise InputError("class_names are needed where priors are a list, got None")
            class_names = list(priors)
        if not math.isfinite(tau):
            raise InputError(f"tau must be a finite number, got {tau}")
        shift = cls()
        shift.method, shift.tau_ = FROM_PRIORS, float(tau)
        shift._set(class_names, _centred(-tau * np.log(_checked_priors(priors, class_names))))
        return shift

    @property
    def coefficients_(self) -> FloatArray:
        """(C,) float64 w > 0, of geometric mean 1, in the order of `class_names_`."""
        with np.errstate(over="ignore", under="ignore"):  # logits of thousands ask for coefficients beyond floats
            coefficients: FloatArray = np.exp(self._log_coefficients())
        return coefficients

    def _log_coefficients(self, class_names: Sequence[str] | None = None) -> FloatArray:
        """Log w in the order of `class_names`."""
        if not hasattr(self, "log_coefficients_"):
            raise InputError("this PostShift is not fitted: call fit(table) first")
        if class_names is None or tuple(class_names) == self.class_names_:
            return self.log_coefficients_
        own = dict(zip(self.class_names_, self.log_coefficients_.tolist(), strict=True))
        _check_same_names(own, class_names, "class names of the table must be those of the shift")
        return np.array([own[name] for name in class_names])

    def predict(self, table: Predictions) -> IntArray:
        """(N,) indices into the *table's* class names, comparable to its labels; the first of several equal ones.

        Raises:
            InputError: not fitted, the table holds predicted classes only, or its class names are others.
        """
        offsets = self._log_coefficients(table.class_names)
        return _winners(_log_scores(table), offsets)

    def predict_proba(self, table: Predictions) -> FloatArray:
        """(N, C) w·p, normalised, columns in the order of the table, float64 or float32. Raises as `predict`."""
        offsets = self._log_coefficients(table.class_names)
        scores = _log_scores(table)
        shifted = scores + offsets.astype(scores.dtype)
        with np.errstate(under="ignore"):
            weights = np.exp(shifted - shifted.max(axis=1, keepdims=True))
            probabilities: FloatArray = weights / weights.sum(axis=1, keepdims=True)
        return probabilities

    def transform(self, table: Predictions) -> Predictions:
        """The shifted table, of kind "probabilities", with the same ids, labels and classes. Raises as `predict`."""
        return replace(table, scores=self.predict_proba(table), kind="probabilities")

    def save(self, path: str | Path) -> Path:
        """Writes a JSON file that `load` reads, in one step.

        Raises:
            InputError: not fitted.
        """
        log_coefficients = self._log_coefficients()
        scores = {"fit_scores": self.fit_scores_, "unshifted_scores": self.unshifted_scores_}
        write_json(
            path,
            {
                "schema": SCHEMA,
                "kind": "post-shift",
                "method": self.method,
                "robustness": self.robustness,
                "iterations": self.iterations,
                "step_size": self.step_size,
                "tau": self.tau_,
                "class_names": list(self.class_names_),
                "log_coefficients": log_coefficients.tolist(),
                "fit_table": self.fingerprint_,
                **{name: value.as_dict() if value is not None else None for name, value in scores.items()},
            },
        )
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> PostShift:
        """Reads what `save` wrote.

        Raises:
            InputError: the file is absent, or not one of ours.
        """
        try:
            fields = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read as a post-shift: {error}") from error
        if not isinstance(fields, dict) or (fields.get("kind"), fields.get("schema")) != ("post-shift", SCHEMA):
            raise InputError(f"{path} is not a post-shift file of schema {SCHEMA}")
        try:
            return cls._from_fields(fields)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged: {error!r}") from error

    @classmethod
    def _from_fields(cls, fields: Mapping[str, Any]) -> PostShift:
        made = fields["method"] == FROM_PRIORS
        settings = {"iterations": fields["iterations"], "step_size": fields["step_size"]}
        shift = cls(fields["robustness"], METHODS[0] if made else fields["method"], **settings)
        shift.method, shift.tau_ = fields["method"], fields["tau"]
        names, values = tuple(fields["class_names"]), np.array(fields["log_coefficients"], dtype=np.float64)
        if values.shape != (len(names),) or len(set(names)) != len(names) or not np.isfinite(values).all():
            raise InputError(f"{len(names)} distinct class names must have as many finite log_coefficients")
        shift.class_names_, shift.log_coefficients_ = names, values
        shift.fingerprint_ = fields["fit_table"]
        if fields["fit_scores"] is not None:
            shift.fit_scores_ = Scores.from_dict(fields["fit_scores"], names)
            shift.unshifted_scores_ = Scores.from_dict(fields["unshifted_scores"], names)
        return shift

    def __repr__(self) -> str:
        if self.method == FROM_PRIORS:
            return f"PostShift.from_priors(..., tau={self.tau_})"
        return f"PostShift(robustness={self.robustness}, method={self.method!r})"


def fit_tau(table: Predictions, priors: Priors, taus: Sequence[float] | None = None) -> PostShift:
    """Post-hoc logit adjustment with the τ whose worst-class accuracy on `table` is best; ties by balanced accuracy.

    One number is fitted instead of C: it over-fits less than `PostShift.fit`, and can do less.

    Args:
        table: logits or probabilities, with labels of every class, that the model was not trained on.
        priors: the training set's class counts or shares, by class name or in the order of the table's classes.
        taus: candidates; 0, 0.1, ... 3 by default. Of equals the first is taken.

    Raises:
        InputError: as `PostShift.fit` and `PostShift.from_priors`, or there are no candidates.
    """
    fit = _FitTable.of(table)
    taus = [round(0.1 * step, 1) for step in range(31)] if taus is None else taus
    if len(taus) == 0:
        raise InputError("taus must be a list of at least one number, got none")
    shifts = [PostShift.from_priors(priors, table.class_names, tau=tau) for tau in taus]
    best = max(shifts, key=lambda shift: _merit(fit.candidate(shift.log_coefficients_).recalls, 1.0))
    best._record(table, _fingerprint(table))
    return best


class _Candidate(NamedTuple):
    offsets: FloatArray  # (C,) float64 log w, of mean 0
    recalls: FloatArray  # (C,) on the fit table


class _FitTable(NamedTuple):
    scores: FloatArray  # (N, C) log-probabilities
    labels: IntArray  # (N,)
    counts: IntArray  # (C,)
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, table: Predictions) -> _FitTable:
        if table.labels is None:
            raise InputError("fitting needs labels, and these predictions have none")
        counts = np.bincount(table.labels, minlength=table.num_classes)
        if missing := [table.class_names[index] for index in np.flatnonzero(counts == 0)]:
            shown = ", ".join(map(repr, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
            raise InputError(f"the fit table must have examples of every class; it has none of {shown}")
        return cls(_log_scores(table), table.labels, counts, table.class_names)

    def recalls(self, predicted: IntArray) -> FloatArray:
        hits = self.labels[predicted == self.labels]
        recalls: FloatArray = np.bincount(hits, minlength=len(self.counts)) / self.counts
        return recalls

    def candidate(self, offsets: FloatArray) -> _Candidate:
        offsets = _centred(offsets)
        return _Candidate(offsets, self.recalls(_winners(self.scores, offsets)))

    def implied_log_priors(self, iterations: int = 200, tolerance: float = 1e-5) -> FloatArray:
        """Log π (C,), up to a constant, such that p_y/π_y, normalised, is uniform on average over the classes.

        This is the maximum of the likelihood of the labels over biases, classes weighing alike. The alternating
        normalisation of rows and columns (Sinkhorn & Knopp 1967) climbs to it. Its start, the mean log-score of each
        column, is itself equivariant, so the result is, wherever the iteration stops.
        """
        num_classes = len(self.counts)
        shares = 1.0 / (num_classes * self.counts[self.labels])  # of each row; every class has 1/C in all
        centres = self.scores.mean(axis=1, keepdims=True)
        start = shares @ (self.scores - centres)
        scores = self.scores - start.astype(self.scores.dtype)
        with np.errstate(under="ignore"):
            # The bounds keep single precision from underflow and overflow; they bind for scores that are absurd.
            matrix = np.maximum(np.exp(scores - scores.max(axis=1, keepdims=True)), 1e-30)
        log_weights = np.zeros(num_classes)
        for _ in range(iterations):
            totals = matrix @ np.exp(log_weights).astype(matrix.dtype)
            update = -np.log((shares / totals).astype(matrix.dtype) @ matrix).astype(np.float64)
            update = np.clip(update - update.mean(), -60.0, 60.0)
            moved = np.abs(update - log_weights).max()
            log_weights = update
            if moved < tolerance:
                break
        log_priors: FloatArray = start - log_weights
        return log_priors


def _exponentiated_gradient(
    fit: _FitTable, start: FloatArray, robustness: float, iterations: int, step_size: float
) -> Iterator[_Candidate]:
    objective = Objective("balanced", robustness)
    uniform = np.full(len(start), 1.0 / len(start))
    multipliers = uniform
    for _ in range(iterations if objective.needs_multipliers else 1):
        candidate = fit.candidate(start + np.log(objective.class_weights(uniform, multipliers)))
        yield candidate
        multipliers = multipliers * np.exp(step_size * robustness * (1.0 - candidate.recalls))
        multipliers = np.maximum(multipliers / multipliers.sum(), FLOOR)
        multipliers = multipliers / multipliers.sum()


def _search(fit: _FitTable, start: FloatArray, robustness: float) -> _Candidate:
    offsets = start.astype(fit.scores.dtype)
    shifted = fit.scores + offsets
    rows = np.arange(len(shifted))
    first, second = _top_two(shifted)
    recalls = fit.recalls(first)
    by_name = np.argsort(np.argsort(np.array(fit.class_names)))  # so that the order of the columns does not matter
    improved = True
    while improved:
        improved = False
        for label in np.lexsort((by_name, recalls)):
            rivals = np.where(first == label, second, first)
            thresholds = shifted[rows, rivals] - shifted[:, label]
            step, merit = _line_search(thresholds, rivals, fit, label, robustness)
            if merit <= _merit(recalls, robustness):
                continue
            before = shifted[:, label].copy()
            shifted[:, label] = fit.scores[:, label] + (offsets[label] + offsets.dtype.type(step))
            stale = (first == label) | (second == label) | (shifted[:, label] >= shifted[rows, second])
            kept = first[stale], second[stale]
            first[stale], second[stale] = _top_two(shifted[stale])
            moved = fit.recalls(first)
            if _merit(moved, robustness) > _merit(recalls, robustness):
                offsets[label] += offsets.dtype.type(step)
                recalls, improved = moved, True
            else:  # rounding has eaten what the line search saw
                shifted[:, label] = before
                first[stale], second[stale] = kept
    return fit.candidate(offsets)


def _line_search(
    thresholds: FloatArray, rivals: IntArray, fit: _FitTable, label: int, robustness: float
) -> tuple[float, tuple[float, float, float]]:
    """The best change of log w_label, and its merit. Above its threshold a row is `label`'s, below it its rival's."""
    counts, num_classes = fit.counts, len(fit.counts)
    gain = fit.labels == label
    matter = np.flatnonzero(gain | (fit.labels == rivals))  # other rows are wrong either way
    matter = matter[np.argsort(thresholds[matter], kind="stable")]
    edges, classes, gain = thresholds[matter].astype(np.float64), fit.labels[matter], gain[matter]

    # Recalls where `label` wins nothing, then what each threshold that is passed adds to it or takes from another.
    correct = np.bincount(classes[~gain], minlength=num_classes)
    own = np.concatenate([[0], np.cumsum(gain)]) / counts[label]
    left = np.where(gain, np.inf, (correct[classes] - _occurrence(classes)) / counts[classes])
    others = np.delete(correct / counts, label)
    # The others only ever fall, so the lowest value seen so far is the lowest of them now.
    lowest = np.minimum.accumulate(np.concatenate([[others.min()], left]))
    changes = np.where(gain, 1.0, -1.0) / counts[classes]
    balanced = (np.concatenate([[0.0], np.cumsum(changes)]) + others.sum()) / num_classes
    worst = np.minimum(own, lowest)

    merits = np.round([(1 - robustness) * balanced + robustness * worst, balanced, worst], 12)
    usable = np.concatenate([[True], np.diff(edges) > RESOLUTION, [True]]) if len(edges) else np.array([True])
    best = np.flatnonzero(usable)
    for merit in merits:
        best = best[merit[best] == merit[best].max()]
    lower, upper = np.concatenate([[-np.inf], edges])[best], np.concatenate([edges, [np.inf]])[best]
    middles = np.where(np.isinf(lower), upper - 1.0, np.where(np.isinf(upper), lower + 1.0, (lower + upper) / 2))
    nearest = int(np.abs(middles).argmin())
    objective, mean, minimum = merits[:, best[nearest]].tolist()
    return float(middles[nearest]), (objective, mean, minimum)


def _occurrence(values: IntArray) -> IntArray:
    """1 for the first occurrence of a value, 2 for its second, and so on."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    positions = np.arange(len(values))
    starts = np.maximum.accumulate(np.where(np.diff(ordered, prepend=-1) != 0, positions, 0))
    occurrence = np.empty(len(values), dtype=np.int64)
    occurrence[order] = positions - starts + 1
    return occurrence


def _merit(recalls: FloatArray, robustness: float) -> tuple[float, float, float]:
    """What is maximised, then what decides ties; rounded, so that the order of the classes does not matter."""
    balanced, worst = float(recalls.mean()), float(recalls.min())
    return round((1 - robustness) * balanced + robustness * worst, 12), round(balanced, 12), round(worst, 12)


def _log_scores(table: Predictions) -> FloatArray:
    if table.kind == "classes":
        raise InputError("a shift needs logits or probabilities; these predictions hold predicted classes only")
    return table.log_probabilities()


def _winners(scores: FloatArray, offsets: FloatArray) -> IntArray:
    """(N,) argmax of scores + offsets, in the precision of the scores."""
    offsets = offsets.astype(scores.dtype)
    winners = np.empty(len(scores), dtype=np.int64)
    step = max(1, _CHUNK // scores.shape[1])
    for begin in range(0, len(scores), step):
        winners[begin : begin + step] = (scores[begin : begin + step] + offsets).argmax(axis=1)
    return winners


def _centred(offsets: FloatArray) -> FloatArray:
    centred: FloatArray = offsets.astype(np.float64) - offsets.mean(dtype=np.float64)
    return centred


def _top_two(scores: FloatArray) -> tuple[IntArray, IntArray]:
    rows, first = np.arange(len(scores)), scores.argmax(axis=1)
    rest = scores.copy()
    rest[rows, first] = -np.inf
    return first, rest.argmax(axis=1)


def _checked_priors(priors: Priors, class_names: Sequence[str]) -> FloatArray:
    """π (C,) in the order of `class_names`."""
    if isinstance(priors, Mapping):
        _check_same_names(priors, class_names, "class names of the priors must be those of the table")
        priors = [priors[name] for name in class_names]
    values = np.asarray(priors, dtype=np.float64)
    if values.shape != (len(class_names),):
        raise InputError(f"priors must be (C,) = ({len(class_names)},), got {values.shape}")
    bad = np.flatnonzero(~((values > 0) & np.isfinite(values)))
    if len(bad):
        raise InputError(f"priors must be positive and finite; class {class_names[bad[0]]!r} has {values[bad[0]]:g}")
    shares: FloatArray = values / values.sum()
    return shares


def _check_same_names(own: Mapping[str, Any], wanted: Sequence[str], rule: str) -> None:
    differences = {"missing": sorted(own.keys() - set(wanted)), "extra": [name for name in wanted if name not in own]}
    if any(differences.values()):
        parts = [f"{what} {', '.join(map(repr, names[:5]))}" for what, names in differences.items() if names]
        raise InputError(f"{rule}: {'; '.join(parts)}")


def _fingerprint(table: Predictions) -> str:
    digest = hashlib.sha256(repr((table.kind, table.class_names)).encode())
    for part in (table.ids, table.scores, table.labels):
        if part is not None:
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()[:16]
