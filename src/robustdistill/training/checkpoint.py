"""Everything that moves during training, in one file that is replaced atomically at the end of an epoch.

Order and augmentation of an epoch are drawn from (seed, epoch), so no sampler has a state; torch's generator is kept
for models that draw from it, such as those with dropout.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from robustdistill.errors import InputError
from robustdistill.files import replacing
from robustdistill.multipliers import ClassMultipliers

CHECKPOINT = "checkpoint.safetensors"


def save(
    path: Path,
    *,
    spec_hash: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    multipliers: ClassMultipliers,
    history: list[dict[str, Any]],
    steps: int,
    seconds: float,
) -> None:
    """Writes the state after the last epoch of `history` to `path`."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": value for key, value in state.items() if isinstance(value, Tensor)}
    dro = multipliers.state_dict()
    tensors |= {f"multipliers/{key}": value for key, value in dro.items() if isinstance(value, Tensor)}
    tensors["generator/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["generator/cuda"] = torch.cuda.get_rng_state()
    about = {
        "spec": spec_hash,
        "history": history,
        "steps": steps,
        "seconds": seconds,
        "objective": dro["objective"],
        "updates": dro["updates"],
    }
    plain = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    with replacing(path) as temporary:
        save_file(plain, temporary, metadata={"robustdistill": json.dumps(about)})


def resume(
    path: Path, *, spec_hash: str, model: nn.Module, optimizer: torch.optim.Optimizer, multipliers: ClassMultipliers
) -> tuple[list[dict[str, Any]], int, float]:
    """Puts back what `save` wrote; returns the history, the optimiser steps done and the seconds spent.

    Raises:
        InputError: the file is damaged or belongs to another run.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["robustdistill"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    except Exception as error:
        raise InputError(f"{path} is not a checkpoint, or is damaged ({error}): delete it to start anew") from error
    if about["spec"] != spec_hash:
        raise InputError(f"{path} belongs to another run ({about['spec']}, not {spec_hash}): choose another folder")
    model.load_state_dict(_below(tensors, "model/"))
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in _below(tensors, "optimizer/").items():
        index, _, key = name.partition("/")
        states.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    multipliers.load_state_dict({**_below(tensors, "multipliers/"), **about})
    torch.set_rng_state(tensors["generator/cpu"])
    if "generator/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["generator/cuda"])
    return about["history"], about["steps"], about["seconds"]


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
