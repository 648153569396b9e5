"""SparkComputationGraph: a network of several inputs and outputs on a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from strombus.compat.dl4j.networks import SparkNetwork
from strombus.compat.dl4j.paths import each_partition
from strombus.errors import DataError
from strombus.networks import ComputationGraph

__all__ = ["SparkComputationGraph"]


class SparkComputationGraph(SparkNetwork[ComputationGraph]):
    __doc__ = SparkNetwork.__doc__

    _kind = ComputationGraph

    # DL4J's Java needs a method for each kind of object; here an object says itself which it is.
    fitMultiDataSet = SparkNetwork.fit
    fitPathsMultiDataSet = SparkNetwork.fitPaths
    calculateScoreMultiDataSet = SparkNetwork.calculateScore
    scoreExamplesMultiDataSet = SparkNetwork.scoreExamples
    evaluateMDS = SparkNetwork.evaluate
    evaluateRegressionMDS = SparkNetwork.evaluateRegression
    evaluateROCMDS = SparkNetwork.evaluateROC
    doEvaluationMDS = SparkNetwork.doEvaluation

    def feedForwardWithKeySingle(self, featuresData: Any, batchSize: int) -> Any:
        """Return the one output for each key, given one input; DataError where a graph has several outputs.

        `feedForwardWithKey` gives a tuple of all outputs.
        """
        answers = self.feedForwardWithKey(featuresData, batchSize)
        if isinstance(answers, tuple):  # of a dataset: keys, and outputs
            return next(_single([answers]))
        single = each_partition(answers, _single)
        return list(single) if isinstance(answers, list) else single


def _single(pairs: Iterable[tuple[Any, tuple[Any, ...]]]) -> Iterator[tuple[Any, Any]]:
    for key, outputs in pairs:
        if len(outputs) != 1:
            raise DataError(f"the graph has {len(outputs)} outputs; feedForwardWithKey gives all of them")
        yield key, outputs[0]
