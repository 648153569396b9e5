"""Storage levels, by Spark's names."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

__all__ = ["Level"]


class _Flags(NamedTuple):
    useDisk: bool
    useMemory: bool
    useOffHeap: bool
    deserialized: bool
    replication: int = 1


class Level(_Flags):
    """Where Spark would keep an RDD.

    Dask has one place: the memory of the workers, which spill to disk by their own thresholds. A level that is given
    to `RDD.persist` is remembered and says whether to keep anything; PySpark's own levels are taken too.
    """

    __slots__ = ()

    NONE: ClassVar[Level]
    DISK_ONLY: ClassVar[Level]
    DISK_ONLY_2: ClassVar[Level]
    DISK_ONLY_3: ClassVar[Level]
    MEMORY_ONLY: ClassVar[Level]
    MEMORY_ONLY_2: ClassVar[Level]
    MEMORY_AND_DISK: ClassVar[Level]
    MEMORY_AND_DISK_2: ClassVar[Level]
    MEMORY_AND_DISK_DESER: ClassVar[Level]
    OFF_HEAP: ClassVar[Level]


Level.NONE = Level(False, False, False, False)
Level.DISK_ONLY = Level(True, False, False, False)
Level.DISK_ONLY_2 = Level(True, False, False, False, 2)
Level.DISK_ONLY_3 = Level(True, False, False, False, 3)
Level.MEMORY_ONLY = Level(False, True, False, False)
Level.MEMORY_ONLY_2 = Level(False, True, False, False, 2)
Level.MEMORY_AND_DISK = Level(True, True, False, False)
Level.MEMORY_AND_DISK_2 = Level(True, True, False, False, 2)
Level.MEMORY_AND_DISK_DESER = Level(True, True, False, True)
Level.OFF_HEAP = Level(True, True, True, False, 1)
