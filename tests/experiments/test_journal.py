from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from report.records import journal, record, save
from robustdistill.errors import InputError
from robustdistill.experiments import journal as subject
from robustdistill.training.spec import RunSpec


def changed(**changes: Any) -> dict[str, Any]:
    return {**record(), **changes}


def test_scan_finds_what_was_written_in_the_order_of_paths(tmp_path: Path) -> None:
    for folder in ("b", "a/deep", "c"):
        subject.write_record(tmp_path / folder, record(repeat=len(folder), temperature=float(ord(folder[0]))))
    found = subject.scan(tmp_path)
    assert [str(item.path) for item in found] == [str(tmp_path / folder) for folder in ("a/deep", "b", "c")]
    assert found[1].spec.distillation is not None
    assert found[1].spec.distillation.temperature == float(ord("b"))


def test_a_record_survives_a_round_trip_with_fields_of_a_later_version(tmp_path: Path) -> None:
    content = changed(a_later_field="kept")
    path = subject.write_record(tmp_path, content)
    written = json.loads(path.read_text())
    assert {key: written[key] for key in content} | {"spec": written["spec"]} == {**content, "spec": written["spec"]}
    assert RunSpec(**content["spec"]) == RunSpec(**written["spec"])
    again = subject.write_record(tmp_path / "again", subject.scan(tmp_path)[0])
    assert json.loads(again.read_text()) == written


def test_a_failed_write_leaves_the_old_record_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = subject.write_record(tmp_path, record(repeat=0))
    before = path.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space"):
        subject.write_record(tmp_path, record(repeat=1))
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"schema": 1, "name": "half', "torn or not JSON"),
        ("[1, 2]", "expected a JSON object, got list"),
        ('{"weights": 3}', "schema"),
        (json.dumps(changed(schema=2)), "schema"),
        (json.dumps(changed(class_names=["only one"])), "1 class_names but 10 entries in train_counts"),
    ],
)
def test_a_file_of_another_kind_is_named_in_a_warning_and_left_out(tmp_path: Path, content: str, reason: str) -> None:
    save(tmp_path, record())
    foreign = tmp_path / "foreign" / "record.json"
    foreign.parent.mkdir()
    foreign.write_text(content)
    with pytest.warns(UserWarning, match=reason) as caught:
        found = subject.scan(tmp_path)
    assert len(found) == 1
    assert str(foreign) in str(caught[0].message)


def test_binary_content_is_left_out_too(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_bytes(b"\xff\xfe\x00")
    with pytest.warns(UserWarning, match="could not be read"):
        assert subject.scan(tmp_path) == []


def test_a_copy_does_not_count_as_a_repeat_and_the_evaluated_one_is_kept(tmp_path: Path) -> None:
    untested = record(tested=False)
    subject.write_record(tmp_path / "a", untested)
    subject.write_record(tmp_path / "b", {**record(), "hash": untested["hash"]})
    with pytest.warns(UserWarning, match="same spec hash"):
        found = subject.scan(tmp_path)
    assert len(found) == 1
    assert found[0].metrics.test is not None


def test_scan_refuses_what_is_not_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        subject.scan(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"name": None}, "name"),
        ({"spec": {**record()["spec"], "role": "tutor"}}, "spec.role"),
        ({"spec": {**record()["spec"], "objective": "rubust"}}, "rubust"),
        ({"spec": {**record()["spec"], "distillation": None}}, "a student has a distillation"),
        ({"train_counts": [-1] * 10}, "train_counts"),
        ({"metrics": {"val": {**record()["metrics"]["val"], "correct": [1000] * 10}}}, "more correct"),
        ({"metrics": {"val": {**record()["metrics"]["val"], "correct": [1]}}}, "1 entries in correct but 10"),
    ],
)
def test_write_refuses_a_bad_record_by_field(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        subject.write_record(tmp_path, changed(**change))
    assert list(tmp_path.iterdir()) == []


def test_undefined_figures_are_null_in_the_file_and_nan_in_memory(tmp_path: Path) -> None:
    content = record()
    content["metrics"]["val"]["worst_class"] = math.nan
    path = subject.write_record(tmp_path, content)
    assert "NaN" not in path.read_text()
    metrics = subject.scan(tmp_path)[0].metrics.val
    assert metrics is not None
    assert math.isnan(metrics.worst_class)


def test_equal_objectives_get_one_name(tmp_path: Path) -> None:
    subject.write_record(tmp_path, record(objective="tradeoff:1.0", teacher_objective="standard-tradeoff:0"))
    spec = subject.scan(tmp_path)[0].spec
    assert spec.objective == "robust"
    assert spec.distillation is not None
    assert spec.distillation.teacher_objective == "standard"


def test_table_is_flat_with_one_row_a_run(tmp_path: Path) -> None:
    journal(tmp_path, repeats=2, teachers=("robust",))
    table = subject.table(subject.scan(tmp_path))
    assert len(table) == 2 * (1 + 4 * 2)
    students = table[table.role == "student"]
    assert set(students.temperature) == {1.0, 3.0}
    assert set(students.teacher_objective) == {"robust"}
    assert table[table.role == "teacher"].temperature.isna().all()
    assert table.test_worst_class.between(0, 1).all()
    assert not any(isinstance(value, dict | list) for value in table.iloc[0])


def test_table_of_nothing_has_its_columns() -> None:
    assert {"role", "val_worst_class", "path"} <= set(subject.table([]).columns)
