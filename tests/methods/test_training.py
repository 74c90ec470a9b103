"""Every method through the whole loop: two epochs of the embedded digits, with a teacher where it needs one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import robustdistill as rd
from robustdistill import methods
from robustdistill.data.splits import Splits
from robustdistill.errors import InputError
from robustdistill.training import checkpoint
from robustdistill.training.recipe import Recipe
from robustdistill.training.run import Run
from robustdistill.training.step import TrainStep
from training.problems import assert_same_run

SHORT = Recipe(epochs=2, batch_size=64, learning_rate=0.05, every=2)


@pytest.fixture(scope="module")
def data() -> Splits:
    return rd.data.load("digits-lt")


@pytest.fixture(scope="module")
def teacher(data: Splits) -> Run:
    return rd.fit("convnet-4", data.train, data.val, recipe=SHORT, seed=1, progress=False)


def trained(text: str, data: Splits, teacher: Run, **settings: Any) -> Run:
    settings = {"objective": "standard", "recipe": SHORT, "seed": 2, "progress": False, "method": text, **settings}
    if methods.get(text).needs_teacher:
        return rd.distill(teacher, "convnet-2", data.train, data.val, temperature=2.0, **settings)
    return rd.fit("convnet-2", data.train, data.val, **settings)


@pytest.mark.parametrize(
    "text", [*methods.known(), "group-dro:validation=true,adjustment=1.0", "group-dro:uniform=false"]
)
def test_two_epochs(text: str, data: Splits, teacher: Run) -> None:
    run = trained(text, data, teacher)
    assert run.spec.method == methods.text_of(methods.get(text))
    assert len(run.history) == 2
    assert all(0 < epoch["loss"] < 1e3 for epoch in run.history)
    assert_same_run(run, trained(text, data, teacher))


@pytest.mark.parametrize(
    "text", ["group-dro:eta=0.1", "group-dro:eta=0.1,validation=true", "ldam-drw:deferred=0.5", "dkd:warmup=1.0"]
)
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(
    text: str, data: Splits, teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", -1.0)
    recipe = SHORT.with_(epochs=4)
    whole, original, done = trained(text, data, teacher, recipe=recipe), TrainStep.__call__, 0

    def step(self: TrainStep, *arguments: Any) -> Any:
        nonlocal done
        done += 1
        if done > 14:  # within the third epoch, of five steps
            raise KeyboardInterrupt
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "__call__", step)
        with pytest.raises(KeyboardInterrupt):
            trained(text, data, teacher, recipe=recipe, out=tmp_path)
    assert (tmp_path / checkpoint.CHECKPOINT).exists()
    assert_same_run(whole, trained(text, data, teacher, recipe=recipe, out=tmp_path))


@pytest.mark.parametrize("name", ["group-dro", "ldam-drw"])
def test_methods_on_labels_refuse_distillation(name: str, data: Splits, teacher: Run) -> None:
    with pytest.raises(InputError, match=f"method {name} learns from labels alone"):
        rd.distill(
            teacher, "convnet-2", data.train, data.val, objective="standard", method=name, recipe=SHORT, progress=False
        )


@pytest.mark.parametrize("name", [name for name, method in methods.known().items() if not method.uses_costs])
def test_methods_with_an_objective_of_their_own_refuse_another(name: str, data: Splits, teacher: Run) -> None:
    with pytest.raises(InputError, match=f"method '{name}' has its own objective"):
        trained(name, data, teacher, objective="robust")
