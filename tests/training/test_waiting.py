"""Within an epoch nothing asks the device for a value, which would make the host wait until all before it is done.

Seen on a CPU too, where nothing waits: the operations are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import robustdistill as rd
from robustdistill import methods
from robustdistill.data.batches import Batch, DeviceExamples
from robustdistill.methods.margin import Margin
from robustdistill.training.run import Run
from robustdistill.training.validation import Validation
from training.problems import picture_splits, short

# Operations whose result is a number on the host, or has a size that the values decide.
WAITING = ("_local_scalar_dense", "nonzero", "unique", "masked_select", "equal.default")


class Watch(TorchDispatchMode):
    """What asks for values in the passes over the training set, and apart from it what does in between, for λ."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.training = self.updating = False
        self.steps, self.waited, self.for_multipliers = 0, list[str](), list[str]()
        epoch, risks = DeviceExamples.epoch, Validation.risks

        def watched_epoch(data: DeviceExamples, *args: Any, **settings: Any) -> Iterator[Batch]:
            for batch in epoch(data, *args, **settings):
                self.training, self.updating = True, False
                self.steps += 1
                yield batch
            self.training = False

        def watched_risks(*args: Any) -> Any:
            self.updating = True  # until the next batch: what is done with the risks belongs to it
            return risks(*args)

        monkeypatch.setattr(DeviceExamples, "epoch", watched_epoch)
        monkeypatch.setattr(Validation, "risks", watched_risks)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        by_mask = "aten.index" in str(func) and any(
            isinstance(leaf, Tensor) and leaf.dtype == torch.bool for leaf in tree_leaves(args[1:2])
        )
        if self.training and (by_mask or any(word in str(func) for word in WAITING)):
            (self.for_multipliers if self.updating else self.waited).append(str(func))
        return func(*args, **(kwargs or {}))


def trained(method: str | methods.Method = "margin", **settings: Any) -> Run:
    settings = {"recipe": short(epochs=2, milestones=()), "progress": False, **settings}
    return rd.fit("resnet8", *picture_splits(flip=True), method=method, **settings)


WITHOUT_TEACHER = [name for name, kind in methods.known().items() if not kind.needs_teacher]


@pytest.mark.parametrize(
    ("method", "precision"), [*((name, "float32") for name in WITHOUT_TEACHER), ("margin", "bfloat16")]
)
def test_an_epoch_on_labels(method: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objective = "robust" if methods.known()[method].uses_costs else "standard"
    recipe = short(epochs=2, milestones=(), precision=precision)
    with Watch(monkeypatch) as watch:
        trained(method, objective=objective, recipe=recipe)
    assert (watch.steps, watch.waited) == (10, [])
    if objective == "robust":
        assert len(watch.for_multipliers) >= 3  # the check of the risks, at each of three updates


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("objective", ["standard", "robust"])
def test_an_epoch_of_a_student(objective: str, stored: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, data = trained(seed=1), picture_splits(flip=True)
    settings: dict[str, Any] = {"recipe": short(epochs=2, milestones=()), "progress": False, "objective": objective}
    choice = tmp_path if stored else "off"
    with Watch(monkeypatch) as watch:
        rd.distill(teacher, "convnet-4", *data, views=choice, temperature=2.0, **settings)
    assert (watch.steps, watch.waited) == (10, [])


@dataclass
class Curious(Margin):
    """A method that looks at its losses."""

    name: ClassVar[str] = ""

    def loss(self, batch: Batch, outputs: Tensor, costs: Tensor) -> Tensor:
        losses = super().loss(batch, outputs, costs)
        assert float(losses.detach().sum()) >= 0
        return losses[losses >= 0]


def test_one_who_asks_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with Watch(monkeypatch) as watch:
        trained(Curious())
    assert watch.waited == ["aten._local_scalar_dense.default", "aten.index.Tensor", "aten.index_put.default"] * 10
