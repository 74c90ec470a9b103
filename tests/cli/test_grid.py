from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import pytest

from cli.typed import Command
from experiments.test_group_grids import MODEL, birds
from robustdistill.cli.grid import merged
from robustdistill.cli.running import duration
from robustdistill.errors import InputError

FAST = ("--epochs", "2", "--repeats", "1", "--workers", "1", "--teacher-objectives", "robust")


@pytest.fixture
def grid(command: Command) -> Command:
    """Runs `robustdistill grid ARGUMENTS` in an empty folder: exit code, stdout, stderr."""
    return partial(command, "grid")


def test_a_dry_run_counts_and_trains_nothing(grid: Command, tmp_path: Path) -> None:
    code, out, _ = grid("--dry-run", "--json", "--fixed-teacher", "--repeats", "2", "--temperatures", "1,3")
    found = json.loads(out)
    assert code == 0
    assert {key: found[key] for key in ("teachers", "students", "runs", "done", "left")} == {
        **{"teachers": 3, "students": 2 * 3 * 4 * 2, "runs": 51},
        **{"done": 0, "left": 51},
    }
    assert found["seconds_left"] is None
    assert len({job["hash"] for job in found["jobs"]}) == 51
    assert list(tmp_path.iterdir()) == []
    code, out, err = grid("--dry-run", "--repeats", "1")
    assert "15 runs (3 teachers, 12 students): 0 done, 0 failed, 0 interrupted, 0 running, 15 left." in out
    assert "no estimate" in err


def test_a_grid_is_run_reported_and_gone_on_with(grid: Command, tmp_path: Path) -> None:
    code, out, err = grid(*FAST, "--student-objectives", "robust")
    assert code == 0, err
    assert "digits-lt: 3 runs (1 teachers, 2 students), 1 at a time" in out
    assert "3 of 3 runs done" in err
    assert (tmp_path / "runs/grid/index.html").is_file()
    records = sorted((tmp_path / "runs/grid/runs").glob("*/record.json"))
    assert all(re.fullmatch(r"[0-9a-f]{12}", path.parent.name) for path in records)
    written = [path.stat().st_mtime_ns for path in records]
    more = (*FAST, "--student-objectives", "robust,balanced")
    found = json.loads(grid(*more, "--dry-run", "--json")[1])
    assert (found["runs"], found["done"], found["left"]) == (4, 3, 1)
    assert found["seconds_left"] > 0
    assert grid(*more)[0] == 0
    assert [path.stat().st_mtime_ns for path in records] == written
    # The plan that was written means the same grid.
    again = json.loads(grid("--plan", "runs/grid/plan.yaml", "--dry-run", "--json")[1])
    assert (again["runs"], again["done"]) == (4, 4)


def test_replicas_are_trained_as_one_stack(grid: Command, tmp_path: Path) -> None:
    code, out, err = grid(*FAST, "--student-objectives", "robust", "--replicas", "2")
    assert code == 0, err
    assert "digits-lt: 3 runs (1 teachers, 2 students), 2 at a time" in out
    records = [json.loads(path.read_text()) for path in (tmp_path / "runs/grid/runs").glob("*/record.json")]
    assert sorted(record["environment"]["replicas"] for record in records) == [1, 2, 2]


def test_a_failure_ends_with_1_and_is_tried_again_when_asked(grid: Command) -> None:
    wild = (*FAST, "--student-objectives", "none", "--learning-rate", "1e30")
    code, _, err = grid(*wild)
    assert code == 1
    assert "failed teacher_convnet-16_robust_r0: DivergedError" in err
    code, out, err = grid(*wild)
    assert code == 1
    assert "--retry-failed" in out
    assert json.loads(grid(*wild, "--dry-run", "--json")[1])["failed"] == 1
    assert "--retry-failed" not in grid(*wild, "--retry-failed")[1]


