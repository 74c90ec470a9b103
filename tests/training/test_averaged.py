"""The averaged scorer: f̄ is the mean of the iterates' logits, over a bounded number of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import robustdistill as rd
from robustdistill.errors import InputError
from robustdistill.models.averaged import LIMIT, AveragedScorer, Iterates
from robustdistill.training import checkpoint
from robustdistill.training.progress import EpochProgress
from training.problems import assert_same_weights, picture_splits, short


def numbered(value: float) -> nn.Module:
    model = nn.Linear(2, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


@pytest.mark.parametrize("offers", [1, 2, LIMIT, LIMIT + 1, 5 * LIMIT + 3, 1000])
def test_iterates_are_few_and_evenly_spaced(offers: int) -> None:
    iterates = Iterates()
    for index in range(1, offers + 1):
        iterates.offer(numbered(index))
    kept = [int(state["bias"][0]) for state in iterates.kept]
    assert 0 < len(kept) <= LIMIT
    assert len(kept) >= min(offers, LIMIT // 2)
    assert kept == [iterates.stride * (index + 1) for index in range(len(kept))]
    assert kept[-1] > offers - iterates.stride


def test_the_scorer_is_the_mean_of_logits() -> None:
    iterates, x = Iterates(), torch.randn(5, 2)
    models = [nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3)) for _ in range(3)]
    for model in models:
        iterates.offer(model)
    expected = sum(model(x) for model in models) / 3
    torch.testing.assert_close(iterates.scorer(models[0])(x), expected)


def settings() -> dict[str, object]:
    return {"objective": "robust", "recipe": short(epochs=4, milestones=(), every=2), "seed": 3, "progress": False}


def test_a_run_with_it_is_saved_and_loaded(tmp_path: Path) -> None:
    train, val = picture_splits()
    run = rd.fit("convnet-2", train, val, scorer="averaged", out=tmp_path / "run", **settings())
    assert isinstance(run.model, AveragedScorer)
    assert 1 < len(run.model.iterates) <= LIMIT
    assert run.scores.correct.tolist() == rd.evaluate(run, val).correct.tolist()
    assert_same_weights(run.model, rd.Run.load(tmp_path / "run").model)
    last = rd.fit("convnet-2", train, val, **settings())
    assert last.spec.hash != run.spec.hash
    assert [epoch["loss"] for epoch in last.history] == [epoch["loss"] for epoch in run.history]


def test_an_interrupted_one_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, val = picture_splits()
    whole = rd.fit("convnet-2", train, val, scorer="averaged", **settings())
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", -1.0)
    update = EpochProgress.update

    def stop_after_three(self: EpochProgress, record: dict[str, object]) -> None:
        update(self, record)
        if record["epoch"] == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(EpochProgress, "update", stop_after_three)
        with pytest.raises(KeyboardInterrupt):
            rd.fit("convnet-2", train, val, scorer="averaged", out=tmp_path, **settings())
    resumed = rd.fit("convnet-2", train, val, scorer="averaged", out=tmp_path, **settings())
    assert_same_weights(whole.model, resumed.model)


def test_an_unknown_scorer_is_refused() -> None:
    with pytest.raises(InputError, match="unknown scorer 'mean'"):
        rd.fit("convnet-2", *picture_splits(), scorer="mean", progress=False)
