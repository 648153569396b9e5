"""DL4J's JSON of evaluations, to and from the records of ``BaseEvaluation.to_dict`` (type, settings, statistics)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from strombus.documents import shorten
from strombus.errors import ConfigurationError, DataError, StrombusWarning
from strombus.interchange.dl4j.json_arrays import packed, read_array, text_array
from strombus.interchange.dl4j.rocs import read_roc, read_rocs, write_roc, write_rocs

__all__ = ["read_evaluation", "write_evaluation"]

Record = dict[str, Any]
_PACKAGES = ("org.nd4j.evaluation.", "org.deeplearning4j.eval.")


def read_evaluation(record: Mapping[str, Any]) -> Record:
    """Return type, settings and statistics of an evaluation that DL4J wrote as JSON.

    Averages are DL4J's own then: a class without a denominator is left out of them (``undefined="exclude"``).

    Raises
    ------
    ConfigurationError
        For a class that is no evaluation, or one whose text does not hold what was counted.
    DataError
        When what is there contradicts itself.
    """
    name = str(record.get("@class"))
    kind = name.rpartition(".")[2]
    if not name.startswith(_PACKAGES) or kind not in _FORMS:
        raise ConfigurationError(f"{shorten(name)} is no evaluation of DL4J's that is read; known: {', '.join(_FORMS)}")
    try:
        return {"type": _FORMS[kind].type, **_FORMS[kind].read(record)}
    except KeyError as error:
        raise DataError(f"{kind} of DL4J's lacks the property {error}") from None
    except (TypeError, ValueError, AttributeError, OverflowError, IndexError) as error:
        if isinstance(error, DataError | ConfigurationError):
            raise
        raise DataError(f"{kind} of DL4J's is damaged: {str(error)[:500]}") from None


def write_evaluation(record: Mapping[str, Any]) -> Record:
    """Return what DL4J reads as JSON, for what `read_evaluation` returns.

    Raises
    ------
    ConfigurationError
        When DL4J has no counterpart, or its text cannot hold what was counted.
    """
    for name, form in _FORMS.items():
        if form.type == record["type"]:
            _check_whole(record["statistics"])
            return {"@class": form.package + name, **form.write(record["settings"], record["statistics"])}
    raise ConfigurationError(f"DL4J has no evaluation like {record['type']}")


def _check_whole(statistics: Any) -> None:
    """Refuse sums of weights, since DL4J's text holds counts."""
    for name, value in statistics.items():
        if name in ("rocs", "roc_binary"):
            for roc in value if isinstance(value, list) else [value]:
                _check_whole(roc)
        elif name in _COUNTS and (np.asarray(value) % 1).any():
            raise ConfigurationError("DL4J's text holds counts, not the sums of weights; write to_json()")


# -- Evaluation ------------------------------------------------------------------------------------


def _read_classes(record: Mapping[str, Any]) -> Record:
    labels = record["labelsList"]
    costs = None if record.get("costArray") is None else read_array(record["costArray"]).reshape(-1).tolist()
    settings = {
        "labels": labels or None,
        "top_n": record["topN"],
        "binary_decision_threshold": record["binaryDecisionThreshold"],
        "binary_positive_class": record["binaryPositiveClass"],
        "cost_array": costs,
        "undefined": "exclude",
        "axis": record["axis"],
    }
    if record["confusion"] is None:
        return {"settings": settings, "statistics": {}}
    classes, pairs = _read_confusion(record["confusion"], len(labels or ()))
    for name, counts in _outcomes(pairs, classes).items():
        given = np.zeros(classes)
        for label, count in record[name]["map"].items():
            given[int(label)] = count
        if not np.array_equal(given, counts):
            raise DataError(f"{name} and the confusion matrix contradict each other")
    correct = record["topNCorrectCount"] if record["topN"] > 1 else 0
    return {
        "settings": settings,
        "statistics": {"classes": classes, "pairs": pairs.tolist(), "top_n_correct": correct},
    }


