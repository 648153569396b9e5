"""The stages: an estimator that trains, a model that predicts."""

from __future__ import annotations

from typing import Any

from pyspark.ml import Estimator, Model
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import (
    HasFeaturesCol,
    HasLabelCol,
    HasPredictionCol,
    HasValidationIndicatorCol,
    HasWeightCol,
)
from pyspark.ml.util import MLReadable, MLWritable, MLWriter

from strombus.data import table
from strombus.errors import ConfigurationError, DataError
from strombus.executors.calls import dump, load
from strombus.executors.values import Packed
from strombus.fitting.result import FitResult
from strombus.masters.base import TrainingMaster
from strombus.masters.parameter_averaging import ParameterAveragingTrainingMaster
from strombus.networks import Network
from strombus.spark_ml.forward import Forward, annotated
from strombus.spark_ml.saving import NetworkReader, NetworkWriter, imported
from strombus.trainer import Trainer
from strombus.worker.inference import InferenceWork, Outputs

__all__ = ["TorchEstimator", "TorchModel"]

LARGEST = 16 << 20
"""Bytes of a network that travels in the plan of a Spark Connect query."""


class _NetworkParams(HasFeaturesCol, HasPredictionCol):  # type: ignore[misc]
    """What estimator and model have in common."""

    network: Param[Any] = Param(
        Params._dummy(), "network", "a Network, or 'package.module:function' of a function that makes one"
    )
    rawPredictionCol: Param[str] = Param(
        Params._dummy(), "rawPredictionCol", "column for the network's output, array<float>", TypeConverters.toString
    )
    batchSize: Param[int] = Param(
        Params._dummy(), "batchSize", "rows of one forward pass in transform", TypeConverters.toInt
    )

    def __init__(self, **values: Any) -> None:
        super().__init__()
        self._setDefault(batchSize=64)
        self._set(**{name: value for name, value in values.items() if value is not None})

    def make_network(self) -> Network:
        """Return a network of its own, with the values of the one that was given."""
        if not self.isDefined(self.network):
            raise ConfigurationError(f"{type(self).__name__} needs a network: network=...")
        found = self.getOrDefault(self.network)
        network = imported(found) if isinstance(found, str) else load(dump(found, "the network"))
        if not isinstance(network, Network):
            raise ConfigurationError(
                f"network must be a MultiLayerNetwork, a ComputationGraph or 'package.module:function', got {found!r}"
            )
        return network

    def plain_params(self) -> dict[str, Any]:
        """Return the values of the params that JSON can express."""
        return {
            param.name: value for param, value in self._paramMap.items() if isinstance(value, str | int | float | bool)
        }


class _TrainingParams(_NetworkParams, HasLabelCol, HasWeightCol, HasValidationIndicatorCol):  # type: ignore[misc]
    """Columns that a fit takes besides."""


class TorchEstimator(_TrainingParams, Estimator, MLWritable, MLReadable):  # type: ignore[misc]
    """Train a network on a DataFrame's columns.

    Parameters
    ----------
    network : Network or str
        What to train, a copy of it; or ``"package.module:function"`` of a function without arguments that makes it:
        estimator and model can then be loaded without further help.
    master : TrainingMaster, optional
        How; `ParameterAveragingTrainingMaster` by default.
    featuresCol : str
        Numbers, arrays of numbers (nested ones too) or vectors.
    labelCol : str
        Class numbers, numbers, arrays or vectors.
    predictionCol : str
        What `TorchModel.transform` adds: the class number as a double where the loss is over classes; else the output,
        as a double where the label is a number, as an array of floats where it is an array or a vector.
    rawPredictionCol : str, optional
        Column for the network's output, an array of floats.
    weightCol : str, optional
        A column of each row's weight in the loss.
    validationIndicatorCol : str, optional
        A boolean column: its rows are not trained, but scored after each epoch (`TorchModel.summary`).
    epochs : int
    batchSize : int
        Rows of one forward pass in `TorchModel.transform`.
    backend : object, optional
        What trains, as `Trainer` takes it; by default the DataFrame's session.

    Notes
    -----
    The master decides how the rows come to the workers: through ``export_directory`` ("Export", the default), which on
    a cluster must be storage that all share, or from Spark's memory ("Direct"; not on Spark Connect).
    """

    master: Param[Any] = Param(Params._dummy(), "master", "how to train, a TrainingMaster")
    epochs: Param[int] = Param(Params._dummy(), "epochs", "passes over the data", TypeConverters.toInt)
    backend: Param[Any] = Param(Params._dummy(), "backend", "what trains; by default the DataFrame's session")

    def __init__(
        self,
        *,
        network: Network | str | None = None,
        master: TrainingMaster | None = None,
        featuresCol: str = "features",
        labelCol: str = "label",
        predictionCol: str = "prediction",
        rawPredictionCol: str | None = None,
        weightCol: str | None = None,
        validationIndicatorCol: str | None = None,
        epochs: int = 1,
        batchSize: int = 64,
        backend: Any = None,
    ) -> None:
        super().__init__(
            network=network,
            master=master,
            featuresCol=featuresCol,
            labelCol=labelCol,
            predictionCol=predictionCol,
            rawPredictionCol=rawPredictionCol,
            weightCol=weightCol,
            validationIndicatorCol=validationIndicatorCol,
            epochs=epochs,
            batchSize=batchSize,
            backend=backend,
        )

    def _fit(self, dataset: Any) -> TorchModel:
        network = self.make_network()
        label, weight = self.getLabelCol(), self.getWeightCol() if self.isDefined(self.weightCol) else None
        columns = self.getFeaturesCol(), label, weight
        train, validation = self._split(dataset)
        master = self.getOrDefault(self.master) if self.isDefined(self.master) else ParameterAveragingTrainingMaster()
        backend = self.getOrDefault(self.backend) if self.isDefined(self.backend) else dataset.sparkSession
        with Trainer(network, master, backend) as trainer:
            summary = trainer.fit(
                table(train, *columns),
                epochs=self.getOrDefault(self.epochs),
                validation=None if validation is None else table(validation, *columns),
                progress=False,
            )
        kind = "class" if network.classifies else _kind_of(dataset.schema[label].dataType)
        model = TorchModel(network=network, predictionType=kind)
        source = self.getOrDefault(self.network)
        model.made_by = source if isinstance(source, str) else None
        model.summary = summary
        fitted: TorchModel = self._copyValues(model, {self.network: network})
        return fitted

    def _split(self, dataset: Any) -> tuple[Any, Any]:
        if not self.isDefined(self.validationIndicatorCol):
            return dataset, None
        held_out = dataset[self.getValidationIndicatorCol()]
        return dataset.filter(~held_out), dataset.filter(held_out)

    def write(self) -> MLWriter:
        """Return what writes the estimator: params, master, and the network's values."""
        return NetworkWriter(self)

    @classmethod
    def read(cls) -> NetworkReader:
        """Return what reads an estimator; ``read().network(...)`` where it was not made by an import path."""
        return NetworkReader(cls)


