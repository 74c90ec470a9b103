"""The page of an audit, or of a comparison: one HTML file that needs nothing else and asks nothing of the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import robustdistill
from robustdistill import pages
from robustdistill.auditing import words
from robustdistill.auditing.audits import Audit
from robustdistill.auditing.comparison import Comparison
from robustdistill.auditing.tallies import BINS

MOST_ROWS = 500  # of a table; audit.json has all
MOST_MAPPED = 24  # classes of a confusion matrix that can still be read


def write(path: str | Path, *, audit: Audit | None = None, comparison: Comparison | None = None) -> Path:
    """Writes the page of whichever is given, in one step."""
    fields = _of_audit(audit) if audit is not None else _of_comparison(comparison) if comparison is not None else {}
    text = pages.render(
        # The style and the script are those of the report: two pages of one product.
        pages.environment("robustdistill.auditing", "robustdistill.report"),
        "audit.html.j2",
        scripts=("sort.js.j2",),
        **{"audit": None, "comparison": None, "matrix": None, "reliability": None, "confusions": [], "tables": []}
        | fields,
        words=words,
        unbroken=lambda sentence: sentence.replace(" %", "\u00a0%").replace(" ± ", "\u00a0±\u00a0"),
        version=robustdistill.__version__,
        most_rows=MOST_ROWS,
    )
    return pages.write(path, text)


def _of_audit(audit: Audit) -> dict[str, Any]:
    tables = [("classes", "Every class", "Class", audit.classes)]
    if audit.groups is not None and audit.cells is not None:
        tables += [("groups", "Every group", "Group", audit.groups)]
        tables += [("cells", "Every class within each group", "Class in group", audit.cells)]
    return {
        "audit": audit,
        "title": audit.name,
        "head": words.headline(audit),
        "details": words.details(audit),
        "tables": tables,
        "matrix": _matrix(audit),
        "confusions": audit.confusions(),
        "reliability": _reliability(audit),
    }


def _of_comparison(found: Comparison) -> dict[str, Any]:
    return {
        "comparison": found,
        "title": f"{found.names[0]} against {found.names[1]}",
        "head": words.comparison_headline(found),
        "details": words.comparison_details(found),
    }


def _matrix(audit: Audit) -> list[dict[str, Any]] | None:
    """A row for each true class: its name and the share of its examples that went to each class."""
    names = audit.tallies.class_names
    if len(names) > MOST_MAPPED:
        return None
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    cells, taken, times = audit.tallies.wrong.T
    np.add.at(counts, (cells % len(names), taken), times)
    counts[np.diag_indices(len(names))] = audit.classes.scores.correct
    totals = counts.sum(axis=1)
    return [
        {"name": name, "count": int(totals[row]), "cells": [(int(n), n / totals[row]) for n in counts[row].tolist()]}
        for row, name in enumerate(names)
        if totals[row]
    ]


def _reliability(audit: Audit) -> list[dict[str, float]] | None:
    """The bins of confidence that have examples: where they lie, how often they are right, their share of all."""
    if audit.calibration is None:
        return None
    top = audit.calibration.top
    counts, predicted, true = (part.sum(axis=0) for part in (top.counts, top.predicted, top.true))
    return [
        {
            "confidence": predicted[index] / counts[index],
            "accuracy": true[index] / counts[index],
            "share": counts[index] / audit.rows,
            "count": int(counts[index]),
        }
        for index in range(BINS)
        if counts[index]
    ]
