"""ND4J's binary arrays, as ``Nd4j.write`` leaves them: a buffer that describes the array, and one of its numbers.

Each buffer is the name of an allocation mode, a length, the name of a type, and big-endian numbers. The description is
``[rank, shape..., strides..., flags, element-wise stride, order]``. Whatever says the same twice must agree here: the
flags with the type, the shape with the length, the strides with the shape. So a damaged description is found; a
damaged number cannot be.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any

import numpy as np

from strombus.errors import DataError
from strombus.interchange.dl4j.binary import Input, text

__all__ = ["Header", "read_data", "read_header", "read_ndarray", "skip_data", "write_ndarray"]

_SHORT_LENGTHS = ("DIRECT", "HEAP", "JAVACPP")
"""Allocation modes before 1.0.0-beta, whose lengths have 4 bytes."""

_MODES = (*_SHORT_LENGTHS, "LONG_SHAPE", "MIXED_DATA_TYPES")
_CURRENT = "MIXED_DATA_TYPES"
_MOST_RANK = 32
_START, _LONG, _WINDOW = text(_CURRENT), text("LONG"), 256

_UNSIGNED = 0x800000
_TYPES = {
    "DOUBLE": ("f8", 0x4000),
    "FLOAT": ("f4", 0x2000),
    "HALF": ("f2", 0x1000),
    "BFLOAT16": ("u2", 0x800),
    "LONG": ("i8", 0x40000),
    "INT": ("i4", 0x20000),
    "SHORT": ("i2", 0x10000),
    "BYTE": ("i1", 0x8000),
    "UINT64": ("u8", 0x40000 | _UNSIGNED),
    "UINT32": ("u4", 0x20000 | _UNSIGNED),
    "UINT16": ("u2", 0x10000 | _UNSIGNED),
    "UBYTE": ("u1", 0x8000 | _UNSIGNED),
    "BOOL": ("u1", 0x80000),
}
"""DL4J's names: how the numbers are stored, and the flags that say so again."""

_TYPE_FLAGS = 0x1FF800 | _UNSIGNED
_NAMES = {
    np.dtype(bool): "BOOL",
    **{np.dtype(stored): name for name, (stored, _) in _TYPES.items() if name not in {"BFLOAT16", "BOOL"}},
}


@dataclass(frozen=True, slots=True)
class Header:
    """What an array's description says, checked.

    Attributes
    ----------
    shape, strides : tuple of int
        Strides count elements.
    type : str
        DL4J's name.
    order : {"c", "f"}
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    type: str
    order: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """What `read_data` gives; NumPy has no bfloat16, whose values float32 holds exactly."""
        special = {"BOOL": np.dtype(bool), "BFLOAT16": np.dtype(np.float32)}
        return special.get(self.type, np.dtype(_TYPES[self.type][0]))

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def contiguous(self) -> bool:
        """Whether the numbers lie in C order, whatever `order` says."""
        step = 1
        for length, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if length != 1 and stride != step:
                return not self.size
            step *= length
        return True

    @property
    def by_rows(self) -> bool:
        """Whether the numbers of each entry of the first axis lie together, one entry after the other."""
        return self.shape[0] <= 1 or self.strides[0] == self.size // self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers as stored."""
        return self.size * np.dtype(_TYPES[self.type][0]).itemsize


def read_ndarray(source: Any, name: str = "the array") -> Any:
    """Read one array.

    Parameters
    ----------
    source : Input, bytes-like or binary file
        An `Input` is left after the array; of anything else the array must be all there is.
    name : str
        What errors call a source that is no `Input`.

    Returns
    -------
    ndarray
        In DL4J's shape, in the order it was stored in (C, Fortran or another permutation of the axes), in this
        machine's byte order; BFLOAT16 as float32. May be a read-only view of `source`.

    Raises
    ------
    DataError
        Names the byte and the reason: cut short, an unknown type, lengths, shape or strides that contradict each other.
    """
    if isinstance(source, Input):
        return read_data(source, read_header(source))
    stream = Input(source, name)
    found = read_data(stream, read_header(stream))
    if stream.remaining:
        raise stream.fail(f"{stream.remaining:,} bytes follow the array, where it should end")
    return found


def read_header(stream: Input) -> Header:
    """Read an array's description, up to its first number.

    Raises
    ------
    DataError
        When it contradicts itself or the bytes that are left.
    """
    head = _usual_head(stream.peek(_WINDOW))
    header = _known_header(head) if head else None
    if header is None:
        header = _checked_header(stream)
    else:
        stream.take(len(head), "the shape")
    stream.need(header.nbytes, f"an array of shape {list(header.shape)} and type {header.type}")
    return header


def _usual_head(window: bytes) -> bytes:
    """Return the bytes before the first number, where they are as 1.0.0 writes them and all in the window."""
    if not window.startswith(_START) or window[26:32] != _LONG:
        return b""
    end = 32 + 8 * int.from_bytes(window[18:26], "big")
    if window[end : end + 18] != _START:
        return b""
    return window[: end + 28 + int.from_bytes(window[end + 26 : end + 28], "big")]


@lru_cache(maxsize=256)
def _known_header(head: bytes) -> Header | None:
    """Return the header in these bytes; the files of an export have few different ones, all but a few repeated."""
    try:
        return _checked_header(Input(head))
    except DataError:
        return None  # said again where the place in the file is known


