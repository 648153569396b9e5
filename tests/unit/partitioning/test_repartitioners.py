"""Plans cover every row once, evenly, and repeatably."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strombus.partitioning
from strombus.errors import ConfigurationError
from strombus.partitioning import (
    DefaultRepartitioner,
    EqualRepartitioner,
    NoOpRepartitioner,
    batch_sizes,
    ranges_of,
    repartitioners,
)

PARTS = st.lists(st.integers(0, 60), max_size=12)
ALL = [*(repartitioners[name]() for name in repartitioners), DefaultRepartitioner(max_partitions=4)]


@settings(deadline=None)
@given(parts=PARTS, workers=st.integers(1, 9), batch=st.integers(1, 40), seed=st.integers(0, 99))
def test_every_row_once_in_order_and_repeatable(parts, workers, batch, seed):
    for repartitioner in ALL:
        plan = repartitioner.plan(parts, workers=workers, batch_size=batch, seed=seed)
        rows = [row for partition in plan for row in range(partition.start, partition.stop)]
        assert rows == list(range(sum(parts)))
        assert [p.rank for p in plan] == sorted(p.rank for p in plan)
        assert all(0 <= p.rank < workers and p.rows for p in plan)
        assert plan == repartitioner.plan(parts, workers=workers, batch_size=batch, seed=seed)


@settings(deadline=None)
@given(rows=st.integers(0, 500), workers=st.integers(1, 9), batch=st.integers(1, 40), seed=st.integers(0, 99))
def test_workers_get_sizes_within_one_batch(rows, workers, batch, seed):
    def per_worker(repartitioner):
        plan = repartitioner.plan([rows], workers=workers, batch_size=batch, seed=seed)
        return [p.rows for p in ranges_of(plan, workers)]

    equal, default = per_worker(EqualRepartitioner()), per_worker(DefaultRepartitioner())
    assert max(equal) - min(equal) <= 1
    assert max(default) - min(default) <= max(batch, 1)
    if rows >= workers:
        assert min(default) >= 1


def test_small_data_is_spread_over_all_workers():
    plan = EqualRepartitioner().plan([60], workers=4, batch_size=100)
    assert [p.rows for p in plan] == [15, 15, 15, 15]


@pytest.mark.parametrize(
    ("rows", "minimum", "maximum", "partitions"),
    [(1, 1, 5000, 1), (1003, 2, 5000, 502), (1003, 2, 4, 4), (1003, 8, 5000, 126), (1003, 16, 5000, 63)],
)
def test_default_makes_as_many_partitions_as_dl4j(rows, minimum, maximum, partitions):
    sizes = DefaultRepartitioner(max_partitions=maximum)._partition_rows([rows], 1, minimum, 0)
    assert len(sizes) == partitions
    assert max(sizes) - min(sizes) <= 1
    assert sum(sizes) == rows


def test_no_op_keeps_parts_whole():
    plan = NoOpRepartitioner().plan([5, 0, 7, 3], workers=2, batch_size=4)
    assert [(p.start, p.stop) for p in plan] == [(0, 5), (5, 12), (12, 15)]
    assert {p.rank for p in plan} == {0, 1}


@pytest.mark.parametrize(("option", "value"), [("workers", 0), ("batch_size", 0), ("workers", -1)])
def test_impossible_numbers_are_refused_by_name(option, value):
    with pytest.raises(ConfigurationError, match=f"{option} must be at least 1, got {value}"):
        EqualRepartitioner().plan([5], **{"workers": 1, "batch_size": 1, option: value})


def test_registry_and_folder_agree():
    folder = Path(strombus.partitioning.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "base", "batches"}
    assert files == set(repartitioners)
    for name in repartitioners:
        assert repartitioners[name].name == name


@pytest.mark.parametrize("repartitioner", ALL, ids=repr)
def test_configuration_survives_pickle_and_json(repartitioner):
    assert pickle.loads(pickle.dumps(repartitioner)) == repartitioner
    assert type(repartitioner).model_validate_json(repartitioner.model_dump_json(by_alias=True)) == repartitioner


@given(rows=st.integers(0, 300), batch=st.integers(1, 40))
def test_batches_cover_the_rows(rows, batch):
    kept, balanced = batch_sizes(rows, batch, "keep"), batch_sizes(rows, batch)
    assert sum(kept) == sum(balanced) == rows
    assert len(kept) == -(-rows // batch)
    assert len(balanced) == len(kept) - (batch == 2 and rows > 1 and rows % 2)
    assert all(0 < size <= max(batch, 3) for size in kept + balanced)
    if rows > 1 and batch > 1:
        assert 1 not in balanced
