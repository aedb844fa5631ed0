"""Arrays inside a pickled object array (`.npy` of dtype object), one at a time, without unpickling anything.

A pickle is a program for a small stack machine, and `pickle.load` runs whatever that program names. This file
is a machine that knows only what numpy writes for arrays of numbers: any other instruction or name ends the
reading. It keeps one array in memory, so that a file of many gigabytes can be converted on a laptop.
"""

import pickletools
import re
import struct
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from feature_extraction.errors import UserError, reason_of

LARGEST_KEPT = 4096  # bytes; longer data are never referred to a second time by what numpy writes

# The only names that may stand in the file, under both of numpy's module paths
NAMES = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("numpy.core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy._core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy.core.numeric", "_frombuffer"): "frombuffer",
    ("numpy._core.numeric", "_frombuffer"): "frombuffer",
    ("_codecs", "encode"): "encode",  # how Python 3 writes bytes for Python 2 ...
    ("__builtin__", "bytes"): "bytes",  # ... and empty ones
}
PUSHED = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING",
}  # fmt: skip
CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
# What damaged instructions come to: too deep or too large as well as senseless
DAMAGE = (
    ValueError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError, RecursionError, struct.error,
)  # fmt: skip
NUMBERS = re.compile(r"[fiu][1248]|b1")


@dataclass
class _Global:
    kind: str


@dataclass
class _Dtype:
    code: str
    order: str = "<"


@dataclass
class _Array:
    number: int | None = None
    """Position among the arrays of numbers, in the order of the file."""
    items: list[Any] | None = None
    """What an array of objects holds."""


class _Tuple(tuple):
    """A tuple that knows from its making whether it is small: looking into nested ones again has no end."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.small = all(map(_small, self))


class _Refused(Exception):
    pass


def object_array_length(path: Path) -> int:
    """Entries of an object array, from its header. Raises `UserError` for any other file."""
    with _opened(path) as stream:
        return _header(stream, path)


def read_object_array(path: Path) -> Iterator[np.ndarray]:
    """The arrays of numbers in a one-dimensional object array, in order, each built when it is asked for.

    Raises `UserError` where the file is cut short, holds anything but arrays of numbers, or would run code.
    """
    with _opened(path) as stream:
        length = _header(stream, path)
        count = 0
        try:
            for array in _run(stream, length):
                count += 1
                yield array
        except _Refused as error:
            raise UserError(f"{path}: {error}; only arrays of numbers are read, and nothing is run") from None
        except DAMAGE as error:
            raise UserError(
                f"{path}: damaged or cut short after {count} of {length} arrays ({reason_of(error)})"
            ) from None


def _opened(path: Path) -> IO[bytes]:
    try:
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def array_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the `.npy` file that `stream` begins; raises whatever a damaged header comes to."""
    with warnings.catch_warnings():  # numpy warns of headers that Python 2 wrote, and reads them
        warnings.simplefilter("ignore")
        first = np.lib.format.read_magic(stream) == (1, 0)
        read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    return shape, dtype


def _header(stream: IO[bytes], path: Path) -> int:
    try:
        shape, dtype = array_header(stream)
    except (*DAMAGE, EOFError, SyntaxError, tokenize.TokenError) as error:
        raise UserError(f"{path}: not a .npy file ({reason_of(error, 120)})") from None
    if not dtype.hasobject or len(shape) != 1:
        raise UserError(f"{path}: expected a list of arrays (dtype object), found {dtype} {list(shape)}")
    return int(shape[0])


def _run(stream: IO[bytes], length: int) -> Iterator[np.ndarray]:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    count = 0
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if name in PUSHED:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in ("PROTO", "FRAME"):
            continue
        elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1] if _small(stack[-1]) else None
        elif name in ("BINGET", "LONG_BINGET"):
            if memo[argument] is None:
                raise _Refused("two arrays share their numbers")
            stack.append(memo[argument])
        elif name == "MARK":
            marks.append(len(stack))
        elif name in ("TUPLE", "LIST", "APPENDS"):
            at = marks.pop()
            items, stack[at:] = stack[at:], []
            if name == "APPENDS":
                stack[-1].extend(items)
            else:
                stack.append(_Tuple(items) if name == "TUPLE" else items)
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            size = int(name[-1])
            stack[-size:] = [_Tuple(stack[-size:])]
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "APPEND":
            item = stack.pop()
            stack[-1].append(item)
        elif name == "GLOBAL":
            stack.append(_known(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            stack[-2:] = [_known(stack[-2], stack[-1])]
        elif name in ("REDUCE", "BUILD"):
            last = stack.pop()
            made = _reduce(stack.pop(), last) if name == "REDUCE" else _build(stack.pop(), last)
            del last
            if isinstance(made, np.ndarray):
                stack.append(_Array(number=count))
                count += 1
                yield made
                del made
            else:
                stack.append(made)
        elif name == "STOP":
            outer = stack.pop()
        else:
            raise _Refused(f"holds the pickle instruction {name}")
    items = outer.items or []
    if len(items) != length or [getattr(item, "number", None) for item in items] != list(range(length)):
        raise _Refused("some entries are no arrays of numbers, or stand in it twice")


def _small(value: Any) -> bool:
    if isinstance(value, tuple):
        return isinstance(value, _Tuple) and value.small
    return not isinstance(value, (str, bytes, bytearray)) or len(value) <= LARGEST_KEPT


def _known(module: str, name: str) -> _Global:
    if (module, name) not in NAMES:
        raise _Refused(f"holds a Python object ({module}.{name})")
    return _Global(NAMES[module, name])


def _reduce(function: _Global, arguments: tuple[Any, ...]) -> Any:
    if function.kind == "reconstruct":
        return _Array()
    if function.kind == "dtype":
        return _Dtype(str(_text(arguments[0])))
    if function.kind == "bytes" and not arguments:
        return b""
    if function.kind == "encode" and arguments[1] == "latin1":
        return arguments[0].encode("latin-1")
    if function.kind == "frombuffer":
        buffer, dtype, shape, order = arguments
        return _numbers(buffer, dtype, shape, order == "F")
    raise _Refused(f"uses {function.kind} in a way that numpy does not")


def _build(target: Any, state: Any) -> Any:
    if isinstance(target, _Dtype):
        order = _text(state[1])
        return _Dtype(target.code, order if order in "<>" else "<")
    if not isinstance(target, _Array):
        raise _Refused("sets the state of something that is no array")
    _, shape, dtype, fortran, data = state
    if dtype.code.startswith("O"):
        return _Array(items=data)
    return _numbers(data, dtype, shape, bool(fortran))


def _numbers(data: Any, dtype: _Dtype, shape: tuple[int, ...], fortran: bool) -> np.ndarray:
    if not NUMBERS.fullmatch(dtype.code):
        raise _Refused(f"holds an array of type {dtype.code!r}")
    raw = data.encode("latin-1") if isinstance(data, str) else data  # Python 2's bytes are read as text
    flat = np.frombuffer(raw, np.dtype(dtype.order + dtype.code))
    return flat.reshape(shape, order="F" if fortran else "C")


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
