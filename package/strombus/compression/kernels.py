"""Passes over a residual: take an update in, find what has reached the threshold, take that out; and the way back.

Everything here is compiled, and checks nothing.

A code is ``2 * index``, plus 1 for a negative quantum. A block of the residual is updated and its largest value
found in vectorised loops; only blocks that hold a value at or above the threshold are looked at again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.compression.jit import jit

__all__ = [
    "BLOCK",
    "add_codes",
    "clip",
    "limits_of",
    "select",
    "select_adam",
    "select_difference",
    "select_momentum",
    "select_sgd",
]

Array = NDArray[Any]

# A constant, and slices instead of offsets: otherwise the loops below are not vectorised.
BLOCK = 256


def limits_of(tau: float, dtype: np.dtype[Any]) -> tuple[Any, Array]:
    """Return `tau` in the residual's type, and as integers: its bits, the mask without the sign, infinity's bits."""
    whole = np.int32 if dtype == np.float32 else np.int64
    quantum = dtype.type(tau)
    bits = np.array([quantum, np.inf], dtype).view(whole)
    return quantum, np.array([bits[0], np.iinfo(whole).max, bits[1]], whole)


@jit
def _peak(pieces: Array, mask: Any) -> Any:
    """Return the largest value without its sign, as an integer.

    Floats without their sign compare like integers, NaN and infinity last, and integers compare in one loop
    without branches.
    """
    peak = mask - mask
    for i in range(len(pieces)):
        peak = max(peak, pieces[i] & mask)
    return peak


@jit
def _emit(
    block: Array,
    pieces: Array,
    tau: float,
    floor: Any,
    mask: Any,
    marks: Array,
    eights: Array,
    codes: Array,
    count: int,
    first: int,
) -> int:
    """Write the codes of a block's values at or above the threshold, and take them out.

    One vectorised loop marks them, a byte each; `eights` are the marks, to be passed over eight at a time.
    """
    for i in range(len(pieces)):
        marks[i] = pieces[i] & mask >= floor
    for i in range(len(pieces), BLOCK):
        marks[i] = 0
    for k in range(BLOCK // 8):
        if eights[k]:
            for i in range(8 * k, 8 * k + 8):
                if marks[i]:
                    value = block[i]
                    negative = value < 0
                    block[i] = value + tau if negative else value - tau
                    codes[count] = np.uint32(2 * (first + i) + negative)
                    count += 1
    return count


@jit
def select(residual: Array, bits: Array, tau: float, limit: Array, codes: Array, count: int, first: int) -> int:
    """Find and take out what has reached `tau`.

    Parameters
    ----------
    residual : ndarray, shape (n,), changed in place
    bits : ndarray, shape (n,)
        The same memory as signed integers.
    tau : float
        Of the residual's own type, as `limits_of` has it.
    limit : ndarray, shape (3,)
        See `limits_of`.
    codes : ndarray of uint32
    count : int
        Codes that are there already.
    first : int
        Index of ``residual[0]`` among all parameters.

    Returns
    -------
    int
        The number of codes; -1 when the residual holds a value that is not finite.
    """
    marks = np.empty(BLOCK, np.uint8)
    eights = marks.view(np.uint64)
    floor, mask, top = limit[0], limit[1], limit[2]
    for start in range(0, len(residual), BLOCK):
        block = residual[start : start + BLOCK]
        pieces = bits[start : start + BLOCK]
        peak = _peak(pieces, mask)
        if peak >= floor:
            if peak >= top:
                return -1
            count = _emit(block, pieces, tau, floor, mask, marks, eights, codes, count, first + start)
    return count


@jit
def select_difference(
    parameters: Array,
    before: Array,
    residual: Array,
    bits: Array,
    tau: float,
    limit: Array,
    codes: Array,
    count: int,
    first: int,
) -> int:
    """Add ``parameters - before`` to the residual, set `parameters` back to `before`, then as `select`."""
    marks = np.empty(BLOCK, np.uint8)
    eights = marks.view(np.uint64)
    floor, mask, top = limit[0], limit[1], limit[2]
    for start in range(0, len(residual), BLOCK):
        block = residual[start : start + BLOCK]
        after, was = parameters[start : start + BLOCK], before[start : start + BLOCK]
        for i in range(len(block)):
            block[i] += after[i] - was[i]
            after[i] = was[i]
        pieces = bits[start : start + BLOCK]
        peak = _peak(pieces, mask)
        if peak >= floor:
            if peak >= top:
                return -1
            count = _emit(block, pieces, tau, floor, mask, marks, eights, codes, count, first + start)
    return count


@jit
def select_sgd(
    gradient: Array,
    parameters: Array,
    settings: Array,
    residual: Array,
    bits: Array,
    tau: float,
    limit: Array,
    codes: Array,
    count: int,
    first: int,
) -> int:
    """Add a step of plain gradient descent to the residual, then as `select`; `settings` are rate and decay."""
    rate, decay = settings[0], settings[1]
    marks = np.empty(BLOCK, np.uint8)
    eights = marks.view(np.uint64)
    floor, mask, top = limit[0], limit[1], limit[2]
    for start in range(0, len(residual), BLOCK):
        block, slope = residual[start : start + BLOCK], gradient[start : start + BLOCK]
        if decay == 0:
            for i in range(len(block)):
                block[i] -= rate * slope[i]
        else:
            weights = parameters[start : start + BLOCK]
            for i in range(len(block)):
                block[i] -= rate * (slope[i] + decay * weights[i])
        pieces = bits[start : start + BLOCK]
        peak = _peak(pieces, mask)
        if peak >= floor:
            if peak >= top:
                return -1
            count = _emit(block, pieces, tau, floor, mask, marks, eights, codes, count, first + start)
    return count


@jit
def select_momentum(
    gradient: Array,
    parameters: Array,
    velocity: Array,
    settings: Array,
    nesterov: bool,
    residual: Array,
    bits: Array,
    tau: float,
    limit: Array,
    codes: Array,
    count: int,
    first: int,
) -> int:
    """Add a step with momentum to the residual, then as `select`.

    `settings` are rate, decay, momentum and 1 - dampening.
    """
    rate, decay, momentum, keep = settings[0], settings[1], settings[2], settings[3]
    marks = np.empty(BLOCK, np.uint8)
    eights = marks.view(np.uint64)
    floor, mask, top = limit[0], limit[1], limit[2]
    for start in range(0, len(residual), BLOCK):
        block, slope = residual[start : start + BLOCK], gradient[start : start + BLOCK]
        speed = velocity[start : start + BLOCK]
        if decay == 0 and not nesterov:
            for i in range(len(block)):
                speed[i] = momentum * speed[i] + keep * slope[i]
                block[i] -= rate * speed[i]
        else:
            weights = parameters[start : start + BLOCK]
            for i in range(len(block)):
                steep = slope[i] + decay * weights[i]
                speed[i] = momentum * speed[i] + keep * steep
                block[i] -= rate * (steep + momentum * speed[i] if nesterov else speed[i])
        pieces = bits[start : start + BLOCK]
        peak = _peak(pieces, mask)
        if peak >= floor:
            if peak >= top:
                return -1
            count = _emit(block, pieces, tau, floor, mask, marks, eights, codes, count, first + start)
    return count


@jit
def select_adam(
    gradient: Array,
    parameters: Array,
    mean: Array,
    square: Array,
    settings: Array,
    residual: Array,
    bits: Array,
    tau: float,
    limit: Array,
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
    marks = np.empty(BLOCK, np.uint8)
    eights = marks.view(np.uint64)
    floor, mask, top = limit[0], limit[1], limit[2]
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
        for i in range(len(block)):
            block[i] -= rate * moment[i] / (np.sqrt(power[i]) * root + eps)
        pieces = bits[start : start + BLOCK]
        peak = _peak(pieces, mask)
        if peak >= floor:
            if peak >= top:
                return -1
            count = _emit(block, pieces, tau, floor, mask, marks, eights, codes, count, first + start)
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
