from __future__ import annotations

import pytest

from experiments.paper.runs import figure, table
from robustdistill.errors import InputError
from robustdistill.experiments.grid import Job
from robustdistill.experiments.paper import layouts
from robustdistill.experiments.paper.plan import counts, trade_offs

T = 3  # temperatures 1, 3, 5
PAIRS = 2 * T  # (T, T) and (T, 0.1), where the teacher labels validation
ROBUST = PAIRS + T  # a robust student for either kind of validation labels
BALANCED_DATA = T + ROBUST  # standard and robust students of one teacher, once
LONG_TAIL = T + T + ROBUST  # balanced ones too

# Teachers' objectives times retrained teachers; then teachers' objectives, students of each, repeats.
TABLES = {
    (1, "cifar10"): (2 * 10, 2 * BALANCED_DATA * 10),
    (1, "cifar100"): (2 * 10, 2 * BALANCED_DATA * 10),
    (1, "cifar10-lt"): (3 * 10, 3 * LONG_TAIL * 10 + 3 * T * 10),  # with AdaMargin: 450 + 90
    (1, "cifar100-lt"): (3 * 10, 3 * LONG_TAIL * 10 + 3 * T * 10),
    (1, "tinyimagenet"): (2 * 5, 2 * BALANCED_DATA * 5),
    (2, "cifar10"): (2 * 10, 2 * BALANCED_DATA * 10),  # a teacher for each repeat
    (2, "cifar100"): (2 * 10, 2 * BALANCED_DATA * 10),
    (2, "cifar10-lt"): (3 * 10, 3 * LONG_TAIL * 10),
    (2, "cifar100-lt"): (3 * 10, 3 * LONG_TAIL * 10),
    (3, "cifar10"): (2, 2 * (T + T) * 3),  # AdaAlpha and AdaMargin of the fixed teachers
    (3, "cifar100"): (2, 2 * (T + T) * 3),
    (3, "tinyimagenet"): (2, 2 * (T + T) * 3),
    (3, "cifar10-lt"): (3, 3 * T * 3),  # AdaAlpha only
    (3, "cifar100-lt"): (3, 3 * T * 3),
    (4, "tinyimagenet-lt"): (3 * 5, 3 * LONG_TAIL * 5 + 3 * (T + T) * 5),
    (6, "cifar10"): (2, 2 * BALANCED_DATA * 10),  # only the fixed teachers
    (6, "cifar100"): (2, 2 * BALANCED_DATA * 3),
    (6, "cifar10-lt"): (3, 3 * LONG_TAIL * 10),
    (6, "cifar100-lt"): (3, 3 * LONG_TAIL * 10),
    (7, "imagenet"): (2, 2 * 2 * (T + T) * 5),  # two architectures; standard, and robust with one-hot labels
    (8, "imagenet-lt"): (2, 2 * 2 * (T + T) * 5),  # balanced, and robust with one-hot labels
}


def test_the_table_that_is_counted_in_the_method() -> None:
    assert counts(table(1, "cifar10-lt")) == {"teachers": 30, "students": 540, "runs": 570}


@pytest.mark.parametrize(("number", "data"), list(TABLES))
def test_how_many_models_a_table_needs(number: int, data: str) -> None:
    teachers, students = TABLES[number, data]
    assert counts(table(number, data)) == {"teachers": teachers, "students": students, "runs": teachers + students}


def test_all_pairs_are_counted_here() -> None:
    pairs = {(n, d) for n in range(1, 9) for d in layouts.data_of(f"table{n}")}
    assert pairs == {*TABLES, *((5, data) for data in layouts.data_of("table5"))}


@pytest.mark.parametrize("data", layouts.data_of("table5"))
def test_group_dro_has_neither_teachers_nor_students(data: str) -> None:
    repeats = 5 if data.startswith("tiny") else 10
    runs = 2 * repeats  # without and with validation
    assert counts(table(5, data)) == {"teachers": 0, "students": 0, "baselines": runs, "runs": runs}
    methods = {job.method for job in table(5, data).jobs}
    assert methods == {"group-dro", "group-dro:validation=True"}


