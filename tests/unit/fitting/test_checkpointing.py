"""What a fit with a name writes and finds again: snapshots, what is due, what is kept, disks that cannot be written."""

from __future__ import annotations

import json
import math
import re
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.disks import small_disk
from helpers.networks import make_data, make_network
from hypothesis import given
from hypothesis import strategies as st

import strombus as sb
from strombus.callbacks import EpochRecord
from strombus.errors import ConfigurationError, DataError, RunError, StrombusWarning
from strombus.executors.local import LocalExecutor
from strombus.fitting.checkpointing import Keeper, Snapshot
from strombus.fitting.settings import differences
from strombus.runs import CheckpointConfig, open_run
from strombus.types import Cursor

counts = st.integers(0, 2**40)
numbers = st.floats() | st.integers(-3, 3).map(float)
records = st.builds(
    EpochRecord,
    counts,
    counts,
    counts,
    counts,
    numbers,
    st.floats(0, 1e6),
    st.dictionaries(st.sampled_from(["score", "accuracy"]), numbers),
)
snapshots = st.builds(
    Snapshot,
    st.builds(Cursor, counts, counts, counts),
    counts,
    counts,
    counts,
    st.tuples(counts, counts),
    st.floats(0, 1e9),
    st.lists(records, max_size=3).map(tuple),
)


def plain(snapshot):
    """Return a form in which NaN equals NaN."""
    return repr(snapshot) + repr(snapshot.records)


@given(snapshots)
def test_a_snapshot_comes_back_from_json(snapshot):
    text = json.dumps(snapshot.to_dict(), allow_nan=False)
    assert plain(Snapshot.from_dict(json.loads(text))) == plain(snapshot)


@pytest.mark.parametrize("name", ["cursor", "iteration", "examples", "minibatches", "trained", "seconds", "records"])
@pytest.mark.parametrize("value", [None, "x", [1, 2, 3], [{}], {"a": 1}])
def test_a_damaged_snapshot_is_refused(name, value):
    values = Snapshot(Cursor(1), 3).to_dict()
    with pytest.raises(DataError, match=r"damaged|no place"):
        Snapshot.from_dict({**values, name: value})
    with pytest.raises(DataError, match=r"damaged|no place"):
        Snapshot.from_dict({key: kept for key, kept in values.items() if key != name})


# -- what is due, what is kept -------------------------------------------------------------------


@pytest.fixture
def keeper_of(tmp_path):
    """Make a keeper with some options, of a run that is open for the test."""
    with open_run("one", tmp_path) as run:
        yield lambda **options: Keeper(run, CheckpointConfig(**options), {"epochs": 9, "first_epoch": 1})


def record_of(epoch, **validation):
    return EpochRecord(epoch, epoch * 10, 8, 2, 0.5, 0.1, validation)


def write(keeper, network, step, epoch=0, records=()):
    state = replace(network.state(), iteration=step)
    keeper.write(network, state, Snapshot(Cursor(epoch), step, records=tuple(records)))


def test_the_latest_are_kept(keeper_of):
    keeper, network = keeper_of(keep=2), make_network()
    for step in (1, 2, 10, 11):
        write(keeper, network, step)
    assert keeper.store.steps() == [10, 11]


@pytest.mark.parametrize(
    ("best", "values", "kept"),
    [("score", [3.0, 1.0, 2.0, 4.0, math.nan], 20), ("accuracy", [0.1, 0.5, 0.7, math.nan, 0.2], 30)],
)
def test_the_best_is_kept_too_also_by_a_process_that_goes_on(keeper_of, best, values, kept):
    keeper, network, records = keeper_of(keep=1, best=best), make_network(), []
    for epoch, value in enumerate(values, 1):
        records.append(record_of(epoch, **{best: value}))
        write(keeper, network, epoch * 10, epoch, records)
    assert keeper.store.steps() == [kept, 50]
    second = keeper_of(keep=1, best=best)
    assert second.find(network, [], "", None)[1].iteration == 50
    write(second, network, 60, 6, [*records, record_of(6, **{best: math.nan})])
    assert second.store.steps() == [kept, 60]


