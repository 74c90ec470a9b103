"""What belongs into one table, a data set, two architectures and what runs are over, and what things are called."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from robustdistill.errors import InputError
from robustdistill.experiments.journal import Record
from robustdistill.experiments.select import Estimate, Group, Selection, Split, metric_name, worst_over
from robustdistill.objectives import Objective
from robustdistill.training.spec import DataIdentity

_ORDER = {"standard": 0, "balanced": 1, "robust": 2}
_BY = {"group": ", by group", "class-group": ", by group within each class"}
LABEL_ORDER = {None: 0, "teacher": 1, "one-hot": 2}
# The titles of the methods' cards, which import torch.
METHODS = {
    "ada-alpha": "AdaAlpha",
    "ada-margin": "AdaMargin",
    "balanced-kd": "Balanced knowledge distillation (BKD)",
    "dkd": "Decoupled knowledge distillation (DKD)",
    "group-dro": "Group DRO",
    "ldam-drw": "LDAM-DRW",
    "logit-adjustment": "Logit-adjusted cross-entropy",
    "logit-std-kd": "Logit-standardised distillation",
    "margin": "Margin loss",
    "weighted": "Weighted loss",
}


@dataclass(frozen=True)
class Panel:
    """The combinations of one table, all trained on one data set, and scored alike.

    Attributes:
        student_model: None where only teachers were trained.
        worst: the worst metric in use, as `select.measure` knows it.
        title: for people, such as "digits-lt, convnet-32 → convnet-16".
    """

    data: DataIdentity
    teacher_model: str | None
    student_model: str | None
    groups: tuple[Group, ...]
    worst: str
    title: str

    @property
    def over(self) -> str:
        """What all of these runs are over: "class", "group" or "class-group"."""
        return self.groups[0].over

    @property
    def unit(self) -> Literal["class", "group"]:
        """What there is a worst one of."""
        return "class" if self.over == "class" else "group"

    @property
    def units(self) -> list[str]:
        """The names of the classes or, of runs over groups, of the groups that training has."""
        return self.groups[0].records[0].units

    @property
    def unit_counts(self) -> list[int]:
        """The training examples of each."""
        first = self.groups[0].records[0]
        return first.train_counts if self.unit == "class" else first.group_train_counts or [0] * len(first.units)

    @property
    def split(self) -> Split:
        """Test, or validation while no run was evaluated on test."""
        return "test" if any(group.metrics("test") for group in self.groups) else "val"

    @property
    def split_name(self) -> str:
        return "test" if self.split == "test" else "validation"

    @property
    def teachers(self) -> list[Group]:
        return [group for group in self.groups if group.role == "teacher"]

    @property
    def students(self) -> list[Group]:
        return [group for group in self.groups if group.role == "student"]

    @property
    def records(self) -> list[Record]:
        return [record for group in self.groups for record in group.records]

    @property
    def class_names(self) -> list[str]:
        return self.groups[0].records[0].class_names

    @property
    def train_counts(self) -> list[int]:
        return self.groups[0].records[0].train_counts

    @property
    def plain(self) -> Group | None:
        """Plain distillation: a standard student of a standard teacher."""
        return self._best([g for g in self.students if _plain(g) and g.teacher_objective == "standard"])

    @property
    def best_robust(self) -> Group | None:
        """The student that gives the worst class a weight and is best by *validation*."""
        return self._best([group for group in self.students if group.robust])

    def teacher(self, objective: str) -> Group | None:
        """The teacher with this objective, of the teacher's architecture."""
        found = [g for g in self.teachers if g.objective == objective and g.model == self.teacher_model]
        return self._best([group for group in found if group.method == "margin"])

    def estimate(self, group: Group, metric: str | None = None) -> Estimate | None:
        """Of the panel's worst metric unless told, on the panel's split."""
        return group.estimate(metric or self.worst, self.split)

    def on_validation(self, group: Group) -> float:
        """The mean of the worst metric on validation, -1 where it is not known; what groups are ranked by."""
        found = group.estimate(self.worst, "val")
        return found.mean if found and found.mean == found.mean else -1.0

    def _best(self, groups: Sequence[Group]) -> Group | None:
        return max(groups, key=self.on_validation, default=None)


def panels(selection: Selection) -> list[Panel]:
    """The tables that a selection fills, by data set, architectures and what runs are over, classes or groups.

    A model trained without distillation joins every panel in which its architecture is the teacher's or the student's.
    What is over classes and what is over groups is scored by another metric, and never in one table.

    Raises:
        InputError: runs on data of one name and seed disagree about the classes.
    """
    by_data: dict[tuple[str, str], list[Group]] = defaultdict(list)
    for group in selection.groups:
        by_data[_data_key(group), group.over].append(group)
    result = []
    for (_, over), groups in by_data.items():
        _one_class_list(groups)
        pairs = sorted({(g.teacher_model, g.model) for g in groups if g.role == "student"}, key=str)
        undistilled = [group for group in groups if group.role == "teacher"]
        alone = sorted({group.model for group in undistilled} - {name for pair in pairs for name in pair if name})
        for teacher, student in [*pairs, *((model, None) for model in alone)]:
            members = [g for g in groups if g.role == "student" and (g.teacher_model, g.model) == (teacher, student)]
            members += [group for group in undistilled if group.model in (teacher, student)]
            members.sort(key=_order)
            data = members[0].records[0].spec.data
            title = f"{data.name}, {' → '.join(name for name in (teacher or 'given predictions', student) if name)}"
            title += _BY.get(over, "")
            worst = worst_over(over, selection.worst)
            result.append(Panel(data, teacher, student, tuple(members), worst, title))
    return _distinct_titles(result)


