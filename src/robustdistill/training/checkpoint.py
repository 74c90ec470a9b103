"""Everything that moves during training, in one file that is replaced atomically at the end of an epoch.

Order and augmentation of an epoch are drawn from (seed, epoch): no sampler has a state. Torch's generator is kept for
models that draw from it, such as those with dropout.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from robustdistill.errors import InputError
from robustdistill.methods import Method
from robustdistill.models.averaged import Iterates
from robustdistill.multipliers import ClassMultipliers
from robustdistill.tensorfile import write_tensors
from robustdistill.training.spec import CHECKPOINT, RunSpec, differences
from robustdistill.training.step import TrainStep

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 10.0  # Between two saves at least: what a crash can cost, besides the epoch that it interrupts.


class Keeper:
    """Saves a run's state to its folder, and puts it back.

    Args:
        folder: of the run.
        spec: of the run; a checkpoint of another one is refused.
        model, optimizer, multipliers, method, iterates: whose state it is.
        check: called before each save; what it raises ends the run.

    Attributes:
        path: of the checkpoint.
        spent: seconds of training before this process took over.
        saved_epochs: how many epochs the checkpoint holds.
    """

    def __init__(
        self,
        folder: Path | str,
        spec: RunSpec,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        multipliers: ClassMultipliers,
        method: Method,
        iterates: Iterates | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = Path(folder) / CHECKPOINT
        self._check, self._failing = check, False
        self.spec, self.model, self.optimizer = spec, model, optimizer
        self.multipliers, self.method, self.iterates = multipliers, method, iterates
        self.spent, self.saved_epochs = 0.0, 0
        self._start = self._last = time.perf_counter()

    def parting_word(self) -> str:
        """What somebody who interrupts is told."""
        if self.saved_epochs:
            return f"the first {self.saved_epochs} epochs are kept in {self.path}"
        return f"no epoch was kept yet (the first is after {CHECKPOINT_SECONDS:g} s)"

    @property
    def _device(self) -> torch.device:
        """Where training is, whose generator models may draw from."""
        return self.multipliers.priors.device

    def save(self, history: list[dict[str, Any]], steps: int) -> None:
        """Writes the state after the last epoch of `history`, unless the last save was a moment ago.

        On a disk that is full the state of before is kept, and training goes on: there may be room again later.
        """
        now = time.perf_counter()
        if now - self._last < CHECKPOINT_SECONDS:
            return
        self._check()
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{key}": value for key, value in state.items() if isinstance(value, Tensor)}
        dro = self.multipliers.state_dict()
        tensors |= {f"multipliers/{key}": value for key, value in dro.items() if isinstance(value, Tensor)}
        tensors |= {f"method/{key}": value for key, value in self.method.state().items()}
        if self.iterates is not None:
            tensors |= {f"iterates/{key}": value for key, value in self.iterates.state().items()}
        tensors["generator/cpu"] = torch.get_rng_state()
        if (device := self._device).type == "cuda":
            tensors["generator/cuda"] = torch.cuda.get_rng_state(device)
        about = {
            "spec": self.spec.model_dump(mode="json"),
            "history": history,
            "steps": steps,
            "seconds": self.spent + now - self._start,
            "objective": dro["objective"],
            "updates": dro["updates"],
        }
        # As a tensor: the history of many classes outgrows the header that safetensors has for text.
        tensors["about"] = torch.frombuffer(bytearray(json.dumps(about).encode()), dtype=torch.uint8)
        self._last = time.perf_counter()
        try:
            write_tensors(self.path, tensors)
        except OSError as error:
            if not self._failing:
                logger.warning(
                    "epoch %d could not be kept (%s): training goes on, and what an interruption costs grows until this"
                    " works again; %s",
                    len(history),
                    error,
                    self.parting_word(),
                )
            self._failing = True
            return
        self._last, self._failing = time.perf_counter(), False
        self.saved_epochs = len(history)

    def resume(self, step: TrainStep) -> list[dict[str, Any]]:
        """Puts back what `save` wrote, the step count too; returns the history so far, empty without a checkpoint.

        Raises:
            InputError: the file is damaged or belongs to another run.
        """
        if not self.path.is_file():
            return []
        about, tensors = self._read()
        try:
            history = self._put_back(about, tensors)
        except Exception as error:  # of the model, the optimiser, a method, torch's generators: nothing in common
            raise InputError(
                f"{self.path} does not hold the state of this run ({error}): delete it to start anew"
            ) from error
        step.count, self.spent = about["steps"], about["seconds"]
        self.saved_epochs = len(history)
        logger.info("going on from %s, after epoch %d", self.path, len(history))
        return history

    def _put_back(self, about: dict[str, Any], tensors: dict[str, Tensor]) -> list[dict[str, Any]]:
        history: list[dict[str, Any]] = about["history"]
        _check_about(about, len(self.multipliers.priors))
        self.model.load_state_dict(_below(tensors, "model/"))
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in _below(tensors, "optimizer/").items():
            index, _, key = name.partition("/")
            states.setdefault(int(index), {})[key] = value
        shapes = [value.shape for group in self.optimizer.param_groups for value in group["params"]]
        for number, state in states.items():
            for key, value in state.items():
                if value.shape != shapes[number]:
                    raise InputError(f"{key} of parameter {number} must be {tuple(shapes[number])}, got {value.shape}")
        self.optimizer.load_state_dict({"state": states, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.multipliers.load_state_dict({**_below(tensors, "multipliers/"), **about})
        self.method.load_state(_below(tensors, "method/"))
        if self.iterates is not None:
            self.iterates.load_state(_below(tensors, "iterates/"))
        torch.set_rng_state(tensors["generator/cpu"])
        if "generator/cuda" in tensors and (device := self._device).type == "cuda":
            torch.cuda.set_rng_state(tensors["generator/cuda"], device)
        return history

    def _read(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        try:
            with safe_open(self.path, framework="pt") as file:
                about = json.loads(bytes(file.get_tensor("about").numpy()))
                found = RunSpec(**about["spec"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        except Exception as error:
            raise InputError(
                f"{self.path} is not a checkpoint, or is damaged ({error}): delete it to start anew"
            ) from error
        if found.hash != self.spec.hash:
            raise InputError(
                f"{self.path} belongs to another run; they differ in {differences(found, self.spec)}: choose another"
                " folder or delete that file"
            )
        return about, tensors


@contextmanager
def interrupted_with(keeper: Keeper | None) -> Iterator[None]:
    """Lets a KeyboardInterrupt in the block say what was kept."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            keeper.parting_word() if keeper is not None else "nothing is kept without out="
        ) from None


def _check_about(about: dict[str, Any], size: int) -> None:
    """Refuses a history that is none, or of other multipliers, and counts that are none."""
    if [entry["epoch"] for entry in about["history"]] != list(range(1, len(about["history"]) + 1)):
        raise InputError("its history must have the epochs 1, 2, ...")
    for entry in about["history"]:
        weights = entry["multipliers"] if "group_multipliers" not in entry else entry["group_multipliers"]
        if weights is not None and (len(weights) != size or not all(isinstance(one, float) for one in weights)):
            raise InputError(f"its history must have {size} multipliers an epoch, got {weights}")
    if not all(isinstance(about[name], int) and about[name] >= 0 for name in ("steps", "updates")):
        raise InputError(f"its counts must be whole numbers, got {about['steps']} and {about['updates']}")
    about["seconds"] = float(about["seconds"])


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
