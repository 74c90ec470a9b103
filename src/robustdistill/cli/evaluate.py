"""`robustdistill predict` and `robustdistill evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import robustdistill as rd
from robustdistill.cli.options import (
    AsJson,
    DataOptions,
    Device,
    GroupsName,
    OwnModel,
    Quiet,
    SameData,
    Split,
    checked_device,
    grouped,
)
from robustdistill.cli.output import print_json, print_scores, quieten, say, scores_json
from robustdistill.errors import InputError


@grouped
def predict(
    *,
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")] = Path("runs/student"),
    data: SameData = None,
    loading: DataOptions,
    split: Split = None,
    model: OwnModel = None,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="Table to write: .parquet, .csv or .npz.")] = Path("predictions.parquet"),
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write a run's untempered logits on a split as a table: ids, labels and a column for each class."""
    quieten(quiet or as_json)
    device = checked_device(device)
    loaded = rd.Run.load(run, model=model)
    examples = getattr(loading.load_recorded(loaded.spec.data, data), split or "test")
    table = rd.predict(loaded, examples, device=device)
    table.write(out)
    if as_json:
        print_json({"out": str(out.resolve()), "rows": len(table), "classes": list(table.class_names)})
    else:
        say(quiet, f"{len(table)} predictions of {run} on {examples.name} are in {out}")


@grouped
def evaluate(
    *,
    target: Annotated[
        Path, typer.Argument(help="Folder of a finished run, or a table of predictions with labels.")
    ] = Path("runs/student"),
    data: SameData = None,
    loading: DataOptions,
    split: Split = None,
    groups: GroupsName = "class",
    model: OwnModel = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Print accuracy by class, or by group, worst first, with intervals."""
    device = checked_device(device)
    if target.is_file():
        _refuse_idle(data, {**loading.chosen(), "split": split}, {"model": model, "device": device})
        examples = None if data is None else getattr(loading.load(data), split or "test")
        scores, name = rd.evaluate(rd.Predictions.read(target), examples, groups=groups), target.name
    else:
        run = rd.Run.load(target, model=model)
        examples = getattr(loading.load_recorded(run.spec.data, data), split or "test")
        scores, name = rd.evaluate(run, examples, groups=groups, device=device), f"{target} on {examples.name}"
    if as_json:
        print_json(scores_json(scores))
    else:
        print_scores(scores, name, groups=groups != "class")


def _refuse_idle(data: str | None, with_data: dict[str, object], never: dict[str, object]) -> None:
    """An option that does nothing for a table would leave its user with a figure of something else."""
    idle = [name for name, value in (never if data else with_data | never).items() if value is not None]
    if idle:
        name = "no-verify" if idle[0] == "verify" else idle[0].replace("_", "-")
        reason = "a table holds predictions" if idle[0] in never else "without --data its own labels are taken"
        raise InputError(f"--{name} does nothing for a table: {reason}")
