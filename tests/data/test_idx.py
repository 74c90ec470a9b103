from __future__ import annotations

import gzip
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.official import IDX_NAMES, idx, idx_arrays, write_idx
from robustdistill.data import CATALOG, class_sizes, formats, load, loading
from robustdistill.errors import InputError


@pytest.mark.parametrize(
    ("name", "folder", "packed"),
    [
        ("mnist", "mnist", True),
        ("mnist", "MNIST/raw", False),
        ("fashion-mnist", "fashion-mnist", False),
        ("fashion-mnist", "FashionMNIST/raw", True),
    ],
)
def test_the_layouts(tmp_path, name, folder, packed):
    arrays = idx_arrays()
    write_idx(tmp_path / folder, arrays, packed=packed)
    assert CATALOG[name].present(tmp_path)
    data = load(name, tmp_path, verify=False)
    assert np.array_equal(data.train.inputs[..., 0], arrays["train-images-idx3-ubyte"])
    assert np.array_equal(data.train.labels, arrays["train-labels-idx1-ubyte"])
    assert data.train.labels.dtype == np.int64
    assert np.array_equal(data.val.inputs[..., 0], arrays["t10k-images-idx3-ubyte"][data.val.ids])
    assert np.array_equal(np.sort(np.r_[data.val.ids, data.test.ids]), np.arange(40))
    assert data.train.preprocessing.flip == (name == "fashion-mnist")
    assert data.train.preprocessing.pad == 2
    data.train.inputs[0] = 0  # an array of its own


def test_a_folder_with_both_forms_is_read_unpacked(tmp_path):
    """As torchvision leaves it."""
    write_idx(tmp_path / "MNIST" / "raw", idx_arrays(), packed=False)
    for name in idx_arrays():
        (tmp_path / "MNIST" / "raw" / f"{name}.gz").write_bytes(b"\x1f\x8bnot read")
    assert len(load("mnist", tmp_path, verify=False).train) == 120


def test_the_first_whole_folder_is_taken(tmp_path):
    (tmp_path / "mnist").mkdir()
    write_idx(tmp_path / "MNIST" / "raw", idx_arrays())
    assert len(load("mnist", tmp_path, verify=False).train) == 120


def test_class_names(tmp_path):
    write_idx(tmp_path / "mnist", idx_arrays())
    write_idx(tmp_path / "fashion-mnist", idx_arrays())
    assert load("mnist", tmp_path, verify=False).class_names == tuple("0123456789")
    assert load("fashion-mnist", tmp_path, verify=False).class_names[9] == "Ankle boot"


def test_the_long_tail(tmp_path):
    write_idx(tmp_path / "fashion-mnist", idx_arrays(train_each=200))
    data = load("fashion-mnist-lt", tmp_path, verify=False)
    assert data.train.class_counts.tolist() == class_sizes(200, 100, 10).tolist()
    assert data.val.fingerprint == load("fashion-mnist", tmp_path, verify=False).val.fingerprint


def test_the_published_sizes():
    assert CATALOG["fashion-mnist-lt"].train == class_sizes(6000, 100, 10).sum()
    mnist = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]  # LeCun et al.'s training set
    kept = np.bincount(labels := np.repeat(np.arange(10), mnist))
    assert kept.tolist() == mnist
    assert len(loading.long_tail(labels, 100)) == CATALOG["mnist-lt"].train == 14_694


class TestVerify:
    def test_another_content_is_refused(self, tmp_path):
        arrays = idx_arrays()
        write_idx(tmp_path / "mnist", arrays)
        with pytest.raises(InputError) as caught:
            load("mnist", tmp_path)
        message = str(caught.value)
        name = "train-images-idx3-ubyte"
        for part in (f"{name}.gz", formats.MNIST.md5[name], hashlib.md5(idx(arrays[name])).hexdigest(), "--no-verify"):
            assert part in message

    @pytest.mark.parametrize("level", [1, 9])
    def test_the_content_counts_and_not_how_it_is_packed(self, tmp_path, level):
        arrays = idx_arrays()
        own = replace(formats.MNIST, md5={name: hashlib.md5(idx(array)).hexdigest() for name, array in arrays.items()})
        (tmp_path / "mnist").mkdir()
        for name, array in arrays.items():
            (tmp_path / "mnist" / f"{name}.gz").write_bytes(gzip.compress(idx(array), level))
        assert len(formats._read_idx(own, tmp_path, formats.Options()).train.inputs) == 120

    def test_labels_are_checked_too(self, tmp_path):
        arrays = idx_arrays()
        sums = {name: hashlib.md5(idx(array)).hexdigest() for name, array in arrays.items()}
        sums["t10k-labels-idx1-ubyte"] = formats.MNIST.md5["t10k-labels-idx1-ubyte"]
        write_idx(tmp_path / "mnist", arrays)
        with pytest.raises(InputError, match="t10k-labels"):
            formats._read_idx(replace(formats.MNIST, md5=sums), tmp_path, formats.Options())


