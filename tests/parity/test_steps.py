"""Epochs counted in steps, over streams and over data: who trains what, and from where it is gone on with."""

from __future__ import annotations

import itertools
import logging
import sys

import cloudpickle
import dask.bag as db
import numpy as np
import pytest
import torch
from helpers.hooks import SeenRows
from helpers.networks import make_data, make_network, plain_loop

import strombus as sb
from strombus import CheckpointConfig
from strombus.errors import ConfigurationError, DataError, RunError, TaskError

cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROWS, STEPS, BATCH, WORKERS = 67, 5, 4, 2
EPOCH = STEPS * BATCH * WORKERS


def data_of(rows=ROWS):
    """Rows whose first feature numbers them."""
    features, labels = make_data(rows)
    features[:, 0] = np.arange(rows)
    return features, labels


def make_batches():
    """Yield the rows in objects of 1, 2, ... 7, 1, 2, ... rows, and none at all between them."""
    features, labels = data_of()
    ends = itertools.accumulate(itertools.cycle([1, 2, 0, 3, 4, 5, 6, 7]), initial=0)
    for start, stop in itertools.pairwise(ends):
        if start >= ROWS:
            return
        yield sb.DataSet(features[start:stop], labels[start:stop])


def make_shards(rank, workers):
    """Yield what worker `rank` trains of its own."""
    features, labels = data_of()
    yield features[rank::workers], labels[rank::workers]


class Rows(torch.utils.data.IterableDataset):
    """One example after the other."""

    def __iter__(self):
        features, labels = data_of()
        return zip(torch.from_numpy(features), labels, strict=True)


class Sharded(Rows):
    """The same, every worker's own, as for a DataLoader."""

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        assert info is None or info.dataset is not None
        rank, workers = (0, 1) if info is None else (info.id, info.num_workers)
        return itertools.islice(super().__iter__(), rank, None, workers)


class Cut(Exception):
    """What ends a fit where a test wants it."""


class CutOff(sb.Callback):
    """End the fit after so many rounds of an epoch."""

    def __init__(self, epoch, number):
        self.when = epoch, number

    def on_round(self, progress):
        if (progress.epoch, progress.round) == self.when:
            raise Cut


def averaging(**options):
    defaults = {"workers": WORKERS, "batch_size_per_worker": BATCH, "averaging_frequency": 2, "rng_seed": 7}
    return sb.ParameterAveragingTrainingMaster(**{**defaults, **options})


def sharing(**options):
    defaults = {"workers": WORKERS, "batch_size_per_worker": BATCH, "max_staleness": 0, "rng_seed": 7, "timeout": 60}
    return sb.SharedTrainingMaster(**{**defaults, **options})


def fit(backend, master, data, epochs=3, steps=STEPS, **options):
    """Fit; return network, result and the rows that each rank has trained, in its order."""
    hook = SeenRows()
    master.add_hook(hook)
    network = make_network("momentum")
    with sb.Trainer(network, master, backend=backend) as trainer:
        result = trainer.fit(data, epochs, progress=False, steps_per_epoch=steps, **options)
    ranks = {rank for rank, _ in hook.rows}
    return network, result, {rank: [row for other, row in hook.rows if other == rank] for rank in ranks}


def everybodys(rows):
    return sorted(row for mine in rows.values() for row in mine)


def dealt(rank, epochs=3):
    """Return the rows of every second minibatch, beginning with the `rank`-th."""
    everything = [row % ROWS for row in range(epochs * EPOCH)]
    return [row for s in range(rank, epochs * STEPS * WORKERS, WORKERS) for row in everything[s * BATCH :][:BATCH]]


OWN = [
    pytest.param("local-2", Sharded(), id="local-2, IterableDataset"),
    pytest.param("dask", make_shards, marks=pytest.mark.dask, id="dask, function"),
    pytest.param("spark", Sharded(), marks=pytest.mark.spark, id="spark, IterableDataset"),
]


def test_every_worker_makes_the_stream_and_trains_every_nth_minibatch(backend):
    network, result, rows = fit(backend, averaging(), make_batches)
    assert [record.examples for record in result.epochs] == [EPOCH] * 3
    assert [record.minibatches for record in result.epochs] == [STEPS * WORKERS] * 3
    assert rows == {rank: dealt(rank) for rank in range(WORKERS)}
    assert np.isfinite(network.state().parameters).all()