class TorchModel(_NetworkParams, Model, MLWritable, MLReadable):  # type: ignore[misc]
    """A trained network that adds its predictions to a DataFrame.

    Parameters
    ----------
    network : Network or str
    predictionType : {"class", "number", "array"}
        Whether a prediction is the class number (a double), the output's one number (a double), or the output.
    **columns
        ``featuresCol``, ``predictionCol``, ``rawPredictionCol``, ``batchSize``; see `TorchEstimator`.

    Attributes
    ----------
    summary : FitResult or None
        How the fit went; not saved.
    made_by : str or None
        Import path of the function that makes the network anew when it is loaded.
    """

    predictionType: Param[str] = Param(
        Params._dummy(), "predictionType", "'class', 'number' or 'array'", TypeConverters.toString
    )

    def __init__(self, *, network: Network | str | None = None, predictionType: str = "class", **columns: Any) -> None:
        super().__init__(network=network, predictionType=predictionType, **columns)
        self.summary: FitResult | None = None
        self.made_by = network if isinstance(network, str) else None

    def _transform(self, dataset: Any) -> Any:
        from pyspark.ml.functions import vector_to_array
        from pyspark.ml.linalg import VectorUDT
        from pyspark.sql.functions import col, pandas_udf

        name = self.getFeaturesCol()
        if name not in dataset.columns:
            raise DataError(f"the DataFrame has no column {name}, it has {', '.join(dataset.columns)}")
        forward = Forward(self._packed(dataset), self.getOrDefault(self.predictionType))
        single = "array<float>" if forward.kind == "array" else "double"
        udf = pandas_udf(annotated(forward), f"prediction {single}, raw array<float>")
        is_vector = isinstance(dataset.schema[name].dataType, VectorUDT)
        added = f"{self.uid}_output"
        frame = dataset.withColumn(added, udf(vector_to_array(col(name)) if is_vector else col(name)))
        for target, field in ((self.predictionCol, "prediction"), (self.rawPredictionCol, "raw")):
            if self.isDefined(target):
                frame = frame.withColumn(self.getOrDefault(target), col(f"{added}.{field}"))
        return frame.drop(added)

    def _packed(self, dataset: Any) -> Packed:
        """Return the network as it travels: without the optimizer's state; loaded once in each Python worker."""
        network = self.make_network()
        network.reset_updater()
        work = InferenceWork.of(network, 1, self.getOrDefault(self.batchSize), Outputs(network.several))
        packed = Packed.of(work, "the network")
        size = packed.nbytes + len(packed.head)
        if type(dataset).__module__.startswith("pyspark.sql.connect") and size > LARGEST:
            raise ConfigurationError(
                f"a network of {size / 2**20:.0f} MiB is too large for the plan of a Spark Connect query "
                f"({LARGEST >> 20} MiB): predict with strombus.Trainer(network, backend=SparkConnectExecutor(session, "
                "directory=...)), or transform on Spark Classic"
            )
        return packed

    def write(self) -> MLWriter:
        """Return what writes the model: params as JSON, the network's values as safetensors."""
        return NetworkWriter(self)

    @classmethod
    def read(cls) -> NetworkReader:
        """Return what reads a model; ``read().network(...)`` where it was not made by an import path."""
        return NetworkReader(cls)


def _kind_of(label: Any) -> str:
    return "array" if hasattr(label, "elementType") or label.typeName() == "vectorudt" else "number"
