"""Reading pickles that hold lists, text, ints and arrays, without what makes pickles dangerous.

A pickle is a program for a small stack machine. Python's own machine calls whatever the program names, and where it
may name nothing it can be made to fill the memory with a memo of four billion places, or to hash tuples of tuples
without end. So it is not used here: `pickletools` takes the program apart, and the machine below knows the few
instructions that lists, dicts, text, ints and arrays are made of. None of them calls anything, makes more than the file
has bytes for, or looks into what is nested.
"""

from __future__ import annotations

import io
import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from robustdistill.errors import InputError

# CIFAR-100's 50,000 pictures take 300,000. Each costs about a microsecond and a hundred bytes.
MOST_INSTRUCTIONS = 5_000_000


def load_dict(content: bytes, where: str) -> dict[str, Any]:
    """The dict in a pickle of lists, bytes, text, ints, dicts and NumPy arrays; keys as text.

    Raises:
        InputError: truncated, no pickle, no dict, or anything else is in it; the refused global is named.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in texts that are damaged, which are refused in words of ours
            loaded = _Machine(content).run()
        if not isinstance(loaded, dict):
            raise InputError(f"expected a pickled dict, got {type(loaded).__name__}")
        found = {_key(key): _array(value) if isinstance(value, _Array) else value for key, value in loaded.items()}
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, MemoryError) as error:
        raise InputError(f"{where}: truncated, or not a pickle of lists and arrays ({error})") from error
    return found


def _key(key: object) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)


@dataclass(eq=False)
class _Global:
    """One of the few functions that arrays are pickled with, by name; none is ever called."""

    name: str


@dataclass(eq=False)
class _DType:
    code: str


@dataclass(eq=False)
class _Array:
    """What BUILD says of an array: version, shape, number type, order and bytes. None before it has."""

    state: tuple[Any, ...] | None = None


_MAKE_ARRAY = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_GLOBALS = (*_MAKE_ARRAY, "numpy ndarray", "numpy dtype", "_codecs encode")
_NUMBERS = ("u1", "i1", "|u1", "|i1", "i4", "i8", "f4", "f8")


def _array(array: _Array) -> npt.NDArray[Any]:
    if array.state is None:
        raise InputError("an array without contents")
    _, shape, dtype, fortran, raw = array.state
    if not isinstance(dtype, _DType) or not isinstance(raw, bytes):
        raise InputError(f"an array of {type(dtype).__name__} and {type(raw).__name__}; expected a dtype and bytes")
    flat = np.frombuffer(raw, dtype=dtype.code)
    return flat.reshape(shape, order="F" if fortran else "C")


_MARK = object()


class _Machine:
    """The stack machine of pickles, with the instructions that make plain values only."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._encoded = 0  # bytes made from text so far: that may be asked of one text again and again

    def run(self) -> Any:
        program = pickletools.genops(io.BytesIO(self._content))
        for count, (instruction, argument, position) in enumerate(program):
            name = instruction.name
            if count == MOST_INSTRUCTIONS:
                raise InputError(f"refused: the pickle has more than {MOST_INSTRUCTIONS:,} instructions")
            if name == "STOP":
                return self._stack.pop()
            if name in _LITERALS:
                self._stack.append(_LITERALS[name](argument))
            elif (step := _STEPS.get(name)) is not None:
                step(self, argument)
            else:
                raise InputError(f"refused: the pickle's instruction {name} at byte {position} makes no plain value")
        raise InputError("truncated")  # genops itself says so, of all that does not end with STOP

    def _since_mark(self) -> list[Any]:
        """Takes what lies above the last mark, and the mark."""
        start = len(self._stack) - 1
        while self._stack[start] is not _MARK:
            start -= 1
            if start < 0:
                raise InputError("a pickle without a mark where it needs one")
        items = self._stack[start + 1 :]
        del self._stack[start:]
        return items

    def _mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def _put(self, place: Any) -> None:
        self._memo[len(self._memo) if place is None else int(place)] = self._stack[-1]

    def _get(self, place: Any) -> None:
        self._stack.append(self._memo[int(place)])

    def _tuple(self, count: int | None) -> None:
        items = self._since_mark() if count is None else [self._stack.pop() for _ in range(count)][::-1]
        self._stack.append(tuple(items))

    def _list(self, _: Any) -> None:
        self._stack.append(self._since_mark())

    def _append(self, _: Any) -> None:
        item = self._stack.pop()
        self._top(list).append(item)

    def _appends(self, _: Any) -> None:
        items = self._since_mark()
        self._top(list).extend(items)

    def _dict(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append({})
        self._set(items)

    def _set_item(self, _: Any) -> None:
        self._set([self._stack.pop() for _ in range(2)][::-1])

    def _set_items(self, _: Any) -> None:
        self._set(self._since_mark())

    def _set(self, items: list[Any]) -> None:
        into = self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, bytes | str):  # Hashing a tuple of tuples of tuples can take for ever.
                raise InputError(f"refused: a key of a dict that is {type(key).__name__}; expected text")
            into[key] = value

    def _top(self, kind: type) -> Any:
        if type(self._stack[-1]) is not kind:
            raise InputError(f"a pickle that adds to {type(self._stack[-1]).__name__} as if it were a {kind.__name__}")
        return self._stack[-1]

    def _global(self, name: str) -> None:
        if name not in _GLOBALS:
            asked = name.replace(" ", ".", 1)
            raise InputError(f"refused: the pickle asks for {asked}, which is neither a list nor an array")
        self._stack.append(_Global(name))

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise InputError("refused: the pickle asks for a function without a name")
        self._global(f"{module} {name}")

    def _reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise InputError(f"refused: the pickle calls {type(function).__name__}")
        if function.name in _MAKE_ARRAY:
            self._stack.append(_Array())
        elif function.name == "numpy dtype":
            self._stack.append(_DType(_number_type(arguments[0])))
        elif function.name == "_codecs encode":
            self._stack.append(self._encode(*arguments))
        else:
            raise InputError(f"refused: the pickle calls {function.name.replace(' ', '.')}")

    def _encode(self, text: Any, encoding: Any) -> bytes:
        """Python 3 writes bytes into old pickle protocols as text to be encoded in Latin-1."""
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise InputError(f"refused: the pickle encodes {type(text).__name__} in another way; expected 'latin1'")
        self._encoded += len(text)
        if self._encoded > len(self._content):
            raise InputError("refused: the pickle makes more bytes of its text than it has")
        return text.encode("latin1")

    def _build(self, _: Any) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, _Array) and isinstance(state, tuple) and len(state) == 5:
            target.state = state
        elif isinstance(target, _DType) and isinstance(state, tuple) and len(state) > 1:
            if state[1] not in (b"|", b"<", "|", "<"):
                raise InputError("refused: an array of another byte order; expected little-endian")
        else:
            what = target.name.replace(" ", ".") if isinstance(target, _Global) else "an array or something else"
            raise InputError(f"refused: the pickle sets the state of {what}")


