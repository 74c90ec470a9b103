"""Targets: pictures, and data sets in the files that people have them in."""

from __future__ import annotations

import gzip
import io
import pickle
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from data.official import idx, imagenet_files, tiny_files, write_tree, write_zip
from fuzz.harness import Target
from fuzz.mutations import TOKENS, damaged
from fuzz.tables import ARRAYS, TYPES
from robustdistill.data import load
from robustdistill.data.formats import _idx_array
from robustdistill.data.pickles import load_dict
from robustdistill.data.pictures import decode
from robustdistill.data.splits import Splits

_MODES = {
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "jpeg": ("L", "RGB", "CMYK"),
    "gif": ("L", "P", "RGB"),
    "bmp": ("1", "L", "RGB"),
    "webp": ("RGB", "RGBA"),
    "tiff": ("1", "L", "RGB", "CMYK", "I;16", "F", "LAB", "YCbCr"),
    "ppm": ("1", "L", "RGB"),
}


@cache
def encoded() -> tuple[bytes, ...]:
    """A small picture in every format and mode that is read, and in some that are not."""
    made = []
    for form, modes in _MODES.items():
        for mode in modes:
            picture = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
            plain = picture.convert("L") if mode in ("I;16", "F", "LA") else picture
            stream = io.BytesIO()
            plain.convert(mode).save(stream, form)
            made.append(stream.getvalue())
    return tuple(made)


def _picture_run(content: bytes, place: Path) -> Any:
    pixels = decode(content, "picture 7")
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] in (1, 3)
    return pixels


def checked(splits: Splits) -> Splits:
    """What training relies on."""
    for part in (splits.train, splits.val, splits.test):
        assert len(part) == len(part.ids)
        assert len(np.unique(part.ids)) == len(part)
        if part.labels is not None:
            assert ((part.labels >= 0) & (part.labels < part.num_classes)).all()
    splits.train.require_every_class()
    return splits


# One small tree of each kind, in which one file at a time is damaged


def _fresh(place: Path, files: dict[str, bytes]) -> Path:
    root = place / "root"
    shutil.rmtree(root, ignore_errors=True)
    return write_tree(root, files)


@st.composite
def damaged_trees(draw: st.DrawFn, files: dict[str, bytes]) -> dict[str, bytes | None]:
    """What differs from a whole tree: one file's content, and sometimes one that is left out."""
    name = draw(st.sampled_from(sorted(files)))
    changes: dict[str, bytes | None] = {name: draw(damaged((files[name],)))}
    if draw(st.integers(0, 9)) == 0:
        changes[draw(st.sampled_from(sorted(files)))] = None
    return changes


def _changed(files: dict[str, bytes], changes: dict[str, bytes | None], below: str = "") -> dict[str, bytes]:
    return {f"{below}{name}": content for name, content in {**files, **changes}.items() if content is not None}


@cache
def folder_files() -> dict[str, bytes]:
    colour = encoded()
    return {f"train/{name}/{i}.png": colour[4] for name in ("ant", "bee") for i in range(6)}


def _folder_run(changes: dict[str, bytes | None], place: Path) -> Any:
    return checked(load(f"folder:{_fresh(place, _changed(folder_files(), changes))}"))


@cache
def tiny_tree() -> dict[str, bytes]:
    return {name: content for name, content in tiny_files(3, 2).items() if not name.startswith("test")}


def _tiny_run(changes: dict[str, bytes | None], place: Path) -> Any:
    root = _fresh(place, _changed(tiny_tree(), changes, "tiny-imagenet-200/"))
    return checked(load("tinyimagenet", root, verify=False))


@cache
def tiny_zip() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        return write_zip(Path(place) / "a.zip", tiny_tree()).read_bytes()


def _zip_run(content: bytes, place: Path) -> Any:
    return checked(load("tinyimagenet", _fresh(place, {"tiny-imagenet-200.zip": content}), verify=False))


