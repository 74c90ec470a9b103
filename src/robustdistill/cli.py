"""The command: parses, calls, prints. What it does, the library does.

Nothing here imports torch before a command needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

import robustdistill as rd
from robustdistill.errors import DivergedError, InputError, StaleStoreError

if TYPE_CHECKING:
    from robustdistill.data import Splits
    from robustdistill.metrics import Scores
    from robustdistill.training.recipe import Recipe
    from robustdistill.training.run import Run
    from robustdistill.training.spec import DataIdentity

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train classifiers, above all small distilled ones, whose **worst class** is good. Start with `demo`.",
)
out_console, err_console = Console(), Console(stderr=True)

# Options that several commands share, declared once.
DataName = Annotated[
    str,
    typer.Option(
        "--data", help="digits, digits-lt, cifar10[-lt], cifar100[-lt], npz:FILE, folder:DIR, parquet:PATH or hub:NAME."
    ),
]
SameData = Annotated[
    str | None,
    typer.Option("--data", help="As for `train`; by default the data that the run was trained on.", show_default=False),
]
Root = Annotated[
    Path | None,
    typer.Option(
        help="Folder with the data files; else $ROBUSTDISTILL_DATA, else your cache folder.", show_default=False
    ),
]
SplitSeed = Annotated[int, typer.Option(help="Seed that splits the held-out part into validation and test.")]
SubsetSeed = Annotated[int, typer.Option(help="Seed that draws the long-tailed subset.")]
NoVerify = Annotated[
    bool, typer.Option("--no-verify", help="Read data files whose checksum differs from the published one.")
]
ObjectiveName = Annotated[
    str, typer.Option(help="standard, balanced, robust, tradeoff:A or standard-tradeoff:A, with A from 0 to 1.")
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe", help="Optimisation settings by name; by default those of the data set.", show_default=False
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(min=1, help="Passes over the training set; warm-up and drops stretch with it.", show_default="recipe"),
]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Examples in a step.", show_default="recipe")]
LearningRate = Annotated[float | None, typer.Option(help="Base learning rate.", show_default="recipe")]
ScheduleName = Annotated[
    Literal["steps", "cosine"] | None, typer.Option(help="How the rate falls.", show_default="recipe")
]
Every = Annotated[
    int | None, typer.Option(min=1, help="Steps between two updates of the multipliers.", show_default="recipe")
]
StepSize = Annotated[float | None, typer.Option(help="Step size of the multipliers.", show_default="recipe")]
Decay = Annotated[
    float | None,
    typer.Option(help="Pull of the multipliers towards uniform; 0 is the paper's update.", show_default="recipe"),
]
ValidationSample = Annotated[
    int | None, typer.Option(min=1, help="Validation examples drawn for each update.", show_default="recipe")
]
Precision = Annotated[
    Literal["float32", "bfloat16"] | None, typer.Option(help="Arithmetic of the training step.", show_default="recipe")
]
Seed = Annotated[int, typer.Option(help="Seed of initialisation, order and augmentation.")]
MethodName = Annotated[str, typer.Option(help="Training method: margin (the paper's) or weighted.")]
Risk = Annotated[Literal["zero-one", "cross-entropy"], typer.Option(help="Loss that moves the multipliers.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...", show_default="found")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="all cores")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")]
Split = Annotated[Literal["train", "val", "test"], typer.Option(help="Which part of the data.")]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        print(f"robustdistill {rd.__version__}")
        raise typer.Exit


@app.command(epilog="Example: `robustdistill demo --repeats 1`")
def demo(
    context: typer.Context,
    data: DataName = "digits-lt",
    root: Root = None,
    teacher: Annotated[str, typer.Option(help="Teacher model.")] = "convnet-16",
    student: Annotated[str, typer.Option(help="Student model.")] = "convnet-8",
    objectives: Annotated[
        str, typer.Option(help="Objectives of teachers and students, comma separated.")
    ] = "standard,balanced,robust",
    temperatures: Annotated[
        str, typer.Option(help="Temperatures of the teacher's labels; the best on validation is shown.")
    ] = "1,3",
    repeats: Annotated[
        int, typer.Option(min=1, help="Repetitions with other training seeds, each with teachers of its own.")
    ] = 3,
    recipe: RecipeName = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    schedule: ScheduleName = None,
    every: Every = None,
    step_size: StepSize = None,
    decay: Decay = None,
    validation_sample: ValidationSample = None,
    precision: Precision = None,
    split_seed: SplitSeed = 0,
    subset_seed: SubsetSeed = 0,
    no_verify: NoVerify = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs side by side, of one thread each.", show_default="cores")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the runs and the page.")] = Path("runs/demo"),
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compare plain, balanced and robust distillation: every teacher with every student, a table and a page.

    With its defaults it trains on long-tailed digits, needs no download and takes about a minute.
    """
    from robustdistill.experiments import execute
    from robustdistill.experiments.grid import Comparison, DataSource
    from robustdistill.experiments.journal import scan
    from robustdistill.report import findings, page, tables

    names = [name.strip() for name in objectives.split(",")]
    comparison = Comparison(
        data=DataSource(data, root, split_seed, subset_seed, verify=not no_verify),
        teacher=teacher,
        student=student,
        recipe=_recipe(
            recipe,
            data,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            schedule=schedule,
            every=every,
            step_size=step_size,
            decay=decay,
            validation_sample=validation_sample,
            precision=precision,
        ),
        teacher_objectives=names,
        student_objectives=names,
        temperatures=_numbers("temperatures", temperatures),
        repeats=repeats,
    )
    jobs = comparison.jobs()
    workers = min(workers or execute.default_workers(), len(jobs))
    splits = execute.load_data(comparison.data)
    _say(quiet or as_json, _opening(splits, comparison.teacher, comparison.student, len(jobs), workers))
    with _interruptible(f"finished runs are kept in {out}/runs"), _run_progress(len(jobs), quiet or as_json) as advance:
        outcomes = execute.run_all(jobs, out / "runs", workers=workers, command=_command(context), on_done=advance)
    failed = [outcome for outcome in outcomes if outcome.error]
    for outcome in failed:
        err_console.print(f"[red]failed[/red] {outcome.job.name}: {outcome.error}", highlight=False)
    if len(failed) == len(outcomes):
        raise typer.Exit(1)
    index = page.write(out / "runs", out)
    built = tables.build_all(scan(out / "runs"))
    if as_json:
        page_path = str(index.resolve())
        _print_json({"page": page_path, "runs": len(jobs), "failed": len(failed), "cells": tables.cells(built)})
    else:
        for panel, table in built:
            out_console.print(tables.terminal(table))
            _say(quiet, f"\n{_escaped(findings.finding(panel).headline)}\n")
        last_teacher = [job.name for job in jobs if job.teacher is None][-1]
        _say(quiet, _closing(index, out / "runs" / last_teacher))
    if failed:
        raise typer.Exit(1)


