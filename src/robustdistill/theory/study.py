"""Does a teacher's fitness predict the worst class of its robust students? Answered from a folder of finished runs.

Fitness comes from the predictions that teachers keep in their run folders, on validation by default; the outcome is the
worst-class accuracy of the students on test, so that the two share no examples. Teachers of one data set serve each
other as the second model: what the others' mean log-probabilities say is what this one could have seen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from robustdistill.errors import InputError
from robustdistill.predictions import Predictions
from robustdistill.theory.fitness import Fitness, teacher_fitness
from robustdistill.theory.tables import FloatArray

if TYPE_CHECKING:
    from robustdistill.experiments.journal import Record

Split = Literal["val", "test"]

ENOUGH = 5  # Teachers; with fewer a bootstrap repeats the same few samples and says nothing.

# What is correlated with the students' worst class; errors of a good teacher are small, its accuracies large.
PREDICTORS = {
    "estimate, worst class": "approximation error by a second model, the largest over classes (Theorem 2)",
    "estimate, mean": "the same, its mean over classes",
    "upper bound, worst class": "bound from the labels alone",
    "lower bound, worst class": "bound from the prediction alone",
    "refinement, mean": "what the prediction leaves out of η",
    "marginal mismatch, worst class": "|π^t/π − 1|",
    "variance ratio, mean": "variance of the distilled loss over that of the one-hot loss (Appendix B)",
    "teacher's worst class": "the teacher's own worst-class accuracy",
    "teacher's balanced": "the teacher's own balanced accuracy",
}


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of a predictor with the students' worst class, and a bootstrap interval.

    Attributes:
        value: in [−1, 1]; NaN where one side does not vary.
        low: lower end of the interval; NaN with fewer than `ENOUGH` teachers.
        high: upper end.
        points: (teacher, temperatures) pairs.
        teachers: distinct ones, which are what is resampled.
    """

    value: float
    low: float
    high: float
    points: int
    teachers: int


@dataclass(frozen=True)
class Point:
    """One teacher at one pair of temperatures, with the mean outcome of its robust students."""

    teacher: str
    objective: str
    temperature: float
    validation_temperature: float | None
    predictors: dict[str, float]
    outcome: float
    students: int


@dataclass(frozen=True)
class Cell:
    """The teachers of one comparison: one data set, pair of models and kind of validation labels.

    Attributes:
        name: what it is, for people.
        points: the teachers, at each temperature that their students used.
        correlations: of each predictor, over all points.
        within: the same after the mean of each teacher objective is taken from both sides: what fitness says among
            teachers of one objective.
    """

    name: str
    points: tuple[Point, ...]
    correlations: dict[str, Correlation]
    within: dict[str, Correlation]


def good_teachers(
    root: str | Path,
    *,
    split: Split = "val",
    outcome: Split = "test",
    folds: int = 5,
    draws: int = 2000,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Cell]:
    """Correlates teachers' fitness with their robust students' worst-class accuracy, for each comparison below `root`.

    A teacher counts where its folder has predictions/SPLIT.npz with labels and a robust student of it has a result on
    `outcome`; students over groups do not count. Examples are weighted to the class frequencies of the training data.

    Args:
        root: folder of runs.
        split: on which the fitness is measured.
        outcome: on which the students are.
        folds: of the cross-fitting.
        draws: of the bootstrap over teachers.
        seed: of folds and bootstrap.
        progress: called with a line for each teacher.

    Raises:
        InputError: no such teacher, or `root` is not a folder.
    """
    from robustdistill.experiments.journal import scan

    records = scan(root, histories=False)
    tables = {record.hash: table for record in records if (table := _table(record, split)) is not None}
    students = defaultdict(list)
    for record in records:
        distilled = record.spec.distillation
        robust = record.spec.objective == "robust" and (record.spec.method, record.spec.groups) == ("margin", "class")
        if distilled and robust and distilled.teacher in tables and getattr(record.metrics, outcome):
            students[distilled.teacher].append(record)
    if not students:
        raise InputError(
            f"root must hold teachers with predictions/{split}.npz (with labels) and robust students of them that have "
            f"a result on {outcome}; below {root} are {len(records)} runs, {len(tables)} of them teachers with such "
            "predictions, none with such students"
        )
    teachers = {record.hash: record for record in records if record.hash in tables}
    cells: dict[_Kind, list[Point]] = defaultdict(list)
    for name, taught in students.items():
        teacher = teachers[name]
        progress(f"{teacher.name} on {teacher.spec.data.name}: {len(taught)} robust students")
        others = [tables[key] for key, other in teachers.items() if key != name and _same_data(other, teacher)]
        for kind, point in _points(teacher, taught, tables[name], others, outcome, folds, seed):
            cells[kind].append(point)
    return [_cell(name, cells[kind], draws, seed) for kind, name in _named(sorted(cells)).items()]


