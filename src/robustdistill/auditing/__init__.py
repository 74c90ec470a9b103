"""Auditing tables of predictions: how good each class is, how sure that is, and what two classifiers differ in.

Any framework's predictions will do, and nothing here imports torch.
"""

from __future__ import annotations

from robustdistill.auditing.audits import Audit, Measure, audit
from robustdistill.auditing.comparison import Comparison, compare
from robustdistill.auditing.credible import Worst, worst
from robustdistill.auditing.lines import Line, Lines

__all__ = ["Audit", "Comparison", "Line", "Lines", "Measure", "Worst", "audit", "compare", "worst"]
