"""What a round does at its edges: nothing that counts, reads that fail, state that is held already."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.networks import make_data, make_network
from torch import nn

import strombus as sb
from strombus.errors import DataError, EmptyDataError, TaskError
from strombus.executors.local import LocalExecutor


@pytest.fixture(scope="module")
def executor():
    with LocalExecutor(1) as executor:
        yield executor


def fit(executor, network, data, validation=None, **options):
    options = {"workers": 2, "batch_size_per_worker": 5, "averaging_frequency": 1, "rng_seed": 1, **options}
    trainer = sb.Trainer(network, sb.ParameterAveragingTrainingMaster(**options), executor)
    return trainer.fit(data, validation=validation, progress=False)


def test_a_round_in_which_nothing_counts_leaves_the_parameters_and_an_epoch_of_them_is_an_error(executor):
    network = make_network()
    before = network.state().parameters
    features, labels = make_data(20)
    with pytest.raises(DataError, match="all 20 examples of epoch 1 are masked or have no weight"):
        fit(executor, network, (features, np.full_like(labels, -100)))
    assert np.array_equal(network.state().parameters, before)


def test_ignored_labels_are_no_class_in_validation(executor):
    features, labels = make_data(40)
    padded = np.where(np.arange(40) % 4 == 0, -100, labels)
    network = make_network()
    result = fit(executor, network, (features, padded), validation=(features, padded))
    kept = padded != -100
    output = network.predict(features[kept]).argmax(1)
    assert result.epochs[-1].validation["accuracy"] == pytest.approx(np.mean(output == labels[kept]))


def test_empty_validation_data_is_an_error_before_anything_is_trained(executor):
    network = make_network()
    with pytest.raises(EmptyDataError):
        fit(executor, network, make_data(20), validation=iter([]))
    with pytest.raises(EmptyDataError, match="validation"):
        fit(executor, network, make_data(20), validation=(np.zeros((0, 6)), np.zeros(0, np.int64)))
    assert network.iteration == 0


class FailsOnce(sb.data.ArraySource):
    """Storage that does not answer the first time."""

    failed = False

    def read(self, block):
        if not self.failed:
            self.failed = True
            raise OSError("the storage is away")
        return super().read(block)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_after_a_failed_read_the_same_fit_trains_the_same_rows(executor, prefetch):
    features, labels = make_data(30)
    source = FailsOnce(sb.DataSet(features, labels))
    network, expected = make_network(), make_network()
    options = {"worker_prefetch_num_batches": prefetch, "rdd_training_approach": "Direct"}
    with pytest.raises(TaskError, match="the storage is away"):
        fit(executor, network, source, **options)
    fit(executor, network, source, **options)
    fit(executor, expected, (features, labels), **options)
    assert np.array_equal(network.state().parameters, expected.state().parameters)


def test_an_optimizer_whose_state_cannot_travel_starts_afresh_in_every_round(executor):
    features, labels = make_data(20)
    network = sb.MultiLayerNetwork(
        make_network().module, nn.CrossEntropyLoss(), lambda parameters: torch.optim.LBFGS(parameters, lr=0.1)
    )
    reference = network.copy_module()
    fit(executor, network, (features, labels), workers=1, batch_size_per_worker=10, save_updater=False, shuffle=False)
    for start in (0, 10):
        optimizer = torch.optim.LBFGS(reference.parameters(), lr=0.1)
        rows = torch.from_numpy(features[start : start + 10]), torch.from_numpy(labels[start : start + 10])

        def closure(rows=rows, optimizer=optimizer):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(reference(rows[0]), rows[1])
            loss.backward()
            return loss

        optimizer.step(closure)
    expected = np.concatenate([p.detach().numpy().ravel() for p in reference.parameters()])
    np.testing.assert_allclose(network.state().parameters, expected, rtol=0, atol=1e-12)
