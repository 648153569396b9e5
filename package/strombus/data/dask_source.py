"""Dask's collections: Bags of objects, arrays, DataFrames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from math import isnan
from typing import Any

from strombus.data.columns import TableColumns
from strombus.data.frames import check_frame, frame_rows, keyed_frame_rows
from strombus.data.native import Cut, NativeCollection, cut_rows, join_cuts
from strombus.data.rows import KeyedRows, Rows, as_rows
from strombus.errors import DataError
from strombus.types import DataSet, NativePartition

__all__ = ["DaskCollection", "from_arrays", "from_bag", "from_frame"]


class DaskCollection(NativeCollection):
    """Delayed partitions, each a list of objects.

    Parameters
    ----------
    delayed : sequence of dask.delayed.Delayed
    bag : dask.bag.Bag, optional
        Where the partitions are those of a Bag.
    wrap : callable, optional
        Makes of a Bag what the user handed over in its place.
    keyed : sequence of dask.delayed.Delayed, optional
        The partitions of a table with their keys, each a list of `KeyedRows`.
    """

    engine = "dask"

    def __init__(
        self,
        delayed: Sequence[Any],
        bag: Any = None,
        wrap: Callable[[Any], Any] | None = None,
        keyed: Sequence[Any] | None = None,
    ) -> None:
        self._delayed = list(delayed)
        self._bag = bag
        self._wrap = wrap
        self._keyed = keyed
        self._cells: list[Any] = []

    def partitions(self) -> list[NativePartition]:
        """Return one partition for each partition (or chunk) of the collection."""
        return [NativePartition(self.engine, handle, index) for index, handle in enumerate(self._delayed)]

    def objects(self) -> list[NativePartition]:
        """Return the partitions as they came, keys included where objects have some."""
        delayed = self._keyed if self._bag is None else self._bag.to_delayed()
        if delayed is None:
            return self.partitions()
        return [NativePartition(self.engine, handle, index) for index, handle in enumerate(delayed)]

    @property
    def keyed(self) -> bool:
        """Whether this is a table with a column of keys."""
        return self._keyed is not None

    @property
    def lazy(self) -> bool:
        """Whether this is a Bag."""
        return self._bag is not None

    def apply(self, function: Callable[[Any, Iterable[Any]], Iterable[Any]], shared: Any) -> Any:
        """Return a Bag, or what `wrap` makes of it; `shared` is a part of its graph: it depends on no cluster."""
        import dask

        value = dask.delayed(shared, pure=False, traverse=False)
        answers = self._bag.map_partitions(_applied, function, value)
        return answers if self._wrap is None else self._wrap(answers)

    def _arrange(
        self, executor: Any, cuts: list[Cut], sizes: list[int], storage_level: str | None
    ) -> list[NativePartition]:
        import dask

        groups: list[list[Cut]] = [[] for _ in sizes]
        for cut in cuts:
            groups[cut.cell].append(cut)
        cells = [
            dask.delayed(_join)([dask.delayed(_cut)(self._delayed[cut.partition], cut) for cut in group], number, size)
            for number, (group, size) in enumerate(zip(groups, sizes, strict=True))
        ]
        client = getattr(executor, "client", None)
        if client is not None:
            self._cells = client.compute(cells, **executor.placement.rules())
        else:
            self._cells = [dask.delayed(cell, traverse=False) for cell in dask.compute(*cells, scheduler="synchronous")]
        return [NativePartition(self.engine, handle, index) for index, handle in enumerate(self._cells)]

    def release(self) -> None:
        """Let the workers forget the cells."""
        for cell in self._cells:
            if hasattr(cell, "release"):
                cell.release()
        self._cells = []


def _applied(objects: Any, function: Callable[[Any, Iterable[Any]], Iterable[Any]], shared: Any) -> list[Any]:
    return list(function(shared.get(), objects))


def _cut(partition: Any, cut: Cut) -> list[Rows]:
    return [rows for _, _, rows in cut_rows(partition, [cut])]


def _join(groups: list[list[Rows]], number: int, size: int) -> tuple[int, Rows]:
    return number, join_cuts((rows for group in groups for rows in group), size)


def from_bag(bag: Any, wrap: Callable[[Any], Any] | None = None) -> DaskCollection:
    """Take a Bag of `DataSet`, `MultiDataSet` or (features, labels); `wrap` sees to what comes back."""
    return DaskCollection(bag.map_partitions(_listed).to_delayed(), bag, wrap)


def _listed(items: Any) -> list[Rows]:
    return [as_rows(item) for item in items]


def from_arrays(arrays: Sequence[Any]) -> DaskCollection:
    """Take (features[, labels[, features_mask[, labels_mask]]]), some of them dask arrays, cut alike on the first axis.

    Raises
    ------
    DataError
        When the first axes differ in length.
    """
    import dask
    import dask.array as da

    first = next(array for array in arrays if isinstance(array, da.Array))
    columns = [None if a is None else _aligned(da.asarray(a), first.chunks[0]) for a in arrays]
    pieces = [None if column is None else column.to_delayed().ravel() for column in columns]
    counts = {len(column) for column in pieces if column is not None}
    if len(counts) > 1:
        raise DataError(f"the arrays must have the same chunks along the first axis, they have {sorted(counts)} chunks")
    make = dask.delayed(DataSet)
    return DaskCollection([make(*(p if p is None else p[i] for p in pieces)) for i in range(counts.pop())])


def _aligned(array: Any, rows: tuple[Any, ...]) -> Any:
    known = not any(isnan(size) for size in (*rows, *array.chunks[0]))
    if known and sum(rows) != array.shape[0]:
        raise DataError(f"the arrays must have the same number of examples, got {sum(rows)} and {array.shape[0]}")
    whole = dict.fromkeys(range(1, array.ndim), -1)
    return array.rechunk({0: rows, **whole} if known else whole)


def from_frame(frame: Any, columns: TableColumns) -> DaskCollection:
    """Take a Dask DataFrame's columns; only these are computed."""
    import dask

    columns = replace(columns, engine="dask")
    check_frame(frame._meta, columns)
    delayed = frame[list(columns.names)].to_delayed()
    rows = [dask.delayed(partial(frame_rows, columns=columns, piece=_piece(i)))(part) for i, part in enumerate(delayed)]
    if columns.key is None:
        return DaskCollection(rows)
    keyed = [dask.delayed(partial(_keyed, columns, _piece(i)))(part) for i, part in enumerate(delayed)]
    return DaskCollection(rows, keyed=keyed)


def _piece(number: int) -> str:
    return f" of partition {number}"


def _keyed(columns: TableColumns, piece: str, frame: Any) -> list[KeyedRows]:
    return [keyed_frame_rows(frame, columns, piece)]