# What a comparison is, for people, and all settings of its students that are not theirs alone.
_Kind = tuple[str, str]


def _kind(teacher: Record, student: Record) -> _Kind:
    spec, recipe = student.spec, student.spec.recipe
    name = f"{spec.data.name}, {teacher.spec.model} → {spec.model}, {spec.validation_labels} validation"
    own = {"seed", "distillation"}
    settings = [spec.model_dump_json(exclude=own), teacher.spec.recipe.model_dump_json()]
    if spec.distillation is not None:
        of_teacher = {"teacher", "teacher_objective", "teacher_seed", "temperature", "validation_temperature"}
        settings.append(spec.distillation.model_dump_json(exclude=of_teacher))
    return f"{name}, {recipe.epochs} epochs of {recipe.name}", "".join(settings)


def _named(kinds: Sequence[_Kind]) -> dict[_Kind, str]:
    """Each kind's name, with a number where several that differ in other settings share it."""
    places: dict[str, int] = defaultdict(int)
    shared = {name for name, _ in kinds if sum(other == name for other, _ in kinds) > 1}
    names = {}
    for kind in kinds:
        places[kind[0]] += 1
        names[kind] = f"{kind[0]} (settings {places[kind[0]]})" if kind[0] in shared else kind[0]
    return names


def _table(record: Record, split: Split) -> Predictions | None:
    if record.spec.role != "teacher" or record.path is None:
        return None
    path = record.path / "predictions" / f"{split}.npz"
    if not path.is_file():
        return None
    table = Predictions.read(path, class_names=record.class_names)
    return table if table.labels is not None and table.kind != "classes" else None


def _same_data(one: Record, other: Record) -> bool:
    return one.spec.data == other.spec.data and one.class_names == other.class_names


def _points(
    teacher: Record,
    students: list[Record],
    table: Predictions,
    others: list[Predictions],
    outcome: Split,
    folds: int,
    seed: int,
) -> list[tuple[_Kind, Point]]:
    """A point for each kind of comparison and pair of temperatures."""
    features = None
    if others:
        joined = [other.join(table.ids).log_probabilities() for other in others]
        features = np.mean(joined, axis=0)
    groups: dict[tuple[_Kind, float, float | None], list[float]] = defaultdict(list)
    for record in students:
        distilled, metrics = record.spec.distillation, getattr(record.metrics, outcome)
        if distilled is None:
            continue
        second = distilled.validation_temperature if record.spec.validation_labels == "teacher" else None
        groups[_kind(teacher, record), distilled.temperature, second].append(float(metrics.worst_class))
    own = table.evaluate()
    fitted = {
        temperature: teacher_fitness(
            table, temperature=temperature, features=features, priors=teacher.train_counts, folds=folds, seed=seed
        )
        for temperature in {key[1] for key in groups}
    }
    return [
        (
            kind,
            Point(
                teacher=teacher.hash,
                objective=teacher.spec.objective,
                temperature=temperature,
                validation_temperature=second,
                predictors=_predictors(fitted[temperature], own.worst_class, own.balanced),
                outcome=float(np.mean(values)),
                students=len(values),
            ),
        )
        for (kind, temperature, second), values in groups.items()
    ]


