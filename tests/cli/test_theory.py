from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from cli.typed import Command
from robustdistill.predictions import Predictions
from robustdistill.theory import gaussian_mixture, plan, teacher_fitness
from theory.test_study import runs


@pytest.fixture
def command(command: Command) -> Command:
    """Runs `robustdistill theory ARGUMENTS` in an empty folder."""
    return partial(command, "theory")


NUMBERS = ("--gap", "1", "--bound", "2", "--Z", "10", "--classes", "10")


def test_plan_prints_what_the_library_says(command: Command) -> None:
    expected = plan(1.0, 2.0, 10.0, 10, 0.05)
    code, out, _ = command("plan", *NUMBERS)
    assert code == 0
    assert f"{expected.updates:,}" in out
    assert f"{expected.step_size:.4g}" in out
    found = json.loads(command("plan", *NUMBERS, "--json")[1])
    assert (found["updates"], found["validation_size"]) == (expected.updates, expected.validation_size)
    assert found["terms"]["total"] <= 1.0
    assert "every scorer" in command("plan", "--gap", "2", *NUMBERS[2:])[1]


def test_plan_draws_a_figure(command: Command, tmp_path: Path) -> None:
    code, out, _ = command("plan", *NUMBERS, "--figure", "plots/eg.svg")
    assert code == 0
    assert "plots/eg.svg" in out
    assert "<svg" in (tmp_path / "plots/eg.svg").read_text()


def test_what_is_infeasible_is_refused(command: Command) -> None:
    for changes, message in (
        (("--approximation", "0.5"), "a better teacher or more data is needed"),
        (("--Z", "3"), "class priors sum to 1"),
        (("--figure", "eg.txt"), "--figure must end in"),
    ):
        code, _, err = command("plan", *NUMBERS, *changes)
        assert code == 2
        assert message in " ".join(err.split())


def test_fitness_of_a_table(command: Command, tmp_path: Path) -> None:
    problem = gaussian_mixture([-1.0, 0.0, 1.5], [0.5, 0.3, 0.2])
    instances, labels = problem.sample(300, seed=0)
    truth = problem.posteriors[instances]
    constant = np.tile(problem.priors, (300, 1))
    for name, rows, order in (("constant", constant, slice(None)), ("right", truth, slice(None, None, -1))):
        table = Predictions(np.arange(300)[order], rows[order], "probabilities", ("a", "b", "c"), labels[order])
        table.write(tmp_path / f"{name}.npz")
    code, out, _ = command("fitness", "constant.npz", "--beside", "right.npz")
    assert code == 0
    assert "largest estimate" in out
    with_second = json.loads(command("fitness", "constant.npz", "--beside", "right.npz", "--json")[1])
    table = Predictions.read(tmp_path / "constant.npz")
    expected = teacher_fitness(table, features=np.log(truth))
    assert with_second["score"] == pytest.approx(expected.score)
    assert with_second["score"] > 0.5
    assert "lies between lower and upper" in command("fitness", "constant.npz")[1]
    weighted = json.loads(command("fitness", "right.npz", "--priors", "80,10,10", "--json")[1])
    assert weighted["priors"] == pytest.approx([0.8, 0.1, 0.1])
    code, _, err = command("fitness", "constant.npz", "--priors", "1,2")
    assert code == 2
    assert "priors must be (3,)" in err


def test_teachers_of_a_folder_of_runs(command: Command, tmp_path: Path) -> None:
    runs(tmp_path / "runs", repeats=2)
    code, out, err = command("teachers", "runs", "--draws", "100")
    assert code == 0
    assert "teacher's worst class" in out
    assert err.count("robust students") == 6
    found = json.loads(command("teachers", "runs", "--draws", "100", "--json")[1])
    assert [cell["correlations"]["estimate, mean"]["teachers"] for cell in found["cells"]] == [6, 6]
    code, _, err = command("teachers", str(tmp_path / "nowhere"))
    assert code == 2
    assert "not a folder" in err
