"""Workers that die during a fit change nothing in what it comes to, and no end leaves temporary data behind."""

from __future__ import annotations

import os
import sys
import threading
import time

import cloudpickle
import numpy as np
import pytest
import torch
from distributed import Client
from helpers.hooks import SeenRows
from helpers.programs import dask_programs
from torch import nn

import strombus as sb
from strombus.errors import TaskError
from strombus.executors.local import LocalExecutor
from strombus.testing.faults import kill_process

cloudpickle.register_pickle_by_value(sys.modules[__name__])
cloudpickle.register_pickle_by_value(sys.modules[SeenRows.__module__])

ROWS, EPOCHS = 400, 2


class Slow(nn.Module):
    """A module that takes a while, so that a worker can die in the middle of its minibatches."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.layers = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1)).double()

    def forward(self, features):
        time.sleep(0.02)
        return self.layers(features / ROWS)


def make_data():
    """Features whose first column numbers the rows."""
    numbers = np.arange(ROWS, dtype=np.float64)
    return np.stack([numbers, np.sin(numbers) * ROWS, np.cos(numbers) * ROWS], axis=1), np.sin(numbers)[:, None]


def fit(backend, callbacks=(), data=None, **options):
    hook = SeenRows()
    network = sb.MultiLayerNetwork(Slow, nn.MSELoss(), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))
    options = {"workers": 2, "batch_size_per_worker": 10, "averaging_frequency": 4, "rng_seed": 8, **options}
    options["collect_training_stats"] = True
    master = sb.ParameterAveragingTrainingMaster(training_hooks=[hook], **options)
    with sb.Trainer(network, master, backend) as trainer:
        result = trainer.fit(make_data() if data is None else data, EPOCHS, callbacks=callbacks, progress=False)
    return network, hook.rows, result


@pytest.fixture(scope="module")
def undisturbed():
    with LocalExecutor(1) as executor:
        return fit(executor)


def as_bag():
    import dask.bag

    features, labels = make_data()
    objects = [sb.DataSet(features[i : i + 50], labels[i : i + 50]) for i in range(0, ROWS, 50)]
    return dask.bag.from_sequence(objects, npartitions=4)


class KillInRound(sb.Callback):
    """Kill a process soon after a round has ended: the next round is then under way."""

    def __init__(self, pid, epoch, number):
        self.pid, self.when, self.killed = pid, (epoch, number), False

    def on_round(self, progress):
        if (progress.epoch, progress.round) == self.when:
            threading.Timer(0.05, self._kill).start()

    def _kill(self):
        kill_process(self.pid)
        self.killed = True


@pytest.mark.dask
@pytest.mark.parametrize("moment", [(0, 0), (1, 2)])
def test_a_worker_killed_in_a_fit_changes_nothing(tmp_path, undisturbed, moment):
    with dask_programs(tmp_path) as (address, programs), Client(address, set_as_default=False) as client:
        victim = KillInRound(programs.running["worker-1"].pid, *moment)
        network, rows, result = fit(client, [victim])
        assert victim.killed
        assert len(client.scheduler_info()["workers"]) == 1
    _check_same((network, rows, result), undisturbed)


@pytest.mark.dask
def test_a_worker_killed_while_the_clusters_memory_is_trained_from_changes_nothing(tmp_path):
    with LocalExecutor(1) as executor:
        undisturbed = fit(executor, data=as_bag(), rdd_training_approach="Direct")
    with dask_programs(tmp_path) as (address, programs), Client(address, set_as_default=False) as client:
        victim = KillInRound(programs.running["worker-0"].pid, 0, 1)
        disturbed = fit(client, [victim], as_bag(), rdd_training_approach="Direct")
        assert victim.killed
    _check_same(disturbed, undisturbed)


class KillHolder(sb.Callback):
    """At the end of an epoch's last round, before its mean is fetched, kill the workers that hold means."""

    def __init__(self, client, programs, last):
        self.client, self.programs, self.last, self.killed = client, programs, last, 0

    def on_round(self, progress):
        if self.killed or progress.round != self.last:
            return
        holders = {
            worker
            for key, held in self.client.who_has().items()
            if "merge" in key or "finish" in key
            for worker in held
        }
        pids = self.client.run(os.getpid, workers=sorted(holders))
        for pid in pids.values():
            kill_process(pid)
        self.killed = len(pids)
        # The driver learns of it from the scheduler; a fetch before that would only be repeated.
        time.sleep(0.5)


