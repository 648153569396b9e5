"""An epoch that is cut off anywhere, again and again, by any numbers of workers, trains every row exactly once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from strombus.data import Source
from strombus.data.rows import Column
from strombus.masters.rounds import SourceRounds
from strombus.partitioning import repartitioners
from strombus.types import Block, Cursor
from strombus.worker.bench import Feed

EPOCH = 1


class Numbered(Source):
    """Parts of numbered rows, in blocks of three."""

    kind = "DataSet"
    transform = None

    def __init__(self, part_rows):
        self.part_rows = tuple(part_rows)
        self.columns = {"features": Column("int64", (1,))}

    def blocks(self):
        return tuple(Block(p, i, min(n, i + 3)) for p, n in enumerate(self.part_rows) for i in range(0, n, 3))

    def read(self, block):
        return {"features": sum(self.part_rows[: block.part]) + np.arange(block.start, block.stop)[:, None]}


feeds = st.builds(
    Feed,
    st.builds(Numbered, st.lists(st.integers(0, 25), min_size=1, max_size=4).filter(any)),
    batch_size=st.integers(1, 7),
    seed=st.integers(0, 50),
    last_batch=st.sampled_from(["balance", "keep"]),
    shuffle=st.booleans(),
)
plans = st.sampled_from([repartitioners[name]() for name in repartitioners])


def train(feed, repartitioner, workers, frequency, stop_after=None):
    """Take rounds as averaging does; return each minibatch as (round, rank, rows), and where the epoch stands."""
    feed = replace(feed, keep_parts=repartitioner.keeps_parts)
    rounds = SourceRounds(feed, repartitioner, workers, frequency)
    taken, cursor = [], None
    for parts in rounds.of(EPOCH):
        for part in parts:
            with feed.open(EPOCH, part.partition, part.first) as batches:
                minibatches = [[int(i) for i in next(batches).features[:, 0]] for _ in range(part.count)]
            taken += [(part.number, part.rank, rows) for rows in minibatches]
        cursor = rounds.after(EPOCH, parts[0].number)
        stop_after = None if stop_after is None else stop_after - 1
        if cursor is None or stop_after == 0:
            break
    return taken, cursor


@settings(max_examples=80, deadline=None)
@given(feed=feeds, plan=plans, workers=st.integers(1, 5), frequency=st.integers(1, 4), data=st.data())
def test_with_the_same_workers_the_minibatches_are_those_of_an_uncut_epoch(feed, plan, workers, frequency, data):
    whole, end = train(feed, plan, workers, frequency)
    assert end is None
    taken, cursor = train(feed, plan, workers, frequency, data.draw(st.integers(1, 5)))
    while cursor is not None:
        goes_on = replace(feed, cursor=Cursor.from_dict(cursor.to_dict()))
        more, cursor = train(goes_on, plan, workers, frequency, data.draw(st.integers(1, 5)))
        taken += more
    assert taken == whole


@settings(max_examples=80, deadline=None)
@given(
    feed=feeds,
    plan=plans,
    lives=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=6),
)
def test_with_any_workers_every_row_is_trained_once(feed, plan, lives):
    taken, cursor = [], None
    for workers, frequency, rounds in lives:
        more, cursor = train(replace(feed, cursor=cursor), plan, workers, frequency, rounds)
        taken += more
        if cursor is None:
            break
    else:
        taken += train(replace(feed, cursor=cursor), plan, 2, 3)[0]
    numbers = [number for number, _, _ in taken]
    assert numbers == sorted(numbers)
    assert sorted(row for _, _, rows in taken for row in rows) == list(range(feed.source.rows))


@given(feed=feeds, plan=plans, workers=st.integers(1, 4))
def test_a_cursor_counts_in_its_own_epoch_alone(feed, plan, workers):
    _, cursor = train(feed, plan, workers, 1, 1)
    goes_on = replace(feed, cursor=cursor)
    assert goes_on.order(EPOCH + 1) == feed.order(EPOCH + 1)
    assert goes_on.done(EPOCH + 1) == 0
    assert goes_on.ranges(plan, EPOCH + 1, workers) == feed.ranges(plan, EPOCH + 1, workers)
