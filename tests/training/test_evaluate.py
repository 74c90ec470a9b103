from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import robustdistill as rd
from robustdistill.errors import InputError
from robustdistill.predictions import Predictions
from robustdistill.training import evaluate as evaluate_module
from robustdistill.training.run import Run
from training.problems import Dropout, picture_splits, pictures, short


@pytest.fixture(scope="module")
def run() -> Run:
    train, val = picture_splits()
    return rd.fit("convnet-4", train, val, objective="balanced", recipe=short(), progress=False)


TEST = pictures("toy/test", (9, 8, 7), seed=5)


def test_predictions_carry_ids_names_and_labels(run: Run) -> None:
    table = rd.predict(run, TEST)
    assert (table.kind, table.class_names) == ("logits", TEST.class_names)
    np.testing.assert_array_equal(table.ids, TEST.ids)
    np.testing.assert_array_equal(table.labels, TEST.labels)
    clean = (torch.from_numpy(TEST.inputs).permute(0, 3, 1, 2) / 255 - 0.3) / 0.25
    with torch.no_grad():
        np.testing.assert_allclose(table.scores, run.model(clean).numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(rd.predict(run.model, TEST).scores, table.scores)


def test_unlabelled_examples(run: Run) -> None:
    unlabelled = replace(TEST, labels=None)
    assert rd.predict(run, unlabelled).labels is None
    with pytest.raises(InputError, match="toy/test has no labels"):
        rd.evaluate(run, unlabelled)


def test_batches_of_any_size_give_the_same_order(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rd.predict(run, TEST).scores
    monkeypatch.setattr(evaluate_module, "BATCH_SIZE", 5)
    np.testing.assert_allclose(rd.predict(run, TEST).scores, whole, rtol=1e-5, atol=1e-6)


def test_a_single_example(run: Run) -> None:
    one = TEST.subset(np.array([3]))
    np.testing.assert_allclose(rd.predict(run, one).scores[0], rd.predict(run, TEST).scores[3], rtol=1e-5, atol=1e-6)


def test_prediction_is_deterministic_and_leaves_the_mode_alone() -> None:
    module = Dropout()
    first, second = rd.predict(module, TEST), rd.predict(module, TEST)
    np.testing.assert_array_equal(first.scores, second.scores)
    assert module.training
    module.eval()
    rd.predict(module, TEST)
    assert not module.training


def test_evaluation_never_holds_all_logits(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """The same recalls as from the whole table, batch by batch; an id is named in a later batch too."""
    whole = rd.predict(run, TEST).evaluate()
    monkeypatch.setattr("robustdistill.training.evaluate.BATCH_SIZE", 4)
    monkeypatch.setattr("robustdistill.training.evaluate.predict", None)
    assert rd.evaluate(run, TEST).as_dict() == whole.as_dict()


class NotFinite(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value, self.weight = value, nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        logits = self.weight.expand(len(x), 3).clone()
        if len(x) > 2:  # The check of shapes shows two examples.
            logits[4, 1] = self.value
        return logits


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused_by_id(value: float) -> None:
    with pytest.raises(InputError, match=rf"finite; toy/test row 4 \(id {TEST.ids[4]}\)"):
        rd.predict(NotFinite(value), TEST)


def test_another_number_of_outputs_is_refused() -> None:
    with pytest.raises(InputError, match=r"model must return logits \(2, 3\)"):
        rd.predict(nn.Sequential(nn.Flatten(), nn.Linear(36, 4)), TEST)


@pytest.mark.parametrize("function", [rd.predict, rd.evaluate])
def test_a_run_on_other_classes_is_refused(run: Run, function: object) -> None:
    """A run knows what its outputs mean; the same names in another order are other outputs."""
    with pytest.raises(InputError, match="classes"):
        function(run, replace(TEST, class_names=("bee", "ant", "cat")))  # type: ignore[operator]


def test_scores_by_hand(run: Run) -> None:
    scores = rd.evaluate(run, TEST)
    predicted = rd.predict(run, TEST).scores.argmax(axis=1)
    recalls = [float((predicted[TEST.labels == c] == c).mean()) for c in range(3)]
    np.testing.assert_allclose(scores.per_class, recalls)
    assert scores.counts.tolist() == [9, 8, 7]
    assert scores.class_names == TEST.class_names
    assert scores.worst_class == pytest.approx(min(recalls))


def test_tables_are_joined_by_id_and_name(run: Run) -> None:
    expected = rd.evaluate(run, TEST).as_dict()
    table = rd.predict(run, TEST)
    assert rd.evaluate(table).as_dict() == expected
    shuffled = table.join(np.random.default_rng(0).permutation(table.ids)).match_classes(("cat", "bee", "ant"))
    assert rd.evaluate(shuffled, TEST).as_dict() == expected
    other_labels = replace(shuffled, labels=np.zeros(len(shuffled), np.int64))
    assert rd.evaluate(other_labels, TEST).as_dict() == expected  # The data's labels count.
    with pytest.raises(InputError, match="have no row"):
        rd.evaluate(table.join(table.ids[1:]), TEST)


def test_what_evaluate_needs(run: Run) -> None:
    with pytest.raises(InputError, match="needs examples"):
        rd.evaluate(run)
    with pytest.raises(InputError, match="labels"):
        rd.evaluate(Predictions([1, 2], np.eye(2), "logits", ("a", "b")))
