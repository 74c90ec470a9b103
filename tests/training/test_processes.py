"""Several processes train one model: they give the numbers of one, alike on all, and end together."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import robustdistill as rd
from robustdistill.errors import InputError
from robustdistill.training import processes
from robustdistill.training.run import Run
from training import together

TESTS = Path(__file__).resolve().parents[1]


def launch(command: list[str], *arguments: str | Path, count: int = 2) -> subprocess.CompletedProcess[str]:
    """Runs a script, or "-m" and a module, in `count` processes of this machine, on a free port."""
    # Lightning, transformers and Ray leave variables behind in a process that used them, which launchers obey.
    left_behind = re.compile(
        r"ACCELERATE_|MASTER_|TORCHELASTIC_|PL_|RAY_|(LOCAL_|GROUP_|NODE_|ROLE_)?(RANK|WORLD_SIZE)"
    )
    environment = {
        **{name: value for name, value in os.environ.items() if not left_behind.match(name)},
        "PYTHONPATH": os.pathsep.join([str(TESTS), *(path for path in sys.path if path)]),
        "ACCELERATE_USE_CPU": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }
    return subprocess.run(
        [sys.executable, "-m", *command, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def accelerate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    options = (
        "--multi_gpu --num_processes 2 --num_machines 1 --main_process_port 0 --mixed_precision no --dynamo_backend no"
    )
    return launch(["accelerate.commands.launch", *options.split(), *map(str, arguments)])


def torchrun(count: int, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    options = f"--rdzv-backend c10d --rdzv-endpoint localhost:0 --nproc-per-node {count}"
    return launch(["torch.distributed.run", *options.split(), *map(str, arguments)])


def found_in(folder: Path, count: int = 2) -> list[dict[str, Any]]:
    return [torch.load(folder / f"{index}.pt", weights_only=False) for index in range(count)]


def differences(ours: Any, theirs: Any) -> list[float]:
    """Of all numbers in two nests of dicts and lists, which must have one shape."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        return [d for key in ours for d in differences(ours[key], theirs[key])]
    if isinstance(ours, list | tuple):
        assert len(ours) == len(theirs)
        return [d for pair in zip(ours, theirs, strict=True) for d in differences(*pair)]
    if isinstance(ours, Tensor):
        return [float((ours.double() - theirs.double()).abs().max())] if ours.numel() else []
    if isinstance(ours, str) or ours is None:
        assert ours == theirs
        return []
    return [abs(float(ours) - float(theirs))]


def assert_same(ours: Any, theirs: Any, within: float = 0.0) -> None:
    assert max(differences(ours, theirs), default=0.0) <= within


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = rd.data.load("digits-lt")
    folder = tmp_path_factory.mktemp("runs")
    recipe = rd.Recipe.named("digits-lt").with_(epochs=4)
    rd.fit("convnet-8", data.train, data.val, recipe=recipe, threads=1, progress=False, out=folder / "teacher")
    together.fitted(out=folder / "taken")
    return folder


@pytest.fixture(scope="module")
def two(teacher: Path) -> tuple[list[dict[str, Any]], subprocess.CompletedProcess[str]]:
    """What two processes find that `accelerate launch` starts."""
    done = accelerate(TESTS / "training" / "together.py", "exact", "digits", "several", teacher)
    assert (teacher / "0.pt").is_file(), done.stderr
    return found_in(teacher), done


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], list[str]]:
    """What three processes find that go on where three were killed, and what was said."""
    folder = tmp_path_factory.mktemp("three")
    script = TESTS / "training" / "together.py"
    first = torchrun(3, script, "killed", folder)
    assert first.returncode != 0
    assert sorted(path.name for path in (folder / "killed").iterdir()) == ["checkpoint.safetensors", "lease.json"]
    second = torchrun(3, script, "resumed", folder)
    assert second.returncode == 0, second.stderr
    assert sorted(path.name for path in (folder / "killed").iterdir()) == ["model.safetensors", "record.json"]
    return found_in(folder, 3), [first.stderr, second.stderr]


def test_the_numbers_are_those_of_one_process(two: Any, teacher: Path) -> None:
    """float64, every method, shares of different sizes, an unused layer: only a wrong formula would show."""
    alone = together.exact(teacher)
    assert len(alone) == 17
    for index, found in enumerate(two[0]):
        for name, run in alone.items():
            print(index, name)
            assert_same(run, found[name], within=1e-6)  # sums of losses are float32
            assert_same(run["weights"], found[name]["weights"], within=1e-10)
            assert_same(run["multipliers"], found[name]["multipliers"], within=1e-12)
    assert max(differences(alone["teacher"]["weights"], alone["samples"]["weights"])) > 1e-3  # it can tell runs apart


def test_float32_on_digits(two: Any, teacher: Path) -> None:
    """λ, class weights, recalls and counts to 1e-6, teacher's labels on validation included."""
    alone = together.digits(teacher)
    for found in two[0]:
        for name, run in alone.items():
            for ours, theirs in zip(run["history"], found[name]["history"], strict=True):
                measured = ours.keys() - {"loss", "class_weights"}
                assert_same({k: ours[k] for k in measured}, {k: theirs[k] for k in measured}, within=1e-6)
                assert np.allclose(ours["class_weights"], theirs["class_weights"], rtol=1e-6)
                assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
            assert_same(run["scores"], found[name]["scores"])
            assert run["history"][-1]["multipliers"] != run["history"][0]["multipliers"]


def test_processes_are_alike_bit_for_bit(two: Any, three: Any) -> None:
    for found in (two[0], three[0]):
        for other in found[1:]:
            for name, run in found[0].items():
                if isinstance(run, dict) and "weights" in run:
                    assert_same(run, other[name])
            assert_same(found[0].get("dropout", []), other.get("dropout", []))


