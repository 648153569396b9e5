"""DL4J's JSON of ROC curves of fixed thresholds; that of exact ones does not hold the scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from strombus.errors import ConfigurationError, DataError

__all__ = ["read_roc", "read_rocs", "write_roc", "write_rocs"]

Record = dict[str, Any]
_MOST = 10_000_000


def read_roc(record: Mapping[str, Any]) -> Record:
    """Return settings and statistics of a ROC; see `strombus.interchange.dl4j.evaluations.read_evaluation`."""
    steps = record["thresholdSteps"]
    settings = {"threshold_steps": steps, "remove_redundant": record["rocRemoveRedundantPts"]}
    settings["axis"] = record.get("axis", 1)
    if not record["exampleCount"]:
        return {"settings": settings, "statistics": {}}
    if record["isExact"]:
        raise ConfigurationError(
            "an exact ROC of DL4J's is written without its scores, so that nothing can be merged with it or drawn: its "
            f"areas are auc = {record.get('auc')} and auprc = {record.get('auprc')}; evaluate with thresholds there"
        )
    if isinstance(steps, bool) or not isinstance(steps, int) or not 0 < steps <= _MOST:
        raise DataError(f"thresholdSteps must be at least 1, got {steps!r}")
    # By threshold, ascending: positives and negatives that reach it.
    listed = sorted((float(threshold), counts) for threshold, counts in record["counts"].items())
    reach = np.array([[c["countFalsePositive"], c["countTruePositive"]] for _, c in listed], np.int64)
    if len(reach) != steps + 1 or (np.diff(reach, axis=0) > 0).any() or (reach < 0).any():
        raise DataError(f"a ROC of {steps} steps has {steps + 1} thresholds, whose counts never grow")
    if reach[0].tolist() != [record["countActualNegative"], record["countActualPositive"]]:
        raise DataError("the counts of a ROC's first threshold are not those of all labels")
    reach[steps] = 0  # the last step holds what reaches its upper edge
    counts = reach[:-1] - reach[1:]
    used = np.flatnonzero(counts.any(axis=1))
    return {"settings": settings, "statistics": {"steps": used.tolist(), "counts": counts[used].tolist()}}


def write_roc(settings: Mapping[str, Any], statistics: Mapping[str, Any]) -> Record:
    """Return the properties of a ROC."""
    steps = settings["threshold_steps"]
    if not steps:
        raise ConfigurationError(
            "DL4J's JSON of an exact ROC does not hold the scores; evaluate with threshold_steps, or write to_json()"
        )
    counts = np.zeros((steps + 1, 2), np.int64)
    if statistics:
        counts[statistics["steps"]] = statistics["counts"]
    reach = counts[::-1].cumsum(axis=0)[::-1]
    thresholds = [number * (1.0 / steps) for number in range(steps + 1)]  # in DL4J's own rounding: it looks them up
    negatives, positives = reach[0].tolist()
    return {
        "thresholdSteps": steps,
        "countActualPositive": positives,
        "countActualNegative": negatives,
        "counts": {
            str(threshold): {"threshold": threshold, "countTruePositive": yes, "countFalsePositive": no}
            for threshold, (no, yes) in zip(thresholds, reach.tolist(), strict=True)
        },
        "isExact": False,
        "exampleCount": positives + negatives,
        "rocRemoveRedundantPts": settings["remove_redundant"],
    }


def read_rocs(record: Mapping[str, Any]) -> Record:
    """Return settings and statistics of a ROC for each output or class."""
    rocs = [read_roc(one) for one in record["underlying"] or ()]
    settings = {
        "threshold_steps": record["thresholdSteps"],
        "labels": record["labels"],
        "remove_redundant": record["rocRemoveRedundantPts"],
        "axis": record["axis"],
    }
    return {"settings": settings, "statistics": {"rocs": [one["statistics"] for one in rocs]} if rocs else {}}


def write_rocs(settings: Mapping[str, Any], statistics: Mapping[str, Any]) -> Record:
    """Return the properties of a ROC for each output or class."""
    head = {"@class": "org.nd4j.evaluation.classification.ROC"}
    rocs = [head | write_roc(settings, one) for one in statistics.get("rocs", ())]
    if not settings["threshold_steps"]:
        write_roc(settings, {})
    return {
        "underlying": rocs or None,
        "thresholdSteps": settings["threshold_steps"],
        "rocRemoveRedundantPts": settings["remove_redundant"],
        "labels": settings["labels"],
        "axis": settings["axis"],
    }
