"""Means of contributions: weighted, in float64, the same for every tree."""

from __future__ import annotations

import pickle
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strombus.executors.base import merge_plan
from strombus.types import NetworkState, UpdaterState
from strombus.worker.merging import Contribution, Summary, finish_round, merge_contributions


def contribution(seed, weight=1.0, dtype=np.float32, steps=1, tensors=("0.exp_avg",)):
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(size=4).astype(dtype) for name in tensors}
    updater = UpdaterState({**arrays, "0.step": np.asarray(steps, np.float32)}, ({"lr": 1.0 / steps},))
    buffers = {"mean": rng.normal(size=3).astype(dtype), "seen": np.asarray(seed)}
    state = NetworkState(rng.normal(size=7).astype(dtype), buffers, updater, iteration=steps)
    return Contribution(state, weight, Summary(examples=seed, minibatches=steps, iteration=steps), steps)


def fold(items, depth):
    for level in merge_plan(len(items), depth):
        items = [reduce(merge_contributions, [items[i] for i in group]) for group in level]
    return finish_round(items[0])


@settings(deadline=None, max_examples=50)
@given(
    weights=st.lists(st.floats(0.5, 64), min_size=2, max_size=9),
    depth=st.integers(1, 3),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_the_mean_is_weighted_and_keeps_the_dtype(weights, depth, dtype):
    items = [contribution(seed, weight, dtype) for seed, weight in enumerate(weights)]
    mean = fold(items, depth).state
    for got, arrays in [
        (mean.parameters, [c.state.parameters for c in items]),
        (mean.buffers["mean"], [c.state.buffers["mean"] for c in items]),
        (mean.updater.tensors["0.exp_avg"], [c.state.updater.tensors["0.exp_avg"] for c in items]),
    ]:
        expected = np.average(np.stack(arrays).astype(np.float64), axis=0, weights=weights)
        assert got.dtype == dtype
        np.testing.assert_allclose(got, expected, rtol=1e-6 if dtype == np.float32 else 1e-14, atol=1e-7)
    assert mean.buffers["seen"] == len(weights) - 1


def test_one_worker_keeps_its_values_bit_for_bit():
    alone = contribution(5, weight=0.1)
    assert finish_round(alone).state is alone.state


def test_step_counts_come_from_the_worker_with_most_steps():
    merged = fold([contribution(0, steps=2), contribution(1, steps=3), contribution(2, steps=1)], 1)
    updater = merged.state.updater
    assert float(updater.tensors["0.step"]) == 3
    assert updater.groups[0]["lr"] == pytest.approx(1 / 3)
    assert merged.state.iteration == 3
    assert (merged.summary.examples, merged.summary.minibatches, merged.summary.iteration) == (3, 6, 3)


def test_an_updater_array_that_one_side_lacks_counts_as_zeros():
    left, right = contribution(0, weight=3.0, tensors=("0.m", "1.m")), contribution(1, weight=1.0, tensors=("0.m",))
    for pair in [(left, right), (right, left)]:
        tensors = fold(list(pair), 1).state.updater.tensors
        np.testing.assert_allclose(tensors["1.m"], 0.75 * left.state.updater.tensors["1.m"], rtol=1e-6)


def test_merging_leaves_its_inputs_alone():
    left, right = contribution(0), contribution(1)
    before = left.state.parameters.copy()
    fold([left, right], 1)
    assert np.array_equal(left.state.parameters, before)


def test_the_score_is_weighted_by_counts():
    total = Summary(score_sum=4.0, count=2.0) + Summary(score_sum=1.0, count=3.0)
    assert total.score == 1.0
    assert np.isnan(Summary().score)


@pytest.mark.parametrize("count", [2, 3, 5, 9])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_bits_are_the_same_wherever_contributions_have_travelled(count, depth):
    rng = np.random.default_rng(count)
    items = [contribution(seed, float(rng.integers(1, 99)), np.float64, steps=seed + 1) for seed in range(count)]
    expected = fold(list(items), depth)
    for _ in range(5):
        level = list(items)
        for groups in merge_plan(count, depth):
            level = [reduce(merge_contributions, [level[i] for i in group]) for group in groups]
            level = [pickle.loads(pickle.dumps(item)) if rng.random() < 0.5 else item for item in level]
        found = finish_round(level[0])
        assert np.array_equal(found.state.parameters, expected.state.parameters)
        assert found.summary == expected.summary
        for name, tensor in expected.state.updater.tensors.items():
            assert np.array_equal(found.state.updater.tensors[name], tensor)
