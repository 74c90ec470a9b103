"""Small runs to export: trained for an epoch or two on pictures or features that are made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import robustdistill as rd
from robustdistill.data.splits import Examples, Preprocessing
from robustdistill.training.run import Run

NAMES = ("cat", "dog", "ship")
RECIPE = rd.Recipe(epochs=2, batch_size=16, every=2, learning_rate=0.05)


class TwoHeads(nn.Module):
    """Its last layer is applied twice, so that its bias counts twice."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(48 * in_channels, num_classes), nn.ReLU())
        self.head = nn.Linear(num_classes, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.head(self.body(x)))
        return out


class Tabular(nn.Module):
    """For five features; without a bias at the end, or with one."""

    def __init__(self, num_classes: int, bias: bool = True) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, num_classes, bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class NoBias(Tabular):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, bias=False)


class InPlace(Tabular):
    """What it returns is its last layer's output, but twice as large."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mul_(2)


class Decides(Tabular):
    """Looks at the values: no graph holds that."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > 0 else super().forward(-x)


class Remembers(Tabular):
    """What a graph has of it is not what it gives: it answers by the size of the batch when it was written."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out + 1.0 if torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export() else out


def pictures(count: int = 60, channels: int = 3, seed: int = 0, names: tuple[str, ...] = NAMES) -> Examples:
    """(count, 6, 8, channels) noise; the label is the brightest third of the picture."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(names)
    inputs = rng.integers(0, 256, (count, 6, 8, channels), dtype=np.uint8)
    for row, label in enumerate(labels):
        inputs[row, 2 * (label % 3) : 2 * (label % 3) + 2] //= 2
    prepared = Preprocessing((0.4, 0.5, 0.6)[:channels], (0.2, 0.3, 0.1)[:channels], pad=1)
    return Examples(inputs, labels, np.arange(count) + 1000 * seed, names, prepared, name="noise/test")


def features(count: int = 60, seed: int = 0) -> Examples:
    """(count, 5) float32."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    inputs = rng.normal(size=(count, 5)).astype(np.float32) + labels[:, None].astype(np.float32)
    return Examples(inputs, labels, np.arange(count) + 1000 * seed, NAMES, name="numbers/test")


def grouped(count: int = 240, seed: int = 0, places: tuple[str, ...] = ("land", "water")) -> Examples:
    """Features with a group column: every class at both places, one in eight at the second."""
    values = np.where(np.arange(count) // len(NAMES) % 8 == 0, places[1], places[0])
    return features(count, seed).with_groups(values, places)


def trained_by_group(groups: Any = "class-group", objective: str = "robust", **settings: Any) -> Run:
    """Of a table, whose column it records, as one that is loaded from a file does."""
    train, val = (grouped(seed=seed, **settings) for seed in (1, 2))
    train = replace(train, source={"name": "parquet:birds.parquet", "group_column": "place"})
    return rd.fit(Tabular, train, val, objective=objective, groups=groups, recipe=RECIPE, threads=1)


def trained(model: Any, examples: Examples, objective: str = "robust", **settings: Any) -> Run:
    """Fitted on other examples of the same kind."""
    kind = features if examples.inputs.dtype == np.float32 else pictures
    extra = {} if kind is features else {"channels": examples.inputs.shape[-1], "names": examples.class_names}
    train, val = (kind(seed=seed, **extra) for seed in (1, 2))  # type: ignore[operator]
    return rd.fit(model, train, val, objective=objective, recipe=RECIPE, threads=1, **settings)


def shift_for(names: tuple[str, ...] = NAMES) -> rd.PostShift:
    """With its classes in another order than the runs'."""
    return rd.PostShift.from_priors({name: index + 1.0 for index, name in reversed(list(enumerate(names)))})
