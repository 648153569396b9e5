"""DL4J's evaluation classes give the core's figures, and DL4J's own, under DL4J's names."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import strombus as sb
from strombus.compat import dl4j
from strombus.errors import ConfigurationError, DataError, StrombusWarning

GOLDEN = Path(__file__).parents[2] / "golden/evaluation"
Macro, Micro = dl4j.EvaluationAveraging.Macro, dl4j.EvaluationAveraging.Micro


def golden(name):
    record = json.loads((GOLDEN / f"{name}.json").read_text())
    arrays = [np.reshape(record[key]["values"], record[key]["shape"]) for key in ("labels", "predictions")]
    return record, *arrays


def test_evaluation_gives_dl4js_figures():
    record, labels, output = golden("evaluation")
    evaluation = dl4j.Evaluation(["a", "b", "c", "d"], 2)
    evaluation.eval(labels, torch.tensor(output))
    wanted = record["one_pass"]
    assert evaluation.accuracy() == pytest.approx(wanted["accuracy"])
    assert evaluation.topNAccuracy() == pytest.approx(wanted["top_n_accuracy"])
    assert evaluation.getTopNCorrectCount() == round(wanted["top_n_accuracy"] * 60)
    assert evaluation.precision(Macro) == pytest.approx(wanted["precision_macro"])
    assert evaluation.recall(Micro) == pytest.approx(wanted["recall_micro"])
    assert evaluation.f1(Macro) == evaluation.fBeta(1.0, Macro) == pytest.approx(wanted["f1_macro"])
    assert evaluation.gMeasure(Macro) == pytest.approx(wanted["g_measure_macro"])
    assert evaluation.matthewsCorrelation(Macro) == pytest.approx(wanted["matthews_macro"])
    metric = pickle.loads(pickle.dumps(dl4j.Evaluation.Metric.F1))
    assert evaluation.getValue(metric) == evaluation.scoreForMetric("F1") == evaluation.f1()


def counted():
    """Return an evaluation of actual 0 0 0 1 1 2, predicted 0 0 1 1 0 2, four classes."""
    evaluation = dl4j.Evaluation(4)
    for actual, predicted in [(0, 0), (0, 0), (0, 1), (1, 1), (1, 0), (2, 2)]:
        evaluation.eval(predicted, actual)
    return evaluation


def test_counts_are_those_of_the_hand():
    evaluation = counted()
    assert evaluation.truePositives() == {0: 2, 1: 1, 2: 1, 3: 0}
    assert evaluation.falsePositives() == {0: 1, 1: 1, 2: 0, 3: 0}
    assert evaluation.getFalseNegatives() == {0: 1, 1: 1, 2: 0, 3: 0}
    assert evaluation.getTrueNegatives()[0] == 2
    assert evaluation.positive() == {0: 3, 1: 2, 2: 1, 3: 0}
    assert evaluation.negative()[3] == evaluation.getNumRowCounter() == evaluation.getTopNTotalCount() == 6
    assert evaluation.classCount(1) == 2
    matrix = evaluation.getConfusionMatrix()
    assert (matrix.getCount(0, 1), matrix.getActualTotal(0), matrix.getPredictedTotal(0)) == (1, 3, 3)
    assert np.asarray(matrix).tolist() == evaluation.confusion_matrix.tolist()
    assert matrix.toCSV().splitlines()[1] == "0,2,1,0,0,3"
    assert matrix.toHTML().count("<tr>") == 6
    evaluation.addToConfusion(3, 0)
    assert evaluation.getConfusion().getCount(3, 0) == 1


def test_an_undefined_class_is_left_out_or_has_what_the_caller_says():
    evaluation = counted()
    assert evaluation.recall(Macro) == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert evaluation.averageRecallNumClassesExcluded() == evaluation.averagePrecisionNumClassesExcluded() == 1
    assert evaluation.averageF1NumClassesExcluded() == evaluation.averageFBetaNumClassesExcluded() == 1
    assert evaluation.recall(3) == 0
    assert evaluation.recall(3, 0.25) == evaluation.precision(3, 0.25) == evaluation.falseNegativeRate(3, 0.25) == 0.25
    assert evaluation.recall(0, 0.25) == pytest.approx(2 / 3)
    assert evaluation.fBeta(2.0, 3, 0.5) == 0.5
    assert evaluation.falsePositiveRate(0) == pytest.approx(1 / 3)


def test_rows_are_found_again_by_their_metadata():
    labels, output = np.eye(2)[[0, 1, 1]], np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    one, two = dl4j.Evaluation(), dl4j.Evaluation()
    one.eval(labels, output, ["first", "second", "third"])
    two.eval(labels, output, np.array([0, 1, 1]), ["fourth", "fifth", "sixth"])
    assert one.merge(two) is one
    assert one.getPredictionErrors() == [(1, 0, "second"), (1, 0, "fifth")]
    assert one.getPredictions(1, 1) == ["third", "sixth"]
    assert [row.recordMetaData for row in one.getPredictionsByActualClass(0)] == ["first"]
    assert len(one.getPredictionByPredictedClass(0)) == 3
    assert set(one.getConfusionMatrixMetaData()) == {(0, 0), (1, 0), (1, 1)}
    with pytest.raises(DataError, match="entry for each of 3 rows, got 1"):
        one.eval(labels, torch.tensor(output, requires_grad=True), None, ["only"])
    assert one.getNumRowCounter() == 5


@pytest.mark.parametrize(
    ("arguments", "setting", "value"),
    [
        ((3,), "num_classes", 3),
        ((2, 0), "binary_positive_class", 0),
        ((0.3,), "binary_decision_threshold", 0.3),
        ((["no", "yes"],), "labels", ["no", "yes"]),
        (({0: "no", 1: "yes"},), "labels", ["no", "yes"]),
        ((["a", "b", "c"], 2), "top_n", 2),
        ((["a", "b"], np.array([1.0, 2.0])), "cost_array", [1.0, 2.0]),
        ((np.array([1.0, 2.0]),), "cost_array", [1.0, 2.0]),
    ],
)
def test_evaluation_is_made_as_dl4js_constructors_make_it(arguments, setting, value):
    assert dl4j.Evaluation(*arguments).settings()[setting] == value
    assert dl4j.Evaluation(*arguments).newInstance().settings()[setting] == value


def test_what_decides_the_counting_is_set_before_it():
    evaluation = dl4j.Evaluation()
    evaluation.setBinaryDecisionThreshold(0.2)
    evaluation.eval(np.array([1, 0]), np.array([0.3, 0.1]))
    assert (evaluation.getBinaryDecisionThreshold(), evaluation.accuracy()) == (0.2, 1.0)
    evaluation.setLabelsList(["no", "yes"])
    assert evaluation.getClassLabel(1) == "yes"
    assert evaluation.getNumRowCounter() == 2
    with pytest.raises(ConfigurationError, match="set it first"):
        evaluation.setBinaryDecisionThreshold(0.4)
    evaluation.reset()
    evaluation.setBinaryDecisionThreshold(0.4)
    with pytest.raises(ConfigurationError, match="at least 0"):
        evaluation.setCostArray([-1.0, 1.0])


def test_binary_outputs_have_the_cores_figures():
    rng = np.random.default_rng(3)
    labels, output = rng.integers(0, 2, (30, 2)), rng.random((30, 2))
    labels[:, 1] = 1
    mine, core = dl4j.EvaluationBinary(2, 0), sb.EvaluationBinary(2, undefined="exclude")
    mine.eval(labels, output)
    core.add(labels, output)
    assert mine.averageF1() == core.average_f1()
    assert mine.fBeta(2.0, 0) == core.f_beta(2.0, 0)
    assert mine.getCountTruePositive() == [mine.truePositives(0), core.true_positives(1)]
    assert math.isnan(mine.falsePositiveRate(1))
    assert (mine.falsePositiveRate(1, 0.5), mine.falseNegativeRate(0, 0.5)) == (0.5, core.false_negative_rate(0))
    assert mine.getROCBinary().calculateAUC(0) == mine.roc_binary.calculate_auc(0)
    assert dl4j.EvaluationBinary(np.array([0.2, 0.8])).getDecisionThreshold() == [0.2, 0.8]


def test_regression_has_the_sums_of_its_columns():
    rng = np.random.default_rng(4)
    labels, output = rng.normal(5, 1, (40, 2)), rng.normal(5, 1, (40, 2))
    evaluation = dl4j.RegressionEvaluation("weight", "height")
    evaluation.eval(labels[:15], output[:15])
    evaluation.eval(labels[15:], output[15:])
    close = pytest.approx
    assert evaluation.meanSquaredError(0) == close(((labels - output)[:, 0] ** 2).mean())
    assert evaluation.correlationR2(1) == close(np.corrcoef(labels[:, 1], output[:, 1])[0, 1])
    assert evaluation.getSumSquaredLabels() == close((labels**2).sum(axis=0))
    assert evaluation.getSumSquaredPredicted() == close((output**2).sum(axis=0))
    assert evaluation.getSumOfProducts() == close((labels * output).sum(axis=0))
    assert evaluation.getLabelsSumPerColumn() == close(labels.sum(axis=0))
    assert evaluation.getCurrentPredictionMean() == close(output.mean(axis=0))
    assert evaluation.getSumAbsErrorsPerColumn() == close(np.abs(labels - output).sum(axis=0))
    assert evaluation.getExampleCountPerColumn().tolist() == [40, 40]
    assert evaluation.getColumnNames() == ["weight", "height"]
    assert dl4j.RegressionEvaluation(3, 7).getPrecision() == 7


def test_roc_counts_at_each_threshold():
    labels, scores = np.array([0, 1, 1, 0, 1]), np.array([0.1, 0.4, 0.8, 0.4, 0.9])
    exact, steps = dl4j.ROC(), dl4j.ROC(2, False)
    for roc in (exact, steps):
        roc.eval(labels, scores)
    assert exact.calculateAUC() == pytest.approx(5.5 / 6)
    assert exact.isExact()
    assert exact.getProbAndLabel().tolist() == [[0.1, 0], [0.4, 0], [0.4, 1], [0.8, 1], [0.9, 1]]
    assert steps.getCounts() == {1.0: (1.0, 0, 0), 0.5: (0.5, 2, 0), 0.0: (0.0, 3, 2)}
    assert (exact.getCountActualPositive(), exact.getCountActualNegative(), exact.getExampleCount()) == (3, 2, 5)
    with pytest.raises(ConfigurationError, match="does not keep the scores"):
        steps.getProbAndLabel()
    assert (steps.getThresholdSteps(), steps.isRocRemoveRedundantPts()) == (2, False)
    with pytest.warns(StrombusWarning, match="exactAllocBlockSize has no effect"):
        dl4j.ROC(0, True, 2048)


def test_roc_of_classes_has_one_for_each():
    _, labels, output = golden("roc_multi_class")
    many = dl4j.ROCMultiClass(0)
    many.eval(labels, output)
    areas = [roc.calculateAUC() for roc in many.getUnderlying()]
    assert many.calculateAverageAUC() == pytest.approx(np.mean(areas))
    assert many.getNumClasses() == len(areas) == labels.shape[1]
    single = dl4j.ROC()
    single.eval(labels[:, 1], output[:, 1])
    assert single.calculateAUC() == many.calculateAUC(1)


def test_calibration_gives_copies_of_its_counts():
    _, labels, output = golden("calibration")
    evaluation = dl4j.EvaluationCalibration(5, 20)
    evaluation.eval(labels, output)
    assert evaluation.getRDiagBinTotalCount().sum(axis=0).tolist() == [len(labels)] * labels.shape[1]
    assert evaluation.getLabelCountsEachClass().tolist() == labels.sum(axis=0).tolist()
    assert evaluation.getResidualPlotOverall().sum() == labels.size
    evaluation.getResidualPlotOverall()[:] = 0
    assert evaluation.getResidualPlotAllClasses().counts.sum() == labels.size
    assert (evaluation.getReliabilityDiagNumBins(), evaluation.getHistogramNumBins()) == (5, 20)
    assert evaluation.getValue("ECE") == evaluation.expected_calibration_error()


ALL = [
    dl4j.Evaluation(["no", "yes"]),
    dl4j.EvaluationBinary(2, 4),
    dl4j.EvaluationCalibration(),
    dl4j.ROC(8),
    dl4j.ROCBinary(),
    dl4j.ROCMultiClass(),
    dl4j.RegressionEvaluation(2),
]


@pytest.mark.parametrize("empty", ALL, ids=lambda one: type(one).__name__)
def test_halves_that_were_written_and_read_merge_to_the_whole(empty):
    rng = np.random.default_rng(5)
    labels, output = np.eye(2)[rng.integers(0, 2, 20)], rng.dirichlet([1, 1], 20)
    whole, half, other = (empty.newInstance() for _ in range(3))
    whole.eval(labels, output)
    half.eval(labels[:8], output[:8])
    other.eval(labels[8:], output[8:])
    read = type(empty).fromYaml(type(empty).fromJson(half.toJson()).toYaml())
    assert type(read) is type(empty)
    assert read == half
    read.merge(pickle.loads(pickle.dumps(other)))
    assert read.stats() == whole.stats()
    assert type(empty).of(whole) == whole


def test_rows_are_reshaped_and_masked_ones_left_out():
    output, mask = np.arange(12.0).reshape(2, 2, 3), np.array([[1, 1, 0], [0, 0, 1]])
    labels, rows, keep = dl4j.Evaluation.reshapeAndExtractNotMasked(output, output, mask, 1)
    assert rows.tolist() == labels.tolist() == [[0, 3], [1, 4], [8, 11]]
    assert keep.tolist() == [[1, 1]] * 3
    assert dl4j.ROC.reshapeAndExtractNotMasked(output, output, 0 * mask, 1) is None


def test_sequences_count_by_steps():
    labels, mask = np.eye(2)[[[0, 1, 1]]].transpose(0, 2, 1), np.array([[1, 1, 0]])
    evaluation = dl4j.Evaluation()
    evaluation.evalTimeSeries(labels, labels, mask)
    assert (evaluation.getNumRowCounter(), evaluation.accuracy()) == (2, 1.0)


def test_a_trainer_takes_and_returns_them():
    torch.manual_seed(0)
    rng = np.random.default_rng(6)
    data = rng.normal(size=(50, 4)).astype(np.float32), rng.integers(0, 3, 50)
    network = sb.MultiLayerNetwork(nn.Linear(4, 3), nn.CrossEntropyLoss(), torch.optim.SGD)
    with sb.Trainer(network, backend="local") as trainer:
        mine, roc, core = trainer.do_evaluation(
            data, [dl4j.Evaluation(3), dl4j.ROCMultiClass(), sb.Evaluation(3, undefined="exclude")]
        )
    assert type(mine) is dl4j.Evaluation
    assert mine.truePositives() == dict(enumerate(core.true_positives().tolist()))
    assert mine.stats() == core.stats()
    assert 0 < roc.calculateAverageAUC() < 1
