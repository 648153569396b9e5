"""Every row is trained exactly once an epoch, whatever the objects, batches, workers and the approach."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from helpers.hooks import SeenRows
from torch import nn

import strombus as sb
from strombus.executors.local import LocalExecutor

OBJECTS = {1: 47, 5: 13, 32: 3, 100: 2}


def data_sets(size, count):
    """`count` objects of `size` rows; the first feature numbers the rows."""
    rows = np.arange(size * count, dtype=np.float32).reshape(count, size, 1)
    return [sb.DataSet(np.concatenate([ids, np.ones_like(ids)], axis=1), ids * 0) for ids in rows]


def train(backend, data, epochs=1, **options):
    hook = SeenRows()
    network = sb.MultiLayerNetwork(nn.Linear(2, 1), nn.MSELoss(), lambda p: torch.optim.SGD(p, lr=0.0))
    master = sb.ParameterAveragingTrainingMaster(training_hooks=[hook], rng_seed=3, **options)
    with sb.Trainer(network, master, backend=backend) as trainer:
        result = trainer.fit(data, epochs=epochs, progress=False)
    return hook.rows, result


@pytest.fixture(scope="module")
def executor():
    with LocalExecutor(1) as executor:
        yield executor


@pytest.mark.parametrize("approach", ["Export", "Direct"])
@pytest.mark.parametrize("workers", [1, 3, 4, 8])
@pytest.mark.parametrize("batch", [1, 10, 16, 32])
@pytest.mark.parametrize("size", OBJECTS)
def test_every_row_once(executor, size, batch, workers, approach):
    count = OBJECTS[size]
    seen, result = train(
        executor,
        iter(data_sets(size, count)),
        workers=workers,
        batch_size_per_worker=batch,
        averaging_frequency=3,
        rdd_training_approach=approach,
    )
    assert sorted(row for _, row in seen) == list(range(size * count))
    assert result.examples == size * count
    per_worker = Counter(rank for rank, _ in seen)
    assert len(per_worker) == min(workers, size * count)
    assert max(per_worker.values()) - min(per_worker.values()) <= 1


@pytest.mark.parametrize(
    ("when", "how", "repartitioner"),
    [
        ("Never", "Balanced", None),
        ("NumPartitionsWorkersDiffers", "Balanced", None),
        ("Always", "SparkDefault", None),
        ("Always", "ApproximateBalanced", None),
        ("Always", "Balanced", "none"),
        ("Always", "Balanced", sb.DefaultRepartitioner(max_partitions=2)),
    ],
)
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_way_to_repartition_keeps_the_rows(executor, tmp_path, when, how, repartitioner, shuffle):
    paths = []
    for number, rows in enumerate((5, 17, 40)):
        ids = np.arange(100 * number, 100 * number + rows, dtype=np.float32)[:, None]
        paths.append(str(tmp_path / f"{number}.zarr"))
        sb.data.export((np.concatenate([ids, ids], axis=1), ids * 0), paths[-1], batch_size=8, progress=False)
    seen, _ = train(
        executor,
        paths,
        workers=3,
        batch_size_per_worker=4,
        repartition_data=when,
        repartition_strategy=how,
        repartitioner=repartitioner,
        shuffle=shuffle,
    )
    assert sorted(row for _, row in seen) == [*range(5), *range(100, 117), *range(200, 240)]
    if when == "Never" or repartitioner == "none":
        ranks_of_parts = {part: {rank for rank, row in seen if row // 100 == part} for part in range(3)}
        assert all(len(ranks) == 1 for ranks in ranks_of_parts.values())


def test_a_wrong_declaration_of_object_sizes_is_warned_about_and_not_believed(executor):
    options = {"workers": 2, "batch_size_per_worker": 10, "rdd_data_set_num_examples": 32}
    with pytest.warns(sb.errors.StrombusWarning, match=r"says 32 rows an object, the first partition has 5\.0"):
        seen, _ = train(executor, bag(data_sets(5, 13)), **options)
    assert len(seen) == 65


def test_each_epoch_has_an_order_of_its_own_over_the_same_rows(executor):
    objects = data_sets(5, 8)
    seen, _ = train(executor, objects, epochs=2, workers=1, batch_size_per_worker=8)
    rows = [row for _, row in seen]
    assert sorted(rows[:40]) == sorted(rows[40:]) == list(range(40))
    assert rows[:40] != rows[40:]


def bag(objects):
    import dask.bag

    return dask.bag.from_sequence(objects, npartitions=3)


NATIVE = [
    pytest.param("local_executors", "bag", id="bag-local"),
    pytest.param("dask_client", "bag", marks=pytest.mark.dask, id="bag-dask"),
    pytest.param("spark_session", "rdd", marks=pytest.mark.spark, id="rdd-spark"),
]


@pytest.mark.parametrize("approach", ["Export", "Direct"])
@pytest.mark.parametrize(("size", "batch", "workers"), [(1, 10, 3), (5, 16, 2), (32, 10, 4), (100, 32, 2)])
@pytest.mark.parametrize(("fixture", "kind"), NATIVE)
def test_native_collections_keep_every_row(request, fixture, kind, size, batch, workers, approach):
    backend = request.getfixturevalue(fixture)
    backend = backend[2] if fixture == "local_executors" else backend
    count = OBJECTS[size]
    objects = data_sets(size, count)
    data = bag(objects) if kind == "bag" else backend.sparkContext.parallelize(objects, 3)
    seen, result = train(
        backend,
        data,
        epochs=2,
        workers=workers,
        batch_size_per_worker=batch,
        averaging_frequency=2,
        rdd_training_approach=approach,
    )
    assert sorted(row for _, row in seen) == sorted(list(range(size * count)) * 2)
    per_worker = Counter(rank for rank, _ in seen)
    assert max(per_worker.values()) - min(per_worker.values()) <= 2
    assert result.examples == 2 * size * count
    if kind == "rdd":
        assert not backend.sparkContext._jsc.getPersistentRDDs()
