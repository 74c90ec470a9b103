"""safetensors: the weights under the model's own names, with what is needed to use them as metadata."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from robustdistill import models
from robustdistill.data.splits import Examples
from robustdistill.errors import InputError
from robustdistill.exporting.deployed import Deployed, deploy
from robustdistill.exporting.facts import Facts
from robustdistill.models.averaged import LIMIT, stacked
from robustdistill.postshift import PostShift
from robustdistill.tensorfile import write_tensors
from robustdistill.training.run import Run


def export_safetensors(run: Run, path: Path | str, examples: Examples, shift: PostShift | None = None) -> Deployed:
    """Writes a run's weights, with `Facts` as metadata; `load` reads them back.

    The names of the tensors are those of the model's `state_dict()`. A post-shift is in the last bias where `deploy`
    can put it there; else it is in the metadata only, and `load` adds it to the logits.

    Args:
        run, examples, shift: as `deploy` takes them.
        path: of the file.

    Returns:
        The model that was written.

    Raises:
        InputError: as `deploy`.
    """
    deployed = deploy(run, examples, shift)
    write_tensors(path, deployed.model.state_dict(), {"format": "pt", **deployed.facts.metadata()})
    return deployed


def load(path: Path | str, *, model: models.ModelLike | None = None) -> Deployed:
    """The model in a file that `export_safetensors` wrote, ready for pictures as they are decoded.

    >>> from robustdistill.exporting import load
    >>> student = load("student.safetensors")  # doctest: +SKIP
    >>> logits, probabilities = student(images)  # uint8 (N, H, W, channels)  # doctest: +SKIP
    >>> student.facts.class_names[probabilities[0].argmax()]  # doctest: +SKIP

    Args:
        path: of the file.
        model: the architecture, needed where the run was of a user's own code: no code is imported because a file says
            so.

    Raises:
        InputError: the file is absent, damaged or not an export, or its weights do not fit the model.
    """
    try:
        with safe_open(path, "pt") as opened:
            metadata = opened.metadata()
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read as safetensors: {error}") from error
    facts = Facts.read(metadata, path)
    if model is None and ":" in facts.model:
        raise InputError(f"{path} has the weights of {facts.model!r}, which is your code: pass it as model=")
    if facts.iterates > LIMIT:
        raise InputError(f"{path} has damaged metadata: at most {LIMIT} iterates are averaged, got {facts.iterates}")
    with torch.random.fork_rng(devices=[]):
        module = models.build(model or facts.model, num_classes=len(facts.class_names), in_channels=facts.in_channels)
    if facts.iterates:
        module = stacked(module, [module.state_dict()] * facts.iterates)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f"{path} does not hold the weights of {facts.model!r}: {error}") from error
    return Deployed(module.requires_grad_(False), facts)
