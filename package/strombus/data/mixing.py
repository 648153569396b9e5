"""Several datasets as one, in given proportions."""

from __future__ import annotations

import math
import threading
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import accumulate, pairwise
from numbers import Integral, Real
from typing import Any

from strombus.data.examples import ExampleSource
from strombus.data.order import CHOICE, PLACES, Window, generator
from strombus.data.rows import concatenate
from strombus.data.source import BLOCK_BYTES, OpenedSource, Source, Transform, check_function
from strombus.data.sources import open_source
from strombus.errors import ConfigurationError, DataError, EmptyDataError, StrombusWarning, kind_of
from strombus.types import Block, Columns

__all__ = ["MixedSource", "mix"]

_WINDOW_BYTES = 8 * BLOCK_BYTES


def mix(
    datasets: Sequence[Any],
    weights: Sequence[float],
    *,
    seed: int = 0,
    examples: int | None = None,
    repeat: bool = False,
    transform: Transform | None = None,
) -> MixedSource:
    """Mix datasets in given proportions.

    The rows of an epoch are a function of the datasets, the weights, the seed and the epoch, not of the number of
    workers. Dataset ``i`` gives ``weights[i] / sum(weights)`` of them, exact to one row and evenly spread; the next
    epoch goes on in it where this one ended, so that all rows have their turn.

    Parameters
    ----------
    datasets : sequence
        Paths, URIs, arrays and other things that every worker can read; their columns must agree.
    weights : sequence of float
        Above 0, one for each dataset.
    seed : int
        Decides which rows come in which epoch, and their order.
    examples : int, optional
        Rows of an epoch. By default it ends before the first dataset would have to begin again; with `repeat`, when the
        last one has given every row.
    repeat : bool
        Whether a dataset may begin again within an epoch. Otherwise each row comes at most once.
    transform : callable, optional
        As for `open_dataset`. Where the datasets have one already, it must be the same for all.

    Raises
    ------
    ConfigurationError
        For options that are of another kind, weights or a number of examples that cannot be had.
    DataError
        When a dataset cannot be read by every worker, or columns differ.

    Warns
    -----
    StrombusWarning
        When a weight is so small that its dataset gives no row.

    Examples
    --------
    >>> import numpy as np
    >>> few, many = np.zeros((30, 2)), np.ones((1000, 2))
    >>> mix([few, many], weights=[0.3, 0.7]).counts
    (30, 70)
    """
    _check_listed("datasets", datasets)
    _check_listed("weights", weights)
    _check_whole("seed", seed, 0)
    _check_whole("examples", 1 if examples is None else examples, 1)
    check_function("transform", transform)
    shares = _shares(weights, len(datasets))
    sources = [_opened(data) for data in datasets]
    counts = _counts([source.rows for source in sources], shares, examples, repeat)
    _warn_of_none(counts, weights)
    return MixedSource(sources, counts, int(seed), _transform(sources, transform))


