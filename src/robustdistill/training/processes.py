"""The processes that train one model together, as `accelerate launch`, `torchrun` or `mpirun` start them.

Every process runs the same script. What one refuses all refuse, in the same words, and an error on one ends the run on
all: nobody waits for a process that is gone.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import distributed, nn

from robustdistill.errors import DivergedError, InputError
from robustdistill.training.device import choose_device
from robustdistill.training.spec import RunSpec, differences

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FAILED = "robustdistill/failed"


@dataclass(frozen=True)
class Processes:
    """How many processes train together, and which one this is.

    Attributes:
        count: of them, 1 for an ordinary run.
        index: of this one; 0 is the main one, which alone writes and speaks.
        device: where this one computes.
    """

    count: int
    index: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this process writes and speaks."""
        return self.index == 0

    def choose_device(self, wanted: str | torch.device | None) -> torch.device:
        """The device to train on: the one asked for or, of several processes, each its own.

        Raises:
            InputError: another one is asked for, or as in `choose_device`.
        """
        if self.count > 1 and wanted is not None:
            asked, own = choose_device(wanted, self.device), self.device
            if asked.type != own.type or asked.index not in (None, own.index):
                raise InputError(
                    f"device must be left out where {self.count} processes train, each on its own; got '{asked}', and"
                    f" process {self.index} has '{own}' (for the CPU set ACCELERATE_USE_CPU=1)"
                )
        return choose_device(wanted if self.count == 1 else None, self.device)

    def gather(self, value: T) -> list[T]:
        """What each process has of `value`, which can be pickled, in their order."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        """Raises on all processes what the block raises on one; nothing in it may wait for the others."""
        if self.count == 1:
            yield
            return
        own: Exception | None = None
        try:
            yield
        except Exception as error:
            own = error
        said = self.gather(None if own is None else str(own) or type(own).__name__)
        if own is not None:
            raise own
        for index, words in enumerate(said):
            if words is not None:
                raise InputError(words if self.index == index else f"process {index}: {words}")

    @contextmanager
    def standing_together(self) -> Iterator[None]:
        """Ends the block on all processes where one fails in it, at whatever point: the others would wait for ever.

        After that the processes cannot train together again, and have to be started anew. A DivergedError leaves them
        together, for it is raised on sums over all of them, hence by all.

        Raises:
            RuntimeError: another process has failed.
        """
        try:
            yield
        except DivergedError:
            raise
        except Exception as error:
            if self.count == 1 or not distributed.is_initialized():
                raise
            store = distributed.distributed_c10d._get_default_store()
            others = [index for index in range(self.count) if store.check([f"{_FAILED}/{index}"])]
            if not others:
                store.set(f"{_FAILED}/{self.index}", f"{type(error).__name__}: {error}")
            distributed.destroy_process_group()  # closes connections, which wakes those who wait
            if not others:
                raise
            said = store.get(f"{_FAILED}/{others[0]}").decode()
            raise RuntimeError(f"process {others[0]} of {self.count} failed: {said}") from error

    @contextmanager
    def one_voice(self) -> Iterator[None]:
        """Silences what the library has to say on all processes but the main one, which says the same."""
        package = logging.getLogger("robustdistill")
        before = package.level
        if not self.main:
            package.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            package.setLevel(before)

    def share(self, model: nn.Module) -> None:
        """Gives every process the main one's weights and buffers."""
        if self.count == 1:
            return
        for value in model.state_dict().values():
            plain = value.detach().clone(memory_format=torch.contiguous_format)
            distributed.broadcast(plain, src=0)
            value.copy_(plain)

    def check_same(self, spec: RunSpec, **facts: Any) -> None:
        """Refuses processes that were given different runs, or that read different things from a run's folder."""
        told = self.gather((spec, facts))
        for index, (other, found) in enumerate(told):
            if other.hash != told[0][0].hash:
                raise InputError(
                    f"all processes must train one run; 0 and {index} differ in {differences(told[0][0], other)}"
                )
            if found != told[0][1]:
                raise InputError(
                    f"out must be a folder that all processes share; process 0 finds {told[0][1]}, {index} {found}"
                )

    def check_alike(self, model: nn.Module) -> None:
        """Refuses weights or buffers that are not the same bits on all processes.

        Raises:
            InputError: naming one, on all processes.
        """
        if self.count == 1:
            return
        state = model.state_dict()
        sums = [zlib.crc32(v.detach().cpu().reshape(-1).view(torch.uint8).numpy()) for v in state.values()]
        for name, *values in zip(state, *self.gather(sums), strict=True):
            if len(set(values)) > 1:
                raise InputError(
                    f"the model's {name!r} differs between processes: it moves with the examples that each has seen."
                    " Batch norm and parameters are kept alike; train a model with such a buffer in one process"
                )


def launched() -> Processes:
    """The processes that were started for this script: one, unless something started several.

    Raises:
        InputError: they cannot work together: after an error, or because of an accelerator that is not known here.
    """
    # Imported here, since it takes a while. Not an Accelerator: that would bring its own precision and accumulation.
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    found = torch.accelerator.current_accelerator()
    # Without an accelerator this has to be said, or each process of several takes itself for the only one.
    on_cpu = found is None or found.type == "mps" or parse_flag_from_env("ACCELERATE_USE_CPU")
    state = PartialState(cpu=on_cpu)
    connected = distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
    if state.num_processes != connected:
        raise InputError(
            f"the processes must be connected, and accelerate knows {state.num_processes} of them, torch {connected}:"
            " after an error in one of them start them again; to train on the CPU set ACCELERATE_USE_CPU=1"
        )
    if connected == 1:
        _warn_of_one()
    # Several on a CPU are told "cpu:0", which is the same device by another name.
    device = torch.device("cpu") if state.device.type == "cpu" else state.device
    return Processes(state.num_processes, state.process_index, device)


def _warn_of_one() -> None:
    """Says so where several processes were asked for in a way that starts one."""
    asked = "ACCELERATE_USE_CPU" in os.environ and "MASTER_PORT" in os.environ
    if asked and not {"RANK", "WORLD_SIZE"} & os.environ.keys():
        logger.warning(
            "`accelerate launch --cpu` has started one process, whatever --num_processes says; for N of them:"
            " ACCELERATE_USE_CPU=1 accelerate launch --multi_gpu --num_processes N ..., or torchrun --nproc-per-node N"
        )
