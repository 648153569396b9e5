"""An epoch's order takes every row once, depends on nothing but (blocks, seed, epoch), and mixes within windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strombus.data.order import Window, cut_order, epoch_order, stretches, window_rows
from strombus.errors import ConfigurationError
from strombus.types import Block


def make_blocks(part_rows: list[int], step: int) -> list[Block]:
    return [Block(p, i, min(n, i + step)) for p, n in enumerate(part_rows) for i in range(0, n, step)]


def row_ids(order: tuple[Window, ...], seed: int, epoch: int, shuffle: bool) -> list[tuple[int, int]]:
    """Spell the order out, the slow way."""
    found = []
    for window in order:
        natural = [(block.part, row) for block in window.blocks for row in range(block.start, block.stop)]
        found += [natural[i] for i in window_rows(window, seed, epoch, shuffle)]
    return found


@settings(max_examples=60, deadline=None)
@given(
    part_rows=st.lists(st.integers(0, 40), max_size=6),
    step=st.integers(1, 12),
    window=st.integers(1, 5),
    shuffle=st.booleans(),
    keep_parts=st.booleans(),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 5),
)
def test_every_row_exactly_once(part_rows, step, window, shuffle, keep_parts, seed, epoch):
    order = epoch_order(
        make_blocks(part_rows, step), seed=seed, epoch=epoch, shuffle=shuffle, window=window, keep_parts=keep_parts
    )
    found = row_ids(order, seed, epoch, shuffle)
    everything = [(p, row) for p, n in enumerate(part_rows) for row in range(n)]
    assert sorted(found) == everything
    assert [w.start for w in order] == list(np.cumsum([0, *[w.rows for w in order]])[: len(order)])
    if not shuffle:
        assert found == everything
    if keep_parts:
        runs = [part for i, (part, _) in enumerate(found) if i == 0 or found[i - 1][0] != part]
        assert len(runs) == len(set(runs))
        assert all(len({b.part for b in w.blocks}) == 1 for w in order)


def test_order_repeats_and_differs_between_epochs_and_seeds():
    blocks = make_blocks([100, 100], 10)
    first = row_ids(epoch_order(blocks, seed=3, epoch=0), 3, 0, True)
    assert first == row_ids(epoch_order(blocks, seed=3, epoch=0), 3, 0, True)
    assert first != row_ids(epoch_order(blocks, seed=3, epoch=1), 3, 1, True)
    assert first != row_ids(epoch_order(blocks, seed=4, epoch=0), 4, 0, True)


def test_windows_and_blocks_are_permuted_independently():
    window = Window(0, 0, (Block(0, 0, 64),))
    other = Window(1, 0, (Block(0, 0, 64),))
    assert window_rows(window, 0, 0).tolist() != window_rows(other, 0, 0).tolist()
    blocks = make_blocks([64], 1)
    by_block = [b.start for w in epoch_order(blocks, seed=0, epoch=0, window=64) for b in w.blocks]
    assert by_block != window_rows(window, 0, 0).tolist()


@pytest.mark.parametrize("wrong", [{"window": 0}, {"seed": -1}, {"epoch": -1}])
def test_refuses_impossible_options(wrong):
    with pytest.raises(ConfigurationError, match="at least"):
        epoch_order([], **{"seed": 0, "epoch": 0, **wrong})


spans_of_rows = st.lists(st.integers(0, 60), unique=True, max_size=8).map(
    lambda points: list(zip(sorted(points)[::2], sorted(points)[1::2], strict=False))
)


@settings(max_examples=60, deadline=None)
@given(
    part_rows=st.lists(st.integers(0, 30), max_size=4),
    spans=spans_of_rows,
    shuffle=st.booleans(),
    keep_parts=st.booleans(),
    epoch=st.integers(0, 3),
    data=st.data(),
)
def test_a_cut_order_has_the_rows_of_its_spans(part_rows, spans, shuffle, keep_parts, epoch, data):
    whole = epoch_order(
        make_blocks(part_rows, 4), seed=2, epoch=epoch, shuffle=shuffle, window=2, keep_parts=keep_parts
    )
    rows = row_ids(whole, 2, epoch, shuffle)
    spans = data.draw(st.permutations(spans))
    cut = cut_order(whole, spans)
    expected = [row for low, high in spans for row in rows[low:high]]
    assert row_ids(cut, 2, epoch, shuffle) == expected
    assert [w.start for w in cut] == list(np.cumsum([0, *[w.rows for w in cut]])[: len(cut)])
    # A stretch of what was cut, cut once more from the whole, is that stretch.
    low, high = sorted(data.draw(st.tuples(*[st.integers(0, len(expected))] * 2)))
    inside = [(low, min(high, sum(w.rows for w in whole))) for low, high in spans]
    again = cut_order(whole, stretches([span for span in inside if span[0] < span[1]], low, high))
    assert row_ids(again, 2, epoch, shuffle) == expected[low:high]