def objective_order(objective: str) -> tuple[int, float, str]:
    """Sorts standard, balanced, robust, then the trade-offs by their α."""
    amount = objective.partition(":")[2]
    return _ORDER.get(objective, 3), float(amount) if amount else 0.0, objective


def objective_name(objective: str | None) -> str:
    """ "tradeoff:0.5" -> "trade-off α = 0.5", for people."""
    if objective is None:
        return "given predictions"
    if objective in _ORDER:
        return objective
    parsed = Objective.parse(objective)
    return f"{'trade-off' if parsed.anchor == 'balanced' else 'standard trade-off'} α = {parsed.robustness:g}"


def method_name(method: str) -> str:
    """ "ada-margin:scale=2.0" -> "AdaMargin, scale=2.0", for people; one of a user's own stays as it is."""
    name, _, settings = method.partition(":")
    return ", ".join([METHODS.get(name, name), *(part for part in settings.split(",") if part)])


def row_name(group: Group, panel: Panel) -> str:
    """The label of the table row that a group belongs to."""
    method = "" if group.method == "margin" else method_name(group.method)
    if group.role == "teacher":
        if group.model != panel.teacher_model:
            return f"{f'{method}, student' if method else 'Student'}’s architecture (no distillation)"
        return f"{method or 'Teacher'} (no distillation)"
    labels = {"teacher": "teacher validation labels", "one-hot": "one-hot validation labels"}
    suffix = f" ({labels.get(group.validation_labels, group.validation_labels)})" if group.validation_labels else ""
    return f"{f'{method}, student' if method else 'Student'}: {objective_name(group.objective)}{suffix}"


def pair_name(group: Group, panel: Panel) -> str:
    """One group in running text, such as "robust teacher → standard student" or "Group DRO without a teacher"."""
    method = "" if group.method == "margin" else f", {method_name(group.method)}"
    if group.role == "teacher" and group.model != panel.teacher_model:
        return f"{method.removeprefix(', ') or f'{objective_name(group.objective)} {group.model}'} without a teacher"
    if group.role == "teacher":
        return f"{objective_name(group.objective)} teacher{method}"
    labels = f" ({group.validation_labels} validation labels)" if group.validation_labels else ""
    teacher = (
        "given predictions" if group.teacher_objective is None else f"{objective_name(group.teacher_objective)} teacher"
    )
    return f"{teacher} → {objective_name(group.objective)} student{labels}{method}"


def earlier_method(group: Group) -> bool:
    """Whether this is Narasimhan & Menon (2021): standard teacher, robust student, one-hot validation labels."""
    student = group.role == "student" and group.method == "margin" and group.objective == "robust"
    student = student and group.over == "class"
    return student and group.teacher_objective == "standard" and group.validation_labels == "one-hot"


def worst_name(panel: Panel) -> str:
    """ "worst-class accuracy", "worst-10 accuracy" or, of runs over groups, "worst-group accuracy"."""
    return metric_name(panel.worst)


def _order(group: Group) -> tuple[Any, ...]:
    teacher, own = objective_order(group.teacher_objective or "~"), objective_order(group.objective)
    labels = LABEL_ORDER.get(group.validation_labels, len(LABEL_ORDER))
    return group.role != "teacher", group.method != "margin", group.method, teacher, own, labels


def _plain(group: Group) -> bool:
    return group.objective == "standard" and group.method == "margin"


def _data_key(group: Group) -> str:
    return repr(sorted(group.records[0].spec.data.model_dump(exclude={"train", "val"}).items(), key=str))


def _one_class_list(groups: Sequence[Group]) -> None:
    first = groups[0].records[0]
    for record in (record for group in groups for record in group.records):
        if record.class_names != first.class_names:
            raise InputError(
                f"runs on {first.spec.data.name!r} must have one list of classes; {record.name} has "
                f"{len(record.class_names)} ({record.class_names[0]!r} first), {first.name} has "
                f"{len(first.class_names)} ({first.class_names[0]!r} first)"
            )


def _distinct_titles(found: list[Panel]) -> list[Panel]:
    titles = [panel.title for panel in found]
    result = []
    for panel in found:
        seeds = panel.data.model_dump(exclude={"name", "train", "val"}, exclude_none=True)
        detail = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in seeds.items())
        title = f"{panel.title} ({detail})" if titles.count(panel.title) > 1 and detail else panel.title
        result.append(Panel(panel.data, panel.teacher_model, panel.student_model, panel.groups, panel.worst, title))
    return sorted(result, key=lambda panel: panel.title)
