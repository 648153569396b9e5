"""Read a dataset completely and say what is wrong with it (DL4J: ``SparkDataValidation``)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, cast

import numpy as np

from strombus.data import store
from strombus.data.claims import check_array, check_inside, describe_array, missing_shards
from strombus.data.manifest import Manifest, Part, read_manifest, write_manifest
from strombus.data.rows import Column, is_mask
from strombus.documents import counted
from strombus.errors import DataError

__all__ = [
    "READ_BYTES",
    "Expected",
    "Problem",
    "Shapes",
    "ValidationReport",
    "check_part",
    "fits",
    "templates",
    "validate_dataset",
]

Shapes = Sequence[int] | Sequence[Sequence[int] | None]
"""The shape of one array, or of each array of a `MultiDataSet`."""

READ_BYTES = 64 << 20
_KINDS = ("missing", "corrupt", "mismatched", "non_finite")


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one part or file; `kind` is missing, corrupt, mismatched or non_finite."""

    part: str
    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.part}: {self.kind.replace('_', '-')}: {self.message}"


@dataclass(frozen=True)
class ValidationReport:
    """What was found (DL4J: ``ValidationResult``).

    Parameters
    ----------
    total, valid : int
        Parts, or files.
    examples : int
        Rows of the valid parts.
    problems : tuple of Problem
    quarantined : tuple of str
        Parts that were moved aside.
    noun : {"part", "file"}
        What was looked at.
    """

    total: int
    valid: int
    examples: int
    problems: tuple[Problem, ...] = ()
    quarantined: tuple[str, ...] = ()
    noun: str = "part"

    @property
    def ok(self) -> bool:
        """Say whether nothing is wrong."""
        return not self.problems

    def count(self, kind: str) -> int:
        """Return the number of parts with a problem of that kind."""
        return len({problem.part for problem in self.problems if problem.kind == kind})

    @property
    def missing(self) -> int:
        """Parts without an array or a shard that should be there."""
        return self.count("missing")

    @property
    def corrupt(self) -> int:
        """Parts that cannot be decoded."""
        return self.count("corrupt")

    @property
    def mismatched(self) -> int:
        """Parts of another shape, dtype or number of rows than was promised or asked for."""
        return self.count("mismatched")

    @property
    def non_finite(self) -> int:
        """Parts with NaN or infinite values."""
        return self.count("non_finite")

    def __str__(self) -> str:
        counts = Counter({kind: self.count(kind) for kind in _KINDS})
        found = ", ".join(f"{number} {kind.replace('_', '-')}" for kind, number in counts.items() if number)
        head = f"{self.valid:,} of {counted(self.total, self.noun)} valid, {counted(self.examples, 'example')}"
        head += f"; {found}" if found else ""
        aside = [f"moved to quarantine: {', '.join(self.quarantined)}"] if self.quarantined else []
        return "\n".join([head, *map(str, self.problems), *aside])


@dataclass(frozen=True)
class Expected:
    """What every part has to be; a task's shared value.

    `shapes` are templates for whole arrays by column; entries of 0 or less stand for anything.
    """

    uri: str
    columns: dict[str, Column]
    shapes: dict[str, tuple[int, ...]]


def check_part(expected: Expected, part: Part) -> list[Problem]:
    """Read all of one part, in bounded memory whatever its metadata claims; a task."""
    return [Problem(part.name, kind, message) for kind, message in _check(expected, part)]


def _check(expected: Expected, part: Part) -> Iterator[tuple[str, str]]:
    uri = store.join(expected.uri, part.name)
    present = set(store.children(uri))
    names = part.columns or [name for name in expected.columns if name in present or not is_mask(name)]
    if not present:
        yield "missing", "the part is not there"
        return
    try:
        check_inside(uri)
    except DataError as error:
        yield "corrupt", str(error)
        return
    for name in dict.fromkeys([*names, *expected.shapes]):
        if name not in present:
            yield "missing", f"no array {name}"
        else:
            yield from _check_array(expected, part, name, store.join(uri, name))


