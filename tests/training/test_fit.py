from __future__ import annotations

import os
import random
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

import robustdistill as rd
from robustdistill.data.splits import Examples
from robustdistill.errors import DivergedError, InputError
from robustdistill.models import ModelLike
from robustdistill.training import checkpoint, validation
from robustdistill.training.progress import EpochProgress
from robustdistill.training.run import Run
from training import problems
from training.problems import assert_same_run, assert_same_weights, history_of, picture_splits, pictures, short


def fitted(
    model: ModelLike = "convnet-4", *, train: Examples | None = None, val: Examples | None = None, **settings: Any
) -> Run:
    default_train, default_val = picture_splits()
    settings = {"objective": "robust", "recipe": short(), "seed": 3, "progress": False, **settings}
    return rd.fit(model, train or default_train, val or default_val, **settings)


# ---- the same numbers


@pytest.mark.parametrize("model", ["convnet-4", "resnet8", problems.Dropout])
@pytest.mark.parametrize("objective", ["standard", "robust"])
def test_the_same_seed_gives_the_same_bits(model: ModelLike, objective: str) -> None:
    first = fitted(model, objective=objective)
    torch.manual_seed(99)
    torch.rand(7)
    np.random.default_rng(1).random()
    assert_same_run(first, fitted(model, objective=objective))


def test_another_seed_gives_other_numbers() -> None:
    first, second = fitted(seed=3), fitted(seed=4)
    assert not torch.equal(first.model.head.weight, second.model.head.weight)
    assert first.spec.hash != second.spec.hash


def test_the_caller_is_left_alone() -> None:
    module = problems.Dropout()
    module[3].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    threads, torch_state = torch.get_num_threads(), torch.get_rng_state()
    numpy_state, python_state, environment = str(np.random.get_state()), random.getstate(), dict(os.environ)
    run = fitted(module, threads=2)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (str(np.random.get_state()), random.getstate()) == (numpy_state, python_state)
    assert dict(os.environ) == environment
    assert run.spec.threads == 2
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [part.training for part in module] == [True, True, True, False, True]
    assert all(p.requires_grad and p.grad is None for p in module.parameters())


