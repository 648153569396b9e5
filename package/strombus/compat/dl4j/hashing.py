"""A hash that all workers agree in, and that is PySpark's where Python's own differs from process to process."""

from __future__ import annotations

from numbers import Number
from typing import Any

__all__ = ["PortableHash"]

_MASK = (1 << 64) - 1


class PortableHash:
    """Hash keys as PySpark's ``portable_hash`` does with ``PYTHONHASHSEED=0``, which Spark gives its executors.

    Attributes
    ----------
    seeded : bool
        Whether a key was met that only Python's ``hash`` knows, which may depend on the seed of this process.
    """

    def __init__(self) -> None:
        self.seeded = False
        self._texts: dict[str | bytes, int] = {}

    def __call__(self, key: Any) -> int:
        """Return the hash of a key."""
        if key is None:
            return 0
        if isinstance(key, Number):
            return hash(key)
        if type(key) in (str, bytes):
            if key not in self._texts:
                self._texts[key] = hash_text(key)
            return self._texts[key]
        if isinstance(key, tuple):
            return self._tuple(key)
        self.seeded = True
        try:
            return hash(key)
        except TypeError as error:
            raise TypeError(f"a key must be hashable to find its partition: {error}; make a tuple of it") from None

    def _tuple(self, key: tuple[Any, ...]) -> int:
        mixed = 0x345678
        for item in key:
            mixed = ((mixed ^ self(item)) * 1000003) & ((1 << 63) - 1)
        return mixed ^ len(key)


def hash_text(text: str | bytes) -> int:
    """Return what ``hash(text)`` is with ``PYTHONHASHSEED=0``: SipHash-1-3 of the memory, with a key of zeros."""
    data = text if isinstance(text, bytes) else _memory(text)
    if not data:
        return 0
    value = _siphash13(data)
    signed = value - (1 << 64) if value >> 63 else value
    return -2 if signed == -1 else signed


def _memory(text: str) -> bytes:
    """Return a string's characters as CPython has them: the narrowest of 1, 2 and 4 bytes that fits all."""
    widest = max(map(ord, text), default=0)
    if widest < 256:
        return text.encode("latin-1")
    return text.encode("utf-16-le" if widest < 65536 else "utf-32-le", "surrogatepass")


def _siphash13(data: bytes) -> int:
    """Hash with SipHash-1-3 (Aumasson and Bernstein, 2012); the key is 0."""
    state = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
    whole = len(data) & ~7
    last = int.from_bytes(data[whole:], "little") | (len(data) & 0xFF) << 56
    words = [int.from_bytes(data[at : at + 8], "little") for at in range(0, whole, 8)]
    for word in (*words, last):
        a, b, c, d = _sip_round(state[0], state[1], state[2], state[3] ^ word)
        state = (a ^ word, b, c, d)
    state = (state[0], state[1], state[2] ^ 0xFF, state[3])
    for _ in range(3):
        state = _sip_round(*state)
    return state[0] ^ state[1] ^ state[2] ^ state[3]


def _sip_round(a: int, b: int, c: int, d: int) -> tuple[int, int, int, int]:
    a, c = (a + b) & _MASK, (c + d) & _MASK
    b, d = _turn(b, 13) ^ a, _turn(d, 16) ^ c
    a = _turn(a, 32)
    c, a = (c + b) & _MASK, (a + d) & _MASK
    b, d = _turn(b, 17) ^ c, _turn(d, 21) ^ a
    return a, b, _turn(c, 32), d


def _turn(word: int, bits: int) -> int:
    return (word << bits | word >> (64 - bits)) & _MASK
