"""What the finished runs of a plan say: each cell or point at its chosen temperature, beside the paper's number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from robustdistill.experiments.grid import Job
from robustdistill.experiments.journal import Record, SplitMetrics
from robustdistill.experiments.paper.compare import Beside
from robustdistill.experiments.paper.plan import Cell, FigurePlan, Pair, TablePlan
from robustdistill.experiments.paper.post_shift import shifted
from robustdistill.experiments.paper.printed import PrintedCell, cells
from robustdistill.experiments.select import Estimate, Group, choose, estimate, measure


@dataclass(frozen=True)
class CellResult:
    """One cell with what was measured.

    Attributes:
        worst: the table's worst metric on test, ours and the paper's.
        average: likewise the average below it.
        validation: the worst metric on validation, at the chosen temperature.
        chosen: temperatures of the targets and of the teacher's validation labels; None where there are none.
        others: the temperatures that were compared with it.
        done: finished runs of `planned`.
        printed: the paper's cell.
        best: whether no cell of the panel has a higher worst metric here.
    """

    cell: Cell
    worst: Beside
    average: Beside
    validation: Estimate | None
    chosen: Pair | None
    others: tuple[Pair, ...]
    done: int
    planned: int
    printed: PrintedCell | None
    best: bool = False

    @property
    def gap(self) -> float | None:
        """Validation minus test of the worst metric: where over-fitting to validation shows."""
        ours = self.worst.ours
        return self.validation.mean - ours.mean if self.validation and ours else None


@dataclass(frozen=True)
class TableResult:
    """A table with its numbers, and the sentence that says how temperatures were chosen."""

    plan: TablePlan
    cells: tuple[CellResult, ...]
    rule: str

    def cell(self, student: str, row: int, column: int) -> CellResult:
        """By the panel and the position in it."""
        layout = self.plan.layout
        start = layout.students.index(student) * len(layout.rows) * len(layout.columns)
        return self.cells[start + row * len(layout.columns) + column]


@dataclass(frozen=True)
class Point:
    """A point of a figure, means over repeats on test.

    Attributes:
        teacher: its objective, or that of the teacher that it learned from.
        student: its objective; None for a teacher itself.
        temperatures: of the targets and of the teacher's validation labels; None for a teacher itself.
        standard: accuracy over the test half.
        worst: worst-class accuracy.
        chosen: whether its temperatures are those that validation picks.
        validation: the worst-class accuracy there.
    """

    teacher: str
    student: str | None
    temperatures: Pair | None
    standard: Estimate
    worst: Estimate
    chosen: bool
    validation: Estimate | None


@dataclass(frozen=True)
class FigureResult:
    """A figure with its points, the chosen ones marked."""

    plan: FigurePlan
    points: tuple[Point, ...]
    rule: str

    @property
    def shown(self) -> list[Point]:
        """What the paper's figure shows: every temperature, or only the chosen one."""
        return [point for point in self.points if self.plan.layout.all_temperatures or point.chosen]


def table_result(plan: TablePlan, finished: Mapping[Job, Record]) -> TableResult:
    """The numbers of a table from the finished runs of its plan; temperatures are chosen on validation only."""
    groups, rule = _groups(finished, plan.setup.worst)
    results = [_cell_result(plan, cell, finished, groups) for cell in plan.cells]
    return TableResult(plan, tuple(_with_best(plan, results)), rule)


def figure_result(plan: FigurePlan, finished: Mapping[Job, Record]) -> FigureResult:
    """The points of a figure from the finished runs of its plan; one is missing where no run of it is finished."""
    groups, rule = _groups(finished, plan.setup.worst)
    points = [
        point
        for objective, jobs in plan.teachers.items()
        if (point := _point(objective, None, None, _records(jobs, finished), chosen=True)) is not None
    ]
    for (teacher, student), jobs in plan.students.items():
        group = _group(_records(jobs, finished), groups)
        best = (group.temperature, group.validation_temperature) if group else None
        for pair, some in _by_temperature(jobs).items():
            records = _records(some, finished)
            # Where nothing is labelled by the teacher, a group has no second temperature, as these pairs have none.
            chosen = best is not None and (pair[0], _second(pair, jobs)) == best
            point = _point(teacher, student, pair, records, chosen=chosen)
            if point is not None:
                points.append(point)
    return FigureResult(plan, tuple(points), rule)


