"""Everything that is written or printed for people, of names that somebody means ill with."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from markdown_it import MarkdownIt

import robustdistill as rd
from auditing.reference import made_up
from experiments.paper.runs import finished, noisy, table
from exporting import runs
from report.records import record
from robustdistill import cli, pages, report
from robustdistill.cli import output
from robustdistill.data import inspect
from robustdistill.errors import InputError
from robustdistill.experiments.journal import write_record
from robustdistill.experiments.paper import page as paper_page
from robustdistill.experiments.paper.results import table_result
from robustdistill.exporting.card import Measured, model_card
from robustdistill.exporting.deployed import deploy
from robustdistill.integrations.tracking import scalars
from robustdistill.metrics import Scores
from robustdistill.shown import in_line, shown
from security.hostile import (
    NAMES,
    ONE,
    PRINTABLE,
    check_csv,
    check_html,
    check_latex,
    check_markdown,
    check_names,
    check_svg,
    check_terminal,
)


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a stranger's runs: classes, models, methods, data, commands and environments are all hostile."""
    root = tmp_path_factory.mktemp("reported")
    common = {"data": ONE, "class_names": NAMES, "teacher_model": f"m{ONE}", "student_model": f"s{ONE}", "epochs": 2}
    for index, name in enumerate(("margin", *NAMES)):
        for role in ("teacher", "student"):
            content = record(role, objective="robust", method=name, **common)
            content |= {"command": ONE, "environment": {ONE: name, "git": ONE}}
            write_record(root / "runs" / f"{role}-{index}", content | {"name": name})
    write_record(root / "runs" / "plain", record(**common))
    for role in ("teacher", "student"):
        content = record(role, objective="robust", groups="group", **common)
        count = len(NAMES)
        for metrics in content["metrics"].values():
            metrics["groups"] = {"names": NAMES, "correct": [1] * count, "counts": [2] * count, "worst_group": 0.5}
        content |= {"group_names": NAMES, "group_train_counts": [9] * count}
        for line in content["history"]:
            line["group_multipliers"] = [1 / count] * count
        write_record(root / "runs" / f"{role}-over-groups", content)
    report.write(root / "runs", root / "out")
    return root / "out"


def test_the_report(reported: Path) -> None:
    page = check_html(reported / "index.html")
    check_names(page.text)
    check_names(" ".join(str(found.get("aria-label")) for _, found in page.tags), (ONE,))
    figures = sorted((reported / "figures").rglob("*.svg"))
    assert len(figures) >= 4
    for figure in figures:
        check_svg(figure)


def test_the_reports_tables(reported: Path) -> None:
    check_names(check_markdown((reported / "table.md").read_text(encoding="utf-8")), NAMES)
    check_latex((reported / "table.tex").read_text(encoding="utf-8"))
    rows = check_csv((reported / "table.csv").read_text(encoding="utf-8"))
    methods = {cell.removeprefix("'") for row in rows for cell in row}
    assert {in_line(name) for name in NAMES} <= methods


@pytest.mark.parametrize("groups", [False, True])
def test_audits(groups: bool, tmp_path: Path) -> None:
    given = made_up(400, classes=len(PRINTABLE), groups=groups)
    owner = None if given.groups is None else [PRINTABLE[hash(name) % len(PRINTABLE)] for name in given.groups]
    table_of_ours = replace(given, class_names=PRINTABLE, groups=owner)
    found = rd.audit(table_of_ours, name=ONE, draws=50)
    check_names(check_html(found.write_html(tmp_path / "audit.html")).text)
    other = replace(made_up(400, classes=len(PRINTABLE), seed=1), class_names=PRINTABLE, labels=given.labels)
    compared = rd.compare(replace(table_of_ours, groups=None), other, names=(ONE, "other"))
    check_names(check_html(compared.write_html(tmp_path / "compared.html")).text)


def test_the_comparison_with_the_paper(tmp_path: Path) -> None:
    plan = table(1, "digits-lt", "tiny", repeats=2)
    records = finished(plan.jobs, noisy)
    names = [NAMES[index] for index in range(len(next(iter(records.values())).class_names))]
    hostile = [
        one.model_copy(update={"class_names": names, "environment": {ONE: ONE}, "command": ONE})
        for one in records.values()
    ]
    failures = [paper_page.Failure(name, name) for name in NAMES]
    paper_page.write(table_result(plan, records), tmp_path, failures=failures, records=hostile, command=ONE)
    for name in ("index.html", "comparison.html"):
        check_names(check_html(tmp_path / name).text)
    check_markdown((tmp_path / "comparison.md").read_text(encoding="utf-8"))
    check_latex((tmp_path / "comparison.tex").read_text(encoding="utf-8"))
    check_csv((tmp_path / "comparison.csv").read_text(encoding="utf-8"))
    for figure in tmp_path.rglob("*.svg"):
        check_svg(figure)


def test_the_model_card(tmp_path: Path) -> None:
    run = runs.trained("convnet-4", runs.pictures())
    facts = deploy(run, runs.pictures()).facts
    for name, second, third in zip(NAMES[::2], NAMES[1::2], NAMES[::-2], strict=True):
        names = (name, second, third)
        hostile = facts.model_copy(update={"class_names": names, "data": second, "model": f"m:{name}"})
        scores = Scores(np.array([1, 5, 40]), np.array([20, 10, 60]), hostile.class_names)
        card = model_card(
            run, hostile, Measured(scores, "test", name, files=[f"{name}x.onnx"]), name=name, license=name
        )
        pages.write(tmp_path / "card.md", card)
        text = (tmp_path / "card.md").read_text(encoding="utf-8")
        head, _, body = text.removeprefix("---\n").partition("\n---\n")
        assert yaml.safe_load(head)["library_name"] == "robustdistill"
        check_markdown(body)
        (fence,) = [token for token in MarkdownIt("commonmark").parse(body) if token.type == "fence"]
        compile(fence.content, "card", "exec")


