"""A finished training run: the model, how it came about, and the folder that keeps both."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from robustdistill import models
from robustdistill.environment import environment
from robustdistill.errors import InputError
from robustdistill.files import write_json
from robustdistill.metrics import Scores
from robustdistill.models.averaged import stacked
from robustdistill.multipliers import ClassMultipliers
from robustdistill.tensorfile import write_tensors
from robustdistill.training.spec import RECORD, SCHEMA, RunSpec, differences

WEIGHTS = "model.safetensors"


@dataclass(eq=False)
class Run:
    """What `fit` and `distill` return.

    Attributes:
        model: the last iterate or, where that was asked for, the averaged scorer; in eval mode.
        spec: everything that decided its numbers.
        history: one dict per epoch: epoch, loss, learning_rate, validation worst_class, balanced and standard,
            multipliers λ (null where the objective has none), class_weights β, seconds; where multipliers are over
            groups, also worst_group, group_recalls, group_multipliers and group_weights.
        multipliers: λ, priors and costs as training left them.
        scores: on the validation split.
        group_scores: the same by group, where multipliers are over groups.
        test: on the test split, where somebody has evaluated the run and wants that kept.
        group_test: the same by group, where multipliers are over groups.
        class_names: C names.
        train_counts: (C,) training examples of each class; expected ones, by the teacher, where they carry no labels.
        in_channels: of the pictures, 0 for features.
        seconds: of training.
        selection_labels: what `scores` are against: "true" labels, or the "teacher" where validation has none.
        extra: more to keep in the record, such as the repeat or the command.
        environment: versions, hardware and date of the training.
        folder: where it is saved, if it is.
    """

    model: nn.Module
    spec: RunSpec
    history: list[dict[str, Any]]
    multipliers: ClassMultipliers
    scores: Scores
    class_names: tuple[str, ...]
    train_counts: list[int]
    in_channels: int
    seconds: float
    selection_labels: str = "true"
    extra: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=environment)
    folder: Path | None = None
    test: Scores | None = None
    group_scores: Scores | None = None
    group_test: Scores | None = None

    @property
    def tested(self) -> bool:
        """Whether it has its scores on test: by class and, where multipliers are over groups, by group."""
        return self.test is not None and (self.spec.groups == "class" or self.group_test is not None)

    @property
    def parameters(self) -> int:
        """The number of trainable parameters."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def record(self) -> dict[str, Any]:
        """What the run's folder says of it, as plain values."""
        state = self.multipliers.state_dict()
        metrics = {"val": _metrics(self.scores, self.group_scores)}
        if self.test is not None:
            metrics["test"] = _metrics(self.test, self.group_test)
        return {
            "schema": SCHEMA,
            "name": self.folder.name if self.folder else self.spec.hash,
            "hash": self.spec.hash,
            "spec": self.spec.model_dump(mode="json"),
            "metrics": metrics,
            "history": self.history,
            "multipliers": {k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in state.items()},
            "selection_labels": self.selection_labels,
            "class_names": list(self.class_names),
            "train_counts": self.train_counts,
            "in_channels": self.in_channels,
            "parameters": self.parameters,
            "seconds": round(self.seconds, 3),
            **self.extra,
            "environment": self.environment,
        }

    def save(self, folder: Path | str) -> Path:
        """Writes model.safetensors and then record.json, each atomically: a folder with a record is a finished run."""
        self.folder = Path(folder).resolve()
        write_tensors(self.folder / WEIGHTS, self.model.state_dict())
        write_json(self.folder / RECORD, self.record())
        return self.folder

    @classmethod
    def load(cls, folder: Path | str, *, model: models.ModelLike | None = None) -> Run:
        """Reads back what `save` wrote.

        Args:
            folder: of a finished run.
            model: the architecture, needed where the run was of a user's own module or "module:callable": a record is a
                file, and no code is imported because a file says so.

        Raises:
            InputError: the folder holds no finished run, is damaged, or its weights do not fit the model.
        """
        folder = Path(folder).resolve()
        record = read_record(folder)
        try:
            spec, names = RunSpec(**record["spec"]), tuple(record["class_names"])
            if not all(isinstance(name, str) for name in names):
                raise InputError(f"class_names must be texts, got {record['class_names']}")
            if spec.groups != "class":
                _check_group_facts(record)
            state = {k: _float64(v) for k, v in record["multipliers"].items()}
            multipliers = ClassMultipliers(
                spec.objective, state["priors"], step_size=spec.recipe.step_size, decay=spec.recipe.decay
            )
            multipliers.load_state_dict(state)
            metrics = {split: Scores.from_dict(values, names) for split, values in record["metrics"].items()}
            by_group = {split: _group_scores(values) for split, values in record["metrics"].items()}
            kept = {key: record[key] for key in _KEPT}
            in_channels, scores = record["in_channels"], metrics["val"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{folder / RECORD} is damaged: {type(error).__name__} {error}") from error
        if model is None and ":" in spec.model:
            raise InputError(f"{folder} is a run of {spec.model!r}, which is your code: pass it as model=")
        with torch.random.fork_rng(devices=[]):
            module = models.build(model or spec.model, num_classes=len(names), in_channels=in_channels)
        try:
            weights = load_file(folder / WEIGHTS)
            if spec.scorer == "averaged":
                count = len({name.split(".")[1] for name in weights})
                module = stacked(module, [module.state_dict()] * count)
            module.load_state_dict(weights)
        except Exception as error:
            raise InputError(f"{folder / WEIGHTS} does not hold the weights of {spec.model!r}: {error}") from error
        return cls(
            model=module.to(memory_format=torch.channels_last).eval(),  # type: ignore[call-overload]
            spec=spec,
            multipliers=multipliers,
            scores=scores,
            class_names=names,
            in_channels=in_channels,
            **kept,
            selection_labels=record.get("selection_labels", "true"),
            extra={key: value for key, value in record.items() if key not in _FIELDS},
            folder=folder,
            test=metrics.get("test"),
            group_scores=by_group["val"],
            group_test=by_group.get("test"),
        )


def _metrics(scores: Scores, by_group: Scores | None) -> dict[str, Any]:
    """What a record has of one split; of groups their own names, since a split may lack one of them."""
    if by_group is None:
        return scores.as_dict()
    names, values = list(by_group.class_names or ()), by_group.as_dict()
    groups = {"names": names, "correct": values["correct"], "counts": values["counts"]}
    return {**scores.as_dict(), "groups": {**groups, "worst_group": values["worst_class"]}}


def _group_scores(values: dict[str, Any]) -> Scores | None:
    groups = values.get("groups")
    return None if groups is None else Scores.from_dict(groups, groups["names"])


def _check_group_facts(record: dict[str, Any]) -> None:
    """Raises InputError unless a record of a run over groups names them, each with its count of training examples."""
    names, counts = record["group_names"], record["group_train_counts"]
    if len(names) != len(counts) or not names:
        raise InputError(f"there must be a group_train_counts for each of group_names, got {counts} and {names}")
    if not all(isinstance(name, str) for name in names) or not all(type(count) is int for count in counts):
        raise InputError(f"group_names must be texts and group_train_counts whole numbers, got {names} and {counts}")


def _float64(value: Any) -> Any:
    return torch.tensor(value, dtype=torch.float64) if isinstance(value, list) else value


# What `load` takes over as it is, and every field of a record that is not a user's own.
_KEPT = ("history", "train_counts", "seconds", "environment")
_FIELDS = (
    *("schema", "hash", "spec", "metrics", "multipliers", "class_names", "in_channels", "parameters"),
    "selection_labels",
    *_KEPT,
)


def read_record(folder: Path) -> dict[str, Any]:
    """The record of the finished run in `folder`.

    Raises:
        InputError: there is none, or it is not one of ours.
    """
    path = folder / RECORD
    if not path.is_file():
        raise InputError(f"{folder} holds no finished run ({RECORD} is missing)")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["schema"] != SCHEMA or "spec" not in record:
            raise InputError(f"{path} is of schema {record['schema']}, this version reads {SCHEMA}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is not a run's record: {error}; delete it to train that run again") from error
    return dict(record)


def finished(folder: Path | str | None, spec: RunSpec) -> bool:
    """Whether `folder` already holds the finished run of `spec`.

    Raises:
        InputError: it holds another one.
    """
    if folder is None or not (Path(folder) / RECORD).is_file():
        return False
    record = read_record(Path(folder))
    try:
        found = RunSpec(**record["spec"])
    except (TypeError, ValueError) as error:
        raise InputError(f"{Path(folder) / RECORD} is damaged: {error}") from error
    if found.hash == spec.hash:
        return True
    raise InputError(
        f"{folder} already holds another run; they differ in {differences(found, spec)}: choose another folder, or"
        " delete that one"
    )