def _number_type(code: Any) -> str:
    text = code.decode("latin1") if isinstance(code, bytes) else code
    if not isinstance(text, str) or text not in _NUMBERS:
        raise InputError(f"refused: an array of dtype {text if isinstance(text, str) else type(text).__name__!r}"[:200])
    return text


def _same(value: Any) -> Any:
    return value


def _old_text(text: str) -> bytes:
    """Python 2's text is bytes."""
    return text.encode("latin1")


_LITERALS: dict[str, Callable[[Any], Any]] = {
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_LIST": lambda _: [],
    "EMPTY_DICT": lambda _: {},
    "EMPTY_TUPLE": lambda _: (),
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"), _same),
    **dict.fromkeys(("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), _same),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"), _same),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), _old_text),
}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, _: None),
    "MARK": _Machine._mark,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine._put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine._get),
    "TUPLE": lambda machine, _: machine._tuple(None),
    "TUPLE1": lambda machine, _: machine._tuple(1),
    "TUPLE2": lambda machine, _: machine._tuple(2),
    "TUPLE3": lambda machine, _: machine._tuple(3),
    "LIST": _Machine._list,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "DICT": _Machine._dict,
    "SETITEM": _Machine._set_item,
    "SETITEMS": _Machine._set_items,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._reduce,
    "BUILD": _Machine._build,
}
