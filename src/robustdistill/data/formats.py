"""Readers of published data sets in their official files. Each returns a `Source`; none downloads anything.

A new data set is one reader here (large ones: in `imagenet`) and one row in `catalog`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustdistill.archives import gunzip, tar_members
from robustdistill.data.encoded import EncodedPictures
from robustdistill.data.pickles import load_dict
from robustdistill.data.splits import IntArray
from robustdistill.errors import InputError


@dataclass(frozen=True)
class Options:
    """What a caller may ask of a reader.

    Attributes:
        verify: refuse official files whose md5 is not the published one.
        image_size: (height, width) that pictures of a user's own and those that are streamed get in reading; the others
            are resized later, on the device. None refuses pictures of a user's own that have unequal sizes.
        image_column: of a table; None looks for the usual names.
        label_column: likewise.
        group_column: of a table; None takes no column.
        lists: a file of "path label" lines that names the training pictures, where the data set takes one.
    """

    verify: bool = True
    image_size: tuple[int, int] | None = None
    image_column: str | None = None
    label_column: str | None = None
    group_column: str | None = None
    lists: Path | None = None


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a source as it lies on disk.

    Attributes:
        inputs: (N, H, W, channels) uint8 pictures, decoded or still encoded, or (N, ...) float32 features.
        labels: (N,) int64, or None where unlabelled.
        ids: (N,) rows in the source; None for 0..N-1.
        groups: (N,) the values of a group column, as they are stored; None without one.
    """

    inputs: npt.NDArray[Any] | EncodedPictures
    labels: IntArray | None
    ids: IntArray | None = None
    groups: npt.NDArray[Any] | None = None


@dataclass(frozen=True, eq=False)
class Source:
    """A whole data set: a training part, and the validation and test parts that it has."""

    class_names: tuple[str, ...]
    train: Part
    val: Part | None = None
    test: Part | None = None


DIGITS_POOL = 100  # training images of each class; the rarest class has 174


