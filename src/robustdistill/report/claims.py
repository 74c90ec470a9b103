"""The paper's claims, each held against the runs of one panel: confirmed, refuted or undecided, with its interval.

One statistical rule for all of them. A claim is turned into one number for each repeat and a threshold, both stated
with it, and the mean over repeats gets its 95 % t interval. Where the interval lies wholly on the claim's side of the
threshold the claim is confirmed, wholly on the other side it is refuted, else it is undecided; so is all that was
measured in one repeat only. Whatever has to be picked for the comparison (the best combination, the front's teacher) is
picked by its mean on validation, and the numbers compared are those of test.

The thresholds of claims 2 and 3 are ours: the paper gives no number for "does not predict" and "not needed".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from robustdistill.experiments.select import Group, Split
from robustdistill.objectives import Objective
from robustdistill.report.intervals import Interval, over_repeats
from robustdistill.report.numbers import capital
from robustdistill.report.panels import Panel, pair_name
from robustdistill.report.repeats import (
    Values,
    differences,
    gap_of,
    mean_by_repeat,
    post_shift_gaps,
    students_by_teacher,
    values_of,
    values_of_teacher,
)

Outcome = Literal["confirmed", "refuted", "undecided"]

RULE = (
    "Every claim is turned into one number for each repeat; its mean over repeats gets a 95 % t interval, mean ± "
    "t(n − 1) · s/√n. The claim is confirmed where the interval lies wholly on its side of the stated threshold, "
    "refuted where it lies wholly on the other side, and undecided otherwise. One repeat decides nothing. What has to "
    "be picked is picked on validation, what is compared is measured on test. Repeats are other trainings on the same "
    "data and split, so a verdict is about these data, these architectures and this training. The intervals are not "
    "widened for looking at five claims."
)
# What counts as predicting: a quarter of the variance explained. And as needing: more than a point of accuracy.
PREDICTS, NEEDED = 0.5, -0.01


@dataclass(frozen=True)
class Claim:
    """What the paper says, and how it is measured here: `above` says on which side of `threshold` the claim lies."""

    name: str
    text: str
    statistic: str
    threshold: float = 0.0
    above: bool = True
    unit: Literal["points", "correlation"] = "points"


@dataclass(frozen=True)
class Verdict:
    """One claim by the runs of one panel. `interval` is None where the runs that it needs are not there."""

    claim: Claim
    outcome: Outcome
    reason: str
    interval: Interval | None = None


@dataclass(frozen=True)
class Gap:
    """By how much a method is better on validation than on test, in the worst metric; a row of claim 5's table."""

    name: str
    interval: Interval


CLAIMS = (
    Claim(
        "robust-is-best",
        "The best combination has a robust teacher or a robust student.",
        "Test worst-class accuracy of the combination that is best on validation among those with a robust or "
        "traded-off teacher or student, minus that of the best among the others.",
    ),
    Claim(
        "teacher-does-not-predict",
        "The teacher’s own worst class does not predict the student’s.",
        "Correlation (Pearson) over teachers, in each repeat, of the teacher’s test worst-class accuracy with the mean "
        "of its students’. Predicting means 0.5 or more.",
        threshold=PREDICTS,
        above=False,
        unit="correlation",
    ),
    Claim(
        "one-hot-not-needed",
        "One-hot validation labels are not needed.",
        "Test worst-class accuracy of robust students with teacher-labelled validation minus that with one-hot "
        "validation, mean over the pairs that differ in nothing else but the temperature that validation chose. "
        "Needed means more than 1 point worse without.",
        threshold=NEEDED,
    ),
    Claim(
        "small-beats-big",
        "A small robust student can beat its bigger teacher’s trade-off.",
        "The smaller of the student’s two gains, in worst-class and in balanced accuracy on test, over a teacher that "
        "no other teacher beats on both: above 0 the student beats it on both. Student and teacher are the pair with "
        "the highest value on validation.",
    ),
    Claim(
        "post-shift-over-fits",
        "Post-shift over-fits validation.",
        "Validation minus test worst-class accuracy of the post-shifted teachers, less the same gap of the robust "
        "students (of the unshifted teachers where there are none). What the split itself adds to every gap cancels.",
    ),
)


@dataclass(frozen=True)
class Ledger:
    """A verdict on each claim, in the order of `CLAIMS`, and the validation–test gap of every method."""

    verdicts: tuple[Verdict, ...]
    gaps: tuple[Gap, ...]