@app.command(epilog="Example: `robustdistill train --objective robust --out runs/teacher`")
def train(
    data: DataName = "digits-lt",
    root: Root = None,
    model: Annotated[str, typer.Option(help='resnet8 ... resnet110, convnet-W, or "module:callable".')] = "convnet-16",
    objective: ObjectiveName = "robust",
    recipe: RecipeName = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    schedule: ScheduleName = None,
    every: Every = None,
    step_size: StepSize = None,
    decay: Decay = None,
    validation_sample: ValidationSample = None,
    precision: Precision = None,
    method: MethodName = "margin",
    risk: Risk = "zero-one",
    seed: Seed = 0,
    split_seed: SplitSeed = 0,
    subset_seed: SubsetSeed = 0,
    no_verify: NoVerify = False,
    device: Device = None,
    threads: Threads = None,
    out: Annotated[Path, typer.Option(help="Folder of the run. Finished: loaded; interrupted: gone on with.")] = Path(
        "runs/teacher"
    ),
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a classifier, such as a teacher, on labels."""
    splits = rd.data.load(data, root=root, split_seed=split_seed, subset_seed=subset_seed, verify=not no_verify)
    settings = _recipe(
        recipe,
        data,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        schedule=schedule,
        every=every,
        step_size=step_size,
        decay=decay,
        validation_sample=validation_sample,
        precision=precision,
    )
    with _interruptible(f"what was trained is kept in {out}"):
        run = rd.fit(
            model,
            splits.train,
            splits.val,
            objective=objective,
            recipe=settings,
            seed=seed,
            method=method,
            risk=risk,
            device=device,
            threads=threads,
            out=out,
            progress=not (quiet or as_json),
        )
    _finish(run, splits, out, quiet, as_json, follow_up=f"robustdistill distill --teacher {out} --objective robust")


@app.command(
    epilog="Example: `robustdistill distill --teacher runs/teacher --objective robust --validation-labels one-hot`"
)
def distill(
    teacher: Annotated[
        str, typer.Option(help='Folder of a finished run, or "module:callable" that returns a trained module.')
    ] = "runs/teacher",
    teacher_train: Annotated[
        Path | None,
        typer.Option(help="Instead: table of the teacher's predictions on the training examples.", show_default=False),
    ] = None,
    teacher_val: Annotated[
        Path | None, typer.Option(help="And on the validation examples.", show_default=False)
    ] = None,
    teacher_model: Annotated[
        str | None,
        typer.Option(help='"module:callable" of the run\'s model, where it was your own code.', show_default=False),
    ] = None,
    data: SameData = None,
    root: Root = None,
    model: Annotated[
        str, typer.Option(help='Student: resnet8 ... resnet110, convnet-W, or "module:callable".')
    ] = "convnet-8",
    objective: ObjectiveName = "robust",
    temperature: Annotated[float, typer.Option(help="Temperature of the teacher's labels.")] = 1.0,
    validation_labels: Annotated[
        Literal["teacher", "one-hot"],
        typer.Option(help="What moves the multipliers: the teacher's labels or the true ones."),
    ] = "teacher",
    validation_temperature: Annotated[
        float | None, typer.Option(help="Temperature of the teacher's validation labels.", show_default="--temperature")
    ] = None,
    teacher_view: Annotated[
        Literal["same", "clean"] | None,
        typer.Option(
            help="Whether the teacher sees the student's augmented view or the clean picture.", show_default="same"
        ),
    ] = None,
    recipe: RecipeName = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    schedule: ScheduleName = None,
    every: Every = None,
    step_size: StepSize = None,
    decay: Decay = None,
    validation_sample: ValidationSample = None,
    precision: Precision = None,
    method: MethodName = "margin",
    risk: Risk = "zero-one",
    seed: Seed = 0,
    split_seed: Annotated[int | None, typer.Option(help="As for `train`.", show_default="the teacher's")] = None,
    subset_seed: Annotated[int | None, typer.Option(help="As for `train`.", show_default="the teacher's")] = None,
    no_verify: NoVerify = False,
    device: Device = None,
    threads: Threads = None,
    out: Annotated[Path, typer.Option(help="Folder of the run. Finished: loaded; interrupted: gone on with.")] = Path(
        "runs/student"
    ),
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a student on a teacher's predictions."""
    source, facts = _teacher(teacher, teacher_train, teacher_val, teacher_model)
    name = data or facts.get("name")
    if name is None:
        raise InputError("--data is needed: this teacher does not say what it was trained on")
    splits = rd.data.load(
        name,
        root=root,
        split_seed=facts.get("split_seed", 0) if split_seed is None else split_seed,
        subset_seed=facts.get("subset_seed", 0) if subset_seed is None else subset_seed,
        verify=not no_verify,
    )
    settings = _recipe(
        recipe,
        name,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        schedule=schedule,
        every=every,
        step_size=step_size,
        decay=decay,
        validation_sample=validation_sample,
        precision=precision,
    )
    with _interruptible(f"what was trained is kept in {out}"):
        run = rd.distill(
            source,
            model,
            splits.train,
            splits.val,
            objective=objective,
            temperature=temperature,
            validation_labels=validation_labels,
            validation_temperature=validation_temperature,
            teacher_view=teacher_view,
            recipe=settings,
            seed=seed,
            method=method,
            risk=risk,
            device=device,
            threads=threads,
            out=out,
            progress=not (quiet or as_json),
        )
    _finish(run, splits, out, quiet, as_json, follow_up=f"robustdistill evaluate {out}")


@app.command(epilog="Example: `robustdistill predict runs/student --split val --out val.parquet`")
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
        _print_json({"out": str(out.resolve()), "rows": len(table), "classes": list(table.class_names)})
    else:
        _say(quiet, f"{len(table)} predictions of {run} on {examples.name} are in {out}")


@app.command(epilog="Example: `robustdistill evaluate runs/student --split test`")
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
        _print_json(_scores_json(scores))
    else:
        _print_scores(scores, name)


def main() -> None:
    """The entry point: 0 done, 1 failed, 2 bad input or usage, 130 interrupted."""
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=err_console, show_path=False, show_time=False, show_level=False)],
    )
    logging.getLogger("robustdistill").setLevel(logging.INFO)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        app()
    except (InputError, StaleStoreError) as error:
        err_console.print(f"[bold red]error:[/bold red] {_escaped(error)}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except DivergedError as error:
        err_console.print(f"[bold red]failed:[/bold red] {_escaped(error)}", highlight=False, soft_wrap=True)
        sys.exit(1)


def _recipe(name: str | None, data: str, **changes: Any) -> Recipe:
    from robustdistill.training.recipe import resolve

    return resolve(name, data).with_(**{key: value for key, value in changes.items() if value is not None})


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--{option} must be numbers with commas between them, got {text!r}") from None


def _teacher(folder: str, train: Path | None, val: Path | None, model: str | None) -> tuple[Any, dict[str, Any]]:
    """The teacher, and what it says of its data."""
    if (train is None) != (val is None):
        raise InputError("--teacher-train and --teacher-val go together: validation needs the teacher's labels too")
    if train is not None and val is not None:
        return {"train": rd.Predictions.read(train), "val": rd.Predictions.read(val)}, {}
    if ":" in folder and not Path(folder).exists():
        return folder, {}
    run = rd.Run.load(folder, model=model)
    return run, run.spec.data.model_dump()


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


def _finish(run: Run, splits: Splits, out: Path, quiet: bool, as_json: bool, *, follow_up: str) -> None:
    if run.test is None:
        run.test = rd.evaluate(run, splits.test)
        run.save(out)
    if as_json:
        _print_json({"out": str(out.resolve()), "hash": run.spec.hash, "test": _scores_json(run.test)})
        return
    name = f"{run.spec.model}, {run.spec.objective}, on {splits.test.name}"
    _print_scores(run.test, name)
    _say(
        quiet,
        f"The run is in {out} ({run.parameters:,} parameters, {run.seconds:.1f} s). Next: [bold]{follow_up}[/bold]",
    )


def _scores_json(scores: Scores) -> dict[str, Any]:
    classes = scores.class_names or tuple(str(index) for index in range(len(scores.counts)))
    rows = zip(classes, scores.per_class.tolist(), scores.counts.tolist(), scores.wilson().tolist(), strict=True)
    return {
        "worst_class": scores.worst_class,
        "balanced": scores.balanced,
        "standard": scores.standard,
        "intervals": scores.intervals(),
        "per_class": [
            {"class": name, "recall": recall, "count": count, "wilson": interval}
            for name, recall, count, interval in rows
        ],
    }


def _print_scores(scores: Scores, title: str) -> None:
    found = _scores_json(scores)
    table = Table(title=title, title_justify="left")
    for heading in ("class", "recall %", "95 % interval", "examples"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for row in sorted(found["per_class"], key=lambda row: (row["recall"] == row["recall"], row["recall"])):
        low, high = row["wilson"]
        known = row["recall"] == row["recall"]
        table.add_row(
            _escaped(row["class"]),
            f"{100 * row['recall']:.1f}" if known else "none seen",
            f"{100 * low:.1f} to {100 * high:.1f}" if known else "",
            str(row["count"]),
        )
    out_console.print(table)
    for name in ("worst_class", "balanced", "standard"):
        low, high = found["intervals"][name]
        words = {"worst_class": "worst class", "balanced": "balanced", "standard": "standard"}[name]
        out_console.print(
            f"{words:>12}  {100 * found[name]:5.1f} %  (bootstrap 95 % {100 * low:.1f} to {100 * high:.1f})",
            highlight=False,
        )


def _opening(splits: Splits, teacher: str, student: str, runs: int, workers: int) -> str:
    counts = splits.train.class_counts
    return (
        f"{splits.train.name}: {len(splits.train)} training pictures, {counts.max()} of the most frequent class and"
        f" {counts.min()} of the rarest; {len(splits.val)} for validation, {len(splits.test)} for test.\n"
        f"{runs} runs, {teacher} teachers and {student} students, {workers} at a time."
    )


def _closing(index: Path, teacher: Path) -> str:
    student = f"robustdistill distill --teacher {teacher} --objective tradeoff:0.5"
    return (
        f"The page: {index.resolve().as_uri()}\n"
        f"Try next:\n  [bold]{student}[/bold]\n  [bold]robustdistill evaluate runs/student[/bold]"
    )


@contextmanager
def _run_progress(total: int, silent: bool) -> Iterator[Any]:
    """A bar over runs on a terminal, about ten plain lines elsewhere."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    done = 0
    if silent or not err_console.is_terminal:

        def line(outcome: Any) -> None:
            nonlocal done
            done += 1
            if not silent and (done % max(1, total // 10) == 0 or done == total):
                err_console.print(f"{done} of {total} runs done", highlight=False)

        yield line
        return
    columns = (
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("runs  {task.fields[last]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err_console, transient=True) as progress:
        task = progress.add_task("runs", total=total, last="")

        def advance(outcome: Any) -> None:
            progress.update(task, advance=1, last=outcome.job.name)

        yield advance


@contextmanager
def _interruptible(kept: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        err_console.print(
            f"\ninterrupted: {kept}; run the same command again to go on", highlight=False, soft_wrap=True
        )
        sys.exit(130)


def _command(context: typer.Context) -> str:
    """The command line as somebody would type it, for the records."""
    return shlex.join(["robustdistill", context.info_name or "", *sys.argv[2:]])


def _say(silent: bool, text: str) -> None:
    if not silent:
        out_console.print(text, highlight=False, soft_wrap=True)


def _escaped(value: object) -> str:
    from rich.markup import escape

    return escape(str(value))


def _print_json(value: dict[str, Any]) -> None:
    from robustdistill.files import plain

    print(json.dumps(plain(value), allow_nan=False))