def test_batch_norm_is_that_of_the_joined_batch(two: Any) -> None:
    """Shares of 5 and 1 rows: outputs, gradients and running statistics."""
    alone = together.joined()
    parts = [found["norm"] for found in two[0]]
    for shape, whole in alone.items():
        for key in ("y", "x", "evaluated"):
            assert_same(whole[key], torch.cat([part[shape][key] for part in parts]), within=1e-9)
        for part in parts:
            assert_same(whole["sums"], part[shape]["sums"], within=1e-9)
            assert_same(whole["state"], part[shape]["state"], within=1e-9)


def test_alone_it_is_torchs_batch_norm() -> None:
    joint = together.joined()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "JointBatchNorm", lambda: torch.autograd.set_grad_enabled(True))
        assert_same(together.joined(), joint, within=1e-9)


def test_dropout_is_drawn_apart_and_repeatably(two: Any) -> None:
    ours, theirs = two[0]
    assert_same(ours["dropout"][0], ours["dropout"][1])
    assert len(torch.cat([ours["masks"], theirs["masks"]]).unique(dim=0)) == 2 * len(ours["masks"])


def test_refusals_are_shared(two: Any) -> None:
    ours, theirs = two[0]
    for key in ("refused by all", "two runs", "batch of one", "diverged"):
        assert ours[key] == theirs[key], key
    assert re.search("InputError: .*taken already holds another run.*objective robust", ours["refused by all"])
    assert re.match("InputError: process 1: seed must lie in .* got -1", ours["refused by one"])
    assert re.match("InputError: seed must lie in .* got -1", theirs["refused by one"])
    assert re.match("InputError: all processes must train one run; 0 and 1 differ in seed 0 -> 1", ours["two runs"])
    assert re.match("InputError: 2 processes need at least 2 examples", ours["batch of one"])
    assert re.match("InputError: (device|process)", ours["device"])
    # Each has half of a batch of 7, and both name the examples of all of it.
    assert re.match(r"DivergedError: .* after step 2 \(epoch 1\), .* ids (\d+, ){6}\d+; lower", ours["diverged"])


def test_what_diverges_on_one_is_traced_by_all(two: Any) -> None:
    ours, theirs = two[0]
    assert ours["traced"] == theirs["traced"]
    assert re.match(r"DivergedError: .* is not finite for 1 of its [73] examples: id 1035; lower", ours["traced"])


def test_after_a_shared_error_they_go_on(two: Any) -> None:
    for found in two[0]:
        assert_same(found["teacher"], found["after"])


def test_a_failure_of_one_ends_all(two: Any) -> None:
    found, done = two
    assert found[0]["fails"] == "RuntimeError: process 1 of 2 failed: MemoryError: no room left"
    assert found[1]["fails"] == "MemoryError: no room left"
    for one in found:
        assert "InputError: the processes must be connected" in one["after that"]
    assert done.returncode == 1
    assert "process 1 of 2 failed: MemoryError: no room left" in done.stderr


def test_only_the_main_process_speaks_and_writes(two: Any, teacher: Path) -> None:
    found, _ = two
    assert sorted(path.name for path in (teacher / "written").iterdir()) == ["model.safetensors", "record.json"]
    assert json.loads((teacher / "written" / "record.json").read_text())["environment"]["processes"] == 2
    for one in found:
        assert_same(one["teacher"], one["written"])
        assert_same(one["teacher"], one["loaded"])


def test_killed_and_gone_on_with(three: Any) -> None:
    """And with batches of which one process gets nothing, as one process has them."""
    alone = together.summary(together.fitted(recipe=together.THREE))
    for found in three[0]:
        assert found["epochs"] == 2
        assert_same(found["whole"], found["resumed"])
        assert_same(alone["weights"], found["whole"]["weights"], within=1e-10)
        assert_same(alone, found["whole"], within=1e-6)


def test_a_buffer_that_moves_with_the_examples_is_refused(three: Any) -> None:
    for found in three[0]:
        assert "InputError: the model's 'seen' differs between processes" in found["buffers"]


def test_the_command(tmp_path: Path) -> None:
    """Under `accelerate launch`: one voice, one record; refused with an exit code, once."""
    done = accelerate(TESTS / "training" / "together.py", "command", tmp_path)
    assert done.returncode != 0
    (line,) = [line for line in done.stdout.splitlines() if not line.startswith("[Gloo]")]  # torch 2.9 says more
    assert json.loads(line)["hash"] == Run.load(tmp_path / "run").spec.hash
    assert done.stderr.count("already holds another run") == 1


def test_a_model_that_cannot_take_an_empty_share(monkeypatch: pytest.MonkeyPatch) -> None:
    class View(torch.nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.view(x.size(0), -1))

    model = View(36, 3)
    some = processes.Processes(1, 0, torch.device("cpu"))
    step = together.TrainStep(
        model, torch.optim.SGD(model.parameters()), rd.methods.get("margin"), some, precision="float32", seed=0
    )
    nothing = torch.zeros(0, dtype=torch.long)
    batch = together.Batch(nothing, nothing, torch.zeros(0, 1, 6, 6), 2, targets=nothing)
    with pytest.raises(InputError, match="a batch of 2 is too small for 1 processes: one has no example"):
        step(batch, torch.ones(3))


def test_a_launch_that_starts_one_process_is_pointed_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert processes.launched() == processes.Processes(1, 0, torch.device("cpu"))
    assert not caplog.records
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_PORT", "29500")
    processes.launched()
    assert "has started one process" in caplog.text