def test_the_caller_is_left_alone_by_a_failure_too() -> None:
    threads, torch_state = torch.get_num_threads(), torch.get_rng_state()
    with pytest.raises(InputError):
        fitted("training.problems:two_classes", threads=2)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_fits_within_a_fit_do_not_disturb_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its epochs somebody else draws numbers and trains another model."""
    alone = fitted(problems.Dropout)
    busy = False

    def update(self: EpochProgress, record: dict[str, Any]) -> None:
        nonlocal busy
        if not busy:
            busy = True
            fitted("convnet-2", seed=11, recipe=short(epochs=1))
            busy = False

    monkeypatch.setattr(EpochProgress, "update", update)
    assert_same_run(alone, fitted(problems.Dropout))


def test_the_history() -> None:
    run = fitted(recipe=short(every=3))
    assert [epoch["epoch"] for epoch in run.history] == [1, 2, 3, 4, 5]
    assert [epoch["learning_rate"] for epoch in run.history] == pytest.approx([0.05] * 4 + [0.005])
    last = run.history[-1]
    assert (last["worst_class"], last["balanced"], last["standard"]) == (
        run.scores.worst_class,
        run.scores.balanced,
        run.scores.standard,
    )
    assert last["multipliers"] == run.multipliers.weights.tolist()
    assert last["class_weights"] == run.multipliers.class_weights.tolist()
    assert all(sum(epoch["multipliers"]) == pytest.approx(1) for epoch in run.history)
    assert run.multipliers.updates == 25 // 3  # 38 examples in batches of 8: 5 steps an epoch
    assert not run.model.training
    assert (run.train_counts, run.class_names, run.in_channels) == ([20, 12, 6], ("ant", "bee", "cat"), 1)


def test_the_scores_are_those_of_the_returned_model() -> None:
    run = fitted()
    assert rd.evaluate(run, pictures("toy/val", (10, 10, 10), seed=1)).as_dict() == run.scores.as_dict()


# ---- objectives and multipliers


@pytest.mark.parametrize("objective", ["standard", "balanced"])
def test_without_robustness_nothing_moves(objective: str) -> None:
    run = fitted(objective=objective)
    expected = run.multipliers.priors.tolist() if objective == "standard" else [1 / 3] * 3
    assert all(epoch["multipliers"] is None for epoch in run.history)
    assert all(epoch["class_weights"] == pytest.approx(expected) for epoch in run.history)
    assert run.multipliers.updates == 0


def test_priors_are_the_class_frequencies() -> None:
    np.testing.assert_allclose(fitted().multipliers.priors.numpy(), np.array([20, 12, 6]) / 38, rtol=1e-12)


def test_robust_moves_weight_to_the_worst_class() -> None:
    """A class that cannot be told apart: 'cat' looks like 'ant'."""
    rng = np.random.default_rng(0)

    def blobs(name: str) -> Examples:
        labels = np.repeat([0, 1, 2], [60, 40, 20])
        centres = np.array([[2.0, 0.0], [-2.0, 3.0], [2.0, 0.3]])
        features = (centres[labels] + 0.3 * rng.normal(size=(120, 2))).astype(np.float32)
        return Examples(features, labels, np.arange(120), problems.NAMES[:3], name=name)

    run = fitted(
        nn.Linear(2, 3), train=blobs("train"), val=blobs("val"), recipe=short(epochs=10, every=5, step_size=0.2)
    )
    trace = np.array([epoch["multipliers"] for epoch in run.history])
    assert trace[0].argmax() == 2  # The rare one of the two that look alike goes first, ...
    assert (np.diff(trace[:, 1]) < 0).all()
    assert trace[-1, 1] < 0.15  # ... and in the end the easy class pays for both.


def test_every_counts_steps_over_epochs() -> None:
    assert fitted(recipe=short(epochs=3, milestones=(), every=4)).multipliers.updates == 15 // 4
    assert fitted(recipe=short(epochs=3, milestones=(), every=15)).multipliers.updates == 1


def test_multipliers_that_would_never_move_are_refused() -> None:
    """A robust run without an update is a balanced one under another name."""
    too_rare = short(epochs=3, milestones=(), every=16)
    with pytest.raises(InputError, match="never move: they are updated every 16 steps, and training has 15"):
        fitted(recipe=too_rare)
    assert fitted(recipe=too_rare, objective="balanced").multipliers.updates == 0


def test_decay_bounds_the_multipliers() -> None:
    free = fitted(recipe=short(epochs=10, every=1, step_size=0.5, decay=0.0))
    bound = fitted(recipe=short(epochs=10, every=1, step_size=0.5, decay=0.25))
    ratios = [float(run.multipliers.weights.max() / run.multipliers.weights.min()) for run in (free, bound)]
    assert ratios[1] <= np.exp(0.5 / 0.25) * (1 + 1e-9)
    assert ratios[1] < ratios[0]


def test_validation_samples_are_drawn_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    draws: list[tuple[int, ...]] = []
    original = validation.class_risks
    # A feature that is the example's own number tells which examples a draw holds.
    features = np.arange(30, dtype=np.float32)[:, None]
    val = Examples(features / 30, np.arange(30) % 3, np.arange(30), problems.NAMES[:3], name="val")

    class Shows(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            self.seen = x
            return super().forward(x)

    model = Shows(1, 3)

    def spy(logits: Tensor, targets: Tensor, **settings: Any) -> Any:
        draws.append(tuple(targets.tolist()))
        assert len(logits) == len(targets)
        return original(logits, targets, **settings)

    monkeypatch.setattr(validation, "class_risks", spy)
    recipe = short(epochs=4, milestones=(), every=1, validation_sample=9)
    run = fitted(model, train=val, val=val, recipe=recipe)
    assert run.multipliers.updates == len(draws) == 16
    assert {len(draw) for draw in draws} == {9}
    assert len(set(draws)) > 12
    first = list(draws)
    draws.clear()
    fitted(model, train=val, val=val, recipe=recipe)
    assert draws == first
    draws.clear()
    fitted(model, train=val, val=val, recipe=recipe, seed=8)
    assert draws != first
    draws.clear()
    fitted(model, train=val, val=val, recipe=recipe.with_(validation_sample=500))
    assert set(draws) == {tuple(val.labels.tolist())}


def test_a_class_missing_from_a_draw_keeps_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation.Validation, "_draw", lambda *_: torch.arange(4))  # Two ants, two bees, no cat.
    train, _ = picture_splits()
    order = np.argsort(train.labels, kind="stable")
    val = train.subset(order[[0, 1, 25, 26, 36, 37]])
    run = fitted(val=val, recipe=short(validation_sample=4, every=1))
    assert run.multipliers.updates == 25
    assert float(run.multipliers.weights[2]) == pytest.approx(1 / 3, rel=1e-12)


def test_a_runaway_multiplier_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    flat = np.zeros((12, 2), np.float32)  # All examples look alike: two classes of three are always wrong.
    data = Examples(flat, np.arange(12) % 3, np.arange(12), problems.NAMES[:3])
    fitted(nn.Linear(2, 3), train=data, val=data, recipe=short(epochs=20, every=20, step_size=30.0))
    assert "step_size" in problems.warnings_in(caplog)
    assert "decay" in problems.warnings_in(caplog)


@pytest.mark.parametrize("method", ["margin", "weighted"])
@pytest.mark.parametrize("objective", ["standard", "balanced", "robust", "tradeoff:0.5", "standard-tradeoff:0.5"])
def test_every_objective_with_every_method(method: str, objective: str) -> None:
    run = fitted(method=method, objective=objective, recipe=short(epochs=2, milestones=()))
    assert (run.spec.method, run.spec.objective) == (method, objective)
    assert all(np.isfinite(epoch["loss"]) for epoch in run.history)


def test_standard_is_the_same_with_either_method() -> None:
    assert_same_weights(fitted(objective="standard").model, fitted(objective="standard", method="weighted").model)


def test_bfloat16() -> None:
    """Only the arithmetic of a step is rough: weights, multipliers and evaluation stay as they are."""
    rough, exact = fitted(recipe=short(precision="bfloat16")), fitted()
    assert all(p.dtype == torch.float32 for p in rough.model.parameters())
    assert rough.multipliers.weights.dtype == torch.float64
    assert not torch.equal(rough.model.head.weight, exact.model.head.weight)
    assert rough.history[0]["loss"] == pytest.approx(exact.history[0]["loss"], rel=0.05)
    assert_same_run(rough, fitted(recipe=short(precision="bfloat16")))


def test_gradients_are_means_over_the_batch() -> None:
    """Data twice over in batches twice as large: the same steps but for rounding."""
    data = problems.tabular()
    twice = Examples(
        np.repeat(data.inputs, 2, axis=0), np.repeat(data.labels, 2), np.arange(2 * len(data)), data.class_names
    )
    recipe = problems.FULL_BATCH.with_(epochs=20)
    once, doubled = (
        fitted(problems.table_model(), train=train, val=data, recipe=recipe, objective="robust")
        for train in (data, twice)
    )
    torch.testing.assert_close(once.model.weight, doubled.model.weight, rtol=1e-4, atol=1e-5)
    assert once.history[-1]["loss"] == pytest.approx(doubled.history[-1]["loss"], rel=1e-4)


# ---- divergence


class BreaksAt(nn.Module):
    """Returns NaN from its n-th training step on."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.body, self.step, self.calls = nn.Linear(36, 3), step, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return self.body(x.flatten(1)) + (float("nan") if self.calls >= self.step and self.training else 0.0)


