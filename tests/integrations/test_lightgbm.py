"""The page on tables with the teacher that it names beside scikit-learn's. Skipped where LightGBM is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from test_docs import ROOT, blocks

# LightGBM's own, of feature names and of scikit-learn's newer names.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_page_runs_with_its_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightgbm", reason="lightgbm is not installed")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "page"}
    shown = "from sklearn.ensemble import HistGradientBoostingClassifier as Trees  # or: "
    swapped = 0
    for block in blocks(ROOT / "docs/tabular.md"):
        swapped += block.count(shown)
        exec(compile(block.replace(shown, ""), "docs/tabular.md", "exec"), namespace)
    assert swapped == 1
    assert type(namespace["trees"]).__module__.startswith("lightgbm")
    assert (tmp_path / "teacher-train.parquet").exists()
