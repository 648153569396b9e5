"""DL4J's check of data on disk, for datasets of Zarr parts and for DL4J's own files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from strombus.data import ValidationReport
from strombus.data.dl4j_files import find_all, first_layout, holds_dl4j
from strombus.data.manifest import read_manifest
from strombus.errors import DataError
from strombus.exporting import validate
from strombus.files import normalise

__all__ = ["SparkDataValidation"]

Shape = Sequence[int]


class SparkDataValidation:
    """Read a dataset completely, on the context's workers, and say what is wrong with it.

    Shapes have the examples first; entries of 0 or less stand for anything. What comes back is
    `strombus.data.ValidationReport`.
    """

    @staticmethod
    def validateDataSets(
        sc: Any, path: str, featuresShape: Shape | None = None, labelsShape: Shape | None = None
    ) -> ValidationReport:
        """Say what is wrong with a dataset of `DataSet`; see `strombus.data.validate`."""
        return _checked(sc, path, "DataSet", featuresShape, labelsShape, quarantine=False)

    @staticmethod
    def deleteInvalidDataSets(
        sc: Any, path: str, featuresShape: Shape | None = None, labelsShape: Shape | None = None
    ) -> ValidationReport:
        """Take the parts that are wrong out of a dataset of `DataSet`.

        They are moved to ``quarantine/`` inside the dataset, where DL4J deletes them.
        """
        return _checked(sc, path, "DataSet", featuresShape, labelsShape, quarantine=True)

    @staticmethod
    def validateMultiDataSets(sc: Any, path: str, features: Any = None, labels: Any = None) -> ValidationReport:
        """Say what is wrong with a dataset of `MultiDataSet`.

        Parameters
        ----------
        sc : context, or what `strombus.Trainer` takes as backend
        path : path or URI
        features, labels : int or list of shapes, optional
            How many arrays there must be, or the shape of each, None for any.

        Raises
        ------
        DataError
            When the dataset has another number of arrays, which is the same in all parts.
        """
        return _checked(sc, path, "MultiDataSet", features, labels, quarantine=False)

    @staticmethod
    def deleteInvalidMultiDataSets(sc: Any, path: str, features: Any = None, labels: Any = None) -> ValidationReport:
        """Move the parts that are wrong to ``quarantine/``; see `validateMultiDataSets`."""
        return _checked(sc, path, "MultiDataSet", features, labels, quarantine=True)


def _checked(sc: Any, path: str, kind: str, features: Any, labels: Any, *, quarantine: bool) -> ValidationReport:
    uri = normalise(path)
    layout = first_layout(find_all([uri])[0])[0] if holds_dl4j(uri) else read_manifest(uri).layout
    if layout.kind != kind:
        raise DataError(f"{path} is a dataset of {layout.kind}, not of {kind}")
    shapes: dict[str, Any] = {}
    for name, wanted in (("features", features), ("labels", labels)):
        if kind == "MultiDataSet" and wanted is not None:
            count = wanted if isinstance(wanted, int) else len(wanted)
            have = sum(column.rpartition("_")[0] == name for column in layout.columns)
            if have != count:
                raise DataError(f"{path} has {have} arrays of {name}, wanted {count}")
        shapes[f"{name}_shape"] = None if isinstance(wanted, int) else wanted
    return validate(path, quarantine=quarantine, backend="auto" if sc is None else sc, **shapes)
