"""Targets: public functions that take arrays and numbers, given any of these."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

import robustdistill as rd
from fuzz.harness import Target
from fuzz.tables import NAMES
from robustdistill.data.longtail import class_sizes, long_tail
from robustdistill.data.samplers import ClassBalancedSampler, class_uniform
from robustdistill.losses import margin_loss, weighted_loss
from robustdistill.metrics import Scores
from robustdistill.multipliers import ClassMultipliers, exponentiated_gradient
from robustdistill.predictions import Predictions
from robustdistill.risks import Risks, class_risks
from robustdistill.theory import bounds, plans, problems

VALUES = st.one_of(st.floats(), st.floats(0, 1), st.sampled_from([0.0, 1.0, 0.5, math.nan, math.inf, -math.inf, 1e308]))
DTYPES = ("float64", "float32", "float16", "int64", "uint8", "bool", "int8", "uint64", "<U3", "object", "complex64")


def mostly(good: st.SearchStrategy[Any], odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What is right five times out of six: of calls with several arguments some should then be accepted."""
    return st.integers(0, 5).flatmap(lambda roll: odd if roll == 0 else good)


ODD = st.one_of(
    st.integers(-2, 6), st.floats(), st.floats(0, 1), st.sampled_from([0.5, 1.0, 0.1, 2**31, 2**63, 1e308, -1e-320])
)
NUMBERS = mostly(st.floats(0.05, 0.95), ODD)
LARGE = st.one_of(st.integers(-2, 9), st.sampled_from([2**31, 2**63, 2**70, -(2**63)]))
WHOLE = mostly(st.integers(1, 3), LARGE)