@cache
def imagenet_tree() -> dict[str, bytes]:
    return {f"imagenet/{name}": content for name, content in imagenet_files(2, 1).items()}


LIST_LINES = "".join(
    f"{name.removeprefix('imagenet/')} {sorted({n.split('/')[2] for n in imagenet_tree()}).index(name.split('/')[2])}\n"
    for name in imagenet_tree()
    if "/train/" in name
).encode()


def _list_run(content: bytes, place: Path) -> Any:
    root = place / "lists"
    if not root.exists():
        write_tree(root, imagenet_tree())
    (root / "ImageNet_LT_train.txt").write_bytes(content)
    return load("imagenet-lt", root, verify=False, image_size=8)


# idx, pickles, arrays, tables


IDX_FILES = (
    idx(np.arange(48, dtype=np.uint8).reshape(3, 4, 4)),
    gzip.compress(idx(np.arange(48, dtype=np.uint8).reshape(3, 4, 4)), mtime=0),
)


def _idx_run(content: bytes, place: Path) -> Any:
    path = place / "images"
    path.write_bytes(content)
    array = _idx_array(path, 3, None)
    assert array.nbytes <= 2000 * max(1, len(content))
    return array


@cache
def pickles() -> tuple[bytes, ...]:
    batch = {b"data": np.arange(3072, dtype=np.uint8).reshape(1, 3072), b"labels": [3], b"batch_label": b"1 of 1"}
    texts = {"data": np.zeros((2, 3072), dtype=np.uint8), "fine_labels": [0, 1], "names": ["a", "b"]}
    return tuple(pickle.dumps(one, protocol=protocol) for one in (batch, texts) for protocol in (2, 4))


PICKLE_TOKENS = (
    *(b"cos\nsystem\n", b"cnumpy\ndtype\n", b"R", b"b", b"(", b"t", b"}", b"]", b"e", b"u", b"s", b"0", b"2", b"\x85"),
    *(b"\x86", b"\x87", b"K\xff", b"J\xff\xff\xff\x7f", b"\x8c\x02u1", b"q\x00", b"h\x00", b"\x80\x04", b"\x95", b"."),
)


def _pickle_run(content: bytes, place: Path) -> Any:
    found = load_dict(content, "data_batch_1")
    assert isinstance(found, dict)
    return found


def _cifar_run(content: bytes, place: Path) -> Any:
    meta = pickle.dumps({"label_names": [f"c{j}" for j in range(10)]})
    whole = pickle.dumps({"data": np.zeros((10, 3072), dtype=np.uint8), "labels": list(range(10))})
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    files = {f"cifar-10-batches-py/{name}": whole for name in names} | {"cifar-10-batches-py/batches.meta": meta}
    return checked(load("cifar10", _fresh(place, {**files, "cifar-10-batches-py/data_batch_3": content}), verify=False))


@cache
def arrays_files() -> tuple[bytes, ...]:
    made = []
    random = np.random.default_rng(0)
    for save in (np.savez, np.savez_compressed):
        for images in (random.integers(0, 256, (20, 3, 3), dtype=np.uint8), random.normal(size=(20, 2))):
            stream = io.BytesIO()
            save(stream, train_images=images, train_labels=np.arange(20) % 2, class_names=np.array(["a", "b"]))
            made.append(stream.getvalue())
    return tuple(made)


def _arrays_run(content: Any, place: Path) -> Any:
    path = place / "data.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, **content)
    return checked(load(f"npz:{path}"))


def data_arrays() -> st.SearchStrategy[dict[str, Any]]:
    good = st.sampled_from(
        [np.zeros((20, 3, 3), dtype=np.uint8), np.zeros((20, 2)), np.arange(20) % 2, np.array(["a", "b"] * 10)]
    )
    names = ["train_images", "train_labels", "val_images", "val_labels", "test_images", "test_labels", "class_names"]
    return st.fixed_dictionaries(
        {"train_images": st.one_of(good, ARRAYS), "train_labels": st.one_of(good, ARRAYS)},
        optional={name: st.one_of(good, ARRAYS) for name in names[2:]},
    )


