"""From rows of features, labels of any kind and a teacher's probabilities to what `robustdistill.fit` takes."""

from __future__ import annotations

import functools
import inspect
import itertools
import warnings
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from torch import nn

from robustdistill import models
from robustdistill.errors import InputError
from robustdistill.predictions import IntArray, Predictions


def mlp(widths: Sequence[int], in_features: int, num_classes: int) -> nn.Sequential:
    """Linear layers of these widths with ReLU between, and one to the classes: (B, in_features) to (B, C) logits.

    Raises:
        InputError: a width is not a whole number of at least 1.

    >>> mlp((8,), in_features=3, num_classes=2)
    Sequential(
      (0): Linear(in_features=3, out_features=8, bias=True)
      (1): ReLU()
      (2): Linear(in_features=8, out_features=2, bias=True)
    )
    """
    sizes: Sequence[Any] = widths
    if any(not isinstance(size, (int, np.integer)) or size < 1 for size in sizes):
        raise InputError(f"model as widths of hidden layers must be whole numbers of at least 1, got {tuple(widths)}")
    steps = itertools.pairwise([in_features, *(int(width) for width in widths)])
    layers = [layer for before, after in steps for layer in (nn.Linear(before, after), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(int(widths[-1]) if widths else in_features, num_classes))


def model_for(model: Sequence[int] | models.ModelLike, in_features: int) -> models.ModelLike:
    """What `robustdistill.fit` takes as a model, knowing how many features there are.

    Args:
        model: widths of an MLP's hidden layers, or as in `fit`. A factory is given `in_features` where it names it.
        in_features: F.

    Raises:
        InputError: "module:callable" cannot be imported.
    """
    if isinstance(model, (tuple, list)):
        return functools.partial(mlp, tuple(model), in_features)
    if isinstance(model, str) and ":" in model:
        model = models.import_callable(model)
    if callable(model) and not isinstance(model, nn.Module) and "in_features" in inspect.signature(model).parameters:
        return functools.partial(model, in_features=in_features)
    return cast(models.ModelLike, model)


def printable_names(classes: npt.NDArray[Any]) -> tuple[str, ...]:
    """Printable, distinct names of labels (C,), whatever they are."""
    names = tuple(str(label) for label in classes.tolist())
    if len(set(names)) == len(names) and all(name and name.isprintable() for name in names):
        return names
    return tuple(f"class {index}: {name!r}" for index, name in enumerate(names))


def set_aside(
    labels: IntArray, fraction: float, random: np.random.RandomState, names: Sequence[str]
) -> tuple[IntArray, IntArray]:
    """Positions of training and of validation rows, each sorted, with every class in both.

    Of a class of n rows max(1, round(fraction · n)) are set aside, but one at least is left to train on. They are
    disjoint but for classes of a single row, which is in both and warned of, and at fraction 0, where all rows are.

    Args:
        labels: (N,) class indices in [0, C), every class there.
        fraction: in [0, 1).
        random: draws the rows.
        names: C names for the warning.

    Raises:
        InputError: `fraction` is out of range.
    """
    if not 0 <= fraction < 1:
        raise InputError(f"validation_fraction must lie in [0, 1), got {fraction}")
    if fraction == 0:
        return np.arange(len(labels)), np.arange(len(labels))
    kept, held, single = [], [], []
    for index, name in enumerate(names):
        rows = random.permutation(np.flatnonzero(labels == index))
        count = min(max(1, round(fraction * len(rows))), len(rows) - 1)
        held.append(rows[: max(1, count)])
        kept.append(rows[count:])
        if count == 0:
            single.append(name)
    if single:
        listed = ", ".join(map(repr, single[:5])) + (", ..." if len(single) > 5 else "")
        warnings.warn(
            f"{len(single)} of {len(names)} classes have a single row ({listed}), which is both trained on and"
            " validated on: their multipliers follow what was learnt by heart",
            UserWarning,
            stacklevel=3,
        )
    return np.sort(np.concatenate(kept)), np.sort(np.concatenate(held))


def teacher_table(teacher_proba: Any, labels: IntArray, classes: npt.NDArray[Any]) -> Predictions:
    """A teacher's probabilities (N, C) as a table whose ids are the rows' positions.

    Warns where the columns look like those of another order: the mean probabilities of the rows of each class are
    highest in a column of their own, but not in the class's.

    Args:
        teacher_proba: an array, or a table with `columns`, whose names must then be the classes in their order.
        labels: (N,) class indices in [0, C), every class there.
        classes: (C,) the sorted labels.

    Raises:
        InputError: the shape or the column names are others, or a row is no probabilities.
    """
    names, columns = [str(label) for label in classes.tolist()], getattr(teacher_proba, "columns", None)
    expected = f"one column for each of np.unique(y), {_listed(names)}, in this order"
    # 0..C-1 is what pandas calls columns that nobody named.
    if columns is not None and list(map(str, columns)) not in (names, [str(place) for place in range(len(columns))]):
        raise InputError(f"teacher_proba must have {expected}; its columns are {_listed(list(map(str, columns)))}")
    scores = np.asarray(teacher_proba)
    if scores.shape != (len(labels), len(classes)):
        raise InputError(f"teacher_proba must be {(len(labels), len(classes))}, {expected}; got {scores.shape}")
    try:
        table = Predictions(np.arange(len(labels)), scores, "probabilities", printable_names(classes))
    except InputError as error:
        raise InputError(f"teacher_proba: {error}") from error
    highest = np.array([table.scores[labels == index].mean(axis=0).argmax() for index in range(len(classes))])
    moved = np.flatnonzero(highest != np.arange(len(classes)))
    if len(moved) and len(set(highest.tolist())) == len(classes):
        warnings.warn(
            f"teacher_proba looks as if its columns were in another order: rows of class {names[moved[0]]!r} are given"
            f" most to column {highest[moved[0]]}, which is {names[highest[moved[0]]]!r}; it must have {expected}",
            UserWarning,
            stacklevel=4,
        )
    return table


def _listed(names: Sequence[str]) -> str:
    return "[" + ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") + "]"
