"""Codes to bytes and back: Golomb-Rice gaps for few of them, five elements a byte for many.

A code is ``2 * index``, plus 1 for a negative quantum; codes ascend. Everything here is compiled; the readers
check all that they read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.compression.jit import jit

__all__ = ["pack_rice", "pack_trits", "rice_bits", "unpack_rice", "unpack_trits"]

Array = NDArray[Any]

_int: Any = np.int64
_code: Any = np.uint32
_byte: Any = np.uint8
_word: Any = np.uint64

_ONES = np.array([(~value & (value + 1)).bit_length() - 1 for value in range(256)])
"""Ones at the low end of each byte."""


@jit
def rice_bits(codes: Array, count: int, shift: int) -> int:
    """Return the bits of the codes' gaps as Golomb-Rice codes with a remainder of `shift` bits, signs included."""
    bits = count * (shift + 2)
    last = _int(-1)
    for k in range(count):
        index = _int(codes[k] >> _code(1))
        bits += (index - last - 1) >> shift
        last = index
    return bits


@jit
def pack_rice(codes: Array, count: int, shift: int, out: Array) -> None:
    """Write gaps (quotient in ones, a zero, `shift` bits of remainder) and signs, lowest bit first, into zeros."""
    held, filled, at = _word(0), _word(0), 0  # bits that have not yet become a byte, fewer than 8 between two codes
    last, low = _int(-1), (_int(1) << shift) - 1
    for k in range(count):
        index = _int(codes[k] >> _code(1))
        gap = index - last - 1
        last = index
        ones = gap >> shift
        while ones > 16:  # the rest of a code then fits beside what is held
            held |= _word(0xFFFF) << filled
            filled += _word(16)
            ones -= 16
            held, filled, at = _flush(held, filled, at, out)
        rest = ((gap & low) << 1) | _int(codes[k] & _code(1))
        held |= (((_word(1) << _word(ones)) - _word(1)) | (_word(rest) << _word(ones + 1))) << filled
        filled += _word(ones + shift + 2)
        held, filled, at = _flush(held, filled, at, out)
    if filled:
        out[at] = _byte(held)


@jit
def _flush(held: Any, filled: Any, at: int, out: Array) -> tuple[Any, Any, int]:
    while filled >= _word(8):
        out[at] = _byte(held & _word(255))
        at += 1
        held >>= _word(8)
        filled -= _word(8)
    return held, filled, at


@jit
def unpack_rice(data: Array, count: int, shift: int, length: int, codes: Array) -> Any:
    """Read `count` codes below `length`; False, whatever `codes` then holds, when `data` is no such thing."""
    bits, position, last = _int(len(data)) * 8, _int(0), _int(-1)
    low = (_word(1) << _word(shift + 1)) - _word(1)
    padded = np.concatenate((data, np.zeros(8, np.uint8)))  # so that 8 bytes can be read wherever one can
    for k in range(count):
        start = last + 1
        window = _eight_bytes(padded, position)
        ones = _ONES[window & _word(255)]
        while ones == 8:
            start += _int(8) << shift
            position += 8
            window = _eight_bytes(padded, position)
            ones = _ONES[window & _word(255)]
        rest = _int((window >> _word(ones + 1)) & low)
        position += ones + shift + 2
        # `rest` holds the remainder once the sign, its lowest bit, is taken off.
        index = start + (ones << shift) + (rest >> 1)
        if position > bits or index >= length:
            return False
        codes[k] = _code(2 * index + (rest & 1))
        last = index
    return bits - position < 8 and (padded[position >> 3] >> (position & 7)) == 0


@jit
def _eight_bytes(data: Array, position: Any) -> Any:
    """Return the bits from `position` on, at least 57 of them."""
    at = position >> 3
    found = _word(data[at]) | _word(data[at + 1]) << _word(8) | _word(data[at + 2]) << _word(16)
    found |= _word(data[at + 3]) << _word(24) | _word(data[at + 4]) << _word(32) | _word(data[at + 5]) << _word(40)
    found |= _word(data[at + 6]) << _word(48) | _word(data[at + 7]) << _word(56)
    return found >> _word(position & 7)


@jit
def pack_trits(codes: Array, count: int, out: Array) -> None:
    """Write five elements a byte, 0, 1 (plus) or 2 (minus) each, into zeroed `out`."""
    for k in range(count):
        index = codes[k] >> _code(1)
        value = 1 + _int(codes[k] & _code(1))
        for _ in range(index % _code(5)):
            value *= 3
        out[index // _code(5)] += _byte(value)


@jit
def unpack_trits(data: Array, length: int, codes: Array) -> int:
    """Read codes; return their number, or -1 when `data` is no such thing."""
    count = 0
    for byte in range(len(data)):
        value = _int(data[byte])
        if value >= 243:
            return -1
        for place in range(5):
            trit = value % 3
            value //= 3
            if trit:
                index = _int(byte) * 5 + place
                if index >= length:
                    return -1
                codes[count] = _code(2 * index + trit - 1)
                count += 1
    return count
