"""From a trained model to predictions and scores, on clean pictures and in float32."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from robustdistill.data.splits import Examples
from robustdistill.data.stream import Loaded, on_device
from robustdistill.errors import InputError
from robustdistill.metrics import Scores
from robustdistill.models import check_outputs, evaluating
from robustdistill.predictions import Predictions
from robustdistill.training.device import choose_device
from robustdistill.training.run import Run

BATCH_SIZE = 512  # Of inference; chosen for the CPU's cache, and large enough for a GPU at these picture sizes.


def logits_of(model: nn.Module, data: Loaded, positions: Tensor | None = None) -> Tensor:
    """(N, C) float32 logits of clean examples, in order; the model's mode is put back afterwards.

    Args:
        model: on the data's device.
        data: the examples.
        positions: (M,) positions to take instead of all.
    """
    with evaluating(model), torch.inference_mode():
        return torch.cat([model(batch.inputs).float() for batch in data.clean(BATCH_SIZE, positions)])


def predict(model: nn.Module | Run, examples: Examples, *, device: str | torch.device | None = None) -> Predictions:
    """The table of a model's untempered logits on `examples`, with their ids, labels and class names.

    Args:
        model: a module or a Run.
        examples: what to predict.
        device: where; by default where the model's parameters are.

    Raises:
        InputError: the model's outputs are not (B, C), or are not finite, or a Run has other classes or another order.
    """
    if isinstance(model, Run) and model.class_names != examples.class_names:
        raise InputError(f"the run's classes are {model.class_names}, those of {examples.name} {examples.class_names}")
    module = model.model if isinstance(model, Run) else model
    where = next((value.device for value in module.state_dict().values()), torch.device("cpu"))
    device = choose_device(device, where) if device is not None else where
    data = on_device(examples, device)
    module.to(device)
    check_outputs(module, data.sample(2).inputs, examples.num_classes, name="model")
    logits = logits_of(module, data).cpu().numpy()
    if not np.isfinite(logits).all():
        row = int(np.flatnonzero(~np.isfinite(logits).all(axis=1))[0])
        raise InputError(
            f"the model's logits must be finite; {examples.name} row {row} (id {examples.ids[row]}) is not"
        )
    return Predictions(
        ids=examples.ids, scores=logits, kind="logits", class_names=examples.class_names, labels=examples.labels
    )


def evaluate(
    model: nn.Module | Run | Predictions, examples: Examples | None = None, *, device: str | torch.device | None = None
) -> Scores:
    """Accuracy by class of a model on `examples`, or of a table of predictions that carries labels.

    Args:
        model: a module, a Run, or Predictions.
        examples: what to evaluate on; for predictions, joined by id, or None to take the table's own labels.
        device: as in `predict`.

    Returns:
        Scores: .per_class .worst_class .balanced .standard .worst_k(k) .wilson() .intervals().

    Raises:
        InputError: there are no labels, or ids or classes do not match.
    """
    if isinstance(model, Predictions):
        if examples is None:
            return model.evaluate()
        predicted = model.match_classes(examples.class_names).join(examples.ids).predicted
    elif examples is None:
        raise InputError("evaluate(model) needs examples; only a table of predictions has labels of its own")
    else:
        predicted = predict(model, examples, device=device).predicted
    return Scores.of(
        predicted,
        labels=examples.require_labels(),
        num_classes=examples.num_classes,
        class_names=examples.class_names,
    )
