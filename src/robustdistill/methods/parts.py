"""What several methods share: checked inputs, terms in float64, effective numbers.

Nothing here makes more than a few (B, C) tensors, and nothing waits for the device.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from robustdistill.data.batches import Batch
from robustdistill.errors import InputError
from robustdistill.losses import exact
from robustdistill.methods.base import Context


def require(holds: bool, method: str, setting: str, expected: str, value: object) -> None:
    """Raises an InputError that names the setting, unless `holds`."""
    if not holds:
        raise InputError(f"method {method}: {setting} must be {expected}, got {value!r}")


def finite(value: float, least: float = 0.0) -> bool:
    """Whether a setting is a finite number of at least `least`."""
    return math.isfinite(value) and value >= least


def labels_of(batch: Batch, outputs: Tensor) -> Tensor:
    """(B,) the examples' own labels, int64.

    Raises:
        InputError: the batch carries none, or not one per row of `outputs`.
    """
    if batch.labels is None or batch.labels.shape != outputs.shape[:1]:
        got = None if batch.labels is None else tuple(batch.labels.shape)
        raise InputError(f"the batch must carry labels of shape ({outputs.shape[0]},), got {got}")
    return batch.labels.long()


def labels_without_teacher(batch: Batch, outputs: Tensor, method: str) -> Tensor:
    """`labels_of`, for a method that would leave a teacher unused.

    Raises:
        InputError: the batch comes from a teacher, or as `labels_of`.
    """
    if batch.teacher_logits is not None or (batch.targets is not None and batch.targets.is_floating_point()):
        raise InputError(f"method {method} learns from labels alone, a teacher has no effect: use fit")
    return labels_of(batch, outputs)


def teacher_logits_of(batch: Batch, outputs: Tensor) -> Tensor:
    """(B, C) the teacher's untempered logits, in float64.

    Raises:
        InputError: the batch carries none, or they are not of the shape of `outputs`.
    """
    return _of_shape(batch.teacher_logits, outputs, "teacher_logits")


def probabilities_of(batch: Batch, outputs: Tensor) -> Tensor:
    """(B, C) the targets as probabilities, in float64; errors as `teacher_logits_of`."""
    return _of_shape(batch.targets, outputs, "targets")


def _of_shape(values: Tensor | None, outputs: Tensor, name: str) -> Tensor:
    if values is None or values.shape != outputs.shape:
        got = None if values is None else tuple(values.shape)
        raise InputError(f"the batch must carry {name} of shape {tuple(outputs.shape)} from a teacher, got {got}")
    return exact(values)


def counts_of(context: Context, method: str) -> Tensor:
    """(C,) training examples of each class, in float64.

    Raises:
        InputError: training examples carry no labels, or a class has none.
    """
    counts = context.class_counts
    if counts is None:
        raise InputError(f"method {method} needs the size of each class, but the training examples carry no labels")
    missing = torch.nonzero(counts <= 0).flatten().tolist()
    if missing:
        raise InputError(f"method {method} needs training examples of every class; none of {missing[:5]}")
    return exact(counts)


def cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    """(B,) −Σ_y p_y log softmax_y(f) of (B, C) scores against (B,) labels or (B, C) probabilities of their dtype."""
    return F.cross_entropy(scores, targets, reduction="none")


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """(B,) KL(softmax(teacher) ‖ softmax(student)) of (B, C) scores; a probability of 0 adds nothing."""
    p = torch.softmax(teacher, dim=1)
    entropy: Tensor = torch.special.entr(p).sum(dim=1)
    return cross_entropy(student, p) - entropy


def class_margins(p: Tensor) -> Tensor:
    """γ_avg(y, p) = p_y − (1/(C−1)) Σ_{y'≠y} p_{y'} for every class: (B, C) from (B, C), in [−1/(C−1), 1]."""
    return p - (p.sum(dim=1, keepdim=True) - p) / (p.shape[1] - 1)


def effective_number_weights(counts: Tensor, beta: float) -> Tensor:
    """(C,) weights (1−β)/(1−β^n_y), scaled to a mean of 1 (Cui et al. 2019); β = 0 gives ones."""
    # β^n is near 1 for small classes: expm1 keeps what 1 − β^n would lose.
    inverse: Tensor = -1 / torch.expm1(counts * math.log(beta)) if beta > 0 else torch.ones_like(counts)
    return inverse / inverse.mean()


def over_processes(values: Tensor) -> Tensor:
    """The sum of `values` over all processes of the optimiser step; themselves where there is one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        values = values.clone()
        torch.distributed.all_reduce(values)
    return values