def test_finished_runs_are_copied_where_they_are_wanted(grid: Command, tmp_path: Path) -> None:
    assert grid(*FAST, "--student-objectives", "none", "--upload", f"file://{tmp_path}/copy")[0] == 0
    assert len(list((tmp_path / "copy").glob("*/record.json"))) == 1
    code, _, err = grid(*FAST, "--upload", "nothing://there")
    assert (code, "--upload nothing://there" in err) == (2, True)


def test_a_grid_over_groups_from_the_options_to_the_report(command: Command, grid: Command, tmp_path: Path) -> None:
    birds(tmp_path / "birds.parquet")
    model = ("--teachers", MODEL, "--students", MODEL, "--batch-size", "64", "--every", "4", *FAST)
    options = ("--data", "parquet:birds.parquet", "--group-column", "ground", "--groups", "class-group", *model)
    planned = grid(*options, "--dry-run", "--json")
    found = json.loads(planned.out)
    assert (found["plan"]["groups"], found["plan"]["data"]["group_column"]) == ("class-group", "ground")
    assert all("by-class-group" in job["name"] for job in found["jobs"])
    assert "groups: class-group" in grid(*options, "--dry-run").out
    done = grid(*options, "--json")
    assert done.code == 0, done.err
    assert {(cell["groups"], cell["worst_metric"]) for cell in json.loads(done.out)["cells"]} == {
        ("class-group", "worst_group")
    }
    again = json.loads(grid("--plan", "runs/grid/plan.yaml", "--allow-code", "--dry-run", "--json").out)
    assert (again["runs"], again["done"]) == (found["runs"], found["runs"])
    by_class = grid(*options[:4], *model, "--student-objectives", "none", "-q")  # into the same folder
    assert by_class.code == 0, by_class.err
    report = json.loads(command("report", "runs/grid/runs", "--json").out)
    assert {cell["worst_metric"]: cell["groups"] for cell in report["cells"]} == {
        "worst_class": "class",
        "worst_group": "class-group",
    }
    assert {claim["reason"] for claim in report["claims"] if "by group" in claim["panel"]} == {
        "These runs are over groups, the claims are about classes."
    }
    shown = command("report", "runs/grid/runs").out
    assert "by group within each class: worst-group accuracy" in " ".join(shown.split())
    assert "its worst group right" in shown


def test_options_replace_what_a_plan_says(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text('data = "cifar10-lt"\nrepeats = 10\nstudents = "resnet32"\nrecipe = {epochs = 30}\n')
    found = merged(path, {"repeats": 2}, {"ratio": 10.0}, {"batch_size": 64}).grid()
    assert (found.data.name, found.data.ratio) == ("cifar10-lt", 10.0)
    assert (found.repeats, found.students) == (2, ("resnet32",))
    assert (found.recipe.name, found.recipe.epochs, found.recipe.batch_size) == ("cifar10-lt", 30, 64)
    named = merged(path, {"data": "digits-lt"}, {}, {"name": "default"}).grid()
    assert (named.data.name, named.recipe.name, named.recipe.epochs) == ("digits-lt", "default", 30)
    path.write_text("data = 3\n")
    with pytest.raises(InputError, match="data"):
        merged(path, {}, {"ratio": 2.0}, {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--plan", "missing.yaml"), "missing.yaml cannot be read"),
        (("--temperatures", "1,x"), "--temperatures must be numbers"),
        (("--teacher-objectives", "rubust"), "did you mean 'robust'"),
        (("--data", "digit-lt"), "digits-lt"),
        (("--teachers", "resnet7"), "6n+2"),
        (("--groups", "group"), "has no group column"),
        (("--groups", "group", "--methods", "dkd"), "groups have no effect on method 'dkd'"),
        (("--groups", "country"), "country"),
    ],
)
def test_bad_input_exits_2(grid: Command, arguments: tuple[str, ...], message: str) -> None:
    code, _, err = grid(*arguments)
    assert code == 2
    assert message in err


def test_durations_are_for_people() -> None:
    assert [duration(s) for s in (4, 89, 150, 3660, 60 * 60 * 50)] == ["4 s", "89 s", "2 min", "1 h 1 min", "2 d 2 h"]
