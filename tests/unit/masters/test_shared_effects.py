"""Options of shared training whose effect shows outside the parameters."""

from __future__ import annotations

import functools
import sys
import threading
from collections import Counter
from pathlib import Path

import cloudpickle
import pytest
from helpers.hooks import SeenRows
from helpers.networks import make_data, make_network

import strombus as sb
from strombus.transport.zeromq import ZeroMQTransport

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def pair(local_executors):
    return local_executors[2]


def fit(backend, data=None, epochs=1, **options):
    options = {"workers": 2, "batch_size_per_worker": 4, "rng_seed": 1, "timeout": 60, **options}
    with sb.Trainer(make_network(), sb.SharedTrainingMaster(**options), backend) as trainer:
        result = trainer.fit(make_data(24) if data is None else data, epochs=epochs, progress=False)
    return trainer, result


def test_encoding_debug_mode_keeps_figures_of_every_step_in_the_trainers_stats(pair):
    trainer, _ = fit(pair, epochs=2, encoding_debug_mode=True)
    events = trainer.stats.values("encoding")
    steps = Counter((event.rank, event.values["epoch"]) for event in events)
    assert steps == {(rank, epoch): 3 for rank in (0, 1) for epoch in (0, 1)}
    for event in events:
        figures = event.values
        assert figures["elements"] == 83
        assert figures["share"] == figures["count"] / 83 > 0
        assert 0 < figures["percentiles"]["50"] <= figures["percentiles"]["99.99"] <= figures["largest"]
        assert figures["threshold"] > 0
    assert "encoding" not in fit(pair)[0].stats.keys()  # noqa: SIM118 - no mapping


def test_collect_training_stats_times_each_members_phases(pair, tmp_path):
    trainer, result = fit(pair, collect_training_stats=True)
    assert Counter(event.rank for event in trainer.stats.values("exchange")) == {0: 3, 1: 3}
    phases = {"data_wait", "fit", "encode", "exchange", "epoch_end", "settle"}
    assert phases <= set(trainer.stats.keys())
    assert phases <= {path.stem for path in result.stats.to_csv(tmp_path)}
    assert not fit(pair)[0].stats.events


def test_debug_longer_iterations_makes_each_minibatch_longer(pair):
    assert fit(pair, debug_longer_iterations=200)[1].seconds > 0.6


def note_thread(folder, batch):
    (Path(folder) / threading.current_thread().name).touch()
    return batch


class NotesThread(sb.TrainingHook):
    """Note, beside the transform's, the thread that trains."""

    def __init__(self, folder):
        self.folder = folder

    def post_update(self, batch, replica):
        note_thread(self.folder, batch)


@pytest.mark.parametrize(("prefetch", "threads"), [(0, 1), (2, 2)])
def test_prefetching_reads_in_a_thread_of_its_own(pair, tmp_path, prefetch, threads):
    sb.data.export(make_data(24), tmp_path / "d.zarr", progress=False)
    folder = tmp_path / "threads"
    folder.mkdir()
    data = sb.data.open_dataset(tmp_path / "d.zarr", transform=functools.partial(note_thread, folder))
    fit(pair, data, workers=1, worker_prefetch_num_batches=prefetch, training_hooks=[NotesThread(folder)])
    assert len(list(folder.iterdir())) == threads


class Folder(sb.TrainingHook):
    """List a directory while a member trains."""

    def __init__(self, path):
        self.path, self.seen = path, []

    def post_update(self, batch, replica):
        self.seen = [entry.name for entry in Path(self.path).iterdir()]

    def state(self):
        return self.seen

    def collect(self, rank, state):
        self.seen = state


@pytest.mark.parametrize("approach", ["Export", "Direct"])
def test_rows_of_an_engine_lie_in_the_export_directory_while_they_are_exported(pair, tmp_path, approach):
    import dask.bag

    features, labels = make_data(24)
    data = dask.bag.from_sequence([sb.DataSet(features, labels)], npartitions=1)
    hook = Folder(tmp_path)
    fit(pair, data, export_directory=str(tmp_path), rdd_training_approach=approach, training_hooks=[hook])
    assert [name.startswith("strombus-") for name in hook.seen] == [True] * (approach == "Export")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({}, [(12, 12)]),
        ({"repartition_data": "Never"}, [(4, 20), (20, 4)]),
        ({"repartition_data": "NumPartitionsWorkersDiffers"}, [(4, 20), (20, 4)]),
        ({"repartition_data": "Never", "repartitioner": "equal"}, [(12, 12)]),
        ({"repartition_strategy": "SparkDefault"}, [(12, 12)]),
        ({"repartitioner": sb.DefaultRepartitioner(max_partitions=1)}, [(24, 0), (0, 24)]),
    ],
    ids=str,
)
def test_who_trains_which_rows(pair, tmp_path, options, rows):
    paths = []
    for name, count in (("a", 4), ("b", 20)):
        paths.append(str(tmp_path / name))
        sb.data.export(make_data(count), paths[-1], batch_size=4, progress=False)
    hook = SeenRows()
    fit(pair, paths, training_hooks=[hook], **options)
    counts = Counter(rank for rank, _ in hook.rows)
    assert (counts[0], counts[1]) in rows


class Marked(ZeroMQTransport):
    """Leave a mark of having been used."""

    name = "marked"
    folder = ""

    def connect(self, addresses):
        (Path(self.folder) / str(self.seat.rank)).touch()
        super().connect(addresses)


def test_a_transport_of_the_users_own_is_used(pair, tmp_path):
    class Here(Marked):
        folder = str(tmp_path)

    fit(pair, transport=Here)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
