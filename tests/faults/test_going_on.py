"""Processes of a shared training that die or hang while the others carry on, and others that join them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from unittest import mock

import cloudpickle
import numpy as np
import pytest
from helpers import networks
from helpers.networks import make_data, make_network

import strombus as sb
from strombus.executors.local import LocalExecutor
from strombus.executors.members import LEASE
from strombus.testing.faults import Fault, inject, kill_process

cloudpickle.register_pickle_by_value(networks)
cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROWS, EPOCHS, BATCH = 601, 3, 4
FLIGHT = (2 * 4 + 2) * BATCH
"""Rows of a lost member whose updates may be under way."""


class Journal(sb.TrainingHook):
    """Write down which rows were trained, in a file of each process and gang; hand in the parameters at the end."""

    def __init__(self, folder):
        self.folder, self.path, self.replica, self.vectors = Path(folder), None, None, []

    def post_update(self, batch, replica):
        if self.path is None:
            self.path = self.folder / f"{os.getpid()}-{time.time_ns()}-{uuid.uuid4().hex[:6]}"
        self.replica = replica
        with self.path.open("a") as file:
            file.write(" ".join(str(round(float(value) * ROWS)) for value in batch.features[:, 5]) + "\n")

    def state(self):
        return None if self.replica is None else self.replica.flat.read()

    def collect(self, rank, state):
        self.vectors.append(state)

    def rows(self):
        """Return the rows of each process and gang."""
        files = sorted(self.folder.iterdir(), key=lambda path: int(path.name.split("-")[1]))
        return {path.name: [int(row) for row in path.read_text().split()] for path in files}


class Epochs(sb.Callback):
    """Count, at each epoch's end, how often each row was trained in it."""

    def __init__(self, journal, after=None):
        self.journal, self.after, self.counts, self.before = journal, after, [], Counter()

    def on_epoch_end(self, record):
        now = Counter(row for rows in self.journal.rows().values() for row in rows)
        self.counts.append(now - self.before)
        self.before = now
        if self.after is not None:
            self.after(record)


def fit(backend, folder, after=None, **options):
    """Fit; check that no row of any epoch is missing, and return result and journal."""
    journal = Journal(folder)
    epochs = Epochs(journal, after)
    features, labels = make_data(ROWS)
    features[:, 5] = np.arange(ROWS) / ROWS  # which numbers the rows
    defaults = {"batch_size_per_worker": BATCH, "rng_seed": 1, "timeout": 60, "on_peer_lost": "continue"}
    master = sb.SharedTrainingMaster(training_hooks=[journal], **{**defaults, **options})
    network = make_network("adam")
    with sb.Trainer(network, master, backend=backend) as trainer:
        result = trainer.fit((features, labels), EPOCHS, callbacks=[epochs], progress=False)
        assert trainer.evaluate((features, labels)).accuracy() > 0.8
    assert [record.examples for record in result.epochs] == [ROWS] * EPOCHS
    assert [set(counts) for counts in epochs.counts] == [set(range(ROWS))] * EPOCHS
    assert sum(sum(counts.values()) for counts in epochs.counts) <= EPOCHS * ROWS + FLIGHT
    assert np.isfinite(network.state().parameters).all()
    return result, journal


def check_survivors(result, journal, step, end=3):
    """Check that two of three trained their whole share of the first epoch in one gang, and went on in the next.

    At the end there are `end` members, with the same parameters.
    """
    files, members = list(journal.rows().items()), 3
    trained = sorted(len(rows) for _, rows in files[:members])
    assert trained[0] == step * BATCH
    assert trained[1] >= ROWS // members
    survivors = {name.split("-")[0] for name, rows in files[:members] if len(rows) >= ROWS // members}
    assert survivors <= {name.split("-")[0] for name, _ in files[members:]}
    assert len(result.failures) == 1
    assert "was lost" in result.failures[0]
    assert "rows of epoch 1 that it had were dealt anew" in result.failures[0]
    last = journal.vectors[-1]
    assert all(np.array_equal(vector, last) for vector in journal.vectors[-end:])


@pytest.mark.parametrize(("rank", "action", "limit"), [(0, "kill", 30.0), (2, "stop", 30.0 + LEASE)])
def test_local_processes(tmp_path, rank, action, limit):
    with LocalExecutor(3) as executor:
        fault = Fault(rank, "UPDATE", action, step=20)
        started = time.monotonic()
        with inject(executor, fault, gangs=1):
            result, journal = fit(executor, tmp_path)
        assert time.monotonic() - started < limit
    check_survivors(result, journal, 20)


@contextlib.contextmanager
def dying_source(executor, client):
    """Kill the worker that holds what the first gang's members load, before they have it."""
    gang, left = executor.gang, [None]

    def start(body, payloads, shared, **options):
        if left:
            left.clear()
            [holder] = client.who_has([shared.future])[shared.future.key]
            os.kill(client.run(os.getpid, workers=[holder])[holder], signal.SIGKILL)
        return gang(body, payloads, shared, **options)

    with mock.patch.object(executor, "gang", start):
        yield


@pytest.mark.dask
def test_dask_workers(tmp_path, fast_nannies):
    """One dies, its nanny starts it again, and it joins; one dies that others load from; one hangs, and stays out."""
    from distributed import Client, LocalCluster

    from strombus.executors.dask import DaskExecutor

    with (
        LocalCluster(n_workers=3, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        executor = DaskExecutor(client)
        with inject(executor, Fault(0, "UPDATE", "kill", step=20), gangs=1):
            result, journal = fit(executor, tmp_path, lambda record: client.wait_for_workers(3, timeout=60))
        check_survivors(result, journal, 20)
        with dying_source(executor, client):
            (tmp_path / "loading").mkdir()
            result, _ = fit(executor, tmp_path / "loading", lambda record: client.wait_for_workers(3, timeout=60))
        assert len(result.failures) == 1
        assert "its task ended as" in result.failures[0] or "lost its worker" in result.failures[0]
        hanging = tmp_path / "hanging"
        hanging.mkdir()
        workers = client.run(os.getpid)
        with inject(executor, Fault(1, "UPDATE", "stop", step=20), gangs=1):
            result, journal = fit(executor, hanging)
        check_survivors(result, journal, 20, end=2)
        assert executor.capacity().slots == 2
        for pid in workers.values():
            if "T (stopped)" in Path(f"/proc/{pid}/status").read_text():
                kill_process(pid)
