"""The learning rate of each epoch."""

from __future__ import annotations

import math

from robustdistill.training.recipe import Recipe


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """The rate at which `epoch`, counted from 0, is trained.

    Epoch i of the warm-up runs at (i + 1) / warmup_epochs of the base rate; a drop applies once its milestone's epochs
    are completed; cosine annealing starts where the warm-up ends.

    >>> recipe = Recipe(epochs=10, learning_rate=1.0, warmup_epochs=2, milestones=(5,))
    >>> [learning_rate(recipe, epoch) for epoch in (0, 1, 4, 5)]
    [0.5, 1.0, 1.0, 0.1]
    """
    warmup = min(1.0, (epoch + 1) / recipe.warmup_epochs) if recipe.warmup_epochs else 1.0
    if recipe.schedule == "cosine":
        after = max(0, epoch - recipe.warmup_epochs) / max(1, recipe.epochs - recipe.warmup_epochs)
        return recipe.learning_rate * warmup * (1 + math.cos(math.pi * after)) / 2
    return recipe.learning_rate * warmup * recipe.drop ** sum(epoch >= milestone for milestone in recipe.milestones)
