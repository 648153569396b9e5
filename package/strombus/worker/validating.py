"""A member's share of the validation data, at the end of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

from strombus.evaluation import Evaluation
from strombus.executors.base import Member
from strombus.networks import Replica
from strombus.partitioning import EqualRepartitioner
from strombus.types import DataSet, MultiDataSet, Partition
from strombus.worker.evaluating import evaluate_batches
from strombus.worker.scoring import LossSum, ScoringWork, merge_losses, score_batches

__all__ = ["validate_share"]


def validate_share(
    replica: Replica, work: ScoringWork, member: Member, sign: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Score and evaluate the rows that fall to this member; return sums, which the driver adds up.

    `sign` is called at each minibatch: others wait for who validates longest.
    """
    assert work.source is not None
    parts = EqualRepartitioner().plan([work.source.rows], workers=member.size, batch_size=work.batch_size)
    mine = [part for part in parts if part.rank == member.rank]
    metrics = tuple(metric.fresh() for metric in work.metrics)

    def batches(part: Partition) -> Iterator[DataSet | MultiDataSet]:
        for batch in work.batches(part):
            sign()
            yield batch

    loss = reduce(merge_losses, (score_batches(replica, batches(part)) for part in mine), LossSum())
    for part in mine if metrics else ():
        evaluate_batches(replica, batches(part), metrics)
    found: dict[str, Any] = {
        "validation_loss": [loss.totals, loss.counts, loss.examples],
        "penalty": replica.regularization(),
    }
    for metric in metrics:
        if isinstance(metric, Evaluation):
            right, rows = (0, 0) if metric.empty else (metric.true_positives().sum().item(), metric.examples)
            found |= {"right": right, "evaluated": rows}
    return found
