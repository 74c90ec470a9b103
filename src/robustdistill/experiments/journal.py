"""The journal: every finished run has a `record.json` in its folder, and the journal is a scan for these files.

There is no index that could disagree with the folders. A record appears in one step, by a rename, so a folder without
one is a run that has not finished.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import pandas as pd
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import from_json

from robustdistill.errors import InputError
from robustdistill.files import write_json
from robustdistill.metrics import Scores
from robustdistill.training.spec import RECORD, RunSpec

# JSON has no NaN, and a class without examples has no recall: null in the file, NaN in memory.
Number = Annotated[float, BeforeValidator(lambda value: float("nan") if value is None else value)]
Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    """Fields that are not named here are kept, so that a later version's record survives a round trip."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    of_groups: ClassVar[tuple[str, ...]] = ()  # Fields that only runs over groups have: left out of others' files.

    @model_serializer(mode="wrap")
    def _without_absent_groups(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = write(self)
        return {name: value for name, value in found.items() if value is not None or name not in self.of_groups}


class _Counts(_Part):
    """What a run got right, for each of so many classes or groups."""

    correct: list[Count]
    counts: list[Count]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.correct) != len(self.counts):
            raise ValueError(f"{len(self.correct)} entries in correct but {len(self.counts)} in counts")
        if any(right > count for right, count in zip(self.correct, self.counts, strict=True)):
            raise ValueError("a class or group has more correct examples than examples")
        return self

    @property
    def scores(self) -> Scores:
        """The same counts with everything that can be computed from them."""
        return Scores.from_dict({"correct": self.correct, "counts": self.counts})


class GroupMetrics(_Counts):
    """What a run over groups got right on one split, by group: (G,) of the groups that occur there."""

    names: Annotated[list[str], Field(min_length=1)]
    worst_group: Number

    @model_validator(mode="after")
    def _named(self) -> Self:
        if len(self.names) != len(self.counts):
            raise ValueError(f"{len(self.names)} entries in names but {len(self.counts)} in counts")
        return self


class SplitMetrics(_Counts):
    """What a run got right on one split: (C,) counts, and fractions in [0, 1]; `groups` where it is one over groups."""

    worst_class: Number
    balanced: Number
    standard: Number
    groups: GroupMetrics | None = None

    of_groups = ("groups",)


class Metrics(_Part):
    """Validation, and test once the run was evaluated on it."""

    val: SplitMetrics | None = None
    test: SplitMetrics | None = None


class Epoch(_Part):
    """One line of a run's history; accuracies are on validation, `multipliers` is λ (C,), `class_weights` is β (C,).

    Of a run over groups `worst_group` and `group_multipliers`, λ (G,), are known too; `multipliers` then are sums over
    the groups of each class, and None where groups do not refine classes.
    """

    epoch: Count
    loss: Number
    learning_rate: Number | None = None
    worst_class: Number
    balanced: Number
    standard: Number
    multipliers: list[Number] | None = None
    class_weights: list[Number] | None = None
    worst_group: Number | None = None
    group_multipliers: list[Number] | None = None
    seconds: Number | None = None

    of_groups = ("worst_group", "group_multipliers")


class Record(_Part):
    """One finished run. `path` is the folder that it was read from and is not part of the file."""

    schema_version: Literal[1] = Field(alias="schema")
    name: str
    hash: str
    spec: RunSpec
    metrics: Metrics
    history: list[Epoch] = Field(default_factory=list)
    selection_labels: Literal["true", "teacher"] = "true"
    class_names: list[str]
    train_counts: list[Count]
    group_names: list[str] | None = None
    group_train_counts: list[Count] | None = None
    parameters: int | None = None
    seconds: Number | None = None
    repeat: int = 0
    command: str | None = None
    environment: dict[str, Any] = Field(default_factory=dict)
    path: Path | None = Field(default=None, exclude=True)

    of_groups = ("group_names", "group_train_counts")

    @property
    def units(self) -> list[str]:
        """The names of what there is a worst one of: the classes or, of a run over groups, the groups of training."""
        return self.class_names if self.spec.groups == "class" else self.group_names or []

    @model_validator(mode="after")
    def _one_class_list(self) -> Self:
        classes = len(self.class_names)
        lengths = {"train_counts": len(self.train_counts)}
        for split, metrics in (("val", self.metrics.val), ("test", self.metrics.test)):
            if metrics is not None:
                lengths[f"metrics.{split}.counts"] = len(metrics.counts)
        for line in self.history:
            if line.multipliers is not None:
                lengths[f"history, epoch {line.epoch}, multipliers"] = len(line.multipliers)
        for where, length in lengths.items():
            if length != classes:
                raise ValueError(f"{classes} class_names but {length} entries in {where}")
        return self

    @model_validator(mode="after")
    def _one_group_list(self) -> Self:
        groups = len(self.group_names or ())
        if self.spec.groups != "class" and not groups:
            raise ValueError(f"a run over groups ({self.spec.groups}) but no group_names")
        lengths = {} if self.group_train_counts is None else {"group_train_counts": len(self.group_train_counts)}
        for line in self.history:
            if line.group_multipliers is not None:
                lengths[f"history, epoch {line.epoch}, group_multipliers"] = len(line.group_multipliers)
        for where, length in lengths.items():
            if length != groups:
                raise ValueError(f"{groups} group_names but {length} entries in {where}")
        return self


