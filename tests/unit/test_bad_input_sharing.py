"""What users get wrong with shared training, found on the driver where it can be, and small data that is right."""

from __future__ import annotations

import functools
import sys
import threading
import time

import cloudpickle
import numpy as np
import pytest
import torch
from helpers.networks import make_batch_norm, make_data, make_mlp, make_network
from torch import nn

import strombus as sb
from strombus.callbacks import Callback
from strombus.errors import ConfigurationError, DataError, GangError, GangUnavailable, NonFiniteError
from strombus.executors.local import LocalExecutor

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class NoGang(LocalExecutor):
    """Two slots that start no gang."""

    def gang(self, *arguments, **options):
        raise AssertionError("a gang was started")


@pytest.fixture(scope="module")
def idle():
    with NoGang(2) as executor:
        yield executor


@pytest.fixture(scope="module")
def pair(local_executors):
    return local_executors[2]


def fit(backend, data, network=None, validation=None, epochs=1, callbacks=(), **options):
    options = {"workers": 2, "batch_size_per_worker": 8, "rng_seed": 0, "timeout": 60, **options}
    with sb.Trainer(network or make_network(), sb.SharedTrainingMaster(**options), backend) as trainer:
        return trainer.fit(data, epochs, validation, callbacks, progress=False)


# -- on the driver -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: sb.MultiLayerNetwork(make_mlp, nn.CrossEntropyLoss(), torch.optim.LBFGS),
            "ParameterAveragingTraining",
        ),
        (lambda: sb.MultiLayerNetwork(make_mlp, optimizer=torch.optim.SGD), "no loss: give it one"),
        (
            lambda: make_network("sgd", functools.partial(make_mlp, torch.float16)),
            r"float32 or float64 parameters, got torch\.float16; .*autocast",
        ),
        (lambda: make_network("sgd", nn.Identity), "no trainable parameters"),
    ],
    ids=["lbfgs", "no-loss", "float16", "no-parameters"],
)
def test_a_network_whose_updates_cannot_be_shared(idle, make, message):
    with pytest.raises(ConfigurationError, match=message):
        fit(idle, make_data(20), make())


def test_data_without_labels(idle):
    features = make_data(20)[0]
    with pytest.raises(DataError, match="need labels, the data has features alone"):
        fit(idle, features)
    with pytest.raises(DataError, match="need labels, the validation data has features alone"):
        fit(idle, make_data(20), validation=features)


def test_a_transform_may_bring_the_labels(pair, tmp_path):
    features, labels = make_data(20)
    sb.data.export(np.column_stack([features, labels]), tmp_path / "d.zarr", progress=False)
    split = sb.data.open_dataset(tmp_path / "d.zarr", transform=split_labels)
    assert fit(pair, split, validation=split).examples == 20


def split_labels(batch):
    return sb.DataSet(batch.features[:, :6], batch.features[:, 6].astype(np.int64))


def test_more_workers_than_slots(pair):
    with pytest.raises(GangUnavailable, match=r"3 members needs as many slots, this executor has 2; .*fewer workers"):
        fit(pair, make_data(20), workers=3)


# -- on a member ---------------------------------------------------------------------------------


def test_what_a_member_finds_out_keeps_its_kind(pair):
    features, labels = make_data(40)
    with pytest.raises(GangError, match=r"failed on features \(8, 5\)") as caught:
        fit(pair, (features[:, :5], labels))
    assert isinstance(caught.value.__cause__, DataError)
    features[3] = np.nan
    with pytest.raises(GangError, match=r"NaN or infinite values \(features 6\)") as caught:
        fit(pair, (features, labels))
    assert isinstance(caught.value.__cause__, NonFiniteError)


def hanging(end):
    yield make_data(50)
    while not end.exists():
        time.sleep(0.05)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stream_that_hangs_for_all_members(local_executors, workers, caplog, tmp_path):
    fit(local_executors[workers], make_data(20), workers=workers)  # so that members start in no time
    master = sb.SharedTrainingMaster(workers=workers, batch_size_per_worker=8, timeout=3.0)
    with (
        sb.Trainer(make_network(), master, local_executors[workers]) as trainer,
        pytest.raises(
            GangError, match=r"all workers wait for their data, worker \d for 3\.\d+ s for minibatch \d of"
        ) as error,
    ):
        trainer.fit(functools.partial(hanging, tmp_path / "end"), steps_per_epoch=20, progress=False)
    (tmp_path / "end").touch()
    for thread in threading.enumerate():
        if thread.name == "strombus-reader":
            thread.join(10)
    assert isinstance(error.value.__cause__, DataError)
    assert "s (option `timeout`) for its data, minibatch" in caplog.text


def test_an_address_that_no_member_has(pair):
    with pytest.raises(GangError, match=r"cannot listen on 203\.0\.113\.9.*`host`"):
        fit(pair, make_data(20), transport_options=sb.TransportOptions(host="203.0.113.9"))


class Watch(Callback):
    passive = True

    def __init__(self):
        self.rounds = []

    def on_round(self, progress):
        self.rounds.append(progress)


def test_updates_that_are_left_out_are_counted(pair):
    features, labels = make_data(40)
    features[3] = np.nan
    watch, network = Watch(), make_network()
    result = fit(pair, (features, labels), network, epochs=2, callbacks=[watch], on_nonfinite="skip", shuffle=False)
    assert result.examples == 80
    assert watch.rounds[-1].figures["skipped"] == 2
    assert np.isfinite(network.state().parameters).all()
    clean = Watch()
    fit(pair, make_data(40), callbacks=[clean], on_nonfinite="skip")
    assert not any("skipped" in progress.figures for progress in clean.rounds)


# -- small data ----------------------------------------------------------------------------------


@pytest.mark.parametrize("staleness", [0, 4])
@pytest.mark.parametrize(("rows", "batch"), [(1, 8), (3, 1), (20, 100)], ids=["one-row", "uneven", "large-batch"])
def test_few_rows_are_trained_and_members_without_rows_keep_up(pair, rows, batch, staleness):
    network = make_network()
    start = network.state().parameters
    result = fit(pair, make_data(rows), network, epochs=3, batch_size_per_worker=batch, max_staleness=staleness)
    assert result.examples == 3 * rows
    assert np.isfinite(result.score)
    assert not np.array_equal(network.state().parameters, start)


def test_one_validation_row_for_two_members(pair):
    network = make_network()
    row = make_data(1, seed=4)
    figures = fit(pair, make_data(40), network, row).epochs[-1].validation
    with sb.Trainer(network, backend=pair) as trainer:
        assert figures["accuracy"] == trainer.evaluate(row).accuracy()
        assert figures["score"] == pytest.approx(trainer.calculate_score(row))


def test_batch_normalisation_with_a_last_row_of_its_own(pair):
    result = fit(pair, make_data(34), make_network("sgd", make_batch_norm), epochs=2)
    assert result.examples == 68


def test_no_rows_at_all(pair, caplog):
    features, labels = make_data(4)
    assert fit(pair, (features[:0], labels[:0])).examples == 0
    assert "nothing was trained" in caplog.text
