"""In which order an epoch takes the rows: a pure function of (blocks, seed, epoch)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from strombus.errors import ConfigurationError
from strombus.types import Block
from strombus.types.cursor import Span

__all__ = ["Window", "cut_order", "endless_order", "epoch_order", "generator", "stretches", "window_rows"]

_BLOCKS, _PARTS, _ROWS, CHOICE, PLACES = range(5)
"""What random numbers are for; the last two are of `strombus.data.mixing`."""


@dataclass(frozen=True, slots=True)
class Window:
    """Blocks whose rows are permuted together: what a reader holds in memory at a time.

    Parameters
    ----------
    number : int
        Place in the epoch's order.
    start : int
        Rows of the order before this window.
    blocks : tuple of Block
    first, last : int
        Where only some of the permuted rows are wanted, the stretch of them; None: to the end.
    drawn : tuple of int, optional
        Seed and epoch of its permutation, where they are not those of the epoch that it is read in.
    """

    number: int
    start: int
    blocks: tuple[Block, ...]
    first: int = 0
    last: int | None = None
    drawn: tuple[int, int] | None = None

    @property
    def whole(self) -> int:
        """Rows of all its blocks."""
        return sum(block.rows for block in self.blocks)

    @property
    def rows(self) -> int:
        """Rows that are wanted of it."""
        return (self.whole if self.last is None else self.last) - self.first

    @property
    def stop(self) -> int:
        """End of the window in the order."""
        return self.start + self.rows


def epoch_order(
    blocks: Sequence[Block],
    *,
    seed: int,
    epoch: int,
    shuffle: bool = True,
    window: int = 8,
    keep_parts: bool = False,
) -> tuple[Window, ...]:
    """Lay out one epoch: every row of `blocks` exactly once, whoever reads which span of it.

    Parameters
    ----------
    blocks : sequence of Block
        From ``source.blocks()``.
    seed, epoch : int
        Not negative; together they decide the order.
    shuffle : bool
        False keeps the natural order, one block a window.
    window : int
        Blocks whose rows are mixed, at least 1.
    keep_parts : bool
        Never mix parts: each part's rows stay contiguous, the parts are permuted.

    Returns
    -------
    tuple of Window
    """
    if window < 1 or seed < 0 or epoch < 0:
        raise ConfigurationError(
            f"window must be at least 1, seed and epoch at least 0, got window={window}, seed={seed}, epoch={epoch}"
        )
    filled = [block for block in blocks if block.rows]
    if not shuffle:
        groups: Iterable[tuple[Block, ...]] = [(block,) for block in filled]
    elif keep_parts:
        groups = _by_part(filled, window, seed, epoch)
    else:
        groups = _chunked(_permuted(filled, generator(seed, epoch, _BLOCKS, 0)), window)
    return tuple(_number(groups))


def window_rows(window: Window, seed: int, epoch: int, shuffle: bool = True) -> NDArray[np.int64]:
    """Return the order inside a window: row ``i`` of the window is row ``result[i]`` of its blocks put end to end."""
    wanted = slice(window.first, window.last)
    if window.drawn is not None:
        seed, epoch = window.drawn
    elif not shuffle:
        return np.arange(window.whole, dtype=np.int64)[wanted]
    return generator(seed, epoch, _ROWS, window.number).permutation(window.whole)[wanted]


def cut_order(order: Sequence[Window], spans: Sequence[Span]) -> tuple[Window, ...]:
    """Return the rows of an order that lie in `spans`, in the spans' order, as an order of their own."""
    pieces: list[Window] = []
    start = 0
    for low, high in spans:
        for window in order:
            first, last = max(low, window.start) - window.start, min(high, window.stop) - window.start
            if first < last:
                pieces.append(replace(window, start=start, first=window.first + first, last=window.first + last))
                start += last - first
    return tuple(pieces)


def endless_order(
    order_of: Callable[[int], Sequence[Window]], rows: int, start: int, stop: int, seed: int | None
) -> tuple[Window, ...]:
    """Return a stretch of the passes over the data put end to end, as an order of its own.

    Parameters
    ----------
    order_of : callable
        Gives the order of a pass, which has `rows` rows, at least 1.
    start, stop : int
        Rows, counted from the beginning of pass 0.
    seed : int or None
        What the permutations of a pass come from, with its number; None where the rows are not shuffled.
    """
    pieces: list[Window] = []
    for number in range(start // rows, -(-stop // rows)):
        begins = number * rows
        here = cut_order(order_of(number), [(max(start - begins, 0), min(stop - begins, rows))])
        drawn = None if seed is None else (seed, number)
        for window in here:
            at = pieces[-1].stop if pieces else 0
            pieces.append(replace(window, start=at, drawn=drawn if window.drawn is None else window.drawn))
    return tuple(pieces)


def stretches(spans: Sequence[Span], start: int, stop: int) -> tuple[Span, ...]:
    """Return where rows `start` to `stop` of an order cut to `spans` lie in the order it was cut from."""
    found: list[Span] = []
    offset = 0
    for low, high in spans:
        first, last = max(start - offset, 0) + low, min(stop - offset, high - low) + low
        if first < last:
            found.append((first, last))
        offset += high - low
    return tuple(found)


def generator(seed: int, epoch: int, purpose: int, number: int) -> np.random.Generator:
    """Return where the random numbers of one purpose come from."""
    # A spawn key keeps the purposes apart: SeedSequence([s, e]) and SeedSequence([s, e, 0]) are the same stream.
    return np.random.default_rng(np.random.SeedSequence([seed, epoch], spawn_key=(purpose, number)))


def _permuted(blocks: Sequence[Block], random: np.random.Generator) -> list[Block]:
    return [blocks[i] for i in random.permutation(len(blocks))]


def _chunked(blocks: Sequence[Block], window: int) -> list[tuple[Block, ...]]:
    return [tuple(blocks[i : i + window]) for i in range(0, len(blocks), window)]


def _by_part(blocks: Sequence[Block], window: int, seed: int, epoch: int) -> Iterator[tuple[Block, ...]]:
    parts: dict[int, list[Block]] = {}
    for block in blocks:
        parts.setdefault(block.part, []).append(block)
    numbers = list(parts)
    for place in generator(seed, epoch, _PARTS, 0).permutation(len(numbers)):
        part = numbers[place]
        yield from _chunked(_permuted(parts[part], generator(seed, epoch, _BLOCKS, 1 + part)), window)


def _number(groups: Iterable[tuple[Block, ...]]) -> Iterator[Window]:
    start = 0
    for number, group in enumerate(groups):
        window = Window(number, start, group)
        yield window
        start = window.stop
