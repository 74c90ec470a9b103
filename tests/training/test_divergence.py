"""What is not finite ends a training at once, is traced to its step and examples, and no step waits for the device."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import robustdistill as rd
from data.official import imagenet_files, write_tree
from robustdistill.data import load
from robustdistill.data.batches import DeviceExamples
from robustdistill.data.splits import Examples
from robustdistill.data.stream import StreamedExamples
from robustdistill.errors import DivergedError, InputError
from robustdistill.multipliers import ClassMultipliers
from robustdistill.training import checkpoint
from robustdistill.training.recipe import Recipe
from robustdistill.training.step import TrainStep
from training import problems
from training.problems import picture_splits, short

BAD = 50.0  # A feature that no other example has.


class Allergic(nn.Module):
    """Breaks on a feature or pixel of at least BAD, on that example alone, and only while it is trained."""

    def __init__(self, inputs: int = 4, classes: int = 3, symptom: float = float("nan")) -> None:
        super().__init__()
        self.body, self.symptom = nn.Linear(inputs, classes), symptom

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        bad = (x.amax(dim=1, keepdim=True) >= BAD) & self.training
        return self.body(x) + torch.where(bad, self.symptom, 0.0)


def tainted(*ids: int) -> Examples:
    """A table in which the examples with `ids` have a feature that `Allergic` does not bear."""
    data = problems.tabular()
    inputs = data.inputs.copy()
    inputs[np.isin(data.ids, ids), 0] = BAD
    return replace(data, inputs=inputs)


def fitted(model: Any, train: Examples, val: Examples | None = None, **settings: Any) -> rd.Run:
    settings = {"objective": "robust", "recipe": short(), "seed": 3, "progress": False, **settings}
    return rd.fit(model, train, val or problems.tabular(name="val"), **settings)


def diverged(*arguments: Any, **settings: Any) -> DivergedError:
    with pytest.raises(DivergedError) as caught:
        fitted(*arguments, **settings)
    return caught.value


def first_step_with(data: Examples, ids: tuple[int, ...], recipe: Recipe, seed: int) -> tuple[int, list[int]]:
    """The step, from 1, of the first epoch that shows one of `ids`, and which of them it shows."""
    for step, batch in enumerate(DeviceExamples(data).epoch(recipe.batch_size, seed=seed, epoch=0), start=1):
        if shown := sorted(set(data.ids[batch.positions.numpy()]) & set(ids)):
            return step, shown
    raise AssertionError(ids)


@contextmanager
def counted_steps() -> Iterator[list[int]]:
    done: list[int] = []
    original = TrainStep.__call__

    def step(self: TrainStep, *arguments: Any) -> Tensor:
        done.append(self.count + 1)
        return original(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainStep, "__call__", step)
        yield done


# ---- traced


@pytest.mark.parametrize("seed", [3, 4, 5])
@pytest.mark.parametrize("objective", ["standard", "robust"])
def test_the_first_bad_step_and_its_examples_are_named(objective: str, seed: int) -> None:
    ids, recipe = (103, 111, 140), short(every=2)
    data = tainted(*ids)
    step, shown = first_step_with(data, ids, recipe, seed)
    with counted_steps() as done:
        error = diverged(Allergic(), data, objective=objective, recipe=recipe, seed=seed)
    assert (error.epoch, error.step, list(error.ids)) == (1, step, shown)
    assert re.search(rf"step {step} \(epoch 1\) is not finite for {len(shown)} of its 8 examples: id", str(error))
    assert all(str(one) in str(error) for one in shown)
    last = 6 if objective == "standard" else step + step % 2  # 43 examples make six steps
    assert done == list(range(1, last + 1)), "noticed at the end of the epoch, or at the next update"


@pytest.mark.parametrize("symptom", [float("inf"), float("-inf"), float("nan")])
def test_every_kind_of_not_finite_is_caught(symptom: float) -> None:
    assert diverged(Allergic(symptom=symptom), tainted(120), objective="standard").ids == (120,)


def test_weights_that_broke_are_traced_to_the_step_before() -> None:
    data, recipe = problems.tabular(), short(learning_rate=1e38, warmup_epochs=0, every=100)
    data = replace(data, inputs=data.inputs * 1e3)
    error = diverged(nn.Linear(4, 3), data, objective="standard", recipe=recipe)
    batches = list(DeviceExamples(data).epoch(8, seed=3, epoch=0))
    assert error.step is not None
    assert error.step > 1
    assert list(error.ids) == sorted(data.ids[batches[error.step - 1].positions.numpy()])
    before = sorted(data.ids[batches[error.step - 2].positions.numpy()])
    assert f"the step before, whose examples were ids {', '.join(map(str, before))};" in str(error)


def test_weights_that_broke_in_the_last_step_before_an_update() -> None:
    """The loss of that step was finite; validation sees the weights."""
    data = replace(problems.tabular(), inputs=problems.tabular().inputs * 1e3)
    recipe = short(learning_rate=1e38, warmup_epochs=0, every=1)
    error = diverged(nn.Linear(4, 3), data, data, recipe=recipe)
    first = next(DeviceExamples(data).epoch(8, seed=3, epoch=0))
    assert (error.step, list(error.ids)) == (1, sorted(data.ids[first.positions.numpy()]))
    assert re.search(r"validation logits or risks are not finite after step 1 \(epoch 1\).*learning_rate", str(error))


class Steep(nn.Module):
    """Sure of the wrong class: each loss is finite, their sum is not."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + torch.tensor([0.0, 0.0, 2e38])


