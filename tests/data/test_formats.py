from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
from dataclasses import replace

import numpy as np
import pytest

from robustdistill.data import formats, load
from robustdistill.data.pickles import load_dict
from robustdistill.errors import InputError


def batch(rows: int, classes: int, key: bytes = b"labels", start: int = 0) -> dict:
    data = np.random.default_rng(start).integers(0, 256, (rows, 3072), dtype=np.uint8)
    return {b"data": data, key: [(start + i) % classes for i in range(rows)], b"filenames": [b"x.png"] * rows}


def cifar10_files() -> dict[str, bytes]:
    files = {f"data_batch_{i}": pickle.dumps(batch(20, 10, start=i), protocol=2) for i in range(1, 6)}
    files["test_batch"] = pickle.dumps(batch(30, 10, start=7), protocol=2)
    files["batches.meta"] = pickle.dumps({"label_names": [f"name{j}" for j in range(10)]}, protocol=2)
    return files


def cifar100_files() -> dict[str, bytes]:
    return {
        "train": pickle.dumps(batch(300, 100, b"fine_labels"), protocol=2),
        "test": pickle.dumps(batch(100, 100, b"fine_labels"), protocol=2),
        "meta": pickle.dumps({b"fine_label_names": [f"f{j}".encode() for j in range(100)]}, protocol=2),
    }


def write_folder(root, folder: str, files: dict[str, bytes]):
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / folder / name).write_bytes(content)
    return root / folder


def write_archive(path, folder: str, files: dict[str, bytes]):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


class TestDigits:
    def test_the_pool_is_fixed_and_the_rest_held_out(self):
        source = formats.read_digits(None, formats.Options())
        assert np.bincount(source.train.labels).tolist() == [100] * 10
        assert len(source.test.labels) == 797
        assert np.array_equal(np.sort(np.concatenate([source.train.ids, source.test.ids])), np.arange(1797))

    def test_grey_levels_fill_the_range(self):
        pictures = formats.read_digits(None, formats.Options()).train.inputs
        assert (pictures.dtype, pictures.shape) == (np.uint8, (1000, 8, 8, 1))
        assert (pictures.min(), pictures.max()) == (0, 255)


