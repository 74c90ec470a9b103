from __future__ import annotations

import functools
import json
import os
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from torch import nn

import robustdistill as rd
from robustdistill import metrics
from robustdistill.data.splits import Examples
from robustdistill.errors import InputError
from robustdistill.integrations.sklearn import (
    AccuracyScorer,
    RobustDistillClassifier,
    balanced_accuracy_scorer,
    worst_class_accuracy_scorer,
    worst_k_accuracy_scorer,
)
from robustdistill.integrations.tabular import mlp, printable_names, set_aside

NAMES = np.array(["ant", "bee", "cat"])
PAGE = Path(__file__).parents[2] / "docs" / "sklearn.md"


def quick(objective: str = "robust", **settings) -> RobustDistillClassifier:
    return RobustDistillClassifier(objective, **{"model": (8,), "epochs": 10, "random_state": 0, **settings})


def blobs(sizes=(40, 20, 10), seed: int = 0, spread: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, 2) around three corners, and the labels' names."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    corners = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]])[: len(sizes)]
    return corners[labels] + spread * random.normal(size=(len(labels), 2)), NAMES[labels]


def probabilities(y: np.ndarray, sure: float = 0.9) -> np.ndarray:
    """A teacher's (N, C) that gives the label `sure`, columns in the order of np.unique(y)."""
    classes, labels = np.unique(y, return_inverse=True)
    rest = (1 - sure) / (len(classes) - 1)
    return np.where(np.arange(len(classes)) == labels[:, None], sure, rest)


def test_every_estimator_check_passes_and_none_is_skipped() -> None:
    # In a process of its own: one check is skipped unless SciPy's array API was on before SciPy was imported.
    program = (
        "import json\n"
        "from sklearn.utils.estimator_checks import check_estimator\n"
        "from robustdistill.integrations.sklearn import RobustDistillClassifier\n"
        "found = check_estimator(RobustDistillClassifier(random_state=0), on_fail=None, on_skip=None)\n"
        "print(json.dumps([[f['check_name'], f['status'], repr(f['exception'])] for f in found]))\n"
    )
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) > 40
    assert [check for check in found if check[1] != "passed"] == []


def test_robust_lifts_the_rare_class_where_classes_overlap() -> None:
    x, y = blobs((900, 60), seed=1, spread=1.5)
    x_test, y_test = blobs((500, 500), seed=2, spread=1.5)
    worst = {
        objective: worst_class_accuracy_scorer(
            RobustDistillClassifier(objective, epochs=15, batch_size=64, random_state=0).fit(x, y), x_test, y_test
        )
        for objective in ("standard", "robust")
    }
    # By symmetry the best worst-class accuracy is Φ(3 / (2 · 1.5)) = 0.841.
    assert worst["standard"] < 0.65
    assert 0.77 < worst["robust"] < 0.87


@pytest.mark.parametrize("with_teacher", [False, True])
def test_training_is_that_of_the_library(with_teacher) -> None:
    x, y = blobs()
    teacher = probabilities(y) if with_teacher else None
    model = quick("tradeoff:0.5", **({"temperature": 2.0} if with_teacher else {})).fit(x, y, teacher_proba=teacher)

    held = model.validation_rows_
    kept = np.setdiff1d(np.arange(len(x)), held)
    scaled = ((x - x[kept].mean(axis=0)) / x[kept].std(axis=0)).astype(np.float32)
    labels = np.searchsorted(model.classes_, y)
    train, val = (Examples(scaled[rows], labels[rows], rows, tuple(NAMES)) for rows in (kept, held))
    recipe = rd.Recipe(
        epochs=10, batch_size=32, learning_rate=0.05, schedule="cosine", every=8, step_size=0.36, decay=0.03
    )
    shared = {"objective": "tradeoff:0.5", "recipe": recipe, "seed": model.run_.spec.seed, "progress": False}
    factory = functools.partial(mlp, (8,), 2)
    if with_teacher:
        table = rd.Predictions(np.arange(len(x)), teacher, "probabilities", tuple(NAMES))
        run = rd.distill({"train": table, "val": table}, factory, train, val, temperature=2.0, **shared)
    else:
        run = rd.fit(factory, train, val, **shared)
    for name, value in run.model.state_dict().items():
        torch.testing.assert_close(model.run_.model.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.multipliers_, run.multipliers.weights, rtol=1e-6)


