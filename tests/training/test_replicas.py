"""Runs trained together have the numbers that each has alone, whatever happens to the others.

Tolerances: after 25 steps losses, λ, statistics and weights were seen to differ by 1.2e-6 at most in float32 (convnet)
and by 7e-15 in float64 (ResNet-8). Deep networks are compared in float64: of five ResNet-8 in float32 four stayed
within 5e-6, and in one a unit at the kink of its ReLU fell to the other side at the seventh step.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import robustdistill as rd
from robustdistill import models
from robustdistill.data.stream import on_device
from robustdistill.errors import DivergedError, InputError
from robustdistill.predictions import Predictions
from robustdistill.training import replicas
from robustdistill.training.replicas import train_together
from robustdistill.training.run import Run
from robustdistill.training.stack import Stack
from robustdistill.training.step import TrainStep
from training import problems
from training.problems import assert_same_run, history_of, picture_splits, short, warnings_in

TRAIN, VAL = picture_splits(flip=True)
Call = Callable[[], Run]


class Wide(nn.Module):
    """A residual network in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.body = models.build("resnet8", num_classes=3, in_channels=1).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.double())


class Counting(nn.Module):
    """Answers stacked and alone alike, but forgets what it counted where it is stacked."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen = self.seen + 1
        return self.body(x)


class Heavy(nn.Module):
    """Where it is stacked, memory is short in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.body(x)
        if torch.is_grad_enabled() and torch._C._functorch.is_batchedtensor(x):
            raise torch.OutOfMemoryError("out of memory")
        return outputs


def fitted(seed: int, objective: str = "robust", model: Any = "convnet-4", **settings: Any) -> Call:
    settings = {"recipe": short(), "progress": False, **settings}
    return lambda: rd.fit(model, TRAIN, VAL, objective=objective, seed=seed, **settings)


def assert_near(found: Run | Exception, wanted: Run, tolerance: float, count: int) -> None:
    """Weights, statistics, λ, history and scores to a tolerance; spec and form of the record exactly."""
    assert isinstance(found, Run), found
    assert found.environment["replicas"] == count
    assert wanted.environment["replicas"] == 1
    assert found.spec.hash == wanted.spec.hash
    assert found.record().keys() == wanted.record().keys()
    near = {"rtol": tolerance, "atol": tolerance}
    theirs = wanted.model.state_dict()
    assert found.model.state_dict().keys() == theirs.keys()
    for name, value in found.model.state_dict().items():
        torch.testing.assert_close(value, theirs[name], **near)
    torch.testing.assert_close(found.multipliers.weights, wanted.multipliers.weights, **near)
    assert found.multipliers.updates == wanted.multipliers.updates
    assert len(found.history) == len(wanted.history)
    for ours, other in zip(history_of(found), history_of(wanted), strict=True):
        assert ours.keys() == other.keys()
        for key, value in other.items():
            assert ours[key] == value or np.allclose(ours[key], value, **near), key
    assert found.scores.per_class.tolist() == wanted.scores.per_class.tolist()


OBJECTIVES = ("standard", "balanced", "robust", "tradeoff:0.5", "standard-tradeoff:0.3")


@pytest.mark.parametrize(
    ("model", "tolerance", "settings"),
    [
        ("convnet-4", 5e-6, {}),
        (Wide, 1e-13, {"recipe": short(nesterov=True, weight_decay=1e-2)}),
        ("convnet-4", 5e-6, {"method": "weighted", "recipe": short(momentum=0.0, validation_sample=12)}),
        ("convnet-4", 5e-6, {"risk": "cross-entropy", "scorer": "averaged"}),
    ],
    ids=["float32", "float64", "weighted, samples", "averaged"],
)
def test_every_run_has_the_numbers_that_it_has_alone(model: Any, tolerance: float, settings: dict[str, Any]) -> None:
    calls = [fitted(seed, objective, model, **settings) for seed, objective in enumerate(OBJECTIVES)]
    for found, call in zip(train_together(calls), calls, strict=True):
        assert_near(found, call(), tolerance, len(calls))


def test_bfloat16_differs_by_no_more_than_its_own_rounding() -> None:
    def distance(first: Run | Exception, second: Run) -> float:
        assert isinstance(first, Run)
        pairs = zip(first.model.parameters(), second.model.parameters(), strict=True)
        return max(float((ours - theirs).detach().abs().max()) for ours, theirs in pairs)

    calls = [fitted(seed, recipe=short(precision="bfloat16")) for seed in range(3)]
    for seed, (found, call) in enumerate(zip(train_together(calls), calls, strict=True)):
        alone, exact = call(), fitted(seed)()
        assert 0 < distance(found, exact) <= 2 * distance(alone, exact)


