"""Which temperature a combination is reported at: one rule, on validation only.

A *combination* is a set of runs that differ only in temperatures, seeds and repeat. Its temperature is the one with the
best mean over repeats of the worst metric on validation: of the worst class or, of runs over groups, the worst group.
No test metric is looked at in the choice.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from robustdistill.errors import InputError
from robustdistill.experiments.journal import Record, SplitMetrics
from robustdistill.objectives import Objective
from robustdistill.training.spec import flat

Split = Literal["val", "test"]
Temperatures = tuple[float | None, float | None]

# What may differ between the runs of one combination.
_FREE = ("seed", "distillation.temperature", "distillation.validation_temperature")
_FREE_TEACHER = ("distillation.teacher", "distillation.teacher_seed")
_WORST = re.compile(r"worst_(class|group|(?P<k>\d+)(?P<groups>_groups)?)")


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` repeats and its standard error s/√n (s with n − 1), None for a single repeat."""

    mean: float
    error: float | None
    n: int


def estimate(values: Sequence[float]) -> Estimate | None:
    """Mean and standard error of some repeats; None where there are none."""
    n = len(values)
    if n == 0:
        return None
    mean = math.fsum(values) / n
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n) if n > 1 else None
    return Estimate(mean, error, n)


def measure(metrics: SplitMetrics, metric: str) -> float:
    """One figure in [0, 1]: "worst_class", "balanced", "standard", or "worst_K", the mean of the K lowest recalls.

    Also "worst_group" and "worst_K_groups"; NaN where there are no scores by group.

    Raises:
        InputError: the metric is none of these.
    """
    if metric in ("worst_class", "balanced", "standard"):
        return float(getattr(metrics, metric))
    k, by_group = lowest(metric)
    if not by_group:
        return metrics.scores.worst_k(k)
    if metrics.groups is None:
        return math.nan
    return float(metrics.groups.worst_group) if metric == "worst_group" else metrics.groups.scores.worst_k(k)


def lowest(metric: str) -> tuple[int, bool]:
    """Of how many of the lowest recalls a worst metric is the mean, and whether those are of groups and not classes.

    >>> [lowest(name) for name in ("worst_class", "worst_10", "worst_group", "worst_3_groups")]
    [(1, False), (10, False), (1, True), (3, True)]

    Raises:
        InputError: it is no worst metric.
    """
    match = _WORST.fullmatch(metric)
    if match is None:
        raise InputError(f"metric must be worst_class, worst_K, balanced or standard, got {metric!r}")
    by_group = metric == "worst_group" or match["groups"] is not None
    return int(match["k"] or 1), by_group


def worst_over(groups: str, worst: str) -> str:
    """The worst metric of runs over `groups`: theirs for "worst_class" is "worst_group", for "worst_3" of 3 groups."""
    if groups == "class":
        return worst
    return "worst_group" if worst == "worst_class" else f"{worst}_groups"


def metric_name(metric: str) -> str:
    """ "worst_class" -> "worst-class accuracy", for people."""
    return metric.replace("_", "-") + " accuracy"


@dataclass(frozen=True, eq=False)
class Group:
    """One combination at its chosen temperature, with its repeats.

    Attributes:
        records: the runs, by repeat.
        temperature: of the targets; None for a run without distillation.
        validation_temperature: of the teacher's labels on validation; None where it has no influence.
        candidates: every pair (temperature, validation temperature) that was compared, with its validation estimate.
        settings: the flat spec that all runs share, the teacher's included where its record is at hand.
    """

    role: str
    data: str
    model: str
    teacher_model: str | None
    teacher_objective: str | None
    student_objective: str | None
    validation_labels: str | None
    method: str
    records: tuple[Record, ...]
    temperature: float | None = None
    validation_temperature: float | None = None
    candidates: dict[Temperatures, Estimate | None] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def objective(self) -> str:
        """What these runs themselves were trained for."""
        return self.records[0].spec.objective

    @property
    def over(self) -> str:
        """What their multipliers are over, and what they are scored by: "class", "group" or "class-group"."""
        return self.records[0].spec.groups

    @property
    def robust(self) -> bool:
        """Whether the worst class (or group) has a weight in that objective."""
        return Objective.parse(self.objective).needs_multipliers

    def metrics(self, split: Split) -> list[SplitMetrics]:
        """The repeats' results on a split; those not evaluated on it are missing."""
        found = (getattr(record.metrics, split) for record in self.records)
        return [metrics for metrics in found if metrics is not None]

    def estimate(self, metric: str, split: Split) -> Estimate | None:
        """Mean and standard error over repeats; None where no repeat was evaluated on the split."""
        return estimate([measure(metrics, metric) for metrics in self.metrics(split)])


@dataclass(frozen=True)
class Selection:
    """The chosen groups, and the rule that chose them as a sentence for reports."""

    groups: tuple[Group, ...]
    rule: str
    worst: str = "worst_class"