@cache
def table_files() -> tuple[bytes, ...]:
    picture = encoded()[4]
    labels = [0, 1] * 6
    cells = [{"bytes": picture, "path": None} for _ in labels]
    notes = {"huggingface": '{"info": {"features": {"label": {"names": ["ant", "bee"]}}}}'}
    made = []
    for columns in ({"image": cells, "label": labels}, {"image": [picture] * 12, "label": labels},
                    {"x": np.linspace(0, 1, 12), "y": np.ones(12), "label": ["a", "b"] * 6}):  # fmt: skip
        stream = io.BytesIO()
        parquet.write_table(pa.table(columns).replace_schema_metadata(notes), stream)
        made.append(stream.getvalue())
    return tuple(made)


@st.composite
def data_tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(0, 12))
    names = draw(
        st.lists(st.sampled_from(["image", "img", "label", "target", "id", "x", "y", ""]), min_size=1, max_size=4)
    )
    columns = []
    for _ in names:
        kind = draw(st.sampled_from([*TYPES, pa.int64(), pa.float64(), pa.binary()]))
        values = st.sampled_from([encoded()[4], b"GIF89a", b""] if kind == pa.binary() else TYPES[kind])
        value = st.one_of(values, st.none()) if draw(st.booleans()) else values
        columns.append(pa.array(draw(st.lists(value, min_size=rows, max_size=rows)), type=kind))
    notes = draw(st.sampled_from([None, {"huggingface": "["}, {"huggingface": '{"info": {"features": []}}'},
                                  {"huggingface": '{"info": {"features": {"label": {"names": 3}}}}'}]))  # fmt: skip
    return pa.Table.from_arrays(columns, names=names, metadata=notes)


def _tables_run(content: Any, place: Path) -> Any:
    path = place / "data.parquet"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        parquet.write_table(content, path)
    return checked(load(f"parquet:{path}"))


TARGETS = [
    Target("picture", lambda: damaged(encoded()), _picture_run, 6, named=lambda content: "picture 7"),
    Target("folder of pictures", lambda: damaged_trees(folder_files()), _folder_run, 1, named=lambda files: "root"),
    Target(
        "tinyimagenet, folder",
        lambda: damaged_trees(tiny_tree()),
        _tiny_run,
        1,
        named=lambda files: "imagenet",
    ),
    Target("tinyimagenet, zip", lambda: damaged((tiny_zip(),)), _zip_run, 1, named=lambda content: "imagenet"),
    Target("list of imagenet-lt", lambda: damaged((LIST_LINES,)), _list_run, 2, named=lambda content: "imagenet-lt"),
    Target("idx", lambda: damaged(IDX_FILES), _idx_run, 2, named=lambda content: "images"),
    Target(
        "pickle",
        lambda: damaged(pickles(), (*TOKENS, *PICKLE_TOKENS)),
        _pickle_run,
        4,
        named=lambda content: "data_batch_1",
    ),
    Target(
        "cifar batch",
        lambda: damaged(pickles(), PICKLE_TOKENS),
        _cifar_run,
        1,
        named=lambda content: "cifar",
    ),
    Target("npz data, bytes", lambda: damaged(arrays_files()), _arrays_run, 1.5, named=lambda content: "data.npz"),
    Target("npz data, arrays", data_arrays, _arrays_run, 1.5, named=lambda content: "data.npz"),
    Target(
        "parquet data, bytes", lambda: damaged(table_files()), _tables_run, 1.5, named=lambda content: "data.parquet"
    ),
    Target("parquet data, columns", data_tables, _tables_run, 1.5, named=lambda content: "data.parquet"),
]
