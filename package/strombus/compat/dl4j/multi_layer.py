"""SparkDl4jMultiLayer: a network of one input and one output on a cluster."""

from __future__ import annotations

from typing import Any

from strombus.compat.dl4j import points
from strombus.compat.dl4j.networks import SparkNetwork
from strombus.networks import MultiLayerNetwork

__all__ = ["SparkDl4jMultiLayer"]


class SparkDl4jMultiLayer(SparkNetwork[MultiLayerNetwork]):
    __doc__ = SparkNetwork.__doc__

    _kind = MultiLayerNetwork

    def fitLabeledPoint(self, rdd: Any) -> MultiLayerNetwork:
        """Train one epoch on MLlib's labelled points, whose labels are class numbers; return the driver's network.

        Parameters
        ----------
        rdd : RDD, Bag or iterable of LabeledPoint
            Or of anything with `label` and `features`. A loss that takes no class numbers gets them one-hot, as wide
            as the network's output.
        """
        return self.fit(points.classified(rdd, self.getNetwork(), self._trainer.executor))

    def fitContinuousLabeledPoint(self, rdd: Any) -> MultiLayerNetwork:
        """Train one epoch on MLlib's labelled points, whose labels are numbers; return the driver's network."""
        return self.fit(points.continuous(rdd))

    def predict(self, point: Any) -> Any:
        """Return the output for a vector, or for each row of a matrix, computed here.

        Parameters
        ----------
        point : Vector, Matrix or ndarray
            MLlib's; what comes back is of the same library.
        """
        return points.predict(self.getNetwork(), point)

    def feedForwardWithMaskAndKey(self, featuresDataAndMask: Any, batchSize: int) -> Any:
        """Return the output for each key, given (key, (features, mask)).

        See `strombus.Trainer.feed_forward_with_mask_and_key`.
        """
        return self._trainer.feed_forward_with_mask_and_key(featuresDataAndMask, batchSize)
