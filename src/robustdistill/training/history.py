"""The record of an epoch, and what is noticed in it."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

from robustdistill.errors import DivergedError
from robustdistill.metrics import Scores
from robustdistill.multipliers import ClassMultipliers
from robustdistill.training.recipe import Recipe

logger = logging.getLogger(__name__)

RUNAWAY = 0.9  # The share of λ above which one class has all the say.


def epoch_record(
    epoch: int, *, loss: float, rate: float, scores: Scores, multipliers: ClassMultipliers, seconds: float
) -> dict[str, Any]:
    """One entry of `Run.history`; `epoch` is counted from 0 here and from 1 in the record."""
    moving = multipliers.objective.needs_multipliers
    return {
        "epoch": epoch + 1,
        "loss": loss,
        "learning_rate": rate,
        "worst_class": scores.worst_class,
        "balanced": scores.balanced,
        "standard": scores.standard,
        "multipliers": multipliers.weights.tolist() if moving else None,
        "class_weights": multipliers.class_weights.tolist(),
        "seconds": round(seconds, 3),
    }


def check_loss(loss: float, epoch: int, recipe: Recipe, saved: Path | None) -> None:
    """Raises DivergedError, which says what to lower, where an epoch's mean loss is not finite."""
    if math.isfinite(loss):
        return
    kept = f"; the last good state is kept in {saved}" if saved is not None and saved.is_file() else ""
    raise DivergedError(
        f"training diverged: the mean loss of epoch {epoch + 1} is {loss}; lower learning_rate (now"
        f" {recipe.learning_rate:g}), or lengthen warmup_epochs (now {recipe.warmup_epochs}){kept}"
    )


def warn_of_runaway(multipliers: ClassMultipliers, class_names: tuple[str, ...]) -> None:
    """Says so where one class holds nearly all of λ at the end of training."""
    share, index = (float(value) for value in multipliers.weights.max(dim=0))
    if share > RUNAWAY:
        logger.warning(
            "one multiplier holds %.0f %% of the weight (class %r), and the other classes are nearly given up;"
            " lower step_size (now %g), or set decay (such as 0.05) to bound how far multipliers part",
            100 * share,
            class_names[int(index)],
            multipliers.step_size,
        )