def test_the_model_card_of_a_run_over_groups(tmp_path: Path) -> None:
    run = runs.trained_by_group()
    facts = deploy(run, runs.grouped()).facts
    by_class = Scores(np.array([1, 5, 40]), np.array([20, 10, 60]), facts.class_names)
    identity = run.spec.data.model_copy(update={"group_column": ONE})
    run.spec = run.spec.model_copy(update={"data": identity})
    run.extra = {"group_names": list(NAMES), "group_train_counts": [9] * len(NAMES)}
    counts = np.array([0, *[30] * (len(NAMES) - 1)])  # nothing is known of the first, few are there of the rest
    for groups in (Scores(np.arange(len(NAMES)), counts + 1, NAMES), Scores(counts // 2, counts, NAMES)):
        pages.write(tmp_path / "card.md", model_card(run, facts, Measured(by_class, "test", "birds", groups=groups)))
        text = (tmp_path / "card.md").read_text(encoding="utf-8")
        head, _, body = text.removeprefix("---\n").partition("\n---\n")
        assert yaml.safe_load(head)["library_name"] == "robustdistill"
        check_names(check_markdown(body))
        tokens = MarkdownIt("commonmark").enable("table").parse(body)
        assert sum(token.type == "tr_open" for token in tokens) == 1 + 4 + 1 + len(NAMES) + 1 + 3
        assert [token.tag for token in tokens if token.type == "heading_open"] == ["h1", *["h2"] * 5]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and predictions of hostile classes, in a folder of a hostile name."""
    folder = tmp_path_factory.mktemp("files") / "\x1b[31m[bold]\u202edlof"
    folder.mkdir()
    rng = np.random.default_rng(0)
    labels = np.arange(15 * len(PRINTABLE)) % len(PRINTABLE)
    pictures = rng.integers(0, 256, (len(labels), 8, 8, 3), dtype=np.uint8)
    arrays = {"train_images": pictures, "train_labels": labels, "class_names": np.array(PRINTABLE)}
    np.savez(folder / "data.npz", **arrays)
    for seed in (0, 1):
        given = made_up(400, classes=len(PRINTABLE), seed=seed, groups=seed == 0)
        owner = None if given.groups is None else [PRINTABLE[len(name)] for name in given.groups]
        named = replace(given, class_names=PRINTABLE, groups=owner)
        if seed:
            named = replace(named, labels=made_up(400, classes=len(PRINTABLE)).labels)
        named.write(folder / f"{seed}.parquet")
    return folder


@pytest.mark.parametrize("name", [name for name in NAMES if name not in PRINTABLE])
def test_control_characters_are_refused_where_names_come_in(name: str) -> None:
    with pytest.raises(InputError, match="class names must be printable"):
        runs.pictures(names=(name, "dog", "ship"))
    with pytest.raises(InputError, match="class names must be printable"):
        replace(made_up(10), class_names=(name, "dog", "ship", "cat"))


COMMANDS = {
    "data": ("data", "check", "npz:{}/data.npz", "--out", "{}/sheet.png"),
    "train": (
        "train",
        "--data",
        "npz:{}/data.npz",
        "--epochs",
        "1",
        "--every",
        "1",
        "--model",
        "convnet-4",
        "--out",
        "{}/run-{width}",
    ),
    "evaluate": ("evaluate", "{}/0.parquet"),
    "audit": ("audit", "{}/0.parquet", "--all", "--teacher"),
    "compare": ("audit", "{}/0.parquet", "{}/1.parquet", "--all"),
    "shift": ("shift", "fit", "{}/0.parquet", "-o", "{}/shift.json", "--folds", "0"),
    "apply": ("shift", "apply", "{}/1.parquet", "--shift", "{}/shift.json", "-o", "{}/shifted.csv"),
    "absent": ("evaluate", "{}/no\x1b[2Jsuch.parquet"),
    "report": ("report", "{}"),
}


@pytest.mark.parametrize("width", [600, 70])
@pytest.mark.parametrize("name", COMMANDS)
def test_the_terminal(
    name: str, width: int, files: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for console in (output.out_console, output.err_console):
        monkeypatch.setattr(console, "_width", width)
    monkeypatch.setattr(sys, "argv", ["robustdistill", *(word.format(files, width=width) for word in COMMANDS[name])])
    with pytest.raises(SystemExit):
        cli.main()
    found = capfd.readouterr()
    check_terminal(found.out + found.err)
    assert len(found.out + found.err) > 100
    if width == 600 and name in ("train", "evaluate", "audit", "compare"):
        check_names(found.out, tuple(name for name in PRINTABLE if len(name) < 40))


def test_what_the_library_logs_and_warns_of(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def speak() -> None:
        logging.getLogger("robustdistill").info("the data of %s", ONE)
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.warn(ONE, UserWarning, stacklevel=1)

    monkeypatch.setattr(cli, "app", speak)
    logging.getLogger().handlers.clear()  # pytest's own, beside which the command sets up none
    cli.main()
    found = capfd.readouterr().err
    assert found.count("‹U+202E›") == 2
    assert shown(found) == found


def test_pictures_of_words(tmp_path: Path) -> None:
    examples = runs.pictures(count=40, names=PRINTABLE)
    inspect.write_sheet(examples, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_tags_of_trackers_are_plain() -> None:
    epoch = {"epoch": 1, "recalls": [0.5] * len(NAMES)}
    for tag in scalars(epoch, NAMES):
        assert re.fullmatch(r"val_recall/\d\d-[\w. -]*", tag)
