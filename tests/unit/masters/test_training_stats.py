"""Timed phases are counted exactly, and cost nothing when they are off."""

from __future__ import annotations

import pytest
from helpers.networks import make_data, make_network

import strombus as sb
from strombus.executors.local import LocalExecutor


@pytest.fixture(scope="module")
def executor():
    with LocalExecutor(1) as executor:
        yield executor


def test_every_phase_is_counted_exactly(executor):
    # 4 workers, 5 minibatches each a round, 3 rounds: 60 fits, 12 worker rounds, 3 merged rounds.
    master = sb.ParameterAveragingTrainingMaster(
        workers=4, batch_size_per_worker=10, averaging_frequency=5, collect_training_stats=True, rng_seed=0
    )
    trainer = sb.Trainer(make_network(), master, backend=executor)
    result = trainer.fit(make_data(600), progress=False)
    stats = trainer.stats
    counts = {event.name: len(stats.values(event.name)) for event in stats.events}
    assert counts == {
        "aggregate": 3,
        "apply": 1,
        "broadcast": 2,
        "count": 1,
        "data_wait": 12 * 5 + 12,
        "epoch": 1,
        "export": 1,
        "fit": 60,
        "init": 12,
        "load": 12,
        "round": 3,
        "split": 2,
        "submit": 3,
        "train": 1,
    }
    fits = trainer.stats.values("fit")
    assert sum(event.values["examples"] for event in fits) == 600
    assert {event.rank for event in fits} == {0, 1, 2, 3}
    assert {event.rank for event in trainer.stats.values("round")} == {None}
    assert (result.minibatches, trainer.network.iteration, trainer.network.epoch) == (60, 15, 1)


def test_nothing_is_kept_when_switched_off(executor):
    master = sb.ParameterAveragingTrainingMaster(workers=2, rng_seed=0)
    trainer = sb.Trainer(make_network(), master, backend=executor)
    trainer.fit(make_data(40), progress=False)
    assert trainer.stats.keys() == ()
