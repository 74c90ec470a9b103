from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup

from parsed import Page
from report.records import journal, record, save
from robustdistill import report
from robustdistill.errors import InputError
from robustdistill.report.claims import CLAIMS
from robustdistill.report.page import read

EVIL = '<script>alert("x")</script>'


def page(root: Path, **settings: Any) -> tuple[str, Page]:
    found = Page(report.write(root / "runs", root / "out", **settings))
    return found.source, found


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Page]:
    root = tmp_path_factory.mktemp("report")
    journal(root / "runs")
    return (root / "out", *page(root))


def test_everything_is_written(full: tuple[Path, str, Page]) -> None:
    out, _, _ = full
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    figures = {
        f"figures/{name}.{kind}" for name in ("plane", "recalls", "multipliers", "curves") for kind in ("png", "svg")
    }
    assert written == {"index.html", "table.md", "table.tex", "table.csv"} | figures


def test_the_page_is_well_formed_and_small(full: tuple[Path, str, Page]) -> None:
    out, _, parsed = full
    assert parsed.balanced
    assert (out / "index.html").stat().st_size < 2_000_000
    ids = [attributes["id"] for _, attributes in parsed.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))


def test_the_page_asks_nothing_of_the_network(full: tuple[Path, str, Page]) -> None:
    out, text, parsed = full
    addresses = [
        value
        for _, attributes in parsed.tags
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "srcset", "action") and value
    ]
    assert addresses
    for address in addresses:
        assert address.startswith(("#", "data:image/")) or (out / address).is_file()
    assert not parsed.of("link", "iframe", "object", "base")
    assert "@import" not in text
    assert not re.findall(r"url\((?!#)", text)
    assert "default-src 'none'" in text


def test_references_inside_the_figures_resolve(full: tuple[Path, str, Page]) -> None:
    _, text, parsed = full
    ids = {attributes.get("id") for _, attributes in parsed.tags}
    wanted = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'href="#([^"]+)"', text))
    assert wanted
    assert wanted <= ids


def test_figures_have_words_and_tables_have_scoped_headers(full: tuple[Path, str, Page]) -> None:
    _, _, parsed = full
    pictures = [a for a in parsed.of("svg", "img") if a.get("role") in ("img", "group") or "alt" in a]
    assert len(pictures) == 4
    assert all(len(a.get("aria-label") or a.get("alt") or "") > 40 for a in pictures)
    assert all(a.get("scope") in ("row", "col", "colgroup") for a in parsed.of("th"))
    assert parsed.of("html")[0]["lang"] == "en"


def test_the_page_says_what_was_chosen_how_and_with_which_command(full: tuple[Path, str, Page]) -> None:
    _, text, _ = full
    for expected in (
        "Plain distillation gets its worst class right",
        "Test results took no part",
        "standard error",
        "Wilson",
        "Narasimhan &amp; Menon 2021",
        "robustdistill demo --repeats 3",
        "2.13.0+cpu",
        "learning rate",
        'class="small sortable"',
    ):
        assert expected in text


def test_other_people_s_text_is_escaped_everywhere(tmp_path: Path) -> None:
    names = [EVIL, "</svg><script>alert(2)</script>", '"><img src=x onerror=alert(3)>', "plain"]
    for repeat in range(2):
        for settings in ({"role": "teacher"}, {"objective": "standard"}, {"objective": "robust"}):
            content = record(
                data=EVIL, class_names=names, repeat=repeat, student_model="x:" + EVIL, method="margin", **settings
            )
            content["command"] = f"robustdistill train {EVIL}"
            content["environment"] = {EVIL: EVIL}
            content["spec"]["recipe"]["name"] = EVIL
            save(tmp_path / "runs", content)
    text, parsed = page(tmp_path)
    assert parsed.balanced
    assert len(parsed.of("script")) == 1
    assert not [a for _, a in parsed.tags if any(name.startswith("on") for name in a)]
    assert "alert(" in text


@pytest.mark.parametrize(
    "settings",
    [
        {"students": (), "temperatures": (), "repeats": 1},
        {"teachers": ("standard",), "repeats": 1},
        {"teachers": ("robust",), "students": (("standard", "one-hot"),), "repeats": 2},
        {"classes": 100, "repeats": 1, "teachers": ("standard", "robust"), "temperatures": (3.0,)},
        {"tested": False, "repeats": 1, "teachers": ("standard",)},
        {"classes": 2, "epochs": 1, "repeats": 1, "temperatures": (3.0,)},
    ],
)
def test_any_subset_of_cells_makes_a_page(settings: dict[str, Any], tmp_path: Path) -> None:
    journal(tmp_path / "runs", **settings)
    text, parsed = page(tmp_path)
    assert parsed.balanced
    assert len(text) < 2_000_000
    assert ">nan" not in text.lower()


def test_a_class_without_test_examples_is_a_dash(tmp_path: Path) -> None:
    for objective in ("standard", "robust"):
        content = record(objective=objective)
        metrics = content["metrics"]["test"]
        metrics["correct"][3] = metrics["counts"][3] = 0
        metrics |= {"worst_class": None, "balanced": None}
        save(tmp_path / "runs", content)
    text, parsed = page(tmp_path)
    assert parsed.balanced
    assert "– <span" in text


