"""An epoch of a stream that is cut off anywhere, by members that are steps apart, is trained whole and once."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from strombus.data import DataSet, StreamSource, look_at, stream
from strombus.partitioning import EqualRepartitioner
from strombus.types import Cursor, EpochLength
from strombus.worker.streaming import StreamFeed

ROWS, EPOCH = 23, 2


def make_rows(sizes):
    """Yield rows 0 to 22 in objects of these sizes."""
    at = 0
    for size in sizes:
        yield DataSet(np.arange(at, min(at + size, ROWS))[:, None])
        at += size


@settings(max_examples=80, deadline=None)
@given(
    batch_size=st.integers(1, 4),
    steps=st.integers(1, 6),
    cuts=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=4), max_size=4),
    sizes=st.lists(st.integers(1, 9), min_size=ROWS, max_size=ROWS),
    last_batch=st.sampled_from(["keep", "balance"]),
)
def test_every_row_once_by_any_numbers_of_workers(batch_size, steps, cuts, sizes, last_batch):
    made = stream(lambda: make_rows(sizes))
    layout, sharded = look_at(made, 1)
    workers = len(cuts[0]) if cuts else 2
    length = EpochLength(steps * batch_size * workers, workers, began=1)
    source = StreamSource(made, layout, sharded, length.rows)
    cursor, trained = None, []
    for taken in [*cuts, None]:
        count = workers if taken is None else len(taken)
        feed = StreamFeed(source, batch_size, 0, last_batch=last_batch, cursor=cursor, length=length, workers=count)
        ranges = feed.ranges(EqualRepartitioner(), EPOCH, count)
        left = []
        for part in ranges:
            planned = feed.sizes(part.rows)
            number = len(planned) if taken is None else min(taken[part.rank], len(planned))
            with feed.open(EPOCH, part, 0) as batches:
                got = [next(batches).features[:, 0].tolist() for _ in range(number)]
            assert [len(rows) for rows in got] == planned[:number]
            trained += [row for rows in got for row in rows]
            left.append(feed.rest(part, EPOCH, number))
        if cursor is None and taken is None:  # nobody has cut it off: each worker has so many whole minibatches
            assert {tuple(feed.sizes(part.rows)) for part in ranges} == {(batch_size,) * steps}
        if not any(left):
            break
        cursor = Cursor(EPOCH, 1, count, tuple(left))
    first = (EPOCH - 1) * length.rows
    assert sorted(trained) == sorted(row % ROWS for row in range(first, first + length.rows))
