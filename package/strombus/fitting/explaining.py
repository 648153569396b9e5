"""What a fit is going to do, found out before it does it."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from strombus.callbacks.tables import fact_table
from strombus.data import ArraySource, LocalStream, NativeCollection, Source, Stream, open_source
from strombus.errors import hide_credentials
from strombus.executors.base import Executor
from strombus.fitting.checking import check_labels
from strombus.fitting.display import counted, describe_capacity, describe_master, describe_network, describe_ports
from strombus.fitting.traffic import Traffic, describe_bytes, traffic_of
from strombus.masters.base import TrainingMaster
from strombus.masters.parameter_averaging import ParameterAveragingTrainingMaster
from strombus.networks import Network
from strombus.partitioning import Repartitioner, batch_sizes, ranges_of
from strombus.runs import CheckpointConfig, CheckpointStore, path_of, read_result
from strombus.types import Capacity, DataSet, Partition
from strombus.worker.bench import Feed

__all__ = ["Explanation", "WorkerPlan", "explain_fit"]

_LISTED = 8
"""Workers that are listed one by one."""

Opened = Source | LocalStream | NativeCollection


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """What one worker trains in the first epoch.

    Parameters
    ----------
    worker : int
        Its rank.
    examples, minibatches : int
    """

    worker: int
    examples: int
    minibatches: int


@dataclass(frozen=True)
class Explanation:
    """What a fit is going to do; its text and its HTML are for reading.

    Parameters
    ----------
    facts : tuple of (str, str)
        What is worth knowing, in the order in which it is shown.
    epochs : int
    workers : tuple of WorkerPlan
        Those that have rows in the first epoch; empty where nobody can say before the data is exported.
    rounds : int or None
        Averagings of an epoch; None for a master that has none, or where nobody can say.
    traffic : Traffic or None
        What a worker sends; None where it has nobody to send to.
    capacity : Capacity
    """

    facts: tuple[tuple[str, str], ...]
    epochs: int
    workers: tuple[WorkerPlan, ...]
    rounds: int | None
    traffic: Traffic | None
    capacity: Capacity = field(default_factory=lambda: Capacity(None))

    @property
    def examples(self) -> int:
        """Rows of an epoch; 0 where nobody can say."""
        return sum(worker.examples for worker in self.workers)

    @property
    def minibatches(self) -> int:
        """Minibatches of an epoch, over all workers."""
        return sum(worker.minibatches for worker in self.workers)

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.facts) + 2
        return "\n".join(f"{name:<{width}}{text}".replace("\n", "\n" + " " * width) for name, text in self.facts)

    def _repr_html_(self) -> str:
        return fact_table("What fit is going to do", self.facts)


def explain_fit(
    network: Network,
    master: TrainingMaster,
    executor: Executor,
    data: Any,
    epochs: int,
    validation: Any,
    *,
    name: str | None = None,
    storage_path: str | os.PathLike[str] | None = None,
    checkpoint: CheckpointConfig | None = None,
    steps_per_epoch: int | None = None,
) -> Explanation:
    """Return what a fit with these arguments is going to do; see `strombus.Trainer.explain`."""
    capacity = executor.capacity()
    count = master.count_workers(capacity) or 1
    source = open_source(data)
    if network.training_step is None:
        check_labels(source, "the data")
    rows = _rows(source, executor)
    each = 0 if steps_per_epoch is None else steps_per_epoch * master.batch_size_per_worker
    stepped = [Partition(rank, 0, each) for rank in range(count)] if each else None
    plan = stepped or _plan(network, master, executor, source, rows, count)
    workers = tuple(
        WorkerPlan(part.rank, part.rows, len(batch_sizes(part.rows, master.batch_size_per_worker, master.last_batch)))
        for part in plan
        if part.rows
    )
    rounds = None
    if workers and isinstance(master, ParameterAveragingTrainingMaster):
        rounds = math.ceil(max(worker.minibatches for worker in workers) / master.averaging_frequency)
    traffic = traffic_of(network, master, len(workers) or count)
    run = None if name is None else path_of(name, storage_path)
    facts = [
        ("network", describe_network(network)),
        ("master", describe_master(master)),
        ("backend", f"{executor.name}: {describe_capacity(capacity)}{_links(executor)}"),
        ("data", f"{_counted_rows(rows)}, {_where(source, master, run, bool(each))}"),
        ("workers", "\n".join(_listed(workers, count, capacity, master))),
        ("epochs", f"{epochs:,}, from number {network.epoch + 1} on{_rounds(rounds, master)}"),
        *([] if traffic is None else [("sent", str(traffic))]),
        *([] if (open_ports := describe_ports(master, len(workers) or count)) is None else [("ports", open_ports)]),
        ("validation", _validation(validation, master, executor)),
        ("kept", "\n".join(_kept(run, name, storage_path, checkpoint))),
        ("temporary", "\n".join(_temporary(executor, master, source, run))),
    ]
    shown = tuple((title, hide_credentials(text)) for title, text in facts)
    return Explanation(shown, epochs, workers, rounds, traffic, capacity)


# -- rows ----------------------------------------------------------------------------------------


def _rows(source: Opened, executor: Executor) -> int | None:
    """Return how many rows there are; None where that is not known before they are exported."""
    if isinstance(source, Source):
        return source.rows
    if isinstance(source, NativeCollection):
        return sum(source.counts(executor))
    return sum(map(len, source)) if isinstance(source.objects, list | tuple) else None


def _counted_rows(rows: int | None) -> str:
    return "an unknown number of rows" if rows is None else counted(rows, "row")


def _plan(
    network: Network, master: TrainingMaster, executor: Executor, source: Opened, rows: int | None, count: int
) -> Sequence[Partition]:
    """Return the rows of each rank in the first epoch, as the master will deal them; nothing where nobody can say."""
    size, seed = master.batch_size_per_worker, master.rng_seed or 0
    if not rows:
        return ()
    if isinstance(source, Source):
        repartitioner = master.choose_repartitioner(source, count)
        feed = Feed(source, size, seed, 0, master.last_batch, master.shuffle, repartitioner.keeps_parts)
        return feed.ranges(repartitioner, network.epoch, count)
    if isinstance(source, NativeCollection) and master.rdd_training_approach == "Direct":
        repartitioner = master.choose_repartitioner(source, count)
        return _dealt(repartitioner, source.counts(executor), count, size, seed)
    return _of_exported(network, master, rows, count)


def _of_exported(network: Network, master: TrainingMaster, rows: int, count: int) -> Sequence[Partition]:
    """Return the rows of each rank of data whose parts are not made yet, where these do not matter."""
    if master.repartitioner is None and master.repartition_data == "NumPartitionsWorkersDiffers":
        return ()
    repartitioner = master.choose_repartitioner(ArraySource(DataSet(np.broadcast_to(np.float32(0), (rows, 1)))), count)
    if repartitioner.keeps_parts:
        return ()
    seed = (master.rng_seed or 0) + network.epoch
    return _dealt(repartitioner, [rows], count, master.batch_size_per_worker, seed)


def _dealt(repartitioner: Repartitioner, parts: Sequence[int], count: int, size: int, seed: int) -> Sequence[Partition]:
    return ranges_of(repartitioner.plan(parts, workers=count, batch_size=size, seed=seed), count)


# -- words ---------------------------------------------------------------------------------------


def _links(executor: Executor) -> str:
    return "".join(f"\n{text}: {address}" for text, address in executor.links().items())


def _where(source: Opened, master: TrainingMaster, run: str | None, stepped: bool) -> str:
    direct = master.rdd_training_approach == "Direct"
    if isinstance(source, Stream) and stepped:
        return "made by the workers, as far as they are needed"
    if isinstance(source, ArraySource):
        size = describe_bytes(source.rows * source.layout.row_bytes)
        return f"sent along with the fit from this program's memory ({size})"
    if isinstance(source, Source):
        return f"read by the workers where they lie ({type(source).__name__}, {counted(len(source.part_rows), 'part')})"
    if isinstance(source, NativeCollection) and direct:
        return f"trained from the memory of {source.engine} (cached as {master.storage_level})"
    end = "" if stepped else _must_end(source, "; give steps_per_epoch where it does not")
    if direct:
        return f"gathered in this program's memory and sent along with the fit{end}"
    until = "kept until the fit has ended well" if run else "removed at the end"
    return f"exported first to {_export_directory(master, run)}, {until}{end}"


def _must_end(source: Opened, otherwise: str = "") -> str:
    return f"; it must end{otherwise}" if isinstance(source, LocalStream) and not source.ends else ""


def _export_directory(master: TrainingMaster, run: str | None) -> str:
    if master.export_directory is not None:
        return f"a directory in {master.export_directory}"
    return f"a directory in {tempfile.gettempdir()}" if run is None else f"{run}/export"


def _listed(workers: Sequence[WorkerPlan], count: int, capacity: Capacity, master: TrainingMaster) -> Iterator[str]:
    slots, turns = capacity.slots, ""
    if slots is not None and slots < count:
        few = counted(slots, "slot")
        turns = f": more than {few}, the fit is refused" if master.validates else f", which take turns in {few}"
    yield f"{counted(count, 'worker')} with {counted(capacity.threads, 'thread')} each{turns}"
    if not workers:
        yield "what each trains is known when the data is exported"
    elif len(workers) <= _LISTED:
        for one in workers:
            steps = counted(one.minibatches, "minibatch", "es")
            yield f"worker {one.worker}: {counted(one.examples, 'row')} in {steps}"
    else:
        rows, batches = [one.examples for one in workers], [one.minibatches for one in workers]
        yield f"each {min(rows):,} to {max(rows):,} rows in {min(batches):,} to {max(batches):,} minibatches"
    if 0 < len(workers) < count:
        yield f"{count - len(workers)} without rows"
    if master.rng_seed is None and workers:
        yield "who has the odd rows is drawn with the seed"


def _rounds(rounds: int | None, master: TrainingMaster) -> str:
    if rounds is None:
        return ""
    assert isinstance(master, ParameterAveragingTrainingMaster)
    every = counted(master.averaging_frequency, "minibatch", "es")
    return f", each of {counted(rounds, 'round')} of up to {every} on a worker"


def _validation(validation: Any, master: TrainingMaster, executor: Executor) -> str:
    if validation is None:
        return "none"
    source = open_source(validation)
    check_labels(source, "the validation data")
    who = "the members, between epochs" if master.validates else "tasks on all slots, between epochs"
    export = "" if isinstance(source, Source) else ", exported first"
    if isinstance(source, NativeCollection) and not master.validates and master.rdd_training_approach == "Direct":
        export = ""
    return f"{_counted_rows(_rows(source, executor))}{export}, scored by {who}{_must_end(source)}"


def _kept(
    run: str | None, name: str | None, storage_path: str | os.PathLike[str] | None, checkpoint: CheckpointConfig | None
) -> Iterator[str]:
    if run is None or name is None:
        yield "nothing: the fit has no name, so that the network in this program is all there is"
        return
    if read_result(name, storage_path) is not None:
        yield f"{run} holds the result of a fit that has ended: it is returned, and nothing is trained"
        return
    config = checkpoint or CheckpointConfig()
    best = f" and the best by {config.best}" if config.best else ""
    yield f"options, metrics, network and result in {run}"
    every = counted(config.interval.count, config.interval.unit.removesuffix("s"))
    yield f"a checkpoint every {every}, the last {config.keep}{best} kept"
    steps = CheckpointStore(run).steps()
    if steps:
        yield f"it goes on from the checkpoint of step {max(steps):,}, if that is whole"


def _temporary(executor: Executor, master: TrainingMaster, source: Opened, run: str | None) -> Iterator[str]:
    exported = not isinstance(source, Source) and master.rdd_training_approach == "Export"
    if exported and run is None:
        yield f"exported rows: {_export_directory(master, run)}"
    if executor.name == "local" and (executor.capacity().slots or 1) > 1:
        yield f"what processes hand to each other: a directory in {tempfile.gettempdir()}"
    elif not exported or run is not None:
        yield "nothing"
