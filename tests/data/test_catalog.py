from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from robustdistill.data import CATALOG, default_root, load, loading, names
from robustdistill.data.loading import load_recorded
from robustdistill.data.splits import Examples, subset_hash
from robustdistill.errors import InputError, StaleStoreError
from robustdistill.training.spec import DataIdentity


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def digits_lt():
    return load("digits-lt")


class TestDigits:
    def test_sizes(self, digits, digits_lt):
        assert digits.train.class_counts.tolist() == [100] * 10
        assert digits_lt.train.class_counts.tolist() == [100, 68, 46, 32, 22, 15, 10, 7, 4, 3]
        assert (len(digits.val), len(digits.test)) == (399, 398)

    def test_the_three_are_disjoint_and_the_whole(self, digits):
        ids = np.concatenate([digits.train.ids, digits.val.ids, digits.test.ids])
        assert np.array_equal(np.sort(ids), np.arange(1797))

    def test_the_long_tail_shares_the_halves_and_the_pool(self, digits, digits_lt):
        assert np.isin(digits_lt.train.ids, digits.train.ids).all()
        assert np.array_equal(digits_lt.val.ids, digits.val.ids)
        assert np.array_equal(digits_lt.test.ids, digits.test.ids)

    def test_the_catalogues_statistics_are_those_of_the_pool(self, digits):
        found = loading._statistics(digits.train)
        assert np.allclose(digits.train.preprocessing.mean, found.mean, atol=1e-4)
        assert np.allclose(digits.train.preprocessing.std, found.std, atol=1e-4)
        assert (digits.train.preprocessing.pad, digits.train.preprocessing.flip) == (1, False)

    def test_what_is_recorded(self, digits_lt):
        assert digits_lt.train.name == "digits-lt/train"
        assert digits_lt.val.name == "digits-lt/val"
        assert digits_lt.train.source == {
            "name": "digits-lt",
            "split_seed": 0,
            "subset_seed": 0,
            "ratio": 30.0,
            "subset": subset_hash(digits_lt.train.ids),
        }


class TestSeeds:
    def test_the_same_seeds_give_the_same_data(self, digits_lt):
        again = load("digits-lt")
        for split in ("train", "val", "test"):
            assert getattr(again, split).fingerprint == getattr(digits_lt, split).fingerprint

    def test_the_split_seed_moves_the_halves_only(self, digits_lt):
        other = load("digits-lt", split_seed=1)
        assert np.array_equal(other.train.ids, digits_lt.train.ids)
        assert not np.array_equal(other.val.ids, digits_lt.val.ids)
        assert not np.intersect1d(other.val.ids, other.test.ids).size

    def test_the_subset_seed_moves_the_long_tail_only(self, digits_lt):
        other = load("digits-lt", subset_seed=1)
        assert not np.array_equal(other.train.ids, digits_lt.train.ids)
        assert np.array_equal(other.train.class_counts, digits_lt.train.class_counts)
        assert other.val.fingerprint == digits_lt.val.fingerprint
        assert other.test.fingerprint == digits_lt.test.fingerprint

    def test_the_subset_seed_does_nothing_without_a_long_tail(self, digits):
        assert load("digits", subset_seed=7).train.fingerprint == digits.train.fingerprint


