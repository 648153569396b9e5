"""Look whether a cluster is fit for a training, and what to change: versions, threads, disk, links, time of a step."""

from __future__ import annotations

import math
import secrets
import statistics
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from strombus.data import Source, open_source
from strombus.documents import counted
from strombus.errors import StrombusError
from strombus.executors import resolve
from strombus.executors.base import Executor
from strombus.fitting.display import describe_capacity
from strombus.masters.base import TrainingMaster
from strombus.masters.parameter_averaging import ParameterAveragingTrainingMaster
from strombus.masters.shared_training import SharedTrainingMaster
from strombus.networks import Network
from strombus.transport import make_keys
from strombus.types import Capacity, Finding
from strombus.worker.bench import Feed
from strombus.worker.meeting import hub_beside
from strombus.worker.probing import (
    LinkFigures,
    Place,
    ProbeWork,
    StepFigures,
    Trial,
    look_around,
    probe_member,
    probe_part,
)

__all__ = ["examine"]

LOW_DISK = 2**30
"""Bytes that an export should find."""
BUSY = 0.5
"""Share of a step that its update may need the link before that is worth a word."""
WAITING = 0.1
"""Share of a step that may be spent on waiting for data."""


def examine(
    backend: Any = "auto",
    master: TrainingMaster | None = None,
    network: Network | None = None,
    data: Any = None,
    workers: int | None = None,
) -> Iterator[Finding]:
    """Examine this machine and a backend, and yield what was found as it is found.

    Parameters
    ----------
    backend : str or object
        As for `Trainer`; what is opened here is closed.
    master : TrainingMaster, optional
        Whose options to try; those of a `SharedTrainingMaster` by default.
    network, data : optional
        With both, workers take some steps on the first minibatches; the network itself is not changed.
    workers : int, optional
        Members to try; by default as many as the master would train with.

    Yields
    ------
    Finding
        The last ones are problems where the backend cannot be used at all; nothing is raised for that.
    """
    master = master if master is not None else SharedTrainingMaster()
    directory = master.export_directory or tempfile.gettempdir()
    here = look_around(directory, "")
    yield _describe(here)
    yield from judge_pairs([here])
    try:
        executor = resolve(backend, workers or master.workers)
    except StrombusError as error:
        yield Finding("problem", "backend", str(error))
        return
    try:
        yield from _examine_engine(executor, master, network, data, workers, directory)
    except StrombusError as error:
        yield Finding("problem", "cluster", str(error))
    finally:
        if executor is not backend:
            executor.close()


def _describe(here: Place) -> Finding:
    listed = ", ".join(f"{name} {version}" for name, version in here.versions.items())
    return Finding("ok", "driver", f"{listed}; {here.cpus:g} processor{'s' * (here.cpus != 1)}")


def _examine_engine(
    executor: Executor, master: TrainingMaster, network: Network | None, data: Any, workers: int | None, directory: str
) -> Iterator[Finding]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # versions are compared below
        executor.check()
    capacity = executor.capacity()
    count = workers or master.count_workers(capacity) or 1
    yield _describe_capacity(executor.name, capacity, count)
    yield from executor.concerns()
    trial = _trial(master, network, data)
    with _marked(directory) as mark, ExitStack() as stack:
        work = ProbeWork(directory, mark, make_keys(), trial=trial)
        if isinstance(master, SharedTrainingMaster):
            options = master.transport_options
            work = replace(work, transport=master.transport, options=options, patience=master.timeout)
            beside = hub_beside(executor, count, work.keys, master.transport, options)
            work = replace(work, hub=stack.enter_context(beside))
        yield from _examine_workers(executor, work, count, master)


def _describe_capacity(name: str, capacity: Capacity, count: int) -> Finding:
    text = f"{name}: {describe_capacity(capacity)}"
    if capacity.slots is not None and capacity.slots < count:
        return Finding(
            "problem",
            "capacity",
            f"{text}, but {counted(count, 'worker')} {'is' if count == 1 else 'are'} to train",
            f"start {count - capacity.slots} more worker processes, or give workers={capacity.slots} (numWorkers)",
        )
    return Finding("ok", "capacity", f"{text}; {counted(count, 'worker')} would train")


