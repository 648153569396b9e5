"""Golomb-Rice codes, against the same spelt out bit by bit."""

from __future__ import annotations

import numpy as np
import pytest

from strombus.compression.bits import pack_rice, rice_bits, unpack_rice


def spelt_out(codes, shift):
    """Return the bits, first one first."""
    bits, last = [], -1
    for code in codes.tolist():
        gap, last = (code >> 1) - last - 1, code >> 1
        rest = ((gap & ((1 << shift) - 1)) << 1) | (code & 1)
        bits += [1] * (gap >> shift) + [0] + [rest >> place & 1 for place in range(shift + 1)]
    return bits


@pytest.mark.parametrize("shift", [0, 1, 5, 8, 15, 31])
@pytest.mark.parametrize("largest", [1, 9, 200, 3000])
def test_every_width_and_long_runs_of_ones(shift, largest):
    rng = np.random.default_rng(shift)
    for count in (1, 2, 7, 50):
        indices = np.cumsum(rng.integers(0, largest, count)) + np.arange(count)
        codes = (2 * indices + rng.integers(0, 2, count)).astype(np.uint32)
        bits = spelt_out(codes, shift)
        assert rice_bits(codes, count, shift) == len(bits)
        size = (len(bits) + 7) // 8
        words = np.zeros(size // 8 + 2, np.uint64)
        pack_rice(codes, count, shift, words)
        assert np.array_equal(words.view(np.uint8)[:size], np.packbits(np.array(bits, np.uint8), bitorder="little"))
        assert not words.view(np.uint8)[size:].any()
        back, length = np.empty(count, np.uint32), int(indices[-1]) + 1
        assert unpack_rice(words, size, count, shift, length, back)
        assert np.array_equal(back, codes)
        assert not unpack_rice(words, size, count, shift, length - 1, back)
        assert not unpack_rice(words, size - 1, count, shift, length, back)
        spoilt = np.zeros_like(words)
        spoilt.view(np.uint8)[:size] = 255
        assert not unpack_rice(spoilt, size, count, shift, length, back)