def test_students_of_many_kinds_are_one_stack_with_a_teacher(tmp_path: Path) -> None:
    """Stored views, a live teacher, tables, mixed labels; temperatures; and a run on labels beside them."""
    teacher = fitted(9, model="convnet-8")()
    rng = np.random.default_rng(0)
    tables = {
        name: Predictions(
            ids=data.ids, scores=rng.normal(size=(len(data), 3)), kind="logits", class_names=data.class_names
        )
        for name, data in (("train", TRAIN), ("val", VAL))
    }
    kinds: list[tuple[Any, dict[str, Any]]] = [
        (teacher, {"temperature": 2.0, "views": tmp_path}),
        (teacher, {"temperature": 3.0, "views": tmp_path, "validation_labels": "one-hot"}),
        (teacher, {"teacher_precision": "float32", "teacher_weight": 0.4}),
        (teacher, {"teacher_view": "clean", "objective": "standard"}),
        (tables, {"objective": "tradeoff:0.5"}),
    ]

    def distilled(seed: int, source: Any, settings: dict[str, Any]) -> Call:
        return lambda: rd.distill(
            source, "convnet-4", TRAIN, VAL, seed=seed, recipe=short(), progress=False, **settings
        )

    calls = [*(distilled(seed, *kind) for seed, kind in enumerate(kinds)), fitted(7)]
    for found, call in zip(train_together(calls), calls, strict=True):
        assert_near(found, call(), 5e-6, len(calls))


def test_methods_with_a_state_and_groups_go_together_too() -> None:
    """What a method keeps is the run's own: shared are the forward and backward pass of the model and the update."""
    teacher = fitted(9, model="convnet-8")()
    train, val = (data.with_groups(np.where(np.arange(len(data)) % 2, "here", "there")) for data in (TRAIN, VAL))

    def distilled(seed: int, method: str) -> Call:
        return lambda: rd.distill(
            teacher, "convnet-4", TRAIN, VAL, objective="standard", method=method, seed=seed, recipe=short(),
            views="off", progress=False,
        )  # fmt: skip

    calls = [
        distilled(0, "dkd"),
        distilled(1, "ada-alpha"),
        fitted(2, "standard", method="ldam-drw"),
        lambda: rd.fit(
            "convnet-4", train, val, objective="robust", groups="class-group", recipe=short(), progress=False
        ),
        lambda: rd.fit(
            "convnet-4",
            train,
            val,
            objective="robust",
            groups="group",
            method="weighted",
            recipe=short(),
            progress=False,
        ),
    ]
    for found, call in zip(train_together(calls), calls, strict=True):
        assert_near(found, call(), 5e-6, len(calls))


def raised(call: Call) -> Exception:
    with pytest.raises(DivergedError) as caught:
        call()
    return caught.value


def test_a_run_that_diverges_stops_alone(caplog: pytest.LogCaptureFixture) -> None:
    broken = models.build("convnet-4", num_classes=3, in_channels=1)
    with torch.no_grad():
        broken.head.weight.fill_(torch.nan)
    calls = [fitted(0), fitted(1, model=broken), fitted(2)]
    found = train_together(calls)
    assert isinstance(found[1], DivergedError)
    assert str(found[1]) == str(raised(calls[1]))  # traced to the same step and examples
    assert "run 1 of those trained together: DivergedError" in warnings_in(caplog)
    for index in (0, 2):
        assert_near(found[index], calls[index](), 5e-6, 3)


def test_what_differs_in_architecture_or_recipe_is_a_stack_of_its_own() -> None:
    """Two and two, and one that is like nobody: to the bits that it has alone."""
    calls = [
        fitted(0),
        fitted(1, model="convnet-2"),
        fitted(2),
        fitted(3, model="convnet-2"),
        fitted(4, recipe=short(weight_decay=0.1)),
    ]
    found = train_together(calls)
    for index in range(4):
        assert_near(found[index], calls[index](), 5e-6, 2)
    assert isinstance(found[4], Run)
    assert_same_run(found[4], calls[4]())


