"""What people run today: a DataLoader with PIL transforms, the default memory layout, and the teacher at every step.

The transforms are those of torchvision, written with PIL alone: pad, crop, flip, to a tensor, normalise. What is not
PyTorch's own (the loss, the multipliers) is taken from the package, as a loop of one's own would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import robustdistill as rd
from robustdistill import models
from robustdistill.data.splits import Examples
from robustdistill.training.recipe import Recipe
from robustdistill.training.schedule import learning_rate

Loader = DataLoader[tuple[Tensor, Tensor]]


class Pictures(Dataset[tuple[Tensor, int]]):
    """(channels, H, W) float32 and a label; cut and mirrored at random where `augment`, as the data say."""

    def __init__(self, data: Examples, *, augment: bool = True) -> None:
        self.data, self.augment = data, augment
        self.mean, self.std = (
            torch.tensor(values)[:, None, None] for values in (data.preprocessing.mean, data.preprocessing.std)
        )

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = self.data.inputs[index]
        picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
        if self.augment:
            pad, (width, height) = self.data.preprocessing.pad, picture.size
            picture = ImageOps.expand(picture, border=pad)
            top, left, flip = (int(torch.randint(high, ())) for high in (2 * pad + 1, 2 * pad + 1, 2))
            picture = picture.crop((left, top, left + width, top + height))
            if flip and self.data.preprocessing.flip:
                picture = ImageOps.mirror(picture)
        array = np.array(picture)
        array = array if array.ndim == 3 else array[..., None]
        tensor = torch.from_numpy(array).permute(2, 0, 1).contiguous().float().div(255)
        return (tensor - self.mean) / self.std, int(self.data.require_labels()[index])


def forever(loader: Loader) -> Iterator[tuple[Tensor, Tensor]]:
    """Its batches, one epoch after the other."""
    while True:
        yield from loader


def train(
    name: str,
    objective: str,
    splits: Any,
    recipe: Recipe,
    *,
    seed: int,
    teacher: nn.Module | None = None,
    temperature: float = 1.0,
    workers: int = 0,
) -> nn.Module:
    """Trains a model of its own with loaders of its own: a teacher on labels, a student on the teacher it is given."""
    torch.manual_seed(seed)
    model = models.build(name, num_classes=splits.train.num_classes, in_channels=splits.train.channels)
    loader, held_out = (
        DataLoader(Pictures(part, augment=augment), recipe.batch_size, shuffle=augment, num_workers=workers)
        for part, augment in ((splits.train, True), (splits.val, False))
    )
    optimizer = torch.optim.SGD(
        model.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    ask = _labels if teacher is None else _teacher(teacher, temperature)
    multipliers = rd.ClassMultipliers(objective, _priors(ask, splits, workers), step_size=recipe.step_size)
    steps = 0
    for epoch in range(recipe.epochs):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, epoch)
        model.train()
        for inputs, labels in loader:
            loss = rd.losses.margin_loss(model(inputs), ask(inputs, labels), multipliers.costs).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            steps += 1
            if steps % recipe.every == 0 and multipliers.objective.needs_multipliers:
                multipliers.update(_risks(model, held_out, ask))
                model.train()
        _risks(model, held_out, _labels)
    return model


def evaluate(model: nn.Module, part: Examples, batch_size: int, workers: int = 0) -> Tensor:
    """(C,) errors by class."""
    return _risks(model, DataLoader(Pictures(part, augment=False), batch_size, num_workers=workers), _labels).values


def _labels(inputs: Tensor, labels: Tensor) -> Tensor:
    return labels


def _teacher(teacher: nn.Module, temperature: float) -> Callable[[Tensor, Tensor], Tensor]:
    teacher.eval()

    @torch.no_grad()
    def ask(inputs: Tensor, labels: Tensor) -> Tensor:
        return torch.softmax(teacher(inputs) / temperature, dim=1)

    return ask


def _priors(ask: Callable[[Tensor, Tensor], Tensor], splits: Any, workers: int) -> Tensor:
    """(C,) the mean of the targets over the clean training pictures."""
    if ask is _labels:
        return torch.from_numpy(splits.train.class_counts)
    loader: Loader = DataLoader(Pictures(splits.train, augment=False), 256, num_workers=workers)
    return torch.cat([ask(inputs, labels) for inputs, labels in loader]).double().mean(dim=0)


@torch.no_grad()
def _risks(model: nn.Module, loader: Loader, ask: Callable[[Tensor, Tensor], Tensor]) -> rd.Risks:
    model.eval()
    parts = [rd.risks.class_risks(model(inputs), ask(inputs, labels)) for inputs, labels in loader]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
