"""DL4J's two messages of shared training, for comparison and for bridges to a JVM: arrays of 32-bit words.

Strombus's own workers send something else, at a quarter of the bytes (`strombus.compression`).

Both messages begin with four words: elements that follow (sparse) or that there are (bitmap), elements that there are,
the threshold's float32 bits, and 0 for sparse or 1 for bitmap. Sparse: one word an element, its number from 1,
negative for minus the threshold; DL4J's threads write their shares in the order in which they finish. Bitmap: a word
for 16 elements, one more than fit; the low half marks plus or minus the threshold, the high half a negative sign; a
sign alone means minus half the threshold.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.errors import DataError, WireError
from strombus.interchange.dl4j.ndarray import read_ndarray, write_ndarray

__all__ = [
    "HEADER",
    "bitmap_length",
    "dump_words",
    "load_words",
    "read_words",
    "take_bitmap_",
    "take_sparse_",
    "take_words_",
]

Array = NDArray[Any]

HEADER = 4
"""Words before the body."""
_WORD = np.dtype("<i4")
_SPARSE, _BITMAP = 0, 1


def bitmap_length(elements: int) -> int:
    """Return the words of a bitmap message."""
    return HEADER + elements // 16 + 1


def dump_words(words: Array) -> bytes:
    """Return a message as the bytes of the array that a JVM reads by ``Nd4j.read``."""
    target = io.BytesIO()
    write_ndarray(target, np.asarray(words, np.int32))
    return target.getvalue()


def load_words(data: Any, name: str = "the message") -> Array:
    """Return the words of a message that a JVM wrote by ``Nd4j.write``, for `read_words`.

    Raises
    ------
    DataError
        When it is no array of 32-bit words, cut short or damaged; says at which byte.
    """
    words: Array = np.asarray(read_ndarray(data, name))
    if words.dtype != np.int32 or words.ndim != 1:
        raise DataError(f"{name} must be a row of 32-bit words, got {words.dtype} of shape {words.shape}")
    return words


def take_words_(residual: Array, threshold: float) -> tuple[Array, Array]:
    """Write what has reached the threshold as the shorter message, and take it out of the residual.

    DL4J writes the sparse message first and, when that turns out long, throws it away and writes a bitmap of what it
    left: quanta are lost. Here both lengths are known before anything is taken out. Nor does a single element have
    to wait for a second one.

    Parameters
    ----------
    residual : ndarray, shape (n,), float32 or float64, changed in place
    threshold : float
        Rounded to float32, as the message holds it.

    Returns
    -------
    words : ndarray of int32
    sent : ndarray, shape (n,)
        What the message says, in the residual's type.
    """
    count = int(np.count_nonzero(np.abs(residual) >= np.float32(threshold)))
    shorter = HEADER + count <= bitmap_length(len(residual))
    return (take_sparse_ if shorter else take_bitmap_)(residual, threshold)


def take_sparse_(residual: Array, threshold: float) -> tuple[Array, Array]:
    """Write a sparse message; see `take_words_`."""
    quantum = residual.dtype.type(np.float32(threshold))
    sent = np.where(np.abs(residual) >= quantum, np.copysign(quantum, residual), residual.dtype.type(0))
    residual -= sent
    indices = np.flatnonzero(sent)
    body = np.where(sent[indices] < 0, -(indices + 1), indices + 1)
    return _join(len(body), len(residual), threshold, _SPARSE, body), sent


def take_bitmap_(residual: Array, threshold: float) -> tuple[Array, Array]:
    """Write a bitmap message; see `take_words_`."""
    quantum = residual.dtype.type(np.float32(threshold))
    half = quantum / 2
    whole = np.abs(residual) >= quantum
    minus = residual <= -half
    nothing = residual.dtype.type(0)
    sent = np.where(whole, np.copysign(quantum, residual), np.where(minus, -half, nothing))
    residual -= sent
    marks = np.zeros((2, 16 * (bitmap_length(len(residual)) - HEADER)), np.uint8)
    marks[0, : len(residual)], marks[1, : len(residual)] = whole, minus
    low, high = (np.packbits(row, bitorder="little").view("<u2").astype(np.uint32) for row in marks)
    body = (low | high << np.uint32(16)).view(np.int32)
    return _join(len(residual), len(residual), threshold, _BITMAP, body), sent


def read_words(words: Array, elements: int, dtype: Any) -> Array:
    """Return what a message says, one value an element.

    Raises
    ------
    WireError
        When it is not a message for `elements` elements: length, header, an element out of range or named twice, a
        threshold that is not finite and above 0, marks beyond the last element.
    """
    if len(words) < HEADER or words[1] != elements:
        raise WireError(f"a message of {len(words)} words is none for {elements} elements")
    first, _, bits, kind = (int(word) for word in words[:HEADER])
    quantum = float(np.array(bits, np.int32).view(np.float32))
    if not (np.isfinite(quantum) and quantum > 0) or kind not in (_SPARSE, _BITMAP):
        raise WireError(f"a message has the threshold {quantum} and the kind {kind}; wanted one above 0, and 0 or 1")
    body = words[HEADER:]
    read = _read_sparse if kind == _SPARSE else _read_bitmap
    return read(body, first, elements, np.dtype(dtype).type(quantum))


def _join(first: int, elements: int, threshold: float, kind: int, body: Array) -> Array:
    bits = int(np.float32(threshold).view(np.int32))
    return np.concatenate((np.array([first, elements, bits, kind], _WORD), body.astype(_WORD)))


def _read_sparse(body: Array, count: int, elements: int, quantum: Any) -> Array:
    indices = np.abs(body.astype(np.int64))
    ordered = np.sort(indices)
    if count != len(body) or (np.diff(ordered, prepend=0) <= 0).any() or (count and ordered[-1] > elements):
        raise WireError(f"a sparse message of {len(body)} words does not name {count} of {elements} elements once each")
    values = np.zeros(elements, type(quantum))
    values[indices - 1] = np.where(body < 0, -quantum, quantum)
    return values


def _read_bitmap(body: Array, count: int, elements: int, quantum: Any) -> Array:
    if count != elements or HEADER + len(body) != bitmap_length(elements):
        raise WireError(f"a bitmap of {len(body)} words is none for {elements} elements")
    words = np.ascontiguousarray(body).view(np.uint32)
    halves = ((words & np.uint32(0xFFFF)).astype("<u2"), (words >> np.uint32(16)).astype("<u2"))
    whole, minus = (np.unpackbits(half.view(np.uint8), bitorder="little").astype(bool) for half in halves)
    if whole[elements:].any() or minus[elements:].any():
        raise WireError(f"a bitmap marks elements beyond the last of {elements}")
    values = np.where(whole, quantum, np.where(minus, quantum / 2, type(quantum)(0)))
    signed: Array = np.where(minus, -values, values)[:elements].astype(type(quantum))
    return signed