class MixedSource(OpenedSource):
    """Rows of several sources, so many of each an epoch; made by `mix`.

    Parameters
    ----------
    sources : sequence of Source
    counts : sequence of int
        Rows of each in an epoch.
    seed : int
    transform : callable, optional

    Notes
    -----
    A source's blocks have one order for good, which the epochs go through in turn. What an epoch takes of it is laid
    out anew and cut into as many pieces as there are windows; a window has a piece of each source. Of each source the
    block that was read last is kept, since the next piece often begins in it.
    """

    def __init__(
        self, sources: Sequence[Source], counts: Sequence[int], seed: int, transform: Transform | None = None
    ) -> None:
        layout = sources[0].layout
        for number, source in enumerate(sources[1:], 1):
            layout = layout.merge(source.layout, ("dataset 0", f"dataset {number}"))
        self.kind, self.columns, self.transform = layout.kind, layout.columns, transform
        self.sources, self.counts, self.seed = tuple(sources), tuple(counts), seed
        self.part_rows = (sum(counts),)
        self._start_empty()

    def _start_empty(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[int, tuple[Block, Columns]] = {}
        self._listed: list[tuple[Block, ...]] = []
        self._firsts: list[int] = []
        self._row: dict[Block, Block] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({' + '.join(f'{count:,}' for count in self.counts)} examples, seed {self.seed})"

    @property
    def mark(self) -> str:
        """Counts, seed and what is mixed."""
        return f"mixed {self.counts} {self.seed} {[(source.part_rows, source.mark) for source in self.sources]}"

    def order(self, *, seed: int, epoch: int, shuffle: bool = True, keep_parts: bool = False) -> tuple[Window, ...]:
        """Return an epoch's windows, each with its share of every source.

        The mix's own seed decides. Without `shuffle` every epoch is as the first; parts are never kept together.
        """
        epoch = epoch if shuffle else 0
        number = min(self.rows, math.ceil(self.rows * self.layout.row_bytes / _WINDOW_BYTES))
        pieces = [self._pieces(source, epoch, number) for source in range(len(self.sources))]
        windows: list[Window] = []
        for place, blocks in enumerate(zip(*pieces, strict=True)):
            start = windows[-1].stop if windows else 0
            together = tuple(block for some in blocks for block in some)
            windows.append(Window(place, start, together, drawn=(self.seed, epoch)))
        return tuple(windows)

    def _pieces(self, number: int, epoch: int, pieces: int) -> list[list[Block]]:
        """Return an epoch's rows of a source, cut into pieces that differ by at most one row."""
        taken = self._taken(number, epoch)
        places = generator(self.seed, epoch, PLACES, number).permutation(len(taken))
        edges = [self.counts[number] * piece // pieces for piece in range(pieces + 1)]
        return list(_cut([taken[place] for place in places], edges))

    def _taken(self, number: int, epoch: int) -> list[Block]:
        """Return what an epoch takes of a source: it goes round and round in its blocks."""
        blocks = [block for block in self._blocks()[number] if block.rows]
        ring = [blocks[i] for i in generator(self.seed, 0, CHOICE, number).permutation(len(blocks))]
        rows, count = sum(block.rows for block in ring), self.counts[number]
        start = epoch * count % rows
        rounds = -(-(start + count) // rows)
        return next(_cut(ring * rounds, [start, start + count]))

    def blocks(self) -> tuple[Block, ...]:
        """Return the rows of the first epoch, as one part."""
        if not self._row:
            real = [block for window in self.order(seed=0, epoch=0) for block in window.blocks]
            starts = accumulate((block.rows for block in real), initial=0)
            self._row = {Block(0, at, at + block.rows): block for at, block in zip(starts, real, strict=False)}
        return tuple(self._row)

    def _blocks(self) -> list[tuple[Block, ...]]:
        """Return each source's blocks, their parts numbered over all sources, from 1 on."""
        with self._lock:
            for source in self.sources[len(self._listed) :]:
                first = self._firsts[-1] + _parts(self._listed[-1], self._firsts[-1]) if self._listed else 1
                listed = tuple(Block(first + block.part, block.start, block.stop) for block in source.blocks())
                self._firsts.append(first)
                self._listed.append(listed)
            return self._listed

    def read(self, block: Block) -> Columns:
        """Return rows of one block of one source; see `Source.read`."""
        listed = self._blocks()
        if not block.part:
            self.blocks()
            block = self._row[block]
        number = bisect_right(self._firsts, block.part) - 1
        places = listed[number]
        whole = places[bisect_right(places, (block.part, block.start), key=lambda one: (one.part, one.start)) - 1]
        rows = slice(block.start - whole.start, block.stop - whole.start)
        columns = {name: array[rows] for name, array in self._read(number, whole).items()}
        return concatenate(self.layout, [columns])

    def _read(self, number: int, whole: Block) -> Columns:
        with self._lock:
            if number not in self._last or self._last[number][0] != whole:
                inner = Block(whole.part - self._firsts[number], whole.start, whole.stop)
                self._last[number] = whole, self.sources[number].read(inner)
                self.sources[number].release()  # several caches of several sources would be much memory
            return self._last[number][1]

    def release(self) -> None:
        """Drop the blocks that were read last."""
        with self._lock:
            self._last.clear()


def _parts(blocks: Sequence[Block], first: int) -> int:
    return max((block.part for block in blocks), default=first - 1) + 1 - first


def _cut(blocks: Sequence[Block], edges: Sequence[int]) -> Iterator[list[Block]]:
    """Yield the rows between each two edges of a run of blocks."""
    waiting = iter(blocks)
    at = 0
    block: Block | None = None
    for start, stop in pairwise(edges):
        piece: list[Block] = []
        while at < stop:
            block = next(waiting) if block is None else block
            taken = min(block.rows, (start if at < start else stop) - at)
            if at >= start:
                piece.append(Block(block.part, block.start, block.start + taken))
            at += taken
            block = None if taken == block.rows else Block(block.part, block.start + taken, block.stop)
        yield piece


def _check_listed(name: str, value: Any) -> None:
    if isinstance(value, str) or not hasattr(value, "__len__") or not hasattr(value, "__getitem__"):
        raise ConfigurationError(f"{name} must be a list, got {kind_of(value)}: mix([one, other], weights=[0.7, 0.3])")


def _check_whole(name: str, value: Any, least: int) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ConfigurationError(f"{name} must be a whole number of at least {least}, got {value!r}")


def _warn_of_none(counts: Sequence[int], weights: Sequence[float]) -> None:
    if 0 in counts:
        number = counts.index(0)
        warnings.warn(
            f"dataset {number} of weight {weights[number]} gives none of the {sum(counts)} rows of an epoch: give a "
            "larger weight, or more examples",
            StrombusWarning,
            stacklevel=3,
        )


def _opened(data: Any) -> Source:
    source = open_source(data)
    if not isinstance(source, Source):
        raise DataError(
            f"only what every worker can read can be mixed, got {kind_of(data)}: export it first "
            f"(strombus.data.export) and mix the datasets"
        )
    return source


def _shares(weights: Sequence[float], datasets: int) -> list[Fraction]:
    """Return what part of the rows each dataset gives, as the decimals that were written: 0.7 is seven tenths."""
    if not datasets or len(weights) != datasets or not all(map(_is_weight, weights)):
        got = [weight if isinstance(weight, Real | str) else kind_of(weight) for weight in weights]
        raise ConfigurationError(
            f"weights must be numbers above 0 and finite, one for each of {datasets} datasets, got {got}: "
            "mix([one, other], weights=[0.7, 0.3])"
        )
    exact = [Fraction(str(float(weight))) for weight in weights]
    return [weight / sum(exact) for weight in exact]


def _is_weight(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < math.inf


def _counts(rows: Sequence[int], shares: Sequence[Fraction], examples: int | None, repeat: bool) -> list[int]:
    """Return the rows of each dataset in an epoch, each its share to one row; largest remainders are rounded up."""
    if empty := [number for number, count in enumerate(rows) if not count]:
        raise EmptyDataError(f"dataset {empty[0]} of the mix holds no examples")
    if examples is None:
        reaches = [count / share for count, share in zip(rows, shares, strict=True)]
        examples = math.ceil(max(reaches)) if repeat else math.floor(min(reaches))
    if examples < 1:  # of very few rows
        raise ConfigurationError(f"examples must be at least 1, got {examples}")
    exact = [examples * share for share in shares]
    counts = [math.floor(count) for count in exact]
    by_remainder = sorted(range(len(exact)), key=lambda number: (counts[number] - exact[number], number))
    for number in by_remainder[: examples - sum(counts)]:
        counts[number] += 1
    for number, (count, there) in enumerate(zip(counts, rows, strict=True)):
        if count > there and not repeat:
            raise ConfigurationError(
                f"{examples} examples need {count} rows of dataset {number}, which has {there}: give fewer examples, "
                f"or repeat=True to have it begin again within an epoch"
            )
    return counts


def _transform(sources: Sequence[Source], given: Transform | None) -> Transform | None:
    own = {id(source.transform): source.transform for source in sources}
    if own.keys() == {id(None)}:
        return given
    if len(own) > 1 and any(isinstance(source, ExampleSource) for source in sources):
        raise DataError(
            "strombus.data.examples cannot be mixed with other data, since the worker makes their arrays: export them "
            "first (strombus.data.export) and mix the datasets"
        )
    if given is not None or len(own) > 1:
        raise ConfigurationError(
            "the minibatches of a mix have one transform: open the datasets without, and give it to mix(transform=...)"
        )
    return next(iter(own.values()))
