"""A mix has of each dataset its share to one row, each row at most once an epoch, whoever reads which stretch of it."""

from __future__ import annotations

import pickle
from collections import Counter
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strombus as sb
from strombus.data import ArraySource, Source, cut_order, mixing, read_batches
from strombus.data.rows import Column
from strombus.errors import ConfigurationError, DataError, EmptyDataError, StrombusWarning
from strombus.types import Block

FAR = 1000
"""Rows of dataset d are numbered from d times this."""


class Numbered(Source):
    """Parts of numbered rows in blocks of three, which are read whole or not at all."""

    kind = "DataSet"

    def __init__(self, part_rows, first=0):
        self.part_rows, self.first = tuple(part_rows), first
        self.columns = {"features": Column("int64", (1,))}

    def blocks(self):
        return tuple(Block(p, i, min(n, i + 3)) for p, n in enumerate(self.part_rows) for i in range(0, n, 3))

    def read(self, block):
        assert block in self.blocks()
        before = self.first + sum(self.part_rows[: block.part])
        return {"features": before + np.arange(block.start, block.stop)[:, None]}


def numbered(sizes):
    return [Numbered(parts, number * FAR) for number, parts in enumerate(sizes)]


def read(source, epoch, shuffle=True, stretches=None):
    """Return the rows of an epoch, read in stretches of its order as workers do."""
    order = source.order(seed=0, epoch=epoch, shuffle=shuffle)
    edges = [0, *sorted(stretches or ()), order[-1].stop]
    found = []
    for start, stop in pairwise(edges):
        piece = cut_order(order, [(start, stop)])
        reader = pickle.loads(pickle.dumps(source))
        with read_batches(reader, piece, 0, stop - start, [1] * (stop - start), seed=0, epoch=epoch, prefetch=0) as it:
            found += [int(batch.features[0, 0]) for batch in it]
    return found


@pytest.fixture(autouse=True, scope="module")
def small_windows():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixing, "_WINDOW_BYTES", 8 * 7)  # about seven rows
        yield


datasets = st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=3), min_size=1, max_size=4)
weighted = datasets.flatmap(
    lambda sizes: st.tuples(
        st.just(sizes), st.lists(st.sampled_from([0.1, 0.3, 0.7, 1.0, 5.0]), min_size=len(sizes), max_size=len(sizes))
    )
)


