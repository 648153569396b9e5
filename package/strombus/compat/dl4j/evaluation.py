"""`Evaluation` under DL4J's names, with its confusion matrix and its look-ups by record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, Self

import numpy as np

from strombus import evaluation as core
from strombus.compat.dl4j.confusion import ConfusionMatrix
from strombus.compat.dl4j.metrics import EvaluationMethods, each, setting, setting_setter
from strombus.errors import ConfigurationError, DataError
from strombus.evaluation.outcomes import Outcomes
from strombus.evaluation.rows import class_rows

__all__ = ["Evaluation", "EvaluationAveraging", "Prediction"]


class EvaluationAveraging(StrEnum):
    """How the classes' figures become one."""

    Macro = "macro"
    Micro = "micro"


class Prediction(NamedTuple):
    """One row, and what was said of it when it was evaluated."""

    actualClass: int
    predictedClass: int
    recordMetaData: Any


def _figure(name: str) -> Callable[..., float]:
    """Return a method for a ratio of each class: DL4J's arguments on the core's method."""
    method, ratio = getattr(core.Evaluation, name), getattr(Outcomes, name)

    def figure(
        self: Any,
        label: int | EvaluationAveraging | None = None,
        average: float | str | None = None,
    ) -> float:
        if isinstance(label, EvaluationAveraging):
            return float(method(self, average=label.value))
        if isinstance(average, int | float):  # DL4J's edge case: what a class without a denominator has
            value = ratio(self.outcomes)[self._number(label)]
            return float(average if np.isnan(value) else value)
        return float(method(self, label, average))

    figure.__name__, figure.__doc__ = name, f"{method.__doc__} Takes a class, and what is returned where it has none."
    return figure