def _read_confusion(confusion: Mapping[str, Any], named: int) -> tuple[int, NDArray[np.int64]]:
    """Return the number of classes, and actual class, predicted class and count of each pair that occurred."""
    classes = max(2, named, len(confusion["classes"]))
    rows = [np.zeros((0, 3), np.int64)]
    for actual, (predicted, counts) in confusion["matrix"].items():
        row = np.array([[int(actual)] * len(predicted), predicted, counts], np.int64).T
        rows.append(row[row[:, 2] != 0])  # DL4J pads with zeros
    pairs = np.concatenate(rows)
    if pairs.size and not 0 <= pairs[:, :2].min() <= pairs[:, :2].max() < classes:
        raise DataError(f"the confusion matrix of {classes} classes has entries of other classes")
    return classes, pairs


def _outcomes(pairs: NDArray[np.int64], classes: int) -> dict[str, NDArray[Any]]:
    """Return DL4J's four counts of each class."""
    actual, predicted, counts = pairs.T
    same = actual == predicted
    hits = np.bincount(actual[same], counts[same], classes)
    false = np.bincount(predicted, counts, classes) - hits
    missed = np.bincount(actual, counts, classes) - hits
    rest = counts.sum() - hits - false - missed
    return {"truePositives": hits, "falsePositives": false, "trueNegatives": rest, "falseNegatives": missed}


def _write_classes(settings: Mapping[str, Any], statistics: Mapping[str, Any]) -> Record:
    classes = statistics.get("classes") or settings["num_classes"] or len(settings["labels"] or ())
    pairs = np.array(statistics.get("pairs", ()), np.int64).reshape(-1, 3)
    rows, costs = int(pairs[:, 2].sum()), settings["cost_array"]
    several = settings["top_n"] > 1
    return {
        "axis": settings["axis"],
        "binaryPositiveClass": settings["binary_positive_class"],
        "topN": settings["top_n"],
        "topNCorrectCount": statistics.get("top_n_correct", 0) if several else 0,
        "topNTotalCount": rows if several else 0,
        **{name: _counter(counts) for name, counts in _outcomes(pairs, classes).items()},
        "confusion": _write_confusion(pairs, classes) if statistics else None,
        "numRowCounter": rows,
        "labelsList": settings["labels"] or [str(number) for number in range(classes)] or None,
        "binaryDecisionThreshold": settings["binary_decision_threshold"],
        "costArray": None if costs is None else text_array([costs]),
        "maxWarningClassesToPrint": 16,
    }


def _counter(counts: NDArray[Any]) -> Record:
    listed = {str(number): float(count) for number, count in enumerate(counts) if count}
    return {"map": listed, "totalCount": float(counts.sum()), "dirty": False, "empty": not listed}


def _write_confusion(pairs: NDArray[np.int64], classes: int) -> Record:
    # DL4J pads both lists with a 0 for each row that it counted, and reads them without as well.
    rows = {str(actual): pairs[pairs[:, 0] == actual, 1:].T.tolist() for actual in np.unique(pairs[:, 0])}
    return {"classes": list(range(classes)), "matrix": rows}


# -- EvaluationBinary ------------------------------------------------------------------------------

_OUTCOMES = {
    "true_positives": "countTruePositive",
    "false_positives": "countFalsePositive",
    "true_negatives": "countTrueNegative",
    "false_negatives": "countFalseNegative",
}


def _read_binary(record: Mapping[str, Any]) -> Record:
    threshold, roc = record["decisionThreshold"], record["rocBinary"]
    settings = {
        "labels": record["labels"],
        "decision_threshold": None if threshold is None else read_array(threshold).reshape(-1).tolist(),
        "undefined": "exclude",
        "axis": record["axis"],
    }
    statistics: Record = {}
    if record["countTruePositive"] is not None:
        statistics = {ours: list(record[theirs]) for ours, theirs in _OUTCOMES.items()}
    if roc is not None and any(one["isExact"] for one in roc["underlying"] or ()):
        warnings.warn("the exact ROCs of an EvaluationBinary of DL4J's hold no scores: left out", StrombusWarning, 5)
    elif roc is not None:
        read = read_rocs(roc)
        settings["roc_binary_steps"] = read["settings"]["threshold_steps"]
        if statistics:
            statistics["roc_binary"] = read["statistics"]
    return {"settings": settings, "statistics": statistics}


