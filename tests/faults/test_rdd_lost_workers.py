"""RDDs whose workers die: what was lost is made again, and nothing counts twice."""

from __future__ import annotations

import os
import signal
import time
from operator import add

import numpy as np
import pytest

from strombus.compat.dl4j import DaskSparkContext

pytestmark = pytest.mark.dask


@pytest.fixture(scope="module")
def context(restarting_client):
    restarting_client.wait_for_workers(2, timeout=60)
    with DaskSparkContext(restarting_client) as context:
        yield context


def kill_all(client):
    """Kill the workers' processes; their nannies start others."""
    old = client.run(os.getpid)
    for pid in old.values():
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while len(set(client.scheduler_info()["workers"]) - set(old)) < 2:
        assert time.monotonic() < deadline, "the nannies started no workers"
        time.sleep(0.1)


def test_data_broadcasts_and_kept_partitions_come_back(context):
    factor = context.broadcast(np.full(3, 7))
    rdd = context.parallelize(range(1000, 1010), 4).zip(context.parallelize(list(range(10)), 4))
    kept = rdd.map(lambda pair: (pair[1] % 3, pair[1] * int(factor.value[0]))).persist()
    before = kept.reduceByKey(add).collect()
    kill_all(context.client)
    assert kept.reduceByKey(add).collect() == before
    assert sorted(before) == [(0, 126), (1, 84), (2, 105)]
    assert rdd.map(lambda pair: pair[0] + int(factor.value.sum())).collect() == list(range(1021, 1031))


def test_a_task_that_runs_twice_counts_once(context, tmp_path):
    seen = context.accumulator(0.0)
    marker = str(tmp_path / "died")

    def count(record):
        seen.add(record)
        if record == 5 and not os.path.exists(marker):
            open(marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return record % 2, 1

    pairs = context.range(8, numSlices=4).map(count)
    assert sorted(pairs.reduceByKey(add).collect()) == [(0, 4), (1, 4)]
    assert os.path.exists(marker)
    assert seen.value == sum(range(8))
