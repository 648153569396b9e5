"""Open what lies at paths, whatever stored it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from strombus.data import store
from strombus.data.columns import default_columns
from strombus.data.dl4j_files import holds_dl4j
from strombus.data.dl4j_source import open_dl4j
from strombus.data.parquet_files import column_names, holds_parquet
from strombus.data.parquet_source import open_parquet
from strombus.data.source import Source, Transform, check_function
from strombus.data.zarr_source import open_zarr
from strombus.errors import DataError, MissingDataError

__all__ = ["open_dataset"]

_DL4J, _PARQUET = "files of DL4J", "Parquet files"


def open_dataset(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    transform: Transform | None = None,
    *,
    features: str | Sequence[str] = "features",
    label: str | Sequence[str] | None = "label",
) -> Source:
    """Open a dataset for reading.

    Parameters
    ----------
    path : path, URI or sequence of them
        A Strombus dataset, a Zarr group with ``features`` and ``labels`` (``features_0``, ... for a
        `MultiDataSet`), one part of a dataset; a ``.bin`` file that DL4J's ``DataSet.save`` or ``MultiDataSet.save``
        wrote, or a directory of them; a Parquet file, or a directory of them. A list is read as if it were one dataset.
    transform : callable, optional
        `DataSet` to `DataSet` with as many rows, applied to each minibatch by the reader; must be picklable.
    features, label : str or list of str
        Columns of Parquet files, see `table`, which takes weights and keys too; a column ``label`` may be missing.

    Raises
    ------
    MissingDataError
        When nothing is there.
    UnfinishedExportError
        When an export did not finish.
    DataError
        When it is something else, or the paths of a list do not go together.
    ConfigurationError
        For a transform that is no function.
    """
    check_function("transform", transform)
    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    if not paths:
        raise MissingDataError("no path was given; give the path of a dataset or a list of them")
    uris = [store.normalise(one) for one in paths]
    forms = [_form_of(uri) for uri in uris]
    if len(set(forms)) > 1:
        other = next(number for number, form in enumerate(forms) if form != forms[0])
        raise DataError(
            f"{uris[0]} holds {forms[0]}, {uris[other]} holds {forms[other]}; bring them to one form first, with "
            f"strombus data export or strombus data import-dl4j"
        )
    if forms[0] == _PARQUET:
        return open_parquet(uris, default_columns(features, label, column_names(uris[0])), transform)
    return open_dl4j(uris, transform) if forms[0] == _DL4J else open_zarr(uris, transform)


def _form_of(uri: str) -> str:
    if holds_dl4j(uri):
        return _DL4J
    return _PARQUET if holds_parquet(uri) else "Zarr"
