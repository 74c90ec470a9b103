from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from robustdistill.data import load
from robustdistill.data.loading import load_recorded
from robustdistill.errors import InputError
from robustdistill.training.spec import DataIdentity

RNG = np.random.default_rng(0)


def pictures(n: int, *shape: int) -> np.ndarray:
    return RNG.integers(0, 256, (n, *(shape or (6, 6, 3))), dtype=np.uint8)


def labels(n: int, classes: int = 3) -> np.ndarray:
    return np.arange(n) % classes


def png(picture: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture.squeeze()).save(stream, "png")
    return stream.getvalue()


def whole(data) -> int:
    return len(data.train) + len(data.val) + len(data.test)


class TestNpz:
    def write(self, tmp_path, **arrays):
        path = tmp_path / "mine.npz"
        np.savez(path, **arrays)
        return f"npz:{path}"

    def test_train_and_test(self, tmp_path):
        x = pictures(12)
        name = self.write(
            tmp_path, train_images=x, train_labels=labels(12), test_images=pictures(8), test_labels=labels(8)
        )
        data = load(name)
        assert np.array_equal(data.train.inputs, x)
        assert (len(data.val), len(data.test)) == (4, 4)
        assert data.class_names == ("0", "1", "2")
        assert data.train.name == f"{name}/train"
        assert np.allclose(data.train.preprocessing.mean, x.mean(axis=(0, 1, 2)) / 255, atol=1e-6)
        assert np.allclose(data.train.preprocessing.std, x.std(axis=(0, 1, 2)) / 255, atol=1e-6)
        assert (data.train.preprocessing.pad, data.train.preprocessing.flip) == (0, False)

    def test_its_own_validation_is_kept(self, tmp_path):
        x = pictures(5)
        name = self.write(
            tmp_path,
            train_images=pictures(9),
            train_labels=labels(9),
            val_images=x,
            val_labels=labels(5),
            test_images=pictures(7),
            test_labels=labels(7),
        )
        data = load(name)
        assert np.array_equal(data.val.inputs, x)
        assert len(data.test) == 7
        assert load(name, split_seed=5).val.fingerprint == data.val.fingerprint
        with pytest.raises(InputError, match="validation part of its own"):
            load(name, val=0.1)

    def test_validation_may_be_unlabelled(self, tmp_path):
        name = self.write(
            tmp_path,
            train_images=pictures(9),
            train_labels=labels(9),
            val_images=pictures(5),
            test_images=pictures(7),
            test_labels=labels(7),
        )
        assert load(name).val.labels is None

    def test_validation_alone_is_halved(self, tmp_path):
        name = self.write(
            tmp_path, train_images=pictures(9), train_labels=labels(9), val_images=pictures(6), val_labels=labels(6)
        )
        data = load(name)
        assert sorted([*data.val.ids, *data.test.ids]) == list(range(6))

    def test_one_part_is_split_60_20_20_class_by_class(self, tmp_path):
        name = self.write(tmp_path, train_images=pictures(30), train_labels=labels(30))
        data = load(name)
        assert [part.class_counts.tolist() for part in (data.train, data.val, data.test)] == [[6] * 3, [2] * 3, [2] * 3]
        assert sorted([*data.train.ids, *data.val.ids, *data.test.ids]) == list(range(30))
        assert load(name, split_seed=1).val.ids.tolist() != data.val.ids.tolist()
        assert load(name, split_seed=0).train.fingerprint == data.train.fingerprint

    def test_a_long_tail_of_ones_own(self, tmp_path):
        name = self.write(
            tmp_path, train_images=pictures(60), train_labels=labels(60), test_images=pictures(6), test_labels=labels(6)
        )
        data = load(name, ratio=4)
        assert data.train.class_counts.tolist() == [20, 10, 5]
        assert data.train.source["ratio"] == 4.0

    def test_text_labels_and_class_names(self, tmp_path):
        words = np.array(["cat", "ant", "bee"])[labels(9)]
        plain = self.write(tmp_path, train_images=pictures(9), train_labels=words)
        assert load(plain).class_names == ("ant", "bee", "cat")
        named = self.write(
            tmp_path, train_images=pictures(9), train_labels=words, class_names=np.array(["cat", "ant", "bee"])
        )
        assert load(named).class_names == ("cat", "ant", "bee")

    def test_grey_pictures_get_a_channel(self, tmp_path):
        data = load(self.write(tmp_path, train_images=pictures(9, 5, 4), train_labels=labels(9)))
        assert data.train.inputs.shape[1:] == (5, 4, 1)

    def test_features_are_used_as_they_are(self, tmp_path):
        x = RNG.normal(size=(9, 4))
        data = load(self.write(tmp_path, train_images=x, train_labels=labels(9)))
        assert data.train.inputs.dtype == np.float32
        assert np.array_equal(data.train.inputs, x.astype(np.float32)[data.train.ids])
        assert data.train.preprocessing.mean == (0.0,)

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"train_images": pictures(4)}, "expected the array 'train_labels'"),
            ({"images": pictures(4)}, "expected the array 'train_images', got images"),
            (
                {"train_images": pictures(4), "train_labels": labels(3)},
                r"'train_labels' must be \(4,\), .* got \(3,\)",
            ),
            ({"train_images": pictures(4), "train_labels": labels(4) * 1.0}, "integers or text"),
            ({"train_images": pictures(4), "train_labels": np.array([0, 1, 0, -1])}, "has -1"),
            ({"train_images": pictures(4), "train_labels": np.array([0, 2, 0, 2])}, r"class 1 \('1'\) has 0"),
            ({"train_images": pictures(4), "train_labels": np.array([0, 1, 0, 10**9])}, "got label 1000000000"),
            ({"train_images": pictures(4), "train_labels": np.zeros((4, 2), int)}, r"must be \(4,\), .* got \(4, 2\)"),
            ({"train_images": pictures(4, 12), "train_labels": labels(4)}, r"uint8 pictures must be"),
            ({"train_images": pictures(4, 3, 8, 8), "train_labels": labels(4)}, r"uint8 pictures must be"),
            ({"train_images": pictures(4).astype(int), "train_labels": labels(4)}, "got int64"),
            ({"train_images": np.full((4, 2), np.nan), "train_labels": labels(4)}, "NaN or infinity"),
            ({"train_images": np.full((4, 2), 1e300), "train_labels": labels(4)}, "NaN or infinity"),
            ({"train_images": np.array([{}]), "train_labels": labels(1)}, "not an .npz archive of plain arrays"),
            ({"train_images": pictures(0), "train_labels": labels(0)}, "train must hold"),
            ({"train_images": pictures(4), "train_labels": labels(4)}, "too small"),
        ],
    )
    def test_bad_arrays(self, tmp_path, arrays, message):
        with pytest.raises(InputError, match=message):
            load(self.write(tmp_path, **arrays))

    def test_bad_parts(self, tmp_path):
        train = {"train_images": pictures(9), "train_labels": labels(9)}
        with pytest.raises(InputError, match="test inputs must be like train's"):
            load(self.write(tmp_path, **train, test_images=pictures(4, 7, 7, 3), test_labels=labels(4)))
        with pytest.raises(InputError, match="test_labels"):
            load(self.write(tmp_path, **train, test_images=pictures(4)))
        with pytest.raises(InputError, match=r"held-out: labels must lie in 0\.\.2; row 0 .* has 7"):
            load(self.write(tmp_path, **train, test_images=pictures(4), test_labels=np.full(4, 7)))
        words = np.array(["a", "b", "c"])[labels(9)]
        test = {"test_images": pictures(2), "test_labels": np.array(["z", "a"])}
        name = self.write(tmp_path, train_images=pictures(9), train_labels=words, **test)
        with pytest.raises(InputError, match="row 0 has the label 'z', which is no class of train"):
            load(name)

    def test_bad_files(self, tmp_path):
        path = tmp_path / "mine.npz"
        with pytest.raises(InputError, match=r"expected a file at .*nothing there"):
            load(f"npz:{path}")
        with pytest.raises(InputError, match="found a folder"):
            load(f"npz:{tmp_path}")
        np.savez(path, train_images=pictures(9), train_labels=labels(9))
        content = path.read_bytes()
        entry = content.index(b"PK\x01\x02")  # of the directory; the flags of a member are 8 bytes on
        flags = [content[: entry + 8] + bytes([bit]) + content[entry + 9 :] for bit in (1, 32, 64)]
        for bad in (b"", b"text", content[:100], content[:-5], *flags):
            path.write_bytes(bad)
            with pytest.raises(InputError, match=r"mine\.npz: truncated"):
                load(f"npz:{path}")
        with path.open("wb") as stream:
            np.save(stream, pictures(3))
        with pytest.raises(InputError, match="a single array"):
            load(f"npz:{path}")


