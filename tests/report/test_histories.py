"""Reading a journal without its histories, which is most of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from report.records import journal, record, save
from robustdistill.errors import InputError
from robustdistill.experiments.journal import history, scan


def test_all_but_the_history_is_the_same(tmp_path: Path) -> None:
    journal(tmp_path, repeats=1, temperatures=(3.0,), epochs=3)
    whole, light = scan(tmp_path), scan(tmp_path, histories=False)
    assert [one.model_copy(update={"history": []}) for one in whole] == light
    assert [history(one) for one in light] == [one.history for one in whole]
    assert all(len(history(one)) == 3 for one in light)


@pytest.mark.parametrize("indent", [None, 1, 4])
@pytest.mark.parametrize("last", [False, True])
def test_any_layout_of_the_file_is_read(tmp_path: Path, indent: int | None, last: bool) -> None:
    path = save(tmp_path, record("teacher", epochs=2))
    content = json.loads(path.read_text())
    if last:
        content["history"] = content.pop("history")
    # The words of the cut inside a text must not be taken for it.
    content["command"] = '\n "history": [\n ],\n'
    path.write_text(json.dumps(content, indent=indent))
    (found,) = scan(tmp_path, histories=False)
    assert found.history == []
    assert found.command == content["command"]
    assert found.metrics == scan(tmp_path)[0].metrics
    assert len(history(found)) == 2


def test_a_torn_record_is_left_out_either_way(tmp_path: Path) -> None:
    path = save(tmp_path, record("teacher", epochs=5))
    text = path.read_text()
    for length in range(0, len(text) - 3, 97):
        path.write_text(text[:length])
        with pytest.warns(UserWarning, match="left out"):
            assert scan(tmp_path, histories=False) == []


def test_a_record_that_has_gone_says_so(tmp_path: Path) -> None:
    path = save(tmp_path, record("teacher", epochs=2))
    (found,) = scan(tmp_path, histories=False)
    path.unlink()
    with pytest.raises(InputError, match="could not be read again"):
        history(found)
