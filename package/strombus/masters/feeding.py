"""How a job's rows become minibatches under a master's options."""

from __future__ import annotations

from strombus.data import Source
from strombus.masters.base import TrainingJob, TrainingMaster
from strombus.partitioning import Repartitioner
from strombus.worker.bench import Feed

__all__ = ["feed_of"]


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
    )
