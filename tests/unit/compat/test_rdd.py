"""RDDs on Dask for themselves: laws, life of contexts, data that other parts of Strombus and Dask take."""

from __future__ import annotations

import enum
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from operator import add, mod

import dask.bag as db
import numpy as np
import pytest
from distributed import Client
from helpers.networks import make_data, make_network
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import strombus as sb
from strombus.compat import dl4j
from strombus.compat.dl4j import DaskSparkContext
from strombus.compat.dl4j.hashing import PortableHash, hash_text
from strombus.compat.dl4j.shuffle import Bucket, bounds_of, gather_records, sketch_keys
from strombus.data import open_source
from strombus.errors import ConfigurationError, ExecutorError
from strombus.executors import resolve

pytestmark = pytest.mark.dask

few = settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
records = st.lists(st.integers(-9, 9), max_size=40)
slices = st.integers(1, 5)


@few
@given(records, records, slices, slices)
def test_moving_records_loses_and_adds_none(dask_context, left, right, some, more):
    one, other = dask_context.parallelize(left, some), dask_context.parallelize(right, more)
    both = one.union(other)
    assert both.collect() == left + right
    assert both.sortBy(lambda x: (x % 3, -x), numPartitions=more).collect() == sorted(
        left + right, key=lambda x: (x % 3, -x)
    )
    sizes = [len(found) for found in both.repartition(some).glom().collect()]
    assert (sum(sizes), len(sizes)) == (len(left + right), some)
    assert sorted(one.subtract(other).union(one.intersection(other)).distinct().collect()) == sorted(set(left))
    assert Counter(both.keyBy(lambda x: x % 4).values().collect()) == Counter(left + right)


@few
@given(
    st.lists(st.tuples(st.text(max_size=2) | st.none() | st.integers(0, 3), st.integers()), max_size=30), slices, slices
)
def test_each_key_is_in_one_partition_with_all_its_values_in_order(dask_context, pairs, some, more):
    parts = dask_context.parallelize(pairs, some).groupByKey(more).glom().collect()
    wanted: dict = {}
    for key, value in pairs:
        wanted.setdefault(key, []).append(value)
    assert {key: values for part in parts for key, values in part} == wanted
    assert all(PortableHash()(key) % more == number for number, part in enumerate(parts) for key, _ in part)


@given(st.lists(st.lists(st.integers(), max_size=200), min_size=1, max_size=4), st.integers(1, 6), st.integers(1, 20))
def test_bounds_cut_records_into_ranges_of_about_one_size(parts, size, wanted):
    parts = [sorted(set(part)) for part in parts]
    sketches = [list(sketch_keys(wanted, lambda x: x, i, part)) for i, part in enumerate(parts)]
    assert [count for count, _ in sketches] == [len(part) for part in parts]
    bounds = bounds_of(size, 0, *sketches)
    assert bounds == sorted(bounds)
    assert len(bounds) == (size - 1 if any(parts) else 0)
    assert set(bounds) <= set().union(*parts)


@pytest.mark.parametrize("strings", [["", "a", "abcdefgh", "häß", "日本語", "😀x", "\udc80", "y" * 300]], ids=["texts"])
def test_text_hashes_as_python_does_with_seed_zero(strings):
    code = (
        "import json, sys; print(json.dumps([hash(x) for s in json.loads(sys.argv[1]) for x in (s, repr(s).encode())]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    answer = subprocess.run(
        [sys.executable, "-c", code, json.dumps(strings)], env=environment, capture_output=True, check=True
    )
    assert json.loads(answer.stdout) == [hash_text(x) for s in strings for x in (s, repr(s).encode())]


def test_keys_that_workers_hash_differently_are_an_error_not_two_groups():
    class Colour(enum.Enum):
        RED = 1

    place = PortableHash()
    place((1, "x", None, 2.5, np.int64(3)))
    assert not place.seeded
    place(("x", Colour.RED))
    assert place.seeded
    assert list(gather_records(0, Bucket([1], 5), Bucket([2]), Bucket([3], 5))) == [1, 2, 3]
    with pytest.raises(ExecutorError, match="PYTHONHASHSEED=0"):
        list(gather_records(0, Bucket([1], 5), Bucket([2], 6)))


