"""Decoding pictures of any common format into uint8 arrays, and cutting large ones to size."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from robustdistill.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

# Those of the suffixes, whatever a file is called. Pillow would hand others to programs, such as EPS to Ghostscript.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")

LARGEST = 2**26  # pixels of a picture; ImageNet's largest has 61 million

CROP_RATIO = 256 / 224  # shorter side over crop, when ImageNet models are evaluated
CLEAN_VIEW = 0  # the view of a picture that is not augmented; every other one seeds `random_resized_crop`

_LOG_RATIO = float(np.log(4 / 3))
_GREY = ("1", "L", "LA")
_COLOUR = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "HSV", "LAB", "RGBX")


def decode(content: bytes, where: str, size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
    """One picture as (H, W, 1) where it is stored as grey, else (H, W, 3); resized to `size` if given.

    Raises:
        InputError: unreadable, of more than 8 bits a channel, or of more than `LARGEST` pixels; names `where`.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
            if picture.width * picture.height > LARGEST:
                raise InputError(f"{where}: at most {LARGEST:,} pixels are read, got {picture.width}x{picture.height}")
            if picture.mode not in _GREY + _COLOUR:
                raise InputError(f"{where}: expected an 8-bit picture, got mode {picture.mode!r}")
            plain = picture.convert("L" if picture.mode in _GREY else "RGB")
            if size is not None and plain.size != size[::-1]:
                plain = plain.resize(size[::-1], Image.Resampling.BILINEAR)
            pixels = np.asarray(plain)
    except InputError:
        raise
    except Exception as error:  # Pillow's readers of damaged files have no common one: struct, zlib, MemoryError, ...
        raise InputError(f"{where}: not a readable picture ({error})") from error
    return pixels if pixels.ndim == 3 else pixels[..., None]


def decode_all(
    contents: Iterable[tuple[str, bytes]], size: tuple[int, int] | None = None
) -> list[npt.NDArray[np.uint8]]:
    """Every picture of `contents`, pairs of (name for messages, encoded bytes).

    Raises:
        InputError: a picture is unreadable, or its size is not the first one's and no `size` is given.
    """
    pictures: list[npt.NDArray[np.uint8]] = []
    first = ""
    for where, content in contents:
        picture = decode(content, where, size)
        first = first or where
        if pictures and picture.shape[:2] != pictures[0].shape[:2]:
            raise InputError(
                f"{where}: pictures must have one size (height x width); this is {_size(picture)}, "
                f"{first} is {_size(pictures[0])}. Pass image_size= to resize all of them"
            )
        pictures.append(picture)
    return pictures


def centre_crop(picture: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """(height, width, channels) of the centre of `picture`, whose shorter side is first resized to 256/224 of `size`.

    This is how ImageNet models are evaluated: 256, then 224.
    """
    height, width = picture.shape[:2]
    scale = max(round(side * CROP_RATIO) / stored for side, stored in zip(size, (height, width), strict=True))
    tall, wide = max(size[0], round(height * scale)), max(size[1], round(width * scale))
    top, left = round((tall - size[0]) / 2), round((wide - size[1]) / 2)
    return _resized(picture, (tall, wide))[top : top + size[0], left : left + size[1]]


def random_resized_crop(
    picture: npt.NDArray[np.uint8], size: tuple[int, int], seed: int | list[int]
) -> npt.NDArray[np.uint8]:
    """(height, width, channels) of a random part of `picture`, mirrored half of the time (Szegedy et al. 2015).

    The part has 8 to 100 % of the area and an aspect ratio between 3/4 and 4/3, log-uniform; where ten draws do not
    fit into the picture, it is the largest central part of an admissible ratio. `seed`, one number or several, alone
    decides.
    """
    random = np.random.default_rng(seed)
    height, width = picture.shape[:2]
    for _ in range(10):
        area = height * width * random.uniform(0.08, 1.0)
        ratio = np.exp(random.uniform(-_LOG_RATIO, _LOG_RATIO))
        wide, tall = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < wide <= width and 0 < tall <= height:
            top, left = int(random.integers(height - tall + 1)), int(random.integers(width - wide + 1))
            break
    else:
        wide, tall = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        top, left = (height - tall) // 2, (width - wide) // 2
    cut = _resized(picture[top : top + tall, left : left + wide], size)
    return cut[:, ::-1] if random.random() < 0.5 else cut


def _resized(picture: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    from PIL import Image

    if picture.shape[:2] == size:
        return picture
    plain = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
    pixels = np.asarray(plain.resize(size[::-1], Image.Resampling.BILINEAR))
    return pixels if pixels.ndim == 3 else pixels[..., None]


def stack(pictures: list[npt.NDArray[np.uint8]], channels: int) -> npt.NDArray[np.uint8]:
    """(N, H, W, channels): grey pictures become colour where `channels` is 3."""
    return np.stack([np.repeat(picture, channels // picture.shape[2], axis=2) for picture in pictures])


def _size(picture: npt.NDArray[np.uint8]) -> str:
    return f"{picture.shape[0]}x{picture.shape[1]}"
