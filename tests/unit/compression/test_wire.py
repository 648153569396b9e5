"""Updates as bytes: there and back, the size against the entropy bound, and bytes that are none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strombus.compression.wire import Encoding, pack_codes, pack_dense, unpack
from strombus.errors import WireError


def made(length, share, seed=0):
    """Return ascending codes for a share of the elements."""
    rng = np.random.default_rng(seed)
    indices = np.flatnonzero(rng.random(length) < share)
    return (2 * indices + rng.integers(0, 2, len(indices))).astype(np.uint32)


def there_and_back(codes, length, thresholds, tensors=1):
    payload = pack_codes(codes, len(codes), length, thresholds)
    scratch = np.empty(length, np.uint32)
    parsed = unpack(payload, length, thresholds.dtype, tensors, scratch)
    return payload, parsed, scratch[: parsed.count]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([1, 2, 5, 15, 16, 17, 31, 32, 1000, 5003]),
    st.sampled_from([0.0, 1e-3, 0.01, 0.3, 0.5, 0.9, 1.0]),
    st.integers(0, 1000),
    st.sampled_from([np.float32, np.float64]),
)
def test_codes_come_back(length, share, seed, dtype):
    codes = made(length, share, seed)
    thresholds = np.array([0.125], dtype)
    payload, parsed, back = there_and_back(codes, length, thresholds)
    assert np.array_equal(back, codes)
    assert np.array_equal(parsed.thresholds, thresholds)
    assert len(payload) <= 16 + thresholds.nbytes + (length + 4) // 5  # never more than five elements a byte


def test_one_code_alone_is_sent():
    for index in (0, 1, 99_999):
        codes = np.array([2 * index + 1], np.uint32)
        assert np.array_equal(there_and_back(codes, 100_000, np.array([1.0], np.float32))[2], codes)


def test_a_threshold_for_each_tensor():
    thresholds = np.array([0.5, 0.25, 1.0])
    assert np.array_equal(there_and_back(made(100, 0.2), 100, thresholds, 3)[1].thresholds, thresholds)


@pytest.mark.parametrize("share", [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 6e-2])
def test_the_size_is_within_three_percent_of_the_entropy_bound(share):
    length = 2_000_000
    codes = made(length, share)
    p = len(codes) / length
    bound = (-p * math.log2(p) - (1 - p) * math.log2(1 - p) + p) * length / 8
    payload = pack_codes(codes, len(codes), length, np.array([1e-3], np.float32))
    assert len(payload) <= 1.03 * bound + 64
    if share >= 1e-3:
        assert len(payload) <= 0.4 * 4 * (len(codes) + 4) + 64  # DL4J's words of 32 bits


@pytest.mark.parametrize("share", [0.2, 0.55, 0.65, 1.0])
def test_the_smaller_encoding_is_taken(share):
    payload, _, _ = there_and_back(made(10_000, share), 10_000, np.array([1.0], np.float32))
    assert payload[0] == (Encoding.TERNARY if share > 0.6 else Encoding.SPARSE)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dense_updates_come_back(dtype):
    values = np.random.default_rng(0).normal(size=33).astype(dtype)
    parsed = unpack(pack_dense(values), 33, np.float32, 1, np.empty(33, np.uint32))
    assert parsed.values.dtype == dtype
    assert np.array_equal(parsed.values, values)


def test_a_dense_update_that_is_not_finite_is_refused():
    with pytest.raises(WireError, match="not finite"):
        unpack(pack_dense(np.array([1.0, np.nan])), 2, np.float64, 1, np.empty(2, np.uint32))


@pytest.mark.parametrize(("where", "value"), [(0, 9), (1, 7), (3, 1), (4, 99), (8, 255), (12, 2)], ids=str)
def test_a_header_that_cannot_be_is_refused(where, value):
    payload = pack_codes(made(100, 0.1), 8, 100, np.array([1.0], np.float32))
    payload[where] = value
    with pytest.raises(WireError):
        unpack(payload, 100, np.float32, 1, np.empty(100, np.uint32))


def test_truncated_and_overlong_updates_are_refused():
    for share in (0.05, 0.7):
        codes = made(300, share)
        payload = bytes(pack_codes(codes, len(codes), 300, np.array([1.0], np.float32)))
        for damaged in [payload[:stop] for stop in range(len(payload))] + [payload + b"\0", payload + b"\0" * 9]:
            with pytest.raises(WireError):
                unpack(damaged, 300, np.float32, 1, np.empty(300, np.uint32))


def test_a_hundred_thousand_mutated_updates():
    """Each is refused, or is an update that could have been sent: its codes ascend, below the length."""
    rng = np.random.default_rng(7)
    length = 200
    scratch = np.empty(length + 1, np.uint32)
    originals = [
        bytes(pack_codes(codes, len(codes), length, np.array([0.5], np.float32)))
        for codes in (made(length, share, seed) for seed, share in enumerate((0.0, 0.01, 0.1, 0.3, 0.8)))
    ]
    originals.append(bytes(pack_dense(np.ones(length, np.float32))))
    accepted = 0
    for number in range(100_000):
        data = bytearray(originals[number % len(originals)])
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] = rng.integers(256)
        if number % 5 == 0:
            data = data[: rng.integers(len(data) + 1)]
        scratch[length] = 12345
        try:
            parsed = unpack(data, length, np.float32, 1, scratch[:length])
        except WireError:
            continue
        accepted += 1
        assert scratch[length] == 12345
        codes = scratch[: parsed.count].astype(np.int64) >> 1
        assert np.all(np.diff(codes) > 0)
        assert parsed.values is not None or codes.size == 0 or codes[-1] < length
    assert accepted < 60_000