@pytest.mark.parametrize(
    ("model", "why"), [(problems.Dropout, "RuntimeError: vmap"), (Counting, "stacked, the seen of Counting")]
)
def test_models_that_cannot_be_stacked_take_turns_to_the_same_bits(
    model: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    calls = [fitted(seed, model=model) for seed in range(3)]
    found = train_together(calls)
    assert f"3 runs are trained in turns, not as one stack: {why}" in warnings_in(caplog)
    for run, call in zip(found, calls, strict=True):
        assert isinstance(run, Run)
        assert run.environment["replicas"] == 1
        assert_same_run(run, call())


def test_a_failure_of_the_joint_step_is_every_runs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    found = train_together([fitted(seed, model=Heavy) for seed in range(2)])
    assert [type(error) for error in found] == [torch.OutOfMemoryError] * 2


def interrupted_at(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Ctrl-C in the joint step number `steps`, counted from 0; it comes in the main thread."""
    original, taken = Stack.learn, 0

    def learn(self: Stack, *arguments: Any) -> Any:
        nonlocal taken
        assert threading.current_thread() is threading.main_thread()
        taken += 1
        if taken > steps:
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(Stack, "learn", learn)


@pytest.mark.usefixtures("checkpoint_every_epoch")
def test_interrupted_together_each_goes_on_together_or_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(seed: int, out: Path | None) -> Call:
        return fitted(seed, out=out)

    folders = [tmp_path / str(seed) for seed in range(4)]
    calls = [call(seed, folder) for seed, folder in enumerate(folders)]
    before = threading.active_count()
    with monkeypatch.context() as patch:
        interrupted_at(patch, 13)
        with pytest.raises(KeyboardInterrupt, match=r"the first 2 epochs are kept in .*0/checkpoint.*; .*3/checkpoint"):
            train_together(calls)
    assert threading.active_count() == before
    assert all((folder / "checkpoint.safetensors").is_file() for folder in folders)
    (folders[2] / "checkpoint.safetensors").unlink()  # this one is two epochs behind and catches up first
    found = [calls[3](), *train_together(calls[:3])]
    for run, seed in zip(found, (3, 0, 1, 2), strict=True):
        assert isinstance(run, Run)
        assert_near(run, call(seed, None)(), 5e-6, run.environment["replicas"])
        assert sorted(path.name for path in folders[seed].iterdir()) == ["model.safetensors", "record.json"]
    assert [run.environment["replicas"] for run in found if isinstance(run, Run)] == [1, 3, 3, 3]
    loaded = train_together(calls)
    assert [run.spec.seed for run in loaded if isinstance(run, Run)] == [0, 1, 2, 3]


@pytest.mark.usefixtures("checkpoint_every_epoch")
def test_a_checkpoint_of_a_run_alone_is_gone_on_with_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, taken = TrainStep.__call__, 0

    def step(self: TrainStep, *arguments: Any) -> Any:
        nonlocal taken
        taken += 1
        if taken > 11:
            raise KeyboardInterrupt
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "__call__", step)
        with pytest.raises(KeyboardInterrupt):
            fitted(0, out=tmp_path)()
    for found, call in zip(train_together([fitted(0, out=tmp_path), fitted(1)]), [fitted(0), fitted(1)], strict=True):
        assert_near(found, call(), 5e-6, 2)


def test_the_caller_keeps_random_numbers_threads_and_memory() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    found = train_together([fitted(seed, threads=1) for seed in range(2)])
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    for run in found:
        assert isinstance(run, Run)
        for value in run.model.state_dict().values():
            assert value.untyped_storage().nbytes() == value.numel() * value.element_size()
        assert run.model.features[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_runs_share_what_is_resident() -> None:
    assert on_device(TRAIN) is on_device(TRAIN, "cpu")
    assert on_device(TRAIN) is not on_device(VAL)


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(InputError, match="calls must be a list with at least one function"):
        train_together([])
    nested = train_together([lambda: train_together([lambda: 1])])
    assert isinstance(nested[0], InputError)
    assert "must not be called by a run" in str(nested[0])


def test_a_fit_of_its_own_within_a_call() -> None:
    """A teacher and its student in one call: the others wait for them at no cost to their numbers."""

    def both(seed: int) -> Call:
        def call() -> Run:
            teacher = fitted(seed)()
            return rd.distill(teacher, "convnet-4", TRAIN, VAL, seed=seed, recipe=short(), views="off", progress=False)

        return call

    calls = [both(0), fitted(5), both(1)]
    for found, call in zip(train_together(calls), calls, strict=True):
        wanted = call()
        assert isinstance(found, Run)
        assert_near(found, wanted, 5e-6, found.environment["replicas"])


def test_threads_end_with_the_last_run(caplog: pytest.LogCaptureFixture) -> None:
    before = threading.active_count()
    with caplog.at_level(logging.INFO):
        train_together([fitted(0, progress=True), fitted(1, progress=True)])
    assert "2 runs are trained as one stack of models" in caplog.text
    assert caplog.text.count("convnet-4 robust: epoch 5 of 5") == 1  # the first run speaks for all
    assert threading.active_count() == before
    assert getattr(replicas._here, "replica", None) is None
