"""The data sets known by name: what they are, where they come from and how they are read."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from robustdistill.data.formats import (
    Options,
    Source,
    read_cifar10,
    read_cifar100,
    read_digits,
    read_fashion_mnist,
    read_mnist,
)
from robustdistill.data.imagenet import IMAGENET_FOLDERS, TINY_FOLDER, TINY_ZIP, read_imagenet, read_tinyimagenet
from robustdistill.data.imagenet_lt import COUNT as IMAGENET_LT_COUNT
from robustdistill.data.imagenet_lt import read_imagenet_lt
from robustdistill.data.splits import Preprocessing


@dataclass(frozen=True)
class Entry:
    """One data set of the catalogue.

    Attributes:
        name: what `load` takes.
        reader: from the root folder to the whole source.
        classes: the number of classes.
        shape: (height, width, channels) of a picture.
        train: the number of training examples, after the long tail.
        held_out: the number of examples that become validation and test.
        preprocessing: channel statistics of the whole, balanced training part, and the augmentation.
        ratio: of the long tail, largest class over smallest; 1 for none.
        files: any of these under the root is enough; empty where the data set needs no file.
        page: where it is officially downloaded; empty likewise.
        download: what to download there.
        streamed: whether it is too large for memory: its pictures stay encoded until a batch wants them.
    """

    name: str
    reader: Callable[[Path, Options], Source]
    classes: int
    shape: tuple[int, int, int]
    train: int
    held_out: int
    preprocessing: Preprocessing
    ratio: float = 1.0
    files: tuple[str, ...] = ()
    page: str = ""
    download: str = ""
    streamed: bool = False

    def present(self, root: str | os.PathLike[str] | None = None) -> bool:
        """Whether the files are there (not whether they are sound); `root` as `load` takes it."""
        return not self.files or any((default_root(root) / name).exists() for name in self.files)


_CIFAR_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
_DIGITS = Entry(
    name="digits",
    reader=read_digits,
    classes=10,
    shape=(8, 8, 1),
    train=1000,
    held_out=797,
    preprocessing=Preprocessing(mean=(0.3058,), std=(0.3758,), pad=1, flip=False),
)
_CIFAR10 = Entry(
    name="cifar10",
    reader=read_cifar10,
    classes=10,
    shape=(32, 32, 3),
    train=50_000,
    held_out=10_000,
    preprocessing=Preprocessing(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616), pad=4, flip=True),
    files=("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    page=_CIFAR_PAGE,
    download="the 'python version'",
)
_CIFAR100 = replace(
    _CIFAR10,
    name="cifar100",
    reader=read_cifar100,
    classes=100,
    preprocessing=Preprocessing(mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762), pad=4, flip=True),
    files=("cifar-100-python", "cifar-100-python.tar.gz"),
)
_MNIST = Entry(
    name="mnist",
    reader=read_mnist,
    classes=10,
    shape=(28, 28, 1),
    train=60_000,
    held_out=10_000,
    preprocessing=Preprocessing(mean=(0.1307,), std=(0.3081,), pad=2, flip=False),
    files=("mnist", "MNIST/raw"),
    page="https://ossci-datasets.s3.amazonaws.com/mnist",
    download="the four idx files (train-images-idx3-ubyte.gz and so on)",
)
_FASHION_MNIST = replace(
    _MNIST,
    name="fashion-mnist",
    reader=read_fashion_mnist,
    preprocessing=Preprocessing(mean=(0.2860,), std=(0.3530,), pad=2, flip=True),
    files=("fashion-mnist", "FashionMNIST/raw"),
    page="https://github.com/zalandoresearch/fashion-mnist",
)
_TINYIMAGENET = Entry(
    name="tinyimagenet",
    reader=read_tinyimagenet,
    classes=200,
    shape=(64, 64, 3),
    train=100_000,
    held_out=10_000,
    preprocessing=Preprocessing(mean=(0.4802, 0.4481, 0.3975), std=(0.2770, 0.2691, 0.2821), pad=4, flip=True),
    files=(TINY_FOLDER, TINY_ZIP),
    page="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    download="the zip",
)
_IMAGENET = Entry(
    name="imagenet",
    reader=read_imagenet,
    classes=1000,
    shape=(224, 224, 3),
    train=1_281_167,
    held_out=50_000,
    # Crops and mirroring are random_resized_crop's; pad and flip are for pictures in memory.
    preprocessing=Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    files=IMAGENET_FOLDERS,
    page="https://image-net.org/download.php",
    download="ILSVRC 2012",
    streamed=True,
)

CATALOG: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        _DIGITS,
        replace(_DIGITS, name="digits-lt", ratio=30.0, train=307),
        _CIFAR10,
        replace(_CIFAR10, name="cifar10-lt", ratio=100.0, train=12_406),
        _CIFAR100,
        replace(_CIFAR100, name="cifar100-lt", ratio=100.0, train=10_847),
        _MNIST,
        replace(_MNIST, name="mnist-lt", ratio=100.0, train=14_694),
        _FASHION_MNIST,
        replace(_FASHION_MNIST, name="fashion-mnist-lt", ratio=100.0, train=14_886),
        _TINYIMAGENET,
        replace(_TINYIMAGENET, name="tinyimagenet-lt", ratio=83.0, train=22_403),
        _IMAGENET,
        replace(_IMAGENET, name="imagenet-lt", reader=read_imagenet_lt, train=IMAGENET_LT_COUNT),
    )
}


def names() -> list[str]:
    """The names in the catalogue; `load` also takes npz:FILE, folder:DIR, parquet:FILE-or-DIR and hub:NAME.

    >>> names()[:6]
    ['digits', 'digits-lt', 'cifar10', 'cifar10-lt', 'cifar100', 'cifar100-lt']
    """
    return list(CATALOG)


def default_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder that official files are looked for in.

    `root` where given, else the environment's ROBUSTDISTILL_DATA, else `robustdistill` in the user's cache folder
    (XDG_CACHE_HOME, or ~/.cache).
    """
    if root is not None:
        return Path(root).expanduser()
    if chosen := os.environ.get("ROBUSTDISTILL_DATA"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "robustdistill"
