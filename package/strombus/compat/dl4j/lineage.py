"""How the partitions of an RDD come about, and the Dask graph of one action."""

from __future__ import annotations

import operator
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from distributed import Client, Future

from strombus.compat.dl4j.calls import dump_call, dump_records, load_records, run_call
from strombus.executors.values import Packed

__all__ = ["Block", "Derived", "Foreign", "Job", "Narrow", "Node", "Scattered"]

Step = Callable[[int, Iterable[Any]], Iterable[Any]]
"""What a narrow transformation does to partition i."""


class Block(NamedTuple):
    """A partition of a node; with `pick`, one bucket of a partition that was split for a shuffle."""

    node: Node
    part: int
    pick: int | None = None


class Node(ABC):
    """Partitions that can be computed, any number of times.

    Parameters
    ----------
    operation : str
        What the user called; Dask's dashboard shows it.
    size : int
        Number of partitions.

    Attributes
    ----------
    held : dict of int to Future, or None
        The partitions that the cluster keeps, pickled, once they are computed; None: it keeps none.
    """

    def __init__(self, operation: str, size: int) -> None:
        self.operation = operation
        self.size = size
        self.held: dict[int, Future] | None = None

    @abstractmethod
    def task(self, job: Job, index: int) -> Any:
        """Return the task of partition `index`, a list, after adding what it needs to the job."""


class Scattered(Node):
    """Records that came from the driver; it keeps them pickled and brings them again when a worker was lost."""

    def __init__(self, slices: Sequence[bytes], scatter: Callable[[list[Packed]], list[Future]]) -> None:
        super().__init__("parallelize", len(slices))
        self._packed = [Packed(uuid.uuid4().hex, blob, ()) for blob in slices]
        self._scatter = scatter
        self._futures: list[Future | None] = [None] * len(slices)

    def task(self, job: Job, index: int) -> Any:
        """Bring all slices to the cluster in one go, at the first action."""
        lost = [i for i, one in enumerate(self._futures) if one is None or one.status in ("cancelled", "lost")]
        if lost:
            for i, future in zip(lost, self._scatter([self._packed[i] for i in lost]), strict=True):
                self._futures[i] = future
        return load_records, self._futures[index]


class Foreign(Node):
    """Partitions of a dask Bag."""

    def __init__(self, delayed: Sequence[Any]) -> None:
        super().__init__("fromBag", len(delayed))
        self._delayed = list(delayed)

    def task(self, job: Job, index: int) -> Any:
        """Add the partition's own graph."""
        job.graph.update(self._delayed[index].__dask_graph__())
        return list, self._delayed[index].key


class Derived(Node):
    """Partitions that a function computes from blocks of other nodes.

    Parameters
    ----------
    function : callable
        ``function(index, *blocks)`` returns an iterable of records.
    inputs : callable
        The blocks that partition `index` needs.
    """

    def __init__(
        self, operation: str, size: int, function: Callable[..., Any], inputs: Callable[[int], Iterable[Block]]
    ) -> None:
        super().__init__(operation, size)
        self._function = function
        self._inputs = inputs

    def task(self, job: Job, index: int) -> Any:
        """Compute the inputs, then this."""
        return job.call(self, self._function, index, [job.block(block) for block in self._inputs(index)])


class Narrow(Node):
    """One partition from one partition; a chain of them runs as one task and holds one record at a time."""

    def __init__(self, operation: str, parent: Node, step: Step) -> None:
        super().__init__(operation, parent.size)
        self.parent = parent
        self.step = step

    def task(self, job: Job, index: int) -> Any:
        """Run all steps since the last partition that is held, gathered or read."""
        steps, node = [self.step], self.parent
        while isinstance(node, Narrow) and node.held is None:
            steps.append(node.step)
            node = node.parent
        return job.call(self, Chain(steps[::-1]), index, [job.block(Block(node, index))])


class Chain:
    """Steps one after the other."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps

    def __call__(self, index: int, records: Iterable[Any]) -> Iterable[Any]:
        for step in self._steps:
            records = step(index, iter(records))
        return records


class Job:
    """The graph of one action; its keys are new, so that what is not held is computed anew."""

    def __init__(self) -> None:
        self.graph: dict[Any, Any] = {}
        self._token = uuid.uuid4().hex
        self._names: dict[Node, str] = {}
        self._calls: dict[Node, tuple[bytes, list[Future]]] = {}
        self._kept: dict[tuple[Node, int], Any] = {}

    def name(self, node: Node) -> str:
        """Return the first half of the keys of a node's partitions."""
        return self._names.setdefault(node, f"{node.operation}-{self._token}-{len(self._names)}")

    def block(self, block: Block) -> Any:
        """Return the key of a partition or bucket, after adding its task and all that this one needs."""
        node, index, pick = block
        key = self._partition(node, index)
        if pick is None:
            return key
        picked = (f"pick-{self.name(node)}", index, pick)
        self.graph[picked] = (operator.getitem, key, pick)
        return picked

    def _partition(self, node: Node, index: int) -> Any:
        key = (self.name(node), index)
        if key in self.graph:
            return key
        if node.held is None:
            self.graph[key] = node.task(self, index)
            return key
        stored = node.held.get(index)
        if stored is None or stored.status in ("cancelled", "lost", "error"):
            made = (f"made-{self.name(node)}", index)
            self.graph[made] = node.task(self, index)
            stored = (f"kept-{self.name(node)}", index)
            self.graph[stored] = (dump_records, made)
            self._kept[node, index] = stored
        self.graph[key] = (load_records, stored)
        return key

    def call(self, node: Node, function: Callable[..., Any], index: int, blocks: Sequence[Any]) -> Any:
        """Return the task of ``list(function(index, *blocks))``; the function is pickled once for all partitions."""
        if node not in self._calls:
            blob, broadcasts = dump_call(function, node.operation)
            self._calls[node] = blob, [one.future for one in broadcasts]
        blob, shared = self._calls[node]
        return run_call, blob, index, len(blocks), *blocks, *shared

    def start(self, client: Client, keys: Sequence[Any]) -> list[Future]:
        """Run the graph; return the futures of `keys`, and let nodes keep the partitions that they hold."""
        kept = list(self._kept.items())
        if not keys and not kept:
            return []
        futures: list[Future] = client.get(self.graph, [*keys, *(key for _, key in kept)], sync=False)
        for ((node, index), _), future in zip(kept, futures[len(keys) :], strict=True):
            if node.held is not None:
                node.held[index] = future
        return futures[: len(keys)]

    @property
    def keeps(self) -> bool:
        """Whether running this leaves partitions on the cluster."""
        return bool(self._kept)


def all_blocks(node: Node) -> Iterator[Block]:
    """Yield the node's partitions in order."""
    return (Block(node, index) for index in range(node.size))