def test_what_is_fitted() -> None:
    x, y = blobs()
    model = quick().fit(pd.DataFrame(x, columns=["length", "width"]), y)
    assert model.classes_.tolist() == ["ant", "bee", "cat"]
    assert model.n_features_in_ == 2
    assert model.feature_names_in_.tolist() == ["length", "width"]
    assert len(model.history_) == 10
    assert model.history_[-1]["multipliers"] == model.multipliers_.tolist()
    assert model.multipliers_.sum() == pytest.approx(1)
    assert model.run_.multipliers.updates > 0
    assert len(model.validation_rows_) == 14
    assert quick("balanced").fit(x, y).multipliers_.tolist() == pytest.approx([1 / 3] * 3)


def test_a_seed_decides_everything_and_the_callers_state_stays() -> None:
    x, y = blobs()
    state = torch.random.get_rng_state()
    first, again, other = (quick(random_state=seed).fit(x, y).predict_proba(x) for seed in (3, 3, 4))
    assert torch.equal(state, torch.random.get_rng_state())
    assert (first == again).all()
    assert (first != other).any()


def test_pickle_and_clone() -> None:
    x, y = blobs()
    model = quick().fit(x, y)
    assert (pickle.loads(pickle.dumps(model)).predict_proba(x) == model.predict_proba(x)).all()
    fresh = clone(model)
    assert fresh.get_params() == model.get_params()
    assert not hasattr(fresh, "run_")


def test_search_over_objectives_in_a_pipeline_with_scorers() -> None:
    x, y = blobs()
    pipeline = make_pipeline(MinMaxScaler(), quick(model=()))
    grid = {
        "robustdistillclassifier__objective": ["standard", "robust"],
        "robustdistillclassifier__epochs": np.array([40]),
        "robustdistillclassifier__step_size": np.array([0.1]),
    }
    scoring = {
        "worst": worst_class_accuracy_scorer,
        "worst_2": worst_k_accuracy_scorer(2),
        "balanced": balanced_accuracy_scorer,
    }
    search = GridSearchCV(pipeline, grid, scoring=scoring, refit="worst", cv=2).fit(x, y)
    results = search.cv_results_
    assert (results["mean_test_worst"] <= results["mean_test_worst_2"]).all()
    assert (results["mean_test_worst_2"] <= results["mean_test_balanced"]).all()
    assert set(search.predict(x)) <= set(NAMES)
    assert worst_class_accuracy_scorer(search, x, y) > 0.5


class Recorder(RobustDistillClassifier):
    """Keeps what `fit` was given."""

    seen = []  # noqa: RUF012

    def fit(self, X, y, teacher_proba=None):  # noqa: N803
        Recorder.seen.append((X, y, teacher_proba))
        return super().fit(X, y, teacher_proba)


@pytest.mark.parametrize("routed", [False, True])
@pytest.mark.parametrize("frame", [False, True])
def test_a_search_hands_each_fold_the_teachers_rows(routed, frame) -> None:
    x, y = blobs((12, 12, 12))
    teacher = np.random.default_rng(0).dirichlet([1, 1, 1], len(x))
    teacher = 0.5 * teacher + 0.5 * probabilities(y)
    x[:, 1] = teacher[:, 0]
    given_teacher = pd.DataFrame(teacher, columns=NAMES) if frame else teacher
    Recorder.seen.clear()
    with config_context(enable_metadata_routing=routed):
        model = Recorder("robust", model=(), epochs=10, random_state=0)
        model = model.set_fit_request(teacher_proba=True) if routed else model
        search = GridSearchCV(model, {"temperature": [1.0, 2.0]}, scoring=worst_class_accuracy_scorer, cv=2)
        search.fit(x, y, teacher_proba=given_teacher)
    assert len(Recorder.seen) == 5
    for rows, _, part in Recorder.seen:
        assert (np.asarray(part)[:, 0] == rows[:, 1]).all()


def test_a_pipeline_takes_the_teacher_along() -> None:
    x, y = blobs()
    wrong = probabilities(NAMES[(np.searchsorted(NAMES, y) + 1) % 3], sure=0.98)  # says bee of an ant, and so on
    pipeline = make_pipeline(MinMaxScaler(), quick("standard", epochs=40))
    with pytest.warns(UserWarning, match="another order"):
        pipeline.fit(x, y, robustdistillclassifier__teacher_proba=wrong)
    assert np.mean(pipeline.predict(x) == NAMES[wrong.argmax(axis=1)]) > 0.9


def test_a_teacher_that_nobody_asked_for_is_refused_by_routing() -> None:
    x, y = blobs((12, 12, 12))
    with config_context(enable_metadata_routing=True), pytest.raises(UnsetMetadataPassedError, match="teacher_proba"):
        GridSearchCV(quick(), {"epochs": [10]}, cv=2).fit(x, y, teacher_proba=probabilities(y))