def _predictors(fitness: Fitness, worst: float, balanced: float) -> dict[str, float]:
    missing = float("nan")
    values = {
        "estimate, worst class": missing if fitness.estimate is None else fitness.estimate.worst,
        "estimate, mean": missing if fitness.estimate is None else fitness.estimate.mean,
        "upper bound, worst class": fitness.upper.worst,
        "lower bound, worst class": fitness.lower.worst,
        "refinement, mean": missing if fitness.refinement is None else fitness.refinement.mean,
        "marginal mismatch, worst class": float(fitness.marginal_mismatch.max()),
        "variance ratio, mean": float(np.nanmean(fitness.variances.ratios)),
        "teacher's worst class": worst,
        "teacher's balanced": balanced,
    }
    return {name: values[name] for name in PREDICTORS}


def _cell(name: str, points: list[Point], draws: int, seed: int) -> Cell:
    outcomes = [point.outcome for point in points]
    teachers, objectives = ([getattr(point, part) for point in points] for part in ("teacher", "objective"))
    found: list[dict[str, Correlation]] = [{}, {}]
    for predictor in PREDICTORS:
        values = [point.predictors[predictor] for point in points]
        found[0][predictor] = correlate(values, outcomes, teachers, draws=draws, seed=seed)
        found[1][predictor] = correlate(values, outcomes, teachers, groups=objectives, draws=draws, seed=seed)
    return Cell(name, tuple(points), *found)


def correlate(
    values: Sequence[float],
    outcomes: Sequence[float],
    teachers: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Correlation:
    """Spearman's correlation with a percentile interval from a bootstrap that draws teachers with all their points.

    Args:
        values: (N,) of the predictor.
        outcomes: (N,).
        teachers: (N,) whose point each is.
        groups: (N,) where given, the means of each group are taken from both sides first.
        level: of the interval.
        draws: of the bootstrap; those in which a side does not vary have no correlation and are left out.
        seed: of it.

    Raises:
        InputError: lengths differ, or `level` or `draws` is out of range.
    """
    x, y = np.asarray(values, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    if not (x.ndim == 1 and x.shape == y.shape == (len(teachers),)) or (groups is not None and len(groups) != len(x)):
        raise InputError(f"values, outcomes, teachers and groups must have one length, got {x.shape} and {y.shape}")
    if not 0 < level < 1 or draws < 1:
        raise InputError(f"level must lie in (0, 1) and draws be at least 1, got {level} and {draws}")
    names, member = np.unique(np.asarray(teachers), return_inverse=True)
    group = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    rows_of = [np.flatnonzero(member == index) for index in range(len(names))]
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        rows = np.concatenate([rows_of[index] for index in rng.integers(len(names), size=len(names))])
        found.append(_spearman(x[rows], y[rows], None if group is None else group[rows]))
    known = np.array([value for value in found if np.isfinite(value)])
    tail, enough = (1 - level) / 2, len(names) >= ENOUGH
    low, high = np.quantile(known, [tail, 1 - tail]) if enough and len(known) >= draws / 2 else (np.nan, np.nan)
    return Correlation(_spearman(x, y, group), float(low), float(high), len(x), len(names))


def _spearman(x: FloatArray, y: FloatArray, group: npt.NDArray[np.intp] | None) -> float:
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return float("nan")
    if group is not None:
        x, y = _centred(x, group), _centred(y, group)
    a, b = _ranks(x), _ranks(y)
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else float("nan")


def _centred(values: FloatArray, group: npt.NDArray[np.intp]) -> FloatArray:
    sizes = np.maximum(np.bincount(group), 1)
    # Rounded, so that what is equal up to the last bit of a mean stays a tie.
    return np.asarray(np.round(values - (np.bincount(group, values) / sizes)[group], 12))


def _ranks(values: FloatArray) -> FloatArray:
    """Ranks from 0; ties share their mean."""
    ordered = np.sort(values)
    first, last = np.searchsorted(ordered, values, side="left"), np.searchsorted(ordered, values, side="right")
    return np.asarray((first + last - 1) / 2.0)
