"""Shared training that was cut off, or lost a member, goes on from what the members have written."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from helpers.hooks import SeenRows
from helpers.networks import make_batch_norm, make_data, make_network

import strombus as sb
from strombus import CheckpointConfig
from strombus.errors import ConfigurationError, GangError, MemberLost
from strombus.executors.local import LocalExecutor
from strombus.runs import CheckpointStore
from strombus.testing.faults import Fault, inject
from strombus.worker.saving import Cuts, MemberRecord

cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROWS, EPOCHS = 67, 3
EVERY_THIRD = CheckpointConfig(every="3steps", max_share=1)


def data_of():
    """Rows whose first feature numbers them."""
    features, labels = make_data(ROWS)
    features[:, 0] = np.arange(ROWS)
    return features, labels


class Breaks(sb.TrainingHook):
    """Fail, or die, once: in the step of this number of the last member's."""

    def __init__(self, folder, step, dies=False):
        self.marker, self.step, self.dies = Path(folder) / f"broken-{step}", step, dies

    def pre_update(self, batch, replica):
        if replica.iteration == self.step and not self.marker.exists():
            self.marker.touch()
            if self.dies:
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("broken on purpose")


def fit(backend, path, breaks=(), *, seen=None, optimizer="momentum", data=None, checkpoint=EVERY_THIRD, **options):
    """Fit with a name; return the network and the result."""
    hooks = [Breaks(path, step) for step in breaks] if not isinstance(breaks, Breaks) else [breaks]
    defaults = {"workers": 2, "batch_size_per_worker": 4, "rng_seed": 7, "max_staleness": 0, "timeout": 60}
    master = sb.SharedTrainingMaster(
        training_hooks=[*hooks, *([] if seen is None else [seen])], **{**defaults, **options}
    )
    network = make_network(optimizer, make_batch_norm)
    with sb.Trainer(network, master, backend=backend) as trainer:
        result = trainer.fit(
            data or data_of(),
            EPOCHS,
            make_data(30, 5),
            progress=False,
            name="one",
            storage_path=path,
            checkpoint=checkpoint,
            accept_changes=True,  # the hooks of a test differ
        )
    return network, result


def check_same(found, expected):
    """Compare parameters, buffers, optimizer and counts, bit for bit."""
    (network, result), (wanted, wanted_result) = found, expected
    state, other = network.state(), wanted.state()
    np.testing.assert_array_equal(state.parameters, other.parameters)
    for name, array in other.buffers.items():
        np.testing.assert_array_equal(state.buffers[name], array, err_msg=name)
    for name, array in other.updater.tensors.items():
        np.testing.assert_array_equal(state.updater.tensors[name], array, err_msg=name)
    assert (state.iteration, network.epoch) == (other.iteration, wanted.epoch)
    assert (result.examples, result.minibatches) == (wanted_result.examples, wanted_result.minibatches)
    figures = [
        [(one.iteration, one.examples, dict(one.validation)) for one in r.epochs] for r in (result, wanted_result)
    ]
    assert figures[0] == figures[1]


@pytest.mark.filterwarnings("ignore:the run 'one' goes on with")
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_cut_off_and_run_again(backend, local_executors, tmp_path, optimizer):
    """Twice within an epoch, once in another: batch norm, dropout, residuals, optimizers as if nothing had been."""
    members = 1 if backend is local_executors[1] else 2
    steps = (5, 7, 13) if members == 2 else (8, 12, 22)
    for step in steps:
        with pytest.raises(GangError, match="broken on purpose"):
            fit(backend, tmp_path, [step], optimizer=optimizer, workers=members)
    found = fit(backend, tmp_path, optimizer=optimizer, workers=members)
    (tmp_path / "uncut").mkdir()
    check_same(found, fit(backend, tmp_path / "uncut", optimizer=optimizer, workers=members))


@pytest.mark.filterwarnings("ignore:the run 'one' goes on with")
@pytest.mark.parametrize("combine", ["mean", "sum"])
def test_with_other_members(local_executors, tmp_path, combine):
    options = {"combine": combine, "updates_threshold": 0.05, "max_staleness": 4}
    with pytest.raises(GangError, match="broken on purpose"):
        fit(local_executors[2], tmp_path, [13], **options)
    latest = next(CheckpointStore(str(tmp_path / "one")).whole())
    cursor = latest.state["cursor"]
    left = sum(stop - start for spans in cursor["left"] for start, stop in spans)
    assert (cursor["epoch"], cursor["workers"], latest.state["examples"]) == (1, 2, ROWS - left)
    assert 0 < left < ROWS
    seen = SeenRows()
    _, result = fit(local_executors[1], tmp_path, seen=seen, workers=1, **options)
    counts = Counter(row for _, row in seen.rows)
    assert set(counts) == set(range(ROWS))  # of the last epoch
    assert sum(count - 1 for count in counts.values()) == left
    assert max(counts.values()) == 2
    assert [record.examples for record in result.epochs] == [ROWS] * EPOCHS
    assert result.examples == ROWS * EPOCHS


