"""Timed phases are counted exactly, whatever runs them, and cost nothing when they are off."""

from __future__ import annotations

import pytest
from helpers.hooks import SlowSteps
from helpers.networks import make_data, make_network

import strombus as sb
from strombus.stats.groups import divide

BACKENDS = ["local-1", "local-2", pytest.param("dask", marks=pytest.mark.dask)]


@pytest.fixture
def backend(request, local_executors):
    if request.param == "dask":
        return request.getfixturevalue("dask_client")
    return local_executors[int(request.param[-1])]


def counts(stats):
    return {key: stats.totals(key).count for key in stats.keys()}  # noqa: SIM118 - no mapping


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
def test_every_phase_of_averaging_is_counted_exactly(backend):
    # 4 workers, 5 minibatches each a round, 3 rounds: 60 fits, 12 worker rounds, 3 merged rounds.
    master = sb.ParameterAveragingTrainingMaster(
        workers=4, batch_size_per_worker=10, averaging_frequency=5, rng_seed=0, collect_training_stats=True
    )
    trainer = sb.Trainer(make_network(), master, backend=backend)
    result = trainer.fit(make_data(600), validation=make_data(30), progress=False)
    stats = trainer.stats
    assert counts(stats) == {
        "aggregate": 3,
        "apply": 1,
        "broadcast": 2,
        "count": 1,
        "data_wait": 12 * 5 + 12,
        "epoch": 1,
        "export": 2,
        "fit": 60,
        "init": 12,
        "load": 12,
        "round": 3,
        "split": 2,
        "submit": 3,
        "train": 1,
        "validate": 1,
    }
    assert stats.totals("fit").figures["examples"] == 600
    for phase in ("fit", "load", "init", "data_wait"):
        assert {event.rank for event in stats.values(phase)} == {0, 1, 2, 3}
    for phase in ("round", "submit", "epoch", "validate"):
        assert {event.rank for event in stats.values(phase)} == {None}
    (epoch,) = stats.values("epoch")
    assert epoch.values["score"] == result.score
    assert epoch.values["validation"] == dict(result.epochs[0].validation)
    assert (result.minibatches, trainer.network.iteration, trainer.network.epoch) == (60, 15, 1)
    assert (stats.about["master"], stats.about["workers"]) == ("parameter_averaging", 4)


@pytest.mark.parametrize(
    ("backend", "members"),
    [("local-1", 1), ("local-2", 2), pytest.param("dask", 2, marks=pytest.mark.dask)],
    indirect=["backend"],
)
def test_every_phase_of_sharing_is_counted_exactly(backend, members):
    master = sb.SharedTrainingMaster(
        workers=members, batch_size_per_worker=4, rng_seed=0, collect_training_stats=True, timeout=60
    )
    trainer = sb.Trainer(make_network(), master, backend=backend)
    result = trainer.fit(make_data(48), epochs=2, validation=make_data(20), progress=False)
    stats, steps = trainer.stats, 2 * 48 // 4
    assert result.minibatches == steps
    assert counts(stats) == {
        **dict.fromkeys(("broadcast", "count", "gang", "train"), 1),
        **dict.fromkeys(("init", "warm_up", "connect", "settle"), members),
        **dict.fromkeys(("data_wait", "fit", "encode", "exchange"), steps),
        **dict.fromkeys(("epoch_end", "validate"), 2 * members),
        "epoch": 2,
        "export": 2,
        "split": 1 + 2 * members,
    }
    assert stats.totals("fit").figures["examples"] == 96
    encoded = stats.values("encode")
    assert {event.rank for event in encoded} == set(range(members))
    assert all(event.values["tau"] > 0 and 0 < event.values["share"] <= 1 for event in encoded)
    assert (stats.totals("encode").figures["bytes"] > 0) is (members > 1)
    assert all(0 < event.values["loss"] < 5 for event in stats.values("fit"))


@pytest.mark.parametrize("backend", ["local-1"], indirect=True)
@pytest.mark.parametrize("kind", [sb.ParameterAveragingTrainingMaster, sb.SharedTrainingMaster])
def test_the_time_in_hooks_is_a_phase_of_its_own(backend, kind):
    master = kind(
        workers=1,
        batch_size_per_worker=8,
        rng_seed=0,
        collect_training_stats=True,
        training_hooks=[SlowSteps(), SlowSteps()],
    )
    stats = sb.Trainer(make_network(), master, backend=backend).fit(make_data(40), progress=False).stats
    assert stats.totals("hook").count == 2 * stats.totals("fit").count == 10  # before and after each update
    after = [event.seconds for event in stats.values("hook")][1::2]
    assert all(seconds >= 0.04 for seconds in after)
    assert divide(stats).shares["hooks"] > divide(stats).shares["computing"] > 0


@pytest.mark.parametrize("backend", ["local-1"], indirect=True)
def test_statistics_of_several_fits_add_up(backend):
    master = sb.ParameterAveragingTrainingMaster(workers=1, rng_seed=0, collect_training_stats=True)
    trainer = sb.Trainer(make_network(), master, backend=backend)
    for _ in range(2):
        assert trainer.fit(make_data(32), progress=False).stats.totals("fit").count == 2
    assert trainer.stats.totals("fit").count == 4
    assert trainer.stats.totals("fit").figures["examples"] == 64


@pytest.mark.parametrize("backend", ["local-1"], indirect=True)
@pytest.mark.parametrize("kind", [sb.ParameterAveragingTrainingMaster, sb.SharedTrainingMaster])
def test_nothing_is_kept_when_switched_off(backend, kind):
    trainer = sb.Trainer(make_network(), kind(workers=1, rng_seed=0), backend=backend)
    trainer.fit(make_data(40), progress=False)
    assert trainer.stats.keys() == ()
    assert trainer.stats.about == {}
