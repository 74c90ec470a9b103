"""Post-hoc logit adjustment with a fitted strength τ."""

from __future__ import annotations

from collections.abc import Sequence

from robustdistill.errors import InputError
from robustdistill.postshift.estimator import PostShift
from robustdistill.postshift.fit_table import FitTable, merit_of
from robustdistill.postshift.priors import Priors
from robustdistill.predictions import Predictions


def fit_tau(table: Predictions, priors: Priors, taus: Sequence[float] | None = None) -> PostShift:
    """Post-hoc logit adjustment with the τ whose worst-class accuracy on `table` is best; ties by balanced accuracy.

    One number is fitted instead of C: it over-fits less than `PostShift.fit`, and can do less.

    Args:
        table: logits or probabilities, with labels of every class, that the model was not trained on.
        priors: the training set's class counts or shares, by class name or in the order of the table's classes.
        taus: candidates; 0, 0.1, ... 3 by default. Of equals the first is taken.

    Raises:
        InputError: as `PostShift.fit` and `PostShift.from_priors`, or there are no candidates.
    """
    fit = FitTable.of(table)
    taus = [round(0.1 * step, 1) for step in range(31)] if taus is None else taus
    if len(taus) == 0:
        raise InputError("taus must be a list of at least one number, got none")
    shifts = [PostShift.from_priors(priors, table.class_names, tau=tau) for tau in taus]
    best = max(shifts, key=lambda shift: merit_of(fit.candidate(shift.log_coefficients_).recalls, 1.0))
    best._record(table, table.fingerprint)
    return best
