from __future__ import annotations

import pickle
import re
from typing import Any

import pytest

from robustdistill import data
from robustdistill.errors import InputError
from robustdistill.experiments.grid import DataSource, Grid, Job, specs
from robustdistill.training.distill import distill
from robustdistill.training.fit import fit
from robustdistill.training.recipe import Recipe


def grid(**changes: Any) -> Grid:
    settings: dict[str, Any] = {
        "data": DataSource("digits-lt"),
        "teachers": ("convnet-16",),
        "students": ("convnet-8",),
        "recipe": Recipe.named("digits-lt"),
        "repeats": 1,
        **changes,
    }
    return Grid(**settings)


def split(jobs: list[Job]) -> tuple[list[Job], list[Job]]:
    return [job for job in jobs if job.teacher is None], [job for job in jobs if job.teacher is not None]


def test_how_many_runs() -> None:
    """Each of 3 teachers has a standard and a balanced student, and a robust one for either kind of labels."""
    teachers, students = split(grid().jobs())
    assert (len(teachers), len(students)) == (3, 12)


@pytest.mark.parametrize(
    ("changes", "teachers", "students"),
    [
        ({"repeats": 3}, 9, 36),
        ({"temperatures": (1.0, 3.0, 5.0)}, 3, 36),
        ({"validation_labels": ("teacher",)}, 3, 9),
        ({"student_objectives": ("standard", "balanced")}, 3, 6),
        ({"teacher_objectives": ("robust",), "student_objectives": ("tradeoff:0.5",)}, 1, 2),
    ],
)
def test_how_many_runs_with_settings(changes: dict[str, Any], teachers: int, students: int) -> None:
    found = split(grid(**changes).jobs())
    assert (len(found[0]), len(found[1])) == (teachers, students)


BIG = {
    "data": DataSource("npz:/data/mine.npz"),
    "teachers": ("my.package.models:big_net", "convnet-16"),
    "students": ("my.package.models:small_net", "convnet-8"),
    "teacher_objectives": ("standard", "balanced", "robust", "tradeoff:0.25", "standard-tradeoff:0.25"),
    "student_objectives": ("standard", "balanced", "robust", "tradeoff:0.25", "standard-tradeoff:0.25"),
    "temperatures": (0.1, 1.0, 3.0),
    "validation_temperatures": (None, 0.1),
    "repeats": 2,
}


def test_names_are_unique_and_safe_on_any_file_system() -> None:
    names = [job.name for job in grid(**BIG).jobs()]
    assert len({name.lower() for name in names}) == len(names)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name), name
        assert len(name) < 200


def test_names_say_what_a_run_is() -> None:
    names = {job.name for job in grid(temperatures=(3.0,)).jobs()}
    assert "teacher_convnet-16_robust_r0" in names
    assert "student_convnet-8_robust_from_convnet-16_robust_T3_teacher-val_r0" in names
    assert "student_convnet-8_standard_from_convnet-16_balanced_T3_r0" in names


def test_one_model_as_teacher_and_student_has_two_names() -> None:
    names = [job.name for job in grid(students=("convnet-16",)).jobs()]
    assert len(set(names)) == len(names)


def test_teachers_come_before_their_students() -> None:
    jobs = grid(**BIG).jobs()
    for index, job in enumerate(jobs):
        assert job.teacher is None or job.teacher in jobs[:index]
    assert len(set(jobs)) == len(jobs)


def test_objectives_of_one_meaning_are_trained_once() -> None:
    several = ("robust", "tradeoff:1", "standard-tradeoff:1.0", "standard", "standard-tradeoff:0", "tradeoff:0.0")
    jobs = grid(teacher_objectives=several, student_objectives=several).jobs()
    assert (
        jobs
        == grid(
            teacher_objectives=("robust", "standard", "balanced"), student_objectives=("robust", "standard", "balanced")
        ).jobs()
    )
    assert len(jobs) == 15


@pytest.mark.parametrize(
    "changes", [{"temperatures": (1.0, 1, 1.0)}, {"validation_labels": ("teacher", "one-hot") * 2}]
)
def test_a_setting_given_twice_is_one(changes: dict[str, Any]) -> None:
    assert grid(**changes).jobs() == grid().jobs()


def test_students_are_paired_with_the_teacher_of_their_repeat() -> None:
    jobs = grid(repeats=3).jobs()
    teachers, students = split(jobs)
    for job in students:
        assert job.teacher is not None
        assert (job.teacher.repeat, job.teacher.model, job.model) == (job.repeat, "convnet-16", "convnet-8")
        assert (job.teacher.data, job.teacher.recipe, job.threads) == (job.data, job.recipe, job.teacher.threads)
    assert {job.seed for job in teachers}.isdisjoint({job.seed for job in students})
    assert len({job.seed for job in students}) == 3


def test_a_fixed_teacher_teaches_every_repeat() -> None:
    """The paper's Table 1: 3 teachers in all, whose students differ in their seeds."""
    teachers, students = split(grid(repeats=3, fixed_teacher=True).jobs())
    assert [job.repeat for job in teachers] == [0, 0, 0]
    assert len(students) == 36
    assert {job.teacher for job in students} == set(teachers)
    own = split(grid(repeats=3).jobs())[1]
    assert sorted(job.seed for job in students) == sorted(job.seed for job in own)


