"""What of a grid's runs is the same whenever and however often they were made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def record(folder: Path) -> dict[str, Any]:
    """A run's record without the times, and without the commit, which somebody may make meanwhile."""
    found: dict[str, Any] = json.loads((folder / "record.json").read_text())
    del found["seconds"], found["environment"]["date"], found["environment"]["git"]
    for epoch in found["history"]:
        del epoch["seconds"]
    return found


def lasting(root: Path) -> dict[str, Any]:
    """Records and weights of the runs in `root`, by their folders' names."""
    folders = [path.parent for path in sorted(root.glob("*/record.json"))]
    return {folder.name: (record(folder), (folder / "model.safetensors").read_bytes()) for folder in folders}


def done(root: Path) -> dict[Path, int]:
    """The records of runs that are through, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in root.glob("*/record.json") if '"test"' in path.read_text()}
