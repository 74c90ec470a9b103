from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.official import jpeg, tiny_files, write_tree, write_zip
from robustdistill.data.encoded import EncodedPictures, Files, ZipMembers, texts
from robustdistill.data.pictures import centre_crop, random_resized_crop
from robustdistill.errors import InputError


def gradient(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Rows in the first channel, columns in the second: says where a pixel came from."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, 0 * rows][:channels], axis=-1).astype(np.uint8)


@given(
    height=st.integers(1, 200), width=st.integers(1, 200), tall=st.integers(1, 40), wide=st.integers(1, 40),
    seed=st.integers(1, 2**62), channels=st.sampled_from([1, 3]),
)  # fmt: skip
def test_crops_of_any_picture(height, width, tall, wide, seed, channels):
    picture = gradient(height, width, channels)
    for cut in (centre_crop(picture, (tall, wide)), random_resized_crop(picture, (tall, wide), seed)):
        assert (cut.shape, cut.dtype) == ((tall, wide, channels), np.uint8)
    assert np.array_equal(
        random_resized_crop(picture, (tall, wide), seed), random_resized_crop(picture, (tall, wide), seed)
    )


def test_the_centre_is_the_centre():
    cut = centre_crop(gradient(256, 200), (175, 175)).astype(int)
    assert cut[0, 0].tolist() == [40, 12, 0]  # nothing is resized: 175 · 256/224 is 200, the shorter side
    assert cut[-1, -1].tolist() == [214, 186, 0]


def test_random_crops_are_spread_as_they_should_be():
    """Over many draws: areas between 8 and 100 %, ratios from 3/4 to 4/3, half of them mirrored."""
    picture = gradient(250, 250)
    areas, ratios, mirrored = [], [], 0
    for seed in range(1, 1501):
        cut = random_resized_crop(picture, (50, 50), seed).astype(float)
        height = (cut[-1, 0, 0] - cut[0, 0, 0]) * 50 / 49
        width = (cut[0, -1, 1] - cut[0, 0, 1]) * 50 / 49
        mirrored += width < 0
        areas.append(abs(height * width) / 250**2)
        ratios.append(abs(width / height))
    assert 0.07 < min(areas) < 0.1
    assert 0.9 < max(areas) <= 1.05
    # A part of area a and ratio r fits where a <= min(r, 1/r): with u = |log r| uniform on [0, log 4/3], the mean of
    # what fits is the integral of (e^-2u - 0.08^2) / 2 over that of e^-u - 0.08.
    expected = ((1 - 9 / 16) / 2 - 0.08**2 * np.log(4 / 3)) / 2 / (1 / 4 - 0.08 * np.log(4 / 3))
    assert abs(np.mean(areas) - expected) < 4 * np.std(areas) / 1500**0.5
    assert 0.7 < min(ratios) < max(ratios) < 1.43
    assert abs(np.log(ratios).mean()) < 0.02
    assert 0.45 < mirrored / 1500 < 0.55


def test_a_picture_that_no_crop_fits():
    """The largest central part of an admissible ratio."""
    cut = random_resized_crop(gradient(10, 240), (10, 12), seed=3)
    columns = cut[0, :, 1].astype(int)
    assert {columns.min(), columns.max()} <= set(range(112, 128))


@pytest.fixture
def stores(tmp_path):
    files = {name: content for name, content in tiny_files().items() if name.endswith("JPEG")}
    names = sorted(files)
    write_tree(tmp_path, files)
    path = write_zip(tmp_path / "t.zip", files, prefix="")
    return [Files(tmp_path, texts(names)), ZipMembers(path, texts(names))], [files[name] for name in names]


def test_stores_read_the_same(stores):
    both, contents = stores
    rows = np.array([5, 0, 5, len(contents) - 1])
    for store in both:
        assert [content for _, content in store.read(rows)] == [contents[row] for row in rows]
        assert store.read(np.array([], dtype=np.int64)) == []
        assert store.blocks(rows) is None
    assert both[0].identity(rows) == both[1].identity(rows)


def test_stores_travel_to_other_processes(stores):
    both, contents = stores
    for store in both:
        store.read(np.array([0]))
        travelled = pickle.loads(pickle.dumps(store))
        assert travelled.read(np.array([1]))[0][1] == contents[1]
        child = os.fork()
        if child == 0:  # a fork shares what is open
            os._exit(0 if store.read(np.array([2]))[0][1] == contents[2] else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert store.read(np.array([3]))[0][1] == contents[3]


def test_names_of_any_script(tmp_path):
    (tmp_path / "Vögel").mkdir()
    (tmp_path / "Vögel" / "鳥.jpg").write_bytes(jpeg(0))
    store = Files(tmp_path, texts(["Vögel/鳥.jpg"]))
    assert EncodedPictures(store, np.array([0]), (64, 64)).decoded().shape == (1, 64, 64, 3)


def test_decoding_in_threads_keeps_the_order(stores):
    store, contents = stores[0][0], stores[1]
    rows = np.random.default_rng(0).permutation(len(contents))
    pictures = EncodedPictures(store, rows, (64, 64))
    one_by_one = np.concatenate([pictures.pixels(np.array([at])) for at in range(len(rows))])
    assert np.array_equal(pictures.decoded(), one_by_one)
    assert np.array_equal(pictures[np.array([3, 1])].decoded(), one_by_one[[3, 1]])


def test_views(stores):
    pictures = EncodedPictures(stores[0][0], np.arange(4), (16, 16), "crop")
    clean = pictures.pixels(np.arange(2))
    assert np.array_equal(pictures.pixels(np.arange(2), [0, 0]), clean)
    first, second = pictures.pixels(np.array([1, 1]), [7, 8])
    assert not np.array_equal(first, second)
    assert np.array_equal(pictures.pixels(np.array([0, 1]), [0, 7])[1], first)


def test_a_damaged_picture_is_named(stores, tmp_path):
    name = stores[0][0].names[2].decode()
    (tmp_path / name).write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(InputError, match=f"{name}: not a readable picture"):
        EncodedPictures(stores[0][0], np.arange(4), (64, 64)).decoded()
