"""The estimator: what is fitted, kept and applied."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self, cast

import numpy as np
import numpy.typing as npt

from robustdistill.errors import InputError, unknown
from robustdistill.metrics import Scores
from robustdistill.objectives import Objective
from robustdistill.postshift import file
from robustdistill.postshift.arrays import Scored, as_table, as_unlabelled
from robustdistill.postshift.fit_table import Candidate, FitTable, merit_of
from robustdistill.postshift.gradient import exponentiated_gradient
from robustdistill.postshift.priors import Priors, check_same_names, checked_priors, implied_log_priors
from robustdistill.postshift.scores import centred, log_scores, shifted_probabilities, winners
from robustdistill.postshift.search import search
from robustdistill.predictions import FloatArray, IntArray, Kind, Predictions

Method = Literal["exponentiated-gradient", "search"]

METHODS: tuple[Method, ...] = ("exponentiated-gradient", "search")
_SETTINGS = ("robustness", "method", "iterations", "step_size", "kind")


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

    Either over-fits the sample: accuracy on the fit table is too good, so look at another table. How much, and why
    exponentiated gradient is the default, is in `robustdistill.postshift`.

    In the manner of scikit-learn it also takes arrays: `fit(X, y)` with X (N, C) probabilities, or logits where
    `kind` says so, columns in the order of the sorted distinct labels y, as `predict_proba` gives them; `predict(X)`
    then gives labels, and `predict_proba(X)` probabilities.

    Attributes:
        class_names_: C names, in the order of the fit table.
        classes_: (C,) the distinct labels of `fit(X, y)`, sorted; of a table its class names.
        log_coefficients_: (C,) float64 log w, of mean 0.
        fit_scores_: accuracy of the shifted model on the fit table, optimistic; None where nothing was fitted.
        unshifted_scores_: of the unshifted model on the fit table; likewise.
        fingerprint_: 16 hex digits that identify the fit table; likewise.

    Args:
        robustness: 0 for balanced accuracy, 1 for that of the worst class, or between.
        method: "exponentiated-gradient" or "search".
        iterations: of exponentiated gradient.
        step_size: γ of exponentiated gradient; 0.1 in all experiments of the distillation paper.
        kind: "probabilities" or "logits": what arrays hold. Tables know it themselves.

    Raises:
        InputError: a setting is out of range.

    >>> scores = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]]
    >>> table = Predictions(range(4), scores, "probabilities", ("cat", "dog"), labels=[0, 0, 1, 1])
    >>> shift = PostShift().fit(table)
    >>> shift.predict(table)
    array([0, 0, 1, 1])
    >>> shift.unshifted_scores_.worst_class, shift.fit_scores_.worst_class
    (0.0, 1.0)
    >>> PostShift().fit(np.array(scores), ["cat", "cat", "dog", "dog"]).predict(np.array(scores)).tolist()
    ['cat', 'cat', 'dog', 'dog']
    """

    def __init__(
        self,
        robustness: float = 1.0,
        method: Method = "exponentiated-gradient",
        *,
        iterations: int = 100,
        step_size: float = 0.1,
        kind: Kind = "probabilities",
    ) -> None:
        if method not in METHODS:
            raise unknown("post-shift method", str(method), METHODS)
        if kind not in ("probabilities", "logits"):
            raise unknown("kind of scores to shift", str(kind), ["probabilities", "logits"])
        if iterations < 1:
            raise InputError(f"iterations must be at least 1, got {iterations}")
        if not (math.isfinite(step_size) and step_size > 0):
            raise InputError(f"step_size must be a positive number, got {step_size}")
        Objective("balanced", robustness)  # refuses what is not in [0, 1]
        # As given, not a copy: scikit-learn's `clone` insists.
        self.robustness = robustness
        self.method: str = method
        self.iterations, self.step_size, self.kind = iterations, step_size, kind
        self.classes_: npt.NDArray[Any]
        self.tau_: float | None = None
        self.fit_scores_: Scores | None = None
        self.unshifted_scores_: Scores | None = None
        self.fingerprint_: str | None = None

    def fit(self, table: Scored, y: npt.ArrayLike | None = None, priors: Priors | None = None) -> Self:
        """Finds the coefficients on a labelled table that the model was not trained on, such as validation.

        Args:
            table: logits or probabilities, with labels of every class; or (N, C) an array of them.
            y: (N,) labels, of an array.
            priors: π to use instead of the implied ones, as Algorithm 3 does with those of the training set: counts or
                shares, by class name or in the order of the table's classes.

        Raises:
            InputError: the table has no labels, holds predicted classes only, or lacks a class; priors are not
                positive or do not fit the classes.
        """
        labelled, classes = as_table(table, y, self.kind)
        (fitted,) = self._fit(labelled, [self.robustness], priors)
        vars(self).update(vars(fitted))
        self.classes_ = classes
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
            PostShift(value, method, iterations=self.iterations, step_size=self.step_size, kind=self.kind)
            for value in robustness
        ]
        fit = FitTable.of(table)
        start = -implied_log_priors(fit) if priors is None else -np.log(checked_priors(priors, table.class_names))
        candidates = [candidate for point in points for candidate in point._candidates(fit, start)]
        candidates.append(fit.candidate(np.zeros(table.num_classes)))
        identity = table.fingerprint
        for point in points:
            merits = [merit_of(candidate.recalls, point.robustness) for candidate in candidates]
            point._set(table.class_names, candidates[merits.index(max(merits))].offsets)
            point._record(table, identity)
        return points

    def _candidates(self, fit: FitTable, start: FloatArray) -> Iterator[Candidate]:
        if self.method == "search":
            yield from search(fit, start, self.robustness)
        else:
            yield from exponentiated_gradient(fit, start, self.robustness, self.iterations, self.step_size)

    def _set(self, class_names: Sequence[str], offsets: FloatArray) -> None:
        self.class_names_ = tuple(class_names)
        self.classes_ = np.array(self.class_names_)
        self.log_coefficients_ = offsets

    def _record(self, table: Predictions, identity: str) -> None:
        """What the table says of the coefficients just set."""
        self.fit_scores_ = Scores.of(
            self.predict(table),
            labels=cast(IntArray, table.labels),
            num_classes=table.num_classes,
            class_names=table.class_names,
        )
        self.unshifted_scores_ = table.evaluate()
        self.fingerprint_ = identity

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
        shift.method, shift.tau_ = file.FROM_PRIORS, float(tau)
        shift._set(class_names, centred(-tau * np.log(checked_priors(priors, class_names))))
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
        check_same_names(own, class_names, "class names of the table must be those of the shift")
        return np.array([own[name] for name in class_names])

    def predict(self, table: Scored) -> npt.NDArray[Any]:
        """(N,) indices into the *table's* class names, comparable to its labels; the first of several equal ones.

        Of an array, (N,) labels out of `classes_`.

        Raises:
            InputError: not fitted, the table holds predicted classes only, or its class names are others.
        """
        offsets, scores = self._log_coefficients_and_scores(table)
        found = winners(scores, offsets)
        return found if isinstance(table, Predictions) else self.classes_[found]

    def predict_proba(self, table: Scored) -> FloatArray:
        """(N, C) w·p, normalised, columns in the order of the table, float64 or float32. Raises as `predict`."""
        offsets, scores = self._log_coefficients_and_scores(table)
        return shifted_probabilities(scores, offsets)

    def _log_coefficients_and_scores(self, table: Scored) -> tuple[FloatArray, FloatArray]:
        if isinstance(table, Predictions):
            return self._log_coefficients(table.class_names), log_scores(table)
        return self._log_coefficients(), log_scores(as_unlabelled(table, self.kind, self.class_names_))

    def transform(self, table: Predictions) -> Predictions:
        """The shifted table, of kind "probabilities", with the same ids, labels and classes. Raises as `predict`."""
        return replace(table, scores=self.predict_proba(table), kind="probabilities")

    def save(self, path: str | Path, curve: Sequence[PostShift] = ()) -> Path:
        """Writes a JSON file that `load` reads, in one step; with the points of a `curve`, these too.

        Raises:
            InputError: not fitted, or a point of the curve is of other classes.
        """
        self._log_coefficients()  # raises where there are none
        for point in curve:
            point._log_coefficients(self.class_names_)
        return file.write(path, self, curve)

    @classmethod
    def load(cls, path: str | Path, robustness: float | None = None) -> PostShift:
        """Reads what `save` wrote; with `robustness`, that point of the curve in it.

        Raises:
            InputError: the file is absent, not one of ours, or has no such point.
        """
        return file.read(path, cls, robustness)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The settings, as scikit-learn's tools ask for them."""
        return {name: getattr(self, name) for name in _SETTINGS}

    def set_params(self, **settings: Any) -> Self:
        """Changes settings; what was fitted stays until the next `fit`.

        Raises:
            InputError: there is no such setting, or its value is out of range.
        """
        for name in settings:
            if name not in _SETTINGS:
                raise unknown("setting of PostShift", name, _SETTINGS)
        checked = PostShift(**{**self.get_params(), **settings})
        for name in settings:
            setattr(self, name, getattr(checked, name))
        return self

    def __repr__(self) -> str:
        if self.method == file.FROM_PRIORS:
            return f"PostShift.from_priors(..., tau={self.tau_})"
        return f"PostShift(robustness={self.robustness}, method={self.method!r})"
