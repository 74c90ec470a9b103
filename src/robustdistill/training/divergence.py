"""Losses and weights that are not finite: noticed without a wait for the device, traced to their step and examples.

A step leaves its losses where they are, on the device. They are looked at where the host waits anyway: at each update
of the multipliers, and at the end of an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from robustdistill.data.batches import Batch
from robustdistill.data.stream import Loaded
from robustdistill.errors import DivergedError
from robustdistill.methods.parts import over_processes
from robustdistill.training.processes import Processes
from robustdistill.training.recipe import Recipe
from robustdistill.training.targets import Targets

_SHOWN = 8  # ids in a message; the error carries all of them


@dataclass(frozen=True)
class _Seen:
    """What a step leaves behind: its number, the examples on the host, and what is still on the device."""

    step: int
    positions: Tensor
    views: Tensor
    losses: Tensor
    total: Tensor


@dataclass(frozen=True)
class _Traced:
    """Ids of a step's examples: all, those whose loss is not finite, and those that came in broken."""

    ids: list[int]
    bad: list[int]
    bad_inputs: list[int]
    bad_targets: list[int]


class DivergenceWatch:
    """Ends a training whose loss, weights or validation logits are not finite, with a DivergedError that says where.

    Args:
        model: what is trained; what in it is not finite now (a mask, say) may stay so.
        data: the training examples.
        targets: what they are trained towards.
        recipe: whose settings the message advises to change.
        processes: all of them see what one sees.
        saved: the checkpoint, where one is kept.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Loaded,
        targets: Targets,
        recipe: Recipe,
        processes: Processes,
        saved: Path | None = None,
    ) -> None:
        self.model, self.data, self.targets = model, data, targets
        self.recipe, self.processes, self.saved = recipe, processes, saved
        self.epoch = 0
        self._seen: list[_Seen] = []
        self._last: _Seen | None = None  # the last step before those
        self._odd = set(_not_finite(model))  # waits for the other processes

    def saw(self, step: int, batch: Batch, losses: Tensor, total: Tensor) -> None:
        """Remembers step `step`, counted from 1: its losses (B,) and their sum. Asks nothing of the device."""
        positions, views = (batch.positions, batch.views) if batch.keys is None else batch.keys
        self._seen.append(_Seen(step, positions, views, losses, total))

    def look(self) -> None:
        """Looks at the steps since the last look; this waits for the device.

        Raises:
            DivergedError: a loss is not finite. On all processes alike.
        """
        if not self._seen:
            return
        # Sums over the examples: where all losses are finite and their sum is not, the step has overflowed too.
        broken = over_processes((~torch.stack([seen.total for seen in self._seen]).isfinite()).double())
        bad = torch.nonzero(broken).flatten().tolist()
        if bad:
            before = self._seen[bad[0] - 1] if bad[0] else self._last
            raise self._error_of(self._seen[bad[0]], before)
        self._last = self._seen[-1]
        self._seen = []

    def check_epoch(self, loss: float) -> None:
        """At the end of an epoch: looks at its steps, at their mean `loss`, and at the weights and buffers they left.

        Raises:
            DivergedError: one of them is not finite.
        """
        self.look()
        if not math.isfinite(loss):
            raise self.error(f"the mean loss of epoch {self.epoch + 1} is {loss}, though each step's is finite")
        for name in _not_finite(self.model):
            if name not in self._odd:
                raise self._after_last(f"the model's {name!r} is not finite")

    @contextmanager
    def locating(self) -> Iterator[None]:
        """Lets a DivergedError of the block, which looks at validation after the steps so far, say where that was."""
        try:
            yield
        except DivergedError as error:
            self.look()
            raise self._after_last("validation logits or risks are not finite") from error

    def error(self, what: str, *, step: int | None = None, ids: Sequence[int] = ()) -> DivergedError:
        """The error that says `what` happened, what to lower, and what is kept."""
        saved = self.saved is not None and self.saved.is_file()
        kept = f"; the last good state is kept in {self.saved}" if saved else ""
        return DivergedError(
            f"training diverged: {what}; lower learning_rate (now {self.recipe.learning_rate:g}), or lengthen"
            f" warmup_epochs (now {self.recipe.warmup_epochs}){kept}",
            epoch=self.epoch + 1,
            step=step,
            ids=ids,
        )

    def _after_last(self, what: str) -> DivergedError:
        last = self._seen[-1] if self._seen else self._last
        if last is None:
            return self.error(what)
        traced = self._trace(last)
        return self.error(
            f"{what} after step {last.step} (epoch {self.epoch + 1}), whose loss was finite and whose examples were"
            f" {_listed(traced.ids)}",
            step=last.step,
            ids=traced.ids,
        )

    def _error_of(self, seen: _Seen, before: _Seen | None) -> DivergedError:
        traced = self._trace(seen)
        where = f"the loss of step {seen.step} (epoch {self.epoch + 1})"
        if not traced.bad:
            what = f"{where} is not finite, though that of each example is: their sum overflows; {_listed(traced.ids)}"
        else:
            what = (
                f"{where} is not finite for {len(traced.bad)} of its {len(traced.ids)} examples: {_listed(traced.bad)}"
            )
        for kind, ids in (("inputs", traced.bad_inputs), ("targets", traced.bad_targets)):
            if ids:
                what += f"; the {kind} of {_listed(ids)} are not finite"
        if len(traced.bad) == len(traced.ids) and not (traced.bad_inputs or traced.bad_targets) and before is not None:
            what += (
                "; where every example is concerned the weights broke in the step before,"
                f" whose examples were {_listed(self._trace(before).ids)}"
            )
        return self.error(what, step=seen.step, ids=traced.bad or traced.ids)

    def _trace(self, seen: _Seen) -> _Traced:
        """The examples of a step, over all processes, made once more to see what came in broken."""
        device = self.data.device
        ids = torch.from_numpy(self.data.examples.ids)[seen.positions.cpu()]
        own = _Traced([], [], [], [])
        if len(ids):
            batch = self.targets(self.data.batch(seen.positions.to(device), seen.views.to(device)))
            assert batch.targets is not None
            broken = [_broken_rows(values, len(ids)) for values in (seen.losses, batch.inputs, batch.targets)]
            own = _Traced(ids.tolist(), *(ids[rows.cpu()].tolist() for rows in broken))
        parts = self.processes.gather(own)
        together = [[one for part in parts for one in getattr(part, name)] for name in _Traced.__dataclass_fields__]
        return _Traced(*(sorted(set(ids)) for ids in together))


def _broken_rows(values: Tensor, count: int) -> Tensor:
    """(count,) which rows hold what is not finite; labels and token ids never do."""
    if not values.is_floating_point():
        return torch.zeros(count, dtype=torch.bool)
    return ~values.reshape(count, -1).isfinite().all(dim=1)


def _not_finite(model: nn.Module) -> list[str]:
    """Names of parameters and buffers that hold what is not finite, on any process."""
    state = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    if not state:
        return []
    broken = over_processes(torch.stack([~value.isfinite().all() for value in state.values()]).double())
    return [name for name, found in zip(state, broken.tolist(), strict=True) if found]


def _listed(ids: Sequence[int]) -> str:
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return f"{'id' if len(ids) == 1 else 'ids'} {', '.join(map(str, ids[:_SHOWN]))}{more}"
