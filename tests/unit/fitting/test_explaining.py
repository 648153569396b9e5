"""What is explained before a fit is what then happens in it."""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from helpers.networks import make_data, make_network

import strombus as sb
from strombus.errors import ConfigurationError
from strombus.fitting.traffic import traffic_of

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Noting(sb.Callback):
    """What each worker did in the first epoch, and what lies in a directory meanwhile."""

    passive = True

    def __init__(self, directory=None):
        self.workers, self.rounds, self.sent, self.there = {}, 0, [], set()
        self._directory = directory

    def on_round(self, progress):
        if self._directory is not None:
            self.there |= {path.name for path in Path(self._directory).iterdir()}
        if progress.epoch == 0:
            self.rounds += 1
            for report in progress.workers:
                rows, batches = self.workers.get(report.worker, (0, 0))
                self.workers[report.worker] = rows + report.examples, batches + report.minibatches
        for report in progress.workers:
            if report.minibatches and "sent_bytes" in report.figures:
                self.sent.append((report.iteration, report.figures["sent_bytes"], report.minibatches))


def agree(explained, result, noting):
    """Check an explanation against what the fit's callbacks and its result say."""
    assert {one.worker: (one.examples, one.minibatches) for one in explained.workers} == noting.workers
    assert result.minibatches == explained.epochs * explained.minibatches
    assert result.examples == explained.epochs * explained.examples
    assert len(result.epochs) == explained.epochs
    if explained.rounds is not None:
        assert noting.rounds == explained.rounds


@pytest.mark.parametrize("rows", [103, 2])
@pytest.mark.parametrize(
    "master",
    [
        sb.ParameterAveragingTrainingMaster(workers=3, batch_size_per_worker=5, averaging_frequency=2, rng_seed=7),
        sb.SharedTrainingMaster(workers=2, batch_size_per_worker=6, rng_seed=3, last_batch="keep"),
        sb.SharedTrainingMaster(workers=2, batch_size_per_worker=4, rng_seed=3, repartition_strategy="SparkDefault"),
    ],
    ids=["averaging", "sharing", "default"],
)
def test_rows_and_steps_are_those_of_the_fit(master, rows, local_executors):
    data, noting = make_data(rows), Noting()
    with sb.Trainer(make_network("adam"), master, local_executors[2]) as trainer:
        explained = trainer.explain(data, epochs=2, validation=make_data(20))
        result = trainer.fit(data, epochs=2, validation=make_data(20), callbacks=[noting], progress=False)
    noting.workers = {rank: counts for rank, counts in noting.workers.items() if counts[0]}  # others have said so
    agree(explained, result, noting)
    assert (explained.capacity.slots, explained.capacity.threads) == (2, local_executors[2].capacity().threads)


@pytest.mark.dask
@pytest.mark.parametrize("approach", ["Export", "Direct"])
def test_an_engines_collection_is_explained_as_it_is_trained(approach, dask_client, tmp_path):
    import dask.bag

    features, labels = make_data(101)
    spans = [slice(0, 50), slice(50, 60), slice(60, 101)]
    bag = dask.bag.from_sequence([sb.DataSet(features[span], labels[span]) for span in spans], npartitions=3)
    master = sb.ParameterAveragingTrainingMaster(
        batch_size_per_worker=5, rng_seed=2, rdd_training_approach=approach, export_directory=str(tmp_path)
    )
    noting = Noting(tmp_path)
    with sb.Trainer(make_network(), master, dask_client) as trainer:
        explained = trainer.explain(bag, validation=bag)
        text, there = str(explained), set(tmp_path.iterdir())
        result = trainer.fit(bag, validation=bag, callbacks=[noting], progress=False)
        page = trainer._repr_html_()
    agree(explained, result, noting)
    assert there == set() == set(tmp_path.iterdir())
    exported = [name for name in noting.there if name.startswith("strombus-")]
    assert bool(exported) == (f"exported first to a directory in {tmp_path}, removed at the end" in text)
    assert ("trained from the memory of dask (cached as MEMORY_ONLY_SER)" in text) == (approach == "Direct")
    link = dask_client.dashboard_link
    assert link in text
    assert f'<a href="{link}"' in page


@pytest.mark.parametrize("save_updater", [True, False])
def test_what_averaging_sends_is_the_state(save_updater, local_executors):
    network = make_network("adam")
    master = sb.ParameterAveragingTrainingMaster(workers=2, save_updater=save_updater, rng_seed=1)
    before = network.state().parameters.copy()
    with sb.Trainer(network, master, local_executors[2]) as trainer:
        explained = trainer.explain(make_data(100))
        np.testing.assert_array_equal(network.state().parameters, before)
        assert network.updater is None
        trainer.fit(make_data(100), progress=False)
    parameters, updater = network.state().parameters, network.updater.tensors
    own = parameters.nbytes + (sum(array.nbytes for array in updater.values()) if save_updater else 0)
    assert explained.traffic.least == explained.traffic.most == own
    assert own in (parameters.nbytes, pytest.approx(3 * parameters.nbytes, rel=0.1))  # Adam keeps two moments


