"""Tiny problems with known answers, and models for them that a "module:callable" can name."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from robustdistill.data.splits import Examples, Preprocessing
from robustdistill.training.recipe import Recipe
from robustdistill.training.run import Run

NAMES = ("ant", "bee", "cat", "dog")

# 4 instances × 3 classes: how often each label was seen with each instance. Class masses are 16, 14 and 13.
COUNTS = np.array([[8, 2, 2], [2, 6, 2], [5, 3, 1], [1, 3, 8]])

# Every step sees all examples, so that there is no noise to average out.
FULL_BATCH = Recipe(epochs=400, batch_size=1000, learning_rate=2.0, weight_decay=0.0, every=1, step_size=0.05)


def tabular(counts: np.ndarray = COUNTS, name: str = "table") -> Examples:
    """One-hot features of instance x with label y, counts[x, y] times: the empirical distribution is the true one."""
    instances, labels = (np.repeat(index.ravel(), counts.ravel()) for index in np.indices(counts.shape))
    features = np.eye(len(counts), dtype=np.float32)[instances]
    names = NAMES[: counts.shape[1]]
    return Examples(features, labels.astype(np.int64), np.arange(len(labels)) + 100, names, name=name)


def table_model(counts: np.ndarray = COUNTS) -> nn.Linear:
    """A free scorer f (instances, C): one weight for each instance and class."""
    model = nn.Linear(*counts.shape, bias=False)
    nn.init.normal_(model.weight, generator=torch.Generator().manual_seed(0))
    return model


def scorer(run: Run) -> np.ndarray:
    """(instances, C) log-probabilities of a fitted `table_model`, float64."""
    f = run.model.weight.detach().double().T
    return torch.log_softmax(f, dim=1).numpy()


def class_cross_entropies(log_probabilities: np.ndarray, counts: np.ndarray = COUNTS) -> np.ndarray:
    """(C,) the mean cross-entropy on the examples of each class."""
    return -(counts * log_probabilities).sum(axis=0) / counts.sum(axis=0)


def exact_optimum(counts: np.ndarray = COUNTS, robustness: float = 1.0) -> float:
    """The smallest (1 − α)·mean_y R_y + α·max_y R_y over all scorers: a solver's min of (1 − α)·… + α·t, R ≤ t."""
    size = counts.size

    def risks(z: np.ndarray) -> np.ndarray:
        f = z[:size].reshape(counts.shape)
        return class_cross_entropies(f - np.log(np.exp(f).sum(axis=1, keepdims=True)), counts)

    solution = minimize(
        lambda z: (1 - robustness) * risks(z).mean() + robustness * z[-1],
        np.append(np.zeros(size), 2.0),
        constraints={"type": "ineq", "fun": lambda z: z[-1] - risks(z)},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 1000},
    )
    assert solution.success
    return float(solution.fun)


def pictures(
    name: str = "toy/train", per_class: tuple[int, ...] = (20, 12, 6), seed: int = 0, pad: int = 1, flip: bool = False
) -> Examples:
    """6x6 grey pictures with a bright bar whose place says the class, in noise; ids start at 1000 and have gaps."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(per_class)), per_class)).astype(np.int64)
    inputs = rng.integers(0, 140, (len(labels), 6, 6, 1))
    inputs[np.arange(len(labels)), :, 2 * labels] += 80
    return Examples(
        inputs.astype(np.uint8),
        labels,
        1000 + 7 * np.arange(len(labels)),
        NAMES[: len(per_class)],
        Preprocessing((0.3,), (0.25,), pad, flip),
        name,
        {"name": "toy"},
    )


def picture_splits(**settings: Any) -> tuple[Examples, Examples]:
    return pictures(**settings), pictures("toy/val", (10, 10, 10), seed=1, **settings)


def short(**changes: Any) -> Recipe:
    """A few steps with everything that moves: warm-up, drops, momentum, multipliers."""
    settings = {
        "epochs": 5, "batch_size": 8, "learning_rate": 0.05, "warmup_epochs": 1, "milestones": (4,), "every": 3,
    }  # fmt: skip
    return Recipe(**{**settings, **changes})


class Dropout(nn.Sequential):
    """Draws from torch's global generator at every training step."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(36, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))


def linear(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))


def narrow(num_classes: int, in_channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.Flatten(), nn.Linear(64, num_classes))


def any_keyword(**settings: int) -> nn.Module:
    module = nn.Identity()
    module.settings = settings
    return module


def two_classes() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 2))


def no_module() -> int:
    return 3


not_callable = 7


class Teachers:
    """Where a test leaves the module that "training.problems:stored_teacher" is to find."""

    module: nn.Module | None = None


def stored_teacher() -> nn.Module:
    assert Teachers.module is not None
    return Teachers.module


def history_of(run: Run) -> list[dict[str, Any]]:
    """Everything but the time it took."""
    return [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in run.history]


def assert_same_weights(first: nn.Module, second: nn.Module) -> None:
    ours, theirs = first.state_dict(), second.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def assert_same_run(first: Run, second: Run) -> None:
    """Bit for bit: weights, history, multipliers, spec."""
    assert first.spec.hash == second.spec.hash
    assert_same_weights(first.model, second.model)
    assert history_of(first) == history_of(second)
    assert torch.equal(first.multipliers.weights, second.multipliers.weights)
    assert torch.equal(first.multipliers.priors, second.multipliers.priors)
    assert first.multipliers.updates == second.multipliers.updates


def warnings_in(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(entry.getMessage() for entry in caplog.records if entry.levelno >= logging.WARNING)
