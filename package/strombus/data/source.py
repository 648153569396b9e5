"""What workers read: a small picklable description of rows, and the rows of one block in one call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from strombus.data import kept
from strombus.data.order import Window, epoch_order
from strombus.data.rows import Column, Layout, Rows, concatenate, iterate_rows
from strombus.documents import counted
from strombus.errors import ConfigurationError, DataError, EmptyDataError, kind_of
from strombus.types import Block, Columns, from_columns

__all__ = ["ArraySource", "BLOCK_BYTES", "OpenedSource", "Source", "Transform", "check_function", "split_rows"]

Transform = Callable[[Any], Any]
"""DataSet to DataSet, or MultiDataSet to MultiDataSet; called for each minibatch in the reader's thread."""

BLOCK_BYTES = 4 << 20
"""Bytes of one block, all columns together; a window of 8 blocks then stays within `ZarrSource`'s cache twice."""


def check_function(name: str, value: Any) -> None:
    """Raise ConfigurationError where an option is neither None nor a function."""
    if value is not None and not callable(value):
        raise ConfigurationError(f"{name} must be a function, got {kind_of(value)}")


class Source(ABC):
    """Rows that any worker can read; third parties add a storage by subclassing this.

    Attributes
    ----------
    kind : {"DataSet", "MultiDataSet"}
    part_rows : tuple of int
        Rows of each part.
    columns : mapping of str to Column
        Dtype and trailing shape of each column, masks included.
    transform : callable or None
        Applied to each minibatch where it is read; must be picklable and must keep the number of rows.
    """

    kind: str
    part_rows: tuple[int, ...]
    columns: Mapping[str, Column]
    transform: Transform | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.kind} of {counted(self.rows, 'example')} in {self.stored})"

    @property
    def rows(self) -> int:
        """Rows of all parts."""
        return sum(self.part_rows)

    @property
    def stored(self) -> str:
        """In how many parts it is, for a message."""
        return counted(len(self.part_rows), "part")

    @property
    def layout(self) -> Layout:
        """Kind and columns as one record."""
        return Layout(self.kind, self.columns)

    @property
    def mark(self) -> str:
        """What decides the order of the rows besides the blocks: with another, nobody goes on within an epoch."""
        return ""

    @property
    def keyed(self) -> bool:
        """Whether every row has a key besides its columns."""
        return False

    def read_keys(self, start: int, stop: int) -> Any:
        """Return the keys of rows `start` to `stop`, counted over all parts."""
        raise DataError("the data has no keys")

    def release(self) -> None:
        """Drop what was kept in memory for further reads."""

    def release_part(self) -> bool:
        """Drop it at the end of a pass, unless it is all of the data, which the next pass has in memory then.

        Say whether it was dropped.
        """
        much = self.rows * self.layout.row_bytes > kept.CACHE_BYTES
        if much:
            self.release()
        return much

    def order(self, *, seed: int, epoch: int, shuffle: bool = True, keep_parts: bool = False) -> tuple[Window, ...]:
        """Return in which order an epoch takes the rows; see `strombus.data.epoch_order`."""
        return epoch_order(self.blocks(), seed=seed, epoch=epoch, shuffle=shuffle, keep_parts=keep_parts)

    @abstractmethod
    def blocks(self) -> tuple[Block, ...]:
        """Return the units of reading in their natural order; they cover every row once and never cross parts."""

    @abstractmethod
    def read(self, block: Block) -> Columns:
        """Return all columns of a block's rows. The arrays may be shared: callers must not write to them.

        Raises
        ------
        DataError
            When the stored data is missing, corrupt or not what was promised; names the part.
        """


def split_rows(part: int, rows: int, step: int) -> list[Block]:
    """Cut a part into blocks of `step` rows; a last piece below half a step joins its neighbour."""
    if not rows:
        return []
    starts = list(range(0, rows, step))
    if len(starts) > 1 and rows - starts[-1] < step / 2:
        starts.pop()
    return [Block(part, start, stop) for start, stop in zip(starts, [*starts[1:], rows], strict=True)]


class OpenedSource(Source):
    """A source of something that it opens: what it has open, in private attributes, does not travel with it."""

    @abstractmethod
    def _start_empty(self) -> None:
        """Set the private attributes, with nothing open and nothing kept."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start_empty()


class ArraySource(Source):
    """Rows in memory.

    Parameters
    ----------
    data : DataSet or MultiDataSet
    transform : callable, optional
    keys : array, shape (examples,), optional
    """

    def __init__(self, data: Rows, transform: Transform | None = None, keys: Any = None) -> None:
        self.kind = data.kind
        self.part_rows = (data.examples,)
        self.columns = Layout.of(data).columns
        self.transform = transform
        self._arrays = data.columns()
        self._keys = keys

    @classmethod
    def collect(cls, objects: Iterable[Any], transform: Transform | None = None) -> ArraySource:
        """Hold all objects of an iterable in memory, as one copy.

        Raises
        ------
        DataError
            When there are no rows, or objects that differ in kind, dtype or trailing shape.
        """
        layout: Layout | None = None
        pieces: list[Columns] = []
        for rows in iterate_rows(objects):
            if rows.examples:
                layout = Layout.of(rows) if layout is None else layout.merge(Layout.of(rows))
                pieces.append(rows.columns())
        if layout is None:
            raise EmptyDataError("the data has no examples at all")
        return cls(from_columns(layout.kind, concatenate(layout, pieces)), transform)

    @property
    def keyed(self) -> bool:
        """Whether keys were given."""
        return self._keys is not None

    def read_keys(self, start: int, stop: int) -> Any:
        """Return the keys of rows `start` to `stop`."""
        return super().read_keys(start, stop) if self._keys is None else self._keys[start:stop]

    def blocks(self) -> tuple[Block, ...]:
        """Return runs of about 4 MiB."""
        return tuple(split_rows(0, self.rows, max(1, BLOCK_BYTES // self.layout.row_bytes)))

    def read(self, block: Block) -> Columns:
        """Return views."""
        return {name: array[block.start : block.stop] for name, array in self._arrays.items()}
