"""Spark ML's face: an estimator that trains a network on a DataFrame, and a model that adds its predictions as columns.

Examples
--------
>>> estimator = TorchEstimator(network="my_project.networks:make_network", labelCol="digit", epochs=5)  # doctest: +SKIP
>>> model = Pipeline(stages=[assembler, estimator]).fit(train)  # doctest: +SKIP
>>> model.transform(test).select("prediction")  # doctest: +SKIP
"""

from strombus.spark_ml.stages import TorchEstimator, TorchModel

__all__ = ["TorchEstimator", "TorchModel"]
