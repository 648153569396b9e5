"""What both masters of DL4J have: getters, setters, hooks, JSON and YAML, and most of their builders' methods."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from strombus.compat.dl4j.beans import getter, setter
from strombus.compat.dl4j.exported import KeptExports
from strombus.errors import ConfigurationError
from strombus.masters.base import TrainingMaster
from strombus.worker.hooks import TrainingHook

__all__ = ["Builder", "MasterMethods"]

if TYPE_CHECKING:
    _Master = TrainingMaster
else:  # a second model among the bases would bring fields that the first one has changed
    _Master = object


class MasterMethods(_Master):
    """DL4J's names on a master of the core.

    Parameters
    ----------
    *values
        DL4J's constructor of that many values.
    **options
        The core's.
    """

    constructors: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Properties in the order of each of DL4J's constructors, by the number of values."""

    def __init__(self, *values: Any, **options: Any) -> None:
        if values:
            fitting = {len(names): names for names in self.constructors}
            if len(values) not in fitting:
                raise ConfigurationError(
                    f"{type(self).__name__} is made of {', '.join(map(str, fitting))} values in a row or of named "
                    f"options, got {len(values)} values; see help({type(self).__name__})"
                )
            options = {**self._read(dict(zip(fitting[len(values)], values, strict=True))), **options}
        super().__init__(**options)

    @classmethod
    def _read(cls, properties: dict[str, Any]) -> dict[str, Any]:
        """Return DL4J's properties as options."""
        return properties

    def _change(self, option: str, value: Any) -> None:
        # Through the constructor, which checks it against the other options; frozen otherwise, as the core's masters.
        self.__dict__.update(type(self)(**{**dict(self), option: value}).__dict__)

    # -- text forms ------------------------------------------------------------------------------

    @classmethod
    def fromJson(cls, jsonStr: str) -> Self:
        """Build a master from JSON, DL4J's own or `toJson`'s; ConfigurationError when it is none."""
        return cls.from_json(jsonStr)

    @classmethod
    def fromYaml(cls, yamlStr: str) -> Self:
        """Build a master from YAML, DL4J's own or `toYaml`'s; ConfigurationError when it is none."""
        return cls.from_yaml(yamlStr)

    def toJson(self) -> str:
        """Return the options as JSON under DL4J's property names; hooks are code and are not written."""
        return self.to_json()

    def toYaml(self) -> str:
        """Return the options as YAML under DL4J's property names; hooks are code and are not written."""
        return self.to_yaml()

    # -- hooks -----------------------------------------------------------------------------------

    def addHook(self, trainingHook: TrainingHook) -> None:
        """Have workers call `trainingHook` around each update."""
        self.add_hook(trainingHook)

    def removeHook(self, trainingHook: TrainingHook) -> None:
        """Take a hook away again; ConfigurationError when it is not there."""
        self.remove_hook(trainingHook)

    def _replace_hooks(self, trainingHooks: Iterable[TrainingHook]) -> None:
        """Replace all hooks; ConfigurationError for one that is none, and nothing is changed."""
        self._hooks[:] = type(self)(training_hooks=trainingHooks).training_hooks

    # -- options ---------------------------------------------------------------------------------

    getIsCollectTrainingStats = getter("collect_training_stats")
    setCollectTrainingStats = setter("collect_training_stats")
    getNumWorkers = getter("workers")
    setNumWorkers = setter("workers")
    getRddDataSetNumExamples = getter("rdd_data_set_num_examples")
    setRddDataSetNumExamples = setter("rdd_data_set_num_examples")

    @cached_property
    def _exports(self) -> KeptExports:
        return KeptExports()

    def deleteTempFiles(self, sc: Any = None) -> bool:
        """Remove what `SparkDl4jMultiLayer` or `SparkComputationGraph` have exported for this master; return True.

        It goes by itself too: when another RDD is fitted, when they are closed or forgotten, and with the program.
        """
        for kept in list(self._exports):
            kept.remove()
        return True


M = TypeVar("M", bound=MasterMethods)


class Builder:
    """Gather options; what is called last stands, and `build` checks them."""

    def __init__(self, **properties: Any) -> None:
        self._properties = properties
        self._hooks: list[TrainingHook] = []

    def _with(self, **properties: Any) -> Self:
        self._properties.update(properties)
        return self

    def _make(self, kind: type[M]) -> M:
        master = kind(**kind._read(self._properties))
        for hook in self._hooks:
            master.add_hook(hook)
        return master

    def batchSizePerWorker(self, batchSize: int) -> Self:
        """Set the rows of a minibatch on one worker; whatever the data's objects hold is cut or joined to it."""
        return self._with(batchSizePerWorker=batchSize)

    def collectTrainingStats(self, collect: bool) -> Self:
        """Set whether each phase is timed, on driver and workers."""
        return self._with(collectTrainingStats=collect)

    def exportDirectory(self, exportDirectory: str | None) -> Self:
        """Set where data is exported to in the Export approach; every worker must reach it."""
        return self._with(exportDirectory=exportDirectory)

    def rddTrainingApproach(self, approach: str) -> Self:
        """Set whether a collection is exported first (`RDDTrainingApproach.Export`) or trained in place (Direct)."""
        return self._with(rddTrainingApproach=approach)

    def repartitionData(self, repartition: str) -> Self:
        """Set when the parts of the data are cut anew, in place of a repartitioner."""
        return self._with(repartition=repartition, repartitioner=None)

    repartionData = repartitionData

    def repartitionStrategy(self, strategy: str) -> Self:
        """Set how the parts of the data are cut anew, in place of a repartitioner."""
        return self._with(repartitionStrategy=strategy, repartitioner=None)

    def repartitioner(self, repartitioner: Any) -> Self:
        """Set who cuts the rows into partitions; it stands above when and how."""
        return self._with(repartitioner=repartitioner)

    def rngSeed(self, rngSeed: int) -> Self:
        """Set the seed of everything random: order, dropout, odd rows."""
        return self._with(rngSeed=rngSeed)

    def storageLevel(self, storageLevel: Any) -> Self:
        """Set the cache that holds a collection in the Direct approach: a `StorageLevel`, pyspark's own, or None."""
        return self._with(storageLevel=storageLevel)

    def trainingHooks(self, *hooks: TrainingHook | Iterable[TrainingHook]) -> Self:
        """Set the hooks that workers call around each update: one collection, or one by one."""
        self._hooks = _flat(hooks)
        return self

    def workerPrefetchNumBatches(self, prefetchNumBatches: int) -> Self:
        """Set the minibatches that each worker reads ahead; 0 reads in the training thread."""
        return self._with(worker_prefetch_num_batches=prefetchNumBatches)


def _flat(hooks: Iterable[Any]) -> list[Any]:
    """Return the hooks of a collection, or given one by one; None is no hook."""
    found: list[Any] = []
    for one in hooks:
        found.extend([one] if isinstance(one, TrainingHook) or not isinstance(one, Iterable) else one)
    return [hook for hook in found if hook is not None]
