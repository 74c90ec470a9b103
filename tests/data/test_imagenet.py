from __future__ import annotations

import hashlib
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data.official import WNIDS, imagenet_files, jpeg, tiny_files, write_tree, write_zip
from robustdistill.data import CATALOG, class_sizes, imagenet, imagenet_lt, load
from robustdistill.data.encoded import EncodedExamples, Files
from robustdistill.data.stream import StreamedExamples, on_device
from robustdistill.errors import InputError


def tiny(root: Path, **arguments):
    return load("tinyimagenet", root, verify=False, **arguments)


def colours(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


class TestTinyImageNet:
    @pytest.fixture
    def files(self):
        return tiny_files()

    @pytest.fixture
    def folder(self, tmp_path, files):
        return write_tree(tmp_path / "tiny-imagenet-200", files)

    def test_the_tree(self, tmp_path, folder, files):
        data = tiny(tmp_path)
        assert (data.train.inputs.dtype, data.train.inputs.shape) == (np.uint8, (18, 64, 64, 3))
        assert data.train.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
        assert np.array_equal(data.train.inputs[7], colours(files[f"train/{WNIDS[1]}/images/{WNIDS[1]}_1.JPEG"]))
        assert np.array_equal(np.sort(np.r_[data.val.ids, data.test.ids]), np.arange(12))
        for part in (data.val, data.test):
            for row, at in enumerate(part.ids.tolist()):
                assert np.array_equal(part.inputs[row], colours(files[f"val/images/val_{at}.JPEG"]))
                assert part.labels[row] == at % 3

    def test_grey_pictures_become_colour(self, tmp_path, folder, files):
        grey = tiny(tmp_path).train.inputs[4]
        assert Image.open(io.BytesIO(files[f"train/{WNIDS[0]}/images/{WNIDS[0]}_4.JPEG"])).mode == "L"
        assert np.array_equal(grey[..., 0], grey[..., 2])

    def test_class_names(self, tmp_path, folder):
        assert tiny(tmp_path).class_names == ("goldfish", "centipede", "n02002724")
        (folder / "words.txt").write_text(f"{WNIDS[0]}\tcrane, bird\n{WNIDS[1]}\tcrane, lifting device\n")
        assert tiny(tmp_path).class_names == (f"crane ({WNIDS[0]})", f"crane ({WNIDS[1]})", WNIDS[2])
        (folder / "words.txt").unlink()
        assert tiny(tmp_path).class_names == WNIDS

    def test_the_zip_reads_the_same_and_writes_nothing(self, tmp_path, folder, files):
        (tmp_path / "b").mkdir()
        write_zip(tmp_path / "b" / "tiny-imagenet-200.zip", files)
        a, b = tiny(tmp_path), tiny(tmp_path / "b")
        for split in ("train", "val", "test"):
            assert getattr(a, split).fingerprint == getattr(b, split).fingerprint
        assert [path.name for path in (tmp_path / "b").iterdir()] == ["tiny-imagenet-200.zip"]

    def test_the_long_tail(self, tmp_path):
        write_tree(tmp_path / "tiny-imagenet-200", tiny_files(train_each=90))
        data = load("tinyimagenet-lt", tmp_path, verify=False)
        assert data.train.class_counts.tolist() == class_sizes(90, 83, 3).tolist() == [90, 9, 1]
        whole = tiny(tmp_path)
        assert np.array_equal(data.train.inputs[[0, -1]], whole.train.inputs[data.train.ids[[0, -1]]])
        assert data.val.fingerprint == whole.val.fingerprint
        assert CATALOG["tinyimagenet-lt"].train == class_sizes(500, 83, 200).sum() == 22_403

    def test_image_size_is_that_of_batches(self, tmp_path, folder):
        plain, data = tiny(tmp_path), tiny(tmp_path, image_size=(80, 16))
        for part, own in ((data.train, plain.train), (data.val, plain.val), (data.test, plain.test)):
            assert np.array_equal(part.inputs, own.inputs)
            assert part.preprocessing == replace(own.preprocessing, resize=(80, 16))
            assert part.fingerprint != own.fingerprint
            (batch,) = on_device(part).clean(100)
            assert batch.inputs.shape[1:] == (3, 80, 16)
        assert data.train.source["image_size"] == [80, 16]
        assert tiny(tmp_path, image_size=32).train.fingerprint != data.train.fingerprint
        shown = next(on_device(data.train).epoch(5, seed=0, epoch=0))
        assert shown.inputs.shape == (5, 3, 80, 16)

    def test_the_size_that_they_have(self, tmp_path, folder):
        assert tiny(tmp_path, image_size=64).train.fingerprint == tiny(tmp_path).train.fingerprint

    def test_another_size_is_refused(self, tmp_path, folder):
        name = f"{WNIDS[1]}_3.JPEG"
        (folder / "train" / WNIDS[1] / "images" / name).write_bytes(jpeg(1, 65, 64))
        for arguments in ({}, {"image_size": 32}):
            with pytest.raises(InputError, match=rf"{name}: expected a picture of 64x64 pixels, got 65x64$"):
                tiny(tmp_path, **arguments)

    def test_verify_counts_a_tree(self, tmp_path, folder, monkeypatch):
        with pytest.raises(InputError, match="published data have 200 classes, this copy 3"):
            load("tinyimagenet", tmp_path)
        monkeypatch.setattr(imagenet, "TINY_COUNTS", (3, 6, 4))
        assert len(load("tinyimagenet", tmp_path).train) == 18
        (folder / "train" / WNIDS[2] / "images" / f"{WNIDS[2]}_0.JPEG").unlink()
        with pytest.raises(InputError, match=rf"6 pictures of each class in train, this copy 5 of {WNIDS[2]}"):
            load("tinyimagenet", tmp_path)
        monkeypatch.setattr(imagenet, "TINY_COUNTS", (3, 5, 4))
        with pytest.raises(InputError, match="5 pictures of each class in train, this copy 6"):
            load("tinyimagenet", tmp_path)

    def test_verify_checks_the_zip(self, tmp_path, files, monkeypatch):
        path = write_zip(tmp_path / "tiny-imagenet-200.zip", files)
        with pytest.raises(InputError, match=f"expected the published md5 {imagenet.TINY_MD5}"):
            load("tinyimagenet", tmp_path)
        monkeypatch.setattr(imagenet, "TINY_MD5", hashlib.md5(path.read_bytes()).hexdigest())
        monkeypatch.setattr(imagenet, "TINY_COUNTS", (3, 6, 4))
        assert len(load("tinyimagenet", tmp_path).train) == 18

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"wnids.txt": None}, r"expected wnids\.txt"),
            ({"val/val_annotations.txt": None}, r"expected val/val_annotations\.txt"),
            ({"val/val_annotations.txt": b"val_0.JPEG\tn09999999\t0\t0\t1\t1\n"}, "line 1: .*an id of wnids.txt, got"),
            ({"val/val_annotations.txt": b"val_0.JPEG\n"}, r"line 1: .*got 'val_0\.JPEG'"),
            ({"val/images/val_7.JPEG": None}, r"line 8: val/images has no 'val_7\.JPEG'"),
            ({"val/images/val_7.JPEG": b"no picture"}, r"val_7\.JPEG: not a readable picture"),
            ({"wnids.txt": b"n01443537\nn09999999\n"}, "an id of wnids.txt"),
            ({"wnids.txt": b"n" * 300}, "must hold WordNet ids such as n01443537, got 'nnn"),
            ({"wnids.txt": b"\n".join(w.encode() for w in (*WNIDS, "n09999999"))}, r"class 3 \('n09999999'\) has 0"),
        ],
    )
    @pytest.mark.parametrize("packed", [False, True])
    def test_bad_trees(self, tmp_path, files, change, message, packed):
        files = {name: content for name, content in {**files, **change}.items() if content is not None}
        if packed:
            write_zip(tmp_path / "tiny-imagenet-200.zip", files)
        else:
            write_tree(tmp_path / "tiny-imagenet-200", files)
        with pytest.raises(InputError, match=message):
            tiny(tmp_path)

    def test_bad_zips(self, tmp_path, files):
        path = write_zip(tmp_path / "tiny-imagenet-200.zip", files)
        whole = path.read_bytes()
        for content in (b"", b"not a zip", whole[: len(whole) // 2]):
            path.write_bytes(content)
            with pytest.raises(InputError, match=r"tiny-imagenet-200\.zip: truncated, or not a zip"):
                tiny(tmp_path)
        at = whole.index(files["val/images/val_3.JPEG"][:2], len(whole) // 3)
        path.write_bytes(whole[:at] + bytes(2000) + whole[at + 2000 :])
        with pytest.raises(InputError, match=r"tiny-imagenet-200\.zip"):
            tiny(tmp_path)

    def test_a_zip_of_something_else(self, tmp_path, files):
        write_zip(tmp_path / "tiny-imagenet-200.zip", files, prefix="other/")
        with pytest.raises(InputError, match=r"expected wnids\.txt"):
            tiny(tmp_path)


def plain_name(name: str) -> str | None:
    return Path(name).name


def hub_name(name: str) -> str | None:
    """As imagenet-1k on the hub has it: the class once more at the end."""
    return f"{Path(name).stem}_{name.split('/')[1]}.JPEG"


def parquet_shards(folder: Path, files: dict[str, bytes], *, names: bool = True, path=plain_name) -> None:
    """ImageNet as the hub has it: rows in any order, several row groups, labels as integers."""
    folder.mkdir(parents=True)
    notes = {"info": {"features": {"label": {"names": [f"name {w}" for w in WNIDS], "_type": "ClassLabel"}}}}
    for part, shards in (("train", 2), ("validation", 1)):
        prefix = "val" if part == "validation" else part
        pairs = sorted(
            ((name, content) for name, content in files.items() if name.startswith(prefix)), key=lambda p: p[1]
        )
        for shard in range(shards):
            mine = pairs[shard::shards]
            table = pa.table(
                {
                    "image": [{"bytes": content, "path": path(name)} for name, content in mine],
                    "label": [WNIDS.index(name.split("/")[1]) for name, _ in mine],
                }
            )
            if names:
                table = table.replace_schema_metadata({"huggingface": json.dumps(notes)})
            pq.write_table(table, folder / f"{part}-0000{shard}-of-0000{shards}.parquet", row_group_size=3)


class TestImageNet:
    @pytest.fixture
    def files(self):
        return imagenet_files()

    @pytest.fixture
    def folder(self, tmp_path, files):
        return write_tree(tmp_path / "imagenet", files)

    def test_class_folders(self, tmp_path, folder, files):
        data = load("imagenet", tmp_path, verify=False)
        assert data.class_names == WNIDS
        assert isinstance(data.train, EncodedExamples)
        assert data.train.inputs.shape == (15, 224, 224, 3)
        assert data.train.channels == 3
        assert data.train.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
        assert (len(data.val), len(data.test)) == (6, 6)
        assert not np.intersect1d(data.val.ids, data.test.ids).size
        name = data.train.pictures.store.names[6].decode()
        assert name == f"train/{WNIDS[1]}/{WNIDS[1]}_1.JPEG"
        assert np.array_equal(data.train.pictures.pixels(np.array([6]))[0], centred(files[name]))

    def test_image_size(self, tmp_path, folder):
        assert load("imagenet", tmp_path, verify=False, image_size=32).val.inputs.shape == (6, 32, 32, 3)

    def test_augmentation_in_memory_is_not_for_it(self, tmp_path, folder):
        for arguments in ({"pad": 2}, {"flip": True}):
            with pytest.raises(InputError, match="pad and flip do nothing for imagenet"):
                load("imagenet", tmp_path, verify=False, **arguments)

    def test_parquet_files(self, tmp_path, files):
        parquet_shards(tmp_path / "imagenet" / "data", files)
        data = load("imagenet", tmp_path, verify=False)
        assert data.class_names == tuple(f"name {w}" for w in WNIDS)
        assert (len(data.train), len(data.val), len(data.test)) == (15, 6, 6)
        by_content = sorted((content, name) for name, content in files.items() if name.startswith("train"))
        order = by_content[0::2] + by_content[1::2]
        assert data.train.labels.tolist() == [WNIDS.index(name.split("/")[1]) for _, name in order]
        rows = np.array([14, 0, 9, 9, 4])
        expected = np.stack([centred(order[row][0]) for row in rows])
        assert np.array_equal(data.train.pictures.pixels(rows), expected)
        assert np.array_equal(data.train.pictures.blocks(), np.repeat(range(6), (3, 3, 2, 3, 3, 1)))

    def test_parquet_files_without_names(self, tmp_path, files):
        parquet_shards(tmp_path / "imagenet", files, names=False)
        assert load("imagenet", tmp_path, verify=False).class_names == ("0", "1", "2")

    def test_fingerprints_follow_the_names(self, tmp_path, folder):
        first = load("imagenet", tmp_path, verify=False).train
        assert load("imagenet", tmp_path, verify=False).train.fingerprint == first.fingerprint
        assert load("imagenet", tmp_path, verify=False, image_size=64).train.fingerprint != first.fingerprint
        assert first.subset(np.arange(14)).fingerprint != first.fingerprint
        assert first.subset(np.arange(15)).fingerprint == first.fingerprint
        path = next(iter(folder.glob("train/*/*.JPEG")))
        path.rename(path.with_name("other.JPEG"))
        assert load("imagenet", tmp_path, verify=False).train.fingerprint != first.fingerprint

    def test_a_set_that_fits_can_be_brought_into_memory(self, tmp_path, folder):
        val = load("imagenet", tmp_path, verify=False, image_size=16).val
        held = val.decoded()
        assert not isinstance(held, EncodedExamples)
        assert np.array_equal(held.inputs, val.pictures.pixels(np.arange(6)))
        assert np.array_equal(held.ids, val.ids)
        assert held.source == val.source

    @pytest.mark.parametrize(
        ("counts", "message"),
        [
            ((1000, 15, 12), "1,000 classes, this copy 3"),
            ((3, 16, 12), "16 training pictures, this copy 15"),
            ((3, 15, 13), "13 validation pictures, this copy 12"),
            ((3, 15, 12), ""),
        ],
    )
    def test_verify_counts(self, tmp_path, folder, monkeypatch, counts, message):
        monkeypatch.setattr(imagenet, "IMAGENET_COUNTS", counts)
        if not message:
            assert len(load("imagenet", tmp_path).train) == 15
            return
        with pytest.raises(InputError, match=message):
            load("imagenet", tmp_path)

    def test_bad_folders(self, tmp_path, files):
        with pytest.raises(InputError, match=r"looked in .*Download ILSVRC 2012 from https://image-net\.org"):
            load("imagenet", tmp_path)
        (tmp_path / "imagenet").mkdir()
        with pytest.raises(InputError, match=r"expected train/WNID/\*\.JPEG"):
            load("imagenet", tmp_path)
        flat = {name if name.startswith("train") else f"val/{Path(name).name}": c for name, c in files.items()}
        write_tree(tmp_path / "imagenet", flat)
        with pytest.raises(InputError, match="has to be sorted into classes first"):
            load("imagenet", tmp_path)

    def test_bad_parquet(self, tmp_path, files):
        parquet_shards(tmp_path / "imagenet", files)
        shard = tmp_path / "imagenet" / "train-00001-of-00002.parquet"
        whole = shard.read_bytes()
        shard.write_bytes(whole[:-20])
        with pytest.raises(InputError, match=r"train-00001.*truncated"):
            load("imagenet", tmp_path, verify=False)
        pq.write_table(pa.table({"label": [0, 1]}), shard)
        with pytest.raises(InputError, match="expected the columns 'image' and 'label', got label"):
            load("imagenet", tmp_path, verify=False)
        pq.write_table(pa.table({"image": [b"x"], "label": ["a"]}), shard)
        with pytest.raises(InputError, match="labels must be integers"):
            load("imagenet", tmp_path, verify=False)
        pq.write_table(pa.table({"image": [None, b"x"], "label": [0, 1]}), shard)
        train = load("imagenet", tmp_path, verify=False).train
        with pytest.raises(InputError, match="row 0: expected the bytes of a picture, got NoneType"):
            train.pictures.pixels(np.array([len(train) - 2]))
        with pytest.raises(InputError, match="row 1: not a readable picture"):
            train.pictures.pixels(np.array([len(train) - 1]))
        (tmp_path / "imagenet" / "validation-00000-of-00001.parquet").unlink()
        with pytest.raises(InputError, match="expected validation-"):
            load("imagenet", tmp_path, verify=False)

    def test_a_file_that_vanished_is_named(self, tmp_path, folder):
        data = load("imagenet", tmp_path, verify=False)
        path = folder / data.train.pictures.store.names[3].decode()
        path.unlink()
        with pytest.raises(InputError, match=rf"{path.name}: cannot be read"):
            data.train.pictures.pixels(np.array([3]))


def centred(content: bytes, size: int = 224, shorter: int = 256) -> np.ndarray:
    """The usual evaluation, by other means: Pillow's own resize and crop."""
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    width, height = picture.size
    scale = shorter / min(width, height)
    picture = picture.resize((round(width * scale), round(height * scale)), Image.Resampling.BILINEAR)
    left, top = round((picture.width - size) / 2), round((picture.height - size) / 2)
    return np.asarray(picture.crop((left, top, left + size, top + size)))


class TestImageNetLongTail:
    LINES = (f"train/{WNIDS[2]}/{WNIDS[2]}_3.JPEG 2", f"train/{WNIDS[0]}/{WNIDS[0]}_4.JPEG 0")

    @pytest.fixture
    def root(self, tmp_path):
        write_tree(tmp_path / "imagenet", imagenet_files())
        return tmp_path

    def write(self, path: Path, *lines: str) -> Path:
        lines = lines or (*self.LINES, *(f"train/{WNIDS[1]}/{WNIDS[1]}_{i}.JPEG 1" for i in range(3)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    @pytest.mark.parametrize("place", ["ImageNet_LT_train.txt", "imagenet/ImageNet_LT_train.txt", "lists/mine.txt"])
    def test_a_list(self, root, place):
        path = self.write(root / place)
        data = load("imagenet-lt", root, verify=False, **({"lists": path} if "mine" in place else {}))
        assert data.train.class_counts.tolist() == [1, 3, 1]
        whole = load("imagenet", root, verify=False)
        assert data.train.ids.tolist() == [4, 5, 6, 7, 13]
        assert data.val.fingerprint == whole.val.fingerprint
        store = data.train.pictures.store
        assert isinstance(store, Files)
        named = store.names[data.train.pictures.rows].tolist()
        assert named[0].decode() + " 0" == self.LINES[1]
        assert named[-1].decode() + " 2" == self.LINES[0]

    def test_the_folder_of_the_list(self, root):
        self.write(root / "lists" / "ImageNet_LT_train.txt")
        assert len(load("imagenet-lt", root, lists=str(root / "lists"), verify=False).train) == 5

    def test_verify_counts_the_list(self, root, monkeypatch):
        self.write(root / "ImageNet_LT_train.txt")
        with pytest.raises(InputError, match="published list has 115,846 pictures, this one 5"):
            load("imagenet-lt", root)
        monkeypatch.setattr(imagenet_lt, "COUNT", 5)
        monkeypatch.setattr(imagenet, "IMAGENET_COUNTS", (3, 999, 12))
        assert len(load("imagenet-lt", root).train) == 5

    def test_bad_lists(self, root):
        with pytest.raises(InputError, match=r"expected ImageNet_LT_train\.txt in .*name it.* with lists="):
            load("imagenet-lt", root)
        with pytest.raises(InputError, match="lists: expected the file"):
            load("imagenet-lt", root, lists=root / "none")
        with pytest.raises(InputError, match="lists is for imagenet-lt only, and does nothing for 'imagenet'"):
            load("imagenet", root, lists=root)
        path = root / "ImageNet_LT_train.txt"
        for line, message in (
            ("train/n01443537/no.JPEG 0", r"line 1: no picture 'train/n01443537/no\.JPEG' in"),
            (f"train/{WNIDS[1]}/{WNIDS[1]}_0.JPEG 2", "line 1: .* has the label 2, in .*imagenet it is 1"),
            (
                f"train/{WNIDS[1]}/{WNIDS[1]}_0.JPEG",
                r"line 1: expected 'train/WNID/FILE LABEL', got 'train/.*_0\.JPEG'",
            ),
            ("", "line 1: expected 'train/WNID/FILE LABEL', got ''"),
        ):
            self.write(path, line, *self.LINES)
            with pytest.raises(InputError, match=message):
                load("imagenet-lt", root, verify=False)
        self.write(path, *self.LINES, self.LINES[0])
        with pytest.raises(InputError, match="1 pictures are listed twice"):
            load("imagenet-lt", root, verify=False)

    def test_a_list_that_is_no_text(self, root):
        (root / "ImageNet_LT_train.txt").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(InputError, match=r"ImageNet_LT_train\.txt: no list of pictures"):
            load("imagenet-lt", root, verify=False)


class TestImageNetLongTailInTables(TestImageNetLongTail):
    """The same list over the hub's parquet files; of the tests above, those that are about the list itself."""

    @pytest.fixture
    def root(self, tmp_path):
        parquet_shards(tmp_path / "imagenet" / "data", imagenet_files(), path=hub_name)
        return tmp_path

    @pytest.mark.parametrize(
        "path",
        [plain_name, hub_name, lambda name: name, lambda name: hub_name(name) if "_3" in name else plain_name(name)],
        ids=["plain", "hub", "whole", "mixed"],
    )
    def test_rows_are_joined_by_name(self, tmp_path, path):
        files = imagenet_files()
        parquet_shards(tmp_path / "imagenet", files, path=path)
        self.write(tmp_path / "ImageNet_LT_train.txt")
        data, whole = (load(name, tmp_path, verify=False, image_size=16) for name in ("imagenet-lt", "imagenet"))
        assert data.train.class_counts.tolist() == [1, 3, 1]
        assert data.class_names == whole.class_names
        assert data.val.fingerprint == whole.val.fingerprint
        listed = [f"{WNIDS[0]}_4", f"{WNIDS[1]}_0", f"{WNIDS[1]}_1", f"{WNIDS[1]}_2", f"{WNIDS[2]}_3"]
        wanted = {files[f"train/{stem[:9]}/{stem}.JPEG"] for stem in listed}
        assert {content for _, content in data.train.pictures.store.read(data.train.pictures.rows)} == wanted
        assert np.array_equal(whole.train.labels[data.train.ids], data.train.labels)
        assert np.array_equal(data.train.ids, np.sort(data.train.ids))
        batches = list(StreamedExamples(data.train, workers=0).epoch(3, seed=0, epoch=0))
        assert sorted(p for batch in batches for p in batch.positions.tolist()) == list(range(5))

    def test_a_list(self, root):
        self.write(root / "imagenet" / "ImageNet_LT_train.txt")  # beside the tables' folder
        assert len(load("imagenet-lt", root, verify=False).train) == 5

    def test_bad_lists(self, root):
        path = root / "ImageNet_LT_train.txt"
        for line, message in (
            ("train/n01443537/no.JPEG 0", r"line 1: no picture 'no\.JPEG' in the tables of .*data "),
            (f"train/{WNIDS[1]}/{WNIDS[1]}_0.JPEG 2", "line 1: .* has the label 2, in .*imagenet it is 1"),
        ):
            self.write(path, line, *self.LINES)
            with pytest.raises(InputError, match=message):
                load("imagenet-lt", root, verify=False)
        self.write(path, *self.LINES, self.LINES[0])
        with pytest.raises(InputError, match="1 pictures are listed twice"):
            load("imagenet-lt", root, verify=False)

    def test_a_name_that_two_rows_have(self, tmp_path):
        twice = f"{WNIDS[1]}_1.JPEG"
        parquet_shards(
            tmp_path / "imagenet",
            imagenet_files(),
            path=lambda name: twice if f"{WNIDS[1]}_4" in name else hub_name(name),
        )
        self.write(tmp_path / "ImageNet_LT_train.txt")
        message = rf"{twice}' must be one picture, and is in train-0000.* row group \d row \d and train-0000.* row \d"
        with pytest.raises(InputError, match=message):
            load("imagenet-lt", tmp_path, verify=False)
        self.write(tmp_path / "ImageNet_LT_train.txt", f"train/{WNIDS[0]}/{WNIDS[0]}_0.JPEG 0")
        with pytest.raises(InputError, match="class 1"):  # one that is not listed does no harm
            load("imagenet-lt", tmp_path, verify=False)

    def test_rows_without_a_name(self, tmp_path):
        parquet_shards(
            tmp_path / "imagenet", imagenet_files(), path=lambda name: None if "_1.JPEG" in name else hub_name(name)
        )
        self.write(tmp_path / "ImageNet_LT_train.txt")
        message = rf"line 4: no picture '{WNIDS[1]}_1\.JPEG' in the tables of .*imagenet; 3 rows have no name"
        with pytest.raises(InputError, match=message):
            load("imagenet-lt", tmp_path, verify=False)

    @pytest.mark.parametrize(
        "column", [pa.array([b"x", b"y"]), pa.array([{"bytes": b"x"}] * 2), pa.array([{"bytes": b"x", "path": 1}] * 2)]
    )
    def test_tables_without_names(self, root, column):
        self.write(root / "ImageNet_LT_train.txt")
        shard = root / "imagenet" / "data" / "train-00001-of-00002.parquet"
        pq.write_table(pa.table({"image": column, "label": [0, 1]}), shard)
        with pytest.raises(InputError, match=r"train-00001.*the list names files, and the column 'image' does not"):
            load("imagenet-lt", root, verify=False)


REAL = Path(os.environ.get("ROBUSTDISTILL_DATA", "")).expanduser()


@pytest.mark.skipif(
    not os.environ.get("ROBUSTDISTILL_DATA") or not (REAL / "tiny-imagenet-200").is_dir(),
    reason="ROBUSTDISTILL_DATA is not set or holds no tiny-imagenet-200",
)
def test_a_real_tinyimagenet():
    data = tiny(REAL)
    assert data.train.inputs.shape[1:] == (64, 64, 3)
    assert len(set(data.train.class_counts.tolist())) == 1
    assert len(data.val) == len(data.test)
    assert abs(data.train.inputs.mean() / 255 - np.mean(data.train.preprocessing.mean)) < 0.02