@pytest.mark.parametrize("objective", ["standard", "robust"])
def test_a_huge_rate_diverges(objective: str) -> None:
    deep = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Linear(8, 8), nn.Linear(8, 3))
    with pytest.raises(DivergedError, match=r"learning.rate"):
        fitted(deep, objective=objective, recipe=short(learning_rate=1e6, epochs=20))


def test_the_message_says_which_epoch_and_what_to_lower() -> None:
    with pytest.raises(
        DivergedError,
        match=r"step 13 \(epoch 3\) is not finite for 8 of its 8.*learning_rate \(now 0\.05\).*warmup_epochs \(now 1\)",
    ):
        fitted(BreaksAt(13), objective="standard")


def test_the_last_good_epoch_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", -1.0)
    with pytest.raises(DivergedError, match="is kept in"):
        fitted(BreaksAt(13), objective="standard", out=tmp_path)
    with safe_open(tmp_path / "checkpoint.safetensors", framework="pt") as file:
        about = bytes(file.get_tensor("about").numpy()).decode()
        assert '"epoch": 2' in about
        assert '"epoch": 3' not in about
        assert all(bool(file.get_tensor(name).float().isfinite().all()) for name in file.keys())  # noqa: SIM118
    assert not (tmp_path / "record.json").exists()


def test_no_checkpoint_is_promised_that_is_not_there(tmp_path: Path) -> None:
    """Checkpoints are at least some seconds apart, so that a short run may have none."""
    with pytest.raises(DivergedError) as raised:
        fitted(BreaksAt(13), objective="standard", out=tmp_path)
    assert list(tmp_path.glob("checkpoint*")) or "is kept in" not in str(raised.value)


def test_weights_that_broke_in_the_last_step_are_no_result() -> None:
    """The loss of a step says nothing yet of the weights after it."""
    data = problems.tabular()
    data = replace(data, inputs=1000 * data.inputs)
    with pytest.raises(DivergedError, match=r"learning.rate"):
        fitted(
            nn.Linear(4, 3),
            train=data,
            val=data,
            objective="standard",
            recipe=problems.FULL_BATCH.with_(epochs=1, learning_rate=1e38),
        )


# ---- refusals


def without_class(examples: Examples, missing: int) -> Examples:
    return examples.subset(np.flatnonzero(examples.labels != missing))


def test_a_class_missing_from_train_is_named() -> None:
    train, val = picture_splits()
    with pytest.raises(InputError, match=r"toy/train must have every class; class 1 \('bee'\) has 0 examples"):
        fitted(train=without_class(train, 1), val=val)


