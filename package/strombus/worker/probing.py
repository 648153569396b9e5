"""A look at a worker from within: what it has, how long a step takes there, and how fast it reaches the next one."""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from strombus.compression import Compression, Compressor, warm_up
from strombus.executors.base import Member
from strombus.networks import Network
from strombus.partitioning import EqualRepartitioner
from strombus.transport import Hub, Keys, Transport, TransportOptions
from strombus.types import DataSet, MultiDataSet
from strombus.worker.bench import Feed
from strombus.worker.meeting import connected
from strombus.worker.peers import Kind, Peers
from strombus.worker.versions import installed_versions, misfits

__all__ = [
    "LinkFigures",
    "Place",
    "Probe",
    "ProbeWork",
    "StepFigures",
    "Trial",
    "look_around",
    "probe_member",
    "probe_part",
]

_WARM, _STEPS, _SECONDS = 3, 40, 8.0
_TRIPS, _PIECE, _LINK_SECONDS, _PIECES = 20, 2**20, 0.5, 64


@dataclass(frozen=True)
class Place:
    """What one worker has.

    Parameters
    ----------
    where : str
        ``"host:pid"``.
    versions : dict of str to str
        Of Python and of what training needs; "missing" where a package is not there.
    threads : int
        Torch's.
    cpus : float
        Processors that this process may use.
    free : int
        Bytes free on the disk of `ProbeWork.directory`.
    sees : bool
        Whether the driver's mark in that directory is there.
    misfits : tuple of str
        Pairs of installed packages that do not fit together.
    """

    where: str
    versions: dict[str, str]
    threads: int
    cpus: float
    free: int
    sees: bool
    misfits: tuple[str, ...] = ()

    @property
    def host(self) -> str:
        """The machine's name."""
        return self.where.rpartition(":")[0]


@dataclass(frozen=True)
class StepFigures:
    """Medians of a worker's steps.

    Parameters
    ----------
    step, encode, wait : float
        Seconds of the whole step, of it to compress the update, and to wait for a minibatch.
    sent : float
        Bytes of an update as it goes to each peer; of the parameters, where nothing is compressed.
    """

    step: float
    encode: float
    wait: float
    sent: float


@dataclass(frozen=True)
class LinkFigures:
    """The link to another member: address of that one, seconds there and back, bytes/s one way."""

    to: int
    address: str
    round_trip: float
    rate: float


@dataclass(frozen=True)
class Trial:
    """Steps to take; `compression` None where a master does not share updates."""

    network: Network
    feed: Feed
    compression: Compression | None


@dataclass(frozen=True)
class ProbeWork:
    """What all members look at.

    Parameters
    ----------
    directory, mark : str
        A directory, and the name of a file there that the driver has written.
    """

    directory: str
    mark: str
    keys: Keys | None = None
    transport: str | type[Transport] = "zeromq"
    options: TransportOptions = field(default_factory=TransportOptions)
    patience: float = 60.0
    trial: Trial | None = None
    hub: Hub | None = None


@dataclass(frozen=True)
class Probe:
    """What a member has found out."""

    place: Place
    step: StepFigures | None = None
    link: LinkFigures | None = None


def look_around(directory: str, mark: str) -> Place:
    """Describe this process."""
    folder = Path(directory)
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return Place(
        f"{socket.gethostname()}:{os.getpid()}",
        installed_versions(),
        torch.get_num_threads(),
        _cpus(),
        shutil.disk_usage(there).free,
        (folder / mark).exists(),
        tuple(misfits()),
    )


def _cpus() -> float:
    """Return the processors of this process: those it may run on, or what its control group may take of them."""
    allowed = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(allowed, float(quota) / float(period))
    return allowed


def probe_part(work: ProbeWork, part: Any) -> Probe:
    """Describe the process that runs a task: all that can be seen without a gang."""
    return Probe(look_around(work.directory, work.mark))


