"""The JSON of evaluations that Deeplearning4j 1.0.0-M2 wrote: read to its figures, written as it writes them."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strombus.compat import dl4j
from strombus.errors import ConfigurationError, DataError, StrombusWarning
from strombus.evaluation import (
    ROC,
    BaseEvaluation,
    Evaluation,
    EvaluationBinary,
    EvaluationCalibration,
    RegressionEvaluation,
    ROCBinary,
    ROCMultiClass,
)
from strombus.interchange.dl4j.json_arrays import read_array
from strombus.interchange.dl4j.ndarray import read_ndarray

GOLDEN = Path(__file__).parents[3] / "golden/evaluation"

KINDS = {
    "calibration": EvaluationCalibration,
    "evaluation": Evaluation,
    "evaluation_absent_class": Evaluation,
    "evaluation_binary": EvaluationBinary,
    "evaluation_binary_threshold": Evaluation,
    "evaluation_masked": Evaluation,
    "evaluation_ties": Evaluation,
    "regression": RegressionEvaluation,
    "regression_masked": RegressionEvaluation,
}
WITHOUT_TEXT = {"roc_binary", "roc_exact", "roc_exact_ties", "roc_multi_class", "roc_steps10", "roc_steps10_ties"}


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())


def text_of(name):
    record = golden(name)
    return (record.get("one_pass") or record)["json"]


def arrays(name):
    found = {
        key: np.array(one["values"], np.float64).reshape(one["shape"])
        for key, one in golden(name).items()
        if isinstance(one, dict) and "values" in one
    }
    return found["labels"], found["predictions"], found.get("mask")


def filled(metric, name):
    metric.add(*arrays(name))
    return metric


def close(value):
    return pytest.approx(value, rel=1e-12, abs=1e-12)


def plain(value, key=""):
    """Arrays as lists, and rows of the confusion matrix without the zeros that DL4J pads them with."""
    if isinstance(value, dict) and "array" in value:
        return read_ndarray(base64.b64decode(value["array"])).tolist()
    if isinstance(value, dict):
        return {name: plain(one, name) for name, one in value.items() if key != "matrix"} | {
            row: [[p, c] for p, c in zip(*pairs, strict=True) if c]
            for row, pairs in (value.items() if key == "matrix" else ())
        }
    return value


def test_every_file_of_the_folder_is_named_here():
    assert {path.stem for path in GOLDEN.iterdir()} == set(KINDS) | WITHOUT_TEXT
    assert not any('"json"' in (GOLDEN / f"{name}.json").read_text() for name in WITHOUT_TEXT)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_read_equals_what_was_counted_here_and_is_written_as_dl4j_did(name):
    read = BaseEvaluation.from_json(text_of(name))
    assert type(read) is KINDS[name]
    ours = filled(type(read)(**read.settings()), name)
    theirs, written = json.loads(text_of(name)), json.loads(read.to_json(dl4j=True))
    assert list(written) == list(theirs)
    if name.startswith("regression"):
        for key in set(theirs) - {"@class", "columnNames", "axis", "precision", "initialized"}:
            np.testing.assert_allclose(read_array(written[key]), read_array(theirs[key]), rtol=1e-12, atol=1e-12)
        for figure in set(read.figures.values()):
            for column in range(3):
                assert getattr(read, figure)(column) == close(getattr(ours, figure)(column))
    else:
        assert plain(written) == plain(theirs)
        found, wanted = read.statistics(), ours.statistics()
        np.testing.assert_allclose(found.pop("bin_sum", 0), wanted.pop("bin_sum", 0), rtol=1e-12)
        assert found == wanted
    assert BaseEvaluation.from_json(read.to_json(dl4j=True)).to_dict().keys() == read.to_dict().keys()
    merged = read.fresh().merge(read).merge(ours)
    assert not merged.empty


def test_dl4js_own_face_reads_them_too():
    read = dl4j.Evaluation.fromJson(text_of("evaluation_ties"))
    assert type(read) is dl4j.Evaluation
    assert read.accuracy() == close(golden("evaluation_ties")["one_pass"]["accuracy"])


@pytest.mark.parametrize("name", ["evaluation_absent_class", "evaluation_ties"])
def test_figures_of_what_was_read_are_dl4js(name):
    read, expected = Evaluation.from_json(text_of(name)), golden(name)["one_pass"]
    assert read.accuracy() == close(expected["accuracy"])
    for figure in ("precision", "recall", "f1"):
        assert getattr(read, figure)() == close(expected[f"{figure}_macro"])
    assert read.top_n_accuracy() == close(expected["top_n_accuracy"])


# No file of DL4J's holds these: its own rules and ours are compared by what comes back.
@pytest.mark.parametrize(
    ("metric", "name"),
    [
        (ROC(10), "roc_steps10"),
        (ROC(10, remove_redundant=False), "roc_steps10_ties"),
        (ROCBinary(7, labels=["a", "b"]), "roc_binary"),
        (ROCMultiClass(5), "roc_multi_class"),
        (EvaluationBinary(roc_binary_steps=4, decision_threshold=0.4), "roc_binary"),
        (EvaluationBinary(3, decision_threshold=[0.2, 0.3, 0.4]), "evaluation_binary"),
        (Evaluation(cost_array=[1.0, 2.0, 0.5, 1.0]), "evaluation"),
    ],
)
def test_what_no_file_holds_comes_back(metric, name):
    empty = BaseEvaluation.from_json(metric.to_json(dl4j=True))
    assert empty.empty
    counted = filled(metric.fresh(), name)
    read = type(metric).from_json(counted.to_json(dl4j=True))
    assert read.statistics() == counted.statistics()
    assert BaseEvaluation.from_json(read.to_json(dl4j=True)) == read


def test_dl4js_counts_of_a_roc():
    """Positives and negatives that reach each threshold, from its curve: no file holds its text."""
    expected = golden("roc_steps10")["one_pass"]
    written = json.loads(filled(ROC(10), "roc_steps10").to_json(dl4j=True))
    assert [float(key) for key in written["counts"]] == expected["roc_threshold"]
    counts = list(written["counts"].values())
    assert [one["countTruePositive"] / expected["count_positive"] for one in counts] == close(expected["roc_tpr"])
    assert [one["countFalsePositive"] / expected["count_negative"] for one in counts] == close(expected["roc_fpr"])


def test_exact_rocs_are_refused_with_what_they_hold():
    with pytest.raises(ConfigurationError, match="does not hold the scores; evaluate with threshold_steps"):
        filled(ROC(), "roc_exact").to_json(dl4j=True)
    exact = {"@class": "org.nd4j.evaluation.classification.ROC", "thresholdSteps": 0, "isExact": True}
    exact |= {"exampleCount": 3, "auc": 0.75, "auprc": 0.5, "rocRemoveRedundantPts": True}
    with pytest.raises(ConfigurationError, match=r"auc = 0\.75 and auprc = 0\.5"):
        ROC.from_json(json.dumps(exact))
    both = json.loads(text_of("evaluation_binary")) | {"rocBinary": {"underlying": [exact], "thresholdSteps": 0}}
    with pytest.warns(StrombusWarning, match="hold no scores: left out"):
        assert EvaluationBinary.from_json(json.dumps(both)) == EvaluationBinary.from_json(text_of("evaluation_binary"))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("evaluation", {"@class": "java.lang.Runtime"}, "is no evaluation of DL4J's.*known: Evaluation, "),
        ("evaluation", {"@class": "org.nd4j.evaluation.custom.CustomEvaluation"}, "is no evaluation of DL4J's"),
        ("evaluation", {"truePositives": {"map": {"0": 5.0}}}, "truePositives and the confusion matrix contradict"),
        ("evaluation", {"truePositives": {"map": {"9": 5.0}}}, "is damaged"),
        ("evaluation", {"confusion": {"classes": [0], "matrix": {"0": [[9], [1]]}}}, "entries of other classes"),
        ("evaluation", {"topNCorrectCount": 61}, "do not fit 4 classes"),
        ("evaluation_binary", {"countTruePositive": [1, 2]}, "same number of outputs"),
        ("regression", {"sumOfProducts": {"dataType": "DOUBLE", "shape": [2], "data": [1.0]}}, "is damaged"),
        ("calibration", {"rDiagBinPosCount": {"array": "AAAA"}}, "must stand here"),
        ("calibration", {"residualPlotOverall": {"dataType": "UTF8", "shape": [1], "data": []}}, "known: DOUBLE"),
    ],
)
def test_what_is_wrong_is_said(name, change, message):
    with pytest.raises((ConfigurationError, DataError), match=message):
        BaseEvaluation.from_json(json.dumps(json.loads(text_of(name)) | change))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.data())
def test_any_property_may_be_missing_or_anything(name, data):
    record = json.loads(text_of(name))
    key = data.draw(st.sampled_from(sorted(set(record) - {"@class"})))
    values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-9, 10**6)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["map", "array", "0", "data"]), inner)
        ),
        max_leaves=6,
    )
    if data.draw(st.booleans()):
        del record[key]
    else:
        record[key] = data.draw(values)
    try:
        read = BaseEvaluation.from_json(json.dumps(record))
    except (ConfigurationError, DataError):
        return
    assert type(read) is KINDS[name]
