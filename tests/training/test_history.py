from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np
import pytest

from robustdistill.metrics import Scores
from robustdistill.multipliers import ClassMultipliers
from robustdistill.training.history import LONG, RunawayWatch, epoch_record, unanswered
from robustdistill.training.recipe import AUTO, Recipe
from training.problems import NAMES, warnings_in

EACH = 2  # updates an epoch


def made_up(weights: Any, recalls: Any, others: int = 3) -> list[dict[str, Any]]:
    """Records in which the last class has these multipliers and recalls, and the others share the rest alike."""
    return [
        {"multipliers": [(1 - weight) / others] * others + [weight], "recalls": [0.9] * others + [recall]}
        for weight, recall in zip(weights, recalls, strict=True)
    ]


def found(history: list[dict[str, Any]]) -> tuple[int, float, float] | None:
    return unanswered(history, 3, EACH * len(history), epochs=len(history))


GROWING = np.geomspace(0.1, 0.8, 30)  # It doubles in ten epochs, which is just LONG updates.
RISING, FLAT, FALLING = np.linspace(0.1, 0.7, 30), np.full(30, 0.3), np.linspace(0.6, 0.2, 30)


def test_a_class_that_does_not_answer() -> None:
    assert LONG == 20
    assert found(made_up(GROWING, FLAT)) == (10, pytest.approx(0.3), pytest.approx(0.3))
    epochs, before, after = found(made_up(GROWING, FALLING)) or (0, 0.0, 0.0)
    window = FALLING[-10:]
    assert (epochs, before, after) == (10, pytest.approx(window[:5].mean()), pytest.approx(window[5:].mean()))


@pytest.mark.parametrize(
    ("weights", "recalls"),
    [
        pytest.param(GROWING, RISING, id="it answers"),
        pytest.param(np.full(30, 0.7), FLAT, id="it is not asked for more: at the optimum all stand still"),
        pytest.param(np.geomspace(0.8, 0.3, 30), FLAT, id="its multiplier falls"),
        pytest.param(np.geomspace(0.02, 0.2, 30), FLAT, id="below its uniform share"),
        pytest.param(np.geomspace(0.1, 0.8, 9), np.full(9, 0.3), id="not for long: 18 updates"),
    ],
)
def test_a_class_that_answers_or_was_not_asked(weights: Any, recalls: Any) -> None:
    assert found(made_up(weights, recalls)) is None


def test_long_is_counted_in_updates() -> None:
    """A multiplier that jumps within five epochs: 22 updates in all are long enough, 15 are not."""
    history = made_up(np.geomspace(0.1, 0.8, 11), np.full(11, 0.3))
    assert unanswered(history, 3, 33, 30) is not None
    assert unanswered(history, 3, 22, 30) is not None
    assert unanswered(history, 3, 15, 30) is None
    assert unanswered(history, 3, 0, 30) is None


def test_long_is_longer_in_a_long_training() -> None:
    """The first 11 of 100 epochs are more than its tenth, of 120 less."""
    history = made_up(np.geomspace(0.1, 0.8, 11), np.full(11, 0.3))
    assert unanswered(history, 3, 33, 100) is not None
    assert unanswered(history, 3, 33, 120) is None


def test_noise_is_averaged_out() -> None:
    wobble = 0.1 * np.random.default_rng(0).normal(size=120)
    slow = np.geomspace(0.1, 0.8, 120)
    assert found(made_up(slow, np.clip(np.linspace(0.1, 0.9, 120) + wobble, 0, 1))) is None
    assert found(made_up(slow, 0.5 + wobble - np.linspace(0, 0.1, 120))) is not None


def test_records_without_recalls_say_nothing() -> None:
    """Those of an earlier version, and classes without an example."""
    older = made_up(GROWING, FLAT)
    for epoch in older:
        del epoch["recalls"]
    assert found(older) is None
    assert found(made_up(GROWING, [None] * 30)) is None


def test_the_warning_comes_once_and_while_training_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    history, watch = made_up(GROWING, FLAT), RunawayWatch(NAMES, Recipe(epochs=30))
    said = []
    for count in range(1, len(history) + 1):
        watch.look(history[:count], EACH * count)
        said.append(len(caplog.records))
    assert said[-1] == 1
    assert said.index(1) < 20
    text = warnings_in(caplog)
    assert "class 'dog' does not answer: over the last 10 epochs (20 updates) its multiplier grew from" in text
    assert "recall went from 0.30 to 0.30" in text
    assert "lower step_size (now 0.1), or set decay" in text


def test_a_multiplier_that_holds_all_is_named(caplog: pytest.LogCaptureFixture) -> None:
    watch = RunawayWatch(NAMES, Recipe(step_size=5.0, decay=0.01))
    watch.look(made_up([0.89], [0.1]), 1)
    assert not caplog.records
    watch.look(made_up([0.89, 0.91], [0.1, 0.1]), 2)
    watch.look(made_up([0.89, 0.91, 0.95], [0.1, 0.1, 0.1]), 3)
    assert warnings_in(caplog).count("class 'dog'") == 1
    assert "holds 91 % of the weight (class 'dog')" in warnings_in(caplog)
    assert "lower step_size (now 5), or raise decay (now 0.01), which bounds" in warnings_in(caplog)
    assert "step_size='auto' does both" in warnings_in(caplog)


def test_a_warning_does_not_advise_what_is_in_use(caplog: pytest.LogCaptureFixture) -> None:
    RunawayWatch(NAMES, Recipe(**AUTO)).look(made_up([0.95], [0.1]), 1)
    assert "holds 95 %" in warnings_in(caplog)
    assert "auto" not in warnings_in(caplog)


@pytest.mark.parametrize("history", [[], [{"multipliers": None, "recalls": [0.0, 1.0]}]])
def test_nothing_to_look_at(history: list[dict[str, Any]], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        RunawayWatch(NAMES, Recipe(epochs=30)).look(history, 0)
    assert not caplog.records


def test_the_record_of_an_epoch() -> None:
    scores = Scores(np.array([3, 1, 0]), np.array([4, 3, 0]), NAMES[:3])
    facts: dict[str, Any] = {"loss": 0.5, "rate": 0.1, "scores": scores, "seconds": 1.23456}
    record = epoch_record(4, multipliers=ClassMultipliers("robust", [0.5, 0.25, 0.25]), **facts)
    assert (record["epoch"], record["seconds"], record["learning_rate"]) == (5, 1.235, 0.1)
    assert record["recalls"] == [0.75, 0.3333, None]
    assert record["multipliers"] == pytest.approx([1 / 3] * 3)
    assert json.loads(json.dumps(record["recalls"], allow_nan=False)) == record["recalls"]
    assert epoch_record(0, multipliers=ClassMultipliers("balanced", [0.5, 0.25, 0.25]), **facts)["multipliers"] is None
