"""A whole teacher and student on tiny data in each official format."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

import robustdistill as rd
from data.official import idx_arrays, tiny_files, write_idx, write_tree, write_zip


def mnist(root: Path) -> None:
    write_idx(root / "MNIST" / "raw", idx_arrays(test_each=10), packed=False)


def fashion_mnist(root: Path) -> None:
    write_idx(root / "fashion-mnist", idx_arrays(train_each=100, test_each=10))


def tinyimagenet(root: Path) -> None:
    write_tree(root / "tiny-imagenet-200", tiny_files())


def tinyimagenet_lt(root: Path) -> None:
    write_zip(root / "tiny-imagenet-200.zip", tiny_files(train_each=84))


def cifar10(root: Path) -> None:
    random = np.random.default_rng(0)
    (root / "cifar-10-batches-py").mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        count = 100 if name == "test_batch" else 40  # else a random half may lack a class
        rows = {
            b"data": random.integers(0, 256, (count, 3072), dtype=np.uint8),
            b"labels": [i % 10 for i in range(count)],
        }
        (root / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(rows, protocol=2))
    names = {b"label_names": [f"name {j}".encode() for j in range(10)]}
    (root / "cifar-10-batches-py" / "batches.meta").write_bytes(pickle.dumps(names, protocol=2))


@pytest.mark.parametrize(
    ("name", "write", "arguments"),
    [
        ("cifar10", cifar10, {}),
        ("mnist", mnist, {}),
        ("fashion-mnist-lt", fashion_mnist, {}),
        ("tinyimagenet", tinyimagenet, {}),
        ("tinyimagenet-lt", tinyimagenet_lt, {"image_size": 16}),
    ],
)
def test_teacher_and_student(tmp_path, name, write, arguments):
    write(tmp_path)
    data = rd.data.load(name, tmp_path, verify=False, **arguments)
    recipe = rd.Recipe.named(name).with_(epochs=1, batch_size=32, every=1)
    settings = {"objective": "robust", "recipe": recipe, "threads": 1, "progress": False}
    teacher = rd.fit("convnet-2", data.train, data.val, **settings)
    student = rd.distill(teacher, "convnet-1", data.train, data.val, temperature=3.0, **settings)
    assert student.spec.data.name == name
    scores = rd.evaluate(student, data.test)
    assert int(scores.counts.sum()) == len(data.test)
    table = rd.predict(student, data.test)
    assert np.array_equal(table.ids, data.test.ids)
