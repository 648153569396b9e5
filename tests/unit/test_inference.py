"""Scores and outputs on one machine: forms of data, side by side, and processes that die."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import torch
from helpers.networks import make_data, make_mlp, make_network
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import strombus as sb
from strombus.errors import ConfigurationError, DataError
from strombus.executors.local import LocalExecutor
from strombus.worker.items import read_object

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def alone():
    with LocalExecutor(1) as executor:
        yield executor


def test_a_vector_is_one_example(alone):
    features, network = make_data(3)[0], make_network()
    graph = sb.ComputationGraph(make_mlp)
    with sb.Trainer(network, backend=alone) as trainer:
        for vector in (features[1], torch.from_numpy(features[1])):
            found = trainer.predict(vector)
            assert found.shape == (3,)
            np.testing.assert_allclose(found, network.predict(features)[1], rtol=1e-12)
    with sb.Trainer(graph, backend=alone) as trainer:
        assert [output.shape for output in trainer.predict(features[1])] == [(3,)]
        (output,) = trainer.predict([features])
    np.testing.assert_allclose(output, network.predict(features), rtol=1e-12)


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (("a", sb.DataSet(np.ones((1, 2)), np.ones(1))), "a"),
        ((np.ones(3), sb.DataSet(np.ones((1, 2)))), np.ones(3)),
        ((7, (np.ones((1, 2)), np.ones(1))), 7),
        ((("user", 3), (np.ones((1, 2)), np.ones(1))), ("user", 3)),
        ((None, np.ones((1, 2))), None),
        ((np.float64(2), (np.ones((1, 2)), np.ones(1))), 2.0),
    ],
)
def test_a_pair_with_a_key(value, key):
    item = read_object(value)
    assert item.keyed
    assert np.array_equal(item.key, key)
    assert item.examples == 1


@pytest.mark.parametrize(
    "value",
    [
        (np.ones((4, 2)), np.ones(4)),
        (torch.ones(4, 2), torch.ones(4)),
        ([[1.0, 2.0]] * 4, [0, 1, 0, 1]),
        ((np.ones((4, 2)), np.ones((4, 1))), (np.ones(4),)),
        np.ones((4, 2)),
        sb.DataSet(np.ones((4, 2))),
    ],
)
def test_features_and_labels_are_no_key_and_value(value):
    item = read_object(value)
    assert not item.keyed
    assert item.examples == 4


SHAPES = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=30)


@given(lengths=SHAPES, batch=st.integers(1, 9))
@settings(deadline=None, max_examples=20)
def test_sequences_of_any_lengths_are_as_if_alone(lengths, batch):
    rng = np.random.default_rng(0)
    network = sb.MultiLayerNetwork(lambda: nn.Softmax(2), nn.MSELoss())
    pairs = [(i, rng.normal(size=(n, t, 2))) for i, (n, t) in enumerate(lengths)]
    with LocalExecutor(1) as executor, sb.Trainer(network, backend=executor) as trainer:
        found = trainer.feed_forward_with_key(pairs, batch_size=batch)
        labelled = [sb.DataSet(x, np.zeros_like(x)) for _, x in pairs]
        score = trainer.calculate_score(labelled, batch_size=batch)
        each = trainer.score_examples(labelled, False, batch_size=batch)
    for (key, x), (same, output) in zip(pairs, found, strict=True):
        assert key == same
        np.testing.assert_allclose(output, network.predict(x), rtol=1e-6)
    squares = [network.predict(x) ** 2 for _, x in pairs]
    np.testing.assert_allclose(each, np.concatenate([s.mean((1, 2)) for s in squares]), rtol=1e-6)
    assert score == pytest.approx(np.average([s.mean() for s in squares], weights=[len(s) for s in squares]), rel=1e-6)


def test_outputs_of_different_lengths_make_no_array(alone, tmp_path):
    network = sb.MultiLayerNetwork(lambda: nn.Softmax(2))
    ragged = [(i, np.ones((1, 1 + i, 2))) for i in range(2)]
    with sb.Trainer(network, backend=alone) as trainer:
        with pytest.raises(Exception, match="results of different shapes make no array"):
            trainer.feed_forward_with_key(ragged, to=tmp_path / "out.zarr")
        with pytest.raises(Exception, match="keys must be numbers or strings"):
            trainer.feed_forward_with_key([((1, 2), np.ones((1, 1, 2)))], to=tmp_path / "out.zarr")
        with pytest.raises(Exception, match="some objects are pairs with a key and some are not"):
            trainer.predict([sb.DataSet(np.ones((1, 1, 2))), ("a", np.ones((1, 1, 2)))], to=tmp_path / "out.zarr")
    assert list(tmp_path.iterdir()) == []


class Slow(nn.Module):
    """Marks its rows with a number, and takes a while."""

    def __init__(self, number):
        super().__init__()
        self.number = nn.Parameter(torch.tensor(float(number)))

    def forward(self, x):
        threading.Event().wait(0.002)
        return x * 0 + self.number


def test_networks_that_predict_side_by_side_in_one_process_never_mix(alone):
    import dask
    import dask.bag as db

    data = [sb.DataSet(np.ones((2, 1), np.float32)) for _ in range(24)]
    bags = []
    for number in range(3):
        network = sb.MultiLayerNetwork(lambda number=number: Slow(number))
        master = sb.ParameterAveragingTrainingMaster(default_evaluation_workers=1 + number)
        bags.append(sb.Trainer(network, master, alone).predict(db.from_sequence(data, npartitions=8)))
    for number, outputs in enumerate(dask.compute(*bags, scheduler="threads", num_workers=6)):
        assert {float(value) for output in outputs for value in output.ravel()} == {float(number)}
        assert len(outputs) == 24


class DieOnce(nn.Module):
    """Takes its process down in the middle of the rows, once."""

    def __init__(self, marker):
        super().__init__()
        self.marker, self.out = marker, nn.Linear(6, 3)

    def forward(self, x):
        if (x[:, 0] > 2.0).any() and not Path(self.marker).exists():
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.out(x)


def test_a_worker_that_dies_while_it_writes_does_no_harm(tmp_path):
    features = make_data(200)[0].astype(np.float32)
    marker = str(tmp_path / "died")
    network = sb.MultiLayerNetwork(DieOnce(marker))
    with LocalExecutor(2) as executor, sb.Trainer(network, backend=executor) as trainer:
        found = trainer.predict(features, batch_size=8, to=tmp_path / "out.zarr")
    assert Path(marker).exists()
    np.testing.assert_allclose(found[:], network.predict(features), rtol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["died", "out.zarr"]


def test_nothing_decoded_is_kept_after_a_call(alone, tmp_path):
    sb.data.export(make_data(50), tmp_path / "data.zarr", progress=False)
    source = sb.data.open_dataset(tmp_path / "data.zarr")
    with sb.Trainer(make_network(), backend=alone) as trainer:
        for call in (trainer.calculate_score, trainer.predict):
            call(source)
            assert not source._decoded.nbytes


def test_validation_that_diverges_is_nan_and_no_end(alone):
    features, labels = make_data(20)
    bad = features.copy()
    bad[3] = np.nan
    master = sb.ParameterAveragingTrainingMaster(workers=1, batch_size_per_worker=10, rng_seed=0)
    network = sb.MultiLayerNetwork(make_mlp, nn.MSELoss(), functools.partial(torch.optim.SGD, lr=0.1))
    targets = np.eye(3)[labels]
    with sb.Trainer(network, master, alone) as trainer:
        result = trainer.fit((features, targets), epochs=2, validation=(bad, targets), progress=False)
    assert [np.isnan(record.validation["score"]) for record in result.epochs] == [True, True]


def test_what_cannot_work_is_refused_at_once(alone):
    import dask.bag as db

    trainer = sb.Trainer(make_network(), backend=alone)
    with pytest.raises(DataError, match="must be a pair"):
        trainer.feed_forward_with_key([np.ones((1, 6))])
    with pytest.raises(ConfigurationError, match="batch_size must be at least 1, got 0"):
        trainer.predict(db.from_sequence([sb.DataSet(np.ones((1, 6)))]), batch_size=0)
