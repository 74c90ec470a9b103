from __future__ import annotations

import csv
from importlib.resources import files

import pytest

from robustdistill.errors import InputError
from robustdistill.experiments.paper import layouts, printed


def _cells(number: int, data: str) -> set[printed.Key]:
    """The cells of a layout, as the paper's data name them."""
    layout = layouts.layout(number, data)
    keys = set()
    for student in layout.students:
        for row in layout.rows:
            of = {"none": "", "group-dro": "", "post-shift": layout.teacher}.get(row.method, student)
            for column in layout.columns:
                keys.add((number, data, layout.teacher, of, row.method, column, row.objective, row.labels))
    return keys


def test_every_printed_cell_has_its_place_and_every_place_its_printed_cell() -> None:
    planned: set[printed.Key] = set()
    for number in range(1, 9):
        for data in layouts.data_of(f"table{number}"):
            planned |= _cells(number, data)
    assert planned == set(printed.cells())
    assert len(planned) == 72 + 36 + 18 + 24 + 12 + 36 + 12 + 12


def test_metrics_are_those_that_the_captions_name() -> None:
    text = files("robustdistill.experiments.paper").joinpath(printed.SOURCE).read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        layout = layouts.layout(int(row["table"]), row["dataset"])
        assert (row["worst_metric"], row["average_metric"]) == (layout.worst, layout.average)


def test_some_printed_numbers_read_off_the_paper() -> None:
    """From the text of Tables 1, 4, 6 and 7, by eye."""
    cells = printed.cells()
    best = cells[1, "cifar10-lt", "resnet56", "resnet56", "distill", "balanced", "robust", "teacher"]
    assert (best.worst.mean, best.worst.error, best.worst.n) == (pytest.approx(0.7556), pytest.approx(0.0019), 10)
    assert (best.average.mean, best.worst.text) == (pytest.approx(0.8081), "75.56 ± 0.19")
    short = cells[6, "cifar100", "resnet56", "resnet32", "distill", "robust", "standard", ""]
    assert (short.worst.text, short.worst.n) == ("45.7 ± 1.13", 3)
    once = cells[7, "imagenet", "resnet34", "", "none", "standard", "", ""]
    assert (once.worst.text, once.worst.error, once.worst.n) == ("28.08", None, 1)
    tied = cells[2, "cifar10-lt", "resnet56", "resnet56", "distill", "standard", "robust", "one-hot"]
    assert "tied" in tied.note
    assert cells[
        4, "tinyimagenet-lt", "resnet18", "resnet18", "ada-margin", "robust", "", ""
    ].worst.mean == pytest.approx(0.0041)


def test_architectures() -> None:
    """Section 6 and the captions."""
    found = {(n, d): layouts.layout(n, d) for n in range(1, 9) for d in layouts.data_of(f"table{n}")}
    assert {layout.students for (n, _), layout in found.items() if n == 6} == {("resnet32",)}
    assert found[7, "imagenet"].students == ("resnet34", "resnet18")
    assert {layout.teacher for (_, d), layout in found.items() if "cifar" in d} == {"resnet56"}
    assert {layout.teacher for (_, d), layout in found.items() if d.startswith("tiny")} == {"resnet18"}
    assert {n for (n, _), layout in found.items() if not layout.fixed_teacher} == {2}
    students = [layouts.figure_layout(n, layouts.data_of(f"figure{n}")[0]) for n in range(1, 9)]
    assert [s.student for s in students] == [f"resnet{d}" for d in (32, 56, 56, 32, 56, 56, 32, 32)]
    assert [s.labels == "teacher" for s in students] == [False, False, True, True, False, True, False, True]
    assert [s.all_temperatures for s in students] == [False] + [True] * 7
    assert [layouts.data_of(f"figure{n}")[0] for n in range(1, 9)] == ["cifar10-lt"] * 4 + ["cifar10"] * 4


def test_unknown_tables_and_data_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'table1'"):
        layouts.parse("tabel1")
    with pytest.raises(InputError, match="unknown table or figure 'table9'"):
        layouts.layout(9, "cifar10")
    with pytest.raises(InputError, match="must be one of tinyimagenet-lt for table4, got 'cifar10'"):
        layouts.layout(4, "cifar10")
    with pytest.raises(InputError, match="for figure5, got 'cifar10-lt'"):
        layouts.figure_layout(5, "cifar10-lt")
