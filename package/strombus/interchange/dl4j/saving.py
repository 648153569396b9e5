"""A model zip as DL4J's ``ModelSerializer`` writes it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from strombus.documents import shorten
from strombus.errors import DataError
from strombus.interchange.dl4j.ndarray import write_ndarray

__all__ = ["pack_model", "with_counts"]

_DECODER = json.JSONDecoder()
_OLDEST = (1980, 1, 1, 0, 0, 0)


def pack_model(
    configuration: str,
    coefficients: NDArray[Any],
    updater: NDArray[Any] | None = None,
    others: Mapping[str, bytes] | None = None,
) -> bytes:
    """Return the bytes of a model zip; the same for the same network.

    Parameters
    ----------
    configuration : str
        The JSON, see `with_counts`.
    coefficients, updater : ndarray
        The two vectors in their shapes; no updater state is written for None or an empty one.
    others : mapping of str to bytes
        Further entries, such as ``normalizer.bin``.
    """
    entries = {"configuration.json": configuration.encode(), "coefficients.bin": _array(coefficients)}
    if updater is not None and updater.size:
        entries["updaterState.bin"] = _array(updater)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**entries, **(others or {})}.items():
            archive.writestr(zipfile.ZipInfo(name, _OLDEST), data, zipfile.ZIP_DEFLATED)
    return target.getvalue()


def _array(values: NDArray[Any]) -> bytes:
    target = io.BytesIO()
    write_ndarray(target, values)
    return target.getvalue()


def with_counts(configuration: str, iteration: int, epoch: int) -> str:
    """Return a configuration's text with other counts, and else as it is, letter for letter.

    Raises
    ------
    DataError
        When it is no JSON object.
    """
    try:
        whole = isinstance(json.loads(configuration), dict)
    except (ValueError, RecursionError):
        whole = False
    if not whole:
        raise DataError(f"a configuration must be a JSON object, got {shorten(configuration)}")
    for name, count in {"iterationCount": iteration, "epochCount": epoch}.items():
        configuration = _with(configuration, name, count)
    return configuration


def _with(text: str, name: str, count: int) -> str:
    """Replace the outermost object's value of that name; add it at the object's start where it is missing."""
    first = at = _pass(text, text.index("{"))
    while text[at] != "}":
        key, at = _DECODER.raw_decode(text, at)
        start = _pass(text, _to_mark(text, at))
        _, stop = _DECODER.raw_decode(text, start)
        if key == name:
            return f"{text[:start]}{count}{text[stop:]}"
        at = _to_mark(text, stop)
        at = _pass(text, at) if text[at] == "," else at
    comma = "" if first == at else ", "
    return f'{text[:first]}"{name}" : {count}{comma}{text[first:]}'


def _to_mark(text: str, at: int) -> int:
    """Return where the next letter that is no space stands."""
    while text[at].isspace():
        at += 1
    return at


def _pass(text: str, at: int) -> int:
    """Return where what follows the letter at `at` begins."""
    return _to_mark(text, at + 1)
