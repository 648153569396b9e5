"""An update as bytes: a fixed header, its thresholds, and a body; pure functions that trust nothing they read.

Little-endian. Header: encoding (u8), element type (u8), a parameter of the encoding (u8), zero (u8), elements (u32),
codes (u32), thresholds (u32). Then the thresholds in the element type, then the body.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from strombus.compression.bits import pack_rice, pack_trits, rice_bits, unpack_rice, unpack_trits
from strombus.errors import WireError
from strombus.interchange.dl4j.messages import read_words

__all__ = ["Encoding", "Parsed", "pack_codes", "pack_dense", "pack_own", "pack_words", "unpack"]

Array = NDArray[Any]
Reader = Callable[[NDArray[np.uint8], int, np.dtype[Any]], Array]

_HEADER = struct.Struct("<BBBBIII")
_DTYPES: dict[int, np.dtype[Any]] = {0: np.dtype("<f4"), 1: np.dtype("<f8"), 2: np.dtype("<f2")}
_NUMBERS = {dtype: number for number, dtype in _DTYPES.items()}
_LARGEST_SHIFT = 31


class Encoding(IntEnum):
    """How a body is written."""

    NOTHING = 0
    SPARSE = 1
    TERNARY = 2
    DENSE = 3
    DL4J = 4
    OWN = 5  # what the gang's encoder alone can read


@dataclass(frozen=True, slots=True)
class Parsed:
    """A payload that was found to be whole.

    Parameters
    ----------
    count : int
        Codes that were written to the caller's buffer; 0 where there are `values`.
    thresholds : ndarray, shape (tensors,)
        One for all, or one for each parameter tensor.
    values : ndarray or None
        All elements, of an update that is not written as codes.
    """

    count: int
    thresholds: Array
    values: Array | None = None

    @classmethod
    def of_values(cls, values: Array) -> Self:
        """Return what is written as all elements."""
        return cls(0, np.empty(0, values.dtype), values)


def pack_codes(codes: Array, count: int, length: int, thresholds: Array) -> bytearray:
    """Write quanta in the smaller of two forms.

    Parameters
    ----------
    codes : ndarray of uint32
        The first `count` are ``2 * index + sign``, ascending.
    length : int
        Elements of the whole vector.
    thresholds : ndarray, shape (tensors,), float32 or float64
    """
    if not count:
        return _start(Encoding.NOTHING, 0, length, 0, thresholds, 0)[0]
    shift, bits = _best_shift(codes, count, length)
    sparse, ternary = (bits + 7) // 8, (length + 4) // 5
    if sparse <= ternary:
        payload, body = _start(Encoding.SPARSE, shift, length, count, thresholds, sparse)
        words = np.empty(sparse // 8 + 1, np.uint64)
        pack_rice(codes, count, shift, words)
        body[:] = words.view(np.uint8)[:sparse]
    else:
        payload, body = _start(Encoding.TERNARY, 0, length, count, thresholds, ternary)
        pack_trits(codes, count, body)
    return payload


def pack_dense(values: Array) -> bytearray:
    """Write all elements; `values` is float16, float32 or float64."""
    payload, body = _start(Encoding.DENSE, 0, len(values), 0, np.empty(0, values.dtype), values.nbytes)
    body[:] = np.ascontiguousarray(values).view(np.uint8)
    return payload


def pack_words(words: Array, length: int, dtype: np.dtype[Any]) -> bytearray:
    """Write DL4J's words; `dtype` is that of the parameters."""
    payload, body = _start(Encoding.DL4J, 0, length, 0, np.empty(0, dtype), words.nbytes)
    body[:] = words.view(np.uint8)
    return payload


def pack_own(body: bytes | bytearray | memoryview, length: int, dtype: np.dtype[Any]) -> bytearray:
    """Write a form of an encoder's own, which its `Encoder.read` reads; `dtype` is that of the parameters."""
    payload, into = _start(Encoding.OWN, 0, length, 0, np.empty(0, dtype), len(body))
    into[:] = np.frombuffer(body, np.uint8)
    return payload


