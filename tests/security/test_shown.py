from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from robustdistill.shown import in_line, shown

# Signs that are seen although Unicode files them among formats: numbers in Arabic, Syriac, Kaithi and hieroglyphs.
SEEN = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD, *range(0x13430, 0x13440)}


def test_every_character_that_cannot_be_seen_is_named() -> None:
    left = {
        code
        for code in range(0x110000)
        if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp") and shown(chr(code)) == chr(code)
    }
    assert left - SEEN == {0x09, 0x0A}
    assert in_line("\t\n") == "‹U+0009›‹U+000A›"


@given(st.text(st.characters(exclude_categories=[])))
def test_once_is_enough_and_the_rest_stays(text: str) -> None:
    once = shown(text)
    assert shown(once) == once
    assert in_line(in_line(text)) == in_line(text)
    once.encode()  # no lone halves
    kept = [character for character in text if character.isprintable() and unicodedata.category(character) != "Lo"]
    assert [character for character in kept if character in once] == kept


def test_scripts_keep_their_joiners_and_names_cannot_hide_behind_them() -> None:
    for spelt in ("می\u200cخواهم", "👩\u200d🚀", "क्\u200dष"):
        assert shown(spelt) == spelt
    assert shown("ca\u200ct\u200d") == "ca‹U+200C›t‹U+200D›"
