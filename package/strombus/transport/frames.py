"""A message as bytes: a fixed header and the payload; pure functions that trust nothing they read.

Little-endian: magic (4 bytes), version (u8), kind (u8), zero (u16), run (u64, a hash of its id), attempt (u32), origin
(u32), number on this link (u64), step (u64), payload bytes (u64), and the CRC-32 of all that and the payload (u32).
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass

from strombus.errors import WireError

__all__ = ["Frame", "Lane", "pack", "parse"]

_HEADER = struct.Struct("<4sBBHQIIQQQ")
_CRC = struct.Struct("<I")
_MAGIC, _VERSION = b"StrB", 1
HEADER_SIZE = _HEADER.size + _CRC.size


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that was found to be whole."""

    kind: int
    origin: int
    number: int
    step: int
    payload: memoryview


@dataclass(frozen=True, slots=True)
class Lane:
    """The run and attempt that a frame belongs to."""

    run: int
    attempt: int

    @classmethod
    def of(cls, run_id: str, attempt: int) -> Lane:
        """Return the lane of a run's attempt."""
        return cls(int.from_bytes(hashlib.blake2b(run_id.encode(), digest_size=8).digest(), "little"), attempt)


def pack(lane: Lane, kind: int, origin: int, number: int, step: int, payload: bytes | bytearray | memoryview) -> bytes:
    """Return a frame; it holds a copy of the payload."""
    head = _HEADER.pack(_MAGIC, _VERSION, kind, 0, lane.run, lane.attempt, origin, number, step, len(payload))
    crc = zlib.crc32(payload, zlib.crc32(head))
    return b"".join((head, _CRC.pack(crc), payload))


def parse(data: bytes | bytearray | memoryview, lane: Lane) -> Frame | None:
    """Take a frame apart; None for one of another run or attempt.

    Raises
    ------
    WireError
        When it is no frame, or damaged.
    """
    if len(data) < HEADER_SIZE:
        raise WireError(f"a frame has at least {HEADER_SIZE} bytes, got {len(data)}")
    view = memoryview(data)
    magic, version, kind, zero, run, attempt, origin, number, step, length = _HEADER.unpack_from(view)
    if magic != _MAGIC or version != _VERSION or zero or length != len(data) - HEADER_SIZE:
        raise WireError(f"{len(data)} bytes are no frame of version {_VERSION}")
    payload = view[HEADER_SIZE:]
    if _CRC.unpack_from(view, _HEADER.size)[0] != zlib.crc32(payload, zlib.crc32(view[: _HEADER.size])):
        raise WireError("a frame's checksum does not fit its content")
    if (run, attempt) != (lane.run, lane.attempt):
        return None
    return Frame(kind, origin, number, step, payload)