@pytest.mark.filterwarnings("ignore:the run 'one' goes on with")
@pytest.mark.dask
def test_from_an_engines_memory(dask_client, tmp_path):
    import dask.bag

    features, labels = data_of()
    objects = [sb.DataSet(features[a : a + 7], labels[a : a + 7]) for a in range(0, ROWS, 7)]
    options = {"rdd_training_approach": "Direct", "data": dask.bag.from_sequence(objects, npartitions=3)}
    with pytest.raises(GangError, match="broken on purpose"):
        fit(dask_client, tmp_path, [13], **options)
    found = fit(dask_client, tmp_path, **options)
    (tmp_path / "uncut").mkdir()
    check_same(found, fit(dask_client, tmp_path / "uncut", **options))


# -- a member that is lost -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair():
    """Processes that nobody else needs."""
    with LocalExecutor(2) as executor:
        yield executor


@pytest.mark.parametrize("checkpoint", [EVERY_THIRD, CheckpointConfig(), CheckpointConfig(every="9epochs")])
def test_a_lost_member_costs_an_attempt(pair, tmp_path, checkpoint):
    """Within an epoch, from an epoch's start, or from what the fit began with."""
    found = fit(pair, tmp_path, Breaks(tmp_path, 13, dies=True), max_failures=1, checkpoint=checkpoint)
    (tmp_path / "uncut").mkdir()
    check_same(found, fit(pair, tmp_path / "uncut", checkpoint=checkpoint))
    assert len(found[1].failures) == 1
    assert "was lost" in found[1].failures[0]
    assert json.loads((tmp_path / "one" / "result.json").read_text())["failures"] == list(found[1].failures)


def test_a_member_lost_after_the_last_step_costs_none(pair, tmp_path):
    """What the members wrote at the end is joined: parameters, and the mean of their optimizers."""
    with inject(pair, Fault(1, "result", "kill"), gangs=1):
        found = fit(pair, tmp_path, max_failures=1, checkpoint=CheckpointConfig())
    (tmp_path / "uncut").mkdir()
    check_same(found, fit(pair, tmp_path / "uncut", checkpoint=CheckpointConfig()))
    assert len(found[1].failures) == 1


def test_a_member_that_fails_by_itself_is_not_tried_again(local_executors, tmp_path):
    with pytest.raises(GangError, match="broken on purpose") as caught:
        fit(local_executors[2], tmp_path, [4], max_failures=3)
    assert not isinstance(caught.value, MemberLost)


def test_failures_are_counted(pair, tmp_path):
    class AlwaysDies(Breaks):
        def pre_update(self, batch, replica):
            if replica.iteration == self.step:
                os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(MemberLost, match="was lost"):
        fit(pair, tmp_path, AlwaysDies(tmp_path, 4), max_failures=1)


def test_failures_need_a_name(local_executors):
    master = sb.SharedTrainingMaster(workers=1, max_failures=1)
    trainer = sb.Trainer(make_network(), master, local_executors[1])
    with pytest.raises(ConfigurationError, match="give the fit a name"):
        trainer.fit(make_data(20), progress=False)


# -- parts ---------------------------------------------------------------------------------------


def test_meetings_are_as_far_apart_as_asked():
    cuts = Cuts(CheckpointConfig(every="200steps").interval, 1.0, 0)
    assert cuts.first() == 200
    assert cuts.cut(150, 0, True) == (False, 50)  # an epoch of 150 steps: the rest is the next one's
    cuts.go_on(0.0, False)
    assert cuts.cut(50, 1, False) == (True, 200)


def test_epochs_are_counted_from_the_fits_first():
    cuts = Cuts(CheckpointConfig(every="2epochs").interval, 0.05, 3)
    assert [cuts.cut(9, epoch, True)[0] for epoch in range(3, 7)] == [False, True, False, True]
    assert not cuts.cut(9, 4, False)[0]


@pytest.mark.parametrize("cut", [0, 7, 100, -1])
def test_a_damaged_member_file_is_one(tmp_path, local_executors, cut):
    fit(local_executors[1], tmp_path, workers=1)
    latest = next(CheckpointStore(str(tmp_path / "one")).whole())
    (name,) = latest.state["members"]
    data = latest.read(name)
    again = MemberRecord.unpack(MemberRecord.unpack(data, name).pack(), name)
    np.testing.assert_array_equal(again.random, MemberRecord.unpack(data, name).random)
    with pytest.raises(sb.errors.DataError, match="is no member's state"):
        MemberRecord.unpack(data[:cut], name)