class TestBadFiles:
    @pytest.fixture
    def folder(self, tmp_path):
        return write_idx(tmp_path / "mnist", idx_arrays(), packed=False)

    @pytest.mark.parametrize("name", [name for names in IDX_NAMES.values() for name in names])
    def test_a_missing_file_is_named(self, tmp_path, folder, name):
        (folder / name).unlink()
        with pytest.raises(InputError, match=rf"{name}\[\.gz\] missing.*ossci"):
            load("mnist", tmp_path, verify=False)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(InputError, match=r"looked in .* for mnist or MNIST/raw.*the four idx files"):
            load("mnist", tmp_path)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "magic number 00000803.*got nothing"),
            (b"\0\0\x08", "got 000008"),
            (b"\0\0\x08\x01" + bytes(50), "3 axes.*got 00000801"),
            (b"\0\0\x0d\x03" + bytes(50), "unsigned bytes.*got 00000d03"),
            (b"PK\x03\x04 a zip", "got 504b0304"),
            (b"\0\0\x08\x03\0\0", "truncated; an idx header of 3 axes has 16 bytes, got 6"),
            (
                idx(np.zeros((120, 28, 28), np.uint8))[:-1],
                "truncated; 120x28x28 takes 94,096 bytes unpacked, got 94,095",
            ),
            (idx(np.zeros((120, 28, 28), np.uint8)) + b"x", "too long"),
            (idx(np.zeros((119, 28, 28), np.uint8)), "119 pictures but 120 labels"),
            (idx(np.zeros((120, 20, 28), np.uint8)), r"train pictures are \(20, 28, 1\), test pictures \(28, 28, 1\)"),
            (b"\0\0\x08\x03" + b"\xff" * 12, "truncated; 4294967295x"),
            (b"\x1f\x8bnot gzip", "not a gzip file"),
            (gzip.compress(idx(np.zeros((120, 28, 28), np.uint8)))[:-9], "truncated, or not a gzip file"),
        ],
    )
    def test_bad_pictures(self, tmp_path, folder, content, message):
        (folder / "train-images-idx3-ubyte").write_bytes(content)
        with pytest.raises(InputError, match=f"mnist: .*train-images-idx3-ubyte.*{message}|{message}"):
            load("mnist", tmp_path, verify=False)

    def test_labels_out_of_range(self, tmp_path, folder):
        labels = idx_arrays()["t10k-labels-idx1-ubyte"]
        labels[3] = 10
        (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(labels))
        with pytest.raises(InputError, match=r"labels must lie in 0\.\.9; row 3 \(id 3\) has 10"):
            load("mnist", tmp_path, verify=False)


REAL = Path(os.environ.get("ROBUSTDISTILL_DATA", "")).expanduser()


@pytest.mark.skipif(
    not os.environ.get("ROBUSTDISTILL_DATA") or not (REAL / "fashion-mnist").is_dir(),
    reason="ROBUSTDISTILL_DATA is not set or holds no fashion-mnist",
)
def test_the_real_fashion_mnist():
    data = load("fashion-mnist", REAL)
    found = loading._statistics(data.train)
    assert np.allclose(found.mean, data.train.preprocessing.mean, atol=1e-4)
    assert np.allclose(found.std, data.train.preprocessing.std, atol=1e-4)
    assert data.train.class_counts.tolist() == [6000] * 10
    assert len(load("fashion-mnist-lt", REAL).train) == CATALOG["fashion-mnist-lt"].train
