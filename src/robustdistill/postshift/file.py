"""The JSON file of a shift."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robustdistill.errors import InputError
from robustdistill.files import write_json
from robustdistill.metrics import Scores
from robustdistill.prediction_checks import checked_names

if TYPE_CHECKING:
    from robustdistill.postshift.estimator import PostShift

SCHEMA = 1
_RECALLS = {"fit_scores": "recall", "unshifted_scores": "unshifted_recall"}  # on the fit table, for readers
FROM_PRIORS = "priors"  # what `method` says of a shift that was not fitted


def write(path: str | Path, shift: PostShift, curve: Sequence[PostShift] = ()) -> Path:
    """Writes what `read` reads, in one step: a line for each class and for each point of the curve."""
    scores = {"fit_scores": shift.fit_scores_, "unshifted_scores": shift.unshifted_scores_}
    recalls = {name: found.per_class.tolist() for name, found in scores.items() if found is not None}
    classes = zip(shift.class_names_, shift.log_coefficients_.tolist(), shift.coefficients_.tolist(), strict=True)
    points = [
        {
            "robustness": point.robustness,
            "log_coefficients": point._log_coefficients(shift.class_names_).tolist(),
            "fit_scores": None if point.fit_scores_ is None else point.fit_scores_.as_dict(),
        }
        for point in curve
    ]
    write_json(
        path,
        {
            "schema": SCHEMA,
            "kind": "post-shift",
            "method": shift.method,
            "robustness": shift.robustness,
            "iterations": shift.iterations,
            "step_size": shift.step_size,
            "tau": shift.tau_,
            "classes": [
                {
                    "class": name,
                    "coefficient": coefficient,
                    "log_coefficient": value,
                    **{_RECALLS[key]: found[index] for key, found in recalls.items()},
                }
                for index, (name, value, coefficient) in enumerate(classes)
            ],
            "fit_table": shift.fingerprint_,
            **{name: value.as_dict() if value is not None else None for name, value in scores.items()},
            "curve": points,
        },
    )
    return Path(path)


def read(path: str | Path, make: type[PostShift], robustness: float | None = None) -> PostShift:
    """Reads what `write` wrote, or raises InputError."""
    try:
        fields = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as a post-shift: {error}") from error
    if not isinstance(fields, dict) or (fields.get("kind"), fields.get("schema")) != ("post-shift", SCHEMA):
        raise InputError(f"{path} is not a post-shift file of schema {SCHEMA}")
    try:
        points = {fields["robustness"]: fields} | {point["robustness"]: point for point in fields["curve"]}
        if robustness is not None and robustness not in points:
            known = ", ".join(f"{value:g}" for value in sorted(points))
        else:
            return _from_fields(fields, make, None if robustness is None else points[robustness])
    except InputError as error:
        raise InputError(f"{path} is damaged: {error}") from error
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"{path} is damaged: {error!r}") from error
    raise InputError(f"robustness must be one that {path} has a shift for ({known}), got {robustness}")


def _from_fields(fields: Mapping[str, Any], make: type[PostShift], point: Mapping[str, Any] | None) -> PostShift:
    settings = {name: fields[name] for name in ("robustness", "iterations", "step_size")}
    chosen = fields if point is None else point
    settings["robustness"] = chosen["robustness"]
    shift = make(**settings) if fields["method"] == FROM_PRIORS else make(method=fields["method"], **settings)
    shift.method, shift.tau_ = fields["method"], fields["tau"]
    names = checked_names([str(line["class"]) for line in fields["classes"]])
    listed = chosen.get("log_coefficients", [line["log_coefficient"] for line in fields["classes"]])
    values = np.array(listed, dtype=np.float64)
    if values.shape != (len(names),) or not np.isfinite(values).all():
        raise InputError(f"{len(names)} classes must have as many finite log_coefficients, got {listed}")
    shift._set(names, values)
    shift.fingerprint_ = fields["fit_table"]
    if fields["fit_scores"] is not None:
        shift.fit_scores_ = Scores.from_dict(chosen["fit_scores"], names)
        shift.unshifted_scores_ = Scores.from_dict(fields["unshifted_scores"], names)
    return shift
