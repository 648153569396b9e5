"""TorchEstimator and TorchModel in Spark ML's own company: pipelines, evaluators, params, persistence."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("pyspark", reason="pyspark is not installed")
pytest.importorskip("pyarrow", reason="pandas UDFs need pyarrow (pip install strombus[connect])")

from helpers.networks import make_data, make_mlp32, make_network, plain_loop
from helpers.spark import spark_session
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.feature import VectorAssembler
from safetensors.torch import load as parse

import strombus as sb
from strombus.errors import ConfigurationError, DataError
from strombus.spark_ml import TorchEstimator, TorchModel

pytestmark = pytest.mark.spark

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # executors cannot import a test module

MAKE = "helpers.networks:make_network"
MASTER = sb.ParameterAveragingTrainingMaster(workers=2, batch_size_per_worker=8, rng_seed=1)


@pytest.fixture(scope="module")
def session():
    return spark_session()


@pytest.fixture(scope="module")
def frame(session):
    """Six columns of numbers, the same as an array, a label, and a third of the rows held out."""
    features, labels = make_data(120)
    rows = [
        (*map(float, row), row.tolist(), int(y), n % 3 == 0)
        for n, (row, y) in enumerate(zip(features, labels, strict=True))
    ]
    columns = ", ".join(f"x{n} double" for n in range(6))
    return session.createDataFrame(rows, f"{columns}, list array<double>, digit long, held boolean").cache()


def estimator(**options):
    given = {"network": MAKE, "master": MASTER, "featuresCol": "vector", "labelCol": "digit", "epochs": 8, **options}
    return TorchEstimator(**given)


@pytest.fixture(scope="module")
def fitted(frame):
    """A pipeline from numbers to predictions, trained."""
    assembler = VectorAssembler(inputCols=[f"x{n}" for n in range(6)], outputCol="vector")
    return Pipeline(stages=[assembler, estimator(rawPredictionCol="raw", validationIndicatorCol="held")]).fit(frame)


def test_a_pipeline_learns_and_predicts_what_the_network_does(fitted, frame):
    predicted = fitted.transform(frame)
    assert predicted.columns == [*frame.columns, "vector", "prediction", "raw"]
    model = fitted.stages[1]
    rows = predicted.collect()
    outputs = model.getOrDefault("network").predict(np.array([row.list for row in rows]))
    np.testing.assert_allclose([row.raw for row in rows], outputs, rtol=1e-6)
    assert [row.prediction for row in rows] == outputs.argmax(1).tolist()
    accuracy = MulticlassClassificationEvaluator(labelCol="digit", metricName="accuracy").evaluate(predicted)
    assert accuracy == np.mean([row.prediction == row.digit for row in rows])
    assert accuracy > 0.6


def test_rows_weigh_what_their_column_says(frame):
    """Rows of weight 0 might as well not be there."""
    features, labels = make_data(120)
    network = make_network("momentum")
    wanted = plain_loop(network, features[::3], labels[::3], [40])
    weighted = frame.withColumn("weight", frame.held.cast("double"))
    master = sb.ParameterAveragingTrainingMaster(workers=1, batch_size_per_worker=128, shuffle=False)
    options = {"network": network, "master": master, "featuresCol": "list", "weightCol": "weight", "epochs": 1}
    found = estimator(**options).fit(weighted).getOrDefault("network").state().parameters
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


def test_rows_held_out_are_scored_and_not_trained(fitted):
    summary = fitted.stages[1].summary
    assert summary.examples == 8 * 80
    assert set(summary.epochs[-1].validation) == {"score", "accuracy"}


def test_a_pipeline_is_saved_and_loaded(fitted, frame, tmp_path):
    path = str(tmp_path / "pipeline")
    fitted.write().overwrite().save(path)
    loaded = PipelineModel.load(path)
    first, second = (one.transform(frame).select("prediction", "raw").collect() for one in (fitted, loaded))
    assert first == second
    assert loaded.stages[1].uid == fitted.stages[1].uid


def test_a_saved_model_is_json_and_safetensors(fitted, session, tmp_path):
    path = tmp_path / "model"
    fitted.stages[1].save(str(path))
    with pytest.raises(Exception, match="already exists"):
        fitted.stages[1].save(str(path))
    fitted.stages[1].write().overwrite().save(str(path))
    metadata = json.loads(session.read.text(str(path / "metadata")).first()[0])
    assert (metadata["network"], metadata["paramMap"]["predictionType"]) == (MAKE, "class")
    data = b"".join(row.data for row in session.read.parquet(str(path / "weights")).orderBy("chunk").collect())
    tensors = parse(data)
    module = fitted.stages[1].getOrDefault("network").module
    assert torch.equal(tensors["module.0.weight"], module[0].weight)
    with pytest.raises(DataError, match="TorchModel"):
        TorchEstimator.load(str(path))


def test_an_estimator_is_copied_saved_and_loaded(tmp_path, session):
    one = estimator(network=make_network("adam"), predictionCol="guess")
    other = one.copy({one.epochs: 3})
    assert (one.getOrDefault("epochs"), other.getOrDefault("epochs")) == (8, 3)
    assert other.uid == one.uid
    path = str(tmp_path / "estimator")
    other.save(path)
    with pytest.raises(ConfigurationError, match=r"read\(\)\.network\(network\)"):
        TorchEstimator.load(path)
    loaded = TorchEstimator.read().network(make_network("adam")).load(path)
    assert (loaded.getOrDefault("epochs"), loaded.getPredictionCol()) == (3, "guess")
    assert loaded.getOrDefault("master") == MASTER


def make_regression():
    torch.manual_seed(1)
    return sb.MultiLayerNetwork(nn.Linear(6, 1), nn.MSELoss(), torch.optim.SGD)


def test_numbers_arrays_and_what_does_not_fit(frame):
    assert frame.schema["list"].dataType.typeName() == "array"
    number = TorchModel(network=make_regression(), predictionType="number", featuresCol="list").transform(frame)
    array = TorchModel(network=make_network(), predictionType="array", featuresCol="list").transform(frame)
    assert [dict(one.dtypes)["prediction"] for one in (number, array)] == ["double", "array<float>"]
    row = number.join(array.select("x0", array.prediction.alias("outputs")), "x0").first()
    np.testing.assert_allclose(
        row.prediction, make_regression().predict(np.array([row.list], np.float32))[0, 0], rtol=1e-5
    )
    np.testing.assert_allclose(row.outputs, make_network().predict(np.array([row.list]))[0], rtol=1e-5)
    with pytest.raises(DataError, match="no column vector"):
        TorchModel(network=MAKE, featuresCol="vector").transform(frame)
    with pytest.raises(ConfigurationError, match="network"):
        TorchEstimator(labelCol="digit", featuresCol="list").fit(frame)
    with pytest.raises(ConfigurationError, match="no_such"):
        TorchModel(network="helpers.networks:no_such", featuresCol="list").transform(frame)


def test_a_python_worker_loads_the_network_once(frame, tmp_path):
    network = sb.MultiLayerNetwork(Counted(make_mlp32(), tmp_path), nn.CrossEntropyLoss())
    predicted = TorchModel(network=network, featuresCol="list").transform(frame.repartition(6))
    (tmp_path / str(os.getpid())).unlink()  # the driver's own copies
    assert len(predicted.collect()) == len(predicted.collect()) == 120
    loads = [len(file.read_text()) for file in tmp_path.iterdir()]
    assert loads
    assert set(loads) == {2}, "the network and the copy that computes, whatever the number of tasks"


class Counted(nn.Module):
    """Leave a mark for each process that loads it."""

    def __init__(self, inner: nn.Module, folder: Path) -> None:
        super().__init__()
        self.inner, self.folder = inner, folder

    def __setstate__(self, state):
        super().__setstate__(state)
        with (self.folder / str(os.getpid())).open("a") as file:
            file.write("x")

    def forward(self, features):
        return self.inner(features)