def _check_array(expected: Expected, part: Part, name: str, uri: str) -> Iterator[tuple[str, str]]:
    try:
        array = describe_array(uri)
        mismatch = _mismatch(expected, part, name, array)
        if mismatch:
            yield "mismatched", mismatch
            return
        check_array(array, uri)
        if lost := missing_shards(array, uri):
            yield "missing", f"{name} has lost {', '.join(lost[:3])}"
            return
        if bad := _count_non_finite(array):
            yield "non_finite", f"{name} has {bad} NaN or infinite values"
    except Exception as error:
        yield "corrupt", f"{name}: {type(error).__name__}: {str(error)[:200]}"


def _mismatch(expected: Expected, part: Part, name: str, array: Any) -> str:
    shape, dtype = tuple(array.shape), np.dtype(array.dtype).name
    if not shape or shape[0] != part.examples:
        return f"{name} has the shape {shape}, the manifest promises {part.examples} examples"
    column = expected.columns.get(name)
    if column is not None and (dtype, shape[1:]) != (column.dtype, tuple(column.shape)):
        return f"{name} is {dtype}{list(shape[1:])}, the dataset is {column.dtype}{list(column.shape)}"
    template = expected.shapes.get(name)
    if template is not None and not fits(shape, template):
        return f"{name} has the shape {shape}, wanted {template}"
    return ""


def fits(shape: tuple[int, ...], template: tuple[int, ...]) -> bool:
    """Say whether a shape is as wanted; entries of 0 or less stand for anything."""
    return len(shape) == len(template) and all(t <= 0 or s == t for s, t in zip(shape, template, strict=True))


def _count_non_finite(array: Any) -> int:
    row_bytes = max(1, np.dtype(array.dtype).itemsize * prod(array.shape[1:]))
    step = max(1, READ_BYTES // row_bytes // array.chunks[0]) * array.chunks[0]
    bad = 0
    for start in range(0, array.shape[0], step):
        values = np.asarray(array[start : start + step])
        if values.dtype.kind in "fc":
            bad += int(values.size - np.isfinite(values).sum())
    return bad


def validate_dataset(
    path: str | os.PathLike[str],
    run: Callable[[Expected, Sequence[Part]], Iterable[list[Problem]]],
    *,
    features_shape: Shapes | None = None,
    labels_shape: Shapes | None = None,
    quarantine: bool = False,
) -> ValidationReport:
    """Check every part of a dataset; see `strombus.exporting.validate`.

    Parameters
    ----------
    run : callable
        Applies `check_part` to all parts, here or on a cluster.
    """
    uri = store.normalise(path)
    manifest = read_manifest(uri)
    columns = dict(manifest.columns)
    shapes = templates(manifest.kind, features_shape, labels_shape)
    problems = [p for found in run(Expected(uri, columns, shapes), manifest.parts) for p in found]
    bad = {problem.part for problem in problems}
    good = tuple(part for part in manifest.parts if part.name not in bad)
    moved = _set_aside(uri, manifest, good) if quarantine and bad else ()
    return ValidationReport(len(manifest.parts), len(good), sum(part.examples for part in good), tuple(problems), moved)


def templates(kind: str, features: Shapes | None, labels: Shapes | None) -> dict[str, tuple[int, ...]]:
    """Return the wanted shapes by column."""
    suffix = "" if kind == "DataSet" else "_0"
    found: dict[str, tuple[int, ...]] = {}
    for name, given in (("features", features), ("labels", labels)):
        if given is not None and all(isinstance(side, int) for side in given):
            found[f"{name}{suffix}"] = tuple(cast("Sequence[int]", given))
        elif given is not None:
            several = cast("Sequence[Sequence[int] | None]", given)
            found |= {f"{name}_{i}": tuple(shape) for i, shape in enumerate(several) if shape is not None}
    return found


def _set_aside(uri: str, manifest: Manifest, good: tuple[Part, ...]) -> tuple[str, ...]:
    """Take bad parts out of the manifest first, so that no reader meets a part that is gone, then move them."""
    write_manifest(uri, replace(manifest, parts=good))
    kept = {part.name for part in good}
    moved = [part.name for part in manifest.parts if part.name not in kept]
    for name in moved:
        if store.exists(store.join(uri, name)):
            store.move(store.join(uri, name), store.join(uri, "quarantine", name))
    return tuple(moved)
