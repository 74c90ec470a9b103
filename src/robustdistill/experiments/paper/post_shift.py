"""The post-shift rows: coefficients found on a teacher's stored validation predictions, and what they do on test."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from robustdistill.experiments.journal import Record, SplitMetrics
from robustdistill.metrics import Scores
from robustdistill.postshift import PostShift
from robustdistill.predictions import Predictions
from robustdistill.report.intervals import stored_predictions


def shifted(record: Record) -> tuple[SplitMetrics, SplitMetrics] | None:
    """What a finished model gets right on validation and on test once it is shifted; None without its predictions.

    The coefficients maximise worst-class accuracy on validation, by exponentiated gradient (Narasimhan & Menon 2021,
    Algorithm 3), whatever worst metric the table shows: the same base models, nothing is trained.
    """
    val, test = stored_predictions(record, "val"), stored_predictions(record, "test")
    return _shifted(val, test) if val is not None and test is not None else None


@lru_cache(maxsize=256)
def _shifted(val_file: Path, test_file: Path) -> tuple[SplitMetrics, SplitMetrics]:
    val, test = Predictions.read(val_file), Predictions.read(test_file)
    shift = PostShift().fit(val)
    return _metrics(shift.transform(val).evaluate()), _metrics(shift.transform(test).evaluate())


def _metrics(scores: Scores) -> SplitMetrics:
    return SplitMetrics(**scores.as_dict())
