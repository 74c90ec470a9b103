"""Archives and lists whose names lead elsewhere, and those that are far larger than they look."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import robustdistill as rd
from data.official import WNIDS, jpeg, tiny_files, write_tree, write_zip
from robustdistill import archives
from robustdistill.data import load
from robustdistill.data.formats import CIFAR10
from robustdistill.errors import InputError

MEMBERS = [f"{CIFAR10.folder}/{name}" for name in CIFAR10.members]


@contextmanager
def memory_below(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def cifar(name: str) -> bytes:
    if name == CIFAR10.names_file:
        return pickle.dumps({"label_names": [f"class {index}" for index in range(10)]}, protocol=2)
    random = np.random.default_rng(0)
    batch = {b"data": random.integers(0, 256, (20, 3072), dtype=np.uint8), b"labels": [*range(10)] * 2}
    return pickle.dumps(batch, protocol=2)


def packed(path: Path, changes: Callable[[tarfile.TarFile], None], leave_out: str = "") -> Path:
    with tarfile.open(path / CIFAR10.archive, "w:gz") as tar:
        changes(tar)
        for name in MEMBERS:
            if name != leave_out:
                content = cifar(name.rpartition("/")[2])
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def plain(tar: tarfile.TarFile, name: str, content: bytes = b"evil") -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def linked(tar: tarfile.TarFile, name: str, target: str, kind: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    tar.addfile(member)


def everything_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_names_that_lead_out_of_a_tar_are_never_written(tmp_path: Path) -> None:
    (root := tmp_path / "inner").mkdir()

    def change(tar: tarfile.TarFile) -> None:
        for name in ("../evil", "/tmp/evil-of-robustdistill", f"{CIFAR10.folder}/../../evil"):
            plain(tar, name)
        linked(tar, "link", str(tmp_path), tarfile.SYMTYPE)
        plain(tar, "link/evil")
        linked(tar, "hard", "/etc/passwd", tarfile.LNKTYPE)
        linked(tar, "device", "", tarfile.CHRTYPE)

    packed(root, change)
    data = load("cifar10", root, verify=False)
    assert len(data.train) == 100
    assert everything_below(tmp_path) == {"inner", f"inner/{CIFAR10.archive}"}
    assert not Path("/tmp/evil-of-robustdistill").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_in_a_tar_are_not_followed(kind: bytes, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(cifar("data_batch_1"))
    wanted = f"{CIFAR10.folder}/data_batch_1"
    packed(tmp_path, lambda tar: linked(tar, wanted, str(tmp_path / "secret"), kind), leave_out=wanted)
    with pytest.raises(InputError, match="data_batch_1 missing"):
        load("cifar10", tmp_path, verify=False)


def zeros(size: int) -> bytes:
    return gzip.compress(bytes(2**20)) * (size // 2**20)


def sparse(tar: tarfile.TarFile) -> None:
    """A member of a terabyte without a byte in the archive, in the old GNU format."""
    header = bytearray(tarfile.TarInfo(MEMBERS[0]).tobuf(tarfile.GNU_FORMAT))
    header[156:157] = b"S"
    header[386:410] = b"%011o\0%011o\0" % (2**33 - 1, 0)
    header[483:495] = b"%011o\0" % (2**33 - 1)
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    assert tar.fileobj is not None
    tar.fileobj.write(bytes(header))


def test_a_tar_that_unpacks_to_more_than_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "LARGEST_UNPACKED", 2**24)
    bombs = {
        "an unwanted member": lambda tar: plain(tar, "padding", bytes(2**25)),
        "a wanted member": lambda tar: plain(tar, MEMBERS[0], bytes(2**25)),
    }
    for name, change in bombs.items():
        packed(tmp_path, change)
        with pytest.raises(InputError, match="more than the 16,777,216 bytes"), memory_below(2**26):
            load("cifar10", tmp_path, verify=False)
        assert name
    member = tarfile.TarInfo("x")
    member.pax_headers = {"comment": "a" * 2**25}
    with tarfile.open(tmp_path / CIFAR10.archive, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member)
    with pytest.raises(InputError, match="more than the 16,777,216 bytes"), memory_below(2**27):
        load("cifar10", tmp_path, verify=False)
    packed(tmp_path, sparse, leave_out=MEMBERS[0])
    with pytest.raises(InputError, match=r"data_batch_1 missing|truncated"), memory_below(2**26):
        load("cifar10", tmp_path, verify=False)


def test_a_gz_that_unpacks_to_more_than_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "LARGEST_UNPACKED", 2**22)
    (folder := tmp_path / "mnist").mkdir()
    for name in (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ):
        (folder / f"{name}.gz").write_bytes(zeros(2**28))
    with pytest.raises(InputError, match="more than the 4,194,304 bytes"), memory_below(2**24):
        load("mnist", tmp_path, verify=False)


def test_names_in_a_zip_are_only_compared(tmp_path: Path) -> None:
    evil = {"../evil": b"x", "/etc/evil": b"x", "tiny-imagenet-200/train/../../../evil.JPEG": jpeg(0)}
    (root := tmp_path / "inner").mkdir()
    path = write_zip(root / "tiny-imagenet-200.zip", tiny_files())
    with zipfile.ZipFile(path, "a") as archive:
        for name, content in evil.items():
            archive.writestr(name, content)
    data = load("tinyimagenet", root, verify=False)
    assert data.train.num_classes == len(WNIDS)
    assert everything_below(tmp_path) == {"inner", f"inner/{path.name}"}


@pytest.mark.parametrize("wnid", ["../../secret", "/etc", "..", ".", "a/b", "-x"])
@pytest.mark.parametrize("as_zip", [False, True])
def test_a_list_of_classes_cannot_name_other_folders(wnid: str, as_zip: bool, tmp_path: Path) -> None:
    (tmp_path / "secret" / "images").mkdir(parents=True)
    (tmp_path / "secret" / "images" / "private.JPEG").write_bytes(jpeg(1))
    files = tiny_files()
    files["wnids.txt"] += wnid.encode() + b"\n"
    (root := tmp_path / "root").mkdir()
    if as_zip:
        write_zip(root / "tiny-imagenet-200.zip", files)
    else:
        write_tree(root / "tiny-imagenet-200", files)
    with pytest.raises(InputError, match=r"wnids.txt must hold WordNet ids such as n01443537, got "):
        load("tinyimagenet", root, verify=False)


def test_annotations_cannot_name_other_pictures(tmp_path: Path) -> None:
    (tmp_path / "private.JPEG").write_bytes(jpeg(1))
    files = tiny_files()
    files["val/val_annotations.txt"] += f"../../../private.JPEG\t{WNIDS[0]}\t0\t0\t9\t9\n".encode()
    write_tree(tmp_path / "tiny-imagenet-200", files)
    with pytest.raises(InputError, match="val/images has no"):
        load("tinyimagenet", tmp_path, verify=False)


def rezipped(path: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, old in members.items():
            archive.writestr(member, content if member == name else old)


def test_a_member_of_a_zip_that_is_larger_than_any_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(tmp_path / "tiny-imagenet-200.zip", tiny_files())
    monkeypatch.setattr(archives, "LARGEST_MEMBER", 2**20)
    picture = next(name for name in zipfile.ZipFile(path).namelist() if name.endswith(".JPEG"))
    for name in (picture, "tiny-imagenet-200/wnids.txt"):
        rezipped(write_zip(tmp_path / "tiny-imagenet-200.zip", tiny_files()), name, bytes(2**24))
        with (
            pytest.raises(InputError, match="16,777,216 bytes unpacked, at most 1,048,576 are read"),
            memory_below(2**23),
        ):
            load("tinyimagenet", tmp_path, verify=False)


def test_an_encrypted_member_is_refused_by_name(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "tiny-imagenet-200.zip", tiny_files())
    content = bytearray(path.read_bytes())
    for header, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = 0
        while (start := content.find(header, start)) >= 0:
            content[start + offset] |= 1
            start += 4
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"tiny-imagenet-200.zip: .*damaged|encrypted"):
        load("tinyimagenet", tmp_path, verify=False)


def test_an_npz_of_nothing_but_zeros_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("ids", "logits", "class_names", "train_images", "train_labels"):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(
                    member, {"descr": "|u1", "fortran_order": False, "shape": (2**26 + 2**20,)}
                )
                for _ in range(65):
                    member.write(bytes(2**20))
    assert path.stat().st_size < 500_000
    for read in (lambda: load(f"npz:{path}"), lambda: rd.Predictions.read(path)):
        with pytest.raises(InputError, match="made to fill the memory"), memory_below(2**22):
            read()


def test_nothing_pickled_is_read_from_an_npz(tmp_path: Path) -> None:
    arrays = {"train_images": np.array([{}], dtype=object), "train_labels": np.array([0])}
    np.savez(tmp_path / "x.npz", allow_pickle=True, **arrays)
    with pytest.raises(InputError, match="allow_pickle=False"):
        load(f"npz:{tmp_path / 'x.npz'}")
    np.savez(tmp_path / "y.npz", allow_pickle=True, ids=np.array([{}], dtype=object), logits=np.zeros((1, 2)))
    with pytest.raises(InputError, match="allow_pickle=False"):
        rd.Predictions.read(tmp_path / "y.npz")
