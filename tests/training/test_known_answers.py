"""Problems small enough to be solved exactly by other means."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import reference
import robustdistill as rd
from robustdistill.predictions import Predictions
from robustdistill.training.recipe import Recipe
from robustdistill.training.run import Run
from training.problems import COUNTS, FULL_BATCH, class_cross_entropies, exact_optimum, scorer, table_model, tabular

PRIORS = COUNTS.sum(axis=0) / COUNTS.sum()
ETA = COUNTS / COUNTS.sum(axis=1, keepdims=True)  # (instances, C)
OTHER = np.array([[9, 1, 1, 1], [6, 6, 2, 1], [3, 3, 5, 2], [2, 2, 2, 4], [4, 0, 1, 1]])


def fitted(objective: str, counts: np.ndarray = COUNTS, recipe: Recipe = FULL_BATCH) -> Run:
    return rd.fit(
        table_model(counts),
        tabular(counts),
        tabular(counts),
        objective=objective,
        risk="cross-entropy",
        recipe=recipe,
        progress=False,
    )


def eta_tables(kind: str = "probabilities") -> dict[str, Predictions]:
    """A teacher that knows η, one row for each example."""
    data = tabular()
    eta = data.inputs.astype(np.float64) @ ETA
    scores = eta if kind == "probabilities" else np.log(np.maximum(eta, 1e-30))
    table = Predictions(data.ids, scores, kind, data.class_names)
    return {"train": table, "val": table}


def distilled(objective: str, validation_labels: str = "teacher", kind: str = "probabilities") -> Run:
    return rd.distill(
        eta_tables(kind),
        table_model(),
        tabular(),
        tabular(),
        objective=objective,
        validation_labels=validation_labels,
        risk="cross-entropy",
        recipe=FULL_BATCH,
        progress=False,
    )


@pytest.mark.parametrize(
    ("counts", "close"), [(COUNTS, 1e-5), (OTHER, 2e-4)], ids=["3 classes", "4 classes, one η zero"]
)
def test_robust_reaches_the_exact_optimum(counts: np.ndarray, close: float) -> None:
    """Where an η is 0 its logit has to go to −∞, which takes for ever."""
    run = fitted("robust", counts, FULL_BATCH.with_(epochs=800))
    errors = class_cross_entropies(scorer(run), counts)
    assert errors.max() == pytest.approx(exact_optimum(counts), abs=close)
    np.testing.assert_allclose(errors, errors.mean(), atol=2 * close)  # at the optimum all classes fare alike
    multipliers = run.multipliers.weights.numpy()
    # ... and the scorer is the best response to the multipliers (Theorem 1): softmax f ∝ λ_y/π_y · η_y.
    best = multipliers * counts / counts.sum(axis=0)
    np.testing.assert_allclose(np.exp(scorer(run)), best / best.sum(axis=1, keepdims=True), atol=1e-3)


@pytest.mark.parametrize("validation_labels", ["teacher", "one-hot"])
def test_a_student_of_eta_reaches_it_too(validation_labels: str) -> None:
    errors = class_cross_entropies(scorer(distilled("robust", validation_labels)))
    assert errors.max() == pytest.approx(exact_optimum(), abs=1e-5)
    np.testing.assert_allclose(errors, errors.mean(), atol=2e-5)


def test_the_traded_off_optimum() -> None:
    """Only the value: where α is near 1 the scorer itself is not unique in what it gives up."""
    errors = class_cross_entropies(scorer(fitted("tradeoff:0.5", recipe=FULL_BATCH.with_(epochs=800))))
    assert 0.5 * errors.mean() + 0.5 * errors.max() == pytest.approx(exact_optimum(robustness=0.5), abs=1e-4)


def test_the_optima_differ() -> None:
    """Else the tests above would show little."""
    robust, balanced, standard = (
        class_cross_entropies(scorer(fitted(name))) for name in ("robust", "balanced", "standard")
    )
    assert robust.max() < balanced.max() - 0.01
    assert balanced.mean() < min(robust.mean(), standard.mean()) - 0.001


@pytest.mark.parametrize("distil", [False, True], ids=["fit", "distill"])
@pytest.mark.parametrize(("objective", "costs"), [("standard", np.ones(3)), ("balanced", 1 / PRIORS)])
def test_standard_and_balanced_reach_theorem_1(objective: str, costs: np.ndarray, distil: bool) -> None:
    """softmax f ∝ η, and ∝ η/π."""
    run = distilled(objective) if distil else fitted(objective)
    expected = costs * ETA
    np.testing.assert_allclose(np.exp(scorer(run)), expected / expected.sum(axis=1, keepdims=True), atol=1e-4)


def test_logits_and_probabilities_make_one_student() -> None:
    by_probabilities, by_logits = distilled("robust"), distilled("robust", kind="logits")
    np.testing.assert_allclose(scorer(by_probabilities), scorer(by_logits), atol=1e-3)


def test_temperature_is_of_the_targets_only() -> None:
    """A free student of the standard objective ends at softmax(f^t / T) itself: its own logits are not tempered."""
    logits = np.array([[2.0, 0.0, -1.0], [0.0, 1.0, 3.0], [1.0, 1.0, 0.0], [-2.0, 2.0, 0.0]])
    data = tabular()
    table = Predictions(data.ids, data.inputs.astype(np.float64) @ logits, "logits", data.class_names)
    run = rd.distill(
        {"train": table, "val": table},
        table_model(),
        data,
        data,
        objective="standard",
        temperature=3.0,
        recipe=FULL_BATCH,
        progress=False,
    )
    tempered = np.exp(logits / 3) / np.exp(logits / 3).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(scorer(run)), tempered, atol=1e-4)
    np.testing.assert_allclose(
        run.multipliers.priors.numpy(), (data.inputs @ tempered).mean(axis=0), rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("risk", ["zero-one", "cross-entropy"])
@pytest.mark.parametrize("labels", ["one-hot", "teacher"])
def test_one_update_is_that_of_the_twin(risk: str, labels: str) -> None:
    """One step, then one update on the model as it then is: λ follows from the finished run's own logits."""
    data = tabular()
    recipe = FULL_BATCH.with_(epochs=1, step_size=0.7, decay=0.1)
    settings = {"objective": "tradeoff:0.8", "risk": risk, "recipe": recipe, "progress": False}
    if labels == "teacher":
        run = rd.distill(eta_tables(), table_model(), data, data, validation_labels="teacher", **settings)
        masses = data.inputs.astype(np.float64) @ ETA
    else:
        run = rd.fit(table_model(), data, data, **settings)
        masses = np.eye(3)[data.labels]
    with torch.no_grad():
        logits = run.model(torch.from_numpy(data.inputs)).double()
    losses = (
        1 - np.eye(3)[logits.argmax(dim=1).numpy()] if risk == "zero-one" else -torch.log_softmax(logits, dim=1).numpy()
    )
    risks = (masses * losses).sum(axis=0) / masses.sum(axis=0)
    expected = reference.exponentiated_gradient(np.full(3, 1 / 3), risks, 0.7 * 0.8, decay=0.1)
    np.testing.assert_allclose(run.multipliers.weights.numpy(), expected, rtol=1e-6)
    assert run.multipliers.updates == 1
    beta = 0.2 / 3 + 0.8 * expected
    np.testing.assert_allclose(run.multipliers.class_weights.numpy(), beta, rtol=1e-6)
    np.testing.assert_allclose(run.history[0]["class_weights"], beta, rtol=1e-6)