class TestFolder:
    def write(self, root, per_class: int = 5, size: int = 6, suffix: str = "png", classes=("ant", "bee", "cat")):
        for name in classes:
            (root / name).mkdir(parents=True)
            for i in range(per_class):
                Image.fromarray(pictures(1, size, size, 3)[0]).save(root / name / f"{i}.{suffix}")

    def test_train_and_test(self, tmp_path):
        self.write(tmp_path / "train")
        self.write(tmp_path / "test", 4)
        data = load(f"folder:{tmp_path}")
        assert data.class_names == ("ant", "bee", "cat")
        assert data.train.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
        assert (len(data.val), len(data.test)) == (6, 6)
        with Image.open(tmp_path / "train" / "bee" / "2.png") as picture:
            assert np.array_equal(data.train.inputs[7], np.asarray(picture))

    def test_its_own_validation(self, tmp_path):
        for part in ("train", "val", "test"):
            self.write(tmp_path / part, 2)
        assert load(f"folder:{tmp_path}").val.class_counts.tolist() == [2, 2, 2]

    def test_a_flat_folder(self, tmp_path):
        self.write(tmp_path, 10, suffix="JPG")
        data = load(f"folder:{tmp_path}")
        assert whole(data) == 30
        assert data.val.class_counts.tolist() == [2, 2, 2]

    def test_sizes_must_agree_unless_one_is_asked_for(self, tmp_path):
        self.write(tmp_path / "train")
        odd = tmp_path / "train" / "bee" / "odd.png"
        Image.fromarray(pictures(1, 4, 7, 3)[0]).save(odd)
        with pytest.raises(InputError, match=r"odd\.png.*4x7.*6x6.*image_size"):
            load(f"folder:{tmp_path}")
        assert load(f"folder:{tmp_path}", image_size=5).train.inputs.shape[1:] == (5, 5, 3)
        assert load(f"folder:{tmp_path}", image_size=(4, 9)).train.inputs.shape[1:] == (4, 9, 3)

    def test_grey_stays_grey_unless_mixed(self, tmp_path):
        self.write(tmp_path / "a")
        for path in (tmp_path / "a").rglob("*.png"):
            Image.fromarray(pictures(1, 6, 6)[0]).save(path)
        assert load(f"folder:{tmp_path / 'a'}").train.inputs.shape[1:] == (6, 6, 1)
        Image.fromarray(pictures(1, 6, 6, 3)[0]).save(tmp_path / "a" / "ant" / "0.png")
        assert load(f"folder:{tmp_path / 'a'}").train.inputs.shape[1:] == (6, 6, 3)

    def test_unreadable_pictures_are_named(self, tmp_path):
        self.write(tmp_path)
        bad = tmp_path / "bee" / "3.png"
        content = bad.read_bytes()
        for broken in (b"", b"not a picture", content[: len(content) // 2]):
            bad.write_bytes(broken)
            with pytest.raises(InputError, match=r"bee.3\.png: not a readable picture"):
                load(f"folder:{tmp_path}")
        Image.fromarray(pictures(1, 6, 6)[0].astype(np.uint16)).save(bad)
        with pytest.raises(InputError, match=r"3\.png: expected an 8-bit picture"):
            load(f"folder:{tmp_path}")

    def test_bad_folders(self, tmp_path):
        with pytest.raises(InputError, match="nothing there"):
            load(f"folder:{tmp_path / 'none'}")
        with pytest.raises(InputError, match="found none"):
            load(f"folder:{tmp_path}")
        (tmp_path / "test" / "ant").mkdir(parents=True)
        with pytest.raises(InputError, match="expected the folder 'train'"):
            load(f"folder:{tmp_path}")
        self.write(tmp_path / "train", classes=("ant", "bee"))
        with pytest.raises(InputError, match="no picture"):
            load(f"folder:{tmp_path}")
        self.write(tmp_path / "test", classes=("dog",))
        with pytest.raises(InputError, match="dog: no class of train"):
            load(f"folder:{tmp_path}")
        (tmp_path / "test" / "dog").rename(tmp_path / "test" / "bee")
        (tmp_path / "train" / "cat").mkdir()
        with pytest.raises(InputError, match=r"class 2 \('cat'\) has 0 examples"):
            load(f"folder:{tmp_path}")


def table(n: int, encoded: bool = True) -> pa.Table:
    cells = [png(picture) for picture in pictures(n)]
    images = [{"bytes": cell, "path": None} for cell in cells] if encoded else cells
    return pa.table({"image": images, "label": labels(n)})


class TestParquet:
    def test_one_file(self, tmp_path):
        path = tmp_path / "mine.parquet"
        made = table(15, encoded=False)
        pq.write_table(made, path)
        data = load(f"parquet:{path}")
        assert whole(data) == 15
        row = int(data.val.ids[0])
        with Image.open(io.BytesIO(made["image"][row].as_py())) as picture:
            assert np.array_equal(data.val.inputs[0], np.asarray(picture))

    @pytest.mark.parametrize("place", [".", "data"])
    def test_a_folder_of_shards(self, tmp_path, place):
        (tmp_path / place).mkdir(exist_ok=True)
        for i in range(2):
            pq.write_table(table(6), tmp_path / place / f"train-0000{i}-of-00002.parquet")
        pq.write_table(table(8), tmp_path / place / "test-00000-of-00001.parquet")
        data = load(f"parquet:{tmp_path}")
        assert (len(data.train), len(data.val), len(data.test)) == (12, 4, 4)
        pq.write_table(table(3), tmp_path / place / "validation-00000-of-00001.parquet")
        assert (len(load(f"parquet:{tmp_path}").val), len(load(f"parquet:{tmp_path}").test)) == (3, 8)

    def test_class_names_from_the_notes_of_datasets(self, tmp_path):
        notes = {"info": {"features": {"label": {"names": ["ant", "bee", "cat"], "_type": "ClassLabel"}}}}
        made = table(15).replace_schema_metadata({"huggingface": json.dumps(notes)})
        pq.write_table(made, tmp_path / "mine.parquet")
        assert load(f"parquet:{tmp_path / 'mine.parquet'}").class_names == ("ant", "bee", "cat")

    def test_features(self, tmp_path):
        path = tmp_path / "mine.parquet"
        b = RNG.normal(size=15)
        pq.write_table(pa.table({"id": np.arange(15), "a": np.ones(15), "y": labels(15), "b": b}), path)
        data = load(f"parquet:{path}", label_column="y")
        assert data.train.inputs.shape[1:] == (2,)
        assert np.array_equal(data.train.inputs[:, 1], b[data.train.ids].astype(np.float32))

    def test_a_column_of_groups(self, tmp_path):
        path = tmp_path / "mine.parquet"
        place = np.array(["north", "south"])[np.arange(40) // 2 % 2]
        pq.write_table(pa.table({"a": np.arange(40.0), "label": labels(40, 2), "place": place}), path)
        data = load(f"parquet:{path}", group_column="place")
        assert data.train.inputs.shape == (24, 1)
        for part, size in ((data.train, 6), (data.val, 2), (data.test, 2)):
            assert (np.array(part.group_names)[part.groups] == place[part.ids]).all()
            # Every class of every group alike.
            assert np.bincount(part.labels * 2 + part.groups).tolist() == [size] * 4
        assert data.train.source["group_column"] == "place"
        facts = {**data.train.source, "train": data.train.fingerprint, "val": data.val.fingerprint}
        assert load_recorded(DataIdentity(**facts)).test.fingerprint == data.test.fingerprint
        with pytest.raises(InputError, match="group column 'country'; it has: a, label, place"):
            load(f"parquet:{path}", group_column="country")
        with pytest.raises(InputError, match=r"'place' is string.*group_column="):
            load(f"parquet:{path}")

    def test_groups_of_held_out_parts_are_those_of_train(self, tmp_path):
        columns = {"a": np.arange(6.0), "label": labels(6), "place": ["north", "south"] * 3}
        pq.write_table(pa.table(columns), tmp_path / "train.parquet")
        pq.write_table(pa.table({**columns, "place": ["south"] * 6}), tmp_path / "test.parquet")
        data = load(f"parquet:{tmp_path}", group_column="place")
        assert data.test.group_names == ("north", "south")
        assert (data.test.groups == 1).all()
        pq.write_table(pa.table({**columns, "place": ["south"] * 5 + ["west"]}), tmp_path / "test.parquet")
        with pytest.raises(InputError, match=r"row 5 .*'west'; expected one of 'north', 'south'"):
            load(f"parquet:{tmp_path}", group_column="place")

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"image": [b"x"] * 4}, "expected the label column 'label' or .*it has: image"),
            ({"image": [b"x"] * 4, "label": labels(4)}, "train row 0: not a readable picture"),
            ({"image": [None, b"x"], "label": labels(2)}, "train row 0: expected the bytes"),
            ({"image": [{"bytes": None, "path": "/etc/passwd"}], "label": [0]}, "train row 0: expected the bytes"),
            ({"age": [1, 2], "label": [0, 1]}, "'age' is int64"),
            ({"label": [0, 1]}, "neither an image column"),
            ({"a": [1.0, None, 2.0], "label": [0, 0, 0]}, "NaN or infinity"),
            ({"a": [1.0, 2.0, 3.0], "label": [0, None, 0]}, "integers or text without gaps"),
        ],
    )
    def test_bad_tables(self, tmp_path, columns, message):
        pq.write_table(pa.table(columns), tmp_path / "mine.parquet")
        with pytest.raises(InputError, match=message):
            load(f"parquet:{tmp_path / 'mine.parquet'}")

    def test_bad_files(self, tmp_path):
        with pytest.raises(InputError, match=r"expected train\*\.parquet in it, found no parquet file"):
            load(f"parquet:{tmp_path}")
        path = tmp_path / "mine.parquet"
        pq.write_table(table(6), path)
        with pytest.raises(InputError, match=r"found mine\.parquet"):
            load(f"parquet:{tmp_path}")
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(InputError, match=r"mine\.parquet: truncated"):
            load(f"parquet:{path}")
        pq.write_table(table(6), path)
        with pytest.raises(InputError, match="expected the image column 'photo'"):
            load(f"parquet:{path}", image_column="photo")


