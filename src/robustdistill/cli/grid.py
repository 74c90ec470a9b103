"""`robustdistill grid`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from robustdistill.cli.options import GROUPS_HELP, AsJson, DataOptions, Quiet, RecipeOptions, grouped, numbers
from robustdistill.cli.output import err_console, print_json, quieten, say
from robustdistill.cli.running import RunningOptions, duration, run, status, typed_command
from robustdistill.errors import InputError

if TYPE_CHECKING:
    from robustdistill.experiments.plan import Plan


@dataclass(frozen=True)
class GridOptions:
    """The fields of a plan; each one given replaces the plan's."""

    data: Annotated[str | None, typer.Option(help="As for `train`.", show_default="the plan's, else digits-lt")] = None
    teachers: Annotated[
        str | None, typer.Option(help="Teacher models, comma separated.", show_default="the plan's, else convnet-16")
    ] = None
    students: Annotated[
        str | None, typer.Option(help="Student models, comma separated.", show_default="the plan's, else convnet-8")
    ] = None
    teacher_objectives: Annotated[
        str | None,
        typer.Option(
            help="Comma separated; tradeoff:0.5 and the like are points between balanced and robust.",
            show_default="the plan's, else standard,balanced,robust",
        ),
    ] = None
    student_objectives: Annotated[
        str | None, typer.Option(help="The same for the students; none trains teachers only.", show_default="likewise")
    ] = None
    methods: Annotated[
        str | None,
        typer.Option(help="Other training methods, separated by semicolons.", show_default="the plan's, else none"),
    ] = None
    validation_labels: Annotated[
        str | None, typer.Option(help="What moves the students' multipliers.", show_default="teacher,one-hot")
    ] = None
    temperatures: Annotated[
        str | None, typer.Option(help="Of the targets; the best on validation is reported.", show_default="1")
    ] = None
    validation_temperatures: Annotated[
        str | None,
        typer.Option(help='Of teacher-labelled validation; "same" is that of the targets.', show_default="same"),
    ] = None
    repeats: Annotated[int | None, typer.Option(min=1, help="Training seeds 0, 1, ...", show_default="3")] = None
    fixed_teacher: Annotated[
        bool | None,
        typer.Option(
            "--fixed-teacher/--own-teachers",
            help="One teacher for the students of all repeats, or teachers for each repeat.",
            show_default="own",
        ),
    ] = None
    groups: Annotated[
        Literal["class", "group", "class-group"] | None,
        typer.Option(help=GROUPS_HELP, show_default="the plan's, else class"),
    ] = None
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of each run.", show_default="1")] = None

    def chosen(self) -> dict[str, Any]:
        """Those given, as a plan has them."""
        given = {key: value for key, value in vars(self).items() if value is not None}
        for key in ("teachers", "students", "teacher_objectives", "student_objectives", "validation_labels"):
            if key in given:
                given[key] = [] if given[key] == "none" else [name.strip() for name in given[key].split(",")]
        if "methods" in given:
            given["methods"] = [text.strip() for text in given["methods"].split(";") if text.strip()]
        if "temperatures" in given:
            given["temperatures"] = list(numbers("temperatures", given["temperatures"]))
        if "validation_temperatures" in given:
            texts = [text.strip() for text in given["validation_temperatures"].split(",")]
            given["validation_temperatures"] = [
                text if text == "same" else numbers("validation-temperatures", text)[0] for text in texts
            ]
        return given


@grouped
def grid(
    *,
    plan: Annotated[
        Path | None, typer.Option(help="A .yaml or .toml file with the fields of a grid.", show_default="none")
    ] = None,
    fields: GridOptions,
    loading: DataOptions,
    optimisation: RecipeOptions,
    running: RunningOptions,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help='Let the plan file name models as "module:callable".')
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run, and how far it is.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the runs and the page.")] = Path("runs/grid"),
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train every teacher with every student, each run once, and report.

    The runs are in OUT/runs, each in a folder named after the hash of its spec: other grids with the same --out share
    them, on this machine or on others that see the folder. Interrupted, the same command goes on.
    """
    from robustdistill.cli.finish import conclude
    from robustdistill.experiments.tasks import tasks
    from robustdistill.files import make_folder, replacing

    quieten(quiet or as_json)
    found = merged(plan, fields.chosen(), loading.chosen(), optimisation.given(), allow_code=allow_code)
    whole = found.grid()
    jobs = whole.jobs()
    workers = min(running.workers_for(whole.threads), len(jobs))
    if dry_run:
        _describe(found, tasks(jobs, out / "runs"), workers, as_json)
        return
    make_folder(out / "runs")
    with replacing(out / "plan.yaml") as temporary:
        temporary.write_text(found.text(), encoding="utf-8")
    say(
        quiet or as_json,
        f"{whole.data.name}: {counted(jobs)}, {min(workers * running.replicas, len(jobs))} at a time, in {out}/runs.",
    )
    outcomes = run(jobs, out / "runs", running, command=typed_command("grid"), silent=quiet or as_json)
    conclude(outcomes, out, quiet=quiet, as_json=as_json)


def merged(
    path: Path | None,
    fields: dict[str, Any],
    data: dict[str, Any],
    recipe: dict[str, Any],
    *,
    allow_code: bool = False,
) -> Plan:
    """The plan of a file, with what the options say instead."""
    from robustdistill.experiments.plan import Plan, read

    content: dict[str, Any] = read(path, allow_code=allow_code) if path is not None else {"data": "digits-lt"}
    for name in ("data", "recipe"):
        if isinstance(content.get(name), str):
            content[name] = {"name": content[name]}
    if "data" in fields:
        fields["data"] = {"name": fields["data"]}
    content |= fields
    for name, changes in (("data", data), ("recipe", recipe)):
        if changes:
            if not isinstance(content.get(name) or {}, dict):
                raise InputError(f"plan: {name} must be a name or a mapping, got {content[name]!r}")
            content[name] = {**(content.get(name) or {}), **changes}
    return Plan.of(content)


def counted(jobs: Any) -> str:
    """ "12 runs (3 teachers, 9 students)"."""
    teachers = sum(job.teacher is None and not job.baseline for job in jobs)
    return f"{len(jobs)} runs ({teachers} teachers, {len(jobs) - teachers} students)"


def _describe(plan: Plan, tasks: Any, workers: int, as_json: bool) -> None:
    so_far = status(tasks, workers)
    runs = [{"name": task.job.name, "hash": task.hash} for task in tasks]
    teachers = sum(task.job.teacher is None and not task.job.baseline for task in tasks)
    if as_json:
        counts = {"teachers": teachers, "students": len(tasks) - teachers, "runs": len(tasks)}
        print_json({**counts, **so_far.as_dict(), "plan": plan.model_dump(mode="json"), "jobs": runs})
        return
    say(False, plan.text().rstrip())
    say(False, "")
    for run_ in runs:
        say(False, f"{run_['hash']}  {run_['name']}")
    states = ", ".join(f"{count} {state}" for state, count in so_far.as_dict().items() if state != "seconds_left")
    say(False, f"\n{counted([task.job for task in tasks])}: {states}.")
    left = so_far.seconds_left
    err_console.print(
        "No run is finished yet, so there is no estimate of the time."
        if left is None
        else f"About {duration(left)} to go with {workers} at a time.",
        highlight=False,
    )
