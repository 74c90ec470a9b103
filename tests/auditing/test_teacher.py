from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import robustdistill as rd
from auditing.reference import made_up
from robustdistill.auditing import teacher
from robustdistill.errors import InputError


def calibrated(sharper: float = 1.0, n: int = 3000, seed: int = 0) -> rd.Predictions:
    """Labels drawn from known probabilities; the table claims them at another temperature."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(n, 3))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (rng.random((n, 1)) > np.cumsum(chances, axis=1)).sum(axis=1).clip(max=2)
    return rd.Predictions(range(n), logits * sharper, "logits", ("a", "b", "c"), labels)


def test_the_temperature_that_undoes_overconfidence_is_found() -> None:
    found = rd.audit(calibrated(sharper=3), draws=50, teacher=True).teacher
    assert found is not None
    assert found.calibrated.temperature == 3
    assert 2 <= found.best.temperature <= 4
    assert found.tempering_helps
    assert any("--temperature" in tip for tip in found.advice())
    assert found.best.error < 0.15 < found.untempered.error


def test_a_calibrated_teacher_needs_nothing() -> None:
    found = rd.audit(calibrated(), draws=50, teacher=True).teacher
    assert found is not None
    assert found.calibrated.temperature == 1
    assert not found.tempering_helps
    assert found.advice() == ["distilling from it as it is: nothing here speaks against it."]
    assert all(line.ratio == pytest.approx(1, abs=0.06) for line in found.classes)


def test_figures_are_those_of_fitness() -> None:
    table = made_up(500)
    found = rd.audit(table, draws=50, teacher=True)
    assert found.teacher is not None
    expected = rd.theory.fitness.teacher_fitness(table)
    by_name = {line.name: line for line in found.teacher.classes}
    for index, name in enumerate(table.class_names):
        assert by_name[name].lower == pytest.approx(expected.lower.values[index])
        assert by_name[name].upper == pytest.approx(expected.upper.values[index])
        assert by_name[name].ratio == pytest.approx(expected.marginals[index] / expected.priors[index])
        assert by_name[name].calibration_error == found.classes.lines[index].class_calibration_error
    assert found.as_dict()["teacher"]["best_temperature"] == found.teacher.best.temperature


def test_a_weak_class_and_wrong_marginals_are_spoken_of() -> None:
    table = calibrated()
    scores = table.scores.copy()
    scores[:, 2] -= 3
    found = rd.audit(replace(table, scores=scores), draws=50, teacher=True).teacher
    assert found is not None
    assert found.weakest[0] == "c"
    tips = " ".join(found.advice())
    assert "--objective robust" in tips
    assert "own marginals" in tips
    assert any("approximation error" in sentence.lower() for sentence in found.sentences())


def test_large_tables_are_sampled_class_by_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "MOST_CELLS", 1200)
    table = calibrated(n=2000)
    few = np.concatenate([np.flatnonzero(table.labels < 2), np.flatnonzero(table.labels == 2)[:6]])
    found = rd.audit(table.rows(few), draws=50, teacher=True).teacher
    assert found is not None
    assert found.sampled
    assert 390 <= found.rows <= 410


def test_what_cannot_teach_is_refused() -> None:
    with pytest.raises(InputError, match="predicted classes only"):
        rd.audit(made_up(kind="classes"), draws=50, teacher=True)
    table = made_up(200)
    with pytest.raises(InputError, match="'class 2' has 0"):
        rd.audit(table.rows(table.labels != 2), draws=50, teacher=True)