class TestArguments:
    def test_ratio(self, digits):
        assert load("digits", ratio=10).train.class_counts[[0, 9]].tolist() == [100, 10]
        assert load("digits-lt", ratio=1).train.fingerprint == digits.train.fingerprint

    def test_profile(self):
        data = load("digits", ratio=10, profile="step")
        assert data.train.class_counts.tolist() == [100] * 5 + [10] * 5
        assert data.train.source["profile"] == "step"

    def test_a_share_of_train_for_validation(self, digits):
        data = load("digits-lt", val=0.2)
        assert data.val.class_counts.tolist() == [20] * 10
        assert data.train.class_counts[[0, 9]].tolist() == [80, 2]
        assert not np.intersect1d(data.train.ids, data.val.ids).size
        assert np.isin(data.val.ids, digits.train.ids).all()
        assert len(data.test) == 797
        assert data.train.source["val_share"] == 0.2

    def test_augmentation(self):
        preprocessing = load("digits", pad=0, flip=True).test.preprocessing
        assert (preprocessing.pad, preprocessing.flip) == (0, True)

    def test_any_pictures_can_be_resized_on_the_device(self, digits, tmp_path):
        data = load("digits", image_size=(16, 20))
        assert np.array_equal(data.train.inputs, digits.train.inputs)
        assert data.val.preprocessing == replace(digits.val.preprocessing, resize=(16, 20))
        assert load("digits", image_size=8).train.fingerprint == digits.train.fingerprint
        arrays = {"train_images": digits.train.inputs[:300], "train_labels": digits.train.labels[:300]}
        np.savez(tmp_path / "own.npz", **arrays)
        assert load(f"npz:{tmp_path / 'own.npz'}", image_size=4).train.preprocessing.resize == (4, 4)

    def test_features_have_no_size(self, tmp_path):
        features = np.random.default_rng(0).normal(size=(30, 8, 8)).astype(np.float32)
        np.savez(tmp_path / "own.npz", train_images=features, train_labels=np.arange(30) % 2)
        with pytest.raises(InputError, match=r"image_size is for pictures, and 'npz:.*' holds features"):
            load(f"npz:{tmp_path / 'own.npz'}", image_size=8)

    def test_fingerprints_are_those_of_earlier_versions(self, digits, digits_lt):
        """Records of runs hold them: where one changed, none of its runs could be gone on with."""
        assert [part.fingerprint for part in (digits.train, digits.val, digits.test)] == [
            "cad7cd1ad3a18b6a",
            "822359c41e900f26",
            "66e51ecd6329f353",
        ]
        assert digits_lt.train.fingerprint == "b4b70da5f4d9568b"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"split_seed": -1}, "split_seed must be at least 0"),
            ({"subset_seed": -1}, "subset_seed must be at least 0"),
            ({"val": 0.0}, "val must be a share"),
            ({"val": 1.5}, "val must be a share"),
            ({"ratio": 0.5}, "ratio must be"),
            ({"ratio": 1000}, "leaves class .* with 0 of 100"),
            ({"image_size": 0}, "image_size must be"),
            ({"image_size": (8, -8)}, "image_size must be"),
            ({"label_column": "y"}, "label_column is for parquet:, hub: only"),
            ({"group_column": "y"}, "group_column is for parquet:, hub: only"),
        ],
    )
    def test_out_of_range(self, arguments, message):
        with pytest.raises(InputError, match=message):
            load("digits", **arguments)


class TestNames:
    def test_the_catalogue(self):
        assert names() == list(CATALOG)
        for entry in CATALOG.values():
            assert entry.train > 0
            assert entry.held_out > 0
            assert bool(entry.files) == bool(entry.page)

    def test_long_tails_belong_to_whole_sets(self):
        for entry in CATALOG.values():
            if entry.name.endswith("-lt"):
                whole = CATALOG[entry.name.removesuffix("-lt")]
                assert (entry.classes, entry.held_out, entry.files) == (whole.classes, whole.held_out, whole.files)
                assert entry.preprocessing == whole.preprocessing
                assert entry.train < whole.train
                assert whole.ratio == 1

    def test_its_numbers_are_true_of_the_digits(self, digits, digits_lt):
        for name, data in (("digits", digits), ("digits-lt", digits_lt)):
            entry = CATALOG[name]
            assert (entry.train, entry.held_out) == (len(data.train), len(data.val) + len(data.test))
            assert (entry.classes, entry.shape) == (data.train.num_classes, data.train.inputs.shape[1:])
            assert entry.present()

    def test_unknown_names_suggest_the_nearest(self):
        with pytest.raises(InputError, match="did you mean 'cifar10-lt'"):
            load("cifar10-tl")
        with pytest.raises(InputError, match="did you mean 'folder:'"):
            load("foldr:x")


class TestRoot:
    def test_the_order_of_precedence(self, monkeypatch, tmp_path):
        monkeypatch.delenv("ROBUSTDISTILL_DATA", raising=False)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        assert default_root() == Path.home() / ".cache" / "robustdistill"
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        assert default_root() == tmp_path / "cache" / "robustdistill"
        monkeypatch.setenv("ROBUSTDISTILL_DATA", str(tmp_path / "data"))
        assert default_root() == tmp_path / "data"
        assert default_root(tmp_path) == tmp_path

    @pytest.mark.parametrize("name", ["cifar10", "cifar100-lt"])
    def test_missing_files_say_where_and_what_and_whence(self, tmp_path, name):
        for root, state in ((tmp_path, "is empty"), (tmp_path / "none", "does not exist")):
            with pytest.raises(InputError) as caught:
                load(name, root)
            message = str(caught.value)
            for part in (name, str(root), state, CATALOG[name].files[0], CATALOG[name].files[1], CATALOG[name].page):
                assert part in message
        (tmp_path / "other").touch()
        with pytest.raises(InputError, match="has none"):
            load(name, tmp_path)
        assert not CATALOG[name].present(tmp_path)


