"""Minibatches carry exactly the rows of the order, threads end, errors arrive."""

from __future__ import annotations

import gc
import threading
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strombus.data import ArraySource, Source, epoch_order, read_batches
from strombus.data.rows import Column
from strombus.errors import ConfigurationError, DataError
from strombus.types import Block, DataSet


class Numbered(Source):
    """Parts of numbered rows, in blocks of `step`; counts its reads."""

    kind = "DataSet"

    def __init__(self, part_rows, step=4, fail_at=None, delay=0.0, transform=None):
        self.part_rows = tuple(part_rows)
        self.columns = {"features": Column("int64", (3,)), "labels": Column("int64", ())}
        self.step, self.fail_at, self.delay, self.transform = step, fail_at, delay, transform
        self.reads = []

    def blocks(self):
        return tuple(
            Block(p, i, min(n, i + self.step)) for p, n in enumerate(self.part_rows) for i in range(0, n, self.step)
        )

    def read(self, block):
        self.reads.append(block)
        if self.fail_at is not None and len(self.reads) > self.fail_at:
            raise DataError("the disk is gone")
        time.sleep(self.delay)
        ids = sum(self.part_rows[: block.part]) + np.arange(block.start, block.stop)
        return {"features": np.stack([ids] * 3, axis=1), "labels": ids}


def reader_threads():
    return [thread for thread in threading.enumerate() if thread.name == "strombus-reader"]


def read_ids(source, start, stop, sizes, *, prefetch=0, shuffle=True, **order):
    made = epoch_order(source.blocks(), seed=1, epoch=2, shuffle=shuffle, **order)
    with read_batches(source, made, start, stop, sizes, seed=1, epoch=2, shuffle=shuffle, prefetch=prefetch) as batches:
        read = list(batches)
    assert all((b.features == b.labels[:, None]).all() for b in read)
    assert [b.examples for b in read] == list(sizes)
    return [int(i) for b in read for i in b.labels]


@settings(max_examples=40, deadline=None)
@given(
    part_rows=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    step=st.integers(1, 9),
    window=st.integers(1, 4),
    cuts=st.lists(st.floats(0, 1), max_size=3),
    size=st.integers(1, 20),
    shuffle=st.booleans(),
    prefetch=st.integers(0, 2),
)
def test_spans_partition_the_rows(part_rows, step, window, cuts, size, shuffle, prefetch):
    source = Numbered(part_rows, step)
    ends = [0, *sorted(int(cut * source.rows) for cut in cuts), source.rows]
    found = []
    for start, stop in pairwise(ends):
        full, rest = divmod(stop - start, size)
        sizes = [size] * full + [rest] * bool(rest)
        found += read_ids(source, start, stop, sizes, prefetch=prefetch, shuffle=shuffle, window=window)
    assert sorted(found) == list(range(source.rows))
    assert found == read_ids(source, 0, source.rows, [source.rows] * bool(source.rows), shuffle=shuffle, window=window)
    if not shuffle:
        assert found == list(range(source.rows))


def test_each_block_is_read_once_and_only_where_wanted():
    source = Numbered([40, 40], step=10)
    read_ids(source, 0, 80, [16] * 5, prefetch=2, window=3)
    assert sorted(source.reads, key=str) == sorted(source.blocks(), key=str)
    source.reads.clear()
    read_ids(source, 12, 18, [6], shuffle=False)
    assert source.reads == [Block(0, 10, 20)]


def test_minibatches_never_share_memory_with_the_source():
    data = DataSet(np.arange(12.0).reshape(6, 2), np.arange(6))
    source = ArraySource(data)
    order = epoch_order(source.blocks(), seed=0, epoch=0, shuffle=False)
    for batch in read_batches(source, order, 0, 6, [4, 2], seed=0, epoch=0, shuffle=False):
        batch.features[:] = -1
    assert data.features.min() == 0