def _groups(finished: Mapping[Job, Record], worst: str) -> tuple[dict[str, Group], str]:
    """The chosen group that each record's combination has, by the record's hash, and the rule."""
    selection = choose(finished.values(), worst)
    return {record.hash: group for group in selection.groups for record in group.records}, selection.rule


def _group(records: Sequence[Record], groups: Mapping[str, Group]) -> Group | None:
    """The one group that these records, all of a combination, are of."""
    return next((groups[record.hash] for record in records if record.hash in groups), None)


def _records(jobs: Sequence[Job], finished: Mapping[Job, Record]) -> list[Record]:
    return [finished[job] for job in jobs if job in finished]


def _cell_result(
    plan: TablePlan, cell: Cell, finished: Mapping[Job, Record], groups: Mapping[str, Group]
) -> CellResult:
    records = _records(cell.jobs, finished)
    group = None if cell.row.method == "post-shift" else _group(records, groups)
    if cell.row.method == "post-shift":
        pairs = [pair for record in records if (pair := shifted(record)) is not None]
        val, test = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        done = len(pairs)
    else:
        val, test = (group.metrics("val"), group.metrics("test")) if group else ([], [])
        done = len(records)
    worst, layout = plan.setup.worst, plan.layout
    printed = _printed(plan, cell)
    comparable = not plan.setup.stand_in and worst == layout.worst
    distilled = group is not None and group.temperature is not None
    chosen: Pair | None = (group.temperature, group.validation_temperature) if group and distilled else None  # type: ignore[assignment]
    return CellResult(
        cell=cell,
        worst=Beside(_estimate(test, worst), printed.worst if printed else None, comparable),
        average=Beside(_estimate(test, layout.average), printed.average if printed else None, not plan.setup.stand_in),
        validation=_estimate(val, worst),
        chosen=chosen,
        others=tuple(pair for pair in group.candidates if pair != chosen) if group and distilled else (),  # type: ignore[misc]
        done=done,
        planned=len(cell.jobs),
        printed=printed,
    )


def _with_best(plan: TablePlan, results: list[CellResult]) -> list[CellResult]:
    """The same with the highest of each panel marked; a sole cell is not best of anything."""
    best: dict[str, float] = {}
    for student in plan.layout.students:
        means = [r.worst.ours.mean for r in results if r.cell.student == student and r.worst.ours is not None]
        if len(means) > 1:
            best[student] = max(means)
    return [
        replace(result, best=True)
        if result.worst.ours is not None and result.worst.ours.mean == best.get(result.cell.student)
        else result
        for result in results
    ]


def _printed(plan: TablePlan, cell: Cell) -> PrintedCell | None:
    layout, row = plan.layout, cell.row
    student = {"none": "", "group-dro": "", "post-shift": layout.teacher}.get(row.method, cell.student)
    key = (layout.number, layout.data, layout.teacher, student, row.method, cell.column, row.objective, row.labels)
    return cells().get(key)


def _estimate(found: Sequence[SplitMetrics], metric: str) -> Estimate | None:
    return estimate([measure(metrics, metric) for metrics in found])


def _by_temperature(jobs: Sequence[Job]) -> dict[Pair, list[Job]]:
    found: dict[Pair, list[Job]] = defaultdict(list)
    for job in jobs:
        found[job.temperature, job.validation_temperature].append(job)
    return found


def _second(pair: Pair, jobs: Sequence[Job]) -> float | None:
    """The temperature of the teacher's validation labels as records have it: in full, where there are such labels."""
    return pair[1] or pair[0] if jobs[0].validation_labels == "teacher" else None


def _point(
    teacher: str, student: str | None, pair: Pair | None, records: Sequence[Record], *, chosen: bool
) -> Point | None:
    test = [record.metrics.test for record in records if record.metrics.test is not None]
    val = [record.metrics.val for record in records if record.metrics.val is not None]
    standard, worst = _estimate(test, "standard"), _estimate(test, "worst_class")
    if standard is None or worst is None:
        return None
    return Point(teacher, student, pair, standard, worst, chosen, _estimate(val, "worst_class"))
