"""What reads predictions, records and tables must work on a machine without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

MODULES = [
    "robustdistill",
    "robustdistill.objectives",
    "robustdistill.metrics",
    "robustdistill.errors",
    "robustdistill.data.splits",
    "robustdistill.data.catalog",
    "robustdistill.data.loading",
    "robustdistill.experiments.grid",
    "robustdistill.experiments.execute",
    "robustdistill.data.longtail",
    "robustdistill.training.recipe",
    "robustdistill.training.schedule",
    "robustdistill.training.spec",
    "robustdistill.postshift",
    "robustdistill.auditing",
    "robustdistill.auditing.page",
    "robustdistill.auditing.teacher",
    "robustdistill.cli.audit",
    "robustdistill.cli.shift",
    "robustdistill.experiments.journal",
    "robustdistill.experiments.select",
    "robustdistill.experiments.plan",
    "robustdistill.lease",
    "robustdistill.experiments.upload",
    "robustdistill.experiments.paper.page",
    "robustdistill.experiments.paper.post_shift",
    "robustdistill.cli.grid",
    "robustdistill.cli.report",
    "robustdistill.cli.reproduce",
    "robustdistill.report",
    "robustdistill.report.tables",
    "robustdistill.report.plots",
    "robustdistill.report.page",
    "robustdistill.theory",
    "robustdistill.theory.study",
    "robustdistill.theory.figures",
]

BLOCK = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"blocked: {name}", name=name)

sys.meta_path.insert(0, NoTorch())
"""

IMPORT_ALL = (
    BLOCK
    + """
import importlib, json, traceback

results = {}
for module in ["torch", *sys.argv[1:]]:
    try:
        importlib.import_module(module)
        results[module] = None
    except BaseException:
        results[module] = traceback.format_exc()
print(json.dumps({"results": results, "loaded": "torch" in sys.modules}))
"""
)

USE = (
    BLOCK
    + """
import json
import numpy as np
import robustdistill as rd

costs = rd.Objective.parse("robust").costs(np.array([0.8, 0.2]), np.array([0.5, 0.5]))
worst = rd.metrics.worst_class_accuracy(np.array([0, 1, 0]), labels=np.array([0, 1, 1]), num_classes=2)
refused = False
try:
    rd.Objective.parse("rubust")
except rd.errors.InputError:
    refused = True
print(json.dumps({"costs": costs.tolist(), "worst": worst, "refused": refused}))
"""
)


def python(code: str, *arguments: str) -> str:
    """The output of `code` in a fresh interpreter that finds what this one finds."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def imported() -> dict[str, Any]:
    """Each module's traceback (None where it imported), from one interpreter without torch."""
    return dict(json.loads(python(IMPORT_ALL, *MODULES).splitlines()[-1]))


@pytest.mark.parametrize("module", MODULES)
def test_imports_without_torch(imported: dict[str, Any], module: str) -> None:
    assert imported["results"][module] is None, imported["results"][module]
    assert not imported["loaded"]


def test_the_block_blocks(imported: dict[str, Any]) -> None:
    assert "blocked: torch" in imported["results"]["torch"]


def test_objectives_and_metrics_work_without_torch() -> None:
    result = json.loads(python(USE))
    assert result["costs"] == pytest.approx([0.625, 2.5])
    assert result["worst"] == 0.5
    assert result["refused"]


def test_importing_the_package_does_not_load_torch() -> None:
    assert python("import robustdistill, sys; print('torch' in sys.modules)").strip() == "False"


def test_the_light_modules_do_not_load_torch_where_it_is_installed() -> None:
    """A swallowed ImportError would pass with torch blocked and still be slow with it."""
    code = "import sys, importlib; [importlib.import_module(m) for m in sys.argv[1:]]; print('torch' in sys.modules)"
    assert python(code, *MODULES).strip() == "False"
