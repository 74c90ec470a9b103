"""The record of an epoch, and what is noticed in the records."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from robustdistill.groups import Groups
from robustdistill.metrics import Scores
from robustdistill.multipliers import ClassMultipliers
from robustdistill.training.recipe import AUTO, Recipe

logger = logging.getLogger(__name__)

RUNAWAY = 0.9  # The share of λ above which one class has all the say.
LONG = 20  # Updates that a class gets to answer in, at least, ...
SHARE = 0.1  # ... and at least this share of the training: slow learners are many in the first epochs of hundreds.
GROWTH = 2.0  # How often its multiplier must have multiplied meanwhile: a steady one asks for nothing new.
ANSWER = 0.01  # Recall that it must have gained.


def epoch_record(
    epoch: int,
    *,
    loss: float,
    rate: float,
    scores: Scores,
    multipliers: ClassMultipliers,
    seconds: float,
    groups: Groups | None = None,
    group_scores: Scores | None = None,
) -> dict[str, Any]:
    """One entry of `Run.history`; `epoch` is counted from 0 here and from 1 in the record.

    Where there are groups, multipliers and class weights are sums over the groups of each class, none where groups do
    not refine classes, and those of the groups stand under names of their own.
    """
    moving = multipliers.objective.needs_multipliers
    if groups is not None and group_scores is not None:
        plain = epoch_record(epoch, loss=loss, rate=rate, scores=scores, multipliers=multipliers, seconds=seconds)
        renamed = {f"group_{name.removeprefix('class_')}": plain[name] for name in ("multipliers", "class_weights")}
        by_class = {name: groups.by_class(plain[name]) for name in ("multipliers", "class_weights")}
        recalls = {"worst_group": group_scores.worst_class, "group_recalls": _rounded(group_scores)}
        return {**plain, **by_class, **renamed, **recalls}
    return {
        "epoch": epoch + 1,
        "loss": loss,
        "learning_rate": rate,
        "worst_class": scores.worst_class,
        "balanced": scores.balanced,
        "standard": scores.standard,
        "recalls": _rounded(scores),
        "multipliers": multipliers.weights.tolist() if moving else None,
        "class_weights": multipliers.class_weights.tolist(),
        "seconds": round(seconds, 3),
    }


def _rounded(scores: Scores) -> list[float | None]:
    return [None if math.isnan(recall) else round(float(recall), 4) for recall in scores.per_class]


class RunawayWatch:
    """Warns, once for each class and reason, of a multiplier that has all the say or grows without an answer.

    Args:
        class_names: for messages.
        recipe: of the training.
        what: whether they are names of a "class" or of a "group".
    """

    def __init__(self, class_names: Sequence[str], recipe: Recipe, what: Literal["class", "group"] = "class") -> None:
        self.class_names, self.recipe, self.what = class_names, recipe, what
        self._said: set[tuple[int, str]] = set()

    def look(self, history: Sequence[Mapping[str, Any]], updates: int) -> None:
        """Looks at the records so far, during which the multipliers were updated `updates` times."""
        if self.what == "group":
            history = [{name: epoch[f"group_{name}"] for name in ("multipliers", "recalls")} for epoch in history]
        if not history or history[-1]["multipliers"] is None:
            return
        others = "other classes" if self.what == "class" else "other groups"
        weights = history[-1]["multipliers"]
        largest = max(range(len(weights)), key=weights.__getitem__)
        if weights[largest] > RUNAWAY:
            self._say(
                largest,
                "holds all",
                f"one multiplier holds {100 * weights[largest]:.0f} % of the weight ({self.what}"
                f" {self.class_names[largest]!r}), and the {others} are nearly given up",
            )
        elif (found := unanswered(history, largest, updates, self.recipe.epochs)) is not None:
            epochs, before, after = found
            self._say(
                largest,
                "unanswered",
                f"{self.what} {self.class_names[largest]!r} does not answer: over the last {epochs} epochs"
                f" ({epochs * updates // len(history)} updates) its multiplier grew from"
                f" {history[-1 - epochs]['multipliers'][largest]:.2g} to {weights[largest]:.2g}, and its validation"
                f" recall went from {before:.2f} to {after:.2f}",
            )

    def _say(self, index: int, reason: str, what: str) -> None:
        if (index, reason) in self._said:
            return
        self._said.add((index, reason))
        step_size, decay = self.recipe.step_size, self.recipe.decay
        bound = f"raise decay (now {decay:g})" if decay else "set decay (such as 0.03)"
        automatic = "" if {"step_size": step_size, "decay": decay} == AUTO else "; step_size='auto' does both"
        logger.warning(
            "%s; lower step_size (now %g), or %s, which bounds how far multipliers part%s",
            what,
            step_size,
            bound,
            automatic,
        )


def unanswered(
    history: Sequence[Mapping[str, Any]], index: int, updates: int, epochs: int
) -> tuple[int, float, float] | None:
    """Whether the recall of class `index` has stood still while its multiplier grew for long.

    Looked at are the epochs since the multiplier was last at 1/GROWTH of what it is, and LONG updates and SHARE of the
    training at least. The class has answered if its mean validation recall in the later half of them is ANSWER above
    that in the earlier half.

    Args:
        history: entries of `Run.history`.
        index: of the class.
        updates: of the multipliers during `history`.
        epochs: of the whole training.

    Returns:
        None if it has answered or was not asked: the multiplier has not grown so much, or not above its uniform share.
        Else the number of those epochs, and the mean recall in their earlier and later half.
    """
    weights = [epoch["multipliers"][index] for epoch in history]
    share = 1 / len(history[-1]["multipliers"])
    start = next((at for at in reversed(range(len(history))) if weights[at] * GROWTH <= weights[-1]), None)
    if updates == 0 or start is None or weights[-1] <= share:
        return None
    start = min(start, len(history) - 1 - math.ceil(max(LONG * len(history) / updates, SHARE * epochs)))
    if start < 0:
        return None
    recalls = [epoch.get("recalls", {index: None})[index] for epoch in history[start + 1 :]]
    if len(recalls) < 2 or None in recalls:
        return None
    half = len(recalls) // 2
    earlier, later = sum(recalls[:half]) / half, sum(recalls[-half:]) / half
    return (len(recalls), earlier, later) if later < earlier + ANSWER else None
