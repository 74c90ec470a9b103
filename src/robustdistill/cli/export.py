"""`robustdistill export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table

import robustdistill as rd
from robustdistill.cli.options import (
    AsJson,
    DataOptions,
    OwnModel,
    Quiet,
    SameData,
    Split,
    TeacherModel,
    grouped,
)
from robustdistill.cli.output import out_console, print_json, quieten, say, scores_json, warn
from robustdistill.errors import InputError

if TYPE_CHECKING:
    from robustdistill.exporting.whole import Exported
    from robustdistill.training.run import Run


@grouped
def export(
    *,
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")] = Path("runs/student"),
    onnx: Annotated[
        Path | None, typer.Option(help="ONNX file to write, checked in onnxruntime.", show_default=False)
    ] = None,
    safetensors: Annotated[
        Path | None, typer.Option(help="safetensors file to write, for torch.", show_default=False)
    ] = None,
    card: Annotated[
        Path | None, typer.Option(help="Model card to write, a README.md for the Hugging Face hub.", show_default=False)
    ] = None,
    shift: Annotated[
        Path | None, typer.Option(help="File of `shift fit`, to build into the model.", show_default=False)
    ] = None,
    robustness: Annotated[
        float | None, typer.Option(help="Another point of the shift's curve.", show_default="the one fitted for")
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the teacher's run, for the card's comparison.", show_default="looked for beside RUN"
        ),
    ] = None,
    model: OwnModel = None,
    teacher_model: TeacherModel = None,
    data: SameData = None,
    loading: DataOptions,
    split: Split = None,
    name: Annotated[str | None, typer.Option(help="Of the model, in the card.", show_default="model and data")] = None,
    license: Annotated[
        str | None, typer.Option(help="For the card, such as apache-2.0.", show_default="left to you")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the latencies.")] = 1,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write a run as ONNX, safetensors and a model card: what it takes to ship it.

    Normalisation and class names are inside the files. They are checked, and the card's figures measured, on --split.
    """
    quieten(quiet or as_json)
    if shift is None and robustness is not None:
        raise InputError("--robustness is a point of --shift's curve, and no --shift is given")
    from robustdistill.exporting import whole

    named = {"onnx": onnx, "safetensors": safetensors, "card": card}
    whole.check_paths({kind: path for kind, path in named.items() if path is not None})
    loaded = rd.Run.load(run, model=model)
    fitted = None if shift is None else rd.PostShift.load(shift, robustness)
    its_teacher = _teacher(loaded, teacher, teacher_model, wanted=card is not None, silent=quiet or as_json)
    splits = loading.load_recorded(loaded.spec.data, data)
    same_data = splits.train.fingerprint == loaded.spec.data.train
    if not same_data:
        warn(f"{splits.train.name} is not what the run was trained on: normalisation is taken from it all the same")
    done = whole.export(
        loaded,
        getattr(splits, split or "test"),
        onnx=onnx,
        safetensors=safetensors,
        card=card,
        split=split or "test",
        shift=fitted,
        teacher=its_teacher,
        same_data=same_data,
        name=name,
        license=license,
        threads=threads,
    )
    for remark in done.remarks:
        warn(remark)
    if done.optimistic:
        warn(f"{shift} was fitted on these very examples: the card's figures are better than others will be")
    if as_json:
        print_json(_as_json(done))
    else:
        _print(done, quiet)


def _teacher(run: Run, folder: Path | None, model: str | None, *, wanted: bool, silent: bool) -> Run | None:
    """The teacher's run: given, or found; None where it is not to be had."""
    from robustdistill.exporting import whole

    if folder is not None and not wanted:
        raise InputError("--teacher is for the card's comparison, and no --card is asked for")
    where = folder or (whole.find_teacher(run) if wanted else None)
    if where is None:
        if not wanted or run.spec.distillation is None:
            return None
        say(silent, "No run beside this one is its teacher: the card compares with none. --teacher FOLDER names it.")
        return None
    try:
        found = rd.Run.load(where, model=model)
    except InputError as error:
        told = str(error).replace("model=", "teacher_model=")  # here `model` is the student's
        if folder is not None:
            raise InputError(told) from error
        warn(f"The teacher is not compared with: {told.replace('teacher_model=', '--teacher-model')}")
        return None
    whole.check_teacher(run, found)
    return found


def _print(done: Exported, quiet: bool) -> None:
    from robustdistill.exporting.card import size_text

    facts = done.facts
    for kind, path in done.files.items():
        if kind == "onnx" and done.agreement is not None:
            found = done.agreement
            shape = ", ".join(map(str, ("N", *facts.input_shape)))
            dtype = "uint8" if facts.pictures else "float32"
            say(quiet, f"{path}: {size_text(found.size)}, input {facts.input_name!r} {dtype} ({shape})")
            say(
                quiet,
                f"  agrees with torch on {found.examples} examples: logits to {found.logits:.1g}, "
                f"probabilities to {found.probabilities:.1g}, {found.changed} other predictions",
            )
        elif kind == "safetensors":
            say(quiet, f"{path}: {size_text(path.stat().st_size)}, read by robustdistill.exporting.load")
    if facts.log_coefficients:
        added = "added to the logits: the model's last layer is no linear one with a bias"
        say(quiet, f"The post-shift is {'in the last bias' if facts.folded else added}.")
    if done.scores is not None:
        before = "" if done.unshifted is None else f" (without post-shift {100 * done.unshifted.worst_class:.1f} %)"
        worst, balanced = 100 * done.scores.worst_class, 100 * done.scores.balanced
        if done.group_scores is not None:
            say(False, f"worst group {100 * done.group_scores.worst_class:.1f} %")
        say(False, f"worst class {worst:.1f} %{before}, balanced {balanced:.1f} %")
    if done.costs:
        _print_costs(done)
        say(quiet, f"{done.files['card']}: complete what it marks, the license and who it is for, then publish it")


def _print_costs(done: Exported) -> None:
    from robustdistill.exporting.card import milliseconds, size_text

    title = "milliseconds: median ± half the width of the middle half"
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False)
    for heading in ("model", "run by", "size", "1 example", f"batch of {done.costs[0].batch.batch}"):
        table.add_column(heading, justify="left" if heading in ("model", "run by") else "right", no_wrap=True)
    for cost in done.costs:
        times = (f"{milliseconds(t.median)} ± {50 * (t.high - t.low) / t.median:.0f} %" for t in cost.timings)
        table.add_row(cost.name, cost.engine.partition(" ")[0], size_text(cost.size), *times)
    out_console.print(table)


def _as_json(done: Exported) -> dict[str, object]:
    def timing(cost: object, kind: str) -> dict[str, object]:
        return dict(vars(getattr(cost, kind)))

    return {
        "files": {kind: str(path.resolve()) for kind, path in done.files.items()},
        "facts": done.facts.model_dump(mode="json"),
        "agreement": None if done.agreement is None else vars(done.agreement),
        "scores": None if done.scores is None else scores_json(done.scores),
        "group_scores": None if done.group_scores is None else scores_json(done.group_scores),
        "costs": [
            {**vars(cost), "single": timing(cost, "single"), "batch": timing(cost, "batch")} for cost in done.costs
        ],
    }