@pytest.mark.dask
def test_a_mean_that_died_with_its_worker_is_made_again(tmp_path):
    """Of the whole chain of rounds only what they started from is still there."""
    with LocalExecutor(1) as executor:
        undisturbed = fit(executor, workers=1)
    with dask_programs(tmp_path) as (address, programs), Client(address, set_as_default=False) as client:
        victim = KillHolder(client, programs, last=9)
        disturbed = fit(client, [victim], workers=1)
        assert victim.killed == 1
    _check_same(disturbed, undisturbed)


def _check_same(disturbed, undisturbed):
    (network, rows, result), (wanted, wanted_rows, wanted_result) = disturbed, undisturbed
    assert sorted(row for _, row in rows) == sorted(list(range(ROWS)) * EPOCHS)
    assert sorted(rows) == sorted(wanted_rows)
    assert (result.examples, result.minibatches) == (wanted_result.examples, wanted_result.minibatches)
    counts, wanted_counts = (  # what ran twice counts once
        {key: one.stats.totals(key).count for key in one.stats.keys()}  # noqa: SIM118 - no mapping
        for one in (result, wanted_result)
    )
    assert counts == wanted_counts
    assert result.stats.totals("fit").figures["examples"] == ROWS * EPOCHS
    assert [record.score for record in result.epochs] == pytest.approx(
        [record.score for record in wanted_result.epochs], rel=1e-12
    )
    np.testing.assert_allclose(network.state().parameters, wanted.state().parameters, rtol=1e-12, atol=1e-12)
    for name, array in wanted.updater.tensors.items():
        np.testing.assert_allclose(network.updater.tensors[name], array, rtol=1e-12, atol=1e-12)


def test_a_process_killed_in_a_local_fit_changes_nothing(undisturbed):
    with LocalExecutor(2) as executor:
        _, victim = sorted(set(executor.map(process_of, range(2))))
        killer = KillInRound(victim, 0, 1)
        network, rows, result = fit(executor, [killer])
        assert killer.killed
    assert sorted(rows) == sorted(undisturbed[1])
    assert result.stats.totals("fit").figures["examples"] == ROWS * EPOCHS
    np.testing.assert_allclose(network.state().parameters, undisturbed[0].state().parameters, rtol=1e-12, atol=1e-12)


def process_of(_, number):
    import os

    time.sleep(0.5)
    return os.getpid()


# -- what is left behind -------------------------------------------------------------------------


class Interrupt(sb.Callback):
    """End a fit in the middle with an exception, having seen what lies in a folder."""

    def __init__(self, folder, error=None):
        self.folder, self.error, self.seen = folder, error, []

    def on_round(self, progress):
        self.seen = [path.name for path in self.folder.iterdir()]
        if self.error is not None:
            raise self.error


@pytest.fixture
def objects():
    features, labels = make_data()
    return [sb.DataSet(features[i : i + 50], labels[i : i + 50]) for i in range(0, ROWS, 50)]


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, RuntimeError])
def test_temporary_exports_are_gone(tmp_path, objects, error):
    watcher = Interrupt(tmp_path, error)
    with LocalExecutor(1) as executor:
        arguments = {"callbacks": [watcher], "data": iter(objects), "export_directory": str(tmp_path)}
        if error is None:
            fit(executor, **arguments)
        else:
            with pytest.raises(error):
                fit(executor, **arguments)
    assert len(watcher.seen) == 1
    assert watcher.seen[0].startswith("strombus-")
    assert list(tmp_path.iterdir()) == []


def test_temporary_exports_are_gone_when_a_worker_fails(tmp_path, objects):
    objects[5].features[7, 1] = np.nan
    with LocalExecutor(1) as executor, pytest.raises(TaskError, match="NaN"):
        fit(executor, data=iter(objects), export_directory=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_temporary_exports_are_gone_when_the_data_breaks_off(tmp_path, objects, error):
    def breaks():
        yield from objects[:4]
        raise error

    with LocalExecutor(1) as executor, pytest.raises(error):
        fit(executor, data=breaks(), export_directory=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.dask
def test_temporary_exports_of_a_bag_are_gone_when_its_export_fails(tmp_path, objects, dask_client):
    import dask.bag

    def fail_on_the_last(rows):
        if rows.features[0, 0] == ROWS - 50:
            raise RuntimeError("a broken row")
        return rows

    bag = dask.bag.from_sequence(objects, npartitions=4).map(fail_on_the_last)
    with pytest.raises(TaskError, match="a broken row"):
        fit(dask_client, data=bag, export_directory=str(tmp_path))
    assert list(tmp_path.iterdir()) == []
