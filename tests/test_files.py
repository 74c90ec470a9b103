from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from robustdistill.environment import cores, environment
from robustdistill.files import plain, replacing, write_json


def test_nobody_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "table.csv"
    with replacing(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".csv"
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["table.csv"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "record.json"
    path.write_text("old")

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_has_no_nan(tmp_path: Path) -> None:
    value = {"nan": float("nan"), "inf": [float("inf"), -float("inf")], "nested": {"x": (1, 2.5, None, True)}, 3: "é"}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    assert json.loads(text) == {"nan": None, "inf": [None, None], "nested": {"x": [1, 2.5, None, True]}, "3": "é"}
    assert plain((0.1 + 0.2, "x", 1)) == [0.1 + 0.2, "x", 1]


def test_what_json_cannot_hold_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"old": [1]})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"model": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"old": [1]}
    assert len(list(tmp_path.iterdir())) == 1


def test_environment_is_plain() -> None:
    about = environment("cpu")
    assert json.loads(json.dumps(about)) == about
    assert about.keys() >= {"robustdistill", "torch", "python", "processor", "cores", "device", "git", "date"}
    assert about["device"] == "cpu"


def test_cores_are_counted_where_the_system_does_not_say_which_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3}, raising=False)
    assert cores() == 1
    monkeypatch.delattr("os.sched_getaffinity")  # macOS has none
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert cores() == 6
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert cores() == 1