def test_a_partition_that_is_none_is_noticed():
    with pytest.raises(RuntimeError, match="overlap"):
        loading._check_partition(3, np.array([0, 1]), np.array([1, 2]))


def test_a_constant_channel_is_not_divided_by_zero():
    black = Examples(np.zeros((2, 2, 2, 1), np.uint8), np.array([0, 1]), np.arange(2), ("a", "b"))
    assert loading._statistics(black).std == (1.0,)


def test_neither_torch_nor_datasets_is_imported():
    code = (
        "import sys, robustdistill.data; light = set(sys.modules); robustdistill.data.load('digits'); "
        "assert not {'torch', 'datasets', 'pyarrow', 'PIL', 'sklearn'} & light; "
        "assert not {'torch', 'datasets'} & set(sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )


@pytest.fixture(scope="module")
def cifar10():
    return load("cifar10")


REAL = Path(os.environ.get("ROBUSTDISTILL_DATA", "")).expanduser()


@pytest.mark.skipif(
    not os.environ.get("ROBUSTDISTILL_DATA") or not (REAL / "cifar-10-batches-py").is_dir(),
    reason="ROBUSTDISTILL_DATA is not set or holds no cifar-10-batches-py",
)
class TestRealCifar10:
    def test_it_is_whole(self, cifar10):
        assert cifar10.train.class_counts.tolist() == [5000] * 10
        assert sorted([*cifar10.val.ids, *cifar10.test.ids]) == list(range(10_000))
        assert cifar10.class_names[0] == "airplane"

    def test_the_published_statistics(self, cifar10):
        found = loading._statistics(cifar10.train)
        assert np.allclose(found.mean, cifar10.train.preprocessing.mean, atol=1e-4)
        assert np.allclose(found.std, cifar10.train.preprocessing.std, atol=1e-4)

    def test_the_long_tail(self, cifar10):
        start = time.perf_counter()
        data = load("cifar10-lt")
        assert time.perf_counter() - start < 10
        assert len(data.train) == CATALOG["cifar10-lt"].train == 12_406
        assert data.train.class_counts[[0, 9]].tolist() == [5000, 50]
        row = 12_345
        at = int(data.train.ids[row])
        assert np.array_equal(data.train.inputs[row], cifar10.train.inputs[at])
        assert data.val.fingerprint == cifar10.val.fingerprint


class TestRecorded:
    ARGUMENTS: ClassVar = {
        "split_seed": 3,
        "subset_seed": 4,
        "ratio": 5.0,
        "profile": "step",
        "val": 0.2,
        "pad": 0,
        "flip": True,
        "image_size": (12, 16),
    }

    @staticmethod
    def identity(data) -> DataIdentity:
        facts = {**data.train.source, "train": data.train.fingerprint, "val": data.val.fingerprint}
        return DataIdentity(**json.loads(json.dumps(facts)))

    def test_every_argument_comes_back(self):
        data = load("digits", **self.ARGUMENTS)
        again = load_recorded(self.identity(data))
        assert again.train.source == data.train.source
        assert again.test.fingerprint == data.test.fingerprint

    def test_a_users_own_pictures(self, tmp_path):
        rng = np.random.default_rng(0)
        rows = {"picture_": [png(rng) for _ in range(20)], "kind": [0, 1] * 10}
        pq.write_table(pa.table(rows), tmp_path / "mine.parquet")
        arguments = {"image_column": "picture_", "label_column": "kind"}
        data = load(f"parquet:{tmp_path / 'mine.parquet'}", image_size=(4, 6), **arguments)
        assert data.train.source["image_size"] == [4, 6]
        assert load_recorded(self.identity(data)).train.fingerprint == data.train.fingerprint

    def test_what_was_not_asked_for_is_not_recorded(self):
        assert set(load("digits-lt").train.source) == {"name", "split_seed", "subset_seed", "ratio", "subset"}

    @pytest.mark.parametrize("part", ["train", "val"])
    def test_changed_data_are_noticed(self, part):
        changed = self.identity(load("digits-lt")).model_copy(update={part: "0" * 16})
        with pytest.raises(StaleStoreError, match=f"digits-lt/{part}"):
            load_recorded(changed)
        assert len(load_recorded(changed, name="digits").train) == 1000
        assert load_recorded(changed, split_seed=1).train.source["split_seed"] == 1

    def test_data_without_a_name(self):
        with pytest.raises(InputError, match="of your own making"):
            load_recorded(DataIdentity(train="0", val="0"))


def png(rng) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(out, "png")
    return out.getvalue()
