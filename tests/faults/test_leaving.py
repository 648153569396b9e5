"""Workers that their engine takes away in order: nothing is lost, and nothing trained twice."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import cloudpickle
import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster
from helpers import hooks, networks, stopped
from helpers.fault_matrix import seeds
from helpers.networks import make_data
from helpers.programs import dask_programs
from helpers.stopped import EPOCHS, ROWS, make_fit

import strombus as sb

for module in (hooks, networks, stopped, sys.modules[__name__]):
    cloudpickle.register_pickle_by_value(module)


class TakeAway(sb.Callback):
    """Have a worker taken away in the second epoch, and count what is trained from then on."""

    passive = True

    def __init__(self, act):
        self.act, self.examples, self.thread = act, 0, None

    def on_round(self, progress):
        self.examples += progress.examples
        if self.thread is None and progress.epoch == 1:
            self.thread = threading.Thread(target=self.act)
            self.thread.start()


class CountWorkers(sb.Callback):
    """Note how many workers there are at each epoch's end."""

    def __init__(self, cluster):
        self.cluster, self.counts = cluster, []

    def on_epoch_end(self, record):
        self.counts.append(len(self.cluster.scheduler.workers))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Four workers, of which each test costs one; those of the last two are both at work."""
    folder = tmp_path_factory.mktemp("cluster")
    with dask_programs(folder, workers=4) as (address, _), Client(address, set_as_default=False) as client:
        yield client


def fit(backend, master, callbacks=(), **options):
    network, master = make_fit(master)
    if options and isinstance(master, sb.SharedTrainingMaster):
        master = master.model_copy(update={"max_failures": 1})
    with sb.Trainer(network, master, backend) as trainer:
        result = trainer.fit(make_data(ROWS), EPOCHS, callbacks=callbacks, progress=False, **options)
    return network.state().parameters, result


@pytest.mark.dask
@pytest.mark.parametrize(
    ("master", "how"), [("sharing", "retire_workers"), ("sharing", "SIGTERM"), ("averaging", "retire_workers")]
)
def test_a_worker_that_leaves_takes_nothing_along(tmp_path, cluster, local_executors, master, how):
    victim = sorted(cluster.scheduler_info(n_workers=-1)["workers"])[0]  # the first of those that are chosen

    def act():
        if how == "retire_workers":
            cluster.retire_workers([victim])
        else:
            (pid,) = cluster.run(os.getpid, workers=[victim]).values()
            os.kill(pid, signal.SIGTERM)

    taken = TakeAway(act)
    parameters, result = fit(cluster, master, [taken], name="one", storage_path=tmp_path)
    taken.thread.join(60)
    assert victim not in cluster.scheduler_info(n_workers=-1)["workers"]
    assert len(result.failures) == (master == "sharing")
    assert all(f"left: Dask closes its worker {victim}" in failure for failure in result.failures)
    assert [record.examples for record in result.epochs] == [ROWS] * EPOCHS
    assert taken.examples == ROWS * EPOCHS  # nothing was trained twice
    assert np.array_equal(parameters, fit(local_executors[2], master)[0])


@pytest.mark.spark
def test_a_spark_executor_that_is_decommissioned_leaves_a_gang_alone(local_executors):
    """It ends when its tasks have ended, and Spark starts another one."""
    context = pytest.importorskip("helpers.spark", reason="pyspark is not installed").spark_context()
    before = executors()
    taken = TakeAway(lambda: os.kill(before[0], signal.SIGPWR))
    parameters, result = fit(context, "sharing", [taken])
    assert result.failures == ()
    assert np.array_equal(parameters, fit(local_executors[2], "sharing")[0])
    deadline = time.monotonic() + 60
    while before[0] in executors() or len(executors()) < 2 or context._jsc.sc().getExecutorMemoryStatus().size() < 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def executors():
    """Return the process ids of Spark's executors."""
    found = psutil.Process().children(recursive=True)
    return sorted(one.pid for one in found if any("CoarseGrainedExecutorBackend" in part for part in arguments(one)))


def arguments(process):
    try:
        return process.cmdline() if process.name() == "java" else []
    except psutil.Error:  # it has just ended
        return []


@pytest.mark.dask
@pytest.mark.skipif(not seeds(), reason="half a minute for what `retire_workers` does too: STROMBUS_FAULTS=0 runs it")
def test_an_adaptive_cluster_that_shrinks_meanwhile_changes_nothing(tmp_path, local_executors):
    """It takes workers away that are idle when it looks: one is throughout, in averaging others between two rounds."""
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        for master, left in (("sharing", 2), ("averaging", 1)):
            cluster.scale(3)
            client.wait_for_workers(3, timeout=60)
            shrunk = TakeAway(lambda: cluster.adapt(minimum=1, maximum=3, interval="20ms", wait_count=1))
            there = CountWorkers(cluster)
            parameters, result = fit(client, master, [shrunk, there], name="one", storage_path=tmp_path / master)
            cluster.adapt().stop()
            assert there.counts[0] == 3
            assert left <= there.counts[-1] <= 2
            assert result.failures == ()
            assert [record.examples for record in result.epochs] == [ROWS] * EPOCHS
            assert np.array_equal(parameters, fit(local_executors[2], master)[0])