def test_only_results_reach_the_driver(dask_context, monkeypatch):
    gathered = []
    gather = Client.gather
    monkeypatch.setattr(
        Client,
        "gather",
        lambda self, futures, **options: gathered.append(gather(self, futures, **options)) or gathered[-1],
    )
    pairs = dask_context.range(300, numSlices=3).map(lambda x: (x % 5, "x" * 1000))
    assert (
        pairs.groupByKey().zipWithIndex().sortBy(lambda group: -group[1]).map(lambda group: len(group[0][1])).sum()
        == 300
    )
    assert gathered == [[[120], [120], [60]]]


def test_laziness_goes_as_far_as_take_needs(dask_context):
    seen = dask_context.accumulator(0)
    rdd = dask_context.range(100, numSlices=10).map(lambda x: seen.add(1) or x)
    derived = rdd.zipWithIndex().sortBy(add_up).groupByKey()
    assert derived.getNumPartitions() == 10
    assert seen.value == 0
    assert (rdd.take(3), seen.value) == ([0, 1, 2], 3)
    assert (rdd.take(15), seen.value) == (list(range(15)), 3 + 10 + 20)


def add_up(pair):
    return sum(pair)


add_up.__module__ = "__main__"  # travels by value: workers cannot import this file


def test_what_is_dropped_leaves_the_cluster(dask_context, dask_client):
    def kept():
        return dask_client.run_on_scheduler(
            lambda dask_scheduler: [k for k in dask_scheduler.tasks if "kept" in str(k)]
        )

    rdd = dask_context.range(10, numSlices=2).setName("numbers").persist()
    assert (rdd.sum(), len(kept()), repr(rdd)) == (45, 2, f"numbers[{rdd.id()}] from range with 2 partitions")
    with pytest.raises(ConfigurationError, match="cannot change"):
        rdd.persist(dl4j.StorageLevel.DISK_ONLY)
    rdd.unpersist()
    assert not rdd.is_cached
    assert (rdd.persist(dl4j.StorageLevel.DISK_ONLY).getStorageLevel().useDisk, rdd.count(), len(kept())) == (
        True,
        10,
        2,
    )
    del rdd
    deadline = time.monotonic() + 20
    while kept() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not kept()


def test_a_failure_is_not_kept(dask_context, tmp_path):
    switch = tmp_path / "switch"
    rdd = dask_context.range(4, numSlices=2).map(lambda x: 1 // switch.exists() + x).persist()
    with pytest.raises(ZeroDivisionError):
        rdd.count()
    switch.touch()
    assert rdd.collect() == [1, 2, 3, 4]


def test_bags_and_rdds_are_each_other(dask_context, dask_client):
    bag = db.from_sequence(range(10), npartitions=3)
    rdd = dask_context.fromBag(bag.map(mod, 4))
    assert rdd.glom().collect() == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1]]
    factor = dask_context.broadcast(3)
    for derived in (rdd.map(lambda x: (x, factor.value)), rdd.map(lambda x: (x, 3)).persist().map(lambda pair: pair)):
        back = derived.reduceByKey(add, 2).toBag()
        assert back.npartitions == 2
        assert sorted(back.compute(scheduler=dask_client)) == [(0, 9), (1, 9), (2, 6), (3, 6)]
    assert dask_context.fromBag(rdd.toBag().filter(bool)).countByValue() == {1: 3, 2: 2, 3: 2}


