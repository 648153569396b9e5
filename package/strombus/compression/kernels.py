"""Passes over a residual: take an update in, find what has reached the threshold, take that out; and the way back.

Everything here is compiled, and checks nothing.

A code is ``2 * index``, plus 1 for a negative quantum. A block of the residual is updated and marked in vectorised
loops; only where marks are set is it looked at again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.compression.jit import jit

__all__ = [
    "BLOCK",
    "SLACK",
    "add_codes",
    "clip",
    "select",
    "select_adam",
    "select_difference",
    "select_momentum",
    "select_sgd",
]

Array = NDArray[Any]

# A constant, and slices instead of offsets: otherwise the loops below are not vectorised.
BLOCK = 1024
SLACK = 8
"""Codes beyond the last that a pass may write over."""

_code: Any = np.uint32
_count: Any = np.int32
_word: Any = np.uint64

_GATHER = _word(0x0102040810204080)
"""Times a word of eight marks, each 0 or 1 in a byte: the marks as bits, in the highest byte."""
_COUNTS = np.array([mask.bit_count() for mask in range(256)])
"""Marks in a mask of eight."""
_PLACES = np.array([sorted(range(8), key=lambda i: not mask >> i & 1) for mask in range(256)], _code)
"""Where the marks of a mask are, then the other places."""


@jit
def _mark(marks: Array, i: int, value: Any, tau: float) -> tuple[Any, Any]:
    """Mark a value that has reached the threshold; return 1 if it has, and 1 if it is not finite."""
    size = abs(value)
    hit = size >= tau
    marks[i] = hit
    return _count(hit), _count(size - size != 0)  # NaN for infinity, too


@jit
def _take(
    block: Array,
    tau: float,
    hits: int,
    bad: int,
    space: tuple[Array, Array, Array],
    codes: Array,
    count: int,
    first: int,
) -> int:
    """Write the codes of a block's marked values, and take a quantum out of each; -1 where one is not finite.

    Marks are looked at eight at a time: those words of which any is set are listed, and the places in each come from
    a table, so that nothing branches on a single mark.
    """
    if bad:
        return -1
    if not hits:
        return count
    marks, eights, full = space
    for i in range(len(block), BLOCK):
        marks[i] = 0
    words = 0
    for k in range(BLOCK // 8):
        full[words] = k
        words += eights[k] != 0
    begin = count
    for j in range(words):
        k = full[j]
        mask = np.int64((eights[k] * _GATHER) >> _word(56))
        places, out = _PLACES[mask], codes[count : count + 8]
        for i in range(8):
            out[i] = places[i] + _code(8 * k)
        count += _COUNTS[mask]
    for k in range(begin, count):
        place = codes[k]
        value = block[place]
        negative = value < 0
        block[place] = value + tau if negative else value - tau
        codes[k] = _code(2) * (place + _code(first)) + _code(negative)
    return count


@jit
def _space() -> tuple[Array, Array, Array]:
    """Return room for a block's marks, the same eight at a time, and for the numbers of those that are not zero."""
    marks = np.empty(BLOCK, np.uint8)
    return marks, marks.view(np.uint64), np.empty(BLOCK // 8 + 1, np.int64)


@jit
def select(residual: Array, tau: float, codes: Array, count: int, first: int) -> int:
    """Find and take out what has reached `tau`.

    Parameters
    ----------
    residual : ndarray, shape (n,), changed in place
    tau : float
        Of the residual's own type.
    codes : ndarray of uint32, shape (n + SLACK,)
    count : int
        Codes that are there already.
    first : int
        Index of ``residual[0]`` among all parameters.

    Returns
    -------
    int
        The number of codes; -1 when the residual holds a value that is not finite.
    """
    space = _space()
    marks = space[0]
    for start in range(0, len(residual), BLOCK):
        block = residual[start : start + BLOCK]
        hits = bad = _count(0)
        for i in range(len(block)):
            hit, wrong = _mark(marks, i, block[i], tau)
            hits, bad = hits + hit, bad + wrong
        count = _take(block, tau, hits, bad, space, codes, count, first + start)
        if count < 0:
            break
    return count


@jit
def select_difference(
    parameters: Array, before: Array, residual: Array, tau: float, codes: Array, count: int, first: int
) -> int:
    """Add ``parameters - before`` to the residual, set `parameters` back to `before`, then as `select`."""
    space = _space()
    marks = space[0]
    for start in range(0, len(residual), BLOCK):
        block = residual[start : start + BLOCK]
        after, was = parameters[start : start + BLOCK], before[start : start + BLOCK]
        hits = bad = _count(0)
        for i in range(len(block)):
            block[i] += after[i] - was[i]
            after[i] = was[i]
            hit, wrong = _mark(marks, i, block[i], tau)
            hits, bad = hits + hit, bad + wrong
        count = _take(block, tau, hits, bad, space, codes, count, first + start)
        if count < 0:
            break
    return count


@jit
def select_sgd(
    gradient: Array,
    parameters: Array,
    settings: Array,
    residual: Array,
    tau: float,
    codes: Array,
    count: int,
    first: int,
) -> int:
    """Add a step of plain gradient descent to the residual, then as `select`; `settings` are rate and decay."""
    rate, decay = settings[0], settings[1]
    space = _space()
    marks = space[0]
    for start in range(0, len(residual), BLOCK):
        block, slope = residual[start : start + BLOCK], gradient[start : start + BLOCK]
        hits = bad = _count(0)
        if decay == 0:
            for i in range(len(block)):
                block[i] -= rate * slope[i]
                hit, wrong = _mark(marks, i, block[i], tau)
                hits, bad = hits + hit, bad + wrong
        else:
            weights = parameters[start : start + BLOCK]
            for i in range(len(block)):
                block[i] -= rate * (slope[i] + decay * weights[i])
                hit, wrong = _mark(marks, i, block[i], tau)
                hits, bad = hits + hit, bad + wrong
        count = _take(block, tau, hits, bad, space, codes, count, first + start)
        if count < 0:
            break
    return count


@jit
def select_momentum(
    gradient: Array,
    parameters: Array,
    velocity: Array,
    settings: Array,
    nesterov: bool,
    residual: Array,
    tau: float,
    codes: Array,
    count: int,
    first: int,
) -> int:
    """Add a step with momentum to the residual, then as `select`.

    `settings` are rate, decay, momentum and 1 - dampening.
    """
    rate, decay, momentum, keep = settings[0], settings[1], settings[2], settings[3]
    space = _space()
    marks = space[0]
    for start in range(0, len(residual), BLOCK):
        block, slope = residual[start : start + BLOCK], gradient[start : start + BLOCK]
        speed = velocity[start : start + BLOCK]
        hits = bad = _count(0)
        if decay == 0 and not nesterov:
            for i in range(len(block)):
                speed[i] = momentum * speed[i] + keep * slope[i]
                block[i] -= rate * speed[i]
                hit, wrong = _mark(marks, i, block[i], tau)
                hits, bad = hits + hit, bad + wrong
        else:
            weights = parameters[start : start + BLOCK]
            for i in range(len(block)):
                steep = slope[i] + decay * weights[i]
                speed[i] = momentum * speed[i] + keep * steep
                block[i] -= rate * (steep + momentum * speed[i] if nesterov else speed[i])
                hit, wrong = _mark(marks, i, block[i], tau)
                hits, bad = hits + hit, bad + wrong
        count = _take(block, tau, hits, bad, space, codes, count, first + start)
        if count < 0:
            break
    return count


@jit
def select_adam(
    gradient: Array,
    parameters: Array,
    mean: Array,
    square: Array,
    settings: Array,
    residual: Array,
    tau: float,
    codes: Array,
    count: int,
    first: int,
) -> int:
    """Add a step of Adam to the residual, then as `select`.

    `settings` are ``lr / (1 - beta1**t)``, 1 - beta1, beta2, 1 - beta2, ``1 / sqrt(1 - beta2**t)``, epsilon, Adam's
    weight decay, and AdamW's, ``lr * weight_decay``.
    """
    rate, fresh, beta2, fresh2 = settings[0], settings[1], settings[2], settings[3]
    root, eps, decay, shrink = settings[4], settings[5], settings[6], settings[7]
    space = _space()
    marks = space[0]
    for start in range(0, len(residual), BLOCK):
        block, slope = residual[start : start + BLOCK], gradient[start : start + BLOCK]
        moment, power = mean[start : start + BLOCK], square[start : start + BLOCK]
        if decay == 0 and shrink == 0:
            for i in range(len(block)):
                moment[i] += (slope[i] - moment[i]) * fresh
                power[i] = power[i] * beta2 + slope[i] * slope[i] * fresh2
        else:
            weights = parameters[start : start + BLOCK]
            for i in range(len(block)):
                steep = slope[i] + decay * weights[i]
                moment[i] += (steep - moment[i]) * fresh
                power[i] = power[i] * beta2 + steep * steep * fresh2
                block[i] -= shrink * weights[i]
        hits = bad = _count(0)
        for i in range(len(block)):
            block[i] -= rate * moment[i] / (np.sqrt(power[i]) * root + eps)
            hit, wrong = _mark(marks, i, block[i], tau)
            hits, bad = hits + hit, bad + wrong
        count = _take(block, tau, hits, bad, space, codes, count, first + start)
        if count < 0:
            break
    return count


@jit
def add_codes(codes: Array, count: int, quantum: float, target: Array, first: int) -> None:
    """Add plus or minus `quantum` to the elements that the codes name; `first` is the index of ``target[0]``."""
    for k in range(count):
        code = codes[k]
        index = np.int64(code >> np.uint32(1)) - first
        if code & np.uint32(1):
            target[index] -= quantum
        else:
            target[index] += quantum


@jit
def clip(residual: Array, most: float) -> float:
    """Bring what is beyond plus or minus `most` back to it; return the sum of what was taken off. NaN stays."""
    removed = 0.0
    for start in range(0, len(residual), BLOCK):
        block = residual[start : start + BLOCK]
        beyond = 0
        for i in range(len(block)):
            beyond += abs(block[i]) > most
        if beyond:
            for i in range(len(block)):
                value = block[i]
                if abs(value) > most:
                    removed += np.float64(abs(value)) - np.float64(most)
                    block[i] = -most if value < 0 else most
    return removed
