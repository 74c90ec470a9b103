"""Pickles made to run code, to fill the memory or never to end; and that the machine reads what Python's own writes."""

from __future__ import annotations

import pickle
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustdistill.data import pickles
from robustdistill.data.pickles import load_dict
from robustdistill.errors import InputError

RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
ARRAY = RECONSTRUCT + b"(cnumpy\nndarray\n(I0\ntS'b'\ntR"


class Calls:
    """Pickled, it is a call of a function when it is read."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("place", ["value", "key", "deep", "state"])
def test_no_call_is_made(protocol: int, place: str, tmp_path: Path) -> None:
    target = tmp_path / "made"
    call: Any = Calls(Path.mkdir, target)
    bad = {"value": {"a": call}, "key": {call: 1}, "deep": {"a": [({"b": [call]},)]}, "state": {"a": np.array([call])}}
    content = pickle.dumps(bad[place], protocol=protocol)
    with pytest.raises(InputError, match="refused"):
        load_dict(content, "x")
    assert not target.exists()
    if place == "value":
        pickle.loads(content)  # so it would have been made
        assert target.exists()


REFUSED = {
    "a global by name": b"cos\nsystem\n(S'id'\ntR.",
    "a global from the stack": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.",
    "a global from the memo": b"\x80\x04\x8c\x02os\x94\x8c\x06system\x940h\x00h\x01\x93.",
    "a global whose name is no text": b"\x80\x04]]\x93.",
    "a global inside an admitted module": b"cnumpy\nload\n(S'/etc/passwd'\ntR.",
    "a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.",
    "an attribute of an admitted function": b"\x80\x04\x8c\x05numpy\x8c\x09dtype.mro\x93.",
    "an instance": b"(ios\nsystem\n.",
    "an object": b"(cos\nsystem\no.",
    "a new object": b"\x80\x02cnumpy\nndarray\n)\x81.",
    "a new object with keywords": b"\x80\x04cnumpy\nndarray\n)}\x92.",
    "an extension": b"\x80\x02\x82\x01.",
    "a persistent id": b"Pid\n.",
    "a persistent id from the stack": b"S'id'\nQ.",
    "a call of what was made": ARRAY + b"(tR.",
    "a call of a marker": b"cnumpy\nndarray\n(tR.",
    "state of a dict": b"}}b.",
    "state of a function": b"cnumpy\ndtype\n(S'|'\nS'|'\ntb.",
    "an array of objects": b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR.",
    "an array of pointers": b"cnumpy\ndtype\n(S'V8'\nI0\nI1\ntR.",
    "a codec": b"c_codecs\nencode\n(Vx\nS'bz2'\ntR.",
    "a set": b"\x80\x04\x8f.",
    "a buffer of somebody else's": b"\x80\x05\x97.",
    "a key that is a list": b"}]I1\ns.",
    "a key that is a tuple": b"}))\x86I1\ns.",
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    with pytest.raises(InputError, match="x: refused: "):
        load_dict(REFUSED[name], "x")


BROKEN = {
    "nothing": b"",
    "a stack that is empty": b"a.",
    "a memo that is empty": b"h\x07.",
    "no mark": b"]e.",
    "items of something else": b"}(I1\ne.",
    "an odd dict": b"}(S'a'\nu.",
    "an array without contents": b"}S'a'\n" + ARRAY + b"s.",
    "an array of too little": b"}S'a'\n" + ARRAY + b"(I1\n(I9\ntcnumpy\ndtype\n(S'u1'\ntRI00\nS'abc'\ntbs.",
    "an array that is no bytes": b"}S'a'\n" + ARRAY + b"(I1\n(I9\ntcnumpy\ndtype\n(S'u1'\ntRI00\n]tbs.",
    "a shape beyond all numbers": b"}S'a'\n"
    + ARRAY
    + b"(I1\n(L"
    + b"9" * 400
    + b"L\ntcnumpy\ndtype\n(S'u1'\ntRI00\nS'abc'\ntbs.",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken(name: str) -> None:
    with pytest.raises(InputError, match=r"^x: "):
        load_dict(BROKEN[name], "x")


def encoded(times: int) -> bytes:
    """One text of 1 MB, made into bytes again and again."""
    text = b"X" + struct.pack("<I", 1_000_000) + b"a" * 1_000_000
    return text + b"q\x000}U\x01a](" + b"c_codecs\nencode\n(h\x00U\x06latin1tR" * times + b"es."


BOMBS = {
    "a memo of four billion places": b"}r\xff\xff\xff\xff.",
    "bytes that are not there": b"\x8e" + struct.pack("<Q", 2**62) + b".",
    "text that is not there": b"X\xff\xff\xff\xff.",
    "a frame that is not there": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b".",
    "an integer of four billion bytes": b"\x8b\xff\xff\xff\x7f.",
    "an integer of a million digits": b"I" + b"9" * 1_000_000 + b"\n.",
    "a long of a million digits": b"L" + b"9" * 1_000_000 + b"L\n.",
    "a list within itself": b"}U\x01a]q\x00h\x00as.",
    "lists a hundred thousand deep": b"}U\x01a" + b"]" * 100_000 + b"a" * 99_999 + b"s.",
    "tuples a hundred thousand deep": b"}U\x01a)" + b"\x85" * 100_000 + b"s.",
    "tuples a hundred thousand deep as a key": b"})" + b"\x85" * 100_000 + b"I1\ns.",
    "tuples that double forty times as a key": b"})" + b"q\x00h\x00\x86" * 40 + b"I1\ns.",
    "tuples that double forty times": b"}U\x01a)" + b"q\x00h\x00\x86" * 40 + b"s.",
    "a hundred thousand empty lists": b"}U\x01a](" + b"]" * 100_000 + b"es.",
    "one text made into bytes a thousand times": encoded(1000),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_read_or_refused_in_little_time_and_memory(name: str) -> None:
    content, began = BOMBS[name], time.process_time()
    tracemalloc.start()
    try:
        load_dict(content, "x")
    except InputError as error:
        assert len(str(error)) < 1000  # noqa: PT017, both are right
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150 * len(content) + 2**20
    assert time.process_time() - began < 10  # about 1 s under tracemalloc, for 100,000 instructions


def test_instructions_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MOST_INSTRUCTIONS", 100)
    assert load_dict(b"}.", "x") == {}
    with pytest.raises(InputError, match="more than 100 instructions"):
        load_dict(b"}U\x01a](" + b"N" * 100 + b"es.", "x")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.binary(min_size=1) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.binary(min_size=1), inner) | st.tuples(inner, inner),
)


@given(st.dictionaries(st.text(), values), st.sampled_from([0, 1, 2, 3, 4, 5]))
def test_plain_values_are_what_pythons_own_machine_makes_of_them(value: dict[str, Any], protocol: int) -> None:
    assert load_dict(pickle.dumps(value, protocol=protocol), "x") == value


@given(st.binary(max_size=60), st.integers(0, 400), st.integers(0, 255))
def test_whatever_the_bytes_are(tail: bytes, position: int, byte: int) -> None:
    """Accepted or refused with our error, never another one."""
    whole = bytearray(pickle.dumps({"data": np.arange(6, dtype=np.uint8), "labels": [1, 2]}, protocol=2))
    whole[position % len(whole)] = byte
    for content in (bytes(whole), bytes(whole)[:position] + tail):
        try:
            load_dict(content, "x")
        except InputError as error:
            assert str(error).startswith("x: ")  # noqa: PT017