def test_the_thread_works_ahead_into_the_next_window():
    source = Numbered([100], step=10)
    order = epoch_order(source.blocks(), seed=0, epoch=0, window=2)
    with read_batches(source, order, 0, 100, [5] * 20, seed=0, epoch=0, prefetch=1) as batches:
        next(batches)
        deadline = time.monotonic() + 10
        while len(source.reads) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert len(source.reads) == 4  # this window and the next, and no further


def test_transform_runs_for_each_minibatch_in_the_thread():
    seen = []

    def widen(batch):
        seen.append(threading.current_thread().name)
        return DataSet(batch.features.astype(np.float32) / 255, batch.labels)

    source = Numbered([10], transform=widen)
    order = epoch_order(source.blocks(), seed=0, epoch=0)
    with read_batches(source, order, 0, 10, [5, 5], seed=0, epoch=0) as batches:
        assert [b.features.dtype for b in batches] == [np.float32] * 2
    assert seen == ["strombus-reader"] * 2


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize("transform", [lambda batch: batch[:1], lambda batch: 3])
def test_a_transform_that_loses_rows_is_refused(transform, prefetch):
    source = Numbered([10], transform=transform)
    order = epoch_order(source.blocks(), seed=0, epoch=0)
    with (
        pytest.raises(DataError, match="a transform must return"),
        read_batches(source, order, 0, 10, [10], seed=0, epoch=0, prefetch=prefetch) as batches,
    ):
        next(batches)


@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_an_error_comes_out_of_next_after_the_rows_before_it(prefetch):
    source = Numbered([40], step=4, fail_at=5)
    order = epoch_order(source.blocks(), seed=0, epoch=0, shuffle=False)
    read = []
    batches = read_batches(source, order, 0, 40, [4] * 10, seed=0, epoch=0, shuffle=False, prefetch=prefetch)
    with pytest.raises(DataError, match="the disk is gone"), batches:
        read.extend(label for batch in batches for label in batch.labels)
    assert read == list(range(20))
    assert not reader_threads()


def test_no_thread_is_left_behind():
    source = Numbered([1000], step=10, delay=0.001)
    order = epoch_order(source.blocks(), seed=0, epoch=0)

    def reader(prefetch=2):
        return read_batches(source, order, 0, 1000, [10] * 100, seed=0, epoch=0, prefetch=prefetch)

    with reader() as batches:
        next(batches)
    assert not reader_threads()
    with pytest.raises(KeyError), reader() as batches:
        raise KeyError
    assert not reader_threads()
    list(reader())
    assert not reader_threads()
    forgotten = reader()
    next(forgotten)
    del forgotten
    gc.collect()
    deadline = time.monotonic() + 10
    while reader_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not reader_threads()


def test_closing_is_prompt_and_ends_the_iteration():
    source = Numbered([1000], step=10, delay=0.01)
    order = epoch_order(source.blocks(), seed=0, epoch=0)
    batches = read_batches(source, order, 0, 1000, [10] * 100, seed=0, epoch=0)
    next(batches)
    started = time.monotonic()
    batches.close()
    batches.close()
    assert time.monotonic() - started < 2
    assert list(batches) == []


def test_a_storage_that_hangs_is_reported():
    source = Numbered([10], delay=1.0)
    order = epoch_order(source.blocks(), seed=0, epoch=0)
    with (
        pytest.raises(DataError, match=r"within 0\.1 s"),
        read_batches(source, order, 0, 10, [10], seed=0, epoch=0, timeout=0.1) as batches,
    ):
        next(batches)


@pytest.mark.parametrize(
    ("start", "stop", "sizes", "prefetch"),
    [(0, 11, [11], 1), (5, 4, [], 1), (0, 10, [4, 4], 1), (0, 4, [4, 0], 1), (0, 4, [4], -1)],
)
def test_refuses_spans_and_sizes_that_do_not_fit(start, stop, sizes, prefetch):
    source = Numbered([10])
    order = epoch_order(source.blocks(), seed=0, epoch=0)
    with pytest.raises(ConfigurationError, match="add up"):
        read_batches(source, order, start, stop, sizes, seed=0, epoch=0, prefetch=prefetch)