def _checked_header(stream: Input) -> Header:
    start = stream.offset
    mode, length, kind = _buffer(stream, "the length of the shape")
    if kind not in {"LONG", "INT"} or not 4 <= length <= 2 * _MOST_RANK + 4:
        raise stream.fail(f"no array starts here: its shape would be {length:,} numbers of type {kind}", start)
    integer = "q" if kind == "LONG" else "i"
    numbers = struct.unpack(f">{length}{integer}", stream.take(length * struct.calcsize(integer), "the shape"))
    rank, flags, order = numbers[0], numbers[-3], numbers[-1]
    if length != 2 * rank + 4 or order not in (99, 102):
        raise stream.fail(
            f"the shape {list(numbers)} contradicts itself: rank {rank} of {length} numbers, order {order}", start
        )
    _, count, name = _buffer(stream, "the number of numbers")
    shape, strides = numbers[1 : 1 + rank], numbers[1 + rank : 1 + 2 * rank]
    if problem := _problem(shape, strides, count) or _type_problem(name, flags if mode == _CURRENT else 0):
        raise stream.fail(problem, start)
    return Header(shape, strides, name, chr(order))


def _buffer(stream: Input, what: str) -> tuple[str, int, str]:
    """Read the head of a buffer: allocation mode, length and type."""
    start = stream.offset
    mode = stream.text("an allocation mode")
    if mode not in _MODES:
        raise stream.fail(f"an allocation mode of DL4J ({', '.join(_MODES)}) must stand here, got {mode!r}", start)
    length = stream.unpack("i" if mode in _SHORT_LENGTHS else "q", what)
    return mode, length, stream.text("a type")


def _problem(shape: tuple[int, ...], strides: tuple[int, ...], count: int) -> str | None:
    """Say why these strides do not visit each of `count` numbers once."""
    if min(shape, default=0) < 0 or min(strides, default=0) < 0:
        return f"no array has the shape {list(shape)} and the strides {list(strides)}"
    if math.prod(shape) != count:
        return f"an array of shape {list(shape)} has {math.prod(shape):,} numbers, the file says {count:,}"
    expected = 1
    for stride, length in sorted((s, n) for s, n in zip(strides, shape, strict=True) if n != 1):
        if stride != expected and count:
            return f"the strides {list(strides)} of shape {list(shape)} leave numbers out, or repeat or pass them"
        expected *= length
    return None


def _type_problem(name: str, flags: int) -> str | None:
    if name not in _TYPES:
        return f"arrays of type {name!r} cannot be read; those of {', '.join(_TYPES)} can"
    said = flags & _TYPE_FLAGS
    if said and said != _TYPES[name][1]:
        meant = next((other for other, (_, bits) in _TYPES.items() if bits == said), f"{said:#x}")
        return f"the array is of type {meant} by its flags, of type {name} by its name"
    if flags & 6:
        return "the array is compressed or sparse; write it dense with DL4J first"
    return None


def read_data(stream: Input, header: Header, place: Any = None) -> Any:
    """Read the numbers that follow a header, into `place` where one is given; see `read_rows` for which may have one.

    Raises
    ------
    DataError
        When the bytes end, or a BOOL is neither 0 nor 1.
    """
    start = stream.offset
    flat = stream.array(
        _TYPES[header.type][0], header.size, "the numbers", None if place is None else place.reshape(-1)
    )
    if header.type == "BFLOAT16":
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    elif header.type == "BOOL":
        if flat.size and int(flat.max()) > 1:
            wrong = int(np.argmax(flat > 1))
            raise stream.fail(f"a BOOL must be 0 or 1, got {int(flat[wrong])}", start + wrong)
        flat = flat.view(bool)
    if header.contiguous:
        return flat.reshape(header.shape)
    strides = [s * flat.itemsize if n > 1 else flat.itemsize for s, n in zip(header.strides, header.shape, strict=True)]
    return np.lib.stride_tricks.as_strided(flat, header.shape, strides, writeable=flat.flags.writeable)


def skip_data(stream: Input, header: Header) -> None:
    """Pass over the numbers that follow a header."""
    stream.skip(header.nbytes, "the numbers")


def write_ndarray(target: IO[bytes], array: Any, order: str | None = None) -> None:
    """Write one array as ``Nd4j.write`` of 1.0.0-M2 does, byte for byte.

    Parameters
    ----------
    target : binary file
    array : array_like
        Booleans, integers, float16, float32 or float64.
    order : {"c", "f"}, optional
        How the numbers lie; by default Fortran's where the array lies so, else C's.

    Raises
    ------
    DataError
        For another dtype or more than 32 axes.
    """
    values = np.asarray(array)
    name = _NAMES.get(values.dtype.newbyteorder("="))
    if name is None or values.ndim > _MOST_RANK:
        raise DataError(
            f"ND4J arrays have at most {_MOST_RANK} axes of numbers, got {values.ndim} of dtype {values.dtype}"
        )
    if order is None:
        order = "f" if values.flags.f_contiguous and not values.flags.c_contiguous else "c"
    strides = _strides(values.shape, order)
    shape_info = (values.ndim, *values.shape, *strides, _TYPES[name][1], 1, ord(order))
    _write_head(target, len(shape_info), "LONG")
    target.write(struct.pack(f">{len(shape_info)}q", *shape_info))
    _write_head(target, values.size, name)
    stored = values.astype(np.dtype(_TYPES[name][0]).newbyteorder(">"), copy=False)
    target.write(stored.tobytes("F" if order == "f" else "C"))


def _write_head(target: IO[bytes], length: int, kind: str) -> None:
    target.write(text(_CURRENT) + struct.pack(">q", length) + text(kind))


def _strides(shape: tuple[int, ...], order: str) -> list[int]:
    """Return strides as ND4J has them: all 1 for a vector, whatever its rank."""
    if sum(length != 1 for length in shape) <= 1:
        return [1] * len(shape)
    strides, step = [0] * len(shape), 1
    for axis in range(len(shape)) if order == "f" else reversed(range(len(shape))):
        strides[axis] = step
        step *= shape[axis]
    return strides