def unpack(
    payload: bytes | bytearray | memoryview,
    length: int,
    dtype: Any,
    tensors: int,
    codes: Array,
    read: Reader | None = None,
) -> Parsed:
    """Take a payload apart.

    Parameters
    ----------
    length : int
        Elements that the update must have.
    dtype : dtype
        Element type of the parameters; a dense update may be of another one.
    tensors : int
        Parameter tensors: there may be one threshold, or this number of them.
    codes : ndarray of uint32, shape (length,)
        Where codes go; its content is undefined after an error.
    read : callable, optional
        Reads the form of an encoder's own; see `Encoder.read`.

    Raises
    ------
    WireError
        When anything in the payload is not as it must be.
    """
    data = np.frombuffer(payload, np.uint8)
    if len(data) < _HEADER.size:
        raise WireError(f"an update has at least {_HEADER.size} bytes, got {len(data)}")
    encoding, number, shift, zero, elements, count, quanta = _HEADER.unpack_from(payload)
    if number not in _DTYPES or zero or elements != length or count > length:
        raise WireError(
            f"an update of {elements} elements, {count} codes and type {number} is none for {length} elements"
        )
    found = _DTYPES[number]
    if encoding == Encoding.DENSE:
        return _dense(data[_HEADER.size :], found, length, count, quanta, shift)
    if encoding == Encoding.DL4J:
        return _words(data[_HEADER.size :], found, dtype, length, count or quanta or shift)
    if encoding == Encoding.OWN and read is not None:
        return _own(read, data[_HEADER.size :], found, dtype, length, count or quanta or shift)
    if encoding not in (Encoding.NOTHING, Encoding.SPARSE, Encoding.TERNARY):
        raise WireError(f"no encoding has the number {encoding}")
    if found != dtype or quanta not in (1, tensors):
        raise WireError(f"an update of type {found} with {quanta} thresholds is none for {dtype} and {tensors} tensors")
    start = _HEADER.size + quanta * found.itemsize
    if len(data) < start:
        raise WireError("an update ends within its thresholds")
    thresholds = data[_HEADER.size : start].view(found)
    if not (np.isfinite(thresholds).all() and (thresholds > 0).all()):
        raise WireError("an update's thresholds must be finite and above 0")
    if not _read_body(Encoding(encoding), data[start:], count, shift, length, codes):
        raise WireError(f"an update's body of {len(data) - start} bytes does not hold {count} codes below {length}")
    return Parsed(count, thresholds)


def _start(
    encoding: Encoding, shift: int, length: int, count: int, thresholds: Array, size: int
) -> tuple[bytearray, Array]:
    """Return a payload with its header, and a view of its body, in zeros."""
    front = _HEADER.size + thresholds.nbytes
    payload = bytearray(front + size)
    _HEADER.pack_into(payload, 0, encoding, _NUMBERS[thresholds.dtype], shift, 0, length, count, len(thresholds))
    payload[_HEADER.size : front] = thresholds.tobytes()
    return payload, np.frombuffer(payload, np.uint8)[front:]


def _best_shift(codes: Array, count: int, length: int) -> tuple[int, int]:
    """Return the remainder's width that gives the fewest bits, and their number."""
    near = max(0, math.floor(math.log2(max(1.0, 0.69 * length / count))))
    tried = {shift: int(rice_bits(codes, count, shift)) for shift in range(max(0, near - 1), near + 2)}
    shift = min(tried, key=lambda one: tried[one])
    return shift, tried[shift]


def _dense(body: Array, dtype: np.dtype[Any], length: int, count: int, quanta: int, shift: int) -> Parsed:
    if count or quanta or shift or len(body) != length * dtype.itemsize:
        raise WireError(f"a dense update of {length} elements of {dtype} has {len(body)} bytes")
    values = body.view(dtype)
    if not np.isfinite(values).all():
        raise WireError("a dense update holds values that are not finite")
    return Parsed.of_values(values)


def _words(body: Array, found: np.dtype[Any], dtype: Any, length: int, rest: int) -> Parsed:
    if found != dtype or rest or len(body) % 4:
        raise WireError(f"DL4J's words for {dtype} cannot be {len(body)} bytes with a header for {found}")
    return Parsed.of_values(read_words(body.view("<i4"), length, dtype))


def _own(read: Reader, body: Array, found: np.dtype[Any], dtype: Any, length: int, rest: int) -> Parsed:
    if found != dtype or rest:
        raise WireError(f"an encoder's own form for {dtype} has a header for {found}")
    values = read(body, length, found)
    if values.shape != (length,) or values.dtype.kind != "f" or not np.isfinite(values).all():
        raise WireError(f"an update of {length} elements was read as {values.dtype}, {values.shape}, or is not finite")
    return Parsed.of_values(values)


def _read_body(encoding: Encoding, body: Array, count: int, shift: int, length: int, codes: Array) -> bool:
    if encoding == Encoding.NOTHING:
        return not (count or shift or len(body))
    if encoding == Encoding.SPARSE:
        # The shortest code has shift + 2 bits: what cannot hold `count` of them is not read at all.
        enough = 0 < count * (shift + 2) <= 8 * len(body)
        if shift > _LARGEST_SHIFT or not enough:
            return False
        words = np.zeros(len(body) // 8 + 2, np.uint64)
        words.view(np.uint8)[: len(body)] = body
        return bool(unpack_rice(words, len(body), count, shift, length, codes))
    return not shift and count > 0 and len(body) == (length + 4) // 5 and unpack_trits(body, length, codes) == count
