"""Partitions of records on a Dask cluster: what transformations and actions of an RDD are made of."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Self

from strombus.compat.dl4j.lineage import Block, Derived, Job, Narrow, Node, all_blocks
from strombus.compat.dl4j.shuffle import Bucket
from strombus.compat.dl4j.storage import Level
from strombus.errors import ConfigurationError, ExecutorError

if TYPE_CHECKING:
    from strombus.compat.dl4j.context import DaskSparkContext

__all__ = ["Partitions"]

PATIENCE = 30.0
"""Seconds without a single worker after which an action gives up."""
TRIES = 3
"""Times that an action begins anew after records that came from the driver were lost with a worker."""


class Partitions:
    """The common part of all RDDs: a recipe of partitions, and running it.

    Parameters
    ----------
    context : DaskSparkContext
        On whose cluster they are computed.
    node : Node
        How they come about.
    """

    def __init__(self, context: DaskSparkContext, node: Node) -> None:
        self._context = context
        self._node = node
        self._id = context._next_id()
        self._name: str | None = None
        self._level = Level.NONE

    @property
    def context(self) -> DaskSparkContext:
        """The context that made this RDD."""
        return self._context

    ctx = context

    def id(self) -> int:
        """Return a number that no other RDD of the context has."""
        return self._id

    def name(self) -> str | None:
        """Return the name that `setName` gave."""
        return self._name

    def setName(self, name: str) -> Self:
        """Name this RDD."""
        self._name = name
        return self

    def getNumPartitions(self) -> int:
        """Return the number of partitions."""
        return self._node.size

    def __repr__(self) -> str:
        return f"{self._name or 'RDD'}[{self._id}] from {self._node.operation} with {self._node.size} partitions"

    def __reduce__(self) -> NoReturn:
        raise ConfigurationError(
            "an RDD is a recipe on the driver and cannot be used inside a function that runs on a worker; "
            "collect and broadcast its records, or join the two RDDs"
        )

    # -- keeping ---------------------------------------------------------------------------------

    def persist(self, storageLevel: Any = Level.MEMORY_ONLY) -> Self:
        """Keep each partition on the cluster once an action has computed it.

        Parameters
        ----------
        storageLevel : Level
            Dask has one place, the memory of its workers, which spill to disk; the level is remembered.

        Raises
        ------
        ConfigurationError
            When the RDD has another level already.
        """
        wanted = Level(
            *(getattr(storageLevel, name) for name in Level._fields)  # PySpark's own has the same fields
        )
        if self._level not in (Level.NONE, wanted):
            raise ConfigurationError("the storage level of a persisted RDD cannot change; call unpersist() first")
        self._level = wanted
        if wanted != Level.NONE and self._node.held is None:
            self._node.held = {}
        return self

    def cache(self) -> Self:
        """Persist with the default level."""
        return self.persist()

    def unpersist(self, blocking: bool = False) -> Self:
        """Let the cluster forget the partitions; they are computed anew when an action needs them."""
        self._level = Level.NONE
        self._node.held = None
        return self

    def getStorageLevel(self) -> Level:
        """Return the level that `persist` was given, `Level.NONE` without."""
        return self._level

    @property
    def is_cached(self) -> bool:
        """Whether this RDD is persisted."""
        return self._node.held is not None

    # -- deriving --------------------------------------------------------------------------------

    def _narrow(self, operation: str, step: Callable[..., Iterable[Any]], *fixed: Any) -> Self:
        """Return the RDD whose partition i is ``step(*fixed, i, records)``."""
        return type(self)(self._context, Narrow(operation, self._node, partial(step, *fixed) if fixed else step))

    def _derive(
        self, operation: str, size: int, function: Callable[..., Any], inputs: Callable[[int], Iterable[Block]]
    ) -> Self:
        """Return the RDD whose partition i is ``function(i, *blocks)``."""
        return type(self)(self._context, Derived(operation, size, function, inputs))

    def _shuffle(
        self,
        operation: str,
        size: int,
        split: Callable[..., list[Bucket]],
        gather: Callable[..., Iterable[Any]],
        others: Sequence[Self] = (),
    ) -> Self:
        """Return the RDD whose partition j is ``gather(j, *buckets j of all partitions of all RDDs)``."""
        sides = [Narrow(f"{operation}-split", rdd._node, split) for rdd in (self, *others)]
        return self._derive(
            operation, size, gather, lambda j: [Block(side, i, j) for side in sides for i in range(side.size)]
        )

    def _count(self, numPartitions: int | None, default: int) -> int:
        """Return a number of partitions that a shuffle can make."""
        if numPartitions is None:
            return max(1, default)
        if not isinstance(numPartitions, int) or numPartitions < 1:
            raise ConfigurationError(f"numPartitions must be an integer of at least 1, got {numPartitions!r}")
        return numPartitions

    def _same(self, other: Any, operation: str) -> Self:
        """Return `other`, if it is an RDD of the same context."""
        if not isinstance(other, type(self)):
            raise TypeError(f"{operation} needs another RDD, got {type(other).__name__}; make one with sc.parallelize")
        if other._context is not self._context:
            raise ConfigurationError(f"{operation} needs two RDDs of one DaskSparkContext, got RDDs of two")
        return other

    # -- running ---------------------------------------------------------------------------------

    def _start(self, indices: Iterable[int]) -> list[Any]:
        """Run the partitions' tasks; return their futures."""
        client = self._context.client
        job = Job()
        keys = [job.block(Block(self._node, index)) for index in indices]
        return job.start(client, keys)

    def _run(self, indices: Iterable[int] | None = None) -> list[list[Any]]:
        """Compute partitions, all by default, and bring them here.

        Raises
        ------
        Exception
            What a function raised on a worker.
        ExecutorError
            When the cluster has no workers, or records were lost again and again.
        """
        wanted = list(range(self._node.size) if indices is None else indices)
        for _ in range(TRIES):
            try:
                futures = self._start(wanted)
                self._wait(futures)
                return list(self._context.client.gather(futures))
            except CancelledError as error:
                lost = error
        raise ExecutorError(f"workers died {TRIES} times with records that came from the driver: {lost}")

    def _wait(self, futures: Sequence[Any]) -> None:
        """Wait as long as there are workers."""
        from distributed import wait

        from strombus.executors.dask_placement import alive_workers

        client, since = self._context.client, time.monotonic()
        while futures:
            try:
                with client.as_current():
                    wait(futures, timeout=PATIENCE / 10)
            except TimeoutError:
                if alive_workers(client):
                    since = time.monotonic()
                elif time.monotonic() - since > PATIENCE:
                    raise ExecutorError(
                        f"the Dask cluster had no worker for {PATIENCE:g} s; start some, then run the action again"
                    ) from None
            else:
                return

    def toLocalIterator(self, prefetchPartitions: bool = False) -> Iterator[Any]:
        """Yield all records; this process holds one partition at a time, the cluster the rest."""
        futures = self._start(range(self._node.size))
        while futures:
            self._wait(futures[:1])
            yield from futures.pop(0).result()

    def toBag(self) -> Any:
        """Return a dask Bag of the same partitions, which every Dask tool takes.

        Returns
        -------
        dask.bag.Bag
            Lazy; what this RDD persists is computed now, in the background.
        """
        from dask.bag import Bag

        job = Job()
        keys = [job.block(block) for block in all_blocks(self._node)]
        if job.keeps:
            job.start(self._context.client, [])
            job = Job()
            keys = [job.block(block) for block in all_blocks(self._node)]
        del keys
        return Bag(job.graph, job.name(self._node), self._node.size)
