"""Workers whose clocks are wrong: their events lie where they happened, by the driver's clock."""

from __future__ import annotations

import importlib
import sys
import time
from types import SimpleNamespace

import cloudpickle
import pytest
from helpers.networks import make_data, make_network
from hypothesis import given
from hypothesis import strategies as st

import strombus as sb
from strombus.stats import TrainingStats
from strombus.types import ClockBounds

cloudpickle.register_pickle_by_value(sys.modules[__name__])

OFFSETS = st.floats(-1e6, 1e6)
DELAYS = st.floats(0, 1)


@given(OFFSETS, st.lists(st.tuples(st.floats(0, 1e6), DELAYS, DELAYS), min_size=1, max_size=5))
def test_the_offset_is_found_to_within_its_error(offset, trips):
    bounds = ClockBounds()
    for sent, there, back in trips:
        trip = ClockBounds.of_round_trip(sent, sent + there - offset, sent + there + back)
        bounds = bounds.narrowed(trip)
    tolerance = 1e-8
    assert abs(bounds.offset - offset) <= bounds.error + tolerance
    assert bounds.error <= min(there + back for _, there, back in trips) + tolerance


def test_clocks_that_may_agree_are_left_alone():
    assert ClockBounds(-0.02, 0.01).offset == 0
    assert ClockBounds().offset == 0
    assert ClockBounds(most=-4.0).offset == -4
    assert ClockBounds(least=4.0).offset == 4


def test_one_way_bounds_follow_from_a_rounds_limits():
    timings = TrainingStats()
    timings.record("fit", 0, "far:1", 1000.0, 2.0, {})
    timings.bound_clocks(10.0, 13.0)
    stats = TrainingStats()
    stats.merge(timings)
    assert stats.clocks["far:1"] == ClockBounds(-990.0, -989.0)
    assert stats.values("fit")[0].started == 10.5


MODULES = ("strombus.executors.members", "strombus.stats.recorder", "strombus.worker.clock")


def set_clock(ahead):
    """Let all of Strombus's time stamps in this process be `ahead` seconds ahead."""
    others = {name: getattr(time, name) for name in ("perf_counter", "monotonic", "sleep")}
    clock = SimpleNamespace(time=lambda: time.time() + ahead, **others) if ahead else time
    for name in MODULES:
        importlib.import_module(name).time = clock


@pytest.fixture
def skewed_worker(dask_client):
    """Name a worker whose clock is an hour ahead."""
    address = min(dask_client.scheduler_info()["workers"])
    dask_client.run(set_clock, 3600.0, workers=[address])
    yield
    dask_client.run(set_clock, 0.0, workers=[address])


@pytest.mark.dask
@pytest.mark.usefixtures("skewed_worker")
@pytest.mark.parametrize("kind", [sb.ParameterAveragingTrainingMaster, sb.SharedTrainingMaster])
def test_events_of_a_worker_whose_clock_is_wrong_lie_within_the_fit(dask_client, kind):
    master = kind(workers=2, batch_size_per_worker=4, rng_seed=0, collect_training_stats=True)
    trainer = sb.Trainer(make_network(), master, dask_client)
    stats = trainer.fit(make_data(80), progress=False).stats
    (train,) = stats.values("train")
    fits = stats.values("fit")
    assert {event.rank for event in fits} == {0, 1}
    for event in fits:
        assert train.started - 0.5 < event.started
        assert event.started + event.seconds < train.started + train.seconds + 0.5
    offsets = sorted(stats.clocks[host].offset for host in {event.host for event in fits})
    assert offsets[0] == pytest.approx(-3600, abs=0.5)
    assert offsets[1] == 0
    assert all(stats.clocks[host].error < 0.5 for host in {event.host for event in fits})
