"""DL4J's enumerations, and Spark's storage levels; each member is the text that the options take."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Self

from strombus.errors import ConfigurationError
from strombus.masters.dl4j_files import storage_level

__all__ = [
    "ExecutionMode",
    "FaultToleranceStrategy",
    "MeshBuildMode",
    "NodeRole",
    "RDDTrainingApproach",
    "Repartition",
    "RepartitionStrategy",
    "StorageLevel",
    "TransportType",
    "level_name",
]


class _Enumeration(StrEnum):
    @classmethod
    def valueOf(cls, name: str) -> Self:
        """Return the member called `name`; ConfigurationError lists those there are."""
        if name not in cls.__members__:
            raise ConfigurationError(f"{cls.__name__} has no member {name!r}; known: {', '.join(cls.__members__)}")
        return cls[name]

    @classmethod
    def values(cls) -> list[Self]:
        """Return the members, in DL4J's order."""
        return list(cls)

    def ordinal(self) -> int:
        """Return the member's place in DL4J's order."""
        return list(type(self)).index(self)


class RDDTrainingApproach(_Enumeration):
    """Whether an engine's collection is written to a dataset first, or trained from its memory."""

    Export = "Export"
    Direct = "Direct"


class Repartition(_Enumeration):
    """When the parts of the data are cut anew."""

    Never = "Never"
    Always = "Always"
    NumPartitionsWorkersDiffers = "NumPartitionsWorkersDiffers"


class RepartitionStrategy(_Enumeration):
    """How they are cut; the last two come to the same here."""

    SparkDefault = "SparkDefault"
    Balanced = "Balanced"
    ApproximateBalanced = "ApproximateBalanced"


class TransportType(_Enumeration):
    """What carries updates in DL4J; here the builder's ``transport`` says it, and this only what DL4J can run."""

    ROUTED_UDP = "ROUTED_UDP"
    CUSTOM = "CUSTOM"


class MeshBuildMode(_Enumeration):
    """Whether updates pass the controller alone, or a tree of members."""

    PLAIN = "PLAIN"
    MESH = "MESH"


class ExecutionMode(_Enumeration):
    """Inert: DL4J's master sets it by itself."""

    SHARDED = "SHARDED"
    AVERAGING = "AVERAGING"
    MANAGED = "MANAGED"


class FaultToleranceStrategy(_Enumeration):
    """Inert, in DL4J as here."""

    NONE = "NONE"


class NodeRole(_Enumeration):
    """Inert: all members are alike here."""

    NONE = "NONE"
    BACKUP = "BACKUP"
    CLIENT = "CLIENT"
    SHARD = "SHARD"
    MASTER = "MASTER"


class StorageLevel(_Enumeration):
    """Which cache of the engine holds a collection; pyspark's own levels will do as well.

    A member may be called, as in Java: ``StorageLevel.MEMORY_ONLY()``.
    """

    NONE = "NONE"
    DISK_ONLY = "DISK_ONLY"
    DISK_ONLY_2 = "DISK_ONLY_2"
    MEMORY_ONLY = "MEMORY_ONLY"
    MEMORY_ONLY_2 = "MEMORY_ONLY_2"
    MEMORY_ONLY_SER = "MEMORY_ONLY_SER"
    MEMORY_ONLY_SER_2 = "MEMORY_ONLY_SER_2"
    MEMORY_AND_DISK = "MEMORY_AND_DISK"
    MEMORY_AND_DISK_2 = "MEMORY_AND_DISK_2"
    MEMORY_AND_DISK_SER = "MEMORY_AND_DISK_SER"
    MEMORY_AND_DISK_SER_2 = "MEMORY_AND_DISK_SER_2"
    OFF_HEAP = "OFF_HEAP"

    def __call__(self) -> Self:
        """Return the level itself."""
        return self

    @property
    def useDisk(self) -> bool:
        """Whether it may lie on disk."""
        return "DISK" in self or self.useOffHeap

    @property
    def useMemory(self) -> bool:
        """Whether it may lie in memory."""
        return "MEMORY" in self or self.useOffHeap

    @property
    def useOffHeap(self) -> bool:
        """Whether it lies outside the JVM's heap."""
        return self == "OFF_HEAP"

    @property
    def deserialized(self) -> bool:
        """Whether Spark would keep objects as they are; those of Python never are kept so."""
        return self.useMemory and "SER" not in self and not self.useOffHeap

    @property
    def replication(self) -> int:
        """How many workers keep it."""
        return 2 if self.endswith("_2") else 1


def level_name(level: Any) -> Any:
    """Return the name of a level that is a record, such as pyspark's; anything else comes back as it is."""
    if isinstance(level, str):
        return level
    parts = ("useDisk", "useMemory", "useOffHeap", "deserialized", "replication")
    if not all(hasattr(level, part) for part in parts):
        return level
    return storage_level({f"_{part}": getattr(level, part) for part in parts})