class TestHub:
    @pytest.fixture(autouse=True)
    def _offline(self, tmp_path, monkeypatch):
        import datasets

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def test_a_local_folder_of_parquet(self, tmp_path):
        import datasets

        features = datasets.Features(
            {"img": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee", "cat"])}
        )
        folder = tmp_path / "set" / "data"
        folder.mkdir(parents=True)
        x = pictures(9)
        rows = {"img": [{"bytes": png(picture), "path": None} for picture in x], "label": labels(9).tolist()}
        made = datasets.Dataset.from_dict(rows, features=features)
        made.to_parquet(folder / "train-00000-of-00001.parquet")
        made.select(range(6)).to_parquet(folder / "test-00000-of-00001.parquet")
        data = load(f"hub:{tmp_path / 'set'}")
        assert data.class_names == ("ant", "bee", "cat")
        assert np.array_equal(data.train.inputs, x)
        assert (len(data.val), len(data.test)) == (3, 3)

    def test_a_part_whose_labels_are_withheld_is_left_out(self, tmp_path):
        folder = tmp_path / "set"
        folder.mkdir()
        a = RNG.normal(size=12)
        pq.write_table(pa.table({"a": a, "label": labels(12)}), folder / "train.parquet")
        pq.write_table(pa.table({"a": a[:6], "label": labels(6)}), folder / "validation.parquet")
        pq.write_table(pa.table({"a": a[:4], "label": [-1] * 4}), folder / "test.parquet")
        data = load(f"hub:{folder}")
        assert (len(data.val), len(data.test)) == (3, 3)

    def test_pictures_in_files(self, tmp_path):
        TestFolder().write(tmp_path / "set" / "train")
        TestFolder().write(tmp_path / "set" / "test", 2)
        data = load(f"hub:{tmp_path / 'set'}")
        assert data.class_names == ("ant", "bee", "cat")
        assert (data.train.inputs.shape, whole(data)) == ((15, 6, 6, 3), 21)

    def test_a_name_that_cannot_be_had(self, tmp_path):
        with pytest.raises(InputError, match="hub:nobody/nothing: could not be loaded"):
            load("hub:nobody/nothing")
        with pytest.raises(InputError, match="expected the name of a data set"):
            load("hub:")
