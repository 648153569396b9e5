"""Datasets: what holds rows, how they are stored, found, ordered and read."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from strombus.data.dl4j_source import Dl4jSource
from strombus.data.examples import ExampleSource, examples
from strombus.data.manifest import Manifest, Part, read_manifest
from strombus.data.mixing import MixedSource, mix
from strombus.data.native import NativeCollection, count_cell, count_objects, open_cell
from strombus.data.opening import open_dataset
from strombus.data.order import Window, cut_order, endless_order, epoch_order, stretches, window_rows
from strombus.data.parquet_source import ParquetSource
from strombus.data.reader import BatchReader, read_batches
from strombus.data.reels import Reel, StreamSource, look_at, read_stream
from strombus.data.results import Piece, PieceWriter
from strombus.data.rows import Column, KeyedRows, Rows, as_rows, load_cell, rebatch
from strombus.data.source import ArraySource, Source
from strombus.data.sources import open_source
from strombus.data.streams import LocalStream, Stream, stream
from strombus.data.table import table
from strombus.data.validation import ValidationReport
from strombus.data.zarr_source import ZarrSource
from strombus.normalizers import (
    ImagePreProcessingScaler,
    Normalizer,
    NormalizerMinMaxScaler,
    NormalizerStandardize,
)
from strombus.types import DataSet, MultiDataSet

__all__ = [
    "ArraySource",
    "BatchReader",
    "Column",
    "DataSet",
    "Dl4jSource",
    "ExampleSource",
    "ImagePreProcessingScaler",
    "KeyedRows",
    "LocalStream",
    "Manifest",
    "MixedSource",
    "MultiDataSet",
    "NativeCollection",
    "Normalizer",
    "NormalizerMinMaxScaler",
    "NormalizerStandardize",
    "ParquetSource",
    "Part",
    "Piece",
    "PieceWriter",
    "Reel",
    "Rows",
    "Source",
    "Stream",
    "StreamSource",
    "ValidationReport",
    "Window",
    "ZarrSource",
    "as_rows",
    "count_cell",
    "count_objects",
    "cut_order",
    "endless_order",
    "epoch_order",
    "examples",
    "export",
    "import_dl4j",
    "load_cell",
    "load_normalizer",
    "look_at",
    "mix",
    "open_cell",
    "open_dataset",
    "open_source",
    "read_batches",
    "read_manifest",
    "read_stream",
    "rebatch",
    "save_normalizer",
    "stream",
    "stretches",
    "table",
    "validate",
    "window_rows",
]

_ABOVE = {
    "export": "strombus.exporting",
    "import_dl4j": "strombus.converting",
    "validate": "strombus.exporting",
    "load_normalizer": "strombus.normalizing",
    "save_normalizer": "strombus.normalizing",
}


def __getattr__(name: str) -> Any:
    # These run jobs on an executor, or go with one that does, so they live above this package.
    if name in _ABOVE:
        return getattr(import_module(_ABOVE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