def scan(root: str | Path, *, histories: bool = True) -> list[Record]:
    """The records below `root`, in the order of their paths.

    A file that is torn, or JSON of another kind, is left out with a warning that names it. Of two records with the same
    spec hash (a copied folder) one is kept, so that a copy never counts as a repeat: the one evaluated on test if only
    one is.

    Args:
        histories: False leaves every history empty, which takes a fraction of the time and memory, since a record is
            mostly history; `history` then reads those that are wanted.

    Raises:
        InputError: `root` is not a folder.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise InputError(f"root must be a folder with finished runs, and {str(folder)!r} is not a folder")
    kept: dict[str, Record] = {}
    for path in sorted(folder.rglob(RECORD)):
        record = _read(path, histories)
        if record is None:
            continue
        earlier = kept.get(record.hash)
        if earlier is None:
            kept[record.hash] = record
            continue
        better = record if earlier.metrics.test is None and record.metrics.test is not None else earlier
        kept[record.hash] = better
        _warn(f"{path} has the same spec hash as {earlier.path} ({record.hash}); only {better.path} is used")
    return sorted(kept.values(), key=lambda record: str(record.path))


def history(record: Record) -> list[Epoch]:
    """The epochs of a record, read again from its folder where `scan` left them out.

    Raises:
        InputError: the file has gone or is damaged.
    """
    if record.history or record.path is None:
        return record.history
    path = record.path / RECORD
    try:
        content = from_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} could not be read again: {error}") from error
    return _validated(content, str(path)).history


def write_record(folder: str | Path, record: Record | Mapping[str, Any]) -> Path:
    """Checks a record and writes it to `folder`/record.json in one step: whoever looks sees the whole file or none.

    Raises:
        InputError: a field is missing or of the wrong kind; the message names the first.
    """
    checked = record if isinstance(record, Record) else _validated(record, "record")
    target = Path(folder) / RECORD
    write_json(target, json.loads(checked.model_dump_json(by_alias=True)))
    return target


def table(records: Iterable[Record]) -> pd.DataFrame:
    """One row a run, flat: what it was, and its validation and test accuracies as fractions in [0, 1]."""
    return pd.DataFrame([_row(record) for record in records], columns=_COLUMNS)


_MEASURES = ("worst_class", "balanced", "standard")
_COLUMNS = [
    *("name", "hash", "repeat", "role", "data", "split_seed", "subset_seed", "model", "objective", "method", "groups"),
    *("validation_labels", "seed", "teacher_model", "teacher_objective", "teacher_seed"),
    *("temperature", "validation_temperature", "epochs", "parameters", "seconds"),
    *(f"{split}_{measure}" for split in ("val", "test") for measure in (*_MEASURES, "worst_group")),
    "path",
]


def _row(record: Record) -> dict[str, Any]:
    spec, distilled = record.spec, record.spec.distillation
    row: dict[str, Any] = {
        **{key: getattr(record, key) for key in ("name", "hash", "repeat", "parameters", "seconds")},
        **{key: getattr(spec, key) for key in ("role", "model", "objective", "method", "groups")},
        **{key: getattr(spec, key) for key in ("validation_labels", "seed")},
        "data": spec.data.name,
        "split_seed": spec.data.split_seed,
        "subset_seed": spec.data.subset_seed,
        "epochs": spec.recipe.epochs,
        "path": str(record.path) if record.path else None,
    }
    for key in ("teacher_model", "teacher_objective", "teacher_seed", "temperature", "validation_temperature"):
        row[key] = getattr(distilled, key) if distilled else None
    for split, metrics in (("val", record.metrics.val), ("test", record.metrics.test)):
        for measure in _MEASURES:
            row[f"{split}_{measure}"] = getattr(metrics, measure) if metrics else None
        row[f"{split}_worst_group"] = metrics.groups.worst_group if metrics and metrics.groups else None
    return row


def _read(path: Path, histories: bool = True) -> Record | None:
    try:
        text = path.read_bytes()
        content = from_json(text if histories else _without_history(text))
    except (OSError, ValueError) as error:
        _warn(f"{path} could not be read and is left out (torn or not JSON?): {error}")
        return None
    if not isinstance(content, dict):
        _warn(f"{path} is not a run record and is left out: expected a JSON object, got {type(content).__name__}")
        return None
    if not histories:
        content.pop("history", None)
    try:
        return _validated({**content, "path": path.parent}, str(path))
    except InputError as error:
        _warn(f"left out, not a run record of this version: {error}")
        return None


def _without_history(text: bytes) -> bytes:
    """A record as `write_json` lays it out, less the lines of its history, unparsed; another layout comes back whole.

    A line break is never inside a JSON string, so these two can only be the history's first line and its last.
    """
    start = text.find(b'\n "history": [\n')
    end = text.find(b"\n ],\n", start)
    return text if start < 0 or end < 0 else text[:start] + text[end + len(b"\n ],") :]


def _validated(content: Mapping[str, Any], what: str) -> Record:
    try:
        return Record.model_validate(dict(content))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise InputError(f"{what}: {field + ': ' if field else ''}{first['msg']}{more}") from error


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=3)