def test_what_sharing_sends_is_what_was_sent(local_executors):
    """By the steps after the first hundred, in which an optimizer's first thresholds settle."""
    features = np.random.default_rng(0).normal(size=(3200, 6))
    data, noting = (features, features[:, :3].argmax(axis=1)), Noting()
    master = sb.SharedTrainingMaster(workers=2, batch_size_per_worker=16, rng_seed=1, max_staleness=0)
    with sb.Trainer(make_network(module=wide), master, local_executors[2]) as trainer:
        explained = trainer.explain(data, epochs=3)
        trainer.fit(data, epochs=3, callbacks=[noting], progress=False)
    late = [(sent, steps) for iteration, sent, steps in noting.sent if iteration - steps >= 100]
    mean = sum(sent for sent, _ in late) / sum(steps for _, steps in late)
    assert explained.traffic.least < mean < explained.traffic.most < 0.1 * 42_203 * 8
    assert explained.traffic.to == 1


def wide():
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(), nn.Linear(200, 3)).double()


@pytest.mark.parametrize(
    ("options", "least", "most"),
    [
        ({"encoder": "dense"}, 83 * 8 + 20, 83 * 8 + 20),
        ({"encoder": sb.DenseEncoder(dtype="float16")}, 83 * 2 + 20, 83 * 2 + 20),
        # 83 (H(p) + p) / 8 with H(0.01) = 0.0808 bits, by hand
        ({"threshold_algorithm": sb.TargetSparsityThresholdAlgorithm(sparsity_target=0.01)}, 1 + 20, 1 + 20),
        ({"encoder": "dl4j", "updates_threshold": 1e-3}, 17 + 20, 20 + 20),
        ({"threshold_algorithm": sb.FixedThresholdAlgorithm(threshold=1.0)}, None, None),
    ],
)
def test_updates_are_estimated_by_encoder_and_algorithm(options, least, most):
    traffic = traffic_of(make_network(), sb.SharedTrainingMaster(**options), workers=4)
    assert (None if traffic is None else (traffic.least, traffic.most, traffic.to)) == (least and (least, most, 3))
    assert traffic_of(make_network(), sb.SharedTrainingMaster(**options), workers=1) is None


def test_what_lies_where_is_said(local_executors, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "train.zarr"
    sb.data.export(make_data(40), path, progress=False)
    master = sb.ParameterAveragingTrainingMaster(workers=2, rng_seed=1, export_directory="s3://key:secret@bucket/<tmp>")
    with sb.Trainer(make_network(), master, local_executors[2]) as trainer:
        text = str(trainer.explain(path, name="first", checkpoint=sb.CheckpointConfig(every="5min", keep=2)))
        assert "40 rows, read by the workers where they lie (ZarrSource, 1 part)" in text
        assert f"options, metrics, network and result in {tmp_path}/strombus-runs/first" in text
        assert "a checkpoint every 300 seconds, the last 2 kept" in text
        assert sorted(tmp_path.iterdir()) == [path]
        stream = trainer.explain(iter([sb.DataSet(*make_data(4))]))
        assert (stream.workers, stream.rounds) == ((), None)
        assert "an unknown number of rows, exported first to a directory in s3://***@bucket/<tmp>" in str(stream)
        assert "; it must end; give steps_per_epoch where it does not" in str(stream)
        checked = trainer.explain(lambda: iter([make_data(4)]), steps_per_epoch=3, validation=lambda: iter([]))
        assert re.search(r"validation +an unknown number of rows, exported first, .*; it must end\n", str(checked))
        assert "steps_per_epoch" not in str(checked)
        page = stream._repr_html_()
        assert "&lt;tmp&gt;" in page
        assert re.sub(r"\s+", "", html.unescape(re.sub("<[^>]+>", "", page))).endswith(re.sub(r"\s+", "", str(stream)))
        trainer.fit(path, name="first", progress=False)
        assert "holds the result of a fit that has ended: it is returned" in str(trainer.explain(path, name="first"))


def test_many_workers_are_told_of_together(local_executors):
    master = sb.ParameterAveragingTrainingMaster(workers=30, batch_size_per_worker=2, rng_seed=1)
    with sb.Trainer(make_network(), master, local_executors[2]) as trainer:
        text = str(trainer.explain(make_data(100)))
        few = str(trainer.explain(make_data(4)))
    assert "30 workers with " in text
    assert ", which take turns in 2 slots" in text
    assert "each 3 to 4 rows in 1 to 2 minibatches" in text
    assert "26 without rows" in few


@pytest.mark.parametrize(
    ("options", "master", "ports"),
    [
        ({}, "SharedTrainingMaster(workers=2, rng_seed=1)", "each worker listens at a port of its own, any free one"),
        (
            {"topology": "star", "ports": "40000-40010"},
            "transport_options=TransportOptions(ports=(40000, 40010), topology='star'))",
            "all workers dial the hub on this program's host, at a port of its own (one of 40000-40010); nobody else",
        ),
    ],
)
def test_what_must_be_open_is_said(options, master, ports, local_executors, monkeypatch):
    monkeypatch.delenv("STROMBUS_PORTS", raising=False)
    chosen = {"transport_options": sb.TransportOptions(**options)} if options else {}
    shared = sb.SharedTrainingMaster(workers=2, rng_seed=1, **chosen)
    with sb.Trainer(make_network(), shared, local_executors[2]) as trainer:
        facts = dict(trainer.explain(make_data(40)).facts)
    assert facts["master"].endswith(master)
    assert facts["ports"].startswith(ports)


def test_what_fit_would_refuse_is_refused(local_executors):
    with pytest.raises(ConfigurationError, match="needs a training master"):
        sb.Trainer(make_network(), None, local_executors[1]).explain(make_data(4))