def _write_binary(settings: Mapping[str, Any], statistics: Mapping[str, Any]) -> Record:
    roc, threshold = None, settings["decision_threshold"]
    if settings["roc_binary_steps"] is not None:
        options = {
            "threshold_steps": settings["roc_binary_steps"],
            "labels": settings["labels"],
            "remove_redundant": True,
            "axis": settings["axis"],
        }
        roc = {"@class": "org.nd4j.evaluation.classification.ROCBinary"}
        roc |= write_rocs(options, statistics.get("roc_binary", {}))
    if isinstance(threshold, float):
        threshold = [threshold] * len(statistics.get("true_positives", [0] * (settings["size"] or 1)))
    return {
        "axis": settings["axis"],
        **{theirs: statistics.get(ours) for ours, theirs in _OUTCOMES.items()},
        "rocBinary": roc,
        "labels": settings["labels"],
        "decisionThreshold": None if threshold is None else text_array([threshold]),
    }


# -- RegressionEvaluation --------------------------------------------------------------------------


def _read_regression(record: Mapping[str, Any]) -> Record:
    settings = {"column_names": record["columnNames"], "precision": record["precision"], "axis": record["axis"]}
    if not record["initialized"]:
        return {"settings": settings, "statistics": {}}
    columns = {name: read_array(record[name]).reshape(-1).astype(np.float64) for name in _SUMS}
    count, y, p = (columns[name] for name in ("exampleCountPerColumn", "currentMean", "currentPredictionMean"))
    squares = {
        "y": np.maximum(columns["sumSquaredLabels"] - count * y**2, 0),
        "p": np.maximum(columns["sumSquaredPredicted"] - count * p**2, 0),
    }
    zeros = np.zeros(len(count)).tolist()
    statistics: Record = {
        "count": count.astype(np.int64).tolist(),
        "y_origin": y.tolist(),
        "p_origin": p.tolist(),
        "y_mean": zeros,
        "p_mean": zeros,
        "y_squares": squares["y"].tolist(),
        "p_squares": squares["p"].tolist(),
        "products": (columns["sumOfProducts"] - count * y * p).tolist(),
        "squared_errors": columns["sumSquaredErrorsPerColumn"].tolist(),
        "absolute_errors": columns["sumAbsErrorsPerColumn"].tolist(),
    }
    # DL4J keeps no bounds; they only tell a constant column from one that is not.
    for name, mean in (("y", y), ("p", p)):
        rounding = 1e-14 * count * mean**2
        spread = np.where(squares[name] > rounding, np.sqrt(squares[name] / np.maximum(count, 1)), 0)
        statistics |= {f"{name}_low": (mean - spread).tolist(), f"{name}_high": (mean + spread).tolist()}
    return {"settings": settings, "statistics": statistics}


_SUMS = (
    "exampleCountPerColumn",
    "labelsSumPerColumn",
    "sumSquaredErrorsPerColumn",
    "sumAbsErrorsPerColumn",
    "currentMean",
    "currentPredictionMean",
    "sumOfProducts",
    "sumSquaredLabels",
    "sumSquaredPredicted",
    "sumLabels",
)


def _write_regression(settings: Mapping[str, Any], statistics: Mapping[str, Any]) -> Record:
    names = settings["column_names"]
    head = {"axis": settings["axis"], "initialized": bool(statistics)}
    if not statistics:
        return {**head, "columnNames": names, "precision": settings["precision"], **dict.fromkeys(_SUMS)}
    found = {name: np.array(values, np.float64) for name, values in statistics.items()}
    count, y, p = found["count"], found["y_origin"] + found["y_mean"], found["p_origin"] + found["p_mean"]
    sums = (
        count,
        count * y,
        found["squared_errors"],
        found["absolute_errors"],
        y,
        p,
        found["products"] + count * y * p,
        found["y_squares"] + count * y**2,
        found["p_squares"] + count * p**2,
        count * y,
    )
    return {
        **head,
        "columnNames": names or [f"col_{number}" for number in range(len(count))],
        "precision": settings["precision"],
        **{name: text_array(values) for name, values in zip(_SUMS, sums, strict=True)},
    }