@pytest.mark.parametrize("number", range(1, 9))
def test_how_many_models_a_panel_of_a_figure_needs(number: int) -> None:
    """7 objectives of teachers and of students: 6 α and standard. 5 of them, α > 0, have multipliers to label."""
    data = layouts.data_of(f"figure{number}")[0]
    one_hot = 7 * 7 * T * 10
    by_teacher = 7 * (5 * PAIRS + 2 * T) * 10
    students = by_teacher if number in (3, 4, 6, 8) else one_hot
    assert one_hot == 1470
    assert counts(figure(number, data)) == {"teachers": 7 * 10, "students": students, "runs": 70 + students}


def test_a_smaller_grid_of_alphas() -> None:
    plan = figure(1, "cifar10-lt", repeats=2, alphas=(1, 0.5))
    assert list(plan.teachers) == ["standard", "tradeoff:0.5", "robust"]
    assert counts(plan) == {"teachers": 3 * 2, "students": 3 * 3 * T * 2, "runs": 6 + 54}
    assert trade_offs((0, 0.0, 1)) == ["standard", "balanced", "robust"]


def test_a_job_comes_once_and_after_its_teacher() -> None:
    for plan in (table(1, "cifar10-lt"), table(2, "cifar10"), table(7, "imagenet"), figure(3, "cifar10-lt")):
        seen: set[Job] = set()
        for job in plan.jobs:
            assert job.teacher is None or job.teacher in seen
            assert job not in seen
            seen.add(job)


def test_one_fixed_teacher_or_one_for_each_repeat() -> None:
    fixed = [job for job in table(1, "cifar10-lt").jobs if job.teacher is not None]
    assert {job.teacher.repeat for job in fixed if job.teacher} == {0}
    assert {job.repeat for job in fixed} == set(range(10))
    own = [job for job in table(2, "cifar10-lt").jobs if job.teacher is not None]
    assert all(job.teacher is not None and job.teacher.repeat == job.repeat for job in own)


def test_tables_share_what_they_have_in_common() -> None:
    """Table 2's teachers are Table 1's ten; its students of repeat 0 are Table 1's; Table 6 is in Figure 1."""
    first, second = set(table(1, "cifar10-lt").jobs), set(table(2, "cifar10-lt").jobs)
    assert {job for job in second if job.teacher is None} <= first
    assert {job for job in second if job.repeat == 0} <= first
    sixth = {job for job in table(6, "cifar10-lt").jobs if job.validation_labels == "one-hot"}
    assert sixth <= set(figure(1, "cifar10-lt").jobs)


def test_seeds_differ_over_repeats_and_between_teachers_and_students() -> None:
    jobs = table(1, "cifar10-lt").jobs
    assert {job.seed for job in jobs if job.teacher is None}.isdisjoint({job.seed for job in jobs if job.teacher})
    for job in jobs:
        assert job.seed % 1000 == job.repeat


def test_temperatures_and_validation_labels() -> None:
    jobs = table(1, "cifar10-lt").jobs
    labelled = {(j.temperature, j.validation_temperature) for j in jobs if j.validation_labels == "teacher"}
    assert labelled == {(t, second) for t in (1.0, 3.0, 5.0) for second in (None, 0.1)}
    assert {j.objective for j in jobs if j.validation_labels == "teacher"} == {"robust"}
    margins = {(j.objective, j.temperature, j.validation_labels) for j in jobs if j.method == "ada-margin"}
    assert margins == {("standard", t, "one-hot") for t in (1.0, 3.0, 5.0)}
    # In a figure that is labelled by teachers, what has no multipliers is labelled by nobody.
    none = [j for j in figure(3, "cifar10-lt").jobs if j.teacher and j.objective in ("standard", "balanced")]
    assert {(j.validation_labels, j.validation_temperature) for j in none} == {("one-hot", None)}


def test_post_shift_takes_the_undistilled_models() -> None:
    plan = table(4, "tinyimagenet-lt")
    by_row = {(cell.row.method, cell.column): cell.jobs for cell in plan.cells}
    for column in plan.layout.columns:
        assert by_row["post-shift", column] == by_row["none", column]
        assert len(by_row["none", column]) == 5


def test_bad_repeats_and_alphas_are_refused() -> None:
    with pytest.raises(InputError, match="repeats must be at least 1, got 0"):
        table(1, "cifar10", repeats=0)
    for alphas in ((), (0.5, 1.5), (-0.1,)):
        with pytest.raises(InputError, match="alphas= must be numbers from 0 to 1"):
            figure(1, "cifar10-lt", alphas=alphas)
