"""A normalizer is fitted by the workers and applied by them wherever the network is used."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.networks import make_data, make_network
from sklearn import metrics
from sklearn.preprocessing import StandardScaler
from torch import nn

import strombus as sb
from strombus.errors import ConfigurationError, RunError

Standardize = sb.data.NormalizerStandardize


def master(**options):
    return sb.ParameterAveragingTrainingMaster(batch_size_per_worker=8, averaging_frequency=2, shuffle=False, **options)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Features far from 0, as they are and scaled by scikit-learn, and their dataset of several parts."""
    features, labels = make_data(300)
    features = features * 10.0 ** np.arange(6) + 50
    path = tmp_path_factory.mktemp("data") / "raw.zarr"
    objects = [sb.DataSet(features[at : at + 30], labels[at : at + 30]) for at in range(0, 300, 30)]
    sb.data.export(objects, path, batch_size=8, progress=False)
    return str(path), features, StandardScaler().fit(features).transform(features), labels


def use(network, data, backend):
    """Train a network, and return what it gives in all ways."""
    with sb.Trainer(network, master(workers=2), backend=backend) as trainer:
        trainer.fit(data, progress=False)
        found = trainer.calculate_score(data), trainer.predict(data), trainer.evaluate(data).confusion_matrix
        return network.state().parameters, *found


@pytest.fixture(scope="module")
def wanted(local_executors, stored):
    """What scikit-learn's scaled features give without a normalizer."""
    return use(make_network("momentum"), stored[2:], local_executors[1])


def test_every_use_equals_that_of_scaled_data(backend, stored, wanted):
    path, features, *_ = stored
    normalizer = Standardize().fit(path, backend=backend)
    np.testing.assert_allclose(normalizer.fitted["features_0"]["mean"], features.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(normalizer.fitted["features_0"]["std"], features.std(axis=0), rtol=1e-13)
    network = make_network("momentum", normalizer=normalizer)
    for found, expected in zip(use(network, path, backend), wanted, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(network.predict(features), wanted[2], rtol=1e-9, atol=1e-11)


@pytest.mark.dask
def test_a_bag_is_looked_at_where_it_lies(dask_client, stored):
    import dask.bag as db

    _, features, _, labels = stored
    rows = [sb.DataSet(features[at : at + 7], labels[at : at + 7]) for at in range(0, 300, 7)]
    bag = db.from_sequence(rows, npartitions=5)
    with sb.Trainer(make_network(), backend=dask_client) as trainer:
        found = Standardize().fit(bag, backend=trainer.executor).fitted["features_0"]
    np.testing.assert_allclose(found["std"], features.std(axis=0), rtol=1e-13)


@pytest.mark.spark
def test_an_rdd_is_looked_at_where_it_lies(spark_session, stored):
    _, features, _, labels = stored
    rows = [sb.DataSet(features[at : at + 50], labels[at : at + 50]) for at in range(0, 300, 50)]
    rdd = spark_session.sparkContext.parallelize(rows, 3)
    found = Standardize().fit(rdd, backend=spark_session).fitted["features_0"]
    np.testing.assert_allclose(found["std"], features.std(axis=0), rtol=1e-13)


def test_shared_training_scales_too(local_executors, stored):
    path, _, scaled, labels = stored
    normalizer = Standardize().fit(path, backend=local_executors[1])
    vectors = []
    for options, data in (({"normalizer": normalizer}, path), ({}, (scaled, labels))):
        network = make_network(**options)
        shared = sb.SharedTrainingMaster(workers=1, batch_size_per_worker=8, encoder=sb.DenseEncoder(), shuffle=False)
        with sb.Trainer(network, shared, backend=local_executors[1]) as trainer:
            trainer.fit(data, progress=False)
        vectors.append(network.state().parameters)
    np.testing.assert_allclose(vectors[0], vectors[1], rtol=0, atol=1e-11)


def line(normalizer=None):
    return sb.MultiLayerNetwork(nn.Linear(3, 2).double(), nn.MSELoss(), normalizer=normalizer)


def test_outputs_and_metrics_are_in_the_labels_own_units_and_losses_are_not(local_executors):
    rng = np.random.default_rng(0)
    features, labels = rng.normal(20, 3, (40, 3)), rng.normal(1000, 50, (40, 2))
    normalizer = Standardize(fit_labels=True).fit((features, labels))
    network = line(normalizer)
    theirs = StandardScaler().fit(labels)
    scaled = line()
    scaled.load_state(network.state())
    plain = scaled.predict(StandardScaler().fit(features).transform(features))
    wanted = theirs.inverse_transform(plain)
    with sb.Trainer(network, backend=local_executors[1]) as trainer:
        np.testing.assert_allclose(trainer.predict(features), wanted, rtol=1e-12)
        np.testing.assert_allclose(network.predict(features), wanted, rtol=1e-12)
        found = trainer.evaluate_regression((features, labels))
        score = trainer.calculate_score((features, labels))
    assert found.mean_squared_error(1) == pytest.approx(metrics.mean_squared_error(labels[:, 1], wanted[:, 1]))
    assert score == pytest.approx(((plain - theirs.transform(labels)) ** 2).mean())


def test_saved_and_loaded_with_the_network(tmp_path):
    features = np.random.default_rng(0).normal(20, 3, (40, 3))
    network = line(Standardize().fit(features))
    network.save(tmp_path / "with.safetensors")
    other = line().load(tmp_path / "with.safetensors")
    assert other.normalizer == network.normalizer
    assert np.array_equal(other.predict(features), network.predict(features))
    line().save(tmp_path / "without.safetensors")
    assert other.load(tmp_path / "without.safetensors").normalizer is None


def test_a_run_is_not_taken_up_with_another_normalizer(tmp_path, local_executors):
    data = make_data(40)

    def run(normalizer):
        with sb.Trainer(make_network(normalizer=normalizer), master(workers=1), backend=local_executors[1]) as trainer:
            return trainer.fit(data, name="one", storage_path=tmp_path, progress=False).network

    first = Standardize().fit(data)
    run(first)
    assert run(Standardize().fit(data)).normalizer == first
    with pytest.raises(RunError, match=r"network\.normalizer was .*standardize.*, is .*min_max"):
        run(sb.data.NormalizerMinMaxScaler().fit(data))


def test_what_is_no_fitted_normalizer_is_refused():
    with pytest.raises(ConfigurationError, match="NormalizerStandardize was not fitted"):
        line(Standardize())
    with pytest.raises(ConfigurationError, match=r"one of strombus\.data, .* got StandardScaler"):
        line(StandardScaler())
