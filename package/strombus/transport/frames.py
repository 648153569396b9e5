"""A message as bytes: a fixed header and the payload; pure functions that trust nothing they read.

Little-endian: magic (4 bytes), version (u8), kind (u8), receiver (u16, 65535 for all), run (u64, a hash of its id),
attempt (u32), origin (u32), number on this link (u64), frames taken in on this link the other way (u64), the origin's
own number of the message (u64), step (u64), payload bytes (u64), the CRC-32 of the payload (u32), and that of all
before it (u32). Who passes a message on writes a new header and need not read the payload.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass
from typing import NamedTuple

from strombus.errors import WireError

__all__ = ["ALL", "HEADER_SIZE", "Frame", "Lane", "pack", "parse"]

_HEADER = struct.Struct("<4sBBHQIIQQQQQI")
_CRC = struct.Struct("<I")
_MAGIC, _VERSION = b"StrB", 1
HEADER_SIZE = _HEADER.size + _CRC.size

ALL = 2**16 - 1
"""The receiver of what is for all other members."""


class Frame(NamedTuple):
    """A message with what its header says.

    Parameters
    ----------
    kind, origin, step
        As in `strombus.transport.base.Message`.
    to : int
        The rank of who is meant, or `ALL`.
    sequence : int
        How many messages the origin had made before.
    number : int
        How many frames had gone over this link before.
    taken : int
        How many frames of the link's other direction the sender has taken in.
    checksum : int, optional
        CRC-32 of the payload; computed where it is not given.
    """

    kind: int
    origin: int
    step: int
    payload: bytes | bytearray | memoryview
    to: int = ALL
    sequence: int = 0
    number: int = 0
    taken: int = 0
    checksum: int | None = None


@dataclass(frozen=True, slots=True)
class Lane:
    """The run and attempt that a frame belongs to."""

    run: int
    attempt: int

    @classmethod
    def of(cls, run_id: str, attempt: int) -> Lane:
        """Return the lane of a run's attempt."""
        return cls(int.from_bytes(hashlib.blake2b(run_id.encode(), digest_size=8).digest(), "little"), attempt)


def pack(lane: Lane, frame: Frame, number: int, taken: int) -> bytes:
    """Return a frame under these numbers as bytes; they hold a copy of the payload."""
    payload = frame.payload
    checksum = zlib.crc32(payload) if frame.checksum is None else frame.checksum
    head = _HEADER.pack(
        _MAGIC,
        _VERSION,
        frame.kind,
        frame.to,
        lane.run,
        lane.attempt,
        frame.origin,
        number,
        taken,
        frame.sequence,
        frame.step,
        len(payload),
        checksum,
    )
    return b"".join((head, _CRC.pack(zlib.crc32(head)), payload))


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
    head = _HEADER.unpack_from(view)
    magic, version, kind, to, run, attempt, origin, number, taken, sequence, step, length, checksum = head
    if magic != _MAGIC or version != _VERSION or length != len(data) - HEADER_SIZE:
        raise WireError(f"{len(data)} bytes are no frame of version {_VERSION}")
    payload = view[HEADER_SIZE:]
    headed = _CRC.unpack_from(view, _HEADER.size)[0] == zlib.crc32(view[: _HEADER.size])
    if not headed or checksum != zlib.crc32(payload):
        raise WireError("a frame's checksum does not fit its content")
    if (run, attempt) != (lane.run, lane.attempt):
        return None
    return Frame(kind, origin, step, payload, to, sequence, number, taken, checksum)
