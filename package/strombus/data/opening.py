"""Open what lies at paths, whatever stored it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from strombus.data import store
from strombus.data.dl4j_files import holds_dl4j
from strombus.data.dl4j_source import open_dl4j
from strombus.data.source import Source, Transform
from strombus.data.zarr_source import open_zarr
from strombus.errors import DataError, MissingDataError

__all__ = ["open_dataset"]


def open_dataset(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], transform: Transform | None = None
) -> Source:
    """Open a dataset for reading.

    Parameters
    ----------
    path : path, URI or sequence of them
        A Strombus dataset, a Zarr group with ``features`` and ``labels`` (``features_0``, ... for a
        `MultiDataSet`), one part of a dataset; a ``.bin`` file that DL4J's ``DataSet.save`` or ``MultiDataSet.save``
        wrote, or a directory of them. A list is read as if it were one dataset.
    transform : callable, optional
        `DataSet` to `DataSet` with as many rows, applied to each minibatch by the reader; must be picklable.

    Raises
    ------
    MissingDataError
        When nothing is there.
    UnfinishedExportError
        When an export did not finish.
    DataError
        When it is something else, or the paths of a list do not go together.
    """
    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    if not paths:
        raise MissingDataError("no path was given; give the path of a dataset or a list of them")
    uris = [store.normalise(one) for one in paths]
    ours = [holds_dl4j(uri) for uri in uris]
    if len(set(ours)) > 1:
        raise DataError(
            f"{uris[ours.index(True)]} holds files of DL4J, {uris[ours.index(False)]} does not; bring them to one form "
            f"first, with strombus data import-dl4j"
        )
    return open_dl4j(uris, transform) if ours[0] else open_zarr(uris, transform)
