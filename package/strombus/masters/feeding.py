"""How a job's rows become minibatches, and where an engine holds them, how they come to the members of a gang."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from strombus.data import NativeCollection, Source, count_cell
from strombus.masters.base import TrainingMaster
from strombus.masters.job import TrainingJob
from strombus.partitioning import Repartitioner, ranges_of
from strombus.types import NativePartition, Partition
from strombus.worker.bench import Feed

__all__ = ["cells_for_members", "feed_of"]


def feed_of(master: TrainingMaster, job: TrainingJob, repartitioner: Repartitioner) -> Feed:
    """Return the feed of a fit."""
    return Feed(
        job.source if isinstance(job.source, Source) else None,
        batch_size=master.batch_size_per_worker,
        seed=job.seed,
        prefetch=master.worker_prefetch_num_batches,
        last_batch=master.last_batch,
        shuffle=master.shuffle,
        keep_parts=repartitioner.keeps_parts,
        cursor=job.cursor,
    )


@contextmanager
def cells_for_members(
    master: TrainingMaster, job: TrainingJob, source: NativeCollection, repartitioner: Repartitioner
) -> Iterator[dict[Partition, NativePartition]]:
    """Bring an engine's rows into one cell for each member, in rank order, for the time of a ``with`` block.

    A worker without rows would have none in any epoch: it is no member.
    """
    plan = repartitioner.plan(
        source.counts(job.executor), workers=job.workers, batch_size=master.batch_size_per_worker, seed=job.seed
    )
    shares = [part for part in ranges_of(plan, job.workers) if part.rows]
    try:
        handles = source.arrange(job.executor, [part.rows for part in shares], master.storage_level)
        for _ in job.executor.map(count_cell, handles):
            pass  # made before the gang starts, which waits for its members no longer than `timeout`
        ranks = [Partition(rank, part.start, part.stop) for rank, part in enumerate(shares)]
        yield dict(zip(ranks, handles, strict=True))
    finally:
        source.release()
