"""Rows through a network in passes: as wide as memory allows, several at a time, results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from strombus.networks import Replica
from strombus.types import DataSet, MultiDataSet
from strombus.worker.models import Models

__all__ = ["Passes"]

R = TypeVar("R")
Rows = DataSet | MultiDataSet
Work = Callable[[Replica, Rows], R]

PASS_BYTES = 8 << 20
"""What the results of all operations of one pass may take together; a pass is never narrower than a minibatch."""


@dataclass(frozen=True)
class Passes:
    """How rows go through the network.

    In evaluation mode a row's output does not depend on the rows beside it, so that several minibatches can
    share a pass. How many is decided once for each form of rows, by what one minibatch allocates: for the same
    data it is the same number on every worker, and a network with large activations stays at `batch_size`.

    Parameters
    ----------
    models : Models
    batch_size : int
        Rows of a minibatch.
    """

    models: Models
    batch_size: int
    _widths: dict[Any, int] = field(default_factory=dict, compare=False)

    def run(self, slabs: Iterable[Rows], work: Work[R], workers: int = 1) -> Iterator[R]:
        """Yield ``work(replica, rows)`` for pieces of the slabs, in order, up to `workers` of them at a time."""
        pieces = (piece for slab in slabs for piece in self._pieces(slab, work))
        if workers == 1:
            for piece in pieces:
                yield self._pass(work, piece)
            return
        with ThreadPoolExecutor(workers, thread_name_prefix="strombus-pass") as pool:
            running: deque[Future[R]] = deque()
            for piece in pieces:
                running.append(pool.submit(self._pass, work, piece))
                if len(running) > workers:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()

    def divide_threads(self) -> int:
        """Divide torch's threads among the copies, and return how many copies there are threads for.

        For a task of an executor, which restores torch's threads afterwards. A GPU has one copy.
        """
        with self.models.lend() as replica:
            if replica.device.type != "cpu":
                return 1
        threads = torch.get_num_threads()
        workers = min(self.models.copies, threads)
        if workers > 1:
            torch.set_num_threads(threads // workers)
        return workers

    def _pass(self, work: Work[R], rows: Rows) -> R:
        with self.models.lend() as replica:
            return work(replica, rows)

    def _pieces(self, slab: Rows, work: Work[R]) -> Iterator[Rows]:
        """Cut a slab into pieces of about one size, none wider than a pass."""
        count = max(1, -(-len(slab) // self._width(slab, work)))
        edges = [len(slab) * number // count for number in range(count + 1)]
        for start, stop in pairwise(edges):
            yield slab if count == 1 else slab[start:stop]

    def _width(self, slab: Rows, work: Work[R]) -> int:
        form = tuple((name, array.dtype.str, array.shape[1:]) for name, array in slab.columns().items())
        if form not in self._widths and len(slab):
            self._widths[form] = self._measure(slab[: self.batch_size], work)
        return self._widths.get(form, self.batch_size)

    def _measure(self, sample: Rows, work: Work[R]) -> int:
        try:
            with _Allocations() as allocations:
                self._pass(work, sample)
        except Exception:  # the pass itself will tell what is wrong
            return self.batch_size
        minibatch: int = max(1, allocations.bytes * self.batch_size // len(sample))
        return self.batch_size * max(1, PASS_BYTES // minibatch)


class _Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Add up the bytes of all tensors that operations make, views left out: at least what a pass holds at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        given = {_memory(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, torch.Tensor)}
        made = [tensor for tensor in tree_leaves(result) if isinstance(tensor, torch.Tensor)]
        self.bytes += sum(tensor.nbytes for tensor in made if _memory(tensor) not in given)
        return result


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