def ledger(panel: Panel) -> Ledger:
    """The claims by the runs of one panel. Without test results, and for runs over groups, all stay undecided.

    Raises:
        InputError: a run's stored predictions are damaged.
    """
    shifted = post_shift_gaps(panel)
    gaps = gap_table(panel, shifted)
    judges: dict[str, Callable[[Claim, Panel], Verdict]] = {
        "robust-is-best": _robust_is_best,
        "teacher-does-not-predict": _teacher_does_not_predict,
        "one-hot-not-needed": _one_hot_not_needed,
        "small-beats-big": _small_beats_big,
        "post-shift-over-fits": lambda claim, panel: _post_shift_over_fits(claim, panel, shifted),
    }
    if panel.unit != "class":
        return Ledger(
            tuple(_missing(claim, "These runs are over groups, the claims are about classes.") for claim in CLAIMS),
            gaps,
        )
    if panel.split != "test":
        return Ledger(tuple(_missing(claim, "No run was evaluated on test.") for claim in CLAIMS), gaps)
    return Ledger(tuple(judges[claim.name](claim, panel) for claim in CLAIMS), gaps)


def verdict(claim: Claim, values: Sequence[float], what: str) -> Verdict:
    """The rule of this module. `what` names the things compared and begins the reason."""
    found = over_repeats(values)
    if found is None:
        return Verdict(claim, "undecided", f"{what}: no repeat has both.")
    if claim.unit == "correlation" and found.low is not None and found.high is not None:
        found = replace(found, low=max(found.low, -1.0), high=min(found.high, 1.0))
    shown = _shown(found.value, claim)
    if found.low is None or found.high is None:
        agree = f"all {found.n} repeats agree, so no spread is known"
        why = "one repeat leaves chance unknown" if found.n == 1 else agree
        return Verdict(claim, "undecided", f"{what}: {shown}, but {why}.", found)
    beyond, below = found.low > claim.threshold, found.high < claim.threshold
    outcome: Outcome = "undecided"
    if beyond or below:
        outcome = "confirmed" if beyond == claim.above else "refuted"
    relation = "above" if beyond else "below" if below else "on both sides of"
    where = f"its interval lies {relation} {_shown(claim.threshold, claim)}"
    return Verdict(claim, outcome, f"{what}: {shown}; {where}.", found)


def _shown(value: float, claim: Claim) -> str:
    if claim.unit == "correlation":
        return f"{value:.2f}".replace("-", "−")
    return "0 points" if value == 0 else f"{100 * value:+.1f} points".replace("-", "−")


def threshold_text(claim: Claim) -> str:
    """ "above −1.0 points": where the claim would lie."""
    return f"{'above' if claim.above else 'below'} {_shown(claim.threshold, claim)}"


def interval_text(interval: Interval | None, claim: Claim | None = None) -> str:
    """ "−1.6 [−4.0, +0.9], n = 3" in points, or a correlation; a dash where there is none."""
    if interval is None:
        return "–"
    scale, digits = (1, "+.2f") if claim is not None and claim.unit == "correlation" else (100, "+.1f")
    value, low, high = (
        None if one is None else format(scale * one, digits).replace("-", "−")
        for one in (interval.value, interval.low, interval.high)
    )
    bounds = f" [{low}, {high}]" if low is not None else ""
    return f"{value}{bounds}, n = {interval.n}"


def _missing(claim: Claim, reason: str) -> Verdict:
    return Verdict(claim, "undecided", reason)


def _robust_is_best(claim: Claim, panel: Panel) -> Verdict:
    robust = [group for group in panel.students if group.robust or _weighs_worst(group.teacher_objective)]
    plain = [group for group in panel.students if group not in robust]
    if not robust or not plain:
        return _missing(claim, f"There are no combinations {'with' if not robust else 'without'} a robust part.")
    best, other = max(robust, key=panel.on_validation), max(plain, key=panel.on_validation)
    values = differences(values_of(best, panel.worst), values_of(other, panel.worst))
    return verdict(claim, list(values.values()), f"{capital(pair_name(best, panel))} against {pair_name(other, panel)}")


def _teacher_does_not_predict(claim: Claim, panel: Panel) -> Verdict:
    if len(panel.teachers) < 3:
        return _missing(claim, "A correlation needs at least three teachers.")
    own = {group: values_of_teacher(group, panel, panel.worst, "test") for group in panel.teachers}
    students = students_by_teacher(panel)
    values, counts = [], set()
    for repeat in sorted({repeat for found in own.values() for repeat in found}):
        rows = [
            (found[repeat], {kind: by[repeat] for kind, by in students[teacher].items() if repeat in by})
            for teacher, found in own.items()
            if repeat in found
        ]
        rows = [(mine, theirs) for mine, theirs in rows if theirs]
        # Only kinds of students that every teacher has, or the mean would compare the kinds and not the teachers.
        shared = set.intersection(*(set(theirs) for _, theirs in rows)) if rows else set()
        if len(rows) < 3 or not shared:
            continue
        x = np.array([mine for mine, _ in rows])
        y = np.array([np.mean([theirs[kind] for kind in shared]) for _, theirs in rows])
        if x.std() > 0 and y.std() > 0:
            values.append(float(np.corrcoef(x, y)[0, 1]))
            counts.add(len(rows))
    if not values:
        return _missing(claim, "No repeat has three teachers that differ and have students of the same kinds.")
    return verdict(claim, values, f"Correlation over {' to '.join(map(str, sorted(counts)))} teachers")


