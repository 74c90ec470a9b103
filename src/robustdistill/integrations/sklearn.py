"""A scikit-learn classifier that is trained, or distilled, by the library's own loop; and scorers.

    from robustdistill.integrations.sklearn import RobustDistillClassifier, worst_class_accuracy_scorer

    model = RobustDistillClassifier("tradeoff:0.5", random_state=0).fit(X, y)  # or fit(X, y, teacher_proba=P)
    worst_class_accuracy_scorer(model, X_test, y_test)

For other schedules, pictures, augmentation and checkpoints there are `robustdistill.fit` and `robustdistill.distill`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self, cast

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from robustdistill import models
from robustdistill.data.splits import Examples
from robustdistill.errors import InputError
from robustdistill.integrations.scorers import (
    AccuracyScorer,
    balanced_accuracy_scorer,
    worst_class_accuracy_scorer,
    worst_k_accuracy_scorer,
)
from robustdistill.integrations.tabular import model_for, printable_names, set_aside, teacher_table
from robustdistill.predictions import FloatArray, IntArray, Predictions
from robustdistill.training.distill import distill
from robustdistill.training.evaluate import predict
from robustdistill.training.fit import fit
from robustdistill.training.recipe import Recipe

__all__ = [
    "AccuracyScorer",
    "RobustDistillClassifier",
    "balanced_accuracy_scorer",
    "worst_class_accuracy_scorer",
    "worst_k_accuracy_scorer",
]

# Constructor parameters that are settings of a Recipe, under the same names; its schedule is the cosine.
_RECIPE = ("epochs", "batch_size", "learning_rate", "momentum", "weight_decay", "warmup_epochs", "every", "step_size")
# Constructor parameters that only a teacher gives an effect, with their defaults.
_WITH_TEACHER = {"temperature": 1.0, "teacher_weight": 1.0, "validation_labels": "teacher"}


class RobustDistillClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """A network on features (N, F), trained for an objective between the average and the worst class.

    `fit` sets a share of the rows aside, class by class, which moves the multipliers λ (Algorithms 1-3) and is scored
    in `history_`; the last iterate is the model. With `teacher_proba` it is distilled from a teacher's probabilities.

    **Small classes.** Of a class of n rows max(1, round(validation_fraction · n)) are set aside, but at least one is
    left to train on. Where a class has a single row, or `validation_fraction` is 0, training rows serve as validation
    rows too: λ then follows what was learnt by heart and says little about new rows. The first is warned of.

    **Probabilities.** Those of the standard objective estimate P(y | x); other objectives tilt them by the costs of the
    classes, so that the most probable one is the objective's decision (Lemma 5). Calibrate if you need frequencies.

    Features are standardised with the mean and deviation of the training rows. Predictions are made on the CPU and in
    float32, which is what probabilities come in. `n_jobs` must start processes, as it does by default: fits in threads
    of one process share torch's random state.

    Args:
        objective: "standard", "balanced", "robust", "tradeoff:A" or "standard-tradeoff:A". Half-way is the default
            because λ is noisy where a class has few validation rows, as in most tables; see docs/sklearn.md.
        model: the widths of the hidden layers of an MLP, () for a linear model; or a module to start from, a factory,
            or the "module:callable" of one. A factory is given `num_classes`, and `in_features` where it names it.
        method: as in `robustdistill.fit`.
        risk: "zero-one" or "cross-entropy", the loss that moves the multipliers.
        validation_fraction: the share of each class's rows that is set aside, in [0, 1).
        temperature: of the teacher's probabilities; needs `teacher_proba`, as do the next two.
        teacher_weight: w of the targets (1 − w) · one-hot + w · teacher.
        validation_labels: whether λ is moved by the "teacher" (Algorithm 1) or by the true labels, "one-hot" (2).
        standardize: whether features are standardised.
        epochs: passes over the training rows; the learning rate is annealed along a cosine.
        batch_size, learning_rate, momentum, weight_decay, warmup_epochs: of SGD, as in `robustdistill.Recipe`.
        every: steps between two updates of the multipliers.
        step_size: γ of an update, or "auto", which sets the decay too.
        decay: pull of an update towards uniform multipliers; None is 0, or what "auto" sets.
        device: where to train; by default what accelerate finds.
        random_state: of the split, the initialisation and the order of the rows.

    Attributes:
        classes_: (C,) the distinct labels, sorted.
        n_features_in_: F.
        feature_names_in_: (F,) their names, where X had names.
        multipliers_: (C,) λ as training left it, summing to 1; uniform for objectives without multipliers.
        history_: one dict per epoch, as `robustdistill.Run.history`; accuracies are on `validation_rows_`.
        validation_rows_: the rows of X that served as validation.
        scaler_: the fitted StandardScaler, or None.
        run_: the `robustdistill.Run`, with the module in `run_.model`.

    >>> X, y = [[0.0], [0.1], [0.2], [0.9], [1.0], [1.1]], ["low", "low", "low", "high", "high", "high"]
    >>> RobustDistillClassifier(random_state=0).fit(X, y).predict([[0.05], [1.05]])
    array(['low', 'high'], dtype='<U4')
    """

    def __init__(
        self,
        objective: str = "tradeoff:0.5",
        *,
        model: Sequence[int] | models.ModelLike = (64,),
        method: str = "margin",
        risk: Literal["zero-one", "cross-entropy"] = "zero-one",
        validation_fraction: float = 0.2,
        temperature: float = 1.0,
        teacher_weight: float = 1.0,
        validation_labels: Literal["teacher", "one-hot"] = "teacher",
        standardize: bool = True,
        epochs: int = 30,
        batch_size: int = 32,
        learning_rate: float = 0.05,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        warmup_epochs: int = 0,
        every: int = 8,
        step_size: float | Literal["auto"] = "auto",
        decay: float | None = None,
        device: str | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.objective = objective
        self.model = model
        self.method = method
        self.risk = risk
        self.validation_fraction = validation_fraction
        self.temperature = temperature
        self.teacher_weight = teacher_weight
        self.validation_labels = validation_labels
        self.standardize = standardize
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.warmup_epochs = warmup_epochs
        self.every = every
        self.step_size = step_size
        self.decay = decay
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: npt.ArrayLike, teacher_proba: Any = None) -> Self:  # noqa: N803
        """Trains on rows X (N, F) with labels y (N,).

        Args:
            X: finite numbers.
            y: labels of any kind, of 2 classes at least.
            teacher_proba: (N, C) a teacher's probabilities for the same rows, columns in the order of np.unique(y), as
                `predict_proba` gives them. Best from folds that the teacher was not trained on.

        Raises:
            InputError: a setting is out of range or without effect, y has one class, or `teacher_proba` has another
                shape, other column names, or rows that are no probabilities.
            DivergedError: the loss is not finite; what to lower is said.
        """
        rows, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(f"y must have at least 2 classes, got 1 class: {self.classes_.tolist()[0]!r}")
        teacher = self._teacher(teacher_proba, labels)
        random = check_random_state(self.random_state)
        kept, held = set_aside(labels, self.validation_fraction, random, printable_names(self.classes_))
        self.validation_rows_ = held
        self.scaler_ = StandardScaler().fit(rows[kept]) if self.standardize else None
        examples = self._examples(rows, "X", labels.astype(np.int64))
        shared: dict[str, Any] = {
            "objective": self.objective,
            "recipe": self._recipe(),
            "seed": int(random.randint(2**31 - 1)),
            "method": self.method,
            "risk": self.risk,
            "device": self.device,
            "progress": False,
        }
        model = model_for(self.model, rows.shape[1])
        train, val = examples.subset(kept, "the training rows"), examples.subset(held, "the validation rows")
        if teacher is None:
            run = fit(model, train, val, **shared)
        else:
            settings = {name: getattr(self, name) for name in _WITH_TEACHER}
            run = distill({"train": teacher, "val": teacher}, model, train, val, **settings, **shared)
        run.model.cpu()  # so that it can be unpickled where there is no such device
        run.multipliers.to("cpu")
        self.run_, self.history_, self.multipliers_ = run, run.history, run.multipliers.weights.numpy()
        return self

    def predict_proba(self, X: Any) -> FloatArray:  # noqa: N803
        """(N, C) float32 probabilities of rows X (N, F), columns in the order of `classes_`."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return predict(self.run_, self._examples(rows, "X")).probabilities()

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """(N,) the most probable of `classes_` for each row of X (N, F)."""
        chosen = self.predict_proba(X).argmax(axis=1)
        return cast(npt.NDArray[Any], self.classes_[chosen])

    def _teacher(self, teacher_proba: Any, labels: IntArray) -> Predictions | None:
        """The teacher's table over all rows; without one, settings that need it are refused."""
        if teacher_proba is None:
            for name, default in _WITH_TEACHER.items():
                if (value := getattr(self, name)) != default:
                    raise InputError(f"{name}={value!r} has no effect without teacher_proba: pass fit one, or leave it")
            return None
        return teacher_table(teacher_proba, labels, self.classes_)

    def _recipe(self) -> Recipe:
        settings = {name: getattr(self, name) for name in _RECIPE}
        if self.decay is not None:
            settings["decay"] = self.decay
        # A search draws NumPy's numbers, which a Recipe does not take for whole ones.
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in settings.items()}
        return Recipe(schedule="cosine").with_(**plain)

    def _examples(self, rows: FloatArray, name: str, labels: IntArray | None = None) -> Examples:
        scaled = rows if self.scaler_ is None else self.scaler_.transform(rows)
        with np.errstate(over="ignore"):  # Examples refuses what became infinite, and names the row
            inputs = np.ascontiguousarray(scaled, dtype=np.float32)
        return Examples(inputs, labels, np.arange(len(rows)), printable_names(self.classes_), name=name)