def _trial(master: TrainingMaster, network: Network | None, data: Any) -> Trial | None:
    if network is None or data is None:
        return None
    source = open_source(data)
    if not isinstance(source, Source):
        return None  # rows that an engine holds, or that have to be exported first
    feed = Feed(
        source,
        batch_size=master.batch_size_per_worker,
        seed=master.rng_seed or 0,
        prefetch=master.worker_prefetch_num_batches,
        last_batch=master.last_batch,
        shuffle=master.shuffle,
    )
    return Trial(network, feed, master.compression() if isinstance(master, SharedTrainingMaster) else None)


@contextmanager
def _marked(directory: str) -> Iterator[str]:
    """Leave a file that workers look for, for the time of a ``with`` block."""
    mark = f".strombus-{secrets.token_hex(6)}"
    path = Path(directory) / mark
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("seen by the driver")
    try:
        yield mark
    finally:
        path.unlink(missing_ok=True)


def _examine_workers(executor: Executor, work: ProbeWork, count: int, master: TrainingMaster) -> Iterator[Finding]:
    shared = executor.share(work)
    try:
        try:
            probes = executor.gang(probe_member, [None] * count, shared, timeout=work.patience)
        except StrombusError as error:
            text = f"{counted(count, 'member')} did not come to train together: {error}"
            yield Finding("problem" if isinstance(master, SharedTrainingMaster) else "note", "gang", text)
            probes = list(executor.map(probe_part, range(count), shared))
    finally:
        shared.free()
    places = [probe.place for probe in probes]
    yield from judge_places(places, look_around(work.directory, ""), work.directory)
    links = [probe.link for probe in probes if probe.link is not None]
    yield from judge_links(links)
    steps = [probe.step for probe in probes if probe.step is not None]
    if steps:
        yield from judge_steps(steps, links, master, count)


def judge_places(places: Sequence[Place], driver: Place, directory: str) -> Iterator[Finding]:
    """Compare the workers with the driver, and their threads with their processors."""
    differing = [
        f"{name} {place.versions[name]} on {place.host} (driver: {wanted})"
        for place in {place.host: place for place in places}.values()
        for name, wanted in driver.versions.items()
        if place.versions.get(name) != wanted
    ]
    if differing:
        yield Finding(
            "warning",
            "versions",
            ", ".join(differing),
            "install the same versions in the environments of driver and workers",
        )
    else:
        yield Finding("ok", "versions", f"the same on the driver and {counted(len(places), 'worker')}")
    yield from judge_pairs([place for place in places if place.misfits != driver.misfits])
    yield from _judge_threads(places)
    yield from _judge_disks(places, driver, directory)


def judge_pairs(places: Sequence[Place]) -> Iterator[Finding]:
    """Name the pairs of installed packages that do not fit together, once for each host."""
    for place in {place.host: place for place in places}.values():
        for pair in place.misfits:
            advice = "install versions that fit, best all of them in one command: `pip install strombus[...] ...`"
            yield Finding("warning", "versions", f"on {place.host}: {pair}", advice)


def _judge_threads(places: Sequence[Place]) -> Iterator[Finding]:
    by_host: dict[str, list[Place]] = defaultdict(list)
    for place in places:
        by_host[place.host].append(place)
    for host, there in by_host.items():
        threads, cpus = sum(place.threads for place in there), max(place.cpus for place in there)
        each = max(1, math.floor(cpus / len(there)))
        use = f"{counted(threads, 'thread')} of {cpus:g} processor{'s' * (cpus != 1)}"
        text = f"{counted(len(there), 'worker')} on {host} use{'s' * (len(there) == 1)} {use}"
        how = f"give a slot {each}: `dask worker --nthreads {each}`, or spark.task.cpus={each}"
        if threads > cpus:
            yield Finding("warning", "threads", f"{text}: they take turns", how)
        elif 2 * threads <= cpus:
            yield Finding("note", "threads", f"{text}: the rest is idle", f"start more workers, or {how}")
        else:
            yield Finding("ok", "threads", text)


def _judge_disks(places: Sequence[Place], driver: Place, directory: str) -> Iterator[Finding]:
    blind = sorted({place.host for place in places if not place.sees})
    if blind:
        yield Finding(
            "problem",
            "disk",
            f"what the driver writes to {directory} is not there on {', '.join(blind)}: no array can be exported",
            "give export_directory (exportDirectory) a directory or URI that all workers share, or train from a "
            "dataset that lies in one",
        )
    least = min([driver, *places], key=lambda place: place.free)
    text = f"{least.free / 2**30:.1f} GiB free in {directory} on {least.host}"
    if least.free < LOW_DISK:
        yield Finding("warning", "disk", text, "free some, or give another export_directory (exportDirectory)")
    elif not blind:
        yield Finding("ok", "disk", text)


