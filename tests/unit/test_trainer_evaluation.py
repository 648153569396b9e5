"""What a Trainer evaluates: every metric in one pass, on probabilities, output by output, never of another network."""

from __future__ import annotations

import sys
import threading

import cloudpickle
import numpy as np
import pytest
import torch
from helpers.networks import make_data, make_network
from sklearn import metrics
from torch import nn

import strombus as sb
from strombus.errors import ConfigurationError, TaskError
from strombus.evaluation import Metric

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def alone(local_executors):
    return local_executors[1]


class Raw(Metric):
    """Keeps what it is given."""

    def __init__(self):
        self.rows = []

    def add(self, labels, output, mask=None):
        self.rows.append((labels, output, mask))

    def merge(self, other):
        self.rows += other.rows
        return self

    def fresh(self):
        return Raw()

    def stats(self):
        return str(len(self.rows))


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


@pytest.mark.parametrize("slots", [1, 2])
def test_classes_are_judged_by_the_losses_probabilities(local_executors, slots):
    features, labels = make_data(150)
    network = make_network()
    likely = torch.from_numpy(network.predict(features)).softmax(dim=1).numpy()
    calibration = sb.EvaluationCalibration(5)
    with sb.Trainer(network, backend=local_executors[slots]) as trainer:
        exact = trainer.evaluate_roc_multi_class((features, labels), labels=["a", "b", "c"])
        binned = trainer.evaluate_roc_multi_class((features, labels), threshold_steps=50, batch_size=11)
        found = trainer.evaluate((features, labels), labels=["a", "b", "c"], top_n=2)
        raw, calibration = trainer.do_evaluation((features, labels), [Raw(), calibration])
    expected = metrics.roc_auc_score(labels, likely, multi_class="ovr")
    assert exact.calculate_average_auc() == pytest.approx(expected, abs=1e-9)
    assert binned.calculate_average_auc() == pytest.approx(expected, abs=0.02)
    assert found.top_n_accuracy() == pytest.approx(metrics.top_k_accuracy_score(labels, likely, k=2))
    assert "labels" not in found.stats().splitlines()[0]
    assert found.labels == exact.labels == ["a", "b", "c"]
    order = calibration.get_reliability_diagram(0).mean_predicted_value
    assert 0 <= order.min() <= order.max() <= 1
    np.testing.assert_allclose(np.concatenate([row[1] for row in raw.rows]), network.predict(features), atol=1e-12)


def make_yes_or_no():
    torch.manual_seed(0)
    return nn.Linear(6, 1).double()


def make_pair():
    torch.manual_seed(0)
    return nn.Linear(6, 2).double()


def test_logits_of_a_yes_or_no_are_cut_at_a_half(alone):
    features, numbers = make_data(80)
    labels = (numbers == 0).astype(np.float64)[:, None]
    network = sb.MultiLayerNetwork(make_yes_or_no, nn.BCEWithLogitsLoss())
    output = network.predict(features)
    with sb.Trainer(network, backend=alone) as trainer:
        roc = trainer.evaluate_roc((features, labels), 100)
        exact = trainer.evaluate_roc((features, labels))
        binary, found = trainer.do_evaluation((features, labels), [sb.EvaluationBinary(), sb.Evaluation()])
    assert exact.calculate_auc() == pytest.approx(metrics.roc_auc_score(labels, output), abs=1e-9)
    assert roc.calculate_auc() == pytest.approx(
        metrics.roc_auc_score(labels, np.floor(100 * sigmoid(output))), abs=1e-9
    )
    wanted = metrics.accuracy_score(labels, output > 0)
    assert binary.accuracy(0) == found.accuracy() == pytest.approx(wanted)
    network = sb.MultiLayerNetwork(make_yes_or_no)  # whose loss does not say what its output is
    with (
        sb.Trainer(network, backend=alone) as trainer,
        pytest.raises(TaskError, match=r"needs probabilities from 0 to 1, got .* give the network a loss over logits"),
    ):
        trainer.evaluate_roc((features, labels), 100)


def test_thresholds_and_costs_are_those_of_probabilities(alone):
    features, labels = make_data(100)
    network = sb.MultiLayerNetwork(make_pair, nn.CrossEntropyLoss())
    likely = torch.from_numpy(network.predict(features)).softmax(1).numpy()
    labels = labels % 2
    asked = [sb.Evaluation(), sb.Evaluation(binary_decision_threshold=0.3), sb.Evaluation(cost_array=[1, 4])]
    with sb.Trainer(network, backend=alone) as trainer:
        found = trainer.do_evaluation((features, labels), asked)
    decided = [likely.argmax(1), likely[:, 1] > 0.3, 4 * likely[:, 1] > likely[:, 0]]
    for evaluation, predicted in zip(found, decided, strict=True):
        assert evaluation.confusion_matrix.tolist() == metrics.confusion_matrix(labels, predicted).tolist()


@pytest.mark.parametrize("slots", [1, 2])
def test_a_regression_is_evaluated_column_by_column(local_executors, slots):
    features = make_data(90)[0]
    labels = features[:, :2] * 3 + 1
    network = sb.MultiLayerNetwork(make_pair, nn.MSELoss())
    with sb.Trainer(network, backend=local_executors[slots]) as trainer:
        found = trainer.evaluate_regression((features, labels), 7, column_names=["x", "y"])
    output = network.predict(features)
    for i in range(2):
        assert found.r_squared(i) == pytest.approx(metrics.r2_score(labels[:, i], output[:, i]), abs=1e-9)
        assert found.mean_absolute_error(i) == pytest.approx(metrics.mean_absolute_error(labels[:, i], output[:, i]))
    assert "x " in found.stats()