@pytest.mark.parametrize("objective", ["robust", "standard"])
def test_a_class_missing_from_val_is_named(objective: str) -> None:
    train, val = picture_splits()
    with pytest.raises(InputError, match=r"toy/val must have every class; class 2 \('cat'\) has 0 examples"):
        fitted(train=train, val=without_class(val, 2), objective=objective)


def test_labels_and_features_are_checked_when_examples_are_made() -> None:
    with pytest.raises(InputError, match=r"labels must lie in 0\.\.2; row 1 \(id 8\) has 3"):
        Examples(np.zeros((2, 1), np.float32), np.array([0, 3]), np.array([7, 8]), problems.NAMES[:3])
    with pytest.raises(InputError, match=r"row 1 \(id 8\) has NaN"):
        Examples(np.array([[0], [np.nan]], np.float32), np.array([0, 1]), np.array([7, 8]), problems.NAMES[:3])


def test_other_classes_in_val() -> None:
    train, _ = picture_splits()
    with pytest.raises(InputError, match="same classes"):
        fitted(train=train, val=pictures("toy/val", (5, 5)))


def test_too_few_examples() -> None:
    train, val = picture_splits()
    with pytest.raises(InputError, match="at least 2 examples, got 1"):
        fitted(train=train.subset(np.array([0])), val=val)


@pytest.mark.parametrize("objective", ["tradeoff:1.5", "tradeoff:-0.1", "standard-tradeoff:nan"])
def test_alpha_outside_the_unit_interval(objective: str) -> None:
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        fitted(objective=objective)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "rubust"}, "did you mean 'robust'"),
        ({"recipe": "cifar10lt"}, "did you mean 'cifar10-lt'"),
        ({"method": "margins"}, "did you mean 'margin'"),
        ({"risk": "zero_one"}, "zero-one"),
        ({"model": "resnet33"}, "6n"),
        ({"model": "training.problems:two_classes"}, r"two_classes must return logits \(2, 3\).*got \(2, 2\)"),
        ({"model": None}, "model"),
        ({"model": 8}, "model"),
    ],
)
def test_bad_arguments(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fitted(**settings)


def test_a_picture_model_on_features() -> None:
    data = problems.tabular()
    with pytest.raises(InputError, match="convnet-4"):
        fitted("convnet-4", train=data, val=data)


# ---- whatever is a model


def test_modules_callables_and_names(monkeypatch: pytest.MonkeyPatch) -> None:
    by_name, by_callable = fitted("training.problems:narrow"), fitted(problems.narrow)
    assert_same_run(by_name, by_callable)
    assert by_name.spec.model_code


def test_a_module_is_the_starting_point() -> None:
    torch.manual_seed(0)
    first, second = problems.Dropout(), problems.Dropout()
    runs = [fitted(module, recipe=short(epochs=1, milestones=())) for module in (first, second)]
    assert not torch.equal(runs[0].model[1].weight, runs[1].model[1].weight)


def test_a_module_in_eval_mode_is_trained_in_training_mode() -> None:
    module = problems.Dropout()
    training = fitted(module)
    assert_same_weights(training.model, fitted(module.eval()).model)


def test_other_starting_weights_are_another_run(tmp_path: Path) -> None:
    """Else a folder would give the run of one module to somebody who brings another."""
    torch.manual_seed(0)
    first, second = problems.Dropout(), problems.Dropout()
    recipe = short(epochs=1, milestones=())
    run = fitted(first, recipe=recipe, out=tmp_path)
    try:
        other = fitted(second, recipe=recipe, out=tmp_path)
    except InputError:
        return
    assert not torch.equal(other.model[1].weight, run.model[1].weight)


def test_frozen_parameters_stay() -> None:
    module = problems.Dropout()
    module[1].requires_grad_(False)
    run = fitted(module)
    assert torch.equal(run.model[1].weight, module[1].weight)
    assert not torch.equal(run.model[4].weight, module[4].weight)
    assert run.parameters == 16 * 3 + 3


def test_progress_is_plain_lines_without_a_terminal(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="robustdistill"):
        fitted(progress=True)
    lines = [entry.getMessage() for entry in caplog.records if "epoch" in entry.getMessage()]
    assert len(lines) == 5
    assert "epoch 5 of 5" in lines[-1]
    assert "worst" in lines[-1]
    assert caplog.messages[0] == "training on cpu: float32, eager, channels-last, threads 1, processes 1"
    caplog.clear()
    with caplog.at_level("INFO", logger="robustdistill"):
        fitted(progress=False)
    assert not caplog.records


def test_no_warnings_on_ordinary_use() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert history_of(fitted("resnet8", recipe=short(epochs=1, milestones=())))
