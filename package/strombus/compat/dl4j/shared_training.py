"""DL4J's `SharedTrainingMaster` and its builder."""

from __future__ import annotations

from typing import Any, ClassVar, Self, overload

from pydantic import ConfigDict, field_validator

from strombus.compat.dl4j.algorithms import AdaptiveThresholdAlgorithm, DefaultRepartitioner, with_dl4j_names
from strombus.compat.dl4j.beans import getter, setter
from strombus.compat.dl4j.enumerations import level_name
from strombus.compat.dl4j.masters import Builder as CommonBuilder
from strombus.compat.dl4j.masters import MasterMethods
from strombus.compat.dl4j.void_configuration import VoidConfiguration, warn_inert
from strombus.compression import ResidualPostProcessor, ThresholdAlgorithm
from strombus.errors import ConfigurationError
from strombus.masters.dl4j_files import from_dl4j
from strombus.masters.shared_training import SharedTrainingMaster as Core
from strombus.transport import Transport

__all__ = ["SharedTrainingMaster"]

_BUILDERS = """wanted one of
  Builder(rddDataSetNumExamples)
  Builder(thresholdAlgorithm, rddDataSetNumExamples)
  Builder(voidConfiguration, rddDataSetNumExamples)
  Builder(voidConfiguration, thresholdAlgorithm, rddDataSetNumExamples)
  Builder(voidConfiguration, numWorkers, thresholdAlgorithm or threshold, rddDataSetNumExamples)"""


class _SharedNames:
    getDebugLongerIterations = getter("debug_longer_iterations")
    setDebugLongerIterations = setter("debug_longer_iterations")
    isEncodingDebugMode = getter("encoding_debug_mode")
    setEncodingDebugMode = setter("encoding_debug_mode")
    isCollectTrainingStats = getter("collect_training_stats")
    getNumWorkersPerNode = getter("workers_per_node")
    setNumWorkersPerNode = setter("workers_per_node")
    getRddTrainingApproach = getter("rdd_training_approach")
    setRddTrainingApproach = setter("rdd_training_approach")
    getRepartition = getter("repartition_data")
    setRepartition = setter("repartition_data")
    getRepartitionStrategy = getter("repartition_strategy")
    setRepartitionStrategy = setter("repartition_strategy")
    getRepartitioner = getter("repartitioner")
    setRepartitioner = setter("repartitioner")
    getResidualPostProcessor = getter("residual_post_processor")
    setResidualPostProcessor = setter("residual_post_processor")
    getStorageLevel = getter("storage_level")
    setStorageLevel = setter("storage_level")
    getThresholdAlgorithm = getter("threshold_algorithm")
    setThresholdAlgorithm = setter("threshold_algorithm")
    getTrainingHooks = getter("training_hooks")
    setTrainingHooks = MasterMethods._replace_hooks
    getTransport = getter("transport")
    setTransport = setter("transport")
    getWorkerPrefetchBatches = getter("worker_prefetch_num_batches")
    setWorkerPrefetchBatches = setter("worker_prefetch_num_batches")