class Two(nn.Module):
    """A class and a value of the same features."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.a, self.b = nn.Linear(6, 3).double(), nn.Linear(6, 1).double()

    def forward(self, features):
        return self.a(features), self.b(features)


def test_every_output_of_a_graph_in_one_pass(alone):
    features, numbers = make_data(60)
    values, keep = features[:, :1] * 2, np.arange(60) % 3 > 0
    data = sb.MultiDataSet([features], [numbers, values], labels_masks=[None, keep.astype(np.uint8)])
    network = sb.ComputationGraph(Two, [nn.CrossEntropyLoss(), nn.MSELoss()])
    with sb.Trainer(network, backend=alone) as trainer:
        answer = trainer.do_evaluation(
            data, {1: [sb.RegressionEvaluation()], 0: [sb.Evaluation(), sb.ROCMultiClass()]}, batch_size=13
        )
        first = trainer.evaluate(data)
        with pytest.raises(TaskError, match="there is no output 2 to evaluate: the module gives 2"):
            trainer.do_evaluation(data, {2: [sb.Evaluation()]})
        with pytest.raises(TaskError, match="there are none for output 1"):
            trainer.do_evaluation(sb.MultiDataSet([features], [numbers]), {1: [sb.RegressionEvaluation()]})
    classes, value = network.predict([features])
    assert answer[0][0] == first
    assert first.accuracy() == pytest.approx(metrics.accuracy_score(numbers, classes.argmax(1)))
    assert answer[1][0].mean_squared_error(0) == pytest.approx(metrics.mean_squared_error(values[keep], value[keep]))
    assert answer[1][0].example_count() == keep.sum()
    likely = torch.from_numpy(classes).softmax(1).numpy()
    expected = metrics.roc_auc_score(numbers, likely, multi_class="ovr")
    assert answer[0][1].calculate_average_auc() == pytest.approx(expected, abs=1e-9)


class Steps(nn.Module):
    """Three classes for each of five time steps, classes along axis 1."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Conv1d(2, 3, 1).double()

    def forward(self, features, mask=None):
        return self.layer(features)


def test_padding_and_ignored_labels_do_not_count(alone):
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(20, 2, 5)), rng.integers(0, 3, (20, 5))
    mask = (np.arange(5) < rng.integers(1, 6, 20)[:, None]).astype(np.float64)
    ignored = np.where(mask > 0, labels, -100)
    network = sb.MultiLayerNetwork(Steps, nn.CrossEntropyLoss())
    predicted = network.predict(features).argmax(1)
    expected = metrics.confusion_matrix(labels[mask > 0], predicted[mask > 0], labels=range(3)).tolist()
    datasets = {
        "features mask": sb.DataSet(features, labels, features_mask=mask),
        "labels mask": sb.DataSet(features, labels, labels_mask=mask),
        "ignored": sb.DataSet(features, ignored),
        "both": sb.DataSet(features, ignored, labels_mask=np.ones((20, 5))),
    }
    with sb.Trainer(network, backend=alone) as trainer:
        for name, data in datasets.items():
            assert trainer.evaluate(data, batch_size=6).confusion_matrix.tolist() == expected, name


def test_torchmetrics_come_back_filled(local_executors):
    torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    features, labels = make_data(120)
    network = make_network()
    likely = torch.from_numpy(network.predict(features)).softmax(1)
    given = torchmetrics.classification.MulticlassAUROC(3)
    collection = torchmetrics.MetricCollection([torchmetrics.classification.MulticlassAccuracy(3)])
    with sb.Trainer(network, backend=local_executors[2]) as trainer:
        auc, both, ours = trainer.do_evaluation((features, labels), [given, collection, sb.Evaluation()], 17)
        with pytest.raises(ConfigurationError, match="cannot be merged from partitions"):
            trainer.do_evaluation((features, labels), [torchmetrics.PearsonCorrCoef()])
    assert float(auc.compute()) == pytest.approx(metrics.roc_auc_score(labels, likely, multi_class="ovr"), abs=1e-6)
    assert float(both.compute()["MulticlassAccuracy"]) == pytest.approx(ours.recall(average="macro"), abs=1e-6)
    assert given.update_count == 0


@pytest.mark.parametrize("backend", ["local-1", "local-2", pytest.param("dask", marks=pytest.mark.dask)])
def test_evaluations_of_different_networks_at_the_same_time_do_not_mix(local_executors, backend, request):
    """Two threads on one backend, each with its own network, again and again."""
    backend = request.getfixturevalue("dask_client") if backend == "dask" else local_executors[int(backend[-1])]
    features, labels = make_data(400)
    networks = [make_network() for _ in range(2)]
    with torch.no_grad():
        for parameter in networks[1].module.parameters():
            parameter.neg_()
    wanted = [metrics.confusion_matrix(labels, network.predict(features).argmax(1)).tolist() for network in networks]
    assert wanted[0] != wanted[1]
    found = [[], []]

    def evaluate(number):
        trainer = sb.Trainer(networks[number], backend=backend)
        for _ in range(5):
            found[number].append(trainer.evaluate((features, labels), batch_size=20).confusion_matrix.tolist())

    threads = [threading.Thread(target=evaluate, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert found == [[wanted[0]] * 5, [wanted[1]] * 5]


def test_one_trainer_evaluates_in_two_threads(alone):
    features, labels = make_data(200)
    network = make_network()
    expected = metrics.accuracy_score(labels, network.predict(features).argmax(1))
    found = []
    with sb.Trainer(network, backend=alone) as trainer:
        threads = [
            threading.Thread(target=lambda: found.append(trainer.evaluate((features, labels), 9).accuracy()))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
    assert found == pytest.approx([expected] * 3)