def test_the_best_epoch_is_due_whatever_the_interval(keeper_of):
    keeper, network = keeper_of(every="1h", best="score"), make_network()
    assert keeper.epoch_is_due(1, 10, record_of(1, score=2.0))
    write(keeper, network, 10, 1, [record_of(1, score=2.0)])
    assert not keeper.epoch_is_due(2, 20, record_of(2, score=2.5))
    assert not keeper.epoch_is_due(2, 20, record_of(2, score=math.nan))
    assert keeper.epoch_is_due(2, 20, record_of(2, score=1.5))
    assert not keeper_of(every="1h").epoch_is_due(1, 10, record_of(1, score=2.0))


def test_steps_and_epochs(keeper_of):
    keeper, network = keeper_of(every="5steps", max_share=1), make_network()
    assert [step for step in range(1, 8) if keeper.is_due(step)] == [5, 6, 7]
    write(keeper, network, 6)
    assert [step for step in range(7, 13) if keeper.is_due(step)] == [11, 12]
    assert keeper.epoch_is_due(3, 11)
    epochs = keeper_of(every="2epochs")
    assert [epoch for epoch in range(1, 7) if epochs.epoch_is_due(epoch, epoch * 10)] == [2, 4, 6]
    assert not epochs.is_due(10**6)


def test_steps_count_from_where_the_network_stands(keeper_of):
    keeper, network = keeper_of(every="5steps"), make_network()
    network.iteration = 100
    assert keeper.find(network, [], "", None) is None
    assert not keeper.is_due(104)
    assert keeper.is_due(105)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is set."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr("strombus.fitting.checkpointing.time.monotonic", lambda: clock.now)
    return clock


def test_time_and_the_share_of_it(keeper_of, clock, monkeypatch):
    keeper, network = keeper_of(every="30s", max_share=0.1), make_network()
    clock.now += 29
    assert not keeper.is_due(1)
    clock.now += 1
    assert keeper.is_due(1)
    real = keeper.store.begin

    def slow(step):
        clock.now += 10  # so that 90 s have to be trained before the next one
        return real(step)

    monkeypatch.setattr(keeper.store, "begin", slow)
    write(keeper, network, 1)
    clock.now += 89
    assert not keeper.is_due(2)
    clock.now += 1
    assert keeper.is_due(2)


# -- what is compared ----------------------------------------------------------------------------


def test_differences_name_what_was_and_what_is():
    before = {
        "network": {"l1": 0.0, "device": "cpu"},
        "master": {"batchSizePerWorker": 8, "numWorkers": 2},
        "epochs": 3,
        "examples": 48,
    }
    now = {
        "network": {"l1": 0.1, "device": "cuda"},
        "master": {"batchSizePerWorker": 4, "numWorkers": 3, "rngSeed": 1},
        "epochs": 5,
        "backend": "dask",
    }
    assert differences(before, now) == [
        "network.l1 was 0.0, is 0.1 now",
        "master.batchSizePerWorker was 8, is 4 now",
        "master.rngSeed was None, is 1 now",
        "epochs was 3, is 5 now",
    ]
    assert differences(before, before) == []
    assert differences({"network": {"loss": ["<f at 0x7f01>"]}}, {"network": {"loss": ["<f at 0x7f99>"]}}) == []


# -- a storage that fails ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def executor():
    with LocalExecutor(1) as executor:
        yield executor


def fit(executor, path, checkpoint, callbacks=(), network=None, **options):
    master = sb.ParameterAveragingTrainingMaster(workers=2, batch_size_per_worker=4, averaging_frequency=1, rng_seed=4)
    network = network or make_network("momentum")
    with sb.Trainer(network, master, executor) as trainer:
        result = trainer.fit(
            make_data(48),
            2,
            name="one",
            storage_path=path,
            checkpoint=checkpoint,
            callbacks=callbacks,
            progress=False,
            **options,
        )
    return network, result


class Fill(sb.Callback):
    """Leave no room on a disk after a round of the first epoch; make it again in the second where asked."""

    def __init__(self, folder, room_again=False):
        self.file, self.room_again = folder / "filled", room_again

    def on_round(self, progress):
        if (progress.epoch, progress.round) == (0, 2):
            with self.file.open("wb", buffering=0) as file:
                while True:
                    try:
                        file.write(b"x" * 512)
                    except OSError:
                        return
        if self.room_again and (progress.epoch, progress.round) == (1, 3):
            self.file.unlink(missing_ok=True)


EVERY_STEP = {"every": "1step", "max_share": 1, "keep": 2}


