"""`robustdistill reproduce`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from robustdistill.cli.options import AsJson, Lists, NoVerify, Quiet, Root, grouped, numbers
from robustdistill.cli.output import out_console, print_json, quieten, say
from robustdistill.cli.running import RunningOptions, duration, run, status, typed_command
from robustdistill.errors import InputError

if TYPE_CHECKING:
    from robustdistill.experiments.paper.plan import Plan
    from robustdistill.experiments.tasks import Outcome


@grouped
def reproduce(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="table1 ... table8 or figure1 ... figure8.")],
    data: Annotated[
        str,
        typer.Option(
            help="A data set of that table; below the paper's scale also digits(-lt) or fashion-mnist(-lt) in place"
            " of one.",
            show_default=False,
        ),
    ] = "",
    root: Root = None,
    lists: Lists = None,
    no_verify: NoVerify = False,
    scale: Annotated[
        Literal["paper", "short", "tiny"],
        typer.Option(help="As printed; its models with short schedules; or small models and few epochs."),
    ] = "paper",
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Of the students.", show_default="the paper's; below its scale at most 3")
    ] = None,
    alphas: Annotated[
        str | None,
        typer.Option(help="Of a figure's trade-offs, comma separated.", show_default="0,0.25,0.5,0.75,0.9,1"),
    ] = None,
    running: RunningOptions,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many models would be trained.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the runs, which all tables share, and for the pages.")] = Path(
        "runs/reproduce"
    ),
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train all that a table or figure of the paper needs, and set our numbers beside its own.

    The runs are in OUT/runs, each in a folder named after the hash of its spec: what another table has trained already
    is not trained again. Interrupted, the same command goes on.
    """
    quieten(quiet or as_json)
    plan = _plan(name, data, scale, repeats, alphas, root=root, lists=lists, verify=not no_verify)
    if dry_run:
        _describe(plan, out / "runs", running, as_json)
        return
    say(quiet or as_json, _opening(plan))
    outcomes = run(plan.jobs, out / "runs", running, command=typed_command("reproduce"), silent=quiet or as_json)
    _conclude(plan, outcomes, out, quiet=quiet, as_json=as_json)


def _plan(name: str, data: str, scale: Any, repeats: int | None, alphas: str | None, **loading: Any) -> Plan:
    """What the options mean, without a look at the data."""
    from robustdistill.experiments.paper import layouts, plan, scales

    kind, number = layouts.parse(name)
    if alphas is not None and kind == "table":
        raise InputError(f"alphas= is for figures only, got it with {name}")
    paper_data = scales.stands_for(name, data, scale)
    source = scales.data_source(data, **loading)
    if kind == "table":
        table = layouts.layout(number, paper_data)
        return plan.table_plan(table, scales.setup(table, source, scale, repeats=repeats))
    figure = layouts.figure_layout(number, paper_data)
    grid = layouts.ALPHAS if alphas is None else numbers("alphas", alphas)
    return plan.figure_plan(figure, scales.setup(figure, source, scale, repeats=repeats, alphas=grid))


def _opening(plan: Plan) -> str:
    from robustdistill.experiments.paper import texts
    from robustdistill.experiments.paper.plan import counts

    setup, found = plan.setup, counts(plan)
    parts = [f"{found[kind]} {kind}" for kind in ("teachers", "students", "baselines") if found.get(kind)]
    # The table of group DRO has no teacher.
    models = setup.teacher if not found["students"] else f"{setup.teacher} -> {', '.join(setup.students)}"
    lines = [
        f"{texts.title(plan)}, {setup.scale} scale: {found['runs']} runs ({', '.join(parts)}).",
        f"{models}, recipe {setup.recipe.name} ({setup.recipe.epochs} epochs).",
    ]
    lines += [f"  {change.what}: {change.here} (paper: {change.paper})" for change in setup.changes]
    return "\n".join(lines)


def _describe(plan: Plan, runs: Path, running: RunningOptions, as_json: bool) -> None:
    from robustdistill.experiments.paper.plan import counts
    from robustdistill.experiments.tasks import tasks

    if as_json:
        print_json(dict(counts(plan)))
        return
    say(False, _opening(plan))
    if not runs.is_dir():
        return
    # Which of them are done can be told with the data only: a run's identity has their fingerprint.
    try:
        workers = running.workers_for()
        so_far = status(tasks(plan.jobs, runs), workers)
    except InputError as error:
        say(False, f"How many are done cannot be told without the data ({error}).")
        return
    states = ", ".join(f"{count} {state}" for state, count in so_far.as_dict().items() if state != "seconds_left")
    left = "" if so_far.seconds_left is None else f"; about {duration(so_far.seconds_left)} to go, {workers} at a time"
    say(False, f"So far: {states}{left}.")


def _conclude(plan: Plan, outcomes: Sequence[Outcome], out: Path, *, quiet: bool, as_json: bool) -> None:
    from robustdistill.experiments.journal import scan
    from robustdistill.experiments.paper import page, texts, writers
    from robustdistill.experiments.paper.matching import records_of
    from robustdistill.experiments.paper.plan import TablePlan, counts
    from robustdistill.experiments.paper.results import FigureResult, TableResult, figure_result, table_result
    from robustdistill.experiments.tasks import load_data

    splits = load_data(plan.setup.data)
    finished = records_of(plan.jobs, scan(out / "runs", histories=False), splits)
    result: TableResult | FigureResult
    result = table_result(plan, finished) if isinstance(plan, TablePlan) else figure_result(plan, finished)
    failures = [page.Failure(outcome.job.name, outcome.error) for outcome in outcomes if outcome.error]
    folder = out / f"{plan.layout.name}-{plan.setup.data.name}-{plan.setup.scale}"
    index = page.write(
        result, folder, failures=failures, records=list(finished.values()), command=typed_command("reproduce")
    )
    if as_json:
        rows = writers.table_rows(result) if isinstance(result, TableResult) else writers.figure_rows(result)
        print_json({**counts(plan), "failed": len(failures), "page": str(index.resolve()), "results": rows})
    else:
        for table in writers.terminal(result) if isinstance(result, TableResult) else ():
            out_console.print(table)
        say(quiet, "\n".join(["", texts.headline(result), *texts.lede(result, len(failures))]))
        say(quiet, f"\nThe page: {index.resolve().as_uri()}")
    if failures:
        raise typer.Exit(1)
