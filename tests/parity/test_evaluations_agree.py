"""Every backend evaluates to the same figures, ties and merging included."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.networks import make_data, make_network
from sklearn import metrics

import strombus as sb


@pytest.fixture(scope="session")
def evaluations_seen():
    """JSON of the metrics from the backend that ran first."""
    return []


def test_figures_agree(backend, evaluations_seen):
    torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    features, labels = make_data(230)
    features = features.round()  # so that rows, and with them outputs, repeat
    asked = [
        sb.Evaluation(top_n=2),
        sb.EvaluationCalibration(),
        sb.ROCMultiClass(),
        sb.ROCMultiClass(20),
        torchmetrics.classification.MulticlassConfusionMatrix(3),
    ]
    network = make_network()
    with sb.Trainer(network, backend=backend) as trainer:
        *ours, theirs = trainer.do_evaluation((features, labels), asked, batch_size=16)
    predicted = network.predict(features).argmax(axis=1)
    np.testing.assert_array_equal(ours[0].confusion_matrix, metrics.confusion_matrix(labels, predicted))
    np.testing.assert_array_equal(ours[0].confusion_matrix, theirs.compute().numpy())
    figures = [metric.value(figure) for metric in ours for figure in metric.figures]
    evaluations_seen.append(figures)
    assert figures == pytest.approx(evaluations_seen[0], abs=1e-9)
