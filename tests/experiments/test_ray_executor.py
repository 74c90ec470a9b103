from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.lasting import lasting
from robustdistill.environment import RUNS_HERE
from robustdistill.errors import InputError
from robustdistill.experiments.execute import run_all
from robustdistill.experiments.executors import make
from robustdistill.experiments.grid import DataSource, Grid
from robustdistill.training.recipe import Recipe

ray = pytest.importorskip("ray", reason="the [ray] extra is not installed")
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)

GRID = Grid(
    data=DataSource("digits-lt"),
    teachers=("convnet-4",),
    students=("convnet-2",),
    recipe=Recipe.named("digits-lt").with_(epochs=2, every=4),
    teacher_objectives=("robust",),
    student_objectives=("standard", "robust"),
    validation_labels=("one-hot",),
    repeats=1,
)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=80_000_000,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
    )
    yield
    ray.shutdown()


def test_ray_and_this_process_give_the_same_journal(tmp_path: Path) -> None:
    alone = run_all(GRID.jobs(), tmp_path / "local", command="a command")
    spread = run_all(GRID.jobs(), tmp_path / "ray", executor=make("ray", 1), command="a command")
    assert [outcome.error for outcome in spread] == [None] * 3
    assert {outcome.hash for outcome in spread} == {outcome.hash for outcome in alone}
    assert lasting(tmp_path / "ray") == lasting(tmp_path / "local")
    for outcome in alone:
        weights = [(tmp_path / where / outcome.hash / "model.safetensors").read_bytes() for where in ("ray", "local")]
        assert weights[0] == weights[1]


def test_runs_are_told_how_many_share_their_machine() -> None:
    with make("ray", 1) as at:
        at.submit(os.getenv, RUNS_HERE)
        assert at.wait(60) == [(RUNS_HERE, "2")]


def test_what_the_cluster_can_never_hold_is_refused() -> None:
    with pytest.raises(InputError, match="each run needs 64 CPUs"):
        make("ray", 1, threads=64).__enter__()
    with pytest.raises(InputError, match=r"1 CPUs and 0\.5 GPUs"):
        make("ray", 1, gpus_per_run=0.5).__enter__()
