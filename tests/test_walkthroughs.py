"""Pages that are followed from top to bottom by typing: their files are written, their commands run, word by word."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def follow(page: str, folder: Path) -> list[str]:
    """What each shell block of a page printed, in order; every one must succeed; `pip install` lines are left out."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    steps = re.findall(r'^```((?:python|yaml) title="([\w./]+)"|sh)\n(.*?)^```', text, flags=re.DOTALL | re.MULTILINE)
    assert steps, f"docs/{page} has nothing to follow"
    scripts = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "COLUMNS": "120",
    }
    printed = []
    for _, name, block in steps:
        if name:
            (folder / name).write_text(block, encoding="utf-8")
            continue
        script = "\n".join(line for line in block.splitlines() if not line.startswith("pip install"))
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", script], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        printed.append(done.stdout)
    return printed


def test_from_a_folder_of_pictures_to_a_card(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the [onnx] extra is not installed")
    printed = follow("own-images.md", tmp_path)
    assert "all is as it should be" in "".join(printed[:2])
    card = (tmp_path / "hub/README.md").read_text(encoding="utf-8")
    assert "# digits-student" in card
    assert "distilled from a teacher" in card
    assert re.search(r"\| teacher \| onnxruntime", card)
    assert (tmp_path / "hub/student.onnx").stat().st_size > 9_000
    assert (tmp_path / "hub/student.safetensors").exists()
    right, shown = re.fullmatch(r"(\d+) of (\d+) pictures of a 3 are called one\n", printed[-1]).groups()  # type: ignore[union-attr]
    assert int(right) / int(shown) > 0.5


def test_groups_from_a_table_to_an_audit(tmp_path: Path) -> None:
    printed, compared = follow("groups.md", tmp_path)
    trained, evaluated, audited = printed.partition("runs/birds on parquet:birds.parquet/test")
    evaluated, _, audited = audited.partition("test.parquet: 799 examples")
    for name, value in (("wren", "land"), ("wren", "water"), ("gull", "land"), ("gull", "water")):
        assert f"{name} / {value}" in trained
        assert f"{name} / {value}" in evaluated
        assert f"{name} in {value}" in audited
    assert "worst group" in evaluated
    assert "by group within each class: worst-group accuracy" in " ".join(compared.split())
    assert "its worst group right" in compared
    assert "Worst-group accuracy" in (tmp_path / "runs/grid/index.html").read_text(encoding="utf-8")


def test_one_grid_by_two_machines(tmp_path: Path) -> None:
    plan, shared = follow("cluster.md", tmp_path)
    assert "6 runs" in plan
    assert "6 done" in shared
    records = list((tmp_path / "shared/grid/runs").glob("*/record.json"))
    assert len(records) == 6
    assert (tmp_path / "report/index.html").exists()
