"""`robustdistill train` and `robustdistill distill`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.text import Text

import robustdistill as rd
from robustdistill.cli.options import (
    MODELS,
    AsJson,
    DataName,
    DataOptions,
    ObjectiveName,
    Quiet,
    RecipeOptions,
    RunFolder,
    SameData,
    TeacherModel,
    TrainingOptions,
    grouped,
)
from robustdistill.cli.output import interruptible, on_main_process, print_json, print_scores, quieten, say, scores_json
from robustdistill.errors import InputError

if TYPE_CHECKING:
    from robustdistill.data import Splits
    from robustdistill.training.run import Run
    from robustdistill.training.spec import DataIdentity


@grouped
def train(
    *,
    data: DataName = "digits-lt",
    loading: DataOptions,
    model: Annotated[str, typer.Option(help=f"{MODELS}.")] = "convnet-16",
    objective: ObjectiveName = "robust",
    optimisation: RecipeOptions,
    training: TrainingOptions,
    out: RunFolder = Path("runs/teacher"),
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a classifier, such as a teacher, on labels."""
    quieten(quiet or as_json)
    chosen = training.chosen()
    splits = loading.load(data)
    settings = optimisation.chosen(data)
    with interruptible(f"what was trained is kept in {out}"):
        run = rd.fit(
            model,
            splits.train,
            splits.val,
            objective=objective,
            recipe=settings,
            **chosen,
            out=out,
            progress=not (quiet or as_json),
        )
    own = ["--teacher-model", model] if ":" in model else []
    follow_up = ["robustdistill", "distill", "--teacher", str(out), *own, "--objective", "robust", *loading.places()]
    _finish(run, splits, out, quiet, as_json, follow_up=follow_up)


@grouped
def distill(
    *,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            help='Folder of a finished run, or "module:callable" that returns a trained module. Of several, each with'
            " this option or the next two, the probabilities are averaged.",
            show_default="runs/teacher",
        ),
    ] = None,
    teacher_train: Annotated[
        list[Path] | None,
        typer.Option(help="Instead: table of the teacher's predictions on the training examples.", show_default=False),
    ] = None,
    teacher_val: Annotated[
        list[Path] | None, typer.Option(help="And on the validation examples.", show_default=False)
    ] = None,
    teacher_model: TeacherModel = None,
    data: SameData = None,
    loading: DataOptions,
    model: Annotated[str, typer.Option(help=f"Student: {MODELS}.")] = "convnet-8",
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
    teacher_precision: Annotated[
        Literal["float16", "float32"] | None,
        typer.Option(help="Of its logits on augmented views; float32 are not stored.", show_default="float16"),
    ] = None,
    teacher_top: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of many classes, keep its K most probable ones and the rest's mass.", show_default="all"
        ),
    ] = None,
    views: Annotated[
        str | None,
        typer.Option(
            help='Folder for its predictions on augmented views, for all its students; "off" asks each time.',
            show_default="your cache folder",
        ),
    ] = None,
    optimisation: RecipeOptions,
    training: TrainingOptions,
    out: RunFolder = Path("runs/student"),
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a student on a teacher's predictions."""
    quieten(quiet or as_json)
    chosen = training.chosen()
    source, recorded = _teachers(teacher or [], teacher_train or [], teacher_val or [], teacher_model, data)
    if recorded is not None:
        splits = loading.load_recorded(recorded, data)
    elif data is not None:
        splits = loading.load(data)
    else:
        raise InputError("--data is needed: this teacher does not say what it was trained on")
    settings = optimisation.chosen(str(splits.train.source["name"]))
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
            teacher_precision=teacher_precision,
            teacher_top=teacher_top,
            views=views,
            recipe=settings,
            **chosen,
            out=out,
            progress=not (quiet or as_json),
        )
    follow_up = [
        "robustdistill",
        "evaluate",
        str(out),
        *(["--model", model] if ":" in model else []),
        *loading.places(),
    ]
    _finish(run, splits, out, quiet, as_json, follow_up=follow_up)


def _teachers(
    names: list[str], train: list[Path], val: list[Path], model: str | None, data: str | None
) -> tuple[Any, DataIdentity | None]:
    """The teacher, or a list of several, and what they say of their data."""
    if len(train) != len(val):
        raise InputError("--teacher-train and --teacher-val go together: validation needs the teacher's labels too")
    names = names or ([] if train else ["runs/teacher"])
    found = [_teacher(name, model, only=len(names) == 1) for name in names]
    found += [
        ({"train": rd.Predictions.read(first), "val": rd.Predictions.read(second)}, None)
        for first, second in zip(train, val, strict=True)
    ]
    recorded = [known for _, known in found if known is not None]
    for other in recorded[1:]:
        if data is None and other != recorded[0]:
            from robustdistill.training.spec import differences

            what = differences(recorded[0].model_dump(), other.model_dump())
            raise InputError(f"--data is needed: the teachers were trained on different data ({what})")
    sources = [source for source, _ in found]
    return sources if len(sources) > 1 else sources[0], recorded[0] if recorded else None


def _teacher(name: str, model: str | None, *, only: bool) -> tuple[Any, DataIdentity | None]:
    """A teacher by its folder or "module:callable", and what it says of its data."""
    if ":" in name and not Path(name).exists():
        return name, None
    try:
        from robustdistill.training.run import read_record

        own_code = only or ":" in str(read_record(Path(name))["spec"].get("model"))
        run = rd.Run.load(name, model=model if own_code else None)
    except InputError as error:
        # Here `model` is another option, the student's.
        raise InputError(str(error).replace("model=", "teacher_model=")) from error
    return run, run.spec.data


def _finish(run: Run, splits: Splits, out: Path, quiet: bool, as_json: bool, *, follow_up: list[str]) -> None:
    from robustdistill.training.evaluate import score_test

    if not on_main_process():
        return
    if not run.tested:
        score_test(run, splits.test)
        run.save(out)
    assert run.test is not None
    if as_json:
        found = {"out": str(out.resolve()), "hash": run.spec.hash, "test": scores_json(run.test)}
        print_json(found if run.group_test is None else {**found, "test_by_group": scores_json(run.group_test)})
        return
    print_scores(run.test, f"{run.spec.model}, {run.spec.objective}, on {splits.test.name}")
    if run.group_test is not None:
        print_scores(run.group_test, f"the same by {run.spec.groups}", groups=True)
    facts = f"{run.parameters:,} parameters, {run.seconds:.1f} s"
    say(quiet, Text.assemble(f"The run is in {out} ({facts}). Next: ", (shlex.join(follow_up), "bold")))
