"""torchmetrics' metrics are filled, merged and given back; one that cannot be merged is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

pytest.importorskip("torchmetrics", reason="torchmetrics is not installed: the extra 'metrics' brings it")

import torchmetrics

from strombus.errors import ConfigurationError, DataError
from strombus.evaluation import Evaluation, export_evaluation_html
from strombus.evaluation.request import Request
from strombus.evaluation.torch_metrics import TorchMetric

RNG = np.random.default_rng(0)
NUMBERS, PROBABILITIES = RNG.integers(0, 4, 90), RNG.dirichlet(np.ones(4), 90)
VALUES = RNG.normal(size=(90, 2))
GUESSES = VALUES + RNG.normal(size=(90, 2))

CASES = {
    "accuracy": (torchmetrics.classification.MulticlassAccuracy(4), NUMBERS, PROBABILITIES),
    "confusion": (torchmetrics.classification.MulticlassConfusionMatrix(4), NUMBERS, PROBABILITIES),
    "exact AUC": (torchmetrics.classification.MulticlassAUROC(4), NUMBERS, PROBABILITIES),
    "binned AUC": (torchmetrics.classification.MulticlassAUROC(4, thresholds=20), NUMBERS, PROBABILITIES),
    "R2": (torchmetrics.regression.R2Score(), VALUES[:, 0], GUESSES[:, 0]),
    "Spearman": (torchmetrics.regression.SpearmanCorrCoef(), VALUES[:, 0], GUESSES[:, 0]),
    "MSE": (torchmetrics.regression.MeanSquaredError(num_outputs=2), VALUES, GUESSES),
}


@pytest.mark.parametrize("name", CASES)
def test_merged_equals_one_pass(name):
    metric, labels, output = CASES[name]
    (expected := metric.clone()).update(torch.from_numpy(output), torch.from_numpy(labels))
    parts = []
    for rows in (slice(0, 20), slice(20, 20), slice(20, 85), slice(85, 90)):
        part = TorchMetric(metric).fresh()
        part.add(labels[rows], output[rows])
        parts.append(pickle.loads(pickle.dumps(part)))
    total = parts[0]
    for part in parts[1:]:
        total = total.fresh().merge(total).merge(part)
    torch.testing.assert_close(total.metric.compute(), expected.compute())
    assert metric.update_count == 0
    assert type(metric).__name__ in total.stats()


def test_masks_labels_and_columns_are_fitted():
    metric = TorchMetric(torchmetrics.classification.MulticlassAccuracy(3, average="micro"))
    output, labels, mask = RNG.random((6, 3, 5)), RNG.integers(0, 3, (6, 5)), RNG.integers(0, 2, (6, 5))
    metric.add(labels, output, mask)
    expected = Evaluation()
    expected.add(labels, output, mask)
    assert float(metric.metric.compute()) == pytest.approx(expected.accuracy())
    one_hot = metric.fresh()
    one_hot.add(np.eye(4)[NUMBERS][:, :3], PROBABILITIES[:, :3], NUMBERS < 3)
    keep = NUMBERS < 3
    assert float(one_hot.metric.compute()) == pytest.approx((PROBABILITIES[keep, :3].argmax(1) == NUMBERS[keep]).mean())
    column = TorchMetric(torchmetrics.classification.BinaryAccuracy())
    column.add((NUMBERS > 1).astype(float), PROBABILITIES[:, :1], np.ones((90, 1)))
    assert float(column.metric.compute()) == pytest.approx(((PROBABILITIES[:, 0] > 0.5) == (NUMBERS > 1)).mean())
    mean = TorchMetric(torchmetrics.MeanSquaredError())
    keep = RNG.integers(0, 2, VALUES.shape)
    mean.add(VALUES, GUESSES, keep)
    assert float(mean.metric.compute()) == pytest.approx(((VALUES - GUESSES)[keep == 1] ** 2).mean())
    nothing = mean.fresh()
    nothing.add(VALUES, GUESSES, np.zeros(90))
    assert nothing.metric.update_count == 0


def test_a_request_comes_back_as_it_was_asked():
    collection = torchmetrics.MetricCollection(
        {"a": torchmetrics.classification.MulticlassAccuracy(4), "f": torchmetrics.classification.MulticlassF1Score(4)},
        prefix="test_",
    )
    request = Request({1: [Evaluation(), collection], 0: [torchmetrics.MeanSquaredError()]})
    assert request.outputs == (1, 1, 1, 0)
    assert [metric.probabilities for metric in request.metrics] == [True, True, True, False]
    for metric in request.metrics[:3]:
        metric.add(NUMBERS, PROBABILITIES)
    request.metrics[3].add(VALUES, GUESSES)
    answer = request.answer(request.metrics)
    assert list(answer) == [1, 0]
    evaluation, found = answer[1]
    assert isinstance(found, torchmetrics.MetricCollection)
    collection.update(torch.from_numpy(PROBABILITIES), torch.from_numpy(NUMBERS))
    torch.testing.assert_close(found.compute(), collection.compute())
    assert evaluation.examples == 90
    assert isinstance(answer[0][0], torchmetrics.MeanSquaredError)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (
            [torchmetrics.regression.PearsonCorrCoef()],
            "cannot be merged from partitions: its state 'mean_x' is reduced by None",
        ),
        ([torchmetrics.MeanMetric() + 1], "no states of its own to merge"),
        ([torchmetrics.wrappers.MinMaxMetric(torchmetrics.MeanMetric())], "no states of its own to merge"),
        ([], "at least one metric"),
        (["accuracy"], "or a torchmetrics.Metric, got str"),
        ([Evaluation], "got the class Evaluation itself"),
        (Evaluation(), "must be a sequence of metrics, got Evaluation"),
        ({0: Evaluation()}, "must be a sequence of metrics, got Evaluation"),
        ({"first": [Evaluation()]}, "the number of an output, from 0 on, got 'first'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(metrics, message):
    with pytest.raises(ConfigurationError, match=message):
        Request(metrics)


def test_a_batch_that_does_not_fit_names_the_metric():
    with pytest.raises(
        DataError, match=r"MulticlassAccuracy cannot take an output of shape \(2, 4\) with labels of shape \(3,\)"
    ):
        TorchMetric(torchmetrics.classification.MulticlassAccuracy(4)).add(NUMBERS[:3], PROBABILITIES[:2])
    with pytest.raises(DataError, match="does not fit MulticlassAccuracy"):
        TorchMetric(torchmetrics.classification.MulticlassAccuracy(4)).add(NUMBERS, PROBABILITIES, np.ones((90, 7)))


def test_a_page_shows_what_they_compute(tmp_path):
    accuracy = torchmetrics.classification.MulticlassAccuracy(4, average="micro")
    accuracy.update(torch.from_numpy(PROBABILITIES), torch.from_numpy(NUMBERS))
    share = f"MulticlassAccuracy {np.float32((PROBABILITIES.argmax(1) == NUMBERS).mean())}"
    for shown in (accuracy, [accuracy], torchmetrics.MetricCollection([accuracy])):
        assert share[:20] in export_evaluation_html(shown, tmp_path / "page.html").read_text()
    with pytest.raises(ConfigurationError, match="got dict"):
        export_evaluation_html([{}], tmp_path / "page.html")