def test_every_teacher_model_meets_every_student_model() -> None:
    teachers, students = split(grid(teachers=("convnet-16", "convnet-4"), students=("convnet-8", "convnet-2")).jobs())
    assert len(teachers) == 6
    assert len(students) == 6 * 2 * 4
    pairs = {(job.teacher.model, job.model) for job in students if job.teacher is not None}
    assert len(pairs) == 4


def test_validation_has_a_temperature_of_its_own_where_the_teacher_labels_it() -> None:
    _, students = split(grid(temperatures=(1.0, 3.0), validation_temperatures=(None, 0.1)).jobs())
    robust = [
        job for job in students if job.objective == "robust" and job.teacher and job.teacher.objective == "robust"
    ]
    pairs = [(job.validation_labels, job.temperature, job.validation_temperature) for job in robust]
    by_teacher = [(temperature, cooler) for labels, temperature, cooler in pairs if labels == "teacher"]
    assert by_teacher == [(1.0, None), (1.0, 0.1), (3.0, None), (3.0, 0.1)]
    assert [pair for pair in pairs if pair[0] == "one-hot"] == [("one-hot", 1.0, None), ("one-hot", 3.0, None)]
    # The same temperature twice is one run.
    assert len(grid(validation_temperatures=(None, 1.0)).jobs()) == len(grid().jobs())


def test_specs_are_those_of_the_runs() -> None:
    jobs = grid(
        teachers=("convnet-4",),
        students=("convnet-2",),
        recipe=Recipe.named("digits-lt").with_(epochs=1, every=4),
        temperatures=(2.0,),
        validation_temperatures=(None, 0.1),
    ).jobs()
    splits = data.load("digits-lt")
    found = specs(jobs, splits)
    assert list(found) == jobs
    assert len({spec.hash for spec in found.values()}) == len(jobs)
    teacher, student = jobs[0], next(job for job in jobs if job.validation_temperature == 0.1)
    assert student.teacher == teacher
    common = {"recipe": teacher.recipe, "threads": 1, "progress": False}
    run = fit(teacher.model, splits.train, splits.val, objective=teacher.objective, seed=teacher.seed, **common)
    distilled = distill(
        run,
        student.model,
        splits.train,
        splits.val,
        temperature=2.0,
        validation_temperature=0.1,
        seed=student.seed,
        **common,
    )
    assert run.spec == found[teacher]
    assert distilled.spec == found[student]


def test_students_without_multipliers_have_no_validation_labels_to_choose() -> None:
    _, students = split(grid().jobs())
    assert [job.validation_labels for job in students if job.objective != "robust"] == ["one-hot"] * 6
    robust = sorted(job.validation_labels for job in students if job.objective == "robust")
    assert robust == ["one-hot"] * 3 + ["teacher"] * 3


def test_jobs_travel_to_other_processes() -> None:
    jobs = grid(repeats=2).jobs()
    assert pickle.loads(pickle.dumps(jobs)) == jobs


def test_unknown_objectives_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'robust'"):
        grid(student_objectives=("rubust",)).jobs()


def test_other_methods_join_the_grid() -> None:
    plan = Grid(
        data=DataSource("digits-lt"),
        teachers=("convnet-4",),
        students=("convnet-2",),
        recipe=Recipe(),
        teacher_objectives=("standard", "robust"),
        student_objectives=("standard",),
        methods=("ada-margin:scale=2.0", "dkd", "group-dro"),
        temperatures=(1.0, 3.0),
        repeats=1,
    )
    jobs = plan.jobs()
    count = {method: sum(job.method == method for job in jobs) for method in ("margin", *plan.methods)}
    # A student of each teacher at each temperature; DKD has a temperature of its own; group DRO has no teacher.
    assert count == {"margin": 2 + 4, "ada-margin:scale=2.0": 4, "dkd": 2, "group-dro": 1}
    assert len({job.name for job in jobs}) == len(jobs)
    assert not [job.name for job in jobs if set(job.name) & set(":/ ")]
    assert [job.teacher for job in jobs if job.method == "group-dro"] == [None]
    assert [job.name for job in jobs if job.name.startswith("alone_")] == ["alone_convnet-2_group-dro_r0"]
    assert {job.model for job in jobs if job.name.startswith("teacher_")} == {"convnet-4"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperatures": (1.0, 0.0)}, "temperatures must be positive"),
        ({"temperatures": (float("nan"),)}, "temperatures must be positive"),
        ({"temperatures": (float("inf"),)}, "temperatures must be positive"),
        ({"teacher_objectives": ("robust", "tradeoff:2")}, "objective 'tradeoff:2'"),
        ({"validation_labels": ("teachers",)}, "did you mean 'teacher'"),
        ({"methods": ("dkd", "ada-margn")}, "did you mean 'ada-margin'"),
        ({"methods": ("ada-margin:scal=2",)}, "setting of method ada-margin"),
        ({"validation_temperatures": (0.0,)}, "temperatures must be positive"),
        ({"temperatures": ()}, "temperatures must be a list"),
        ({"teachers": "convnet-16"}, "teachers must be a list"),
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"threads": 0}, "threads must be at least 1"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        grid(**changes)
