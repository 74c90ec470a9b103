from __future__ import annotations

from pathlib import Path

import pytest

from robustdistill import methods
from robustdistill.methods import cards

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_committed_page_is_the_one_of_the_cards() -> None:
    assert PAGE.read_text(encoding="utf-8") == cards.markdown(), (
        "write it anew: python -m robustdistill.methods.cards > docs/methods.md"
    )


@pytest.mark.parametrize("name", methods.known())
def test_a_row_and_a_section_with_every_setting(name: str) -> None:
    page = cards.markdown()
    method = methods.known()[name]
    assert page.count(f"| [`{name}`](#{name}) |") == 1
    section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
    assert method.card.equation in section
    for setting, (default, meaning) in cards.settings(method).items():
        assert getattr(methods.get(name), setting) == default
        assert f"- `{setting}=" in section
        assert meaning.endswith(".")


def test_rows_of_the_table_have_their_cells() -> None:
    rows = [line for line in cards.markdown().splitlines() if line.startswith("|")]
    assert {row.replace("\\|", "").count("|") for row in rows} == {7}


def test_the_page_is_no_method() -> None:
    assert "cards" not in methods.known()
    assert not any(name.startswith("part") for name in methods.known())
