"""robustdistill: classifiers, above all small distilled ones, whose worst class is good.

Names resolve on first use (PEP 562), so that importing the package is light; torch comes in only with what needs it.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Libraries look at these when they are imported, which is later: nothing is sent anywhere that nobody asked for. What
# you have set yourself stays.
for _variable, _value in {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}.items():
    os.environ.setdefault(_variable, _value)

_ATTRIBUTES = {
    "ClassMultipliers": "multipliers",
    "Groups": "groups",
    "Objective": "objectives",
    "PostShift": "postshift",
    "Predictions": "predictions",
    "Recipe": "training.recipe",
    "Risks": "risks",
    "Run": "training.run",
    "Scores": "metrics",
    "audit": "auditing",
    "compare": "auditing",
    "distill": "training.distill",
    "evaluate": "training.evaluate",
    "fit": "training.fit",
    "predict": "training.evaluate",
    "train_together": "training.replicas",
}
_MODULES = (
    "auditing",
    *("data", "errors", "experiments", "losses", "methods", "metrics", "models", "multipliers", "report", "risks"),
    "theory",
)

__all__ = [
    "ClassMultipliers",
    "Groups",
    "Objective",
    "PostShift",
    "Predictions",
    "Recipe",
    "Risks",
    "Run",
    "Scores",
    "__version__",
    "audit",
    "auditing",
    "compare",
    "data",
    "distill",
    "errors",
    "evaluate",
    "experiments",
    "fit",
    "losses",
    "methods",
    "metrics",
    "models",
    "multipliers",
    "predict",
    "report",
    "risks",
    "theory",
    "train_together",
]

if TYPE_CHECKING:
    from robustdistill import (
        auditing,
        data,
        errors,
        experiments,
        losses,
        methods,
        metrics,
        models,
        multipliers,
        report,
        risks,
        theory,
    )
    from robustdistill.auditing import audit, compare
    from robustdistill.groups import Groups
    from robustdistill.metrics import Scores
    from robustdistill.multipliers import ClassMultipliers
    from robustdistill.objectives import Objective
    from robustdistill.postshift import PostShift
    from robustdistill.predictions import Predictions
    from robustdistill.risks import Risks
    from robustdistill.training.distill import distill
    from robustdistill.training.evaluate import evaluate, predict
    from robustdistill.training.fit import fit
    from robustdistill.training.recipe import Recipe
    from robustdistill.training.replicas import train_together
    from robustdistill.training.run import Run


def __getattr__(name: str) -> Any:
    if name in _ATTRIBUTES:
        return getattr(importlib.import_module(f"{__name__}.{_ATTRIBUTES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