@pytest.mark.parametrize(("backend", "data"), OWN, indirect=["backend"])
def test_streams_of_their_own_in_shared_training(backend, data):
    rows = fit(backend, sharing(), data)[2]
    for rank in range(WORKERS):
        assert rows[rank] == list(itertools.islice(itertools.cycle(range(rank, ROWS, WORKERS)), 3 * EPOCH // WORKERS))


def test_shared_training_of_one_stream(local_executors):
    plain = fit(local_executors[2], sharing(), Rows())
    assert plain[2] == {rank: dealt(rank) for rank in range(WORKERS)}
    assert fit(local_executors[2], sharing(), sb.data.stream(Sharded(), sharded=False))[2] == plain[2]


def test_one_worker_is_the_plain_loop_and_a_short_stream_is_not_told_of_each_time(local_executors, caplog):
    caplog.set_level(logging.INFO)
    network = make_network("momentum")
    features, labels = data_of()
    rows = np.arange(4 * STEPS * BATCH) % ROWS
    expected = plain_loop(network, features[rows], labels[rows], [BATCH] * (4 * STEPS))
    found = fit(local_executors[1], averaging(workers=1), make_batches, epochs=4)[0]
    np.testing.assert_array_equal(found.state().parameters, expected)
    assert "exhausted" not in caplog.text


# -- what has an end, and what has none ------------------------------------------------------------


@pytest.mark.parametrize("make", [averaging, sharing])
def test_data_is_gone_through_whole_before_it_begins_again(local_executors, make):
    network, result, rows = fit(local_executors[2], make(), data_of(), epochs=4)
    assert [record.examples for record in result.epochs] == [EPOCH] * 4
    seen = np.bincount(everybodys(rows), minlength=ROWS)
    assert set(seen) == {2, 3}
    assert seen.sum() == 4 * EPOCH
    again = fit(local_executors[2], make(), data_of(), epochs=4)[0]
    np.testing.assert_array_equal(network.state().parameters, again.state().parameters)


def test_an_iterator_without_end_is_taken_as_far_as_it_is_needed(local_executors):
    taken = []

    def endless():
        features, labels = data_of()
        for number in itertools.count():
            taken.append(number)
            yield features[number % ROWS], int(labels[number % ROWS])

    rows = fit(local_executors[1], averaging(), endless(), epochs=2)[2]
    assert len(taken) == 2 * EPOCH
    assert everybodys(rows) == sorted(row % ROWS for row in taken)
    used = (data_of() for _ in range(1))
    list(used)
    with pytest.raises(DataError, match=r"used up.*give the function"):
        fit(local_executors[1], averaging(), used)


@pytest.mark.parametrize("data", [make_batches, data_of()], ids=["stream", "arrays"])
def test_what_is_going_to_happen_and_a_trial_of_it(local_executors, data):
    with sb.Trainer(make_network(), averaging(), backend=local_executors[1]) as trainer:
        plan = trainer.explain(data, 3, steps_per_epoch=STEPS)
        assert [(one.examples, one.minibatches) for one in plan.workers] == [(STEPS * BATCH, STEPS)] * WORKERS
        assert ("made by the workers" in str(plan)) == (data is make_batches)
        result = trainer.fit(data, 3, progress=False, steps_per_epoch=STEPS, fast_dev_run=True)
        assert result.minibatches >= 2 * WORKERS


# -- going on ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [make_batches, make_shards, data_of()], ids=["stream", "sharded", "arrays"])
def test_goes_on_where_it_was_cut_off(local_executors, tmp_path, data):
    named = {"name": "one", "storage_path": tmp_path, "checkpoint": CheckpointConfig(every="1step", max_share=1)}
    expected = fit(local_executors[1], averaging(), data)
    for when in [(0, 1), (1, 0), (2, 0)]:
        with pytest.raises(Cut):
            fit(local_executors[1], averaging(), data, callbacks=[CutOff(*when)], **named)
    found = fit(local_executors[1], averaging(), data, **named)
    np.testing.assert_array_equal(found[0].state().parameters, expected[0].state().parameters)
    assert found[1].examples == 3 * EPOCH
    with pytest.raises(RunError, match="steps_per_epoch was 5, is 6 now"):
        fit(local_executors[1], averaging(), data, steps=6, **named)


@pytest.mark.parametrize("data", [make_batches, data_of()], ids=["stream", "arrays"])
def test_goes_on_with_other_workers(local_executors, tmp_path, data):
    """The epochs keep their rows: those of two workers' steps."""
    named = {"name": "one", "storage_path": tmp_path, "checkpoint": CheckpointConfig(every="1step", max_share=1)}
    kept = []

    class Keep(sb.Callback):
        """Remember, with each checkpoint, the rows that are in it."""

        def __init__(self, hook):
            self.hook = hook

        def state(self):
            return {"rows": [int(row) for _, row in self.hook.rows]}

        def load_state(self, state):
            self.hook.rows = [(0, row) for row in state["rows"]]

    for workers, when in [(2, (0, 1)), (3, (1, 0)), (5, None)]:
        hook = SeenRows()
        master = averaging(workers=workers, training_hooks=[hook], averaging_frequency=1)
        cuts = [] if when is None else [CutOff(*when)]
        with sb.Trainer(make_network("momentum"), master, backend=local_executors[1]) as trainer:
            try:
                trainer.fit(data, 3, None, [Keep(hook), *cuts], False, steps_per_epoch=STEPS, **named)
            except Cut:
                assert when is not None
        kept = [row for _, row in hook.rows]
    if data is make_batches:
        assert sorted(kept) == sorted(row % ROWS for row in range(3 * EPOCH))
    else:
        assert set(np.bincount(kept, minlength=ROWS)) == {1, 2}
    assert len(kept) == 3 * EPOCH


def test_streams_of_their_own_do_not_go_on_with_others(local_executors, tmp_path):
    named = {"name": "one", "storage_path": tmp_path}
    with pytest.raises(Cut):
        fit(local_executors[1], averaging(), make_shards, callbacks=[CutOff(1, 0)], **named)
    with pytest.raises(ConfigurationError, match=r"2 have begun it.*with 3 nobody knows"):
        fit(local_executors[1], averaging(workers=3), make_shards, **named)
    with pytest.raises(ConfigurationError, match="who cannot make those of a sharded stream"):
        fit(local_executors[1], sharing(max_staleness=4, on_peer_lost="continue"), make_shards)


# -- what cannot be ------------------------------------------------------------------------------------


def one_argument(path):
    yield data_of()


def no_rows():
    yield from ()


def other_widths():
    yield data_of(5)
    yield np.zeros((3, 2)), np.zeros(3, int)


class Ragged(Rows):
    """Examples of other widths."""

    def __iter__(self):
        return ((np.zeros(6 - number % 2), 0) for number in range(9))


def later_masks():
    features, labels = data_of(5)
    yield features, labels
    yield features, labels, None, np.ones(5)


def only_once():
    yield from (data_of(5) for _ in range(ONCE.pop() if ONCE else 0))


ONCE = [1, 1]


def test_what_cannot_be_trained_in_steps(local_executors, tmp_path):
    one = local_executors[1]
    with pytest.raises(ConfigurationError, match="steps_per_epoch must be at least 1"):
        fit(one, averaging(), make_batches, steps=0)
    with pytest.raises(ConfigurationError, match=r"without arguments, or with rank and workers.*one_argument\(path\)"):
        fit(one, averaging(), one_argument)
    with pytest.raises(ConfigurationError, match="a function or a torch IterableDataset, got"):
        sb.data.stream([data_of()])
    with pytest.raises(TaskError, match="must return an iterator, got int"):
        fit(one, averaging(), lambda: 3)
    with pytest.raises((DataError, TaskError), match="that at row 5 is"):
        fit(one, averaging(), other_widths)
    with pytest.raises((DataError, TaskError), match="must agree in shape"):
        fit(one, averaging(), Ragged())
    with pytest.raises((DataError, TaskError), match="at row 5 has a mask"):
        fit(one, averaging(), later_masks)
    with pytest.raises((DataError, TaskError), match="without any rows after 5 rows"):
        fit(one, averaging(workers=1), only_once)
    bag = db.from_sequence([data_of()], npartitions=1)
    with pytest.raises(ConfigurationError, match="wanted rdd_training_approach='Export'"):
        fit(one, averaging(rdd_training_approach="Direct"), bag)
    assert fit(one, averaging(), no_rows)[1].examples == 0


def test_a_stream_without_steps_is_written_once(local_executors):
    network, _, rows = fit(local_executors[1], averaging(), Rows(), epochs=2, steps=None)
    assert everybodys(rows) == sorted([*range(ROWS), *range(ROWS)])
    with sb.Trainer(network, backend=local_executors[1]) as trainer:
        assert trainer.calculate_score(make_batches) == pytest.approx(trainer.calculate_score(data_of()))