class TestCifar:
    def test_a_folder(self, tmp_path):
        write_folder(tmp_path, "cifar-10-batches-py", cifar10_files())
        source = formats.read_cifar10(tmp_path, formats.Options(verify=False))
        assert source.class_names[3] == "name3"
        assert (source.train.inputs.shape, source.test.inputs.shape) == ((100, 32, 32, 3), (30, 32, 32, 3))
        first = batch(20, 10, start=1)
        planes = first[b"data"][5].reshape(3, 32, 32)
        assert np.array_equal(source.train.inputs[5], planes.transpose(1, 2, 0))
        assert source.train.labels[:20].tolist() == first[b"labels"]
        source.train.inputs[0, 0, 0, 0] = 1  # a writable copy of its own

    def test_an_archive_reads_the_same_and_writes_nothing(self, tmp_path):
        write_folder(tmp_path / "a", "cifar-10-batches-py", cifar10_files())
        (tmp_path / "b").mkdir()
        write_archive(tmp_path / "b" / "cifar-10-python.tar.gz", "cifar-10-batches-py", cifar10_files())
        a, b = (load("cifar10", tmp_path / place, verify=False) for place in "ab")
        assert a.train.fingerprint == b.train.fingerprint
        assert a.test.fingerprint == b.test.fingerprint
        assert [path.name for path in (tmp_path / "b").iterdir()] == ["cifar-10-python.tar.gz"]

    def test_cifar100_takes_the_fine_labels(self, tmp_path):
        write_folder(tmp_path, "cifar-100-python", cifar100_files())
        data = load("cifar100", tmp_path, verify=False)
        assert (data.class_names[42], data.train.num_classes) == ("f42", 100)
        assert (len(data.train), len(data.val), len(data.test)) == (300, 50, 50)

    def test_the_old_name_of_numpys_module(self):
        content = pickle.dumps(batch(3, 10), protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
        assert b"numpy.core.multiarray" in content
        assert np.array_equal(load_dict(content, "x")["data"], batch(3, 10)[b"data"])

    def test_verify_accepts_the_published_sums_only(self, tmp_path):
        contents = cifar10_files()
        write_folder(tmp_path, "cifar-10-batches-py", contents)
        with pytest.raises(InputError) as caught:
            load("cifar10", tmp_path)
        message = str(caught.value)
        assert "data_batch_1" in message
        assert formats.CIFAR10.train["data_batch_1"] in message
        assert hashlib.md5(contents["data_batch_1"]).hexdigest() in message
        assert "--no-verify" in message
        own = replace(
            formats.CIFAR10,
            train={name: hashlib.md5(contents[name]).hexdigest() for name in formats.CIFAR10.train},
            test={"test_batch": hashlib.md5(contents["test_batch"]).hexdigest()},
        )
        assert len(formats._read_cifar(own, tmp_path, formats.Options()).train.inputs) == 100

    def test_verify_checks_the_archive(self, tmp_path):
        path = write_archive(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", cifar10_files())
        with pytest.raises(InputError, match=f"{formats.CIFAR10.archive_md5}, got"):
            load("cifar10", tmp_path)
        own = replace(formats.CIFAR10, archive_md5=hashlib.md5(path.read_bytes()).hexdigest())
        assert len(formats._read_cifar(own, tmp_path, formats.Options()).test.inputs) == 30

    def test_a_truncated_batch(self, tmp_path):
        folder = write_folder(tmp_path, "cifar-10-batches-py", cifar10_files())
        whole = (folder / "data_batch_3").read_bytes()
        for size in (0, 10, len(whole) // 2, len(whole) - 1):
            (folder / "data_batch_3").write_bytes(whole[:size])
            with pytest.raises(InputError, match="data_batch_3: truncated"):
                load("cifar10", tmp_path, verify=False)

    def test_a_truncated_archive(self, tmp_path):
        path = write_archive(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", cifar10_files())
        whole = path.read_bytes()
        for size in (0, 10, len(whole) // 2):
            path.write_bytes(whole[:size])
            with pytest.raises(InputError, match=r"cifar-10-python\.tar\.gz: truncated"):
                load("cifar10", tmp_path, verify=False)

    def test_an_archive_of_something_else(self, tmp_path):
        write_archive(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-bin", cifar10_files())
        with pytest.raises(InputError, match="'python version'; cifar-10-batches-py/data_batch_1"):
            load("cifar10", tmp_path, verify=False)

    def test_a_folder_of_another_format(self, tmp_path):
        write_folder(tmp_path, "cifar-10-batches-py", {"data_batch_1.bin": b"x"})
        with pytest.raises(InputError, match=r"it holds data_batch_1\.bin"):
            load("cifar10", tmp_path)

    def test_an_empty_folder_of_the_right_name(self, tmp_path):
        write_folder(tmp_path, "cifar-10-batches-py", {})
        with pytest.raises(InputError, match=r"it is empty.*cs\.toronto\.edu"):
            load("cifar10", tmp_path)

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({b"data": np.zeros((20, 100), np.uint8)}, r"\(N, 3072\) uint8"),
            ({b"data": np.zeros((20, 3072), np.float64)}, "got float64"),
            ({b"data": [1, 2]}, "got list"),
            ({b"labels": [0] * 19}, "20 pictures but 19 labels"),
            ({b"labels": ["cat"] * 20}, "list of ints"),
            ({b"labels": [10] + [0] * 19}, r"labels must lie in 0\.\.9; row 0 \(id 0\) has 10"),
            ({b"labels": [-1] + [0] * 19}, r"has -1"),
        ],
    )
    def test_bad_batches(self, tmp_path, changed, message):
        content = pickle.dumps({**batch(20, 10, start=1), **changed}, protocol=2)
        write_folder(tmp_path, "cifar-10-batches-py", {**cifar10_files(), "data_batch_1": content})
        with pytest.raises(InputError, match=message):
            load("cifar10", tmp_path, verify=False)

    def test_a_class_missing_from_train(self, tmp_path):
        files = {**cifar100_files(), "train": pickle.dumps(batch(99, 100, b"fine_labels"), protocol=2)}
        write_folder(tmp_path, "cifar-100-python", files)
        with pytest.raises(InputError, match=r"class 99 \('f99'\) has 0 examples"):
            load("cifar100", tmp_path, verify=False)

    def test_bad_names(self, tmp_path):
        write_folder(tmp_path, "cifar-10-batches-py", {**cifar10_files(), "batches.meta": pickle.dumps({"a": 1}, 2)})
        with pytest.raises(InputError, match=r"batches\.meta: 'label_names' must be a list of names"):
            load("cifar10", tmp_path, verify=False)


class Runs:
    """Creates a file when unpickled by an ordinary unpickler."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class TestPickles:
    def test_a_malicious_batch_is_refused_by_file_and_global(self, tmp_path):
        target = tmp_path / "harmed"
        content = pickle.dumps({**batch(20, 10), b"extra": Runs(target)}, protocol=2)
        write_folder(tmp_path, "cifar-10-batches-py", {**cifar10_files(), "data_batch_1": content})
        with pytest.raises(InputError, match=r"data_batch_1: refused: the pickle asks for posix\.mkdir|nt\.mkdir"):
            load("cifar10", tmp_path, verify=False)
        assert not target.exists()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"cbuiltins\neval\n(S'1'\ntR.", r"builtins\.eval"),
            (b"cnumpy\nload\n.", r"numpy\.load"),
            (b"cnumpy.core.multiarray\nscalar\n.", r"numpy\.core\.multiarray\.scalar"),
            (b"ccopyreg\n_reconstructor\n.", r"copyreg\._reconstructor"),
            (b"cnumpy\ndtype.__class__\n.", r"numpy\.dtype\.__class__"),
            (b"cnumpy\ndtype\n(S'O8'\ntR.", "dtype 'O8'"),
            (b"c_codecs\nencode\n(Vx\nS'zip'\ntR.", "expected 'latin1'"),
            (b"cnumpy\ndtype\n}b.", "sets the state of numpy.dtype"),
            (b"cnumpy\nndarray\n(tR.", "calls numpy.ndarray"),
            (b"cnumpy.core.multiarray\n_reconstruct\n(NNNtR}b.", "sets the state of an array"),
            (b"P1\n.", "instruction PERSID"),
            (b"]q\x00.", "expected a pickled dict, got list"),
            (b"not a pickle", "truncated, or not a pickle"),
            (b"\x1f\x8b\x08\x00", "truncated, or not a pickle"),
        ],
    )
    def test_refused(self, content, message):
        with pytest.raises(InputError, match=f"the file: .*{message}"):
            load_dict(content, "the file")

    def test_arrays_of_objects_are_refused(self):
        with pytest.raises(InputError, match="dtype 'O8'"):
            load_dict(pickle.dumps({"a": np.array([{}], dtype=object)}, protocol=2), "x")

    @pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.int64, np.float32, np.float64])
    @pytest.mark.parametrize("order", ["C", "F"])
    @pytest.mark.parametrize("protocol", [2, 3, 4])
    def test_arrays_of_numbers_survive(self, dtype, order, protocol):
        array = np.asarray(np.arange(12).reshape(3, 4), dtype=dtype, order=order)
        loaded = load_dict(pickle.dumps({b"a": array, "b": [1, b"x", "y"]}, protocol=protocol), "x")
        assert np.array_equal(loaded["a"], array)
        assert loaded["a"].dtype == dtype
        assert loaded["b"] == [1, b"x", "y"]