class Evaluation(EvaluationMethods, core.Evaluation):
    """Accuracy, precision, recall, F1 and more of a classifier; see `strombus.Evaluation`.

    Parameters
    ----------
    first : int, float, list of str, dict or array, optional
        As DL4J's constructors: number of classes, decision threshold, names of the classes, or costs.
    second : int, float or array, optional
        The positive class after a number of classes or a threshold; after names the N of the top N, or costs.
    **settings
        `strombus.Evaluation`'s, by name. Averages leave undefined classes out, as DL4J's do, unless
        ``undefined="zero"``.
    """

    _core = core.Evaluation

    def __init__(self, first: Any = None, second: Any = None, **settings: Any) -> None:
        super().__init__(**{"undefined": "exclude", **_settings(first, second), **settings})
        self._predictions: list[Prediction] = []

    # -- counting --------------------------------------------------------------------------------

    def eval(self, labels: Any, predictions: Any, mask: Any = None, metadata: Sequence[Any] | None = None) -> None:
        """Take in a batch, or with two integers one row: predicted and actual class; see `EvaluationMethods.eval`."""
        if isinstance(labels, int | np.integer) and isinstance(predictions, int | np.integer):
            self._count(actual=int(predictions), predicted=int(labels))
        else:
            super().eval(labels, predictions, mask, metadata)

    def _take_in(self, labels: Any, predictions: Any, mask: Any, metadata: Sequence[Any] | None) -> None:
        if metadata is not None and (len(metadata) != len(labels) or np.ndim(predictions) > 2):
            raise DataError(f"metadata needs an entry for each of {len(labels)} rows, got {len(metadata)}")
        super()._take_in(labels, predictions, mask, None)
        if metadata is not None:
            kept = metadata if mask is None else [m for m, keep in zip(metadata, np.ravel(mask), strict=True) if keep]
            actual, rows, _ = class_rows(labels, predictions, mask, self.axis)
            found = zip(actual.tolist(), self._decide(rows).tolist(), kept, strict=True)
            self._predictions += [Prediction(*row) for row in found]

    def _count(self, actual: int, predicted: int) -> None:
        if self._classes is None:
            raise ConfigurationError("give Evaluation the number of classes before single class numbers are counted")
        self._fit(self._classes)
        key = self._number(actual) * self._classes + self._number(predicted)
        self._pairs.add(np.array([key]), np.ones((1, 1), np.int64))
        self._top_hits += actual == predicted

    def addToConfusion(self, real: int, guess: int) -> None:
        """Count a row of class `real` for which `guess` was predicted; all figures follow from such counts."""
        self._count(actual=real, predicted=guess)

    def _merge(self, other: Self) -> None:
        super()._merge(other)
        self._predictions = self._predictions + getattr(other, "_predictions", [])

    # -- figures ---------------------------------------------------------------------------------

    precision: Any = _figure("precision")
    recall: Any = _figure("recall")
    falsePositiveRate = _figure("false_positive_rate")
    falseNegativeRate = _figure("false_negative_rate")
    falseAlarmRate = core.Evaluation.false_alarm_rate
    topNAccuracy = core.Evaluation.top_n_accuracy

    def fBeta(self, beta: float, label: int | EvaluationAveraging | None = None, default: float = 0.0) -> float:
        """Return the F of `beta` of a class, `default` where it is undefined; or an average."""
        if label is None or isinstance(label, EvaluationAveraging):
            return self.f_beta(beta, average=None if label is None else label.value)
        value = self.outcomes.f_beta(beta)[self._number(label)]
        return float(default if np.isnan(value) else value)

    def f1(self, label: Any = None, average: Any = None) -> float:
        """Return the harmonic mean of precision and recall, of a class or averaged."""
        return self._averaged("f1", label, average)

    def gMeasure(self, label: int | EvaluationAveraging | None = None) -> float:
        """Return the geometric mean of precision and recall, of a class or averaged."""
        return self._averaged("g_measure", label)

    def matthewsCorrelation(self, label: int | EvaluationAveraging | None = None) -> float:
        """Return the correlation of one class against the rest, or an average."""
        return self._averaged("matthews_correlation", label)

    def _averaged(self, name: str, label: Any, average: Any = None) -> float:
        method = getattr(super(), name)
        if isinstance(label, EvaluationAveraging):
            return float(method(average=label.value))
        return float(method(label, average))

    def averagePrecisionNumClassesExcluded(self) -> int:
        """Return how many classes have no precision, since they were never predicted."""
        return len(self.undefined_classes("precision"))

    def averageRecallNumClassesExcluded(self) -> int:
        """Return how many classes have no recall, since no label is theirs."""
        return len(self.undefined_classes("recall"))

    def averageF1NumClassesExcluded(self) -> int:
        """Return how many classes have no F1."""
        return len(self.undefined_classes("f1"))

    averageFBetaNumClassesExcluded = averageF1NumClassesExcluded

    # -- counts ----------------------------------------------------------------------------------

    classCount = core.Evaluation.class_count
    confusionToString = core.Evaluation.confusion_to_string
    confusionMatrix = core.Evaluation.confusion_to_string

    def getConfusionMatrix(self) -> ConfusionMatrix:
        """Return how often each class was predicted for each."""
        return ConfusionMatrix(self.confusion_matrix, [self.class_label(i) for i in range(len(self.confusion_matrix))])

    getConfusion = getConfusionMatrix

    def truePositives(self) -> dict[int, int]:
        """Return the hits of each class."""
        return each(self.outcomes.true_positives)

    def falsePositives(self) -> dict[int, int]:
        """Return how often each class was predicted for another."""
        return each(self.outcomes.false_positives)

    def trueNegatives(self) -> dict[int, int]:
        """Return how often each class was rightly not predicted."""
        return each(self.outcomes.true_negatives)

    def falseNegatives(self) -> dict[int, int]:
        """Return how often each class was missed."""
        return each(self.outcomes.false_negatives)

    def positive(self) -> dict[int, int]:
        """Return the rows labelled as each class."""
        return each(self.outcomes.positives)

    def negative(self) -> dict[int, int]:
        """Return the rows labelled as another class."""
        return each(self.outcomes.negatives)

    def getTruePositives(self) -> Counter[int]:
        """Return `truePositives` as a counter."""
        return Counter(self.truePositives())

    def getFalsePositives(self) -> Counter[int]:
        """Return `falsePositives` as a counter."""
        return Counter(self.falsePositives())

    def getTrueNegatives(self) -> Counter[int]:
        """Return `trueNegatives` as a counter."""
        return Counter(self.trueNegatives())

    def getFalseNegatives(self) -> Counter[int]:
        """Return `falseNegatives` as a counter."""
        return Counter(self.falseNegatives())

    def getNumRowCounter(self) -> float:
        """Return how many rows were counted, or the sum of their weights; 0 before the first."""
        return 0 if self.empty else self.examples

    getTopNTotalCount = getNumRowCounter

    def getTopNCorrectCount(self) -> float:
        """Return in how many rows the true class was among the top N; 0 before the first."""
        rows = self.getNumRowCounter()
        found = self.top_n_accuracy() * rows if rows else 0
        return found if isinstance(rows, float) else round(found)

    # -- rows by their metadata ------------------------------------------------------------------

    def getConfusionMatrixMetaData(self) -> dict[tuple[int, int], list[Any]]:
        """Return the metadata of the rows of each pair of actual and predicted class."""
        found: dict[tuple[int, int], list[Any]] = {}
        for actual, predicted, metadata in self._predictions:
            found.setdefault((actual, predicted), []).append(metadata)
        return found

    def getPredictionErrors(self) -> list[Prediction]:
        """Return the rows that were wrong, of those evaluated with metadata."""
        return [row for row in self._predictions if row.actualClass != row.predictedClass]

    def getPredictions(self, actualClass: int, predictedClass: int) -> list[Any]:
        """Return the metadata of the rows of one cell of the confusion matrix."""
        return self.getConfusionMatrixMetaData().get((actualClass, predictedClass), [])

    def getPredictionsByActualClass(self, actualClass: int) -> list[Prediction]:
        """Return the rows labelled so, of those evaluated with metadata."""
        return [row for row in self._predictions if row.actualClass == actualClass]

    def getPredictionByPredictedClass(self, predictedClass: int) -> list[Prediction]:
        """Return the rows for which the class was predicted, of those evaluated with metadata."""
        return [row for row in self._predictions if row.predictedClass == predictedClass]

    # -- settings --------------------------------------------------------------------------------

    getClassLabel = core.Evaluation.class_label
    getTopN = setting("top_n")
    getLabelsList = setting("labels")
    setLabelsList = setting_setter("labels")
    getCostArray = setting("cost_array")
    setCostArray = setting_setter("cost_array")
    getBinaryPositiveClass = setting("binary_positive_class")
    setBinaryPositiveClass = setting_setter("binary_positive_class")
    getBinaryDecisionThreshold = setting("binary_decision_threshold")
    setBinaryDecisionThreshold = setting_setter("binary_decision_threshold")


def _settings(first: Any, second: Any) -> dict[str, Any]:
    """Return the settings that DL4J's positional arguments stand for."""
    if first is None:
        return {}
    if isinstance(first, bool):
        raise ConfigurationError(f"Evaluation takes classes, a threshold, names or costs, got {first!r}")
    if isinstance(first, int | np.integer | float):
        name = "binary_decision_threshold" if isinstance(first, float) else "num_classes"
        return {name: first, **({} if second is None else {"binary_positive_class": second})}
    if isinstance(first, Mapping) or (isinstance(first, Sequence) and all(isinstance(name, str) for name in first)):
        extra = "top_n" if isinstance(second, int | np.integer) else "cost_array"
        return {"labels": first, **({} if second is None else {extra: second})}
    return {"cost_array": first}
