"""Thresholds: DL4J's own traces, the bounds, and convergence of the share that is sent."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strombus.compression.thresholds import (
    AdaptiveThresholdAlgorithm,
    FixedThresholdAlgorithm,
    TargetSparsityThresholdAlgorithm,
    ThresholdState,
    mean_state,
    threshold_algorithms,
)
from strombus.errors import ConfigurationError

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "thresholds" / "traces.json").read_text())

ALGORITHMS = {
    "adaptive_default": AdaptiveThresholdAlgorithm(initial_threshold=1e-4),
    "adaptive_initial_0.01_min_1e-3_max_1e-2_decay_0.9": AdaptiveThresholdAlgorithm(
        initial_threshold=0.01, min_target_sparsity=1e-3, max_target_sparsity=1e-2, decay_rate=0.9
    ),
    "target_sparsity_default": TargetSparsityThresholdAlgorithm(initial_threshold=1e-4),
    "target_sparsity_initial_0.01_target_1e-3_decay_0.9": TargetSparsityThresholdAlgorithm(
        initial_threshold=0.01, sparsity_target=1e-3, decay_rate=0.9
    ),
    "fixed_0.002": FixedThresholdAlgorithm(threshold=0.002),
}


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_dl4js_traces(name):
    assert len(GOLDEN[name]) == 41
    for step, call in enumerate(GOLDEN[name]):
        share = 1 / 16 if call["last_was_dense"] else call["last_sparsity"]  # what DL4J takes a dense message for
        got = ALGORITHMS[name].next(ThresholdState(call["last_threshold"], share, step))
        assert got == pytest.approx(call["threshold"], rel=1e-12, abs=0)


@pytest.mark.parametrize("reduced", GOLDEN["reducers"], ids=lambda one: one["algorithm"])
def test_dl4js_reducers(reduced):
    states = [ThresholdState(tau, share, 1) for tau, share in reduced["inputs_last_threshold_and_last_sparsity"]]
    got = mean_state(states)
    assert (got.threshold, got.share) == pytest.approx(tuple(reduced["result"]), rel=1e-12)


states = st.builds(
    ThresholdState,
    st.floats(1e-9, 1e3) | st.none(),
    st.floats(0, 1) | st.none(),
    st.integers(0, 1000),
)


@given(st.lists(states, min_size=1, max_size=5), st.randoms())
def test_the_mean_depends_on_no_order_and_lies_between(found, random):
    shuffled = list(found)
    random.shuffle(shuffled)
    mean = mean_state(found)
    assert mean_state(shuffled) == mean
    known = [state.threshold for state in found if state.threshold is not None]
    if known:
        assert min(known) * (1 - 1e-12) <= mean.threshold <= max(known) * (1 + 1e-12)
    else:
        assert mean == ThresholdState()


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=300), st.sampled_from(sorted(ALGORITHMS)))
def test_a_threshold_stays_within_its_bounds_and_moves_the_right_way(shares, name):
    algorithm = ALGORITHMS[name].model_copy(update={"minimum_threshold": 1e-6, "maximum_threshold": 1.0})
    band = (
        getattr(algorithm, "min_target_sparsity", getattr(algorithm, "sparsity_target", 0.0)),
        getattr(algorithm, "max_target_sparsity", getattr(algorithm, "sparsity_target", 1.0)),
    )
    state = ThresholdState()
    for share in shares:
        threshold = algorithm.next(state)
        assert 1e-6 <= threshold <= 1.0
        if state.threshold is not None and not name.startswith("fixed"):
            assert state.share >= band[0] or threshold <= state.threshold
            assert state.share <= band[1] or threshold >= state.threshold
        state = ThresholdState(threshold, share, state.steps + 1)


@pytest.mark.parametrize("wanted", [1e-3, 1e-2])
def test_without_a_start_the_share_thins_out_to_the_target(wanted):
    rng = np.random.default_rng(0)
    algorithm = TargetSparsityThresholdAlgorithm(sparsity_target=wanted)
    state, residual, shares = ThresholdState(), np.zeros(20_000), []
    for step in range(1500):
        residual += rng.normal(0, 1e-3, residual.size) * rng.lognormal(0, 1, residual.size)
        tau = algorithm.next(state)
        if tau is None:
            assert step < 10
            tau = float(np.quantile(np.abs(residual), 1 - algorithm.share_to_estimate(state)))
        hit = np.abs(residual) >= tau
        residual[hit] -= np.sign(residual[hit]) * tau
        shares.append(hit.mean())
        state = ThresholdState(tau, float(hit.mean()), step + 1)
    assert 0.02 < np.mean(shares[:10]) < 0.08
    assert wanted / 2 < np.mean(shares[-200:]) < wanted * 2


@pytest.mark.parametrize(("elements", "low", "high"), [(1000, 0.05, 0.1), (10**6, 0.01, 0.08), (10**7, 0.005, 0.04)])
def test_without_a_start_the_threshold_stays_while_the_share_is_in_a_band(elements, low, high):
    algorithm = AdaptiveThresholdAlgorithm()
    assert algorithm.share_to_estimate(ThresholdState(elements=elements)) == pytest.approx(high)
    for steps, top in ((10, high), (1000, 2 * low)):
        for share, moves in ((0.5 * low, -1), (1.01 * low, 0), (0.99 * top, 0), (1.1 * top, 1)):
            assert np.sign(algorithm.next(ThresholdState(0.5, share, steps, elements)) - 0.5) == moves


def test_a_threshold_from_another_time_is_found_again():
    algorithm = AdaptiveThresholdAlgorithm()
    assert algorithm.next(ThresholdState(1e-9, 0.9, 500, 10**6)) is None
    assert AdaptiveThresholdAlgorithm(initial_threshold=1.0).next(ThresholdState(1e-9, 0.9, 500, 10**6)) is not None


def test_an_empty_step_lowers_the_threshold():
    algorithm = AdaptiveThresholdAlgorithm()
    assert algorithm.next(ThresholdState(1.0, 0.0, 50)) == pytest.approx(1 / 1.1)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (AdaptiveThresholdAlgorithm, {"initial_threshold": 0.0}),
        (AdaptiveThresholdAlgorithm, {"initial_threshold": -1.0}),
        (AdaptiveThresholdAlgorithm, {"min_target_sparsity": 0.1, "max_target_sparsity": 0.01}),
        (AdaptiveThresholdAlgorithm, {"decay_rate": 0.4}),
        (AdaptiveThresholdAlgorithm, {"decay_rate": 1.0}),
        (TargetSparsityThresholdAlgorithm, {"sparsity_target": 1 / 16}),
        (FixedThresholdAlgorithm, {"threshold": 0.0}),
        (FixedThresholdAlgorithm, {}),
    ],
)
def test_options_that_cannot_work_are_refused(make, options):
    with pytest.raises(ValueError, match=next(iter(options), "threshold").split("_")[0]):
        make(**options)


def test_the_table_knows_them_by_name():
    for name in threshold_algorithms:
        assert threshold_algorithms[name].name == name
    with pytest.raises(ConfigurationError, match="known: adaptive, fixed, target_sparsity"):
        threshold_algorithms["fixd"]


def test_json_has_dl4js_names():
    options = AdaptiveThresholdAlgorithm(initial_threshold=1e-4).model_dump(by_alias=True)
    assert {"initialThreshold", "minTargetSparsity", "maxTargetSparsity", "decayRate"} <= set(options)
    assert math.isclose(options["decayRate"], 0.9659363289248456)
    assert AdaptiveThresholdAlgorithm(**options) == AdaptiveThresholdAlgorithm(initial_threshold=1e-4)
