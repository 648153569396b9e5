"""Shared training from what an engine holds: every row once an epoch, as in the Export approach, and nothing left."""

from __future__ import annotations

import sys
import time
from collections import Counter

import cloudpickle
import numpy as np
import pytest
import torch
from helpers.hooks import SeenRows
from helpers.networks import make_data, make_network
from torch import nn

import strombus as sb
from strombus.errors import GangError, TaskError

cloudpickle.register_pickle_by_value(sys.modules[__name__])

SIZES = [5, 1, 32, 7, 16, 2]
ROWS = sum(SIZES)


def objects_of(sizes=SIZES):
    """DataSets of these numbers of rows; the first feature numbers the rows."""
    ids = np.arange(sum(sizes), dtype=np.float32)[:, None]
    whole = sb.DataSet(np.concatenate([ids, np.ones_like(ids)], axis=1), ids * 0)
    ends = np.cumsum(sizes)
    return [whole[int(end - size) : int(end)] for size, end in zip(sizes, ends, strict=True)]


def train(backend, data, epochs=2, **options):
    hook = SeenRows()
    network = sb.MultiLayerNetwork(nn.Linear(2, 1), nn.MSELoss(), lambda p: torch.optim.SGD(p, lr=0.0))
    options = {"workers": 2, "batch_size_per_worker": 8, "rng_seed": 3, "timeout": 60, **options}
    master = sb.SharedTrainingMaster(training_hooks=[hook], **options)
    with sb.Trainer(network, master, backend=backend) as trainer:
        result = trainer.fit(data, epochs=epochs, progress=False)
    return hook.rows, result


class Engine:
    """An engine's backend and collections."""

    def __init__(self, backend, collect, cached):
        self.backend, self.collect, self.cached = backend, collect, cached

    def forgets(self):
        """Say whether the engine's cache is empty, or becomes so within seconds."""
        deadline = time.monotonic() + 10
        while self.cached() and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self.cached()


def cells_of(dask_scheduler):
    return [str(key) for key in dask_scheduler.tasks if str(key).startswith(("_join", "_cut", "strombus-gang"))]


def bag(objects, partitions=3):
    import dask.bag

    return dask.bag.from_sequence(objects, npartitions=partitions)


@pytest.fixture(
    params=[
        "local",
        pytest.param("dask", marks=pytest.mark.dask),
        pytest.param("spark", marks=pytest.mark.spark),
    ]
)
def engine(request):
    if request.param == "local":
        return Engine(request.getfixturevalue("local_executors")[2], bag, dict)
    if request.param == "dask":
        client = request.getfixturevalue("dask_client")
        return Engine(client, bag, lambda: client.run_on_scheduler(cells_of))
    session = request.getfixturevalue("spark_session")
    context = session.sparkContext
    return Engine(session, context.parallelize, lambda: dict(context._jsc.getPersistentRDDs()))


@pytest.mark.parametrize("staleness", [0, 4])
def test_every_row_once_an_epoch_and_nothing_stays_cached(engine, staleness):
    seen, result = train(
        engine.backend, engine.collect(objects_of(), 3), rdd_training_approach="Direct", max_staleness=staleness
    )
    assert sorted(row for _, row in seen) == sorted([*range(ROWS)] * 2)
    assert result.examples == 2 * ROWS
    assert set(Counter(rank for rank, _ in seen).values()) == {2 * (ROWS // 2), 2 * (ROWS - ROWS // 2)}
    assert engine.forgets()


def test_whole_partitions_of_any_size(engine):
    """Members then have different numbers of minibatches."""
    options = {"rdd_training_approach": "Direct", "repartitioner": "none"}
    seen, _ = train(engine.backend, engine.collect(objects_of([3, 41]), 2), **options)
    assert [{row for rank, row in seen if rank == one} for one in (0, 1)] == [{*range(3)}, {*range(3, 44)}]
    assert len(seen) == 2 * 44
    assert engine.forgets()


def test_a_worker_without_rows_is_no_member(engine):
    seen, _ = train(
        engine.backend, engine.collect(objects_of([6]), 1), 1, rdd_training_approach="Direct", repartitioner="none"
    )
    assert sorted(seen) == [(0, row) for row in range(6)]


def test_direct_is_export_where_the_order_is_the_datas(engine):
    """The same minibatches, in the same order, on the same members: parameters agree to rounding."""
    features, labels = make_data(40)
    data = engine.collect([sb.DataSet(features[i : i + 5], labels[i : i + 5]) for i in range(0, 40, 5)], 3)
    found = []
    for approach in ("Export", "Direct"):
        network = make_network("momentum")
        options = {"workers": 2, "batch_size_per_worker": 4, "max_staleness": 0, "shuffle": False, "rng_seed": 1}
        master = sb.SharedTrainingMaster(rdd_training_approach=approach, timeout=60, **options)
        with sb.Trainer(network, master, backend=engine.backend) as trainer:
            result = trainer.fit(data, epochs=2, validation=data, progress=False)
        found.append((network.state().parameters, result.epochs[-1].validation))
    (exported, figures), (direct, others) = found
    np.testing.assert_allclose(direct, exported, rtol=0, atol=1e-12)
    assert figures == pytest.approx(others)
    assert engine.forgets()


def test_epochs_have_orders_of_their_own(engine):
    seen, _ = train(engine.backend, engine.collect(objects_of([40]), 1), workers=1, rdd_training_approach="Direct")
    rows = [row for _, row in seen]
    assert sorted(rows[:40]) == sorted(rows[40:]) == list(range(40))
    assert rows[:40] != rows[40:]


class Broken(sb.TrainingHook):
    def post_update(self, batch, replica):
        if replica.iteration == 2:
            raise RuntimeError("broken on purpose")


def test_what_fails_leaves_nothing_cached(engine):
    options = {"rdd_training_approach": "Direct", "workers": 2, "batch_size_per_worker": 4, "timeout": 60}
    for hooks, sizes, wanted in [([Broken()], [8, 8], GangError), ([], [8, 8], TaskError)]:
        objects = objects_of(sizes)
        if not hooks:
            objects = [objects[0], sb.DataSet(np.zeros((8, 3), np.float32), np.zeros((8, 1), np.float32))]
        master = sb.SharedTrainingMaster(training_hooks=hooks, **options)
        network = sb.MultiLayerNetwork(nn.Linear(2, 1), nn.MSELoss(), lambda p: torch.optim.SGD(p, lr=0.0))
        with sb.Trainer(network, master, backend=engine.backend) as trainer, pytest.raises(wanted):
            trainer.fit(engine.collect(objects, 2), progress=False)
        assert engine.forgets()


def test_rows_in_this_process_travel_with_the_work(local_executors):
    for data in (
        iter(objects_of()),
        (np.arange(44, dtype=np.float32).repeat(2).reshape(44, 2), np.zeros((44, 1), np.float32)),
    ):
        seen, result = train(local_executors[2], data, 1, rdd_training_approach="Direct")
        assert sorted(row for _, row in seen) == list(range(result.examples))
