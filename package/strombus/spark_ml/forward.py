"""Predictions of a column's batches: what runs in Spark's Python workers for ``TorchModel.transform``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.errors import DataError
from strombus.executors.values import Packed
from strombus.types import DataSet
from strombus.worker.inference import answer_objects

__all__ = ["Forward", "annotated", "series_array"]


def annotated(forward: Forward) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """Return a function whose annotations tell Spark that it takes and gives iterators."""
    import pandas as pd

    def predict(batches: Iterator[Any]) -> Iterator[Any]:
        return forward(batches)

    predict.__annotations__ = {"batches": Iterator[pd.Series], "return": Iterator[pd.DataFrame]}
    return predict


@dataclass(frozen=True)
class Forward:
    """Predict batches of a column."""

    work: Packed
    kind: str

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        import pandas as pd

        work = self.work.get()
        for series in batches:
            raw = np.empty((0, 1), np.float32)
            if len(series):
                [found] = answer_objects(work, [DataSet(series_array(series))])
                raw = found[0] if isinstance(found, tuple) else found
            raw = raw.reshape(len(raw), -1)
            yield pd.DataFrame({"prediction": self._predictions(raw), "raw": list(raw.astype(np.float32))})

    def _predictions(self, raw: NDArray[Any]) -> Any:
        if self.kind == "class":
            return raw.argmax(axis=1).astype(np.float64)
        if self.kind == "array":
            return list(raw.astype(np.float32))
        if raw.shape[1] != 1:
            raise DataError(f"the network gives {raw.shape[1]} numbers for a row: take predictionType='array'")
        return raw[:, 0].astype(np.float64)


def series_array(series: Any) -> NDArray[Any]:
    """Return a column as an array, rows first, at least two-dimensional."""
    if series.isna().any():
        raise DataError(f"column {series.name} has missing values; fill or drop them first")
    array = _nested(series.to_numpy())
    return array[:, None] if array.ndim == 1 else array


def _nested(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype != object:
        return values
    rows = [_nested(np.asarray(row)) for row in values]
    if len({row.shape for row in rows}) > 1:
        raise DataError(f"all rows need one shape, got {sorted({row.shape for row in rows})[:4]}")
    return np.stack(rows)