def judge_links(links: Sequence[LinkFigures]) -> Iterator[Finding]:
    """Describe the links between the members; the slowest one sets the pace."""
    if not links:
        return
    slowest = min(links, key=lambda link: link.rate)
    trip = statistics.median(link.round_trip for link in links)
    text = (
        f"links between workers: {1e3 * trip:.2f} ms there and back, "
        f"{slowest.rate / 1e6:.0f} MB/s at least (to member {slowest.to}, {slowest.address})"
    )
    yield Finding("ok", "links", text)


def judge_steps(
    steps: Sequence[StepFigures], links: Sequence[LinkFigures], master: TrainingMaster, count: int
) -> Iterator[Finding]:
    """Compare what a step computes with what its update needs of the link, and with the wait for data."""
    slowest = max(steps, key=lambda step: step.step)
    text = f"a minibatch of {master.batch_size_per_worker} takes {1e3 * slowest.step:.2f} ms"
    if slowest.encode:
        text += f", {1e3 * slowest.encode:.2f} ms of it to compress {_size(slowest.sent)}"
    yield Finding("ok", "step", text)
    wait = max(step.wait for step in steps)
    if wait > WAITING * slowest.step:
        yield Finding(
            "warning",
            "data",
            f"a minibatch is waited for {1e3 * wait:.2f} ms",
            f"raise worker_prefetch_num_batches (now {master.worker_prefetch_num_batches}), move work out of the "
            "transform, or export again with this batch size",
        )
    if links and count > 1:
        rate = min(link.rate for link in links)
        if isinstance(master, SharedTrainingMaster):
            yield _judge_sharing(slowest, rate, master, count)
            yield from _judge_waiting(slowest, links, master)
        elif isinstance(master, ParameterAveragingTrainingMaster):
            yield _judge_averaging(slowest, rate, master)


def _size(count: float) -> str:
    return f"{count / 1e3:,.0f} kB" if count >= 1e4 else f"{count:,.0f} bytes"


def _judge_sharing(step: StepFigures, rate: float, master: SharedTrainingMaster, count: int) -> Finding:
    needed = step.sent * (count - 1) / rate
    ratio = needed / step.step
    share = f"{ratio:.0%}" if ratio >= 0.01 else "less than 1 %"
    whom = "the other" if count == 2 else f"{count - 1} others"
    text = f"an update to {whom} needs the link {1e3 * needed:.2f} ms, {share} of a step"
    if ratio <= BUSY:
        return Finding("ok", "sharing", text)
    batch = math.ceil(master.batch_size_per_worker * ratio / BUSY)
    advice = f"raise batch_size_per_worker (batchSizePerWorker) to {batch}"
    if master.encoder.name == "dense":
        advice = 'take the encoder "threshold", or ' + advice
    else:
        advice += f", or lower the threshold algorithm's share of elements by {ratio / BUSY:.1f} times"
    return Finding("warning" if ratio >= 1 else "note", "sharing", text, advice)


def _judge_waiting(step: StepFigures, links: Sequence[LinkFigures], master: SharedTrainingMaster) -> Iterator[Finding]:
    trip = max(link.round_trip for link in links)
    if master.max_staleness == 0 and trip / 2 > WAITING * step.step:
        yield Finding(
            "warning",
            "sharing",
            f"with max_staleness=0 each step waits {1e3 * trip / 2:.2f} ms for the others' updates to arrive",
            "give max_staleness (4 by default), or a larger batch_size_per_worker",
        )


def _judge_averaging(step: StepFigures, rate: float, master: ParameterAveragingTrainingMaster) -> Finding:
    needed = 2 * step.sent / rate
    trained = step.step * master.averaging_frequency
    text = (
        f"{master.averaging_frequency} minibatches take {1e3 * trained:.1f} ms; the parameters, there and back, "
        f"{1e3 * needed:.1f} ms or more"
    )
    if needed <= BUSY * trained:
        return Finding("ok", "averaging", text)
    wanted = math.ceil(needed / (BUSY * step.step))
    return Finding("warning", "averaging", text, f"raise averaging_frequency (averagingFrequency) to {wanted}")
