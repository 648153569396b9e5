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
def pack_rice(codes: Array, count: int, shift: int, words: Array) -> None:
    """Write gaps (quotient in ones, a zero, `shift` bits of remainder) and signs, lowest bit first, into uint64."""
    held, filled, at = _word(0), _word(0), 0  # bits that do not yet fill a word
    last, low = _int(-1), (_int(1) << shift) - 1
    for k in range(count):
        index = _int(codes[k] >> _code(1))
        gap = index - last - 1
        last = index
        ones = gap >> shift
        while ones > 16:  # the rest of a code then fits into a word
            held, filled, at = _append(_word(0xFFFF), _word(16), held, filled, at, words)
            ones -= 16
        rest = ((gap & low) << 1) | _int(codes[k] & _code(1))
        code = ((_word(1) << _word(ones)) - _word(1)) | (_word(rest) << _word(ones + 1))
        held, filled, at = _append(code, _word(ones + shift + 2), held, filled, at, words)
    if filled:
        words[at] = held


@jit
def _append(code: Any, size: Any, held: Any, filled: Any, at: int, words: Array) -> tuple[Any, Any, int]:
    held |= code << filled
    filled += size
    if filled >= _word(64):
        words[at] = held
        at += 1
        filled -= _word(64)
        held = code >> (size - filled)
    return held, filled, at


@jit
def unpack_rice(words: Array, size: int, count: int, shift: int, length: int, codes: Array) -> Any:
    """Read `count` codes below `length`; False, whatever `codes` then holds, when there is no such thing.

    Parameters
    ----------
    words : ndarray of uint64
        `size` bytes, and zeros up to the second word's end after them.
    """
    bits, position, last = _int(size) * 8, _int(0), _int(-1)
    low = (_word(1) << _word(shift + 1)) - _word(1)
    window, held = _word(0), _int(0)  # the bits from `position` on, and how many
    for k in range(count):
        start = last + 1
        if held < shift + 9:  # what a code has at most once its ones are fewer than 8
            window, held = _word_at(words, position), _int(64)
        ones = _ONES[window & _word(255)]
        while ones == 8:
            start += _int(8) << shift
            position += 8
            if position > bits:
                return False
            window, held = _word_at(words, position), _int(64)
            ones = _ONES[window & _word(255)]
        rest = _int((window >> _word(ones + 1)) & low)
        used = ones + shift + 2
        position += used
        held -= used
        window >>= _word(used)
        # `rest` holds the remainder once the sign, its lowest bit, is taken off.
        index = start + (ones << shift) + (rest >> 1)
        if position > bits or index >= length:
            return False
        codes[k] = _code(2 * index + (rest & 1))
        last = index
    return bits - position < 8 and _word_at(words, position) == 0


@jit
def _word_at(words: Array, position: Any) -> Any:
    """Return the 64 bits from `position` on."""
    at, shift = position >> 6, _word(position & 63)
    return (words[at] >> shift) | ((words[at + 1] << _word(1)) << (_word(63) - shift))


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
