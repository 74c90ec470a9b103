"""Tiny data in the official formats, written for tests."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

WNIDS = ("n01443537", "n01784675", "n02002724")
IDX_NAMES = {"train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")}
IDX_NAMES["test"] = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array: np.ndarray) -> bytes:
    """An idx file of unsigned bytes."""
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def idx_arrays(train_each: int = 12, test_each: int = 4, side: int = 28) -> dict[str, np.ndarray]:
    """File name to array; ten classes, shuffled."""
    random = np.random.default_rng(0)
    made = {}
    for part, each in (("train", train_each), ("test", test_each)):
        labels = random.permutation(np.repeat(np.arange(10, dtype=np.uint8), each))
        images = random.integers(0, 256, (len(labels), side, side), dtype=np.uint8)
        made.update(zip(IDX_NAMES[part], (images, labels), strict=True))
    return made


def write_idx(folder: Path, arrays: dict[str, np.ndarray], *, packed: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    return folder


def jpeg(seed: int, height: int = 64, width: int = 64, grey: bool = False) -> bytes:
    """A smooth random picture, so that JPEG changes it little."""
    random = np.random.default_rng(seed)
    shape = (4, 4) if grey else (4, 4, 3)
    picture = Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).resize((width, height))
    stream = io.BytesIO()
    picture.save(stream, "jpeg", quality=95)
    return stream.getvalue()


def tiny_files(train_each: int = 6, val_each: int = 4, wnids: tuple[str, ...] = WNIDS) -> dict[str, bytes]:
    """The tree of tiny-imagenet-200 as path to content; every fifth picture is grey."""
    files = {
        "wnids.txt": "\n".join(reversed(wnids)).encode() + b"\n",
        "words.txt": b"n01443537\tgoldfish, Carassius auratus\nn00000001\tcrane\nn01784675\tcentipede\n",
    }
    seed = 0
    for wnid in wnids:
        boxes = []
        for i in range(train_each):
            name = f"{wnid}_{i}.JPEG"
            files[f"train/{wnid}/images/{name}"] = jpeg(seed := seed + 1, grey=seed % 5 == 0)
            boxes.append(f"{name}\t0\t0\t63\t63\n")
        files[f"train/{wnid}/{wnid}_boxes.txt"] = "".join(boxes).encode()
    lines = []
    for i in range(val_each * len(wnids)):
        files[f"val/images/val_{i}.JPEG"] = jpeg(1000 + i, grey=i % 5 == 0)
        lines.append(f"val_{i}.JPEG\t{wnids[i % len(wnids)]}\t0\t10\t63\t55\n")
    files["val/val_annotations.txt"] = "".join(lines).encode()
    files["test/images/test_0.JPEG"] = jpeg(2000)
    return files


def write_tree(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_zip(path: Path, files: dict[str, bytes], prefix: str = "tiny-imagenet-200/") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        if prefix:
            archive.writestr(prefix, "")
        for name, content in files.items():
            archive.writestr(prefix + name, content)
    return path


def imagenet_files(train_each: int = 5, val_each: int = 4) -> dict[str, bytes]:
    """The class-folder tree of ImageNet as path to content; pictures of many sizes."""
    files, seed = {}, 0
    for wnid in WNIDS:
        for part, each in (("train", train_each), ("val", val_each)):
            for i in range(each):
                seed += 1
                name = f"{wnid}_{i}.JPEG" if part == "train" else f"ILSVRC2012_val_0000{seed:04}.JPEG"
                files[f"{part}/{wnid}/{name}"] = jpeg(seed, 40 + 7 * (seed % 5), 50 + 11 * (seed % 3), seed % 4 == 0)
    return files
