"""Figures by repeat: of a combination, of the teacher that served each repeat, and their differences.

Only what was measured in the same repeat is subtracted or averaged, so that chance which both share cancels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from robustdistill.experiments.journal import Record
from robustdistill.experiments.select import Group, Split, measure
from robustdistill.metrics import Scores
from robustdistill.postshift import PostShift
from robustdistill.predictions import Predictions
from robustdistill.report.intervals import stored_predictions
from robustdistill.report.panels import Panel, row_name

Values = dict[int, float]  # by repeat


def values_of(group: Group, metric: str, split: Split = "test") -> Values:
    """Of a combination in a metric; runs that share a repeat's number count as one, their mean."""
    found: dict[int, list[float]] = defaultdict(list)
    for record in group.records:
        value = _value(record, metric, split)
        if value is not None:
            found[record.repeat].append(value)
    return {repeat: float(np.mean(values)) for repeat, values in sorted(found.items())}


def _value(record: Record, metric: str, split: Split) -> float | None:
    metrics = getattr(record.metrics, split)
    value = None if metrics is None else measure(metrics, metric)
    return None if value is None or value != value else value


def values_of_teacher(teacher: Group, panel: Panel, metric: str, split: Split) -> Values:
    """The same of a teacher, by the repeats of its students: one fixed teacher serves all of them (Table 1)."""
    values = values_of(teacher, metric, split)
    by_hash = {record.hash: record for record in teacher.records}
    for student in (record for group in panel.students for record in group.records):
        source = by_hash.get(student.spec.distillation.teacher) if student.spec.distillation else None
        value = None if source is None else _value(source, metric, split)
        if value is not None:
            values[student.repeat] = value
    return values


def students_by_teacher(panel: Panel) -> dict[Group, dict[tuple[str, ...], Values]]:
    """Teacher -> kind of student -> its test figure by repeat."""
    teacher_of = {record.hash: group for group in panel.teachers for record in group.records}
    result: dict[Group, dict[tuple[str, ...], Values]] = {group: defaultdict(dict) for group in panel.teachers}
    for group in panel.students:
        # A row of the result table is a kind: what the student is, whoever taught it.
        kind = (row_name(group, panel), group.method)
        for record in group.records:
            teacher = teacher_of.get(record.spec.distillation.teacher) if record.spec.distillation else None
            value = _value(record, panel.worst, "test")
            if teacher is not None and value is not None:
                result[teacher][kind][record.repeat] = value
    return result


def differences(first: Values, second: Values) -> Values:
    """First minus second, in each repeat that both have."""
    return {repeat: first[repeat] - second[repeat] for repeat in sorted(first.keys() & second.keys())}


def mean_by_repeat(rows: Sequence[Values]) -> Values:
    """The mean over rows in each repeat that all of them have."""
    shared = set.intersection(*(set(row) for row in rows)) if rows else set()
    return {repeat: float(np.mean([row[repeat] for row in rows])) for repeat in sorted(shared)}


def gap_of(group: Group, metric: str) -> Values:
    """Validation minus test of a combination."""
    return differences(values_of(group, metric, "val"), values_of(group, metric, "test"))


def post_shift_gaps(panel: Panel) -> dict[Group, Values]:
    """Validation minus test of each teacher after a post-shift fitted on validation, where predictions are stored.

    A post-shift is by class: of teachers over groups there is none.
    """
    found: dict[Group, Values] = {}
    for group in panel.teachers if panel.unit == "class" else []:
        values: Values = {}
        for record in group.records:
            paths = stored_predictions(record, "val"), stored_predictions(record, "test")
            if paths[0] is not None and paths[1] is not None:
                val, test = Predictions.read(paths[0]), Predictions.read(paths[1])
                if val.labels is None or test.labels is None:
                    continue
                shift = PostShift().fit(val)
                difference = _of(_shifted(shift, val), panel.worst) - _of(_shifted(shift, test), panel.worst)
                if difference == difference:
                    values[record.repeat] = difference
        if values:
            found[group] = values
    return found


def _shifted(shift: PostShift, table: Predictions) -> Scores:
    return Scores.of(shift.predict(table), labels=np.asarray(table.labels), num_classes=table.num_classes)


def _of(scores: Scores, metric: str) -> float:
    return scores.worst_class if metric == "worst_class" else scores.worst_k(int(metric.removeprefix("worst_")))
