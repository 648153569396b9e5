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
    position = _int(0)
    last = _int(-1)
    for k in range(count):
        code = codes[k]
        index = _int(code >> _code(1))
        gap = index - last - 1
        last = index
        for _ in range(gap >> shift):
            out[position >> 3] |= _byte(1 << (position & 7))
            position += 1
        position += 1
        rest = ((gap & ((_int(1) << shift) - 1)) << 1) | _int(code & _code(1))
        left = shift + 1
        while left > 0:
            room = 8 - (position & 7)
            take = min(room, left)
            out[position >> 3] |= _byte((rest & ((1 << take) - 1)) << (position & 7))
            rest >>= take
            position += take
            left -= take


@jit
def unpack_rice(data: Array, count: int, shift: int, length: int, codes: Array) -> Any:
    """Read `count` codes below `length`; False, whatever `codes` then holds, when `data` is no such thing."""
    bits = _int(len(data)) * 8
    position = _int(0)
    last = _int(-1)
    for k in range(count):
        quotient = _int(0)
        while True:
            if position >= bits:
                return False
            bit = (data[position >> 3] >> (position & 7)) & 1
            position += 1
            if bit == 0:
                break
            quotient += 1
        if position + shift + 1 > bits:
            return False
        rest = _int(0)
        done = 0
        while done < shift + 1:
            room = 8 - (position & 7)
            take = min(room, shift + 1 - done)
            piece = (_int(data[position >> 3]) >> (position & 7)) & ((1 << take) - 1)
            rest |= piece << done
            position += take
            done += take
        # `rest` holds the remainder in its low bits once the sign, its lowest, is taken off.
        index = last + 1 + (quotient << shift) + (rest >> 1)
        if index >= length:
            return False
        codes[k] = _code(2 * index + (rest & 1))
        last = index
    return bits - position < 8 and _rest_is_zero(data, position)


@jit
def _rest_is_zero(data: Array, position: Any) -> Any:
    return position >> 3 >= len(data) or (data[position >> 3] >> (position & 7)) == 0


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
