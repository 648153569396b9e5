"""How long shared training on Dask stands still when a worker is killed.

python tests/benchmarks/recovery.py [--runs N] [--min-workers N]

With on_peer_lost="restart" until the first step of the next attempt, of which the parts are shown; with "continue" the
longest time in which no member took a step. The cluster's nannies start the dead worker again, as Dask's own do.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path

import cloudpickle
import numpy as np
from common import OPTIMIZERS, make_module
from distributed import Client, LocalCluster
from torch import nn

import strombus as sb
from strombus.executors.dask import DaskExecutor
from strombus.testing.faults import kill_process

WORKERS, STEPS = 3, 100
"""Members, and each one's steps in an epoch."""


class Steps(sb.TrainingHook):
    """Write down when each step ends, in a file of each process and gang."""

    def __init__(self, folder: str) -> None:
        self.folder, self.path = folder, None

    def post_update(self, batch, replica) -> None:
        self.path = self.path or Path(self.folder) / f"{uuid.uuid4().hex}-{os.getpid()}"
        with self.path.open("a") as file:
            file.write(f"{time.time()}\n")


class Kill(sb.Callback):
    """Kill one of the workers when the second epoch is under way."""

    def __init__(self, pid: int) -> None:
        self.pid, self.at = pid, 0.0

    def on_round(self, progress) -> None:
        if progress.epoch == 1 and not self.at:
            self.at = time.time()
            kill_process(self.pid)


class Log(logging.Handler):
    """Keep when the driver said that it goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if "goes on with" in record.getMessage() or "going on with" in record.getMessage():
            self.at = record.created


def suffer(client: Client, mode: str, min_workers: int) -> dict[str, float]:
    """Train, kill one of the workers, and return the seconds of each part of the recovery."""
    rng = np.random.default_rng(0)
    rows = WORKERS * STEPS * 64
    features, labels = rng.random((rows, 784), dtype=np.float32), rng.integers(0, 10, rows)
    client.wait_for_workers(WORKERS, timeout=60)
    kill, log = Kill(max(client.run(os.getpid).values())), Log()
    logging.getLogger("strombus.fitting.fit").addHandler(log)
    with tempfile.TemporaryDirectory() as folder:
        steps = Path(folder) / "steps"
        steps.mkdir()
        master = sb.SharedTrainingMaster(
            batch_size_per_worker=64,
            workers=WORKERS,
            rng_seed=0,
            on_peer_lost=mode,
            max_failures=1,
            min_workers=min_workers,
            training_hooks=[Steps(str(steps))],
        )
        network = sb.MultiLayerNetwork(make_module, nn.CrossEntropyLoss(), OPTIMIZERS["sgd"])
        with sb.Trainer(network, master, backend=DaskExecutor(client)) as trainer:
            trainer.fit(
                (features, labels),
                epochs=4,
                callbacks=[kill],
                progress=False,
                name="one",
                storage_path=folder,
                checkpoint=sb.CheckpointConfig(every="20steps"),
            )
        gangs = [[float(line) for line in path.read_text().split()] for path in steps.iterdir()]
    logging.getLogger("strombus.fitting.fit").removeHandler(log)
    if mode == "restart":
        first = min(times[0] for times in gangs if times[0] > kill.at)
        return {"driver goes on": log.at - kill.at, "first step": first - log.at, "whole": first - kill.at}
    # Of the gang that has lost a member, from the kill to the end of the epoch.
    mine = sorted(t for times in gangs if times[0] < kill.at for t in times if t > kill.at)
    return {"whole": max(np.diff([kill.at, *mine]))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--min-workers", type=int, default=1)
    options = parser.parse_args()
    failed = False
    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        for mode in ("restart", "continue"):
            found = [suffer(client, mode, options.min_workers) for _ in range(options.runs)]
            for part in found[0]:
                figures = [one[part] for one in found]
                spread = f"({min(figures):.2f}-{max(figures):.2f})"
                target = "target < 10 s" if part == "whole" else ""
                what = f"a killed Dask worker, {mode}: {part}"
                print(f"{what:<58} {statistics.median(figures):>9.2f} {'s':<11} {spread} {target}", flush=True)
            failed |= statistics.median(one["whole"] for one in found) >= 10.0
    return int(failed)


cloudpickle.register_pickle_by_value(sys.modules[__name__])

if __name__ == "__main__":
    sys.exit(main())
