"""DL4J's files of normalizers: ``NormalizerSerializer``'s, alone or as ``normalizer.bin`` in a model's zip."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.errors import ConfigurationError, DataError
from strombus.interchange.dl4j.binary import Input, text
from strombus.interchange.dl4j.ndarray import read_ndarray, write_ndarray
from strombus.normalizers import (
    ImagePreProcessingScaler,
    Normalizer,
    NormalizerMinMaxScaler,
    NormalizerStandardize,
)

__all__ = ["MAGIC", "read_normalizer", "write_normalizer"]

MAGIC = text("NORMALIZER")
_VERSION = 1
_MOST_ARRAYS = 10_000
"""Inputs or outputs of a graph; more is a damaged count."""

_REFUSED = {
    "IMAGE_VGG16": "subtract VGG's mean pixel in a transform of your own",
    "MULTI_HYBRID": "fit a normalizer for each kind, with inputs= and outputs=",
    "CUSTOM": "its class is Java's alone; write it as a transform",
}


def read_normalizer(source: Any, name: str = "the normalizer") -> Normalizer:
    """Read what DL4J's ``NormalizerSerializer`` wrote.

    Parameters
    ----------
    source : bytes-like or binary file
    name : str
        What errors call it.

    Returns
    -------
    Normalizer
        With `axis` 1, where DL4J has the features; for the forms of several inputs and outputs the same classes.

    Raises
    ------
    DataError
        When it is no such file, is cut short or damaged; says at which byte.
    ConfigurationError
        For a kind that has no counterpart here.
    """
    stream = Input(source, name)
    if stream.text("the head of a normalizer", 16) != "NORMALIZER":
        raise stream.fail("this is no file of DL4J's NormalizerSerializer", 0)
    if (version := stream.unpack("i", "the version")) != _VERSION:
        raise stream.fail(f"a normalizer of version {version}; version {_VERSION} is read")
    kind = stream.text("the kind of normalizer")
    if kind not in _READERS:
        advice = _REFUSED.get(kind)
        if advice is None:
            raise stream.fail(f"no kind of normalizer is called {kind}; known: {', '.join([*_READERS, *_REFUSED])}")
        raise ConfigurationError(f"{name} is a normalizer of kind {kind}, which is not read: {advice}")
    made = _READERS[kind](stream)
    if stream.remaining:
        raise stream.fail(f"{stream.remaining:,} bytes follow the normalizer")
    return made


def _several(stream: Input, multi: bool) -> tuple[bool, int, int]:
    """Return whether labels are scaled, and the numbers of arrays of features and of labels."""
    labels = _flag(stream)
    if not multi:
        return labels, 1, int(labels)
    inputs, outputs = stream.unpack("i", "the number of inputs"), stream.unpack("i", "the number of outputs")
    if not 0 < inputs < _MOST_ARRAYS or not (0 < outputs < _MOST_ARRAYS if labels else outputs == -1):
        raise stream.fail(f"a normalizer of {inputs} inputs and {outputs} outputs")
    return labels, inputs, outputs if labels else 0


def _flag(stream: Input) -> bool:
    value = stream.unpack("b", "whether labels are scaled")
    if value not in (0, 1):
        raise stream.fail(f"a yes or no is written as 1 or 0, not {value}")
    return bool(value)


def _standardize(stream: Input, multi: bool) -> Normalizer:
    labels, inputs, outputs = _several(stream, multi)
    return _filled(stream, NormalizerStandardize(fit_labels=labels), inputs, outputs)


def _min_max(stream: Input, multi: bool) -> Normalizer:
    labels, inputs, outputs = _several(stream, multi)
    made = _ranged(stream, NormalizerMinMaxScaler, _double(stream), _double(stream), fit_labels=labels)
    return _filled(stream, made, inputs, outputs)


def _image(stream: Input) -> Normalizer:
    low, high, largest = _double(stream), _double(stream), _double(stream)
    bits = next((bits for bits in range(1, 65) if float(2**bits - 1) == largest), None)
    if bits is None:
        raise stream.fail(f"the largest pixel is {largest}, which is no 2^bits - 1")
    return _ranged(stream, ImagePreProcessingScaler, low, high, max_bits=bits)


def _ranged(stream: Input, kind: Callable[..., Normalizer], low: float, high: float, **options: Any) -> Normalizer:
    try:
        return kind(low, high, **options)
    except ConfigurationError as error:
        raise stream.fail(str(error)) from None


def _double(stream: Input) -> float:
    return float(stream.unpack("d", "a bound of the range"))


def _filled(stream: Input, made: Normalizer, inputs: int, outputs: int) -> Normalizer:
    for name in _names(inputs, outputs):
        values = {field: _vector(stream) for field in made.fields}
        try:
            made.fitted[name] = made.check(name, values)
        except DataError as error:
            raise stream.fail(str(error)) from None
    return made


def _names(inputs: int, outputs: int) -> list[str]:
    return [f"features_{number}" for number in range(inputs)] + [f"labels_{number}" for number in range(outputs)]


def _vector(stream: Input) -> NDArray[np.float64]:
    array = np.asarray(read_ndarray(stream, stream.name))
    if array.dtype.kind not in "fiu" or array.size != max(array.shape, default=1):
        raise stream.fail(f"a row of numbers is wanted, got {array.dtype} of shape {array.shape}")
    with np.errstate(invalid="ignore"):  # a NaN is refused with all that is not finite
        return array.reshape(-1).astype(np.float64)


_READERS: Mapping[str, Callable[[Input], Normalizer]] = {
    "STANDARDIZE": partial(_standardize, multi=False),
    "MIN_MAX": partial(_min_max, multi=False),
    "IMAGE_MIN_MAX": _image,
    "MULTI_STANDARDIZE": partial(_standardize, multi=True),
    "MULTI_MIN_MAX": partial(_min_max, multi=True),
}


def write_normalizer(normalizer: Normalizer, dtype: Any = np.float32) -> bytes:
    """Return the file that DL4J's ``NormalizerSerializer`` restores.

    Parameters
    ----------
    dtype : {numpy.float32, numpy.float64}
        Of the statistics: that of the network's data in the JVM.

    Raises
    ------
    ConfigurationError
        When it is not fitted, or DL4J has no counterpart for one of its options.
    """
    _check_writable(normalizer)
    target = io.BytesIO()
    target.write(MAGIC + struct.pack(">i", _VERSION))
    if isinstance(normalizer, ImagePreProcessingScaler):
        bounds = (normalizer.min_range, normalizer.max_range, normalizer.max_pixel)
        target.write(text("IMAGE_MIN_MAX") + struct.pack(">3d", *bounds))
        return target.getvalue()
    inputs, outputs = _count(normalizer, "features"), _count(normalizer, "labels")
    multi = inputs > 1 or outputs > 1
    kind = "STANDARDIZE" if isinstance(normalizer, NormalizerStandardize) else "MIN_MAX"
    target.write(text(f"MULTI_{kind}" if multi else kind) + struct.pack(">?", normalizer.fit_labels))
    if multi:
        target.write(struct.pack(">2i", inputs, outputs if normalizer.fit_labels else -1))
    if isinstance(normalizer, NormalizerMinMaxScaler):
        target.write(struct.pack(">2d", normalizer.min_range, normalizer.max_range))
    for name in _names(inputs, outputs):
        for row in _rows(normalizer, normalizer.fitted[name]):
            write_ndarray(target, row.astype(dtype)[None])
    return target.getvalue()


def _check_writable(normalizer: Normalizer) -> None:
    problem = None
    if type(normalizer) not in (NormalizerStandardize, NormalizerMinMaxScaler, ImagePreProcessingScaler):
        problem = f"a {type(normalizer).__name__} has none"
    elif not normalizer.ready:
        problem = "the normalizer was not fitted; call fit(data) first"
    elif normalizer.axis != 1:
        problem = f"its features lie along axis 1, this normalizer's along axis {normalizer.axis}"
    elif normalizer.inputs is not None or normalizer.outputs is not None:
        problem = "it scales every input and output, this normalizer only some (inputs, outputs)"
    elif isinstance(normalizer, ImagePreProcessingScaler) and normalizer.fit_labels:
        problem = "its file does not say that labels are images too (fit_labels)"
    if problem is not None:
        raise ConfigurationError(f"this normalizer cannot be written as a file of DL4J's: {problem}")


def _count(normalizer: Normalizer, kind: str) -> int:
    numbers = [int(name.rsplit("_", 1)[1]) for name in normalizer.fitted if name.startswith(kind)]
    wanted = kind == "features" or normalizer.fit_labels
    if sorted(numbers) != list(range(len(numbers))) or bool(numbers) != wanted:
        raise ConfigurationError(f"a file of DL4J's holds all {kind}, this normalizer only numbers {sorted(numbers)}")
    return len(numbers)


def _rows(normalizer: Normalizer, values: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the values so that DL4J scales by them as we do: it rounds a deviation or a spread of 0 up to 1e-5."""
    if isinstance(normalizer, NormalizerStandardize):
        return values["mean"], np.where(values["std"] == 0, 1.0, values["std"])
    low, high = values["low"], values["high"]
    return low, np.where(high == low, low + 1, high)
