"""The first rows of any data, for a trial: as much as is asked for, read where and how the whole would be."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from strombus.data.native import Cut, NativeCollection, count_rows
from strombus.data.source import Source
from strombus.data.streams import LocalStream
from strombus.types import Block, Columns, NativePartition

__all__ = ["FirstRows", "first_of"]

logger = logging.getLogger(__name__)


class FirstRows(Source):
    """Rows from the beginning of a source's parts, as many of each as of the others where these have as many.

    Parameters
    ----------
    source : Source
    rows : int
        Of all parts; a source that has fewer is there whole.
    each : int
        Rows of a part that are taken before those after it have had their turn.
    """

    def __init__(self, source: Source, rows: int, each: int) -> None:
        self._source = source
        self.kind, self.columns, self.transform = source.kind, source.columns, source.transform
        self.part_rows = tuple(_first(source.part_rows, rows, each))
        # Each block, and that of the source whose first rows it has.
        self._whole = {Block(b.part, b.start, self._end(b)): b for b in source.blocks() if self._end(b) > b.start}

    def _end(self, block: Block) -> int:
        return min(block.stop, self.part_rows[block.part])

    def blocks(self) -> tuple[Block, ...]:
        """Return the source's blocks, cut where the rows end."""
        return tuple(self._whole)

    def read(self, block: Block) -> Columns:
        """Return a block's rows, of the whole block as the source has it."""
        return {name: array[: block.rows] for name, array in self._source.read(self._whole[block]).items()}

    def release(self) -> None:
        """Drop what was kept in memory for further reads."""
        self._source.release()


def _first(part_rows: Sequence[int], rows: int, each: int) -> list[int]:
    """Return how many rows to take of each part."""
    taken = [0] * len(part_rows)
    while (left := min(rows, sum(part_rows)) - sum(taken)) > 0:
        for number, have in enumerate(part_rows):
            more = min(each, have - taken[number], left)
            taken[number] += more
            left -= more
    return taken


class _FirstPartitions(NativeCollection):
    """The first partitions of a collection, the last one as far as rows are wanted of it."""

    def __init__(self, collection: NativeCollection, counts: Sequence[int]) -> None:
        self._collection, self._counts = collection, list(counts)
        self.engine = collection.engine

    def partitions(self) -> list[NativePartition]:
        """Return the partitions, whole."""
        assert self._counts is not None
        return self._collection.partitions()[: len(self._counts)]

    def _arrange(
        self, executor: Any, cuts: list[Cut], sizes: list[int], storage_level: str | None
    ) -> list[NativePartition]:
        return self._collection._arrange(executor, cuts, sizes, storage_level)

    def release(self) -> None:
        """Drop what `arrange` holds in the engine's cache."""
        self._collection.release()


def first_of(data: Source | LocalStream | NativeCollection, rows: int, executor: Any) -> Any:
    """Return data that has `rows` rows or a little more, where it is not yet readable by every worker.

    Of what an engine holds these are its first partitions, of a stream its first objects. Where the stream is an
    iterator, which gives each object once, a warning says that they are used up.
    """
    if isinstance(data, NativeCollection):
        return _FirstPartitions(data, list(_counts(data, rows, executor)))
    return data if isinstance(data, Source) else _first_objects(data, rows)


def _counts(collection: NativeCollection, rows: int, executor: Any) -> Iterator[int]:
    """Yield the rows of partitions until there are enough; no more of them are computed."""
    for found in executor.map(count_rows, collection.partitions()):
        yield min(found, rows)
        rows -= found
        if rows <= 0:
            return


def _first_objects(stream: LocalStream, rows: int) -> LocalStream:
    objects = []
    for found in stream:
        objects.append(found)
        rows -= len(found)
        if rows <= 0:
            break
    if isinstance(stream.objects, Iterator):
        logger.warning("a trial has used up the first %d objects of an iterator: give the fit a new one", len(objects))
    return LocalStream(objects)
