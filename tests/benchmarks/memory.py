"""What training, validation and export of more data than memory take of it: driver, scheduler and workers on Dask.

python tests/benchmarks/memory.py [--limit 1000] [--times 1.25 2.5 5] [--backend local]

Two workers of one thread with `--limit` MB each, and nannies that end a worker above 95 % of it. The data is `--times`
a worker's limit. It is compressible, and made of one part read many times under as many numbers, so that it takes
little disk and all the decoding. Prints by how much the peak of each process grew above what it held before, at each
size, and ends with an error where a growth is above its bound or a worker was started again. Local processes have no
limit, and the driver is their scheduler; it writes an export itself.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import psutil
import torch
from scoring import Peaks
from torch import nn

import strombus as sb

WIDTH, PART = 1024, 32 << 20
ROWS = PART // WIDTH
BATCH = 512
BOUNDS = {"driver": 64, "scheduler": 64, "worker": 256}
"""MB: the network has 0.03 MB of parameters; a worker may hold two windows of 32 MB and 64 MB of decoded blocks."""


def piece(number: int) -> sb.DataSet:
    """Return one part's rows: 32 MiB of bytes that zstd makes small."""
    features = np.zeros((ROWS, WIDTH), np.uint8)
    features[:, : 1 + number % 7] = 1 + np.arange(ROWS)[:, None] % 5
    return sb.DataSet(features, np.arange(ROWS) % 5)


def pieces(count: int, rank: int, workers: int):
    """Yield a worker's part of a stream."""
    for number in range(rank, count, workers):
        yield piece(number)


def make_module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(WIDTH, 5)


def make_network() -> sb.MultiLayerNetwork:
    return sb.MultiLayerNetwork(make_module, nn.CrossEntropyLoss(), functools.partial(torch.optim.SGD, lr=1e-4))


def flows(client, path: str, folder: Path) -> dict[str, Callable[[int], int]]:
    """Return what is measured: each takes a number of parts, and returns the rows that it went through."""
    import dask.bag as db

    averaging = sb.ParameterAveragingTrainingMaster(batch_size_per_worker=BATCH, averaging_frequency=20, rng_seed=0)
    sharing = sb.SharedTrainingMaster(batch_size_per_worker=BATCH, rng_seed=0)

    def fit(master, count: int, **options) -> int:
        with sb.Trainer(make_network(), master, backend=client) as trainer:
            return trainer.fit([path] * count, progress=False, **options).examples

    def stream(count: int) -> int:
        steps = count * ROWS // (2 * BATCH)
        with sb.Trainer(make_network(), averaging, backend=client) as trainer:
            made = functools.partial(pieces, count)
            return trainer.fit(made, steps_per_epoch=steps, progress=False).examples

    def validate(count: int) -> int:
        with sb.Trainer(make_network(), backend=client) as trainer:
            return trainer.evaluate([path] * count).examples

    def export(count: int) -> int:
        distributed = not isinstance(client, sb.Executor)
        rows = db.from_sequence(range(count), npartitions=count).map(piece) if distributed else map(piece, range(count))
        options = {"backend": client, "batch_size": BATCH, "overwrite": True, "progress": False}
        return sb.data.export(rows, folder / "exported.zarr", **options).examples

    return {
        "averaging": functools.partial(fit, averaging),
        "sharing": functools.partial(fit, sharing),
        "stream": stream,
        "validation": validate,
        "export": export,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=1000, help="MB of a worker")
    parser.add_argument("--times", type=float, nargs="+", default=[1.25, 2.5, 5])
    parser.add_argument("--backend", choices=["dask", "local"], default="dask")
    parser.add_argument("--only", nargs="+", help="flows to measure")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "part.zarr")
        sb.data.export(piece(0), path, batch_size=BATCH, progress=False)
        if not measure(args, path, Path(folder)):
            raise SystemExit("a bound was not kept")


@contextmanager
def on_dask(limit: int) -> Iterator[tuple[Any, list[int], int]]:
    """Give a client, the workers' processes and the scheduler's."""
    from distributed import Client
    from distributed.deploy.subprocess import SubprocessCluster

    with (
        SubprocessCluster(
            n_workers=2,
            scheduler_kwargs={"dashboard_address": None},
            worker_kwargs={"nthreads": 1, "memory_limit": limit},
        ) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(2)
        pids = sorted(client.run(os.getpid).values())
        yield client, pids, client.run_on_scheduler(os.getpid)
        if sorted(client.run(os.getpid).values()) != pids:
            raise SystemExit("a worker was started again")


@contextmanager
def on_local(limit: int) -> Iterator[tuple[Any, list[int], int]]:
    """Give an executor and its two processes, which have no limit; the driver schedules."""
    from strombus.executors.local import LocalExecutor

    with LocalExecutor(2) as executor:
        list(executor.map(_slow, range(2)))
        me = psutil.Process()
        children = [child.pid for child in me.children(recursive=True) if "loky" in " ".join(child.cmdline())]
        yield executor, [pid for pid in children if "tracker" not in " ".join(psutil.Process(pid).cmdline())], me.pid


def _slow(_shared: None, part: int) -> None:
    time.sleep(1)


def measure(args: argparse.Namespace, path: str, folder: Path) -> bool:
    kept, limit, bounds = True, args.limit * 10**6, BOUNDS
    if args.backend == "local":
        bounds = BOUNDS | {"driver": 96, "scheduler": 96}  # who writes a part holds it, and what is added to it
    with (on_local if args.backend == "local" else on_dask)(limit) as (backend, pids, scheduler):
        print(f"{'':<12} {'data MB':>8} {'rows':>10} {'s':>6}   growth of the peak, MB: driver  scheduler  worker")
        for name, flow in flows(backend, path, folder).items():
            if args.only and name not in args.only:
                continue
            flow(2)  # what is imported and kept for good is there
            for times in args.times:
                count = round(times * limit / PART)
                processes = {"driver": [psutil.Process().pid], "scheduler": [scheduler], "worker": pids}
                seen = {who: Peaks(those) for who, those in processes.items()}
                started = time.perf_counter()
                assert flow(count) == count * ROWS
                seconds = time.perf_counter() - started
                grown = {who: peaks.grown() for who, peaks in seen.items()}
                size = f"{count * PART / 1e6:>8,.0f} {count * ROWS:>10,} {seconds:>6.1f}"
                figures = "".join(f"{grown[who]:>11,.0f}" for who in bounds)
                print(f"{name:<12} {size} {figures:>49}", flush=True)
                kept &= all(grown[who] <= bound for who, bound in bounds.items())
    print(f"{'bound':<39} {''.join(f'{bound:>11,}' for bound in bounds.values()):>49}")
    return kept


if __name__ == "__main__":
    main()
