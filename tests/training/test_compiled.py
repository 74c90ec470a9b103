from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import robustdistill as rd
from robustdistill.errors import InputError
from robustdistill.training import setup
from robustdistill.training.run import Run
from robustdistill.training.targets import OneHotTargets
from training.problems import assert_same_run, picture_splits, short

# Two batches of one size, so that one program is compiled.
COMPILED = short(epochs=2, milestones=(), batch_size=19, every=1, execution="compiled")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def trained(model: str = "convnet-2", **settings: Any) -> Run:
    settings = {"recipe": COMPILED, "objective": "robust", "seed": 3, "progress": False, **settings}
    return rd.fit(model, *picture_splits(), **settings)


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="there is no C++ compiler")
def test_a_compiled_step_gives_the_numbers_of_an_eager_one(tmp_path: Path) -> None:
    """In losses, multipliers and weights; to the last bits, which are its own and the same every time."""
    compiled = trained(out=tmp_path / "run")
    eager = trained(recipe=COMPILED.with_(execution="eager"))
    assert compiled.spec.hash != eager.spec.hash
    for ours, theirs in zip(compiled.history, eager.history, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["multipliers"] == pytest.approx(theirs["multipliers"], rel=1e-5)
    for name, value in eager.model.state_dict().items():
        torch.testing.assert_close(compiled.model.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    assert_same_run(compiled, trained())
    assert_same_run(compiled, Run.load(tmp_path / "run"))


def test_without_a_compiler_it_is_refused_in_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # where nothing is compiled already
    monkeypatch.setattr(inductor, "fx_graph_cache", False)
    monkeypatch.setattr(inductor.cpp, "cxx", ("/nowhere/c++",))
    with pytest.raises(InputError, match=r"execution='compiled'.*leave it at 'eager'"):
        trained("convnet-3")


def test_several_processes_are_refused() -> None:
    train, _ = picture_splits()
    settings = (train, rd.Objective.parse("robust"), COMPILED, rd.methods.get("margin"), OneHotTargets(), 0)
    choices = {"risk": "zero-one", "scorer": "last"}
    with pytest.raises(InputError, match="'eager' where 2 processes"):
        setup.check_settings(*settings, 2, **choices)
    setup.check_settings(*settings, 1, **choices)
