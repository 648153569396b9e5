"""DL4J's ``DataSet.save`` and ``MultiDataSet.save`` files.

A `DataSet` begins with a byte that says which arrays follow, a `MultiDataSet` with four numbers that say how many; the
arrays stand one after the other, and after those of a `DataSet` may come metadata of the examples as Java serialised
it. That is a program for whoever reads it, so that it is never looked into: it is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from strombus.interchange.dl4j.binary import Input
from strombus.interchange.dl4j.ndarray import Header, read_data, read_header, skip_data, write_ndarray
from strombus.types import Columns, DataSet, MultiDataSet, from_columns

__all__ = ["Description", "Placed", "describe_dataset", "read_dataset", "read_rows", "write_dataset"]

_FEATURES, _LABELS, _SAME, _FEATURES_MASK, _LABELS_MASK, _METADATA = (1 << bit for bit in range(6))
_DATA_SET = {
    "features": _FEATURES,
    "labels": _LABELS,
    "features_mask": _FEATURES_MASK,
    "labels_mask": _LABELS_MASK,
}
_MULTI = ("features", "labels", "features_mask", "labels_mask")
_JAVA = b"\xac\xed\x00\x05"
"""How Java's serialisation begins."""

_MOST = 1000
"""Arrays of features, of labels, and of masks."""

_NO_MASK = -1.0
"""The only value of the array that stands in a `MultiDataSet` file for a mask that is missing."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An array in a file: what it is, and the byte of its first number."""

    header: Header
    offset: int


@dataclass(frozen=True, slots=True)
class Description:
    """What a file holds.

    Attributes
    ----------
    kind : {"DataSet", "MultiDataSet"}
    arrays : mapping of str to Placed
        By column name, as in `strombus.types.DataSet.columns`.
    rows : int
        0 where there is no array at all.
    metadata : int
        Bytes of serialised Java objects, which nothing reads.
    """

    kind: str
    arrays: Mapping[str, Placed]
    rows: int
    metadata: int


@dataclass(slots=True)
class _Walk:
    """A file read from front to back, array by array; `same` says that the labels are the features."""

    stream: Input
    kind: str = "DataSet"
    metadata: int = 0
    same: bool = False

    def arrays(self) -> Iterator[tuple[str, Header, Any]]:
        """Yield name, header, and the mask's numbers where these had to be read; the caller takes the others."""
        for name in self._names():
            header = read_header(self.stream)
            small = self.kind == "MultiDataSet" and "_mask" in name and header.size == 1
            numbers = read_data(self.stream, header) if small else None
            if numbers is None or numbers.item() != _NO_MASK:
                yield name, header, numbers
        self._end()

    def _names(self) -> list[str]:
        first = self.stream.unpack("B", "the first byte")
        if first == 0 and self.stream.remaining:
            return self._counted()
        known = sum(_DATA_SET.values()) | _SAME | _METADATA
        if first & ~known or (first & _LABELS and first & _SAME) or (first and not first & _FEATURES):
            raise self.stream.fail(
                f"no DataSet or MultiDataSet of DL4J starts with the byte {first:#04x}; features must be there, and "
                f"labels at most once",
                0,
            )
        self.same, self.metadata = bool(first & _SAME), first & _METADATA
        return [name for name, bit in _DATA_SET.items() if first & bit]

    def _counted(self) -> list[str]:
        self.kind = "MultiDataSet"
        head = b"\0" + bytes(self.stream.take(15, "the numbers of arrays"))
        counts = [int.from_bytes(head[at : at + 4], "big", signed=True) for at in range(0, 16, 4)]
        inputs, outputs, input_masks, output_masks = counts
        if min(counts) < 0 or max(counts) > _MOST:
            raise self.stream.fail(f"{counts} arrays of features, labels and masks of each are not credible", 0)
        if input_masks not in (0, inputs) or output_masks not in (0, outputs) or (outputs and not inputs):
            raise self.stream.fail(f"{counts} arrays of features, labels and masks of each do not go together", 0)
        return [f"{name}_{i}" for name, count in zip(_MULTI, counts, strict=True) for i in range(count)]

    def _end(self) -> None:
        rest = self.stream.remaining
        if self.metadata:
            if bytes(self.stream.take(min(4, rest), "metadata")) != _JAVA:
                raise self.stream.fail("metadata must stand here as Java serialises it, something else does")
            self.metadata = rest
            self.stream.skip(self.stream.remaining, "metadata")
        elif rest:
            raise self.stream.fail(f"{rest:,} bytes follow the last array, where the file should end")


