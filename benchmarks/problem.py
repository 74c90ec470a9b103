"""Made-up pictures of CIFAR-10's shape, and our steps over them, as `fit` and `distill` take them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import torch

from robustdistill import methods, models
from robustdistill.data.batches import Batch, DeviceExamples
from robustdistill.data.splits import Examples, Preprocessing
from robustdistill.training.processes import Processes
from robustdistill.training.recipe import Recipe
from robustdistill.training.setup import make_model, make_optimizer
from robustdistill.training.spec import Distillation
from robustdistill.training.step import TrainStep
from robustdistill.training.targets import OneHotTargets, Targets, TeacherTargets
from robustdistill.training.views import Views

logging.getLogger("robustdistill").setLevel(logging.ERROR)  # a teacher of noise is near chance, and is meant to be

CIFAR = Preprocessing(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616), pad=4, flip=True)


def examples(count: int, seed: int = 0) -> Examples:
    """Noise, 32x32 in colour, of ten classes."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    names = tuple(f"class {index}" for index in range(10))
    return Examples(pixels, np.arange(count) % 10, np.arange(count), names, CIFAR, f"noise {seed}")


def _stepper(student: str, data: DeviceExamples, targets: Targets, batch_size: int) -> Callable[[], object]:
    torch.manual_seed(0)
    module = make_model(student, data)
    recipe = Recipe(batch_size=batch_size)
    step = TrainStep(
        module.train(),
        make_optimizer(module, recipe),
        methods.get("margin"),
        Processes(1, 0, torch.device("cpu")),
        precision="float32",
        seed=0,
    )
    batches, costs = _batches(data, batch_size), torch.ones(10)
    return lambda: step(targets(next(batches)), costs)


def _batches(data: DeviceExamples, batch_size: int) -> Iterator[Batch]:
    """Whole batches of the same few epochs over and over, so that they can be met before."""
    while True:
        yield from islice(data.epoch(batch_size, seed=0, epoch=0), len(data) // batch_size)


def ours_without_teacher(student: str, train: Examples, batch_size: int) -> Callable[[], object]:
    """A call that takes the next training step on labels."""
    data, targets = DeviceExamples(train), OneHotTargets()
    targets.prepare(data, DeviceExamples(examples(64, seed=1)))
    return _stepper(student, data, targets, batch_size)


def ours_with_teacher(
    student: str, teacher: str, train: Examples, batch_size: int, folder: str
) -> tuple[Callable[[], object], Views]:
    """A call that takes the next training step of a student whose teacher's views are all stored."""
    torch.manual_seed(1)
    frozen = models.build(teacher, num_classes=10, in_channels=3).to(memory_format=torch.channels_last)
    identity = Distillation(teacher="noise", teacher_model=teacher, temperature=2.0, teacher_precision="float16")
    targets = TeacherTargets(frozen, identity, "one-hot", folder)
    data = DeviceExamples(train)
    targets.prepare(data, DeviceExamples(examples(64, seed=1)))
    views = targets.members[0].views
    assert views is not None
    for batch in islice(_batches(data, batch_size), len(train) // batch_size):
        targets(batch)
    return _stepper(student, data, targets, batch_size), views