@pytest.mark.filterwarnings("ignore:dataset . of weight .* gives none")
@settings(max_examples=60, deadline=None)
@given(weighted, st.integers(0, 9), st.integers(0, 3), st.booleans(), st.data())
def test_shares_to_one_row_each_row_once_whoever_reads(mixed, seed, epoch, repeat, data):
    sizes, weights = mixed
    source = sb.data.mix(numbered(sizes), weights, seed=seed, repeat=repeat)
    whole = read(source, epoch)
    cuts = data.draw(
        st.sets(st.integers(1, max(1, len(whole) - 1)), max_size=3).filter(lambda c: max(c, default=0) < len(whole))
    )
    assert read(source, epoch, stretches=cuts) == whole
    counts = Counter(row // FAR for row in whole)
    total = sum(Fraction(str(weight)) for weight in weights)
    for number, weight in enumerate(weights):
        assert abs(counts[number] - len(whole) * Fraction(str(weight)) / total) < 1
        rows = sum(sizes[number])
        seen = Counter(row for row in whole if row // FAR == number)
        assert set(seen.values()) <= {counts[number] // rows, counts[number] // rows + 1}  # at most once without repeat
        assert repeat or max(seen.values(), default=0) <= 1
        assert not repeat or len(seen) == rows
    window_ends = [window.stop for window in source.order(seed=0, epoch=epoch)]
    for end in window_ends:  # evenly spread: as exact at the end of each window, but for the windows' own rounding
        for number in counts:
            part = sum(row // FAR == number for row in whole[:end])
            assert abs(part - Fraction(counts[number] * end, len(whole))) < len(sizes) + 1


def test_epochs_go_on_in_a_dataset_until_all_its_rows_had_their_turn():
    source = sb.data.mix(numbered([[10], [35, 5]]), [0.5, 0.5], seed=3)
    assert source.counts == (10, 10)
    epochs = [read(source, epoch) for epoch in range(4)]
    assert sorted(row for epoch in epochs for row in epoch if row >= FAR) == list(range(FAR, FAR + 40))
    assert all(sorted(row for row in epoch if row < FAR) == list(range(10)) for epoch in epochs)
    assert read(sb.data.mix(numbered([[10], [35, 5]]), [0.5, 0.5], seed=3), 1) == epochs[1] != epochs[0]
    assert sorted(read(sb.data.mix(numbered([[10], [35, 5]]), [0.5, 0.5], seed=4), 0)) != sorted(epochs[0])
    assert read(source, 2, shuffle=False) == epochs[0]  # as the first one, in every epoch


def test_what_cannot_be_mixed_is_said():
    two = numbered([[10], [20]])
    with pytest.raises(ConfigurationError, match=r"20 examples need 14 rows of dataset 0, which has 10.*repeat=True"):
        sb.data.mix(two, [0.7, 0.3], examples=20)
    assert sb.data.mix(two, [0.7, 0.3], examples=20, repeat=True).counts == (14, 6)
    for wrong in ([1.0], [1.0, 0.0], [1.0, float("nan")], [1.0, float("inf")]):
        with pytest.raises(ConfigurationError, match="one for each of 2 datasets"):
            sb.data.mix(two, wrong)
    with pytest.raises(DataError, match="export it first"):
        sb.data.mix([two[0], iter([np.zeros((3, 1))])], [1, 1])
    with pytest.raises(DataError, match="dataset 1 is DataSet"):
        sb.data.mix([two[0], np.zeros((3, 2))], [1, 1])
    with pytest.raises(EmptyDataError, match="dataset 1 of the mix"):
        sb.data.mix([two[0], Numbered([])], [1, 1])
    few = sb.data.examples([np.zeros(1)] * 4)
    for others in ([few, two[0]], [few, sb.data.examples([np.zeros(1)] * 4)]):
        with pytest.raises(DataError, match=r"examples cannot be mixed with other data.*export them first"):
            sb.data.mix(others, [1, 1])
    with pytest.warns(StrombusWarning, match=r"dataset 1 of weight 1e-09 gives none of the 10 rows"):
        assert sb.data.mix(two, [1, 1e-9]).counts == (10, 0)


PAIR = (np.zeros((3, 2)), np.zeros(3))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((PAIR, PAIR), {}, r"weights must be numbers .*, got \['ndarray', 'ndarray'\]: mix\(\[one, other\]"),
        (("train.zarr", [1]), {}, r"datasets must be a list, got str: mix\(\[one, other\]"),
        (([PAIR, PAIR], "ab"), {}, "weights must be a list, got str"),
        (([PAIR, PAIR], 1), {}, "weights must be a list, got int"),
        (([PAIR, PAIR], ["a", True]), {}, r"numbers above 0 .* got \['a', True\]"),
        (([PAIR], [1]), {"examples": 2.5}, "examples must be a whole number of at least 1, got 2.5"),
        (([PAIR], [1]), {"examples": 0}, "examples must be a whole number of at least 1, got 0"),
        (([PAIR], [1]), {"seed": "x"}, "seed must be a whole number of at least 0, got 'x'"),
    ],
)
def test_options_of_another_kind_are_refused(arguments, options, message):
    with pytest.raises(ConfigurationError, match=message):
        sb.data.mix(*arguments, **options)
    assert sb.data.mix([PAIR], np.ones(1), seed=np.int64(1), examples=np.int64(2)).counts == (2,)


def test_masks_and_transforms_of_some():
    plain, masked = np.zeros((6, 2, 3), np.float32), np.ones((6, 2, 3), np.float32)
    labels = np.zeros((6, 1), np.float32)
    both = sb.data.mix([sb.DataSet(plain, labels), sb.DataSet(masked, labels, np.zeros((6, 3), np.float32))], [1, 1])
    for block in both.blocks():
        found = both.read(block)
        assert (found["features_mask"] == 1 - found["features"][:, 0]).all()  # who has no mask has ones
    with_one = ArraySource(sb.DataSet(plain, labels), transform=abs)
    assert sb.data.mix([with_one, with_one], [1, 1]).transform is abs
    with pytest.raises(ConfigurationError, match="one transform"):
        sb.data.mix([with_one, (plain, labels)], [1, 1])


def test_a_mix_of_a_mix_has_the_rows_of_its_first_epoch():
    inner = sb.data.mix(numbered([[10], [40]]), [1, 1], seed=2)
    outer = sb.data.mix([inner, Numbered([20], 2 * FAR)], [1, 1])
    found = [row for epoch in range(2) for row in read(outer, epoch) if row < 2 * FAR]
    assert outer.counts == (20, 20)
    assert Counter(found) == dict.fromkeys(read(inner, 0), 2)
    assert sum(block.rows for block in outer.blocks()) == outer.rows == sum(outer.part_rows)


def test_a_mix_is_exported_row_by_row_and_scored(tmp_path):
    source = sb.data.mix(numbered([[12], [30]]), [0.3, 0.7], seed=1)
    sb.data.export(source, tmp_path / "mixed.zarr", backend="local", progress=False)
    stored = sb.data.open_dataset(tmp_path / "mixed.zarr")
    rows = np.concatenate([stored.read(block)["features"][:, 0] for block in stored.blocks()])
    assert rows.tolist() == read(source, 0)
    assert sorted(rows) == sorted(int(i) for block in source.blocks() for i in source.read(block)["features"][:, 0])
