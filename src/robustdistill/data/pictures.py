"""Decoding pictures of any common format into one uint8 array."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from robustdistill.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

_GREY = ("1", "L", "LA")
_COLOUR = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "HSV", "LAB", "RGBX")


def decode(content: bytes, where: str, size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
    """One picture as (H, W, 1) where it is stored as grey, else (H, W, 3); resized to `size` if given.

    Raises:
        InputError: unreadable, or of more than 8 bits a channel; names `where`.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as picture:
            if picture.mode not in _GREY + _COLOUR:
                raise InputError(f"{where}: expected an 8-bit picture, got mode {picture.mode!r}")
            plain = picture.convert("L" if picture.mode in _GREY else "RGB")
            if size is not None and plain.size != size[::-1]:
                plain = plain.resize(size[::-1], Image.Resampling.BILINEAR)
            pixels = np.asarray(plain)
    except (OSError, SyntaxError, ValueError, TypeError, EOFError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
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


def stack(pictures: list[npt.NDArray[np.uint8]], channels: int) -> npt.NDArray[np.uint8]:
    """(N, H, W, channels): grey pictures become colour where `channels` is 3."""
    return np.stack([np.repeat(picture, channels // picture.shape[2], axis=2) for picture in pictures])


def _size(picture: npt.NDArray[np.uint8]) -> str:
    return f"{picture.shape[0]}x{picture.shape[1]}"
