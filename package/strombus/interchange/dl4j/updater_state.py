"""``updaterState.bin``: one vector of all updaters' arrays, block by block.

Neighbouring parameters with the same updater share a block. A block has one array of the updater after another, each
over all of the block's parameters: first moments of three layers, then second moments of the three.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.errors import DataError
from strombus.interchange.dl4j.optimizers import RULES
from strombus.interchange.dl4j.updaters import Training

__all__ = ["join_state", "split_state", "state_size"]

Array = NDArray[Any]


def state_size(trainings: Sequence[Training], sizes: Sequence[int]) -> int:
    """Return how many numbers the state has; `sizes` are the parameters'."""
    return sum(len(RULES[one.updater.rule].state) * size for one, size in zip(trainings, sizes, strict=True))


def split_state(
    vector: Array, trainings: Sequence[Training], sizes: Sequence[int], name: str = "the updater's state"
) -> list[dict[str, Array]]:
    """Take the vector apart.

    Parameters
    ----------
    vector : ndarray, shape (n,)
    trainings : sequence of Training
        All of DL4J's parameters in the order of ``coefficients.bin``.
    sizes : sequence of int
        How many numbers each has.
    name : str
        What errors call the vector.

    Returns
    -------
    list of dict of str to ndarray, shape (size,)
        For each parameter its updater's arrays by the names of `strombus.interchange.dl4j.optimizers.RULES`,
        in the order in which DL4J has the parameter's values.

    Raises
    ------
    DataError
        When the vector is longer or shorter than the updaters need.
    """
    wanted = state_size(trainings, sizes)
    if vector.shape != (wanted,):
        raise DataError(
            f"{name} has {vector.size:,} numbers, the configuration's updaters keep {wanted:,}: "
            "the file was put together from two networks"
        )
    found: list[dict[str, Array]] = []
    start = 0
    for rule, members in _blocks(trainings, sizes):
        length = sum(members)
        arrays = vector[start : start + length * len(rule)].reshape(len(rule), length)
        for first, stop in pairwise(np.cumsum([0, *members])):
            found.append(dict(zip(rule, arrays[:, first:stop], strict=True)))
        start += arrays.size
    return found


def join_state(
    states: Sequence[Mapping[str, Array]], trainings: Sequence[Training], sizes: Sequence[int], dtype: Any
) -> Array:
    """Put together what `split_state` took apart."""
    pieces: list[Array] = []
    waiting = iter(states)
    for rule, members in _blocks(trainings, sizes):
        block = [next(waiting) for _ in members]
        pieces += [np.ravel(state[name]) for name in rule for state in block]
    return np.concatenate([np.empty(0, dtype), *pieces]).astype(dtype, copy=False)


def _blocks(trainings: Sequence[Training], sizes: Sequence[int]) -> Iterator[tuple[list[str], list[int]]]:
    """Yield each block's arrays, by name, and its parameters' sizes."""
    pairs = zip(trainings, sizes, strict=True)
    for updater, block in groupby(pairs, key=lambda pair: pair[0].updater):
        yield list(RULES[updater.rule].state), [size for _, size in block]