def probe_member(member: Member, work: ProbeWork, payload: Any) -> Probe:
    """Look around, take some steps at the same time as the others, and then measure the links one by one."""
    place = look_around(work.directory, work.mark)
    step = None if work.trial is None else _take_steps(work.trial, member)
    peers = Peers(member, work.patience)
    with connected(member, work.keys, work.transport, work.options, work.hub) as transport:
        peers.transport = transport
        addresses = [str(text, "utf-8") for text in member.exchange(place.where.encode())]
        link = None
        for first, second in _pairs(member.size):
            if member.rank == first:
                link = LinkFigures(second, addresses[second], *_measure(peers, second))
            elif member.rank == second:
                _answer(peers, first)
        peers.gather(b"", "the end of the measurements")
    return Probe(place, step, link)


def _pairs(size: int) -> list[tuple[int, int]]:
    """Return who measures the link to whom: each to the next, in a ring."""
    return [(rank, (rank + 1) % size) for rank in range(size)] if size > 1 else []


def _measure(peers: Peers, other: int) -> tuple[float, float]:
    """Return the seconds of a round trip, and bytes/s to the other member."""
    trips = []
    for _ in range(_TRIPS):
        trips.append(_ask(peers, other, 1, b""))
    began, pieces, data = time.perf_counter(), 0, os.urandom(_PIECE)
    while pieces < _PIECES and (pieces < 2 or time.perf_counter() - began < _LINK_SECONDS):
        _ask(peers, other, 1, data)
        pieces += 1
    rate = pieces * _PIECE / (time.perf_counter() - began)
    _ask(peers, other, 0, b"")
    return statistics.median(trips), rate


def _ask(peers: Peers, other: int, more: int, data: bytes) -> float:
    """Send, wait for the answer, and return the seconds."""
    began = time.perf_counter()
    peers.send(Kind.PROBE, more, data, to=other)
    peers.wait_for_word("the answer to a probe of the link", [other])
    peers.take(other, Kind.PROBE)
    return time.perf_counter() - began


def _answer(peers: Peers, other: int) -> None:
    more = 1
    while more:
        peers.wait_for_word("a probe of the link", [other])
        more = peers.take(other, Kind.PROBE).step
        peers.send(Kind.PROBE, 0, to=other)


# -- steps


def _take_steps(trial: Trial, member: Member) -> StepFigures:
    """Train a copy of the network on this member's first minibatches, which come again where they are few."""
    replica = trial.network.replica()
    compressor = None
    if trial.compression is not None:
        warm_up(replica.flat.vector.dtype, lambda: None)
        compressor = Compressor(trial.compression, list(replica.flat.parameters), replica.flat.vector)
    times: list[tuple[float, float, float, float]] = []
    ended = time.perf_counter() + _SECONDS
    for wait, batch in _batches(trial.feed, member):
        if len(times) >= _WARM + _STEPS or (len(times) > _WARM and time.perf_counter() > ended):
            break
        began = time.perf_counter()
        if compressor is None:
            replica.fit(batch)
            encode, sent = 0.0, float(replica.flat.vector.nbytes)
        else:
            replica.gradients(batch)
            computed = time.perf_counter()
            update = compressor.step_(replica.optimizer)
            compressor.apply_own_(1.0)
            replica.advance()
            encode, sent = time.perf_counter() - computed, float(update.nbytes)
        times.append((time.perf_counter() - began, encode, wait, sent))
    steps, encodes, waits, sizes = zip(*(times[_WARM:] or times), strict=True)
    return StepFigures(*(statistics.median(figures) for figures in (steps, encodes, waits, sizes)))


def _batches(feed: Feed, member: Member) -> Iterator[tuple[float, DataSet | MultiDataSet]]:
    """Yield minibatches of this member's rows with the seconds that each was waited for, epoch after epoch."""
    epoch = 0
    while True:
        part = feed.ranges(EqualRepartitioner(), epoch, member.size)[member.rank]
        with feed.open(epoch, part, 0) as batches:
            reader = iter(batches)
            while True:
                began = time.perf_counter()
                batch = next(reader, None)
                if batch is None:
                    break
                yield time.perf_counter() - began, batch
        epoch += 1
