"""Epochs of a run, sent to experiment trackers through accelerate: TensorBoard, MLflow, Weights & Biases, trackio, ...

Nothing is sent anywhere unless a tracker is named: `rd.fit(..., trackers="tensorboard")`, or for a run that is finished
`track(run, "tensorboard")`.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustdistill.errors import InputError, unknown
from robustdistill.training.spec import flat

if TYPE_CHECKING:
    from robustdistill.training.run import Run
    from robustdistill.training.spec import RunSpec

__all__ = ["Trackers", "scalars", "track"]

logger = logging.getLogger(__name__)

# Of an epoch's record: one number each, and lists of one number a class. Validation is said to be so.
_SINGLE = {"loss": "loss", "learning_rate": "learning_rate", "seconds": "seconds"} | {
    name: f"val/{name}" for name in ("worst_class", "worst_group", "balanced", "standard")
}
_BY_CLASS = {"recalls": "val_recall", "multipliers": "multiplier", "class_weights": "class_weight"}


@dataclass(frozen=True)
class Trackers:
    """Where the epochs of a run go.

    Attributes:
        names: trackers that accelerate knows, such as "tensorboard", "mlflow", "wandb" and "trackio", or
            `accelerate.tracking.GeneralTracker` objects of your own, which are used as they are.
        project: what the tracker calls project or experiment.
        folder: where those write that need a folder, such as TensorBoard.
        settings: more arguments of a tracker's class in accelerate, such as {"wandb": {"name": "seed 1"}}.
        per_class: whether to send recall, multiplier and weight of each class too, three numbers a class.

    Raises:
        InputError: a tracker is unknown, its package is not installed, or `settings` are of one that is not named.
    """

    names: Sequence[Any]
    project: str = "robustdistill"
    folder: Path | str = "tracking"
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    per_class: bool = True

    def __post_init__(self) -> None:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers

        names = [self.names] if isinstance(self.names, str | GeneralTracker) else list(self.names)
        object.__setattr__(self, "names", tuple(names))
        ready = {str(name) for name in get_available_trackers()}
        for name in names:
            if isinstance(name, GeneralTracker):
                continue
            if name not in LOGGER_TYPE_TO_CLASS:
                raise unknown("tracker", str(name), LOGGER_TYPE_TO_CLASS)
            if name not in ready:
                raise InputError(f"tracker {name!r} needs its package, which is not installed: pip install {name}")
        for name in self.settings:
            if name not in names:
                raise unknown("tracker in settings", name, [str(named) for named in names])

    @classmethod
    def of(cls, trackers: Trackers | str | Sequence[str] | None) -> Trackers:
        """From what `fit` takes: names stand for `Trackers(names)`, None for no tracker."""
        return trackers if isinstance(trackers, Trackers) else cls(trackers or ())

    def start(self, run: str, config: Mapping[str, Any]) -> list[Any]:
        """The trackers, started for the run of that name, whose settings are `config`."""
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        trackers = []
        for name in self.names:
            tracker = name
            if isinstance(name, str):
                kind, more = LOGGER_TYPE_TO_CLASS[name], dict(self.settings.get(name, {}))
                # A service tells runs of a project apart by itself; in a folder each needs one of its own.
                places = [f"{self.project}/{run}", str(self.folder)] if kind.requires_logging_directory else []
                tracker = kind(*(places or [self.project]), **more)
            # Not through an Accelerator: its `end_training` takes the processes apart.
            tracker.start()
            tracker.store_init_configuration(dict(config))
            trackers.append(tracker)
        return trackers


@contextmanager
def tracked(
    trackers: Trackers, spec: RunSpec, class_names: Sequence[str], *, main: bool = True
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that sends an epoch's record for the length of the block; it does nothing without trackers.

    A tracker that fails while training goes on is left out from there on, with a warning: `track` can send the run
    later. One that cannot be started is an error.

    Args:
        trackers: where to.
        spec: of the run; its fields are the run's settings there.
        class_names: C names.
        main: whether this process speaks.
    """
    live = trackers.start(spec.hash, _plain({"hash": spec.hash, **spec.model_dump(mode="json")})) if main else []

    def attempt(tracker: Any, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # Whatever a service or a disk does, training is worth more.
            live.remove(tracker)
            logger.warning("tracker %s failed and gets no more of run %s: %s", tracker.name, spec.hash, error)

    def send(record: Mapping[str, Any]) -> None:
        values = scalars(record, class_names, per_class=trackers.per_class) if live else {}
        for tracker in list(live):
            attempt(tracker, lambda to=tracker: to.log(values, step=record["epoch"]))  # type: ignore[misc]

    try:
        yield send
    finally:
        for tracker in list(live):
            attempt(tracker, tracker.finish)


def track(run: Run, trackers: Trackers | str | Sequence[str]) -> None:
    """Sends the history of a run, finished or loaded, as `fit(trackers=...)` would have.

    >>> from robustdistill.integrations.tracking import track
    >>> track(run, "tensorboard")  # doctest: +SKIP

    Raises:
        InputError: as in `Trackers`.
    """
    from robustdistill.training.processes import launched

    with tracked(Trackers.of(trackers), run.spec, run.class_names, main=launched().main) as send:
        for record in run.history:
            send(record)


def scalars(record: Mapping[str, Any], class_names: Sequence[str], *, per_class: bool = True) -> dict[str, float]:
    """An epoch's record as named numbers; what is unknown is left out.

    >>> scalars({"epoch": 1, "loss": 0.5, "worst_class": 0.1, "recalls": [0.1, None]}, ["cat", "dog"])
    {'loss': 0.5, 'val/worst_class': 0.1, 'val_recall/0-cat': 0.1}
    """
    values = {tag: record.get(name) for name, tag in _SINGLE.items()}
    width = len(str(len(class_names) - 1))
    for name, tag in _BY_CLASS.items() if per_class else ():
        for index, (label, value) in enumerate(zip(class_names, record.get(name) or (), strict=False)):
            plain = re.sub(r"[^\w. -]", "_", label)  # Trackers differ in what a name may hold.
            values[f"{tag}/{index:0{width}d}-{plain}"] = value
    return {tag: float(value) for tag, value in values.items() if value is not None and math.isfinite(value)}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings as "recipe.epochs"; lists as text, nulls left out: trackers take plain values only."""
    known = {name: value for name, value in flat(values).items() if value is not None}
    return {name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in known.items()}