@st.composite
def shapes(draw: st.DrawFn, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """`sizes`, mostly; else something near it."""
    if draw(st.integers(0, 9)):
        return sizes
    return draw(
        st.sampled_from([(), (0,), sizes[:1], (*sizes, 2), sizes[::-1], tuple(size + 1 for size in sizes), (0, 3)])
    )


@st.composite
def arrays(draw: st.DrawFn, *sizes: int, of: st.SearchStrategy[Any] = VALUES) -> np.ndarray:
    shape = draw(shapes(sizes))
    count = math.prod(shape)
    values = draw(st.lists(of, min_size=count, max_size=count))
    dtype = draw(st.sampled_from(DTYPES)) if draw(st.integers(0, 9)) == 0 else None
    plain = np.array(values, dtype=np.float64 if not values else None)
    if plain.dtype == object:  # whole numbers beyond 64 bits
        plain = np.array([float(value) for value in values])
    with np.errstate(all="ignore"):
        return plain.reshape(shape).astype(dtype or plain.dtype)


def probabilities(rows: int, columns: int) -> st.SearchStrategy[np.ndarray]:
    """Rows that sum to 1, mostly."""

    def normalised(values: list[float]) -> np.ndarray:
        table = np.array(values).reshape(rows, columns) + 1e-9
        return table / table.sum(axis=1, keepdims=True)

    good = st.lists(st.floats(0, 1), min_size=rows * columns, max_size=rows * columns).map(normalised)
    return mostly(good, arrays(rows, columns))


def single(table: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return table.astype(np.float32)


def labels(rows: int, classes: int = 3) -> st.SearchStrategy[np.ndarray]:
    good = st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows).map(np.array)
    return mostly(good, arrays(rows, of=st.integers(-1, classes)))


def tensors(values: st.SearchStrategy[np.ndarray]) -> st.SearchStrategy[torch.Tensor]:
    # Of unsigned 64-bit numbers torch can do next to nothing.
    usable = values.filter(lambda array: array.dtype.kind in "fiub" and array.dtype != np.uint64)
    return usable.map(lambda array: torch.from_numpy(array.copy()))


def calls(run: Callable[..., Any], **arguments: st.SearchStrategy[Any]) -> tuple[Callable[[], Any], Callable[..., Any]]:
    """Inputs and the run of a target that calls `run` with `arguments`."""
    return lambda: st.fixed_dictionaries(arguments), lambda given, place: run(**given)


def numbers_in(found: float, low: float, high: float) -> None:
    assert math.isnan(found) or low <= found <= high


def _metrics(predictions: Any, labels: Any, num_classes: int, k: int, level: float) -> Any:
    arguments: dict[str, Any] = {"labels": labels, "num_classes": num_classes}
    found = [
        rd.metrics.worst_class_accuracy(predictions, **arguments),
        rd.metrics.balanced_accuracy(predictions, **arguments),
        rd.metrics.standard_accuracy(predictions, **arguments),
        rd.metrics.worst_k_accuracy(predictions, **arguments, k=k),
    ]
    for value in (*found, *rd.metrics.per_class_recall(predictions, **arguments).tolist()):
        numbers_in(value, 0, 1)
    return found


def _scores(correct: Any, counts: Any, k: int) -> Any:
    scores = Scores(correct, counts)
    again = Scores.from_dict(scores.as_dict())
    assert np.array_equal(again.per_class, scores.per_class, equal_nan=True)
    numbers_in(scores.worst_k(k), 0, 1)
    return scores


def _risks(logits: Any, targets: Any, loss: str) -> Any:
    risks = class_risks(logits, targets, loss=loss)
    both = risks + risks
    assert both.values.shape == risks.sums.shape
    return risks


def _loss(loss: Callable[..., Any], logits: Any, targets: Any, costs: Any) -> Any:
    found = loss(logits, targets, costs)
    assert found.shape == logits.shape[:1]
    fair = logits.isfinite().all() and (costs > 1e-8).all() and (costs < 1e8).all()
    if fair and (targets.ndim == 1 or ((targets >= 0).all() and (targets <= 1).all())):
        assert found.isfinite().all()
    return found


def _gradient(weights: Any, risks: Any, step_size: float, decay: float, floor: float) -> Any:
    found = exponentiated_gradient(weights, risks, step_size, decay=decay, floor=floor)
    assert found.isfinite().all()
    assert abs(float(found.sum()) - 1) < 1e-9 or bool(risks.isnan().any())
    return found


def _multipliers(objective: str, priors: Any, step_size: float, decay: float, sums: Any, counts: Any) -> Any:
    dro = ClassMultipliers(objective, priors, step_size=step_size, decay=decay)
    dro.update(Risks(sums, counts))
    assert dro.weights.isfinite().all()
    assert float(dro.weights.sum()) == 1.0 or abs(float(dro.weights.sum()) - 1) < 1e-9
    assert dro.costs.isfinite().all()
    return dro


def _predictions(ids: Any, scores: Any, kind: str, names: Any, labels: Any, temperature: float, wanted: Any) -> Any:
    table = Predictions(ids, scores, kind, names, labels)  # type: ignore[arg-type]
    assert len(table.predicted) == len(table)
    probabilities = table.probabilities(temperature)
    assert np.isfinite(probabilities).all()
    table.join(wanted)
    return table.evaluate()


def _shift(
    scores: Any, y: Any, robustness: float, method: str, iterations: int, step_size: float, kind: str, priors: Any
) -> Any:
    shift = rd.PostShift(robustness, method, iterations=iterations, step_size=step_size, kind=kind)  # type: ignore[arg-type]
    shift.fit(scores, y, priors)
    assert np.isfinite(shift.log_coefficients_).all()
    assert np.isfinite(shift.predict_proba(scores)).all()
    return shift.predict(scores)


def _audit(scores: Any, labels: Any, kind: str, groups: Any, worst_k: int | None, draws: int, teacher: bool) -> Any:
    table = Predictions(np.arange(6), scores, kind, NAMES, labels, groups)  # type: ignore[arg-type]
    found = rd.audit(table, worst_k=worst_k, draws=draws, teacher=teacher)
    for name, value in found.values().items():
        assert math.isnan(value) or 0 <= value <= 1, name
    return found.as_dict()


def _tail(labels: Any, ratio: float, seed: int, profile: str, num_classes: int | None, largest: int | None) -> Any:
    kept = long_tail(labels, ratio, seed, profile, num_classes, largest)  # type: ignore[arg-type]
    assert len(np.unique(kept)) == len(kept)
    return class_sizes(5, ratio, 3, profile)  # type: ignore[arg-type]


def _sampler(labels: Any, num_samples: int | None, seed: int) -> Any:
    sampler = ClassBalancedSampler(labels, num_samples, seed)
    drawn = list(sampler)
    assert all(0 <= one < len(labels) for one in drawn)
    return class_uniform(torch.from_numpy(labels.astype(np.int64)), 3)


def _examples(
    inputs: Any, labels: Any, class_names: Any, ids: Any, groups: Any, val: float, test: float, seed: int
) -> Any:
    data = rd.data.from_arrays(inputs, labels, class_names=class_names, ids=ids, groups=groups)
    assert len(data) == len(data.ids)
    parts = rd.data.split(data, val, test, seed)
    assert len(parts.train) + len(parts.val) + len(parts.test) == len(data)
    return parts


def _groups(values: Any, classes: Any, kind: str, names: list[str]) -> Any:
    groups = rd.Groups.of(values, classes, kind, group_names=names, class_names=NAMES)  # type: ignore[arg-type]
    assert groups.priors.isfinite().all()
    return groups


def _problem(masses: Any, posteriors: Any, logits: Any, teacher: Any, objective: str, tau: float) -> Any:
    problem = problems.FiniteProblem(masses, posteriors)
    found = problem.risk(logits, objective)
    assert not math.isnan(found)
    bounds.approximation_errors(problem, teacher, tau)
    return problem.distilled(teacher)


def _bounds(bound: float, Z: float, classes: int, updates: int, delta: float) -> Any:  # noqa: N803
    step = bounds.step_size(bound, Z, classes, updates)
    assert math.isfinite(step)
    assert step >= 0
    return bounds.validation_size(Z, classes, delta)


def _plan(gap: float, bound: float, Z: float, classes: int, delta: float, approximation: float, tau: float) -> Any:  # noqa: N803
    return plans.plan(gap, bound, Z, classes, delta, approximation=approximation, tau=tau)


REALS = mostly(arrays(4, 3, of=st.floats(-5, 5)), arrays(4, 3))
LOSSES = (
    tensors(REALS.map(lambda one: single(one) if one.dtype == np.float64 else one)),
    st.one_of(tensors(labels(4)), tensors(probabilities(4, 3))),
    tensors(mostly(arrays(3, of=st.floats(1e-8, 1e8)), arrays(3))),
)
TRIPLES = mostly(arrays(3, of=st.floats(0, 1)), arrays(3))
NAMED = mostly(st.just(NAMES), st.lists(st.text(max_size=2), max_size=4))
KINDS = mostly(st.sampled_from(["logits", "probabilities"]), st.sampled_from(["classes", "scores"]))
OBJECTIVES = mostly(st.sampled_from(["robust", "standard", "balanced", "tradeoff:0.3"]), st.just("nonsense"))
FEW = mostly(st.integers(3, 5), LARGE.filter(lambda one: one < 10))  # what takes memory or time


ABOVE, CLASSES = mostly(st.floats(9, 99), NUMBERS), mostly(st.integers(2, 9), LARGE)


def target(name: str, share: float, run: Callable[..., Any], **arguments: st.SearchStrategy[Any]) -> Target:
    return Target(name, *calls(run, **arguments), share)


TARGETS = [
    target("metrics", 3, _metrics, predictions=labels(5), labels=labels(5), num_classes=FEW, k=WHOLE, level=NUMBERS),
    target(
        "Scores",
        2,
        _scores,
        correct=labels(3, 2),
        counts=mostly(arrays(3, of=st.integers(2, 9)), labels(3, 9)),
        k=WHOLE,
    ),
    target(
        "class_risks",
        3,
        _risks,
        logits=LOSSES[0],
        targets=LOSSES[1],
        loss=st.sampled_from(["zero-one", "cross-entropy", "x"]),
    ),
    target(
        "losses",
        4,
        _loss,
        loss=st.sampled_from([margin_loss, weighted_loss]),
        logits=LOSSES[0],
        targets=LOSSES[1],
        costs=LOSSES[2],
    ),
    target(
        "exponentiated_gradient",
        4,
        _gradient,
        weights=tensors(TRIPLES),
        risks=tensors(TRIPLES),
        step_size=NUMBERS,
        decay=NUMBERS,
        floor=mostly(st.just(1e-8), NUMBERS),
    ),
    target(
        "ClassMultipliers",
        4,
        _multipliers,
        objective=OBJECTIVES,
        priors=tensors(probabilities(1, 3).map(lambda one: one.reshape(-1))),
        step_size=NUMBERS,
        decay=NUMBERS,
        sums=tensors(TRIPLES),
        counts=tensors(mostly(arrays(3, of=st.floats(1, 9)), arrays(3))),
    ),
    target(
        "Predictions",
        4,
        _predictions,
        ids=mostly(st.just(np.arange(4)), arrays(4)),
        scores=st.one_of(probabilities(4, 3), labels(4)),
        kind=KINDS,
        names=NAMED,
        labels=mostly(labels(4), st.none()),
        temperature=NUMBERS,
        wanted=labels(2),
    ),
    target(
        "PostShift",
        2,
        _shift,
        scores=probabilities(6, 3),
        y=labels(6),
        robustness=NUMBERS,
        method=st.sampled_from(["exponentiated-gradient", "search", "x"]),
        iterations=FEW,
        step_size=NUMBERS,
        kind=KINDS,
        priors=mostly(st.none(), arrays(3)),
    ),
    target(
        "audit",
        1,
        _audit,
        scores=st.one_of(probabilities(6, 3), labels(6)),
        labels=labels(6),
        kind=KINDS,
        groups=st.one_of(st.none(), arrays(6, of=st.integers(0, 1)).map(lambda one: one.astype(str))),
        worst_k=st.one_of(st.none(), WHOLE),
        draws=FEW,
        teacher=st.booleans(),
    ),
    target(
        "long_tail",
        3,
        _tail,
        labels=labels(8, 2),
        ratio=mostly(st.floats(1, 3), NUMBERS),
        seed=WHOLE,
        profile=mostly(st.sampled_from(["exponential", "step"]), st.just("x")),
        num_classes=mostly(st.none(), FEW),
        largest=mostly(st.none(), WHOLE),
    ),
    target("samplers", 2, _sampler, labels=labels(6), num_samples=st.one_of(st.none(), FEW), seed=WHOLE),
    target(
        "from_arrays",
        3,
        _examples,
        inputs=mostly(arrays(10, 2, of=st.floats(-1, 1)), arrays(10, 2)),
        labels=st.one_of(st.none(), labels(10, 2)),
        class_names=mostly(st.sampled_from([None, ["a", "b"]]), st.lists(st.text(max_size=2), max_size=3)),
        ids=mostly(st.none(), arrays(10, of=WHOLE)),
        groups=st.one_of(st.none(), labels(10, 2)),
        val=mostly(st.just(0.25), NUMBERS),
        test=mostly(st.just(0.25), NUMBERS),
        seed=WHOLE,
    ),
    target(
        "Groups",
        2,
        _groups,
        values=tensors(labels(8, 2)),
        classes=tensors(labels(8)),
        kind=mostly(st.sampled_from(["group", "class-group"]), st.just("x")),
        names=mostly(st.just(["p", "q"]), st.lists(st.text(max_size=2), max_size=3)),
    ),
    target(
        "FiniteProblem",
        3,
        _problem,
        masses=st.one_of(probabilities(1, 3).map(lambda one: one.reshape(-1)), arrays(3)),
        posteriors=probabilities(3, 2),
        logits=mostly(arrays(3, 2, of=st.floats(-5, 5)), arrays(3, 2)),
        teacher=probabilities(3, 2),
        objective=OBJECTIVES,
        tau=NUMBERS,
    ),
    target(
        "bounds",
        3,
        _bounds,
        bound=NUMBERS,
        Z=ABOVE,
        classes=CLASSES,
        updates=WHOLE,
        delta=NUMBERS,
    ),
    target(
        "plan of a bound",
        2,
        _plan,
        gap=NUMBERS,
        bound=NUMBERS,
        Z=ABOVE,
        classes=CLASSES,
        delta=NUMBERS,
        approximation=mostly(st.just(0.0), NUMBERS),
        tau=NUMBERS,
    ),
]
