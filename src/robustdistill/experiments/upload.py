"""Copies of finished runs on another storage: s3://, gs://, sftp:// or whatever else fsspec knows."""

from __future__ import annotations

from pathlib import Path

import fsspec

from robustdistill.errors import InputError
from robustdistill.training.spec import RECORD


def check(url: str) -> None:
    """Refuses a place that cannot be reached, before anything is trained.

    Raises:
        InputError: the protocol is unknown, its package is missing, or the place cannot be listed.
    """
    try:
        files, path = fsspec.core.url_to_fs(url)
        files.makedirs(path, exist_ok=True)
    except Exception as error:  # Each protocol has exceptions of its own.
        raise InputError(f"--upload {url}: {type(error).__name__}: {error}") from error


def upload(folder: Path, url: str) -> None:
    """Copies a finished run to `url`/<name of its folder>; its record last, so that a copy with one is whole.

    Raises:
        OSError: it could not be written; or what the protocol raises.
    """
    files, base = fsspec.core.url_to_fs(url)
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    for path in sorted(paths, key=lambda path: path.name == RECORD):
        target = f"{base.rstrip('/')}/{folder.name}/{path.relative_to(folder).as_posix()}"
        files.makedirs(target.rpartition("/")[0], exist_ok=True)
        files.put_file(str(path), target)
