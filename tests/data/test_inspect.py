from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.official import idx_arrays, imagenet_files, write_idx, write_tree
from robustdistill.data import CATALOG, load
from robustdistill.data.inspect import check, listing, write_sheet
from robustdistill.data.splits import Examples
from robustdistill.errors import InputError


class TestListing:
    def test_what_is_there(self, tmp_path):
        assert [row.name for row in listing(tmp_path)] == list(CATALOG)
        write_idx(tmp_path / "FashionMNIST" / "raw", idx_arrays())
        rows = {row.name: row for row in listing(tmp_path)}
        assert rows["digits"].found == "embedded"
        assert rows["cifar10"].found is None
        assert rows["cifar10"].page.startswith("https://")
        assert rows["fashion-mnist-lt"].found == str(tmp_path / "FashionMNIST" / "raw")
        assert (rows["fashion-mnist-lt"].ratio, rows["imagenet"].ratio, rows["imagenet-lt"].ratio) == (100, 1, None)


class TestCheck:
    def test_the_digits(self, tmp_path):
        found = check("digits-lt", out=tmp_path / "sheets" / "digits.png")
        data = load("digits-lt")
        assert (found.problems, found.disjoint, found.shape, found.dtype) == ([], True, (8, 8, 1), "uint8")
        train = found.splits["train"]
        assert train.examples == 307
        assert list(train.class_sizes.values()) == data.train.class_counts.tolist()
        assert (train.subset, train.fingerprint) == (data.train.source["subset"], data.train.fingerprint)
        assert found.repeated == {"train/val": 0, "train/test": 0, "val/test": 0}
        assert json.loads(json.dumps(found.as_dict()))["splits"]["val"]["examples"] == 399
        assert found.sheet == str(tmp_path / "sheets" / "digits.png")

    def test_arguments_reach_the_data(self):
        assert list(check("digits", ratio=10, split_seed=3).splits["train"].class_sizes.values())[-1] == 10
        assert check("digits", ratio=10).problems == []

    def test_fewer_than_published(self, tmp_path):
        write_idx(tmp_path / "mnist", idx_arrays())
        found = check("mnist", tmp_path, verify=False)
        assert found.problems == [
            "120 training examples instead of 60,000",
            "40 held-out examples instead of 10,000",
        ]

    def test_repeated_pictures(self, tmp_path):
        x = np.random.default_rng(0).integers(0, 256, (12, 4, 4), dtype=np.uint8)
        y = np.arange(12) % 3
        np.savez(
            tmp_path / "a.npz",
            train_images=x,
            train_labels=y,
            val_images=np.concatenate([x[:2], 255 - x[:4]]),
            val_labels=y[:6],
            test_images=255 - x[3:6],
            test_labels=y[3:6],
        )
        found = check(f"npz:{tmp_path / 'a.npz'}")
        assert found.repeated == {"train/val": 2, "train/test": 0, "val/test": 1}
        assert found.disjoint  # rows 0, 1, ... of two parts that the file keeps apart
        assert found.problems == []

    def test_a_class_missing_from_a_split(self, tmp_path):
        x = np.zeros((9, 4, 4), np.uint8)
        np.savez(
            tmp_path / "a.npz",
            train_images=x,
            train_labels=np.arange(9) % 3,
            val_images=x[:2],
            val_labels=[0, 1],
            test_images=x[:3],
            test_labels=[0, 1, 2],
        )
        name = f"npz:{tmp_path / 'a.npz'}"
        assert check(name).problems == [f"{name}/val has no example of 1 classes: '2'"]

    def test_features_have_no_sheet(self, tmp_path):
        x = np.random.default_rng(0).normal(size=(30, 5))
        np.savez(tmp_path / "a.npz", train_images=x, train_labels=np.arange(30) % 3)
        found = check(f"npz:{tmp_path / 'a.npz'}", out=tmp_path / "a.png")
        assert (found.dtype, found.shape, found.sheet) == ("float32", (5,), None)
        assert not (tmp_path / "a.png").exists()

    def test_streamed_pictures(self, tmp_path):
        write_tree(tmp_path / "imagenet", imagenet_files())
        found = check("imagenet", tmp_path, tmp_path / "sheet.png", verify=False)
        assert found.repeated is None
        assert found.problems[0] == "3 classes instead of 1000"
        with Image.open(tmp_path / "sheet.png") as sheet:
            assert sheet.height == 3 * 68 + 4

    def test_pictures_that_are_resized_on_the_device(self):
        found = check("digits", image_size=20)
        assert (found.shape, found.resize) == ((8, 8, 1), (20, 20))
        assert found.problems == []
        assert check("digits").resize is None

    def test_bad_arguments(self, tmp_path):
        with pytest.raises(InputError, match=r"out must end in \.png, got 'sheet\.jpg'"):
            check("digits", out="sheet.jpg")
        with pytest.raises(InputError, match="did you mean 'digits'"):
            check("digts")


class TestSheet:
    def make(self, classes: int, each: int, *shape: int) -> Examples:
        inputs = np.zeros((classes * each, *shape), np.uint8)
        labels = np.repeat(np.arange(classes), each)
        inputs += (labels * 255 // max(classes - 1, 1)).astype(np.uint8).reshape(-1, *[1] * len(shape))
        return Examples(inputs, labels, np.arange(len(labels)), tuple(f"class {j}" for j in range(classes)))

    def read(self, tmp_path: Path, examples: Examples) -> np.ndarray:
        path = write_sheet(examples, tmp_path / "sheet.png")
        with Image.open(path) as sheet:
            assert (sheet.format, sheet.mode) == ("PNG", "RGB")
            return np.asarray(sheet)

    @pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3), (64, 64, 3), (224, 100, 3), (5, 90, 1)])
    def test_a_row_for_each_class_and_ten_pictures_in_it(self, tmp_path, shape):
        sheet = self.read(tmp_path, self.make(3, 12, *shape))
        assert sheet.shape == (3 * 68 + 4, 190 + 10 * 68 + 4, 3)
        for j, level in enumerate((0, 127, 255)):
            for column in range(10):
                assert sheet[4 + 68 * j, 194 + 68 * column].tolist() == [level] * 3
        assert (sheet[:, :190] == 0).any()  # the labels

    def test_a_class_of_few(self, tmp_path):
        sheet = self.read(tmp_path, self.make(2, 3, 64, 64, 1))
        assert (sheet[10, 194 + 68 * np.arange(10)].max(axis=1) == 0).tolist() == [True] * 3 + [False] * 7

    def test_of_many_classes_twenty(self, tmp_path):
        sheet = self.read(tmp_path, self.make(200, 1, 8, 8, 1))
        assert sheet.shape[0] == 20 * 68 + 4
        levels = sheet[10 + 68 * np.arange(20), 200, 0]
        assert (levels[0], levels[-1]) == (0, 255)  # the first and the last class are among them
        assert (np.diff(levels.astype(int)) > 0).all()


def test_no_torch_is_needed():
    code = (
        "import sys, robustdistill.data.inspect as i; i.listing(); i.check('digits'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
