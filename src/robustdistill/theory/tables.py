"""Small arithmetic on tables of instances and classes, in which a zero probability is an exact zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from robustdistill.errors import InputError

FloatArray = npt.NDArray[np.float64]

# How far masses or a row of probabilities may be from 1 in sum; the rest is divided out.
SUM_TOLERANCE = 1e-6


def as_floats(values: Any, name: str) -> FloatArray:
    """Numbers of any kind as float64.

    Raises:
        InputError: they are text, complex or of no one shape.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name} must be an array of numbers ({error})") from error
    if array.dtype.kind not in "iufb":
        raise InputError(f"{name} must be real numbers, got {array.dtype}")
    return array.astype(np.float64)


def checked_masses(masses: Any, name: str = "masses") -> FloatArray:
    """(M,) float64 summing to 1; a zero is an instance that never occurs.

    Raises:
        InputError: not (M,), negative, not finite, or summing to something else than 1.
    """
    array = as_floats(masses, name)
    if array.ndim != 1 or len(array) == 0:
        raise InputError(f"{name} must be (M,) with M >= 1, got {array.shape}")
    if len(bad := np.flatnonzero(~(np.isfinite(array) & (array >= 0)))):
        raise InputError(f"{name} must be finite and not negative; instance {bad[0]} has {array[bad[0]]:g}")
    total = _sums(array)
    if abs(total - 1) > SUM_TOLERANCE:
        raise InputError(f"{name} must sum to 1, got {total:.9g}")
    return np.asarray(array / array.sum())


def checked_rows(rows: Any, instances: int | None, name: str) -> FloatArray:
    """(M, C) float64, each row a distribution over C >= 2 classes; zeros are allowed.

    Raises:
        InputError: not (M, C), negative, not finite, or a row that does not sum to 1.
    """
    array = as_floats(rows, name)
    if array.ndim != 2 or array.shape[1] < 2 or len(array) != (len(array) if instances is None else instances):
        raise InputError(f"{name} must be (M, C) with M = {instances or 'any'} and C >= 2, got {array.shape}")
    wrong = ~(np.isfinite(array) & (array >= 0)).all(axis=1)
    if len(bad := np.flatnonzero(wrong)):
        raise InputError(f"{name} must be finite and not negative; instance {bad[0]} has {array[bad[0]]}")
    sums = _sums(array)
    if len(bad := np.flatnonzero(np.abs(sums - 1) > SUM_TOLERANCE)):
        raise InputError(f"{name} must sum to 1 in each row; instance {bad[0]} sums to {sums[bad[0]]:.9g}")
    return np.asarray(array / sums[:, None])


def _sums(array: FloatArray) -> Any:
    with np.errstate(over="ignore"):  # infinity is not 1 either
        return array.sum(axis=-1)


def checked_logits(logits: Any, shape: tuple[int, int]) -> FloatArray:
    """(M, C) float64; −∞ is a class that the scorer excludes, and each row has a finite score.

    Raises:
        InputError: another shape, NaN or +∞, or a row that excludes every class.
    """
    array = as_floats(logits, "logits")
    if array.shape != shape:
        raise InputError(f"logits must be (M, C) = {shape}, got {array.shape}")
    if len(bad := np.flatnonzero((np.isnan(array) | (array == np.inf)).any(axis=1))):
        raise InputError(f"logits must be finite or -inf; instance {bad[0]} has {array[bad[0]]}")
    if len(bad := np.flatnonzero((array == -np.inf).all(axis=1))):
        raise InputError(f"logits must have a finite score in each row; instance {bad[0]} has none")
    return array


def log(values: FloatArray) -> FloatArray:
    """The logarithm, −∞ at zero."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(values))


def log_softmax(logits: FloatArray) -> FloatArray:
    """(M, C) log-probabilities; −∞ stays −∞, and so does what lies further below the highest than a float reaches."""
    with np.errstate(over="ignore"):
        centred = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(centred - np.log(np.exp(centred).sum(axis=1, keepdims=True)))


def product(weights: FloatArray, values: FloatArray) -> FloatArray:
    """weights · values, with 0 · ∞ = 0: what has no weight has no loss."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(weights == 0, 0.0, weights * values))


def losses(logits: FloatArray, loss: str) -> FloatArray:
    """(M, C) ℓ(y, f(x)) for every y: "cross-entropy", or "zero-one" with ties going to the first class.

    Raises:
        InputError: another loss.
    """
    if loss == "cross-entropy":
        return np.asarray(-log_softmax(logits))
    if loss == "zero-one":
        wrong = np.ones_like(logits)
        wrong[np.arange(len(logits)), logits.argmax(axis=1)] = 0.0
        return wrong
    raise InputError(f"loss must be 'cross-entropy' or 'zero-one', got {loss!r}")
