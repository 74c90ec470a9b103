"""Reading pickles that hold lists, text, ints and arrays, without what makes pickles dangerous."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from robustdistill.errors import InputError


def load_dict(content: bytes, where: str) -> dict[str, Any]:
    """The dict in a pickle of lists, bytes, text, ints, dicts and NumPy arrays; keys as text.

    Raises:
        InputError: truncated, no pickle, no dict, or anything else is in it; the refused global is named.
    """
    try:
        loaded = _PlainUnpickler(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(loaded, dict):
            raise InputError(f"expected a pickled dict, got {type(loaded).__name__}")
        arrays = {key: value.array if isinstance(value, _Array) else value for key, value in loaded.items()}
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
        IndexError,
        ImportError,
        OverflowError,
        MemoryError,
    ) as error:
        raise InputError(f"{where}: truncated, or not a pickle of lists and arrays ({error})") from error
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in arrays.items()}


class _PlainUnpickler(pickle.Unpickler):
    """Admits NumPy's array reconstruction by stand-ins, and no other global.

    NumPy's own functions are never called: a crafted dtype state can make them read pointers out of the file.
    """

    def find_class(self, module: str, name: str) -> Any:
        stand_in = _STAND_INS.get((module, name))
        if stand_in is None:
            raise InputError(f"refused: the pickle asks for {module}.{name}, which is neither a list nor an array")
        return stand_in


class _Array:
    """Stands in for a NumPy array while it is unpickled."""

    __slots__ = ("array",)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        flat = np.frombuffer(raw, dtype=dtype.code)
        self.array = flat.reshape(shape, order="F" if fortran else "C")


class _DType:
    """Stands in for a NumPy dtype: a plain number type, whose further state says nothing more than its byte order."""

    __slots__ = ("code",)

    def __init__(self, code: bytes | str) -> None:
        text = code.decode("ascii") if isinstance(code, bytes) else str(code)
        if text not in ("u1", "i1", "|u1", "|i1", "i4", "i8", "f4", "f8"):
            raise InputError(f"refused: an array of dtype {text!r}; expected plain numbers")
        self.code = text

    def __setstate__(self, state: Any) -> None:
        if state[1] not in (b"|", b"<", "|", "<"):
            raise InputError(f"refused: an array of byte order {state[1]!r}; expected little-endian")


class _StandIn:
    """A callable for the unpickler that carries no state which a pickle could change."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise InputError("refused: the pickle sets the state of a function")


class _Marker(_StandIn):
    __slots__ = ()


class _MakeArray(_StandIn):
    __slots__ = ()

    def __call__(self, kind: Any, shape: Any, code: Any) -> _Array:
        return _Array()


class _MakeDType(_StandIn):
    __slots__ = ()

    def __call__(self, code: Any, align: Any = 0, copy: Any = 1) -> _DType:
        return _DType(code)


class _Encode(_StandIn):
    """Python 3 writes bytes into old pickle protocols as text to be encoded in Latin-1."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str | bytes) -> bytes:
        if encoding not in ("latin1", b"latin1"):
            raise InputError(f"refused: the pickle encodes text as {encoding!r}; expected 'latin1'")
        return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], _StandIn] = {
    ("numpy.core.multiarray", "_reconstruct"): _MakeArray(),
    ("numpy._core.multiarray", "_reconstruct"): _MakeArray(),
    ("numpy", "ndarray"): _Marker(),
    ("numpy", "dtype"): _MakeDType(),
    ("_codecs", "encode"): _Encode(),
}
