"""Every fuzz target."""

from __future__ import annotations

from fuzz import functions, pictures, runs, tables, texts
from fuzz.harness import Target

TARGETS: list[Target] = [
    *tables.TARGETS,
    *pictures.TARGETS,
    *runs.TARGETS,
    *texts.TARGETS,
    *functions.TARGETS,
]