def _one_hot_not_needed(claim: Claim, panel: Panel) -> Verdict:
    pairs: dict[tuple[str, ...], dict[str, Group]] = defaultdict(dict)
    for group in panel.students:
        if group.robust and group.validation_labels:
            settings = {key: value for key, value in group.settings.items() if key != "validation_labels"}
            pairs[tuple(sorted(map(str, settings.items())))][group.validation_labels] = group
    both = [found for found in pairs.values() if {"teacher", "one-hot"} <= found.keys()]
    if not both:
        return _missing(claim, "No robust student was trained with both kinds of validation labels.")
    by_repeat: dict[int, list[float]] = defaultdict(list)
    for found in both:
        teacher, one_hot = (values_of(found[labels], panel.worst) for labels in ("teacher", "one-hot"))
        for repeat in teacher.keys() & one_hot.keys():
            by_repeat[repeat].append(teacher[repeat] - one_hot[repeat])
    # A repeat that lacks some of the pairs would mix their difference into its own.
    full = [float(np.mean(found)) for _, found in sorted(by_repeat.items()) if len(found) == len(both)]
    return verdict(claim, full, f"Teacher’s labels minus one-hot, mean of {len(both)} pair{'s' * (len(both) > 1)}")


def _small_beats_big(claim: Claim, panel: Panel) -> Verdict:
    sizes = [_parameters(groups) for groups in (panel.students, panel.teachers)]
    if not panel.students or not panel.teachers or panel.teacher_model is None:
        return _missing(claim, "There are no students and teachers to compare.")
    if sizes[0] is None or sizes[1] is None or sizes[0] >= sizes[1]:
        names = f"The student ({panel.student_model}) is not smaller than its teacher ({panel.teacher_model})"
        return _missing(claim, f"{names}, or its size is not known.")
    teachers = [group for group in panel.teachers if group.model == panel.teacher_model]
    means = {group: _means(group, panel, "val") for group in teachers}
    front = [
        group
        for group in teachers
        if not any((means[other] >= means[group]).all() and (means[other] > means[group]).any() for other in teachers)
    ]
    small = [group for group in panel.students if group.robust]
    pairs = [(student, teacher) for student in small for teacher in front]
    if not pairs:
        return _missing(claim, "There is no robust student to compare with a teacher.")
    student, teacher = max(pairs, key=lambda pair: float((_means(pair[0], panel, "val") - means[pair[1]]).min()))
    gains = [
        differences(values_of(student, metric), values_of_teacher(teacher, panel, metric, "test"))
        for metric in (panel.worst, "balanced")
    ]
    values = [min(gains[0][repeat], gains[1][repeat]) for repeat in sorted(gains[0].keys() & gains[1].keys())]
    small_name, big_name = (
        f"{capital(pair_name(student, panel))} ({student.model})",
        f"{pair_name(teacher, panel)} ({teacher.model})",
    )
    return verdict(claim, values, f"{small_name} against the {big_name} itself")


def _post_shift_over_fits(claim: Claim, panel: Panel, shifted: dict[Group, Values]) -> Verdict:
    if not shifted:
        return _missing(claim, "The teachers’ predictions on validation and test are not stored with their runs.")
    robust = [group for group in panel.students if group.robust]
    reference = [gap_of(group, panel.worst) for group in robust or panel.teachers]
    post = mean_by_repeat(list(shifted.values()))
    values = differences(post, mean_by_repeat(reference))
    others = "robust students" if robust else "same teachers unshifted"
    return verdict(claim, list(values.values()), f"Post-shifted teachers’ gap less that of the {others}")


def gap_table(panel: Panel, shifted: dict[Group, Values]) -> tuple[Gap, ...]:
    """Validation minus test in the worst metric, of every combination and of the post-shifted teachers."""
    rows = [(pair_name(group, panel), gap_of(group, panel.worst)) for group in panel.groups]
    rows += [(f"{pair_name(group, panel)}, post-shifted", values) for group, values in shifted.items()]
    found = [(name, over_repeats(list(values.values()))) for name, values in rows if values]
    return tuple(Gap(name, interval) for name, interval in found if interval is not None)


def _means(group: Group, panel: Panel, split: Split) -> np.ndarray:
    """(2,) means of the worst metric and of balanced accuracy; −∞ where they are not known."""
    found = [group.estimate(metric, split) for metric in (panel.worst, "balanced")]
    return np.array([one.mean if one is not None and one.mean == one.mean else -np.inf for one in found])


def _parameters(groups: Sequence[Group]) -> int | None:
    known = [record.parameters for group in groups for record in group.records if record.parameters]
    return max(known, default=None)


def _weighs_worst(objective: str | None) -> bool:
    return objective is not None and Objective.parse(objective).needs_multipliers
