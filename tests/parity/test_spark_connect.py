"""Whole fits on Spark Connect: equal to those on this machine, from datasets and from DataFrames."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("grpc", reason="Spark Connect's client is not installed (pip install strombus[connect])")
pytest.importorskip("pyspark", reason="pyspark is not installed")

from helpers.networks import make_data, make_network
from helpers.spark_connect import connect_session
from pyspark.ml.linalg import SparseVector, Vectors, VectorUDT
from pyspark.sql.types import ArrayType, DoubleType, LongType, StructField, StructType

import strombus as sb
from strombus.errors import ConfigurationError, DataError
from strombus.executors.spark_connect import SparkConnectExecutor

pytestmark = pytest.mark.spark

MASTERS = {
    "averaging": sb.ParameterAveragingTrainingMaster(workers=2, batch_size_per_worker=8, rng_seed=7),
    "sharing": sb.SharedTrainingMaster(workers=2, batch_size_per_worker=8, rng_seed=7, max_staleness=0),
}


@pytest.fixture(scope="module")
def session():
    return connect_session()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "rows.zarr"
    sb.data.export(make_data(64), path, backend="local", progress=False)
    return path


@pytest.mark.parametrize("kind", MASTERS)
def test_a_dataset_trains_scores_and_predicts_as_on_this_machine(kind, session, dataset, tmp_path):
    found = {}
    for name, backend in (("local", "local"), ("connect", SparkConnectExecutor(session, directory=tmp_path))):
        network = make_network("momentum")
        with sb.Trainer(network, MASTERS[kind], backend=backend) as trainer:
            result = trainer.fit(dataset, epochs=2, validation=dataset, progress=False)
            assert result.examples == 128
            found[name] = (
                network.state().parameters,
                result.epochs[-1].validation["score"],
                trainer.calculate_score(dataset),
                trainer.evaluate(dataset).confusion_matrix,
                trainer.predict(dataset),
            )
    for here, there in zip(found["local"], found["connect"], strict=True):
        np.testing.assert_allclose(there, here, rtol=0, atol=1e-12)
    assert not list(tmp_path.iterdir()), "nothing stays in the directory"


def frame_of(session, features, labels):
    """Return a DataFrame with the features as a list and as a vector, dense and sparse in turns."""
    vectors = [
        SparseVector(len(row), range(len(row)), row) if number % 2 else Vectors.dense(row)
        for number, row in enumerate(features)
    ]
    rows = [(row.tolist(), vector, int(y)) for row, vector, y in zip(features, vectors, labels, strict=True)]
    names = ("features", ArrayType(DoubleType())), ("vector", VectorUDT()), ("label", LongType())
    schema = StructType([StructField(*name) for name in names])
    return session.createDataFrame(rows, schema)


def test_a_dataframe_is_exported_trained_scored_and_predicted(session):
    features, labels = make_data(60)
    frame = frame_of(session, features, labels)
    network = make_network()
    with sb.Trainer(network, MASTERS["averaging"], backend=session) as trainer:
        assert trainer.executor.name == "spark-connect"
        assert trainer.fit(frame, progress=False).examples == 60
        local = sb.Trainer(network, backend="local")
        assert trainer.calculate_score(frame) == pytest.approx(local.calculate_score((features, labels)), abs=1e-12)
        assert trainer.evaluate(frame).accuracy() == local.evaluate((features, labels)).accuracy()
        got = trainer.predict(frame.select("features"))
        wanted = local.predict(np.array([row.features for row in frame.collect()]))
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12)
        np.testing.assert_allclose(trainer.predict(sb.data.open_source(frame, features="vector")), wanted, atol=1e-12)
        rows = sb.data.table(frame, "vector", "label", weight="label", key="label")
        keys, scores = trainer.score_examples(rows, False)
        assert sorted(keys.tolist()) == sorted(labels.tolist())
        weighted = local.calculate_score(sb.DataSet(features, labels, None, labels[:, None].astype(float)))
        assert np.average(scores, weights=keys) == pytest.approx(weighted, abs=1e-12)


def test_what_connect_cannot_do_is_refused_with_what_works(session):
    features, labels = make_data(12)
    frame = frame_of(session, features, labels)
    direct = sb.ParameterAveragingTrainingMaster(workers=2, rdd_training_approach="Direct")
    with sb.Trainer(make_network(), direct, backend=session) as trainer:
        with pytest.raises(ConfigurationError, match='"Export"'):
            trainer.fit(frame, progress=False)
        with pytest.raises(DataError, match="nofeature"):
            trainer.predict(sb.data.open_source(frame, features="nofeature"))
    with pytest.raises(DataError, match=r"column city holds texts \(string\).*StringIndexer"):
        sb.data.table(session.createDataFrame([(1.0, "Ulm")], "x double, city string"), ["x", "city"])
    missing = session.createDataFrame([([1.0] * 6,), (None,)], "features array<double>")
    with (
        sb.Trainer(make_network(), backend=session) as trainer,
        pytest.raises(sb.errors.TaskError, match="a missing value at row"),
    ):
        trainer.predict(missing)