def choose(records: Iterable[Record], worst: str = "worst_class") -> Selection:
    """Groups the records by combination and picks each combination's temperature by validation.

    Only temperatures with as many repeats as the most complete one compete: a single lucky repeat must not win. Ties go
    to the higher balanced accuracy, then to the lower temperature.

    Args:
        worst: the worst metric in use, "worst_class" or "worst_K"; of runs over groups, that of their groups.

    Raises:
        InputError: `worst` is not such a metric.
    """
    if worst != "worst_class" and not (worst.startswith("worst_") and worst[6:].isdigit()):
        raise InputError(f"worst must be worst_class or worst_K such as worst_10, got {worst!r}")
    combinations: dict[str, list[Record]] = defaultdict(list)
    shared: dict[str, dict[str, Any]] = {}
    everything = list(records)
    settings = _settings(everything)
    for record, setting in zip(everything, settings, strict=True):
        key = json.dumps(setting, sort_keys=True, default=str)
        combinations[key].append(record)
        shared[key] = setting
    groups, incomplete = [], False
    for key, members in combinations.items():
        group, left_out = _chosen(members, shared[key], worst_over(members[0].spec.groups, worst))
        groups.append(group)
        incomplete = incomplete or left_out
    return Selection(tuple(groups), _rule(groups, worst, incomplete), worst)


def _chosen(members: list[Record], settings: dict[str, Any], worst: str) -> tuple[Group, bool]:
    by_temperature: dict[Temperatures, list[Record]] = defaultdict(list)
    for record in members:
        by_temperature[_temperatures(record)].append(record)
    complete = max(len(repeats) for repeats in by_temperature.values())
    competing = {pair: runs for pair, runs in by_temperature.items() if len(runs) == complete}

    def rank(pair: Temperatures) -> tuple[float, float, float, float]:
        worst_mean, balanced_mean = (_mean_on_validation(competing[pair], metric) for metric in (worst, "balanced"))
        return -worst_mean, -balanced_mean, pair[0] or 0.0, pair[1] or 0.0

    best = min(competing, key=rank)
    first = members[0].spec
    distilled = first.distillation
    group = Group(
        role=first.role,
        data=first.data.name,
        model=first.model,
        teacher_model=distilled.teacher_model if distilled else None,
        teacher_objective=distilled.teacher_objective if distilled else first.objective,
        student_objective=first.objective if distilled else None,
        validation_labels=settings["validation_labels"],
        method=first.method,
        records=tuple(sorted(by_temperature[best], key=lambda record: (record.repeat, record.name))),
        temperature=best[0],
        validation_temperature=best[1],
        candidates={
            pair: estimate([measure(run.metrics.val, worst) for run in runs if run.metrics.val is not None])
            for pair, runs in sorted(competing.items(), key=lambda item: (item[0][0] or 0.0, item[0][1] or 0.0))
        },
        settings=settings,
    )
    return group, len(competing) < len(by_temperature)


def _mean_on_validation(runs: list[Record], metric: str) -> float:
    """−∞ where a run has no validation result or an undefined one: what was not measured cannot be chosen."""
    values = [measure(run.metrics.val, metric) if run.metrics.val else math.nan for run in runs]
    mean = math.fsum(values) / len(values)
    return -math.inf if math.isnan(mean) else mean


def _temperatures(record: Record) -> Temperatures:
    distilled = record.spec.distillation
    if distilled is None:
        return None, None
    # Where no multipliers are moved by teacher labels, the second temperature changes nothing.
    return distilled.temperature, distilled.validation_temperature if _labels(record) == "teacher" else None


def _labels(record: Record) -> str | None:
    needed = Objective.parse(record.spec.objective).needs_multipliers
    return record.spec.validation_labels if needed else None


def _settings(records: list[Record]) -> list[dict[str, Any]]:
    """Each record's flat spec without what may vary in a combination.

    A student's spec names its teacher by hash, which changes with the teacher's seed. Where every teacher's record is
    at hand, the teacher's own settings stand in for it: students of teachers trained differently are apart.
    """
    own = [flat(record.spec.model_dump(mode="json")) for record in records]
    of_hash = {record.hash: setting for record, setting in zip(records, own, strict=True)}
    students = [record for record in records if record.spec.distillation is not None]
    known = all(record.spec.distillation.teacher in of_hash for record in students if record.spec.distillation)
    result = []
    for record, setting in zip(records, own, strict=True):
        shared = {key: value for key, value in setting.items() if key not in (*_FREE, *_FREE_TEACHER)}
        shared["validation_labels"] = _labels(record)
        if known and record.spec.distillation is not None:
            teacher = of_hash[str(record.spec.distillation.teacher)]
            shared |= {
                f"teacher.{key}": value
                for key, value in teacher.items()
                if key.startswith("recipe.") or key in ("method", "groups")
            }
        result.append(shared)
    return result


def _model_of_a_run(scorers: set[str]) -> str:
    if scorers <= {"last"}:
        return " The last iterate of each run is its model."
    if scorers == {"averaged"}:
        return " The mean of the logits of a run's iterates, at most 16 of them, is its model."
    return " The last iterate of a run is its model or, where scorer=averaged, the mean of its iterates' logits."


def _rule(groups: list[Group], worst: str, incomplete: bool) -> str:
    names = dict.fromkeys(worst_over(group.over, worst) for group in groups) or [worst]
    if all(len(group.candidates) == 1 for group in groups) and not incomplete:
        sentence = "One temperature was run per combination, so nothing was selected."
    else:
        sentence = (
            "The temperature was chosen once per combination of teacher and student, by the highest mean over repeats"
            f" of {' or '.join(metric_name(name) for name in names)} on the validation split (ties: balanced accuracy"
            " there). Test results took no part."
        )
    sentence += _model_of_a_run({record.spec.scorer for group in groups for record in group.records})
    if incomplete:
        sentence += " Temperatures with fewer repeats than the most complete one did not compete."
    if any(record.selection_labels == "teacher" for group in groups for record in group.records):
        sentence += " Where validation carries no labels, the teacher's stood in for them."
    return sentence