def test_a_sum_that_overflows_is_told_apart() -> None:
    error = diverged(Steep(), problems.tabular(), objective="standard")
    assert (error.step, len(error.ids)) == (1, 8)
    assert "though that of each example is: their sum overflows" in str(error)


def test_targets_that_are_not_finite_are_named() -> None:
    """A teacher that breaks on an augmented view of one picture, and on no clean one."""
    train, val = picture_splits(pad=1)

    class Teacher(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits = x.flatten(1)[:, :3]
            moved = (x[:, 0, 0] == x[:, 0, 0, :1]).all(dim=1)  # a padded row on top
            return torch.where(moved[:, None], torch.nan, logits)

    with pytest.raises(DivergedError, match=r"; the targets of ids? \d+.* are not finite") as caught:
        rd.distill(
            Teacher(), "convnet-4", train, val, recipe=short(), seed=1, progress=False, objective="standard",
            validation_labels="one-hot", teacher_precision="float32",
        )  # fmt: skip
    assert set(caught.value.ids) <= set(train.ids.tolist())


def test_groups_are_traced_alike() -> None:
    ids = (103, 111)
    data = tainted(*ids).with_groups(np.tile(["left", "right"], 22)[:43])
    val = problems.tabular(name="val").with_groups(np.tile(["left", "right"], 22)[:43])
    step, shown = first_step_with(data, ids, short(), 3)
    error = diverged(Allergic(), data, val, groups="group")
    assert (error.step, list(error.ids)) == (step, shown)


def test_streamed_pictures_are_traced_alike(tmp_path: Path) -> None:
    write_tree(tmp_path / "imagenet", imagenet_files(train_each=7))
    data = load("imagenet", tmp_path, verify=False, image_size=24)
    batch = next(iter(StreamedExamples(data.train, workers=0).epoch(8, seed=3, epoch=0)))
    brightest = batch.inputs.flatten(1).amax(dim=1)

    class Glared(nn.Module):
        """Breaks on the brightest picture of the first batch."""

        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(3 * 24 * 24, len(data.class_names))

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1)
            return self.body(x / 100) + torch.where(x.amax(dim=1, keepdim=True) >= brightest.max(), torch.nan, 0.0)

    error = diverged(Glared, data.train, data.val, objective="standard", recipe=short(every=1))
    expected = data.train.ids[batch.positions[brightest == brightest.max()].numpy()]
    assert error.step == 1
    assert set(expected.tolist()) <= set(error.ids)
    assert len(error.ids) < 8


def test_a_buffer_that_overflows_unseen_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch norm divides an overflown variance away: losses and logits stay finite, the statistics do not."""
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", -1.0)
    data = replace(problems.tabular(), inputs=problems.tabular().inputs * np.float32(1e25))
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    error = diverged(model, data, data, out=tmp_path)
    assert "'1.running_var' is not finite after step 6 (epoch 1)" in str(error)
    assert not list(tmp_path.glob("checkpoint*"))


def test_what_was_not_finite_before_may_stay_so() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(4, 3)
            self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x)

    assert len(fitted(Masked, problems.tabular()).history) == 5


def test_the_error_survives_a_pickle() -> None:
    """Workers of a grid hand it over so."""
    error = pickle.loads(pickle.dumps(DivergedError("it did", epoch=2, step=7, ids=[1, 2])))
    assert (str(error), error.epoch, error.step, error.ids) == ("it did", 2, 7, (1, 2))


# ---- kept


class LateAllergy(Allergic):
    """From its second epoch of six steps on."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return super().forward(x) if self.calls > 6 else self.body(x.flatten(1))


