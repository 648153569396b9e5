"""Epochs that end after so many steps: how long they are, and streams opened for them."""

from __future__ import annotations

from typing import Any

from strombus.data import LocalStream, NativeCollection, Source, Stream, StreamSource, look_at
from strombus.errors import ConfigurationError, EmptyDataError
from strombus.executors.base import Executor
from strombus.fitting.checking import whole_number
from strombus.fitting.checkpointing import Keeper
from strombus.masters.base import TrainingMaster
from strombus.runs import CONFIG
from strombus.types import EpochLength

__all__ = ["check_steps_per_epoch", "in_steps", "length_of", "record_of"]


def check_steps_per_epoch(steps: Any) -> int | None:
    """Return a number of steps, or None; ConfigurationError where `steps` is neither."""
    return None if steps is None else whole_number("steps_per_epoch", steps, ", or None for all of the data")


def length_of(steps: int, master: TrainingMaster, workers: int, keeper: Keeper | None) -> EpochLength:
    """Return how long an epoch is: `steps` of each worker, or of each with which a fit with a name has begun."""
    size = master.batch_size_per_worker
    before = None if keeper is None else (keeper.run.read(CONFIG) or {}).get("epoch_length")
    if isinstance(before, dict) and (before.get("steps"), before.get("batch_size")) == (steps, size):
        workers = int(before["workers"])
    return EpochLength(steps * size * workers, workers, 0)


def record_of(length: EpochLength, master: TrainingMaster) -> dict[str, int]:
    """Return what a fit with a name keeps of the length, for whoever goes on with other workers."""
    size = master.batch_size_per_worker
    return {"steps": length.rows // (size * length.workers), "batch_size": size, "workers": length.workers}


def in_steps(
    source: Source | LocalStream | NativeCollection, length: EpochLength, epochs: int, executor: Executor, direct: bool
) -> Source | LocalStream | NativeCollection:
    """Return data that can be trained so many rows an epoch.

    Raises
    ------
    ConfigurationError
        For rows in an engine's memory, in the Direct approach.
    EmptyDataError
        For a stream without rows.
    """
    if isinstance(source, Stream):
        return _opened(source, length, executor)
    if isinstance(source, LocalStream):
        return source.head(length.rows * epochs)  # it may have no end
    if isinstance(source, NativeCollection) and direct:
        raise ConfigurationError(
            "steps_per_epoch needs rows that any worker can read: wanted rdd_training_approach='Export', got 'Direct' "
            "and data in an engine's memory, which is dealt once for all epochs"
        )
    return source


def _opened(stream: Stream, length: EpochLength, executor: Executor) -> StreamSource:
    """Have a worker look at the first item."""
    shared = executor.share(stream)
    try:
        (found,) = executor.map(look_at, [length.workers], shared)
    finally:
        shared.free()
    if found is None:
        raise EmptyDataError("the stream has no rows")
    layout, sharded = found
    return StreamSource(stream, layout, sharded, length.rows)
