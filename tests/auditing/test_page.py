from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import robustdistill as rd
from auditing.reference import made_up
from parsed import Page
from robustdistill.auditing import words

EVIL = '<script>alert("x")</script>'


def evil(groups: bool = True) -> rd.Predictions:
    table = made_up(200, groups=groups)
    names = (EVIL, "a & b", "it's", 'say "x"')
    owner = None if table.groups is None else [EVIL if name == "north" else name for name in table.groups]
    return replace(table, class_names=names, groups=owner)


def check(page: Page) -> None:
    assert page.balanced
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert not re.search(r"https?://(?!www\.w3\.org)", page.source)
    assert not [tag for tag, attributes in page.tags if "src" in attributes or tag == "link"]
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert EVIL in page.text
    assert "nan" not in re.findall(r'style="([^"]*)"', page.source.lower())
    assert "None" not in page.text
    for heading in (attributes["aria-labelledby"] for _, attributes in page.tags if "aria-labelledby" in attributes):
        assert heading in ids


def test_the_page_of_an_audit_is_whole_escaped_and_alone(tmp_path: Path) -> None:
    found = rd.audit(evil(), name=EVIL, draws=100, teacher=True)
    page = Page(found.write_html(tmp_path / "audit" / "index.html"))
    check(page)
    for heading in (
        "Every class",
        "Every group",
        "Every class within each group",
        "As a teacher",
        "Confidence against",
    ):
        assert heading in page.text
    assert f"{100 * found.values()['worst_class']:.1f}" in page.text
    again = found.write_html(tmp_path / "again.html").read_text(encoding="utf-8")
    assert again == page.source


def test_the_page_of_a_comparison(tmp_path: Path) -> None:
    table = evil(groups=False)
    other = replace(table, scores=table.scores[:, ::-1] + 2 * table.scores)
    found = rd.compare(table, other, names=(EVIL, "b"), draws=100)
    page = Page(found.write_html(tmp_path / "index.html"))
    check(page)
    assert "paired bootstrap" in page.text


@pytest.mark.parametrize("classes", [2, 40])
def test_few_and_many_classes_and_no_probabilities(tmp_path: Path, classes: int) -> None:
    table = made_up(400, classes, kind="classes")
    page = Page(rd.audit(table, draws=100).write_html(tmp_path / "index.html"))
    assert page.balanced
    assert ("matrix" in [attributes.get("id") for _, attributes in page.tags]) == (classes == 2)
    assert "ECE" not in "".join(tag for tag, _ in page.tags)
    assert "Confidence against accuracy" not in page.text


def test_a_class_without_examples_is_shown_as_such(tmp_path: Path) -> None:
    table = made_up(100)
    found = rd.audit(table.rows(table.labels != 2), draws=100)
    page = Page(found.write_html(tmp_path / "index.html"))
    assert page.balanced
    assert "none seen" in page.text
    assert "unknown: a class has no examples" in page.text


def test_sentences_say_what_the_numbers_support() -> None:
    bad = rd.Predictions(range(400), [0] * 100 + [1] * 300, "classes", ("a", "b"), [0] * 100 + [1] * 150 + [0] * 150)
    found = rd.audit(bad, draws=100)
    assert words.headline(found) == "The worst class, a, is right on 40 % of its examples (95 %: 34 to 46 %)."
    assert "a is credibly the worst class: probability > 99 %" in words.details(found)[0]
    alike = rd.Predictions(range(400), [0, 1] * 200, "classes", ("a", "b"), [0, 0, 1, 1] * 100)
    assert "it may not be the worst" in words.headline(rd.audit(alike, draws=100))
    assert "not settled" in words.details(rd.audit(alike, draws=100))[0]
    assert [words.rounded(value) for value in (7, 41, 123, 98_765, float("inf"))] == [
        "7", "41", "130", "99,000", "over 1,000,000",
    ]  # fmt: skip
