"""`robustdistill demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustdistill.cli.options import AsJson, DataName, DataOptions, Quiet, RecipeOptions, grouped, numbers
from robustdistill.cli.output import quieten, say
from robustdistill.cli.running import RunningOptions, run, typed_command

if TYPE_CHECKING:
    from robustdistill.data import Splits


@grouped
def demo(
    *,
    data: DataName = "digits-lt",
    loading: DataOptions,
    teacher: Annotated[str, typer.Option(help="Teacher model.")] = "convnet-16",
    student: Annotated[str, typer.Option(help="Student model.")] = "convnet-8",
    objectives: Annotated[
        str, typer.Option(help="Objectives of teachers and students, comma separated.")
    ] = "standard,balanced,robust",
    methods: Annotated[
        str, typer.Option(help="Other training methods to compare with, separated by semicolons.", show_default="none")
    ] = "",
    temperatures: Annotated[
        str, typer.Option(help="Temperatures of the teacher's labels; the best on validation is shown.")
    ] = "1,3",
    repeats: Annotated[
        int, typer.Option(min=1, help="Repetitions with other training seeds, each with teachers of its own.")
    ] = 3,
    optimisation: RecipeOptions,
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
    from robustdistill.cli.finish import conclude
    from robustdistill.experiments.execute import default_workers
    from robustdistill.experiments.grid import DataSource, Grid
    from robustdistill.experiments.tasks import load_data

    quieten(quiet or as_json)
    names = [name.strip() for name in objectives.split(",")]
    grid = Grid(
        data=DataSource(data, **loading.chosen()),
        teachers=[teacher],
        students=[student],
        recipe=optimisation.chosen(data),
        teacher_objectives=names,
        student_objectives=names,
        methods=[name.strip() for name in methods.split(";") if name.strip()],
        temperatures=numbers("temperatures", temperatures),
        repeats=repeats,
    )
    jobs = grid.jobs()
    workers = min(workers or default_workers(), len(jobs))
    say(quiet or as_json, _opening(load_data(grid.data), teacher, student, len(jobs), workers))
    running = RunningOptions(workers=workers, retry_failed=True)
    outcomes = run(jobs, out / "runs", running, command=typed_command("demo"), silent=quiet or as_json)
    conclude(outcomes, out, quiet=quiet, as_json=as_json, places=loading.places())


def _opening(splits: Splits, teacher: str, student: str, runs: int, workers: int) -> str:
    counts = splits.train.class_counts
    return (
        f"{splits.train.name}: {len(splits.train)} training pictures, {counts.max()} of the most frequent class and"
        f" {counts.min()} of the rarest; {len(splits.val)} for validation, {len(splits.test)} for test.\n"
        f"{runs} runs, {teacher} teachers and {student} students, {workers} at a time."
    )
