"""How a job's rows become minibatches, and where an engine holds them, how they come to the members of a gang."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from strombus.data import NativeCollection, Source, StreamSource, count_cell
from strombus.errors import ConfigurationError
from strombus.masters.base import TrainingMaster
from strombus.masters.job import TrainingJob
from strombus.partitioning import Repartitioner, ranges_of
from strombus.types import NativePartition, Partition
from strombus.worker.bench import Feed
from strombus.worker.streaming import StreamFeed

__all__ = ["cells_for_members", "feed_of"]


def feed_of(master: TrainingMaster, job: TrainingJob, repartitioner: Repartitioner) -> Feed:
    """Return the feed of a fit."""
    of_stream: dict[str, Any] = {"workers": job.workers} if isinstance(job.source, StreamSource) else {}
    if isinstance(job.source, StreamSource):
        _check_stream(job, job.source)
    return (StreamFeed if of_stream else Feed)(
        job.source if isinstance(job.source, Source) else None,
        batch_size=master.batch_size_per_worker,
        seed=job.seed,
        prefetch=master.worker_prefetch_num_batches,
        last_batch=master.last_batch,
        shuffle=master.shuffle,
        keep_parts=repartitioner.keeps_parts,
        cursor=job.cursor,
        length=job.length,
        **of_stream,
    )


def _check_stream(job: TrainingJob, source: StreamSource) -> None:
    """Raise ConfigurationError where rows of streams that the workers make of their own would be lost."""
    assert job.length is not None
    if source.sharded and job.survives:
        raise ConfigurationError(
            "on_peer_lost='continue' deals the rows of a lost member to the others, who cannot make those of a sharded "
            "stream: take on_peer_lost='restart', or a stream that is the same on every worker (sharded=False)"
        )
    if source.sharded and job.workers != job.length.workers:
        raise ConfigurationError(
            f"each worker makes rows of its own of this stream, and {job.length.workers} have begun it: with "
            f"{job.workers} nobody knows which rows were trained. Go on with {job.length.workers} workers, or begin "
            "anew with a stream that is the same on every worker (sharded=False)"
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