def describe_dataset(source: Any, name: str = "the file") -> Description:
    """Say what a file holds, without reading its numbers where the source can seek.

    Parameters
    ----------
    source : Input, bytes-like or binary file
    name : str
        What errors call a source that is no `Input`.

    Raises
    ------
    DataError
        Names the byte and the reason.
    """
    stream = source if isinstance(source, Input) else Input(source, name)
    walk = _Walk(stream)
    arrays: dict[str, Placed] = {}
    for column, header, numbers in walk.arrays():
        arrays[column] = Placed(header, stream.offset - (0 if numbers is None else header.nbytes))
        if numbers is None:
            skip_data(stream, header)
    if walk.same:
        arrays = {"features": arrays["features"], "labels": arrays["features"], **arrays}
    rows = _rows(stream, {name: placed.header.shape for name, placed in arrays.items()})
    return Description(walk.kind, arrays, rows, walk.metadata)


def read_dataset(source: Any, name: str = "the file") -> DataSet | MultiDataSet | None:
    """Read a whole file.

    Parameters
    ----------
    source : path, Input, bytes-like or binary file
        Single-byte numbers of a bytes-like source are read-only views of it; all else is read or copied once.
    name : str
        What errors call a source that is no `Input`.

    Returns
    -------
    DataSet or MultiDataSet or None
        None where the file holds no array at all, as DL4J writes an empty `DataSet`.

    Raises
    ------
    DataError
        Names the byte and the reason.
    """
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            return read_dataset(file, os.fspath(source))
    stream = source if isinstance(source, Input) else Input(source, name)
    walk = _Walk(stream)
    columns: Columns = {}
    for column, header, numbers in walk.arrays():
        columns[column] = read_data(stream, header) if numbers is None else numbers
    if walk.same:
        columns = {"features": columns["features"], "labels": columns["features"], **columns}
    _rows(stream, {column: array.shape for column, array in columns.items()})
    return from_columns(walk.kind, columns) if columns else None


def _rows(stream: Input, shapes: Mapping[str, tuple[int, ...]]) -> int:
    lengths = {name: shape[0] if shape else None for name, shape in shapes.items()}
    listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    if None in lengths.values() or len(set(lengths.values())) > 1:
        raise stream.fail(f"all arrays need the same number of examples along their first axis, got {listed}", 0)
    if any(0 in shape[1:] and shape[0] for shape in shapes.values()):
        raise stream.fail(f"examples without values cannot be told apart from none, got {listed}", 0)
    return next(iter(lengths.values()), 0) or 0


def read_rows(
    stream: Input, description: Description, start: int, stop: int, places: Mapping[str, Any] | None = None
) -> Columns:
    """Read some rows of a described file; nothing else where they lie together.

    Parameters
    ----------
    stream : Input
        Of the described bytes; it must be able to seek.
    description : Description
    start, stop : int
    places : mapping of str to ndarray, optional
        Contiguous arrays to read into, of the rows' shapes and dtypes; for arrays that lie in C order alone, and
        neither BOOL nor BFLOAT16.
    """
    done: dict[int, Any] = {}
    found: Columns = {}
    for name, placed in description.arrays.items():
        place = None if places is None else places[name]
        if placed.offset not in done:
            done[placed.offset] = _some_rows(stream, placed, start, stop, place)
        elif place is not None:
            place[...] = done[placed.offset]
        found[name] = done[placed.offset] if place is None else place
    return found


def _some_rows(stream: Input, placed: Placed, start: int, stop: int, place: Any) -> Any:
    header = placed.header
    stream.seek(placed.offset)
    if stop - start == header.shape[0]:
        return read_data(stream, header, place)
    if not header.by_rows:
        return np.ascontiguousarray(read_data(stream, header)[start:stop])
    stream.skip(start * (header.nbytes // header.shape[0]), "the rows before")
    wanted = Header((stop - start, *header.shape[1:]), header.strides, header.type, header.order)
    return read_data(stream, wanted, place)


def write_dataset(target: IO[bytes] | str | os.PathLike[str], rows: DataSet | MultiDataSet) -> None:
    """Write what DL4J's ``load`` reads.

    Parameters
    ----------
    target : path or binary file
    rows : DataSet or MultiDataSet

    Raises
    ------
    DataError
        For a dtype that ND4J has not.
    """
    if isinstance(target, str | os.PathLike):
        with open(target, "wb") as file:
            write_dataset(file, rows)
        return
    columns = rows.columns()
    if isinstance(rows, DataSet):
        same = rows.labels is rows.features
        if same:
            del columns["labels"]
        target.write(bytes([sum(_DATA_SET[name] for name in columns) | same * _SAME]))
        arrays = list(columns.values())
    else:
        masks = [
            group if any(m is not None for m in group) else () for group in (rows.features_masks, rows.labels_masks)
        ]
        groups = [rows.features, rows.labels, *masks]
        target.write(b"".join(len(group).to_bytes(4, "big") for group in groups))
        missing = np.full(1, _NO_MASK, np.float32)
        arrays = [missing if array is None else array for group in groups for array in group]
    for array in arrays:
        write_ndarray(target, array)
