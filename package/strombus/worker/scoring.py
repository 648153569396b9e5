"""How the rows of a partition are read, and their losses summed; nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from strombus.data import Source, epoch_order, read_batches, rebatch
from strombus.evaluation import Metric
from strombus.networks import Network, Replica
from strombus.networks.finiteness import count_nonfinite
from strombus.networks.flat import to_numpy
from strombus.partitioning import batch_sizes
from strombus.types import DataSet, MultiDataSet
from strombus.worker.bench import let_go
from strombus.worker.passes import Passes

__all__ = [
    "LossSum",
    "ScoringWork",
    "merge_losses",
    "score_batches",
    "sum_loss",
]


@dataclass(frozen=True)
class ScoringWork:
    """What stays the same for all partitions; shared with the workers once."""

    network: Network
    source: Source | None  # None: the parts are an engine's own partitions
    batch_size: int
    metrics: tuple[Metric, ...] = ()
    outputs: tuple[int, ...] = ()  # which output each metric judges; empty: the first
    passes: Passes | None = None  # for tasks that have no replica of their own

    def batches(self, part: Any) -> Iterator[DataSet | MultiDataSet]:
        """Yield the minibatches of a partition: rows of the source, or objects that an engine has opened."""
        if self.source is None:
            yield from rebatch(part, self.batch_size)
            return
        order = epoch_order(self.source.blocks(), seed=0, epoch=0, shuffle=False)
        sizes = batch_sizes(part.rows, self.batch_size, "keep")
        try:
            with read_batches(
                self.source, order, part.start, part.stop, sizes, seed=0, epoch=0, shuffle=False, prefetch=2
            ) as batches:
                yield from batches
        finally:
            let_go(self.source)


@dataclass(frozen=True, slots=True)
class LossSum:
    """Sums of losses, and what they averaged over.

    Parameters
    ----------
    totals, counts : tuple of float
        For each output, weighted by the outputs' weights: the sum of its terms' losses and the number of terms.
        Kept apart, since with masks the outputs' means are over different numbers of terms.
    examples : int
    problem : str
        Where a sum is not finite, what is wrong.
    """

    totals: tuple[float, ...] = ()
    counts: tuple[float, ...] = ()
    examples: int = 0
    problem: str = ""

    @property
    def total(self) -> float:
        """Sum of all losses."""
        return sum(self.totals)

    @property
    def count(self) -> float:
        """Mean of the outputs' counts."""
        return sum(self.counts) / len(self.counts) if self.counts else 0.0

    @property
    def mean(self) -> float:
        """Sum of the outputs' mean losses."""
        return sum(total / count for total, count in zip(self.totals, self.counts, strict=True) if count)


def score_batches(replica: Replica, batches: Iterable[DataSet | MultiDataSet]) -> LossSum:
    """Sum the loss over minibatches, without regularisation."""
    return reduce(merge_losses, (sum_loss(replica, batch) for batch in batches), LossSum())


def sum_loss(replica: Replica, rows: DataSet | MultiDataSet) -> LossSum:
    """Sum the loss over rows, without regularisation."""
    totals, counts = zip(*replica.sums(rows), strict=True)
    problem = "" if all(map(math.isfinite, totals)) else _explain(replica, rows, sum(totals))
    return LossSum(totals, counts, rows.examples, problem)


def merge_losses(left: LossSum, right: LossSum) -> LossSum:
    """Add two sums; the first problem stays."""
    if not left.examples or not right.examples:
        return left if left.examples else right
    return LossSum(
        tuple(map(add, left.totals, right.totals)),
        tuple(map(add, left.counts, right.counts)),
        left.examples + right.examples,
        left.problem or right.problem,
    )


def _explain(replica: Replica, rows: DataSet | MultiDataSet, loss: float) -> str:
    """Say where a loss that is not finite comes from; looks at everything only now."""
    if bad := count_nonfinite({name: to_numpy(tensor) for name, tensor in replica.module.named_parameters()}):
        return f"the loss is {loss}: parameters of the network are NaN or infinite ({_listed(bad)})"
    if bad := count_nonfinite(rows.columns()):
        return (
            f"the loss is {loss}: the data contains NaN or infinite values ({_listed(bad)}, in a run of "
            f"{rows.examples} examples); clean it, or mask them"
        )
    return (
        f"the loss is {loss}: parameters and data are finite, so the network's arithmetic overflows or takes the "
        "logarithm of zero"
    )


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
