"""The JSON file of a shift."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robustdistill.errors import InputError
from robustdistill.files import write_json
from robustdistill.metrics import Scores

if TYPE_CHECKING:
    from robustdistill.postshift.estimator import PostShift

SCHEMA = 1
FROM_PRIORS = "priors"  # what `method` says of a shift that was not fitted


def write(path: str | Path, shift: PostShift) -> Path:
    """Writes what `read` reads, in one step."""
    scores = {"fit_scores": shift.fit_scores_, "unshifted_scores": shift.unshifted_scores_}
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
            "class_names": list(shift.class_names_),
            "log_coefficients": shift.log_coefficients_.tolist(),
            "fit_table": shift.fingerprint_,
            **{name: value.as_dict() if value is not None else None for name, value in scores.items()},
        },
    )
    return Path(path)


def read(path: str | Path, make: type[PostShift]) -> PostShift:
    """Reads what `write` wrote, or raises InputError."""
    try:
        fields = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a post-shift: {error}") from error
    if not isinstance(fields, dict) or (fields.get("kind"), fields.get("schema")) != ("post-shift", SCHEMA):
        raise InputError(f"{path} is not a post-shift file of schema {SCHEMA}")
    try:
        return _from_fields(fields, make)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error!r}") from error


def _from_fields(fields: Mapping[str, Any], make: type[PostShift]) -> PostShift:
    settings = {name: fields[name] for name in ("robustness", "iterations", "step_size")}
    shift = make(**settings) if fields["method"] == FROM_PRIORS else make(method=fields["method"], **settings)
    shift.method, shift.tau_ = fields["method"], fields["tau"]
    names, values = tuple(fields["class_names"]), np.array(fields["log_coefficients"], dtype=np.float64)
    if values.shape != (len(names),) or len(set(names)) != len(names) or not np.isfinite(values).all():
        raise InputError(f"{len(names)} distinct class names must have as many finite log_coefficients")
    shift.class_names_, shift.log_coefficients_ = names, values
    shift.fingerprint_ = fields["fit_table"]
    if fields["fit_scores"] is not None:
        shift.fit_scores_ = Scores.from_dict(fields["fit_scores"], names)
        shift.unshifted_scores_ = Scores.from_dict(fields["unshifted_scores"], names)
    return shift
