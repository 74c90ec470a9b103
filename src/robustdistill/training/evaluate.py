"""From a trained model to predictions and scores, on clean pictures and in float32."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from robustdistill.data.splits import Examples, IntArray
from robustdistill.data.stream import on_device
from robustdistill.errors import InputError, unknown
from robustdistill.groups import GroupsChoice
from robustdistill.metrics import Scores
from robustdistill.models import check_outputs, evaluating
from robustdistill.predictions import Predictions
from robustdistill.training.device import choose_device
from robustdistill.training.run import Run

BATCH_SIZE = 512  # Of inference; chosen for the CPU's cache, and large enough for a GPU at these picture sizes.


def predict(model: nn.Module | Run, examples: Examples, *, device: str | torch.device | None = None) -> Predictions:
    """The table of a model's untempered logits on `examples`, with their ids, labels and class names.

    Args:
        model: a module or a Run.
        examples: what to predict.
        device: where; by default where the model's parameters are.

    Raises:
        InputError: the model's outputs are not (B, C), or are not finite, or a Run has other classes or another order.
    """
    return Predictions(
        ids=examples.ids,
        scores=np.concatenate(list(_logits(model, examples, device))),
        kind="logits",
        class_names=examples.class_names,
        labels=examples.labels,
        groups=None if examples.groups is None else np.array(examples.group_names)[examples.groups],
    )


def _logits(
    model: nn.Module | Run, examples: Examples, device: str | torch.device | None
) -> Iterator[npt.NDArray[np.float32]]:
    """Checked logits (B, C) of one batch after the other, as `predict` returns all of them."""
    if isinstance(model, Run) and model.class_names != examples.class_names:
        raise InputError(f"the run's classes are {model.class_names}, those of {examples.name} {examples.class_names}")
    module = model.model if isinstance(model, Run) else model
    where = next((value.device for value in module.state_dict().values()), torch.device("cpu"))
    device = choose_device(device, where) if device is not None else where
    data = on_device(examples, device)
    module.to(device)
    check_outputs(module, data.sample(2).inputs, examples.num_classes, name="model")
    start = 0
    for batch in data.clean(BATCH_SIZE):
        with evaluating(module), torch.inference_mode():
            logits = module(batch.inputs).float().cpu().numpy()
        if not np.isfinite(logits).all():
            row = start + int(np.flatnonzero(~np.isfinite(logits).all(axis=1))[0])
            raise InputError(
                f"the model's logits must be finite; {examples.name} row {row} (id {examples.ids[row]}) is not"
            )
        start += len(logits)
        yield logits


def group_index(examples: Examples, groups: GroupsChoice) -> tuple[IntArray, npt.NDArray[np.str_]]:
    """(N,) which group each example is in, of those that occur, and their (G,) names, in the manner of `Groups`.

    Raises:
        InputError: there is no group column or, for "class-group", no labels.
    """
    values, names = examples.require_groups(), np.array(examples.group_names)
    if groups == "class-group" and examples.labels is not None:
        cells = values * examples.num_classes + examples.labels
        found, index = np.unique(cells, return_inverse=True)
        classes = [examples.class_names[cell % examples.num_classes] for cell in found.tolist()]
        values_of = names[found // examples.num_classes]
        joined = [f"{name} / {value}" for name, value in zip(classes, values_of.tolist(), strict=True)]
        return index.astype(np.int64), np.array(joined)
    found, index = np.unique(values, return_inverse=True)
    return index.astype(np.int64), names[found]


def score_test(run: Run, test: Examples, table: Predictions | None = None) -> None:
    """Keeps a run's scores on `test` in it: by class and, where its multipliers are over groups, by group.

    Args:
        run: whose `test` and `group_test` are set.
        test: with a group column where the run's multipliers are over groups.
        table: the run's predictions on `test`, where they are at hand.

    Raises:
        InputError: as `evaluate`.
    """
    known = run if table is None else table
    run.test = evaluate(known, test)
    run.group_test = None if run.spec.groups == "class" else evaluate(known, test, groups=run.spec.groups)


def evaluate(
    model: nn.Module | Run | Predictions,
    examples: Examples | None = None,
    *,
    groups: GroupsChoice = "class",
    device: str | torch.device | None = None,
) -> Scores:
    """Accuracy by class of a model on `examples`, or of a table of predictions that carries labels.

    Args:
        model: a module, a Run, or Predictions.
        examples: what to evaluate on; for predictions, joined by id, or None to take the table's own labels.
        groups: what accuracy is taken by: "class"; or "group", the values of the examples' group column, or
            "class-group", those within each class. Scores are then by group, under the same names: `worst_class` is the
            worst group, `class_names` are the groups', of those that occur.
        device: as in `predict`.

    Returns:
        Scores: .per_class .worst_class .balanced .standard .worst_k(k) .wilson() .intervals().

    Raises:
        InputError: there are no labels or, where they are asked for, no groups; or ids or classes do not match.
    """
    if groups not in ("class", "group", "class-group"):
        raise unknown("groups", str(groups), ["class", "group", "class-group"])
    if groups != "class" and examples is None:
        raise InputError("evaluation by group needs examples with a group column; of a table alone: rd.audit(table)")
    if isinstance(model, Predictions):
        if examples is None:
            return model.evaluate()
        predicted = model.match_classes(examples.class_names).join(examples.ids).predicted
    elif examples is None:
        raise InputError("evaluate(model) needs examples; only a table of predictions has labels of its own")
    else:
        # Batch by batch: of very many classes, all logits may be more than fits.
        predicted = np.concatenate([logits.argmax(axis=1) for logits in _logits(model, examples, device)])
    if groups != "class":
        index, names = group_index(examples, groups)
        labels, classes = examples.require_labels(), examples.num_classes
        return Scores.by_group(predicted, labels=labels, groups=index, num_classes=classes, group_names=names.tolist())
    return Scores.of(
        predicted,
        labels=examples.require_labels(),
        num_classes=examples.num_classes,
        class_names=examples.class_names,
    )
