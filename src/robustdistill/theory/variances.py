"""The variance that labels induce on the loss (Lemma 7), and Appendix B's claim that a teacher's is the lower one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robustdistill.errors import InputError
from robustdistill.theory import tables
from robustdistill.theory.problems import FiniteProblem, Loss
from robustdistill.theory.tables import FloatArray


@dataclass(frozen=True, eq=False)
class LossVariances:
    """Variances of one scorer's loss with a teacher's labels and with one-hot ones.

    For a teacher that is right, p^t = η, the first is never larger: it is the second without the part within instances
    (the law of total variance). For another teacher it can be.

    Attributes:
        distilled: (C,) of p^t_y(X) ℓ(y, f(X)), V_y of Lemma 7.
        one_hot: (C,) of 1(Y = y) ℓ(y, f(X)).
        distilled_total: of Σ_y p^t_y(X) ℓ(y, f(X)), the loss of an example.
        one_hot_total: of ℓ(Y, f(X)).
    """

    distilled: FloatArray
    one_hot: FloatArray
    distilled_total: float
    one_hot_total: float

    @property
    def ratios(self) -> FloatArray:
        """(C,) distilled/one_hot, below 1 where the claim holds; NaN where one-hot labels induce no variance."""
        known = self.one_hot > 0
        return np.asarray(np.divide(self.distilled, self.one_hot, out=np.full(known.shape, np.nan), where=known))


def loss_variances(
    problem: FiniteProblem, teacher: npt.ArrayLike, logits: npt.ArrayLike, loss: Loss = "cross-entropy"
) -> LossVariances:
    """The variances over the distribution of a finite problem.

    Args:
        problem: the truth.
        teacher: (M, C) p^t.
        logits: (M, C) the student f.
        loss: ℓ.

    Raises:
        InputError: a shape does not fit, or a loss that counts is infinite.
    """
    distilled = problem.distilled(teacher)
    values = tables.losses(tables.checked_logits(logits, problem.posteriors.shape), loss)
    soft = tables.product(problem.masses[:, None] * distilled.posteriors, values)
    hard = tables.product(problem.masses[:, None] * problem.posteriors, values)
    if not (np.isfinite(soft).all() and np.isfinite(hard).all()):
        raise InputError("logits must give every class that can occur a probability: a loss is infinite")
    means = soft.sum(axis=0), hard.sum(axis=0)
    squares = (
        tables.product(problem.masses[:, None] * distilled.posteriors**2, values**2).sum(axis=0),
        tables.product(problem.masses[:, None] * problem.posteriors, values**2),
    )
    of_example = tables.product(distilled.posteriors, values).sum(axis=1)
    return LossVariances(
        distilled=_not_negative(squares[0] - means[0] ** 2),
        one_hot=_not_negative(squares[1].sum(axis=0) - means[1] ** 2),
        distilled_total=float(_not_negative(problem.masses @ (of_example - means[0].sum()) ** 2)),
        one_hot_total=float(_not_negative(squares[1].sum() - hard.sum() ** 2)),
    )


def empirical_loss_variances(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, logits: npt.ArrayLike, loss: Loss = "cross-entropy"
) -> LossVariances:
    """The same from examples (sample variances, with n − 1).

    Args:
        probabilities: (N, C) the teacher's.
        labels: (N,) true class indices.
        logits: (N, C) the scorer's, finite.
        loss: ℓ.

    Raises:
        InputError: a shape does not fit, or there are fewer than two examples.
    """
    soft = tables.checked_rows(probabilities, None, "probabilities")
    true = np.asarray(labels)
    if len(soft) < 2 or true.shape != (len(soft),) or true.dtype.kind not in "iu":
        raise InputError(f"labels must be ({len(soft)},) class indices, of two examples at least, got {true.shape}")
    if true.min() < 0 or true.max() >= soft.shape[1]:
        raise InputError(f"labels must lie in 0..{soft.shape[1] - 1}, got {true.min()}..{true.max()}")
    scores = np.asarray(logits, dtype=np.float64)
    if scores.shape != soft.shape or not np.isfinite(scores).all():
        raise InputError(f"logits must be finite and (N, C) = {soft.shape}, got {scores.shape}")
    values = tables.losses(scores, loss)
    hard = np.zeros_like(soft)
    hard[np.arange(len(true)), true] = 1.0
    both = soft * values, hard * values
    return LossVariances(
        distilled=both[0].var(axis=0, ddof=1),
        one_hot=both[1].var(axis=0, ddof=1),
        distilled_total=float(both[0].sum(axis=1).var(ddof=1)),
        one_hot_total=float(both[1].sum(axis=1).var(ddof=1)),
    )


def _not_negative(values: FloatArray | float) -> FloatArray:
    return np.asarray(np.maximum(values, 0.0))  # rounding of a difference of squares