X, Y = blobs()


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (probabilities(Y)[:, :2], r"must be \(70, 3\), one column for each of np.unique\(y\), \[ant, bee, cat\]"),
        (probabilities(Y)[:-1], r"must be \(70, 3\).*got \(69, 3\)"),
        (probabilities(Y).argmax(axis=1), r"got \(70,\)"),
        (np.log(probabilities(Y)), "teacher_proba: probabilities must not be negative; row 0"),
        (2 * probabilities(Y), "teacher_proba: probabilities must sum to 1"),
        (np.full((70, 3), np.nan), "teacher_proba: probabilities must be finite"),
        (pd.DataFrame(probabilities(Y), columns=["bee", "ant", "cat"]), r"\[bee, ant, cat\]"),
    ],
)
def test_a_teacher_of_other_columns_or_rows_is_refused(teacher, message) -> None:
    with pytest.raises(InputError, match=message):
        quick().fit(X, Y, teacher_proba=teacher)


def test_unnamed_columns_are_taken_and_swapped_ones_warned_of() -> None:
    quick(model=()).fit(X, Y, teacher_proba=pd.DataFrame(probabilities(Y)))
    with pytest.warns(UserWarning, match=r"rows of class 'bee' are given most to column 2, which is 'cat'"):
        quick(model=()).fit(X, Y, teacher_proba=probabilities(Y)[:, [0, 2, 1]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "rubust"}, "did you mean 'robust'"),
        ({"validation_fraction": 1.0}, r"validation_fraction must lie in \[0, 1\), got 1.0"),
        ({"temperature": 3.0}, "temperature=3.0 has no effect without teacher_proba"),
        ({"teacher_weight": 0.5}, "teacher_weight=0.5 has no effect"),
        ({"validation_labels": "one-hot"}, "validation_labels='one-hot' has no effect"),
        ({"objective": "standard", "method": "dkd"}, "needs a teacher"),
        ({"decay": 0.1}, "decay must be left out with step_size='auto'"),
        ({"epochs": 0}, "recipe setting epochs"),
        ({"every": 100}, "the multipliers would never move"),
        ({"model": (8, 0)}, r"whole numbers of at least 1, got \(8, 0\)"),
        ({"model": "resnet8"}, "takes pictures"),
        ({"model": lambda num_classes: nn.Linear(2, 5)}, r"logits \(2, 3\)"),
        ({"standardize": False, "learning_rate": -1.0}, "recipe setting learning_rate"),
    ],
)
def test_bad_settings_are_refused(settings, message) -> None:
    with pytest.raises(InputError, match=message):
        quick(**settings).fit(X, Y)


def test_bad_data_are_refused() -> None:
    with pytest.raises(InputError, match="at least 2 classes, got 1 class: 'ant'"):
        quick().fit(X, np.repeat("ant", len(X)))
    with pytest.raises(InputError, match=r"row 1 .*infinity"):
        quick(standardize=False).fit(X, Y).predict([[0, 0], [1e300, 0]])


@given(
    counts=st.lists(st.integers(1, 30), min_size=2, max_size=6),
    fraction=st.floats(0.0, 0.99),
    seed=st.integers(0, 1000),
)
def test_every_class_is_trained_and_validated_on(counts, fraction, seed) -> None:
    random = np.random.RandomState(seed)
    labels = random.permutation(np.repeat(np.arange(len(counts)), counts))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept, held = set_aside(labels, fraction, random, [str(index) for index in range(len(counts))])
    both = set(kept) & set(held)
    assert set(kept) | set(held) == set(range(len(labels)))
    for index, count in enumerate(counts):
        size = int((labels[held] == index).sum())
        if fraction == 0 or count == 1:
            assert both >= set(np.flatnonzero(labels == index))
            continue
        assert not both & set(np.flatnonzero(labels == index))
        assert 1 <= size <= count - 1
        assert abs(size - fraction * count) <= 1


def test_a_class_of_one_row_is_in_both_and_said_so() -> None:
    x, y = blobs((20, 20, 1))
    with pytest.warns(UserWarning, match=r"1 of 3 classes have a single row \('cat'\)"):
        model = quick(epochs=30).fit(x, y)
    assert int(np.flatnonzero(y == "cat")[0]) in model.validation_rows_
    assert "cat" in model.predict(x)


def free(num_classes: int, in_features: int) -> nn.Module:
    return nn.Linear(in_features, num_classes)


