from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import robustdistill as rd
from robustdistill.data import Preprocessing, from_arrays, split
from robustdistill.errors import InputError

X = np.arange(12, dtype=np.float64).reshape(6, 2)
Y = np.array([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize(
    ("inputs", "dtype", "shape"),
    [
        (X, np.float32, (6, 2)),
        (X.tolist(), np.float32, (6, 2)),
        (torch.tensor(X, requires_grad=True), np.float32, (6, 2)),
        (pd.DataFrame({"a": X[:, 0], "b": [1, 2, 3, 4, 5, 6]}), np.float32, (6, 2)),
        (np.ones((6, 3), dtype=np.int32), np.int64, (6, 3)),
        (np.zeros((6, 4, 5), dtype=np.uint8), np.uint8, (6, 4, 5, 1)),
        (np.zeros((6, 4, 5, 3), dtype=np.uint8), np.uint8, (6, 4, 5, 3)),
        (np.zeros((6, 3, 4, 5)), np.float32, (6, 3, 4, 5)),
    ],
)
def test_what_inputs_are_is_said_by_their_type(inputs: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    found = from_arrays(inputs, Y)
    assert (found.inputs.dtype, found.inputs.shape) == (dtype, shape)
    assert found.ids.tolist() == list(range(6))
    assert found.class_names == ("0", "1", "2")
    assert found.channels == {(6, 4, 5, 1): 1, (6, 4, 5, 3): 3, (6, 3, 4, 5): 3}.get(shape, 0)


def test_labels_by_name_and_by_index() -> None:
    named = from_arrays(X, list("cabcab"))
    assert named.class_names == ("a", "b", "c")
    assert named.require_labels().tolist() == [2, 0, 1, 2, 0, 1]
    later = from_arrays(X[:2], ["c", "c"], class_names=named.class_names, ids=[100, 7])
    assert later.require_labels().tolist() == [2, 2]
    assert later.ids.tolist() == [100, 7]
    assert from_arrays(X, pd.Series(Y)).class_counts.tolist() == [2, 2, 2]
    assert from_arrays(X, class_names=["x", "y"]).labels is None


@pytest.mark.parametrize(
    ("inputs", "labels", "settings", "message"),
    [
        (sparse.eye(6).tocsr(), Y, {}, "sparse matrix"),
        (["a text"] * 6, Y, {}, "make them token ids or counts"),
        ([["a", "b"]] * 6, Y, {}, "make texts token ids"),
        (np.ones((6, 2), dtype=bool), Y, {}, "booleans floats"),
        (np.arange(6), Y, {}, r"\(N, 1\) is one feature"),
        ([[1.0], [1.0, 2.0]], [0, 1], {}, "pad or cut them to one length"),
        (np.zeros((6, 3, 8, 8), dtype=np.uint8), Y, {}, r"transpose\(0, 2, 3, 1\)"),
        (np.zeros((6, 8), dtype=np.uint8), Y, {}, "features as float32"),
        (np.full((6, 2), -1), Y, {}, "give padding a token of its own"),
        (np.where(X == 5, np.nan, X), Y, {}, r"row 2 \(id 2\) has NaN"),
        (pd.DataFrame({"a": X[:, 0], "kind": list("abcabc")}), Y, {}, "column 'kind' holds no numbers"),
        (X, np.eye(6), {}, "rd.Predictions"),
        (X, Y / 2, {}, "integers or text"),
        (X, Y[:4], {}, "6 inputs but 4 labels"),
        (X, None, {}, "class_names must be given"),
        (X, list("cabcax"), {"class_names": "abc"}, "label 'x'"),
        (X, Y * 0, {}, "at least 2 classes, got '0'"),
        (X, Y, {"ids": [0, 1, 2, 3, 4, 4]}, "id 4 occurs 2 times"),
        (X, Y, {"ids": list("abcdef")}, "ids must be whole numbers"),
        (X, Y, {"ids": [1, 2]}, "6 inputs but 2 ids"),
    ],
)
def test_what_is_refused_says_what_to_do(inputs: Any, labels: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_arrays(inputs, labels, **settings)


def test_group_columns() -> None:
    data = from_arrays(X, Y, groups=[9, 10, 9, 10, 9, 9])
    assert data.group_names == ("9", "10")
    assert data.require_groups().tolist() == [0, 1, 0, 1, 0, 0]
    part = data.subset(np.array([3, 0]))
    assert (part.require_groups().tolist(), part.group_names) == ([1, 0], ("9", "10"))
    plain = from_arrays(X, Y)
    others = [data, from_arrays(X, Y, groups=list("aabbaa")), plain, from_arrays(X, Y, groups=list("aabbab"))]
    assert len({one.fingerprint for one in others}) == 4
    for values, names, message in (
        (["x"] * 5, None, r"shape \(6,\)"),
        (["x"] * 6, ["y", "z"], r"row 0 \(id 0\) has the group 'x'; expected one of 'y', 'z'"),
        (["x", "", *"xxxx"], None, "none that is empty"),
        (np.ones(6), None, "text or whole numbers"),
    ):
        with pytest.raises(InputError, match=message):
            plain.with_groups(values, names)
    with pytest.raises(InputError, match=re.escape("add it by with_groups(values)")):
        plain.require_groups()


def test_split_takes_a_share_of_every_class() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    data = from_arrays(rng.normal(size=(160, 3)), labels, ids=1000 + rng.permutation(160), name="mine")
    parts = split(data, val=0.2, test=0.3, seed=4)
    assert [part.class_counts.tolist() for part in (parts.train, parts.val, parts.test)] == [
        [50, 25, 5],
        [20, 10, 2],
        [30, 15, 3],
    ]
    whole = np.concatenate([part.ids for part in (parts.train, parts.val, parts.test)])
    assert sorted(whole.tolist()) == sorted(data.ids.tolist())
    assert parts.val.name == "mine/val"
    assert parts.train.source == {"split_seed": 4, "val_share": 0.2, "test_share": 0.3}
    assert split(data, seed=1).train.fingerprint != split(data, seed=2).train.fingerprint
    for shares in ((0.0, 0.2), (0.5, 0.5), (0.2, -0.1)):
        with pytest.raises(InputError, match="positive shares"):
            split(data, *shares)
    with pytest.raises(InputError, match=r"class 2 .* has 0 examples"):
        split(data.subset(np.arange(151)), seed=0)


def test_split_keeps_groups_in_proportion_and_measures_train() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (80, 4, 4, 3)).astype(np.uint8)
    labels, groups = np.arange(80) % 2, np.repeat(["a", "b"], [60, 20])
    own = from_arrays(pictures, labels, groups=groups, preprocessing=Preprocessing(pad=1, flip=True))
    parts = split(own, val=0.2, test=0.2)
    assert np.bincount(parts.val.require_groups()).tolist() == [12, 4]
    known = parts.train.preprocessing
    scaled = parts.train.inputs / 255
    np.testing.assert_allclose(known.mean, scaled.mean(axis=(0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(known.std, scaled.std(axis=(0, 1, 2)), atol=1e-6)
    assert (known.pad, known.flip) == (1, True)
    assert parts.val.preprocessing == parts.test.preprocessing == known
    given = Preprocessing((0.5,) * 3, (0.2,) * 3)
    assert split(from_arrays(pictures, labels, preprocessing=given)).train.preprocessing == given


class Bag(torch.nn.Module):
    """Mean of token embeddings, then a layer: a text classifier."""

    def __init__(self, tokens: int, num_classes: int) -> None:
        super().__init__()
        self.embed = torch.nn.EmbeddingBag(tokens, 8)
        self.head = torch.nn.Linear(8, num_classes)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.embed(ids))
        return out


RECIPE = rd.Recipe(epochs=6, batch_size=16, learning_rate=0.5, every=4)


def test_token_ids_go_through_fit_and_distill() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    tokens = rng.integers(0, 30, (90, 5))
    tokens[:, 0] = labels
    parts = split(from_arrays(tokens, labels, name="texts"))
    settings: dict[str, Any] = {"recipe": RECIPE, "progress": False}
    teacher = rd.fit(Bag(30, 3), parts.train, parts.val, objective="robust", **settings)
    student = rd.distill(teacher, Bag(30, 3), parts.train, parts.val, **settings)
    assert rd.evaluate(student, parts.test).worst_class > 0.5
    with pytest.raises(
        InputError, match=r"integers are token ids, here up to \d+, for an embedding with a row for each"
    ):
        rd.fit(Bag(3, 3), parts.train, parts.val, **settings)
    with pytest.raises(InputError, match="pass features as floats"):
        rd.fit(torch.nn.Linear(5, 3), parts.train, parts.val, **settings)


def test_float_pictures_go_into_a_model_by_name() -> None:
    pictures = np.random.default_rng(0).normal(size=(12, 3, 8, 8))
    parts = split(from_arrays(pictures, np.arange(12) % 2), val=0.3, test=0.3)
    run = rd.fit("convnet-2", parts.train, parts.val, recipe=rd.Recipe(epochs=1, batch_size=4), progress=False)
    assert run.in_channels == 3
