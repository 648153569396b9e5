"""Shared training as users start it: a Dask scheduler, two workers and a client, each a program in its place."""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from common import BATCH
from helpers.programs import Programs
from network import Seat, Wire, enter, loopback
from peers import Outcome, Plan, apart
from torch import nn
from workloads import OPTIMIZERS, accuracy

import strombus as sb

__all__ = ["cluster", "run_local", "run_shared"]


@contextlib.contextmanager
def cluster(wire: Wire, folder: Path) -> Iterator[str]:
    """Start the scheduler on the wire's hub and a worker on each member's seat; give the scheduler's address."""
    folder.mkdir()
    programs = Programs(folder)
    dask = [sys.executable, "-m", "dask"]
    surroundings = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    try:
        command = [*dask, "scheduler", "--host", wire.hub.address, "--port", "0", "--no-dashboard"]
        address = programs.start(
            "scheduler", [*wire.hub.prefix, *command], r"Scheduler at:\s+(tcp://[\d.]+:\d+)", surroundings
        )
        for number, seat in enumerate(wire.members):
            command = [*dask, "worker", address, "--host", seat.address, "--nthreads", "1", "--no-nanny"]
            command += ["--no-dashboard", "--local-directory", str(folder)]
            programs.start(f"worker-{number}", [*seat.prefix, *command], r"Registered to:", surroundings)
        yield address
    finally:
        programs.close()


class Counters(sb.Callback):
    """Read what the members have sent at each epoch's end."""

    passive = True

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.sent: list[float] = []

    def on_epoch_end(self, record: sb.EpochRecord) -> None:
        self.sent.append(self.wire.sent())


def _fit(seat: Seat, wire: Wire, backend: str, path: str, plan: Plan, topology: str = "auto") -> Outcome:
    enter(seat)
    torch.set_num_threads(1)
    network = sb.MultiLayerNetwork(plan.workload.make(plan.seed), nn.CrossEntropyLoss(), OPTIMIZERS[plan.optimizer])
    workers, counters = len(wire.members), Counters(wire)
    options = sb.TransportOptions(topology=topology)
    master = sb.SharedTrainingMaster(
        batch_size_per_worker=BATCH, workers=workers, rng_seed=plan.seed, transport_options=options
    )
    with sb.Trainer(network, master, backend=backend) as trainer:
        result = trainer.fit(path, epochs=plan.epochs, progress=False, callbacks=[counters])
    later = result.epochs[1:]
    steps = sum(record.minibatches for record in later) / workers
    sent = (counters.sent[-1] - counters.sent[0]) / steps
    speed = statistics.median(record.examples / record.seconds for record in later)
    return Outcome(speed, sent, accuracy(network.module, plan.workload))


def run_shared(address: str, wire: Wire, path: str, plan: Plan, topology: str = "auto") -> Outcome:
    """Train on a cluster; the client is a process of its own on the hub."""
    return apart(_fit, (wire.hub, wire, address, path, plan, topology))[0]


def run_local(path: str, plan: Plan) -> Outcome:
    """Train with one worker and no cluster, in a process of its own."""
    wire = loopback(1)
    return apart(_fit, (wire.hub, wire, "local", path, plan))[0]