def test_the_last_good_state_is_kept_and_diverges_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", -1.0)
    path = tmp_path / checkpoint.CHECKPOINT
    first = diverged(LateAllergy, tainted(103, 111), out=tmp_path)
    assert first.epoch == 2
    assert f"the last good state is kept in {path}" in str(first)
    kept = path.read_bytes()
    with safe_open(path, framework="pt") as file:
        assert all(bool(file.get_tensor(name).double().isfinite().all()) for name in file.keys())  # noqa: SIM118
    LateAllergy.calls = 6  # the process that goes on from the checkpoint has not seen the first epoch
    again = diverged(LateAllergy, tainted(103, 111), out=tmp_path)
    LateAllergy.calls = 0
    assert (str(again), again.step, again.ids) == (str(first), first.step, first.ids)
    assert path.read_bytes() == kept
    assert not (tmp_path / "record.json").exists()


# ---- no step waits


class Waits(TorchDispatchMode):
    """Notes every operation that makes the host wait for a device: those that read a value, or whose size is one."""

    KINDS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique", "bincount")

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        self.events = events

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), settings: Any = None) -> Any:
        name = operation.overloadpacket.__name__
        index = arguments[1] if name == "index" else []
        if name in self.KINDS or any(one is not None and one.dtype == torch.bool for one in index):
            self.events.append("wait")
        return operation(*arguments, **(settings or {}))


HANDS_OVER = ("tolist", "cpu", "numpy", "item")


def events_of(train: Examples, val: Examples, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> str:
    """What a training did, a letter each: s(tep), u(pdate) and w for a wait outside of updates and their validation."""
    events: list[str] = []

    def noting(owner: type, name: str, event: str) -> None:
        original = getattr(owner, name)

        def wrapped(self: Any, *arguments: Any) -> Any:
            found = original(self, *arguments)
            events.append(event)
            return found

        monkeypatch.setattr(owner, name, wrapped)

    for name in HANDS_OVER:  # on a CPU these pass the dispatcher by
        noting(Tensor, name, "wait")
    noting(TrainStep, "__call__", "step")
    noting(ClassMultipliers, "update", "update")
    with Waits(events):
        fitted("convnet-4" if train.inputs.dtype == np.uint8 else nn.Linear(4, 3), train, val, **settings)
    return "".join(event[0] for event in events)


@pytest.mark.parametrize("method", ["margin", "weighted"])
@pytest.mark.parametrize("groups", ["class", "group"])
def test_no_step_waits_for_the_device(groups: Any, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    train, val = (part.with_groups(part.ids % 2) for part in picture_splits(pad=1, flip=True))
    settings = {"recipe": short(epochs=2, every=2), "groups": groups, "method": method}
    said = events_of(train, val, monkeypatch, **settings)
    # 38 examples make five steps an epoch. Waits stand before an update, and between epochs, and nowhere else.
    assert re.fullmatch(r"w*ssw+u?w*ssw+uw*sw+sw+uw*ssw+uw*ssw+uw*", said), said


def test_without_multipliers_nothing_waits_within_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    said = events_of(*picture_splits(pad=1), monkeypatch, objective="standard", recipe=short(epochs=2))
    assert re.fullmatch(r"w*sssssw+sssssw+", said), said


READS = (float, bool, int, Tensor.item, Tensor.nonzero, lambda one: one[one > 0], lambda one: torch.equal(one, one))


@pytest.mark.parametrize("read", READS)
def test_the_measure_of_waits_sees_one(read: Any) -> None:
    events: list[str] = []
    with Waits(events):
        read(torch.ones(()))
    assert events


# ---- refused before the first step


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused_with_their_row(value: float, tmp_path: Path) -> None:
    inputs = problems.tabular().inputs.copy()
    inputs[7, 2] = value
    expected = r"row 7 \(id 107\) has NaN or infinity"
    with pytest.raises(InputError, match=expected):
        replace(problems.tabular(), inputs=inputs)
    with pytest.raises(InputError, match=expected):
        rd.data.from_arrays(inputs, problems.tabular().labels, ids=problems.tabular().ids)
    np.savez(tmp_path / "table.npz", train_images=inputs, train_labels=problems.tabular().labels)
    with pytest.raises(InputError, match="row 7"):
        rd.data.load(f"npz:{tmp_path / 'table.npz'}")