def test_models_of_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_tabular_model.py").write_text(
        "from torch import nn\ndef make(in_features, num_classes): return nn.Linear(in_features, num_classes)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    module = nn.Linear(2, 3)
    before = module.weight.detach().clone()
    for model in (free, "my_tabular_model:make", module, (), (16, 16), [16]):
        fitted = quick(model=model, epochs=20).fit(X, Y)
        assert (fitted.predict(X) == Y).mean() > 0.8, model
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize(
    "labels", [[True, False], [3, 7], [1.0, 2.0], ["", "a\n"], np.array(["x", "y"], dtype=object)], ids=str
)
def test_labels_of_any_kind(labels) -> None:
    x, _ = blobs((20, 20))
    y = np.asarray(labels)[(x[:, 0] > 1.5).astype(int)]
    predicted = quick("balanced", epochs=20).fit(x, y).predict(x)
    assert predicted.dtype == y.dtype
    assert (predicted == y).mean() > 0.9


def test_printable_names_are_distinct() -> None:
    assert printable_names(np.array([1, 2])) == ("1", "2")
    assert printable_names(np.array(["", "a"])) == ("class 0: ''", "class 1: 'a'")


@pytest.mark.parametrize(
    ("scorer", "function", "settings"),
    [
        (worst_class_accuracy_scorer, metrics.worst_class_accuracy, {}),
        (worst_k_accuracy_scorer(2), metrics.worst_k_accuracy, {"k": 2}),
        (balanced_accuracy_scorer, metrics.balanced_accuracy, {}),
    ],
)
def test_scorers_agree_with_the_functions(scorer, function, settings) -> None:
    random = np.random.default_rng(0)
    labels, predictions = random.permutation(np.repeat(np.arange(4), 10)), random.integers(4, size=40)
    expected = function(predictions, labels=labels, num_classes=4, **settings)
    names = np.array(["d", "a", "c", "b"])
    assert scorer.of(predictions=predictions, labels=labels) == pytest.approx(expected)
    assert scorer.of(predictions=names[predictions], labels=names[labels]) == pytest.approx(expected)


class Constant(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):  # noqa: N803
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):  # noqa: N803
        return np.repeat(self.classes_[0], len(X))


def test_a_scorer_asks_the_estimator() -> None:
    model = Constant().fit(X, Y)
    assert worst_class_accuracy_scorer(model, X, Y) == 0
    assert balanced_accuracy_scorer(model, X, pd.Series(Y)) == pytest.approx(1 / 3)
    assert worst_k_accuracy_scorer(3)(model, X, Y) == pytest.approx(1 / 3)
    # The model was never shown a "dog": it is a class all the same, and never right.
    more = np.append(Y, "dog")
    assert balanced_accuracy_scorer(model, np.append(X, [[0, 0]], axis=0), more) == pytest.approx(1 / 4)


def test_labels_and_predictions_cannot_be_swapped() -> None:
    predictions = LogisticRegression().fit(X, Y).predict(X)
    with pytest.raises(TypeError, match="positional argument"):
        worst_class_accuracy_scorer.of(Y, predictions)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'y'"):
        worst_class_accuracy_scorer(Y, predictions)
    with pytest.raises(InputError, match=r"scorer\(estimator, X, y\), got ndarray"):
        worst_class_accuracy_scorer(Y, predictions, X)


def test_a_class_without_rows_is_refused_or_left_out() -> None:
    model = Constant().fit(X, Y)
    there = Y != "bee"
    with pytest.raises(InputError, match="class 'bee' has none of 50"):
        worst_class_accuracy_scorer(model, X[there], Y[there])
    lenient = AccuracyScorer("balanced", leave_out_absent=True)
    assert lenient(model, X[there], Y[there]) == 0.5


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_in_cross_validation_an_absent_class_is_nan_and_named() -> None:
    x, y = blobs((10, 10, 2))
    with pytest.warns(UserWarning, match="class 'cat' has none"):
        found = cross_val_score(Constant(), x, y, scoring=worst_class_accuracy_scorer, cv=StratifiedKFold(4))
    assert np.isnan(found).sum() == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AccuracyScorer("worst_clas"), "did you mean 'worst_class'"),
        (lambda: AccuracyScorer("worst_k"), "k must be given"),
        (lambda: AccuracyScorer("balanced", k=2), "k must be given"),
        (lambda: worst_k_accuracy_scorer(0), "at least 1, got 0"),
        (lambda: worst_k_accuracy_scorer(4).of(predictions=Y, labels=Y), r"k must lie in 1\.\.3, got 4"),
        (lambda: worst_class_accuracy_scorer.of(predictions=Y[1:], labels=Y), "both be"),
    ],
)
def test_bad_scorers_are_refused(make, message) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_the_pages_code_runs(capsys: pytest.CaptureFixture[str]) -> None:
    space: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), space)
    lines = capsys.readouterr().out.splitlines()
    worst = {line.split()[0]: float(line.split()[3].rstrip(",")) for line in lines[:4]}
    assert worst["balanced"] > worst["standard"]
    assert worst["tradeoff:0.5"] > worst["standard"]