def test_a_full_disk_is_warned_of_and_training_goes_on(executor, tmp_path):
    with small_disk(tmp_path / "disk", 128) as disk:
        with pytest.warns(StrombusWarning) as caught:
            network, result = fit(executor, disk, CheckpointConfig(**EVERY_STEP), [Fill(disk)])
        texts = [str(one.message) for one in caught]
        wanted = (
            r"the checkpoint of step 4 could not be written to .*one: .*No space left on device.*goes on without it"
        )
        assert any(re.search(wanted, text) for text in texts)
        assert any(re.search("metrics are missing in .*metrics.jsonl: .*No space left", text) for text in texts)
        assert any(re.search("the result could not be written", text) for text in texts)
        assert result.examples == 96
        expected, _ = fit(executor, tmp_path, None)
        np.testing.assert_array_equal(network.state().parameters, expected.state().parameters)
        # With room again, the same command goes on from the checkpoint before.
        (disk / "filled").unlink()
        again, result = fit(executor, disk, CheckpointConfig(**EVERY_STEP))
        assert result.examples == 96
        np.testing.assert_array_equal(again.state().parameters, expected.state().parameters)
        _check_metrics(disk / "one", tmp_path / "one")


def test_room_that_comes_back_is_used(executor, tmp_path):
    with small_disk(tmp_path / "disk", 128) as disk, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(executor, disk, CheckpointConfig(**EVERY_STEP), [Fill(disk, room_again=True)])
        assert (disk / "one" / "result.json").exists()
        assert max(int(path.name[5:]) for path in (disk / "one").glob("step-*")) > 8


@pytest.mark.filterwarnings("ignore:metrics are missing")
def test_a_full_disk_ends_the_fit_where_told_so(executor, tmp_path):
    with small_disk(tmp_path / "disk", 128) as disk:
        config = CheckpointConfig(**EVERY_STEP, on_error="raise")
        with pytest.raises(RunError, match=r"step \d could not be written .*No space left on device; make room there"):
            fit(executor, disk, config, [Fill(disk)])
        assert not (disk / "one" / "result.json").exists()


@pytest.mark.parametrize("on_error", ["warn", "raise"])
def test_a_directory_that_may_not_be_written(executor, tmp_path, on_error, monkeypatch):
    """Root may write everywhere: the error has to be made."""

    def refuse(path, data):
        raise PermissionError(13, "Permission denied", str(path))

    class Refuse(sb.Callback):
        def on_round(self, progress):
            monkeypatch.setattr("strombus.runs.checkpoints.write_whole", refuse)

    config = CheckpointConfig(**EVERY_STEP, on_error=on_error)
    if on_error == "raise":
        with pytest.raises(RunError, match=r"step 1 could not be written to .*Permission denied"):
            fit(executor, tmp_path, config, [Refuse()])
    else:
        with pytest.warns(StrombusWarning, match="Permission denied"):
            _, result = fit(executor, tmp_path, config, [Refuse()])
        assert result.examples == 96


def test_old_checkpoints_that_cannot_be_removed_do_no_harm(keeper_of, monkeypatch, caplog):
    keeper, network = keeper_of(keep=1), make_network()
    write(keeper, network, 1)

    def refuse(step):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(keeper.store, "remove", refuse)
    write(keeper, network, 2)
    assert [one.step for one in keeper.store.whole()] == [2, 1]
    assert "an old checkpoint could not be removed" in caplog.text


def _check_metrics(folder, expected):
    """Compare metrics.jsonl but for the times in it."""

    def lines(path):
        timed = ("time", "seconds", "examples_per_second", "where")
        found = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        return [{name: value for name, value in one.items() if name not in timed} for one in found]

    assert lines(folder) == lines(expected)


# -- what a fit asks for -------------------------------------------------------------------------


def test_the_best_of_what_is_not_measured(executor, tmp_path):
    with pytest.raises(ConfigurationError, match=r"best='score' is a figure of the validation data"):
        fit(executor, tmp_path, CheckpointConfig(best="score"))
    assert list(tmp_path.iterdir()) == []


def test_a_callbacks_state_that_is_no_json_is_named(executor, tmp_path):
    class Odd(sb.Callback):
        def state(self):
            return {"x": {1, 2}}

    with pytest.raises(ConfigurationError, match=r"Odd.state\(\) must return what JSON has"):
        fit(executor, tmp_path, CheckpointConfig(), [Odd()])
