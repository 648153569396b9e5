"""The peers of shared training: loops that never exchange, and torch DDP over gloo, in processes of one thread."""

from __future__ import annotations

import datetime
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import BATCH
from network import Seat, Wire, enter, sent_bytes
from torch import distributed, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel
from workloads import OPTIMIZERS, Workload, accuracy

__all__ = ["PEERS", "Outcome", "Plan", "apart", "run_peer", "train"]

_DEADLINE = 600.0


@dataclass(frozen=True)
class Plan:
    """What every peer does alike; `limit` ends each epoch early where the wire is slow."""

    workload: Workload
    optimizer: str
    seed: int
    epochs: int
    limit: int | None = None


@dataclass(frozen=True)
class Outcome:
    """Examples/s of all members without the first epoch, bytes a member sends in a step, accuracy at the end."""

    speed: float
    bytes_per_step: float
    accuracy: float


def _plain(module: nn.Module) -> nn.Module:
    return module


def _dense(module: nn.Module) -> nn.Module:
    return DistributedDataParallel(module, gradient_as_bucket_view=True)


def _fp16(module: nn.Module) -> nn.Module:
    wrapped = DistributedDataParallel(module, gradient_as_bucket_view=True)
    wrapped.register_comm_hook(None, default_hooks.fp16_compress_hook)
    return wrapped


def _power_sgd(module: nn.Module) -> nn.Module:
    wrapped = DistributedDataParallel(module, bucket_cap_mb=1000, gradient_as_bucket_view=True)
    state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=1, start_powerSGD_iter=2)
    wrapped.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    return wrapped


PEERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "silent loops": _plain,
    "DDP dense": _dense,
    "DDP fp16": _fp16,
    "DDP PowerSGD rank 1": _power_sgd,
}


def train(plan: Plan, rows: slice, wrap: Callable[[nn.Module], nn.Module], after: Callable[[], None]) -> nn.Module:
    """Run the plain loop over `rows` and call `after` at the start and after each epoch; return the module."""
    module, loss = plan.workload.make(plan.seed), nn.CrossEntropyLoss()
    wrapped = wrap(module)
    optimizer = OPTIMIZERS[plan.optimizer](module.parameters())
    inputs, targets = (torch.from_numpy(a[rows]) for a in (plan.workload.features, plan.workload.labels))
    after()
    for epoch in range(plan.epochs):
        order = torch.from_numpy(np.random.default_rng([plan.seed, epoch]).permutation(len(inputs)))
        for start in range(0, rows_of_epoch(plan, len(inputs)), BATCH):
            picked = order[start : start + BATCH]
            optimizer.zero_grad()
            value = loss(wrapped(inputs[picked]), targets[picked])
            value.backward()
            optimizer.step()
            value.item()
        after()
    return module


def rows_of_epoch(plan: Plan, rows: int) -> int:
    """Return how many of a member's rows an epoch takes."""
    return rows if plan.limit is None else min(rows, plan.limit * BATCH)


def _member(rank: int, seats: tuple[Seat, ...], peer: str, plan: Plan, meeting: str) -> tuple[float, float, float]:
    """Train as one of the members; return its examples/s, bytes sent in a step, and accuracy."""
    enter(seats[rank])
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = seats[rank].device
    patience = datetime.timedelta(seconds=120)
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=len(seats), timeout=patience)
    marks: list[tuple[float, int]] = []
    share = len(plan.workload.features) // len(seats)  # as many rows for each: DDP's members must take equal steps

    def mark() -> None:
        if len(marks) < 2:  # all start together, and are counted from the same moment
            distributed.barrier()
        marks.append((time.perf_counter(), sent_bytes(seats[rank])))

    module = train(plan, slice(rank * share, (rank + 1) * share), PEERS[peer], mark)
    distributed.destroy_process_group()
    rows = rows_of_epoch(plan, share)
    seconds = [end[0] - start[0] for start, end in itertools.pairwise(marks[1:])]
    steps = -(-rows // BATCH) * (plan.epochs - 1)
    sent = (marks[-1][1] - marks[1][1]) / steps
    return rows / statistics.median(seconds), sent, accuracy(module, plan.workload)


def apart(function: Callable[..., Any], *argument_lists: tuple[Any, ...]) -> list[Any]:
    """Call the function in one new process for each list of arguments, at the same time."""
    with ProcessPoolExecutor(len(argument_lists), mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(function, *arguments) for arguments in argument_lists]
        return [future.result(_DEADLINE) for future in futures]


def run_peer(peer: str, wire: Wire, plan: Plan) -> Outcome:
    """Train with a peer's members on the wire's seats."""
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        found = apart(_member, *((rank, wire.members, peer, plan, meeting) for rank in range(len(wire.members))))
    speeds, sent, accuracies = zip(*found, strict=True)
    if wire.rate is None:  # one interface counts what all members send
        sent = tuple(each / len(sent) for each in sent)
    return Outcome(sum(speeds), statistics.mean(sent), accuracies[0])
