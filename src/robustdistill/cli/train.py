"""`robustdistill train` and `robustdistill distill`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import robustdistill as rd
from robustdistill.cli.options import (
    AsJson,
    BatchSize,
    DataName,
    Decay,
    Device,
    Epochs,
    Every,
    LearningRate,
    MethodName,
    NoVerify,
    ObjectiveName,
    Precision,
    Quiet,
    RecipeName,
    Risk,
    Root,
    SameData,
    ScheduleName,
    Scorer,
    Seed,
    SplitSeed,
    StepSize,
    SubsetSeed,
    Threads,
    ValidationSample,
    chosen_recipe,
)
from robustdistill.cli.output import interruptible, print_json, print_scores, say, scores_json
from robustdistill.errors import InputError

if TYPE_CHECKING:
    from robustdistill.data import Splits
    from robustdistill.training.run import Run


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
    scorer: Scorer = "last",
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
    settings = chosen_recipe(
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
    with interruptible(f"what was trained is kept in {out}"):
        run = rd.fit(
            model,
            splits.train,
            splits.val,
            objective=objective,
            recipe=settings,
            seed=seed,
            method=method,
            risk=risk,
            scorer=scorer,
            device=device,
            threads=threads,
            out=out,
            progress=not (quiet or as_json),
        )
    _finish(run, splits, out, quiet, as_json, follow_up=f"robustdistill distill --teacher {out} --objective robust")


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
    teacher_weight: Annotated[
        float, typer.Option(help="Share of the teacher in the targets; the rest is the true label.")
    ] = 1.0,
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
    scorer: Scorer = "last",
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
    settings = chosen_recipe(
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
    with interruptible(f"what was trained is kept in {out}"):
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
            teacher_weight=teacher_weight,
            recipe=settings,
            seed=seed,
            method=method,
            risk=risk,
            scorer=scorer,
            device=device,
            threads=threads,
            out=out,
            progress=not (quiet or as_json),
        )
    _finish(run, splits, out, quiet, as_json, follow_up=f"robustdistill evaluate {out}")


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


def _finish(run: Run, splits: Splits, out: Path, quiet: bool, as_json: bool, *, follow_up: str) -> None:
    if run.test is None:
        run.test = rd.evaluate(run, splits.test)
        run.save(out)
    if as_json:
        print_json({"out": str(out.resolve()), "hash": run.spec.hash, "test": scores_json(run.test)})
        return
    name = f"{run.spec.model}, {run.spec.objective}, on {splits.test.name}"
    print_scores(run.test, name)
    say(
        quiet,
        f"The run is in {out} ({run.parameters:,} parameters, {run.seconds:.1f} s). Next: [bold]{follow_up}[/bold]",
    )
