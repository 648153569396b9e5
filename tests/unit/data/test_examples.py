"""Examples that workers take one by one: collated and transformed there, in the reader's thread."""

from __future__ import annotations

import functools
import os
import sys
import threading

import cloudpickle
import numpy as np
import pytest
import torch
from helpers.networks import make_data, make_network
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import TensorDataset, default_collate

import strombus as sb
from strombus.errors import ConfigurationError, DataError

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Ragged(torch.utils.data.Dataset):
    """Sequences of 1 to 7 steps with a class for each step; nothing is held."""

    def __len__(self):
        return 50

    def __getitem__(self, number):
        rng = np.random.default_rng(number)
        steps = rng.integers(1, 8)
        return torch.from_numpy(rng.normal(size=(steps, 4))), torch.from_numpy(rng.integers(0, 3, steps))


def pad(items):
    features, labels = zip(*items, strict=True)
    lengths = torch.tensor([len(one) for one in labels])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    return pad_sequence(features, batch_first=True), pad_sequence(labels, batch_first=True), mask, mask


def make_steps():
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(4, 3).double()

        def forward(self, x):
            return self.layer(x).movedim(-1, 1)

    return sb.MultiLayerNetwork(Steps, nn.CrossEntropyLoss(), functools.partial(torch.optim.SGD, lr=0.5))


def fit(network, data, backend, **options):
    master = sb.ParameterAveragingTrainingMaster(
        workers=2, batch_size_per_worker=8, averaging_frequency=1, rng_seed=3, **options
    )
    with sb.Trainer(network, master, backend) as trainer:
        trainer.fit(data, 2, progress=False)
        return network.state().parameters, trainer.calculate_score(data), trainer.evaluate(data)


def test_padded_minibatches_train_as_the_padded_whole_does(local_executors):
    """Whatever a minibatch is padded to; scores and figures too."""
    whole = sb.DataSet(*pad([Ragged()[number] for number in range(50)]))
    found = fit(make_steps(), sb.data.examples(Ragged(), collate=pad), local_executors[1])
    expected = fit(make_steps(), whole, local_executors[1])
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=1e-12)
    assert found[1] == pytest.approx(expected[1], rel=1e-12)
    assert found[2] == expected[2]


class Elsewhere:
    """Fails in the driver's process, and in any other thread than the reader's."""

    def __init__(self):
        self.driver = os.getpid()

    def __call__(self, given):
        if os.getpid() == self.driver or threading.current_thread().name != "strombus-reader":
            raise RuntimeError(f"in {threading.current_thread().name} of {os.getpid()}")
        return default_collate(given) if isinstance(given, list) else given


@pytest.mark.parametrize("where", ["local-2", pytest.param("dask", marks=pytest.mark.dask)])
def test_collate_and_transform_run_in_the_workers_reader_threads(where, request):
    local = where == "local-2"
    backend = request.getfixturevalue("local_executors")[2] if local else request.getfixturevalue("dask_client")
    data = make_data(50)
    source = sb.data.examples(TensorDataset(*map(torch.from_numpy, data)), Elsewhere(), Elsewhere())
    found, _, evaluation = fit(make_network(), source, backend)
    expected, _, _ = fit(make_network(), data, backend)
    np.testing.assert_array_equal(found, expected)
    assert evaluation.examples == 50


def weighed(items):
    features, labels = map(np.stack, zip(*items, strict=True))
    return sb.DataSet(features, labels, weights=labels)


@pytest.mark.parametrize(
    ("items", "collate"),
    [
        ([sb.DataSet(np.full((1, 2), i), [i], weights=[i]) for i in range(9)], None),
        ([(np.full(2, i), i) for i in range(9)], weighed),
        ([(np.full(2, i), i, None, [i]) for i in range(9)], None),
        ([np.full(2, i) for i in range(9)], None),
    ],
    ids=["data sets", "weights in a collate", "masks", "features alone"],
)
def test_every_example_comes_once(items, collate):
    source = sb.data.examples(items, collate)
    order = sb.data.epoch_order(source.blocks(), seed=1, epoch=0)
    with sb.data.read_batches(source, order, 0, 9, [4, 4, 1], seed=1, epoch=0) as batches:
        rows = sb.data.load_cell(list(batches))
    assert sorted(rows.features[:, 0].tolist()) == list(range(9))
    if rows.labels is not None:
        np.testing.assert_array_equal(rows.labels, rows.features[:, 0])
        np.testing.assert_array_equal(rows.labels_mask[:, 0], rows.labels)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: sb.data.examples(iter([1])), DataError, "a length and items by number"),
        (lambda: sb.data.examples({0: 1}), DataError, "got dict"),
        (lambda: sb.data.examples([1], collate="pad"), ConfigurationError, "collate must be a function, got str"),
    ],
)
def test_what_are_no_examples_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("items", "collate", "message"),
    [
        (Ragged(), None, "give examples.* a collate that makes arrays .* padded"),
        (Ragged(), lambda items: pad(items[1:]), "a row of each of 5 examples, got 4 rows"),
        ([(np.ones(2), 1, 0.5)] * 50, None, r"weights of examples are given as DataSet.*, which a collate"),
        ([{"x": np.ones(2)}] * 50, None, r"must be an array or \(features, labels\), got dict; give examples\(...\) a"),
    ],
)
def test_rows_that_do_not_fit_say_so(items, collate, message):
    source = sb.data.examples(items, collate)
    order = sb.data.epoch_order(source.blocks(), seed=1, epoch=0)
    with (
        sb.data.read_batches(source, order, 0, 5, [5], seed=1, epoch=0) as batches,
        pytest.raises(DataError, match=message),
    ):
        next(batches)


def test_a_transform_of_what_no_worker_reads_is_refused():
    with pytest.raises(DataError, match="a transform is for data that workers read: wanted paths, arrays or"):
        sb.data.open_source([sb.DataSet(np.ones((3, 2)))], transform=Elsewhere())
