"""DL4J's `ParameterAveragingTrainingMaster` and its builder."""

from __future__ import annotations

from typing import Any, ClassVar, Self, overload

from pydantic import ConfigDict, field_validator

from strombus.compat.dl4j.algorithms import with_dl4j_names
from strombus.compat.dl4j.beans import getter, setter
from strombus.compat.dl4j.enumerations import level_name
from strombus.compat.dl4j.masters import Builder as CommonBuilder
from strombus.compat.dl4j.masters import MasterMethods
from strombus.errors import ConfigurationError
from strombus.masters.parameter_averaging import ParameterAveragingTrainingMaster as Core

__all__ = ["ParameterAveragingTrainingMaster"]

_FIRST = ("saveUpdater", "numWorkers", "rddDataSetNumExamples", "batchSizePerWorker", "averagingFrequency")
_SECOND = ("aggregationDepth", "prefetchNumBatches", "repartition", "repartitionStrategy")


class _AveragingNames:
    getAggregationDepth = getter("aggregation_depth")
    setAggregationDepth = setter("aggregation_depth")
    getAveragingFrequency = getter("averaging_frequency")
    setAveragingFrequency = setter("averaging_frequency")
    getPrefetchNumBatches = getter("worker_prefetch_num_batches")
    setPrefetchNumBatches = setter("worker_prefetch_num_batches")
    isSaveUpdater = getter("save_updater")
    setSaveUpdater = setter("save_updater")
    getTrainingHookList = getter("training_hooks")
    setTrainingHookList = MasterMethods._replace_hooks


class ParameterAveragingTrainingMaster(_AveragingNames, MasterMethods, Core):
    """Local training with periodic averaging; `strombus.ParameterAveragingTrainingMaster` under DL4J's names.

    Parameters
    ----------
    *values
        DL4J's constructors: ``(saveUpdater, numWorkers, rddDataSetNumExamples, batchSizePerWorker,
        averagingFrequency, prefetchNumBatches)``, with ``aggregationDepth`` before the last and ``repartition,
        repartitionStrategy, collectTrainingStats`` behind it, and with ``storageLevel`` before the last of these.
    **options
        Those of `strombus.ParameterAveragingTrainingMaster`.
    """

    model_config = ConfigDict(validate_default=True)

    constructors: ClassVar[tuple[tuple[str, ...], ...]] = (
        (*_FIRST, "prefetchNumBatches"),
        (*_FIRST, *_SECOND, "collectTrainingStats"),
        (*_FIRST, *_SECOND, "storageLevel", "collectTrainingStats"),
    )

    def __init__(self, *values: Any, **options: Any) -> None:
        super().__init__(*values, **options)

    _names = field_validator("repartitioner")(with_dl4j_names)
    _levels = field_validator("storage_level", "storage_level_streams", mode="before")(level_name)

    class Builder(CommonBuilder):
        """Gather the options of a `ParameterAveragingTrainingMaster`, with DL4J's defaults but for `saveUpdater`.

        Parameters
        ----------
        numWorkers : int, optional
            Workers that train at the same time; the backend's slots when None or left out.
        rddDataSetNumExamples : int
            Rows that each object of a collection is said to hold.
        """

        @overload
        def __init__(self, rddDataSetNumExamples: int, /) -> None: ...
        @overload
        def __init__(self, numWorkers: int | None, rddDataSetNumExamples: int, /) -> None: ...
        def __init__(self, *values: int | None) -> None:
            if len(values) not in (1, 2):
                raise ConfigurationError(
                    f"wanted Builder(rddDataSetNumExamples) or Builder(numWorkers, rddDataSetNumExamples); got {values}"
                )
            workers, examples = (None, *values)[-2:]
            super().__init__(numWorkers=workers, rddDataSetNumExamples=examples, worker_prefetch_num_batches=0)

        def aggregationDepth(self, aggregationDepth: int) -> Self:
            """Set the levels of the tree in which the mean is formed."""
            return self._with(aggregationDepth=aggregationDepth)

        def averagingFrequency(self, averagingFrequency: int) -> Self:
            """Set the minibatches of each worker between two averagings."""
            return self._with(averagingFrequency=averagingFrequency)

        def saveUpdater(self, saveUpdater: bool) -> Self:
            """Set whether the optimizer's state is averaged too, as it is here when nothing is said."""
            return self._with(saveUpdater=saveUpdater)

        def storageLevelStreams(self, storageLevelStreams: str | None) -> Self:
            """Set a level that is written and read; lists of paths are small here and never cached."""
            return self._with(storageLevelStreams=storageLevelStreams)

        def build(self) -> ParameterAveragingTrainingMaster:
            """Return the master; ConfigurationError for a value that cannot work."""
            return self._make(ParameterAveragingTrainingMaster)
