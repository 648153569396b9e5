"""Frames: there and back, those of another run, and bytes that are none."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strombus.errors import WireError
from strombus.transport.frames import ALL, HEADER_SIZE, Frame, Lane, pack, parse

LANE = Lane.of("run", 3)
words = st.integers(0, 2**64 - 1)


frames = st.builds(
    Frame,
    kind=st.integers(0, 255),
    origin=st.integers(0, 2**32 - 1),
    step=words,
    payload=st.binary(max_size=300),
    to=st.integers(0, ALL),
    sequence=words,
    number=st.just(0),
    taken=st.just(0),
    checksum=st.none(),
)


@given(frames, words, words)
def test_frames_come_back(frame, number, taken):
    back = parse(pack(LANE, frame, number, taken), LANE)
    assert back.checksum == zlib.crc32(frame.payload)
    assert bytes(back.payload) == frame.payload
    assert back._replace(payload=b"", checksum=None) == frame._replace(payload=b"", number=number, taken=taken)


@given(frames, words, words, words)
def test_a_frame_passed_on_is_the_same_under_another_number(frame, number, taken, other):
    arrived = parse(pack(LANE, frame, number, taken), LANE)
    assert pack(LANE, arrived, other, taken) == pack(LANE, frame, other, taken)


@pytest.mark.parametrize("other", [Lane.of("run", 2), Lane.of("another", 3)])
def test_frames_of_another_run_or_attempt_are_none(other):
    assert parse(pack(other, Frame(1, 0, 0, b"x"), 0, 0), LANE) is None


def test_a_frame_keeps_its_own_copy():
    payload = bytearray(b"before")
    frame = pack(LANE, Frame(1, 0, 0, payload), 0, 0)
    payload[:] = b"behind"
    assert bytes(parse(frame, LANE).payload) == b"before"


def test_a_hundred_thousand_mutated_frames():
    """None that differs from what was sent is taken: the checksum covers every byte."""
    rng = np.random.default_rng(3)
    originals = [
        pack(LANE, Frame(1, 2, 4, bytes(rng.integers(0, 256, size, np.uint8)), 5, 6), 3, 7) for size in (0, 1, 50, 400)
    ]
    for turn in range(100_000):
        original = originals[turn % 4]
        data = bytearray(original)
        for _ in range(rng.integers(1, 5)):
            data[rng.integers(len(data))] ^= rng.integers(1, 256)
        if turn % 3 == 0:
            data = data[: rng.integers(len(data) + 1)]
        if data == original:
            continue
        with pytest.raises(WireError):
            parse(data, LANE)
    with pytest.raises(WireError, match=f"at least {HEADER_SIZE}"):
        parse(b"", LANE)
