"""The estimators pass scikit-learn's own checks, train as `Trainer` does, and work where scikit-learn's do."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

import strombus as sb
from strombus.errors import ConfigurationError
from strombus.estimators import hidden_layer

ESTIMATORS = [sb.StrombusClassifier(epochs=8, random_state=0), sb.StrombusRegressor(epochs=8, random_state=0)]


EQUIVALENCE = "check_sample_weight_equivalence_on_dense_data"


@parametrize_with_checks(
    ESTIMATORS,
    expected_failed_checks=lambda _: {EQUIVALENCE: "rows that are repeated fall into other minibatches"},
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda one: type(one).__name__)
def test_weights_are_rows_repeated_or_left_out_where_one_minibatch_has_all(estimator):
    master = sb.ParameterAveragingTrainingMaster(workers=1, batch_size_per_worker=1000, shuffle=False)
    whole = clone(estimator).set_params(master=master)
    getattr(estimator_checks, EQUIVALENCE)(type(estimator).__name__, whole)


def test_weights_in_a_pipeline_and_of_rows_in_pieces(digits):
    train, test, labels, wanted = digits
    classifier = sb.StrombusClassifier(random_state=0, epochs=6)
    counts = (labels < 5).astype(float)  # the others are there, and count nothing
    found = make_pipeline(MinMaxScaler(), classifier).fit(train, labels, strombusclassifier__sample_weight=counts)
    assert found.predict(test).max() < 5
    assert found.score(test, wanted, sample_weight=wanted < 5) > 0.9
    with pytest.raises(ValueError, match="Negative values"):
        classifier.fit(train, labels, -counts)
    first, again = (sb.StrombusClassifier(random_state=0, epochs=1) for _ in range(2))
    first.fit(train, labels, counts)
    again.partial_fit(train, labels, sample_weight=counts)
    np.testing.assert_array_equal(first.predict_proba(test), again.predict_proba(test))


@pytest.fixture(scope="module")
def digits():
    features, labels = load_digits(return_X_y=True)
    return train_test_split(features / 16, labels, random_state=0)


def test_it_trains_as_a_trainer_does(digits, local_executors):
    train, _, labels, _ = digits
    optimizer = functools.partial(torch.optim.SGD, lr=0.1)
    master = sb.ParameterAveragingTrainingMaster(workers=2, batch_size_per_worker=16, rng_seed=3)
    torch.manual_seed(0)
    module = hidden_layer(64, 10)
    options = {"optimizer": optimizer, "master": master, "backend": local_executors[1]}
    found = sb.StrombusClassifier(module, **options, epochs=2).fit(train, labels)
    network = sb.MultiLayerNetwork(module.double(), nn.CrossEntropyLoss(), optimizer)
    with sb.Trainer(network, master, backend=local_executors[1]) as trainer:
        result = trainer.fit((train, labels), 2, progress=False)
    np.testing.assert_array_equal(found.network_.state().parameters, network.state().parameters)
    assert found.loss_curve_ == [record.score for record in result.epochs]
    wanted = torch.from_numpy(network.predict(train)).softmax(1)
    np.testing.assert_allclose(found.predict_proba(train), wanted, rtol=0, atol=1e-15)


@pytest.mark.dask
def test_on_a_cluster(digits, dask_client):
    train, test, labels, wanted = digits
    master = sb.SharedTrainingMaster(workers=2, batch_size_per_worker=16, rng_seed=0)
    classifier = sb.StrombusClassifier(master=master, backend=dask_client, epochs=8, random_state=0)
    assert classifier.fit(train, labels).score(test, wanted) > 0.9


def test_in_a_pipeline_and_a_grid_search(digits):
    train, test, labels, wanted = digits
    names = np.array([f"digit {number}" for number in range(10)])
    pipeline = make_pipeline(MinMaxScaler(), sb.StrombusClassifier(random_state=0))
    grid = {
        "strombusclassifier__epochs": [1, 6],
        "strombusclassifier__module": [None, nn.Linear(64, 10)],
    }
    search = GridSearchCV(pipeline, grid, cv=2).fit(train, names[labels])
    assert search.best_params_["strombusclassifier__epochs"] == 6
    assert search.score(test, names[wanted]) > 0.9
    assert set(search.predict(test)) <= set(names)


def test_rows_in_pieces(digits):
    train, test, labels, wanted = digits
    classifier = sb.StrombusClassifier(random_state=0, epochs=1)
    first = labels < 5
    with pytest.raises(ValueError, match=r"y has classes \[5\] that are not among \[0, 1, 2, 3, 4\]; give `classes`"):
        clone(classifier).partial_fit(train[first], labels[first]).partial_fit(train[labels == 5], labels[labels == 5])
    for number in range(12):
        mixed = np.arange(len(train)) % 3 == number % 3
        classifier.partial_fit(train[mixed], labels[mixed], classes=range(10))
    assert classifier.n_iter_ == 12
    assert classifier.score(test, wanted) > 0.9
    with pytest.raises(ValueError, match="must be those of the first fit"):
        classifier.partial_fit(train, labels, classes=range(11))


def test_a_warm_start_goes_on(digits):
    train, _, labels, _ = digits
    master = sb.ParameterAveragingTrainingMaster(workers=1, rng_seed=0)
    warm = sb.StrombusClassifier(master=master, epochs=1, warm_start=True, random_state=0)
    for _ in range(2):
        warm.fit(train, labels)
    whole = sb.StrombusClassifier(master=master, epochs=2, random_state=0).fit(train, labels)
    np.testing.assert_array_equal(warm.network_.state().parameters, whole.network_.state().parameters)
    assert whole.fit(train, labels).n_iter_ == 2


def test_values_of_one_and_of_several_targets():
    features, target = load_diabetes(return_X_y=True)
    target = StandardScaler().fit_transform(target[:, None])
    features = StandardScaler().fit_transform(features).astype(np.float32)
    one = sb.StrombusRegressor(nn.Linear(10, 1), random_state=0).fit(features, target[:, 0])
    assert one.network_.dtype == torch.float32
    assert one.predict(features).shape == (442,)
    least = np.linalg.lstsq(np.c_[features, np.ones(442)], target[:, 0], rcond=None)[1][0]
    assert one.score(features, target[:, 0]) == pytest.approx(1 - least / (target**2).sum(), abs=0.02)
    two = sb.StrombusRegressor(random_state=0).fit(features, np.c_[target, -target])
    assert two.predict(features).shape == (442, 2)
    assert two.score(features, np.c_[target, -target]) > 0.5


def test_losses_of_ones_own(digits):
    train, test, labels, wanted = digits

    def make(features, classes):
        return nn.Sequential(nn.Linear(features, classes), nn.LogSoftmax(1))

    classifier = sb.StrombusClassifier(make, loss=nn.NLLLoss(), epochs=5, random_state=0).fit(train, labels)
    np.testing.assert_allclose(classifier.predict_proba(test).sum(axis=1), 1)
    assert classifier.score(test, wanted) > 0.9


def test_what_makes_no_module_is_refused(digits):
    with pytest.raises(ConfigurationError, match="that makes one; it made int"):
        sb.StrombusClassifier(lambda features, classes: features + classes).fit(digits[0], digits[2])