def read_digits(root: Path, options: Options) -> Source:
    """scikit-learn's 1,797 handwritten digits: 100 of each class to train on, the other 797 held out.

    The pool is fixed: no seed moves it. Grey levels 0..16 become 0..255; ids are rows of `load_digits()`.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pictures = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int64)
    # A shuffle of its own for each class, because neighbouring rows come from the same writer.
    pools = [np.random.default_rng([0, j]).permutation(np.flatnonzero(labels == j))[:DIGITS_POOL] for j in range(10)]
    pool = np.sort(np.concatenate(pools))
    rest = np.setdiff1d(np.arange(len(labels)), pool)
    return Source(
        class_names=tuple(str(name) for name in bunch.target_names),
        train=Part(pictures[pool], labels[pool], pool),
        test=Part(pictures[rest], labels[rest], rest),
    )


@dataclass(frozen=True)
class CifarFiles:
    """Where one CIFAR data set lies under the root, and the md5 sums its authors' files have.

    The md5 of the names file is not checked: it holds no pictures, and copies differ in it.
    """

    folder: str
    archive: str
    archive_md5: str
    train: Mapping[str, str]
    test: Mapping[str, str]
    names_file: str
    names_key: str
    labels_key: str

    @property
    def members(self) -> list[str]:
        return [*self.train, *self.test, self.names_file]


CIFAR10 = CifarFiles(
    folder="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    archive_md5="c58f30108f718f92721af3b95e74349a",
    train={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test={"test_batch": "40351d587109b95175f43aff81a1287e"},
    names_file="batches.meta",
    names_key="label_names",
    labels_key="labels",
)
CIFAR100 = CifarFiles(
    folder="cifar-100-python",
    archive="cifar-100-python.tar.gz",
    archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
    train={"train": "16019d7e3df5f24257cddd939b257f8d"},
    test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    names_file="meta",
    names_key="fine_label_names",
    labels_key="fine_labels",
)


def read_cifar10(root: Path, options: Options) -> Source:
    """CIFAR-10 from `cifar-10-batches-py` or `cifar-10-python.tar.gz` under `root` (Krizhevsky 2009)."""
    return _read_cifar(CIFAR10, root, options)


def read_cifar100(root: Path, options: Options) -> Source:
    """CIFAR-100, fine labels, from `cifar-100-python` or `cifar-100-python.tar.gz` under `root` (Krizhevsky 2009)."""
    return _read_cifar(CIFAR100, root, options)


def _read_cifar(files: CifarFiles, root: Path, options: Options) -> Source:
    folder, archive = root / files.folder, root / files.archive
    missing = [name for name in files.members if not (folder / name).is_file()]
    if missing and archive.is_file():
        if options.verify:
            check_md5(archive, archive, files.archive_md5)
        where, contents = archive, _archive_members(archive, files)
    elif missing and folder.is_dir():
        found = sorted(path.name for path in folder.iterdir())
        held = f"it holds {', '.join(found[:8])}{', ...' if len(found) > 8 else ''}" if found else "it is empty"
        raise InputError(f"{folder}: expected the files of the 'python version'; {', '.join(missing)} missing, {held}")
    elif missing:
        raise InputError(f"{root}: expected the folder {files.folder!r} or the file {files.archive!r} in it")
    else:
        where, contents = folder, {name: (folder / name).read_bytes() for name in files.members}
        if options.verify:
            for name, md5 in {**files.train, **files.test}.items():
                check_md5(folder / name, contents[name], md5)
    meta = load_dict(contents[files.names_file], f"{where / files.names_file}")
    class_names = _texts(meta.get(files.names_key), f"{where / files.names_file}: {files.names_key!r}")
    train, test = (
        _cifar_part([(f"{where / name}", contents.pop(name)) for name in part], files.labels_key)
        for part in (files.train, files.test)
    )
    return Source(class_names=class_names, train=train, test=test)


def _archive_members(archive: Path, files: CifarFiles) -> dict[str, bytes]:
    """The wanted members of a tar.gz, read in one pass and never written to disk."""
    wanted = {f"{files.folder}/{name}": name for name in files.members}
    contents = tar_members(archive, wanted)
    missing = [path for path, name in wanted.items() if name not in contents]
    if missing:
        raise InputError(f"{archive}: expected the archive of the 'python version'; {', '.join(missing)} missing")
    return contents


def check_md5(path: Path, content: bytes | Path, expected: str) -> None:
    """Refuses `content`, what is in `path` or a file to read, unless its md5 is the `expected` one."""
    digest = hashlib.md5(usedforsecurity=False)
    if isinstance(content, bytes):
        digest.update(content)
    else:
        with content.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    if digest.hexdigest() != expected:
        raise InputError(
            f"{path}: expected the published md5 {expected}, got {digest.hexdigest()} "
            f"({path.stat().st_size:,} bytes): the file is truncated or another version. Download it again, "
            "or read it as it is with --no-verify (verify=False)"
        )


def _cifar_part(batches: list[tuple[str, bytes]], labels_key: str) -> Part:
    rows, labels = [], []
    for where, content in batches:
        batch = load_dict(content, where)
        data, classes = batch.get("data"), batch.get(labels_key)
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
            found = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
            raise InputError(f"{where}: 'data' must be a (N, 3072) uint8 array, got {found}")
        if not isinstance(classes, list) or not all(type(value) is int for value in classes):
            raise InputError(f"{where}: {labels_key!r} must be a list of ints, got {type(classes).__name__}")
        if len(classes) != len(data):
            raise InputError(f"{where}: {len(data)} pictures but {len(classes)} labels")
        rows.append(data)
        labels += classes
    planes = np.concatenate(rows).reshape(-1, 3, 32, 32)
    return Part(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), np.array(labels, dtype=np.int64))


def _texts(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(item, bytes | str) for item in value):
        raise InputError(f"{where} must be a list of names, got {type(value).__name__}")
    return tuple(item.decode() if isinstance(item, bytes) else item for item in value)


@dataclass(frozen=True)
class IdxFiles:
    """Where the four idx files of one data set lie under the root, and what is in them.

    Attributes:
        folders: any of these holds the four files, as they are downloaded (.gz) or unpacked.
        class_names: of the labels 0, 1, ...
        md5: of the *unpacked* contents of each file, to which the published .gz files unpack. Copies are packed again
            in other ways (the sum of the .gz then says nothing), and what matters is inside.
    """

    folders: tuple[str, ...]
    class_names: tuple[str, ...]
    md5: Mapping[str, str]


_IDX_PARTS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
MNIST = IdxFiles(
    folders=("mnist", "MNIST/raw"),
    class_names=tuple("0123456789"),
    md5={
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
)
FASHION_MNIST = IdxFiles(
    folders=("fashion-mnist", "FashionMNIST/raw"),
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    md5={
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
)


def read_mnist(root: Path, options: Options) -> Source:
    """MNIST from `mnist` or `MNIST/raw` under `root` (LeCun et al. 1998)."""
    return _read_idx(MNIST, root, options)


def read_fashion_mnist(root: Path, options: Options) -> Source:
    """Fashion-MNIST from `fashion-mnist` or `FashionMNIST/raw` under `root` (Xiao et al. 2017)."""
    return _read_idx(FASHION_MNIST, root, options)


def _read_idx(files: IdxFiles, root: Path, options: Options) -> Source:
    paths = _idx_paths(files, root)
    parts = {}
    for part, (images_file, labels_file) in _IDX_PARTS.items():
        images, labels = (
            _idx_array(paths[name], axes, files.md5[name] if options.verify else None)
            for name, axes in ((images_file, 3), (labels_file, 1))
        )
        if len(images) != len(labels):
            raise InputError(
                f"{paths[images_file]}: {len(images)} pictures but {len(labels)} labels in {labels_file!r}"
            )
        parts[part] = Part(images[..., None], labels.astype(np.int64))
    train, test = parts["train"], parts["test"]
    if train.inputs.shape[1:] != test.inputs.shape[1:]:
        raise InputError(f"{root}: train pictures are {train.inputs.shape[1:]}, test pictures {test.inputs.shape[1:]}")
    return Source(files.class_names, train=train, test=test)


def _idx_paths(files: IdxFiles, root: Path) -> dict[str, Path]:
    """Each of the four files, unpacked or packed, in the first folder that has them all."""
    wanted, missing = [name for names in _IDX_PARTS.values() for name in names], []
    for folder in (root / name for name in files.folders):
        found = {
            name: path
            for name in wanted
            for path in (folder / f"{name}.gz", folder / name)  # the last one that exists: unpacking takes a while
            if path.is_file()
        }
        if len(found) == len(wanted):
            return found
        if folder.is_dir():
            missing.append(f"{folder}: {', '.join(f'{name}[.gz]' for name in wanted if name not in found)} missing")
    raise InputError("; ".join(missing) or f"{root}: expected the folder {' or '.join(map(repr, files.folders))} in it")


def _idx_array(path: Path, axes: int, md5: str | None) -> npt.NDArray[np.uint8]:
    """A writable array from an idx file of unsigned bytes: two zeros, 8, the number of axes, each length, the data."""
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gunzip(path)
    start = 4 * (1 + axes)
    magic = bytes((0, 0, 8, axes))
    if content[:4] != magic:
        raise InputError(
            f"{path}: expected an idx file of unsigned bytes with {axes} axes (magic number {magic.hex()}), "
            f"got {content[:4].hex() or 'nothing'}"
        )
    if len(content) < start:
        raise InputError(f"{path}: truncated; an idx header of {axes} axes has {start} bytes, got {len(content)}")
    shape = struct.unpack(f">{axes}I", content[4:start])
    expected = start + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        state = "truncated" if len(content) < expected else "too long"
        lengths = "x".join(map(str, shape))
        raise InputError(f"{path}: {state}; {lengths} takes {expected:,} bytes unpacked, got {len(content):,}")
    if md5 is not None:
        check_md5(path, content, md5)
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape).copy()
