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
from robustdistill.training.stack import Lesson
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


def lessons(
    student: str, data: DeviceExamples, targets: Targets, batch_size: int, seed: int = 0
) -> Callable[[], Lesson]:
    """A call that gives what the student learns next; `take` has it learn that."""
    torch.manual_seed(seed)
    module = make_model(student, data)
    recipe = Recipe(batch_size=batch_size)
    step = TrainStep(
        module.train(),
        make_optimizer(module, recipe),
        methods.get("margin"),
        Processes(1, 0, data.device),
        precision="float32",
        seed=seed,
    )
    batches, costs = _batches(data, batch_size, seed), torch.ones(10, device=data.device)
    return lambda: Lesson(step, targets(next(batches)), costs)


def take(lesson: Lesson) -> object:
    """One optimiser step."""
    return lesson.step(lesson.batch, lesson.costs)


def _batches(data: DeviceExamples, batch_size: int, seed: int = 0) -> Iterator[Batch]:
    """Whole batches of the same epoch over and over, so that they can be met before."""
    while True:
        yield from islice(data.epoch(batch_size, seed=seed, epoch=0), len(data) // batch_size)


def ours_without_teacher(student: str, train: Examples, batch_size: int) -> Callable[[], object]:
    """A call that takes the next training step on labels."""
    (lesson,) = replicas_without_teacher(student, train, batch_size, 1)
    return lambda: take(lesson())


def replicas_without_teacher(
    student: str, train: Examples, batch_size: int, count: int, device: str = "cpu"
) -> list[Callable[[], Lesson]]:
    """`lessons` of `count` runs on labels, of one seed each."""
    data, targets = DeviceExamples(train, device), OneHotTargets()
    targets.prepare(data, DeviceExamples(examples(64, seed=1), device))
    return [lessons(student, data, targets, batch_size, seed) for seed in range(count)]


def ours_with_teacher(
    student: str, teacher: str, train: Examples, batch_size: int, folder: str
) -> tuple[Callable[[], object], Views]:
    """A call that takes the next training step of a student whose teacher's views are all stored."""
    data, targets, views = stored_teacher(teacher, train, batch_size, folder)
    lesson = lessons(student, data, targets, batch_size)
    return lambda: take(lesson()), views


def stored_teacher(
    teacher: str, train: Examples, batch_size: int, folder: str, *, replicas: int = 1, device: str = "cpu"
) -> tuple[DeviceExamples, TeacherTargets, Views]:
    """Data on the device and targets of a teacher whose views are stored, all those that `replicas` runs will see."""
    torch.manual_seed(1)
    frozen = models.build(teacher, num_classes=10, in_channels=3).to(memory_format=torch.channels_last)
    identity = Distillation(teacher="noise", teacher_model=teacher, temperature=2.0, teacher_precision="float16")
    targets = TeacherTargets(frozen, identity, "one-hot", folder)
    data = DeviceExamples(train, device)
    targets.prepare(data, DeviceExamples(examples(64, seed=1), device))
    views = targets.members[0].views
    assert views is not None
    for seed in range(replicas):
        for batch in islice(_batches(data, batch_size, seed), len(train) // batch_size):
            targets(batch)
    return data, targets, views
