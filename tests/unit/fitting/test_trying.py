"""A dry run goes where a fit goes, for a few minibatches on every worker, and leaves no trace."""

from __future__ import annotations

import sys
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from helpers.networks import make_data, make_network

import strombus as sb
from strombus.callbacks import MaxEpochs
from strombus.data.first import FirstRows
from strombus.errors import ConfigurationError, DataError, TaskError

cloudpickle.register_pickle_by_value(sys.modules[__name__])

MASTERS = [sb.ParameterAveragingTrainingMaster, sb.SharedTrainingMaster]


class Counting(sb.TrainingHook):
    def __init__(self):
        self.updates = self.collected = 0

    def post_update(self, batch, replica):
        self.updates += 1

    def state(self):
        return self.updates

    def collect(self, rank, state):
        self.collected += state


class Watching(sb.Callback):
    def __init__(self):
        self.records = []

    def on_epoch_end(self, record):
        self.records.append(record)


def master_of(kind, **options):
    return kind(**{"workers": 2, "batch_size_per_worker": 5, "rng_seed": 1, **options})


def everything(network):
    state = network.state()
    arrays = [state.parameters, *state.buffers.values(), *(state.updater.tensors.values() if state.updater else ())]
    return [array.tolist() for array in arrays], state.iteration, network.epoch, network.score


@pytest.mark.parametrize("kind", MASTERS)
@pytest.mark.parametrize("trained_before", [False, True])
def test_a_dry_run_leaves_no_trace(kind, trained_before, local_executors, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data, network, other = make_data(100), make_network("adam"), make_network("adam")
    hook, watching = Counting(), Watching()
    options = {"max_staleness": 0} if kind is sb.SharedTrainingMaster else {}  # for the same bits in both
    trainers = [
        sb.Trainer(network, master_of(kind, training_hooks=[hook], **options), local_executors[2]),
        sb.Trainer(other, master_of(kind, **options), local_executors[2]),
    ]
    if trained_before:
        for trainer in trainers:
            trainer.fit(data, progress=False)
    before, events, collected = everything(network), len(trainers[0].stats.events), hook.collected
    result = trainers[0].fit(
        data, epochs=50, validation=make_data(70, seed=1), callbacks=[watching], name="never", fast_dev_run=3
    )
    assert (result.minibatches, result.examples, len(result.epochs)) == (2 * 3, 2 * 3 * 5, 1)
    assert set(result.epochs[0].validation) == {"score", "accuracy"}
    assert result.network is network
    assert [record.minibatches for record in watching.records] == [6]
    assert result.tried.startswith("dry run on local: 2 workers trained 6 minibatches, 30 rows in all, in ")
    assert capsys.readouterr().err == result.tried + "\n"
    assert everything(network) == before
    assert (len(trainers[0].stats.events), hook.collected) == (events, collected)
    assert list(Path().iterdir()) == []
    for trainer in trainers:
        trainer.fit(data, epochs=2, progress=False)
    assert everything(network) == everything(other)  # what the trainer keeps for the next fit is as it was, too


@pytest.mark.parametrize("approach", ["Export", "Direct"])
@pytest.mark.parametrize("backend", [pytest.param("dask", marks=pytest.mark.dask)])
def test_of_an_engines_collection_only_the_first_partitions_are_touched(backend, approach, dask_client, tmp_path):
    import dask.bag

    features, labels = make_data(200)
    spans = [slice(20 * number, 20 * number + 20) for number in range(10)]
    objects = [(number, features[span], labels[span]) for number, span in enumerate(spans)]

    def take(given):
        number, *arrays = given
        assert number < 5, "a partition that nobody asked for"
        return sb.DataSet(*arrays)

    bag = dask.bag.from_sequence(objects, npartitions=10).map(take)
    for kind in MASTERS:
        master = master_of(kind, rdd_training_approach=approach, export_directory=str(tmp_path))
        with sb.Trainer(make_network(), master, dask_client) as trainer:
            # Of as many partitions as there are workers the engine may have begun with the ones behind those.
            result = trainer.fit(bag, validation=(features, labels), progress=False, fast_dev_run=True)
        assert (result.minibatches, result.examples) == (4, 20)
    assert list(tmp_path.iterdir()) == []


def test_an_iterators_objects_are_used_up_and_a_lists_are_not(local_executors, caplog):
    objects = [sb.DataSet(*make_data(4, seed=number)) for number in range(12)]
    with sb.Trainer(make_network(), master_of(MASTERS[0]), local_executors[2]) as trainer:
        assert trainer.fit(objects, progress=False, fast_dev_run=1).examples == 10
        assert caplog.text == ""
        stream = iter(objects)
        trainer.fit(stream, progress=False, fast_dev_run=1)
    assert "used up the first 3 objects" in caplog.text
    assert len(list(stream)) == 12 - 3


def test_what_would_fail_in_the_fit_fails_before(local_executors):
    network, (features, labels) = make_network(), make_data(40)
    with sb.Trainer(network, master_of(MASTERS[0]), local_executors[2]) as trainer:
        before = everything(network)
        with pytest.raises(TaskError) as caught:
            trainer.fit((features[:, :3], labels), progress=False, fast_dev_run=True)
        assert isinstance(caught.value.__cause__, DataError)
        assert everything(network) == before
        with pytest.raises(DataError, match="need labels"):
            trainer.fit(features, progress=False, fast_dev_run=True)
        for wrong in (0, -1, 1.5, "yes"):
            with pytest.raises(ConfigurationError, match="fast_dev_run must be True, False or a number"):
                trainer.fit((features, labels), fast_dev_run=wrong)


def test_what_needs_checkpoints_or_keeps_records_is_left_out(local_executors, tmp_path):
    master = master_of(sb.SharedTrainingMaster, on_nonfinite="rollback", max_failures=2)
    keeping = [sb.EarlyStopping([MaxEpochs(3)]), sb.callbacks.JsonLinesLogger(tmp_path / "metrics.jsonl")]
    with sb.Trainer(make_network(), master, local_executors[2]) as trainer:
        result = trainer.fit(
            make_data(40), validation=make_data(9), callbacks=keeping, progress=False, name="x", fast_dev_run=True
        )
    assert "left out EarlyStopping, JsonLinesLogger" in result.tried
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("parts", "rows", "each", "wanted"),
    [
        ([100], 30, 10, [30]),
        ([5, 100, 100], 30, 10, [5, 10 + 5, 10]),
        ([4, 3], 30, 10, [4, 3]),
        ([0, 50, 50], 20, 10, [0, 10, 10]),
    ],
)
def test_rows_come_from_as_many_parts_as_there_are(parts, rows, each, wanted, tmp_path):
    features = np.arange(sum(parts), dtype=np.float32)[:, None]
    starts = np.cumsum([0, *parts])
    paths = []
    for number, count in enumerate(parts):
        if count:
            paths.append(str(tmp_path / f"{number}.zarr"))
            sb.data.export(sb.DataSet(features[starts[number] : starts[number] + count]), paths[-1], progress=False)
    source = FirstRows(sb.data.open_dataset(paths), rows, each)
    assert list(source.part_rows) == [count for count, part in zip(wanted, parts, strict=True) if part]
    read = np.concatenate([source.read(block)["features"][:, 0] for block in source.blocks()])
    expected = [features[start : start + count, 0] for start, count in zip(starts, wanted, strict=False)]
    np.testing.assert_array_equal(read, np.concatenate(expected))
