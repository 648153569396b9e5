"""Every name that DL4J has for evaluation, statistics, utilities and early stopping is here, or said to be absent."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from strombus.compat import dl4j

ROOT = Path(__file__).parents[3]
MEMBERS = {
    name.rpartition(".")[2]: members
    for name, members in json.loads((ROOT / "tests/golden/dl4j/members.json").read_text()).items()
}
# What every Java object has; Python's ==, hash and str have it too.
OBJECT = {"equals", "hashCode", "toString"}

COUNTS = {"setFalseNegatives", "setFalsePositives", "setTrueNegatives", "setTruePositives"}
ABSENT = {
    "Evaluation": {
        *COUNTS,
        "incrementFalseNegatives",
        "incrementFalsePositives",
        "incrementTrueNegatives",
        "incrementTruePositives",
        "setConfusion",
        "setConfusionMatrixMetaData",
        "setNumRowCounter",
        "setTopNCorrectCount",
        "setTopNTotalCount",
        "getMaxWarningClassesToPrint",
        "setMaxWarningClassesToPrint",
    },
    "EvaluationBinary": {name.replace("set", "setCount").rstrip("s") for name in COUNTS},
    "EvaluationCalibration": set(),
    "ROC": {
        "getExactAllocBlockSize",
        "setExactAllocBlockSize",
        "setAuc",
        "setAuprc",
        "setCountActualNegative",
        "setCountActualPositive",
        "setExact",
        "setExampleCount",
        "setPrCurve",
        "setProbAndLabel",
        "setRocCurve",
    },
    "ROCBinary": {"setUnderlying"},
    "ROCMultiClass": {"setUnderlying"},
    "RegressionEvaluation": {
        "setCurrentMean",
        "setCurrentPredictionMean",
        "setExampleCountPerColumn",
        "setInitialized",
        "setLabelsSumPerColumn",
        "setSumAbsErrorsPerColumn",
        "setSumLabels",
        "setSumOfProducts",
        "setSumSquaredErrorsPerColumn",
        "setSumSquaredLabels",
        "setSumSquaredPredicted",
    },
    "SparkTrainingStats": set(),
    "StatsUtils": set(),
    "MLLibUtil": {
        "fromBinary",
    },
    "SparkDataUtils": set(),
    "SparkUtils": set(),
    "SparkDataValidation": set(),
    "SparkEarlyStoppingTrainer": {
        "pretrain",
    },
    "SparkEarlyStoppingGraphTrainer": {
        "pretrain",
    },
    "SparkDataSetLossCalculator": set(),
    "DataSet": {
        "addFeatureVector",
        "addRow",
        "batchByNumLabels",
        "binarize",
        "detach",
        "divideBy",
        "empty",
        "exampleMaxs",
        "exampleMeans",
        "exampleSums",
        "filterAndStrip",
        "forEach",
        "getColumnNames",
        "getExampleMetaData",
        "getLabelName",
        "getLabelNames",
        "getLabelNamesList",
        "id",
        "isPreProcessed",
        "iterateWithMiniBatches",
        "load",
        "markAsPreProcessed",
        "migrate",
        "multiplyBy",
        "normalize",
        "normalizeZeroMeanZeroUnitVariance",
        "reshape",
        "roundToTheNearest",
        "save",
        "scale",
        "scaleMinAndMax",
        "setColumnNames",
        "setExampleMetaData",
        "setFeatures",
        "setFeaturesMaskArray",
        "setLabelNames",
        "setLabels",
        "setLabelsMaskArray",
        "setNewNumberOfLabels",
        "setOutcome",
        "shuffle",
        "sortAndBatchByNumLabels",
        "sortByLabel",
        "spliterator",
        "squishToRange",
        "validate",
    },
    "MultiDataSet": {
        "detach",
        "getExampleMetaData",
        "load",
        "migrate",
        "save",
        "setExampleMetaData",
        "setFeatures",
        "setFeaturesMaskArray",
        "setFeaturesMaskArrays",
        "setLabels",
        "setLabelsMaskArray",
        "shuffle",
    },
}


def members(name: str) -> set[str]:
    written = [member.split("(")[0].removeprefix("static ") for member in MEMBERS[name]]
    return {member for member in written if member != "<init>"} - OBJECT


@pytest.mark.parametrize("name", sorted(ABSENT))
def test_every_public_member_is_here_or_listed_as_absent(name):
    kind = getattr(dl4j, name)
    assert inspect.getdoc(kind)
    assert ABSENT[name] <= members(name)
    for member in members(name):
        if member in ABSENT[name]:
            assert not hasattr(kind, member), f"{member} is listed as absent"
        else:
            assert inspect.getdoc(getattr(kind, member, None)), f"{name}.{member} is missing or undocumented"


def test_what_is_absent_is_in_the_documentation():
    page = (ROOT / "docs/dl4j_utilities.md").read_text()
    absent = set().union(*ABSENT.values())
    assert not [name for name in sorted(absent) if f"`{name}`" not in page]
