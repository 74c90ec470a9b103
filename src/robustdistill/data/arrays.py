"""Arrays of your own as examples: pictures, features or token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from robustdistill.data.raw import integers_of, names_from, pictures_or_features
from robustdistill.data.splits import Examples, IntArray, Preprocessing
from robustdistill.errors import InputError


def from_arrays(
    inputs: Any,
    labels: Any = None,
    *,
    class_names: Sequence[str] | None = None,
    ids: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    group_names: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    name: str = "examples",
) -> Examples:
    """Examples of arrays, lists, data frames or tensors; `split` makes training, validation and test parts of them.

    What inputs are, their type says: uint8 is pictures (N, H, W) or (N, H, W, 1 or 3), which can be augmented; floating
    point is features (N, F), or anything (N, ...) that your model takes as it is; other integers are token ids (N, L).

    Args:
        inputs: (N, ...). Nothing is copied that need not be.
        labels: (N,) class indices or names of classes; None where the examples are unlabelled.
        class_names: C names, in the order of the indices. By default the names that occur, sorted, or "0", "1", ... up
            to the highest index. Give them where labels are missing, and to further parts: `train.class_names`.
        ids: (N,) distinct whole numbers that a teacher's tables are joined by; the positions 0..N-1 by default.
        groups: (N,) a group column, text or whole numbers, see `Examples.with_groups`.
        group_names: the values there are, where not all of them occur here.
        preprocessing: of pictures: statistics, cropping and mirroring. By default pixels are scaled to [0, 1].
        name: what messages call these examples.

    Raises:
        InputError: inputs are sparse, text, boolean or objects, integers of one dimension, pictures of another layout,
            not finite or negative token ids; labels are no classes; lengths differ; an id occurs twice.

    >>> data = from_arrays([[0.5, 1.0], [0.1, 0.0]], ["spam", "ham"])
    >>> data.class_names, data.labels
    (('ham', 'spam'), array([1, 0]))
    """
    found = _checked_inputs(_as_array(inputs, f"{name}: inputs"), f"{name}: inputs")
    known = None if class_names is None else tuple(str(one) for one in class_names)
    numbers: IntArray | None = None
    if labels is not None:
        given = _as_array(labels, f"{name}: labels")
        if given.ndim != 1:
            raise InputError(
                f"{name}: labels must be (N,) classes, got {given.shape}: a teacher's probabilities are a table,"
                " rd.Predictions, and one-hot rows become classes by argmax(axis=1)"
            )
        if not len(given) and known is None:
            raise InputError(f"{name}: no example, hence no class: give class_names=")
        known = known or names_from(given, name)
        numbers = integers_of(given, known, name)
    if known is None:
        raise InputError(f"{name}: class_names must be given where there are no labels to take them from")
    rows = np.arange(len(found)) if ids is None else np.asarray(ids)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise InputError(
            f"{name}: ids must be whole numbers of shape (N,), got {rows.dtype} {rows.shape}: number texts, and keep"
            " what is which"
        )
    if len(known) < 2:
        raise InputError(f"{name}: there must be at least 2 classes, got {', '.join(map(repr, known)) or 'none'}")
    made = Examples(found, numbers, rows.astype(np.int64), known, preprocessing or Preprocessing(), name)
    return made if groups is None else made.with_groups(groups, group_names)


def _as_array(values: Any, where: str) -> npt.NDArray[Any]:
    if hasattr(values, "detach"):  # a tensor, wherever it lies
        values = values.detach().cpu().numpy()
    if hasattr(values, "toarray"):
        raise InputError(f"{where} are a sparse matrix, which is not taken: pass .toarray(), or fewer columns")
    if hasattr(values, "dtypes") and hasattr(values, "columns"):
        odd = [str(column) for column, kind in values.dtypes.items() if getattr(kind, "kind", "O") not in "iuf"]
        if odd:
            raise InputError(f"{where}: column {odd[0]!r} holds no numbers: encode it, such as by pandas.get_dummies")
        values = values.to_numpy(dtype=np.float32)  # columns of a table are features, integers too
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InputError(f"{where} must be of one shape: pad or cut them to one length ({error})") from error


def _checked_inputs(array: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    """Inputs as `Examples` keeps them: uint8 pictures, float32 or int64."""
    if array.ndim < 2:
        what = "text" if array.dtype.kind in "UO" else "one number each"
        advice = "make them token ids or counts of words first" if what == "text" else "(N, 1) is one feature"
        raise InputError(f"{where} must be (N, ...), got {what} of shape {array.shape}: {advice}")
    if array.dtype == np.uint8:
        if array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[3] not in (1, 3):
            raise InputError(f"{where} are pictures with channels first, {array.shape}: pass .transpose(0, 2, 3, 1)")
        if array.ndim == 2:
            raise InputError(
                f"{where} of uint8 are pictures (N, H, W[, channels]), got {array.shape}: pass features as float32 and"
                " token ids as int64"
            )
    if array.dtype.kind in "iu" and array.dtype != np.uint8:
        return array.astype(np.int64, copy=False)
    if array.dtype.kind not in "fu":
        raise InputError(
            f"{where} must be numbers, got {array.dtype}: make texts token ids or counts, categories and"
            " booleans floats"
        )
    return pictures_or_features(array, where)