# -- EvaluationCalibration -------------------------------------------------------------------------

_BINS = {
    "bin_positive": ("rDiagBinPosCount", True),
    "bin_total": ("rDiagBinTotalCount", True),
    "bin_sum": ("rDiagBinSumPredictions", True),
    "label_counts": ("labelCountsEachClass", False),
    "prediction_counts": ("predictionCountsEachClass", False),
    "residuals": ("residualPlotOverall", False),
    "residuals_by_class": ("residualPlotByLabelClass", True),
    "probabilities": ("probHistogramOverall", False),
    "probabilities_by_class": ("probHistogramByLabelClass", True),
}
_COUNTED = ("bin_positive", "bin_total", "label_counts", "prediction_counts")
"""What DL4J keeps as LONG; the rest is DOUBLE."""


def _read_calibration(record: Mapping[str, Any]) -> Record:
    settings = {
        "reliability_diag_num_bins": record["reliabilityDiagNumBins"],
        "histogram_num_bins": record["histogramNumBins"],
        "exclude_empty_bins": record["excludeEmptyBins"],
        "axis": record["axis"],
    }
    statistics: Record = {}
    if record["labelCountsEachClass"] is not None:
        for ours, (theirs, table) in _BINS.items():
            array = read_array(record[theirs])
            array = array if table else array.reshape(-1)
            if ours != "bin_sum" and (array != np.rint(array)).any():
                raise DataError(f"{theirs} must hold counts")
            statistics[ours] = (array if ours == "bin_sum" else array.astype(np.int64)).tolist()
    return {"settings": settings, "statistics": statistics}


def _write_calibration(settings: Mapping[str, Any], statistics: Mapping[str, Any]) -> Record:
    written: Record = {
        "reliabilityDiagNumBins": settings["reliability_diag_num_bins"],
        "histogramNumBins": settings["histogram_num_bins"],
        "excludeEmptyBins": settings["exclude_empty_bins"],
        "axis": settings["axis"],
    }
    for ours, (theirs, table) in _BINS.items():
        array = None
        if ours in statistics:
            array = np.array(statistics[ours], np.int64 if ours in _COUNTED else np.float64)
        written[theirs] = None if array is None else packed(array) if table else text_array(array[None])
    return written


_COUNTS = {"pairs", "top_n_correct", "count", "counts", *_OUTCOMES, *_BINS} - {"bin_sum"}


class _Form(NamedTuple):
    type: str
    package: str
    read: Callable[[Mapping[str, Any]], Record]
    write: Callable[[Mapping[str, Any], Mapping[str, Any]], Record]


_CLASSIFICATION = "org.nd4j.evaluation.classification."
_FORMS: Mapping[str, _Form] = {
    "Evaluation": _Form("evaluation", _CLASSIFICATION, _read_classes, _write_classes),
    "EvaluationBinary": _Form("evaluation_binary", _CLASSIFICATION, _read_binary, _write_binary),
    "EvaluationCalibration": _Form("evaluation_calibration", _CLASSIFICATION, _read_calibration, _write_calibration),
    "ROC": _Form("roc", _CLASSIFICATION, read_roc, write_roc),
    "ROCBinary": _Form("roc_binary", _CLASSIFICATION, read_rocs, write_rocs),
    "ROCMultiClass": _Form("roc_multi_class", _CLASSIFICATION, read_rocs, write_rocs),
    "RegressionEvaluation": _Form(
        "regression_evaluation", "org.nd4j.evaluation.regression.", _read_regression, _write_regression
    ),
}
