"""Read the files that DL4J saved completely and say what is wrong with them (DL4J: ``SparkDataValidation``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from strombus.data import store
from strombus.data.dl4j_files import find_all, first_layout, layout_of, open_file
from strombus.data.rows import Layout
from strombus.data.stored import StoredFile
from strombus.data.validation import READ_BYTES, Problem, Shapes, ValidationReport, fits, templates
from strombus.errors import DataError
from strombus.interchange.dl4j.binary import Input
from strombus.interchange.dl4j.datasets import Description, describe_dataset, read_rows

__all__ = ["Checked", "ExpectedFiles", "check_files", "validate_files"]

TASK_FILES = 64
"""Files of one task."""


@dataclass(frozen=True)
class ExpectedFiles:
    """What every file has to be; a task's shared value. `first` is the file that the layout is from."""

    layout: Layout
    first: str
    shapes: dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Checked:
    """Rows of a file, and what is wrong with it."""

    rows: int
    problems: tuple[Problem, ...]


def check_files(expected: ExpectedFiles, files: Sequence[StoredFile]) -> list[Checked]:
    """Read all of some files; a task."""
    return [_check(expected, file) for file in files]


def _check(expected: ExpectedFiles, file: StoredFile) -> Checked:
    rows, found = 0, []
    try:
        with open_file(file) as stream:
            description = describe_dataset(stream)
            rows = description.rows
            found = list(_problems(expected, stream, description) if rows else ())
    except DataError as error:
        found.append(("corrupt", str(error).removeprefix(f"{file.uri}, ")))
    name = file.uri.rpartition("/")[2]
    return Checked(rows, tuple(Problem(name, kind, message) for kind, message in found))


def _problems(expected: ExpectedFiles, stream: Input, description: Description) -> Iterator[tuple[str, str]]:
    here = layout_of(description)
    try:
        expected.layout.merge(here)
    except DataError:
        yield "mismatched", f"it is {here}, the first file, {expected.first}, is {expected.layout}"
    for name, template in expected.shapes.items():
        placed = description.arrays.get(name)
        if placed is None:
            yield "missing", f"no array {name}"
        elif not fits(placed.header.shape, template):
            yield "mismatched", f"{name} has the shape {placed.header.shape}, wanted {template}"
    bad = dict.fromkeys(description.arrays, 0)
    for columns in _pieces(stream, description):
        for name, values in columns.items():
            if values.dtype.kind == "f":
                bad[name] += int(values.size - np.isfinite(values).sum())
    yield from (("non_finite", f"{name} has {count} NaN or infinite values") for name, count in bad.items() if count)


def _pieces(stream: Input, description: Description) -> Iterator[dict[str, Any]]:
    """Yield all rows, as few at a time as lie together in the file and stay within bounds."""
    headers = [placed.header for placed in description.arrays.values()]
    row_bytes = max(1, sum(header.nbytes for header in headers) // description.rows)
    together = all(header.by_rows for header in headers)
    step = max(1, READ_BYTES // row_bytes) if together else description.rows
    for start in range(0, description.rows, step):
        yield read_rows(stream, description, start, min(start + step, description.rows))


def validate_files(
    uri: str,
    run: Callable[[Any, Sequence[Any]], Iterable[list[Checked]]],
    *,
    features_shape: Shapes | None = None,
    labels_shape: Shapes | None = None,
    quarantine: bool = False,
) -> ValidationReport:
    """Check every file; see `strombus.exporting.validate`.

    Parameters
    ----------
    run : callable
        Applies `check_files` to all tasks, here or on a cluster.
    """
    files = find_all([uri])[0]
    layout, first = first_layout(files)
    expected = ExpectedFiles(layout, first, templates(layout.kind, features_shape, labels_shape))
    tasks = [files[at : at + TASK_FILES] for at in range(0, len(files), TASK_FILES)]
    checked = [one for found in run(expected, tasks) for one in found]
    bad = [file for file, one in zip(files, checked, strict=True) if one.problems]
    moved = tuple(map(_set_aside, bad)) if quarantine else ()
    return ValidationReport(
        len(files),
        len(files) - len(bad),
        sum(one.rows for one in checked if not one.problems),
        tuple(problem for one in checked for problem in one.problems),
        moved,
        "file",
    )


def _set_aside(file: StoredFile) -> str:
    folder, _, name = file.uri.rpartition("/")
    store.move(file.uri, store.join(folder, "quarantine", name))
    return name
