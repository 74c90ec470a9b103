"""`robustdistill predict` and `robustdistill evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import robustdistill as rd
from robustdistill.cli.options import (
    AsJson,
    Device,
    NoVerify,
    Quiet,
    Root,
    SameData,
    Split,
)
from robustdistill.cli.output import print_json, print_scores, say, scores_json
from robustdistill.errors import StaleStoreError

if TYPE_CHECKING:
    from robustdistill.data import Splits
    from robustdistill.training.spec import DataIdentity


def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")] = Path("runs/student"),
    data: SameData = None,
    root: Root = None,
    split: Split = "test",
    model: Annotated[
        str | None,
        typer.Option(help='"module:callable" of the run\'s model, where it was your own code.', show_default=False),
    ] = None,
    no_verify: NoVerify = False,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="Table to write: .parquet, .csv or .npz.")] = Path("predictions.parquet"),
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write a run's untempered logits on a split as a table: ids, labels and a column for each class."""
    loaded = rd.Run.load(run, model=model)
    examples = getattr(_data_of(loaded.spec.data, data, root, no_verify), split)
    table = rd.predict(loaded, examples, device=device)
    table.write(out)
    if as_json:
        print_json({"out": str(out.resolve()), "rows": len(table), "classes": list(table.class_names)})
    else:
        say(quiet, f"{len(table)} predictions of {run} on {examples.name} are in {out}")


def evaluate(
    target: Annotated[
        Path, typer.Argument(help="Folder of a finished run, or a table of predictions with labels.")
    ] = Path("runs/student"),
    data: SameData = None,
    root: Root = None,
    split: Split = "test",
    model: Annotated[
        str | None,
        typer.Option(help='"module:callable" of the run\'s model, where it was your own code.', show_default=False),
    ] = None,
    no_verify: NoVerify = False,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Print accuracy by class, worst class first, with intervals."""
    if target.is_file():
        examples = None if data is None else getattr(rd.data.load(data, root=root, verify=not no_verify), split)
        scores, name = rd.evaluate(rd.Predictions.read(target), examples), target.name
    else:
        run = rd.Run.load(target, model=model)
        examples = getattr(_data_of(run.spec.data, data, root, no_verify), split)
        scores, name = rd.evaluate(run, examples, device=device), f"{target} on {examples.name}"
    if as_json:
        print_json(scores_json(scores))
    else:
        print_scores(scores, name)


def _data_of(recorded: DataIdentity, name: str | None, root: Path | None, no_verify: bool) -> Splits:
    """The data that a run was trained on, or those named instead; the run's seeds in either case."""
    splits = rd.data.load(
        name or recorded.name,
        root=root,
        split_seed=recorded.split_seed or 0,
        subset_seed=recorded.subset_seed or 0,
        verify=not no_verify,
    )
    if name is None and splits.val.fingerprint != recorded.val:
        raise StaleStoreError(
            f"the validation split of {recorded.name!r} is {splits.val.fingerprint}, the run had {recorded.val}:"
            " the data have changed since; name them with --data to go on all the same"
        )
    return splits
