from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from robustdistill.errors import InputError
from robustdistill.experiments.upload import check, upload


def run_folder(root: Path) -> Path:
    folder = root / "0123456789ab"
    (folder / "predictions").mkdir(parents=True)
    for name in ("record.json", "model.safetensors", "predictions/val.npz", ".temporary"):
        (folder / name).write_text(name)
    return folder


def test_a_run_is_copied_whole_its_record_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fsspec.filesystem("memory")
    order: list[str] = []
    put = type(store).put_file

    def note(self: object, source: str, target: str, **options: object) -> None:
        order.append(target)
        put(self, source, target, **options)

    monkeypatch.setattr(type(store), "put_file", note)
    upload(run_folder(tmp_path), "memory://bucket/grid")
    assert [path.rpartition("/")[2] for path in order] == ["model.safetensors", "val.npz", "record.json"]
    assert store.cat("/bucket/grid/0123456789ab/predictions/val.npz") == b"predictions/val.npz"


def test_a_local_folder_is_a_place_too(tmp_path: Path) -> None:
    upload(run_folder(tmp_path / "here"), f"file://{tmp_path}/there")
    assert (tmp_path / "there" / "0123456789ab" / "record.json").read_text() == "record.json"


@pytest.mark.parametrize("url", ["nothing://bucket", "file:///proc/nowhere"])
def test_a_place_that_cannot_be_reached_is_refused_early(url: str) -> None:
    with pytest.raises(InputError, match="--upload"):
        check(url)