class SharedTrainingMaster(_SharedNames, MasterMethods, Core):
    """Sharing of threshold-encoded updates; `strombus.SharedTrainingMaster` under DL4J's names.

    Parameters
    ----------
    *values
        DL4J's constructor: ``(voidConfiguration, numWorkers, rddTrainingApproach, storageLevel, collectTrainingStats,
        repartitionStrategy, repartition, thresholdAlgorithm, residualPostProcessor, rddDataSetNumExamples,
        batchSizePerWorker, debugLongerIterations, numWorkersPerNode, workerPrefetchBatches, repartitioner,
        workerTogglePeriodicGC, workerPeriodicGCFrequency, encodingDebugMode)``.
    **options
        Those of `strombus.SharedTrainingMaster`.
    """

    model_config = ConfigDict(validate_default=True)

    constructors: ClassVar[tuple[tuple[str, ...], ...]] = (
        (
            "voidConfiguration",
            "numWorkers",
            "rddTrainingApproach",
            "storageLevel",
            "collectTrainingStats",
            "repartitionStrategy",
            "repartition",
            "thresholdAlgorithm",
            "residualPostProcessor",
            "rddDataSetNumExamples",
            "batchSizePerWorker",
            "debugLongerIterations",
            "numWorkersPerNode",
            "workerPrefetchBatches",
            "repartitioner",
            "workerTogglePeriodicGC",
            "workerPeriodicGCFrequency",
            "encodingDebugMode",
        ),
    )

    def __init__(self, *values: Any, **options: Any) -> None:
        super().__init__(*values, **options)

    _names = field_validator("threshold_algorithm", "residual_post_processor", "repartitioner")(with_dl4j_names)
    _levels = field_validator("storage_level", "storage_level_streams", mode="before")(level_name)

    @classmethod
    def _read(cls, properties: dict[str, Any]) -> dict[str, Any]:
        """Return DL4J's properties as options, the network's configuration among them."""
        void = properties.get("voidConfiguration")
        if isinstance(void, VoidConfiguration):
            void = void.properties()
        return from_dl4j({**properties, "voidConfiguration": void or {}})

    def getVoidConfiguration(self) -> VoidConfiguration:
        """Return `transport_options` as far as DL4J has words for them."""
        return VoidConfiguration.of(self.transport_options)

    def setVoidConfiguration(self, voidConfiguration: VoidConfiguration) -> None:
        """Set `transport_options` to what was set of `voidConfiguration`."""
        self._change("transport_options", voidConfiguration.toTransportOptions())

    class Builder(CommonBuilder):
        """Gather the options of a `SharedTrainingMaster`, with DL4J's defaults.

        Parameters
        ----------
        voidConfiguration : VoidConfiguration, optional
            How the members reach each other.
        numWorkers : int, optional
            Workers that train at the same time. It acts here; DL4J ignores it.
        thresholdAlgorithm : ThresholdAlgorithm or float, optional
            How large the quantum is; a number is where the adaptive algorithm starts.
        rddDataSetNumExamples : int
            Rows that each object of a collection is said to hold.
        """

        @overload
        def __init__(self, rddDataSetNumExamples: int, /) -> None: ...
        @overload
        def __init__(
            self, first: VoidConfiguration | ThresholdAlgorithm | None, rddDataSetNumExamples: int, /
        ) -> None: ...
        @overload
        def __init__(
            self,
            voidConfiguration: VoidConfiguration | None,
            thresholdAlgorithm: ThresholdAlgorithm | None,
            rddDataSetNumExamples: int,
            /,
        ) -> None: ...
        @overload
        def __init__(
            self,
            voidConfiguration: VoidConfiguration | None,
            numWorkers: int | None,
            threshold: ThresholdAlgorithm | float | None,
            rddDataSetNumExamples: int,
            /,
        ) -> None: ...
        def __init__(self, *values: Any) -> None:
            if not 1 <= len(values) <= 4:
                raise ConfigurationError(f"{_BUILDERS}\ngot {len(values)} values")
            *given, examples = values
            void = given.pop(0) if given and not isinstance(given[0], ThresholdAlgorithm) else None
            threshold = given.pop() if given else AdaptiveThresholdAlgorithm()
            workers = given.pop() if given else None
            if not (void is None or isinstance(void, VoidConfiguration)):
                raise ConfigurationError(f"{_BUILDERS}\ngot {type(void).__name__} as the network's configuration")
            super().__init__(
                voidConfiguration=void,
                numWorkers=workers,
                rddDataSetNumExamples=examples,
                repartitioner=DefaultRepartitioner(),
            )
            if isinstance(threshold, int | float):
                self.updatesThreshold(threshold)
            else:
                self.thresholdAlgorithm(threshold)

        def updatesThreshold(self, updatesThreshold: float) -> Self:
            """Set `AdaptiveThresholdAlgorithm(updatesThreshold)`: where the threshold starts, not where it stays."""
            return self.thresholdAlgorithm(AdaptiveThresholdAlgorithm(updatesThreshold))

        def thresholdAlgorithm(self, thresholdAlgorithm: ThresholdAlgorithm | None) -> Self:
            """Set how large the quantum is; None for a threshold that is found from the residual."""
            return self._with(thresholdAlgorithm=thresholdAlgorithm)

        def residualPostProcessor(self, residualPostProcessor: ResidualPostProcessor | None) -> Self:
            """Set what happens to residuals that grow; None for nothing."""
            return self._with(residualPostProcessor=residualPostProcessor)

        def workersPerNode(self, numWorkers: int) -> Self:
            """Set the workers on each host; less than 1 means one for each slot of the backend."""
            return self._with(numWorkersPerNode=numWorkers if numWorkers > 0 else -1)

        def maxStaleness(self, maxStaleness: int | None) -> Self:
            """Set the steps that a worker may run ahead of the slowest; 0 makes runs repeatable. DL4J has no such."""
            return self._with(maxStaleness=maxStaleness)

        def debugLongerIterations(self, timeMs: int) -> Self:
            """Set the milliseconds that every minibatch takes longer, for trials."""
            return self._with(debugLongerIterations=timeMs)

        def encodingDebugMode(self, enabled: bool) -> Self:
            """Set whether figures of each step's threshold and residual are kept in the training statistics."""
            return self._with(encodingDebugMode=enabled)

        def transport(self, transport: str | type[Transport]) -> Self:
            """Set what carries updates: the name of a transport, or a class that passes the transports' suite."""
            return self._with(transport=transport)

        def workerTogglePeriodicGC(self, workerTogglePeriodicGC: bool) -> Self:
            """Do nothing but warn; inert, for there is no JVM whose garbage could be collected periodically."""
            warn_inert("workerTogglePeriodicGC")
            return self

        def workerPeriodicGCFrequency(self, workerPeriodicGCFrequency: int) -> Self:
            """Do nothing but warn; inert, for there is no JVM whose garbage could be collected periodically."""
            warn_inert("workerPeriodicGCFrequency")
            return self

        def build(self) -> SharedTrainingMaster:
            """Return the master; ConfigurationError for a value that cannot work."""
            return self._make(SharedTrainingMaster)