@pytest.mark.parametrize("approach", ["Direct", "Export"])
def test_a_fit_from_an_rdd_is_that_from_a_bag(dask_context, approach, tmp_path):
    features, labels = make_data(120)
    sets = [sb.DataSet(features[i : i + 7], labels[i : i + 7]) for i in range(0, 120, 7)]
    trained = []
    for data in (dask_context.parallelize(sets, 3).map(lambda data: data), db.from_sequence(sets, npartitions=3)):
        network = make_network()
        master = sb.ParameterAveragingTrainingMaster(
            workers=2,
            batch_size_per_worker=10,
            rng_seed=3,
            rdd_training_approach=approach,
            export_directory=str(tmp_path),
        )
        with sb.Trainer(network, master, backend=dask_context) as trainer:
            assert trainer.fit(data, progress=False).examples == 120
            assert trainer.evaluate(data).accuracy() > 0.3
        trained.append([value.numpy() for value in network.module.state_dict().values()])
    for one, other in zip(*trained, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    assert list(tmp_path.iterdir()) == []
    assert dask_context.range(3).count() == 3  # the trainer closed nothing that was not its own


def test_pairs_are_data_and_an_rdd_comes_back_for_an_rdd(dask_context):
    features, labels = make_data(12)
    pairs = list(zip(features[:, None], labels[:, None], strict=True))
    rdd = dask_context.parallelize(pairs, 3).cache()
    with resolve(dask_context) as executor:
        assert open_source(rdd).counts(executor) == [4, 4, 4]
    with sb.Trainer(make_network(), backend=dask_context) as trainer:
        expected = trainer.predict(features)
        outputs = trainer.predict(rdd)
        assert isinstance(outputs, dl4j.RDD)
        np.testing.assert_allclose(np.concatenate(outputs.map(np.asarray).collect()), expected)
        keyed = rdd.zipWithIndex().map(lambda item: (f"row {item[1]}", item[0][0]))
        answers = trainer.feed_forward_with_key(keyed).collectAsMap()
        np.testing.assert_allclose(answers["row 7"], expected[7:8])


def test_a_context_closes_only_what_it_opened(dask_client):
    with DaskSparkContext(dask_client) as context:
        rdd = context.range(4)
    assert dask_client.status == "running"
    with pytest.raises(ExecutorError, match="was stopped"):
        rdd.count()
    own = DaskSparkContext(dask_client.scheduler.address)
    client = own.client
    assert own.range(4).sum() == 6
    own.stop()
    own.stop()
    assert client.status == "closed"
    with dask_client.as_current():
        current = DaskSparkContext()
        assert current.client is dask_client
        current.stop()
    assert dask_client.status == "running"


@pytest.mark.parametrize("client", ["local", 3])
def test_what_is_no_dask_client_is_refused(client):
    with pytest.raises(ConfigurationError, match=r"backend must be|needs a distributed"):
        DaskSparkContext(client)


def _destroyed(sc):
    value = sc.broadcast(1)
    value.destroy()
    return value


def _reads_a_sum(sc):
    total = sc.accumulator(0)
    return sc.range(3).map(lambda x: total.value).count()


@pytest.mark.parametrize(
    ("use", "kind", "message"),
    [
        (lambda sc: sc.range(3).union([1]), TypeError, "needs another RDD, got list"),
        (lambda sc: sc.range(3).repartition(2.5), ConfigurationError, "integer of at least 1, got 2.5"),
        (lambda sc: sc.parallelize([], -1), ConfigurationError, "numSlices must be"),
        (lambda sc: sc.setLogLevel("LOUD"), ConfigurationError, "must be one of ALL"),
        (lambda sc: sc.range(3).map(lambda x: sc.range(2)).count(), ConfigurationError, "must be picklable"),
        (lambda sc: sc.broadcast(threading.Lock()).value, ConfigurationError, "must be picklable"),
        (lambda sc: _destroyed(sc).value, ConfigurationError, "was destroyed"),
        (_reads_a_sum, ConfigurationError, "by the driver alone"),
        (lambda sc: dl4j.nothing, AttributeError, "has no attribute 'nothing'"),
    ],
)
def test_wrong_uses_say_what_is_right(dask_context, use, kind, message):
    with pytest.raises(kind, match=message):
        use(dask_context)


def test_every_public_name_is_documented():
    assert set(dl4j.__all__) == set(dl4j._WHERE) <= set(dir(dl4j))
    for name in dl4j.__all__:
        kind = getattr(dl4j, name)
        members = {key: value for key, value in vars(kind).items() if callable(value) and not key.startswith("_")}
        assert all(value.__doc__ for value in [kind, *members.values()]), name
