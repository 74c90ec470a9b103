"""How valid input is damaged: bytes of files, and trees of plain values."""

from __future__ import annotations

import copy
import struct
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

_NUMBERS = (0, 1, -1, 2, 127, 128, 255, 256, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1)
_FORMATS = ("<I", ">I", "<H", ">H", "<Q", ">Q")
TOKENS = (
    *(b"nan", b"inf", b"-inf", b"1e999", b"-0", b"0", b"-1", b"9" * 30, b"null", b"true", b"[]", b"{}", b'""', b'"'),
    *(b",", b"\n", b"\r", b"\t", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xe2\x80\xae", b"\xed\xa0\x80", b":", b"*"),
    *(b"a" * 300, b"[" * 300, b"&a ", b"*a", b"!!python/object:os.system", b"../../etc/passwd", b"/dev/zero", b"=1+1"),
)

# What may stand anywhere in a tree of plain values.
LEAVES = st.one_of(
    st.sampled_from(
        [None, True, False, 0, -1, 1, 2**31, 2**63, 2**70, 1e308, 1e-320, -0.0, float("inf"), float("nan"), 0.5, 1e9]
    ),
    st.sampled_from(
        ["", " ", "robust", "nan", "1", "a:b", "os:system", "../..", "\x00", "\ud800", "‮", "<script>", "x" * 300]
    ),
    st.sampled_from([[], {}, [[]], [None], {"": None}, [1, "a"], ["a"] * 40, {"a": {"b": {"c": []}}}]),
    st.integers(-3, 5),
    st.floats(),
    st.text(max_size=6),
)


@st.composite
def damaged(draw: st.DrawFn, seeds: Sequence[bytes], tokens: Sequence[bytes] = TOKENS) -> bytes:
    """One of the valid files `seeds`, changed in one to four places, or (seldom) bytes that were never one."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=80))
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        size = len(content)
        at, until = sorted((draw(st.integers(0, size)), draw(st.integers(0, size))))
        kind = draw(st.integers(0, 9))
        if kind <= 1 and at < size:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == 2 and at < size:
            content[at] = draw(st.integers(0, 255))
        elif kind == 3:
            number, form = draw(st.sampled_from(_NUMBERS)), draw(st.sampled_from(_FORMATS))
            word = struct.pack(form, number % (1 << 8 * struct.calcsize(form)))
            content[at : at + len(word)] = word
        elif kind == 4:
            del content[at:]
        elif kind == 5:
            del content[at : min(until, at + 64)]
        elif kind == 6:
            content[at:at] = content[at : min(until, at + 256)] * draw(st.integers(1, 3))
        elif kind == 7:
            content[at:at] = draw(st.sampled_from(tokens))
        elif kind == 8:
            content[at:] = draw(st.sampled_from(seeds))[at:]
        else:
            token = draw(st.sampled_from(tokens))
            content[at : at + len(token)] = token
    return bytes(content)


def _places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner: list[tuple[Any, ...]] = []
    if isinstance(tree, dict):
        inner = [place for key, value in tree.items() for place in _places(value, (*path, key))]
    elif isinstance(tree, list):
        inner = [place for index, value in enumerate(tree) for place in _places(value, (*path, index))]
    return [path, *inner] if path else inner


@st.composite
def twisted(draw: st.DrawFn, seeds: Sequence[Any]) -> Any:
    """One of the valid trees, with one to three of its values replaced, removed, renamed or swapped."""
    tree = copy.deepcopy(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 3))):
        places = _places(tree)
        if not places:
            return draw(LEAVES)
        path = draw(st.sampled_from(places))
        parent = tree
        for step in path[:-1]:
            parent = parent[step]
        kind = draw(st.integers(0, 5))
        if kind <= 2:
            parent[path[-1]] = copy.deepcopy(draw(LEAVES))  # a drawn list is the same one each time
        elif kind == 3:
            del parent[path[-1]]
        elif kind == 4 and isinstance(parent, dict):
            parent[draw(st.sampled_from(["", "x", "name", "data", "schema"]))] = copy.deepcopy(draw(LEAVES))
        else:
            other = draw(st.sampled_from(places))
            found = tree
            try:
                for step in other:
                    found = found[step]
            except (KeyError, IndexError, TypeError):
                continue  # it was below what has just been removed
            parent[path[-1]] = copy.deepcopy(found)
    return tree