def test_several_comparisons_share_a_page_without_clashes(tmp_path: Path) -> None:
    for data in ("digits-lt", "cifar10-lt"):
        journal(tmp_path / "runs", data=data, repeats=1, temperatures=(3.0,))
    _, parsed = page(tmp_path)
    ids = [attributes["id"] for _, attributes in parsed.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert len([path for path in (tmp_path / "out" / "figures").iterdir() if path.is_dir()]) == 2


def test_the_worst_metric_may_be_worst_k(tmp_path: Path) -> None:
    journal(tmp_path / "runs", repeats=2, temperatures=(3.0,))
    text, _ = page(tmp_path, worst="worst_3")
    assert "Worst-3 accuracy on test" in text


def test_a_heavy_figure_is_embedded_as_a_picture(tmp_path: Path) -> None:
    svg, png = tmp_path / "x.svg", tmp_path / "x.png"
    svg.write_text("<svg>" + " " * 300_000 + "</svg>")
    png.write_bytes(b"\x89PNG")
    from robustdistill.report.page import embedded

    assert embedded(svg, png, "x", 'a "b"').startswith('<img class="raster" src="data:image/png;base64,')


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(InputError, match=r"no record\.json was found"):
        page(tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_report_needs_no_torch(tmp_path: Path) -> None:
    save(tmp_path / "runs", record("teacher", epochs=2))
    code = """
    import sys
    sys.modules["torch"] = None
    from robustdistill import report
    report.write(sys.argv[1], sys.argv[2])
    """
    arguments = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "runs"), str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(arguments, check=True, timeout=120, env=environment)
    assert (tmp_path / "out" / "index.html").is_file()


def test_extra_sections_join_the_page_and_only_markup_is_not_escaped(tmp_path: Path) -> None:
    save(tmp_path / "runs", record("teacher", epochs=1))
    extra = [
        report.ExtraSection("Beside the <paper>", Markup("<p class='mine'>{}</p>").format(EVIL), "paper"),
        report.ExtraSection("Plain", EVIL, "plain"),
    ]
    text, parsed = page(tmp_path, extra_sections=extra)
    assert parsed.balanced
    assert len(parsed.of("script")) == 1
    assert "<p class='mine'>" in text
    assert text.count("&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;") == 2
    ids = [attributes["id"] for _, attributes in parsed.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert {"paper", "plain"} <= set(ids)
    assert 'href="#paper"' in text


@pytest.mark.parametrize("anchors", [("a", "a"), ("claims",), ("No Good",)])
def test_anchors_must_be_distinct_and_plain(anchors: tuple[str, ...], tmp_path: Path) -> None:
    save(tmp_path / "runs", record("teacher", epochs=1))
    with pytest.raises(InputError, match="anchor"):
        page(tmp_path, extra_sections=[report.ExtraSection("x", "", anchor) for anchor in anchors])


def test_the_page_ends_with_the_claims(full: tuple[Path, str, Page]) -> None:
    _, text, _ = full
    positions = [text.index(claim.text) for claim in CLAIMS]
    assert positions == sorted(positions)
    assert positions[0] > text.index("How to read the figures</h2>")
    assert "Every claim is turned into one number for each repeat" in text
    assert "confirmed, " in text
    for expected in ("minimum is taken anew in every draw", "Paired bootstrap", "t(n − 1)", "not available, because"):
        assert expected in text


def test_the_plane_is_interactive_and_the_table_has_both_intervals(full: tuple[Path, str, Page]) -> None:
    _, text, parsed = full
    assert sum("data-plane" in a for _, a in parsed.tags) == 1
    assert "95 % over repeats" in text
    assert "95 % over examples" in text
    assert text.count("<details>") >= 15


def test_what_there_is_no_room_for_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal(tmp_path / "runs", repeats=1, temperatures=(3.0,), epochs=1)
    journal(tmp_path / "runs", repeats=1, temperatures=(3.0,), epochs=1, data="cifar10-lt", teachers=("standard",))
    for name, value in (("_SHOWN", 2), ("_DRAWN", 1), ("_FIGURE_BYTES", 30)):
        monkeypatch.setattr(f"robustdistill.report.page.{name}", value)
    text, parsed = page(tmp_path)
    assert parsed.balanced
    assert "3 further combinations" in text
    assert "No figures were drawn" in text
    assert text.count("Too large to be part of this page") == 3
    assert len((tmp_path / "out" / "table.csv").read_text().splitlines()) == 1 + 15 + 5


def test_comparisons_beyond_the_page_s_room_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for data in ("digits", "digits-lt", "cifar10"):
        save(tmp_path / "runs", record("teacher", epochs=1, data=data))
    monkeypatch.setattr("robustdistill.report.page._COMPARISONS", 2)
    text, parsed = page(tmp_path)
    assert parsed.balanced
    assert "in 2 comparisons" in text
    assert "of 3; table.csv has all" in text
    assert len((tmp_path / "out" / "table.csv").read_text().splitlines()) == 1 + 3


def test_histories_are_read_only_where_a_figure_needs_them(tmp_path: Path) -> None:
    journal(tmp_path / "runs", repeats=1, temperatures=(3.0,), epochs=2)
    assert all(not one.history for one in read(tmp_path / "runs"))
    text, _ = page(tmp_path)
    assert "Learning curves" in text
    assert "Multipliers over training" in text