def test_one_step_is_plain_gradient_descent() -> None:
    """The first step from given weights, by hand: W − lr · ((softmax(Wx − log c) − y) xᵀ averaged + decay · W)."""
    data = tabular()
    start = table_model()
    run = rd.fit(
        start, data, data, objective="balanced", recipe=FULL_BATCH.with_(epochs=1, weight_decay=0.01), progress=False
    )
    w, x, y = start.weight.detach().double().numpy(), data.inputs.astype(np.float64), np.eye(3)[data.labels]
    z = np.exp(x @ w.T + np.log(PRIORS))
    gradient = (z / z.sum(axis=1, keepdims=True) - y).T @ x / len(x) + 0.01 * w
    np.testing.assert_allclose(run.model.weight.detach().numpy(), w - 2.0 * gradient, rtol=1e-5, atol=1e-6)


def test_the_effect_on_long_tailed_digits() -> None:
    """Worst-class accuracy on validation: a robust teacher lifts it by tens of points, so does a student."""
    data = rd.data.load("digits-lt")
    recipe = Recipe.named("digits-lt").with_(epochs=15, learning_rate=0.1, every=4, step_size=0.2)
    runs = {
        name: rd.fit("convnet-8", data.train, data.val, objective=name, recipe=recipe, progress=False)
        for name in ("standard", "robust")
    }
    plain = rd.distill(
        runs["standard"], "convnet-8", data.train, data.val, objective="standard", recipe=recipe, progress=False
    )
    robust = rd.distill(
        runs["robust"], "convnet-8", data.train, data.val, objective="robust", recipe=recipe, progress=False
    )
    assert runs["robust"].scores.worst_class > runs["standard"].scores.worst_class + 0.3
    assert robust.scores.worst_class > plain.scores.worst_class + 0.3
    assert robust.scores.balanced > plain.scores.balanced
