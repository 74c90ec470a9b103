"""`robustdistill data`: what data are there, and whether they are what they should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from robustdistill.cli.options import AsJson, DataOptions, Root, grouped
from robustdistill.cli.output import out_console, say

if TYPE_CHECKING:
    from robustdistill.data.inspect import Checked, Listed

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Show which data sets are there, and check them.",
)


@app.command("list", epilog="Example: `robustdistill data list --root ~/data`")
def list_(root: Root = None, as_json: AsJson = False) -> None:
    """List the data sets known by name: which are there, how large they are, where the others come from."""
    from robustdistill.data.catalog import default_root
    from robustdistill.data.inspect import listing

    found = listing(root)
    if as_json:
        rows = [{**vars(row), "shape": list(row.shape)} for row in found]
        print(json.dumps({"root": str(default_root(root).absolute()), "data": rows}))
        return
    out_console.print(_listing_table(found, default_root(root)))
    pages: dict[str, list[str]] = {}
    for row in found:
        if row.found is None:
            pages.setdefault(row.page, []).append(row.name)
    for page, names in pages.items():
        say(False, f"to be downloaded: {', '.join(names)} from {page}")
    say(False, "Your own data need no entry here: npz:FILE, folder:DIR, parquet:FILE-or-DIR and hub:NAME are read too.")


@app.command(epilog="Example: `robustdistill data check digits-lt`")
@grouped
def check(
    *,
    name: Annotated[
        str, typer.Argument(help="A name of `data list`, or npz:FILE, folder:DIR, parquet:PATH, hub:NAME.")
    ] = "digits-lt",
    loading: DataOptions,
    out: Annotated[
        Path | None, typer.Option(help="Contact sheet to write (PNG).", show_default="runs/data/NAME.png")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read a data set whole and show counts, class sizes and hashes; write a contact sheet of its pictures.

    Exits with 1 where something is not as it should be.
    """
    from robustdistill.data import inspect

    sheet = out or Path("runs/data") / f"{_file_name(name)}.png"
    found = inspect.check(name, out=sheet, **loading.chosen())
    if as_json:
        print(json.dumps(found.as_dict()))
    else:
        _print_checked(found)
    if found.problems:
        raise typer.Exit(1)


def _listing_table(found: list[Listed], root: Path) -> Table:
    title = f"data sets, files in {escape(str(root.absolute()))}"
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False)
    numbers = ("classes", "train", "held out")
    for heading in ("name", "there", *numbers, "picture", "tail"):
        table.add_column(heading, justify="right" if heading in numbers else "left", no_wrap=True)
    for row in found:
        height, width, channels = row.shape
        tail = "a list" if row.ratio is None else "" if row.ratio == 1 else f"{row.ratio:g}:1"
        table.add_row(
            row.name,
            "built in" if row.found == "embedded" else "yes" if row.found else "no",
            f"{row.classes:,}",
            f"{row.train:,}",
            f"{row.held_out:,}",
            f"{height}x{width}x{channels}",
            tail,
        )
    return table


def _print_checked(found: Checked) -> None:
    table = Table(title=escape(f"{found.name}: {_shape(found)}"), title_justify="left")
    for heading in ("split", "examples", "largest class", "smallest class"):
        table.add_column(heading, justify="right" if heading == "examples" else "left")
    for split, facts in found.splits.items():
        ends = ["", ""]
        if facts.class_sizes:
            items = [pick(facts.class_sizes.items(), key=lambda item: item[1]) for pick in (max, min)]
            ends = [f"{count:,} {escape(repr(name))}" for name, count in items]
        table.add_row(split, f"{facts.examples:,}", *ends)
    out_console.print(table)
    if found.resize is not None:
        say(False, f"models see them at {'x'.join(map(str, found.resize))}: batches are resized on the device")
    say(False, f"class sizes of train, first to last class: {_sizes(list(found.splits['train'].class_sizes.values()))}")
    for split, facts in found.splits.items():
        if facts.group_sizes:
            say(False, f"groups of {split}: {_named_sizes(facts.group_sizes)}")
    for split, facts in found.splits.items():
        say(False, f"{split}: subset {facts.subset}, fingerprint {facts.fingerprint}")
    say(False, f"validation and test {'share no example' if found.disjoint else 'SHARE EXAMPLES'}")
    for pair, count in (found.repeated or {}).items():
        if count:
            first, _, second = pair.partition("/")
            say(False, f"{count:,} pictures of {second} are byte for byte in {first} too")
    if found.sheet is not None:
        say(False, f"contact sheet: {Path(found.sheet).resolve()}")
    for problem in found.problems:
        say(False, f"problem: {problem}")
    if not found.problems:
        say(False, "all is as it should be")


def _sizes(sizes: list[int]) -> str:
    if len(set(sizes)) == 1:
        return f"{sizes[0]} each"
    if len(sizes) <= 20:
        return " ".join(map(str, sizes))
    return f"{' '.join(map(str, sizes[:10]))} ... {' '.join(map(str, sizes[-10:]))}"


def _named_sizes(sizes: dict[str, int], most: int = 10) -> str:
    """The largest ones, and how many more there are."""
    ordered = sorted(sizes.items(), key=lambda item: -item[1])
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return ", ".join(f"{size:,} {name!r}" for name, size in ordered[:most]) + more


def _shape(found: Checked) -> str:
    kind = "pictures" if found.dtype == "uint8" else "features"
    return f"{len(found.splits['train'].class_sizes)} classes, {kind} of {'x'.join(map(str, found.shape))}"


def _file_name(name: str) -> str:
    """A data set's name as that of a file: "folder:/my/birds" becomes "birds"."""
    return Path(name.partition(":")[2] or name).stem or "data"
