"""Distributed tables train, score and predict as the arrays do that were put into them, on their own engine."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed (pip install strombus[tables])")

from helpers.networks import make_data, make_network

import strombus as sb
from strombus.errors import DataError, TaskError

X, Y = make_data(90)
W = np.random.default_rng(5).integers(0, 4, 90)
KEYS = [f"row-{n}" for n in range(90)]
MASTERS = {
    "Export": sb.ParameterAveragingTrainingMaster(workers=2, batch_size_per_worker=5, rng_seed=1, shuffle=False),
    "Direct": sb.ParameterAveragingTrainingMaster(
        workers=2, batch_size_per_worker=5, rng_seed=1, shuffle=False, rdd_training_approach="Direct"
    ),
}
COLUMNS = {"features": ["pair", "x2", "x3", "rest"], "label": "y", "weight": "w", "key": "id"}


def check_against_arrays(frame, backend, approaches=tuple(MASTERS)):
    """Train, score and predict on the table and on its arrays."""
    arrays = sb.DataSet(X, Y, None, W[:, None].astype(float))
    for approach in approaches:
        found = []
        for data in (arrays, sb.data.table(frame, **COLUMNS)):
            network = make_network("momentum")
            with sb.Trainer(network, MASTERS[approach], backend=backend) as trainer:
                trainer.fit(data, progress=False)
                found.append(
                    (network.state().parameters, trainer.calculate_score(data), trainer.evaluate(data).confusion_matrix)
                )
        for wanted, got in zip(*found, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12)
    with sb.Trainer(network, backend=backend) as trainer:
        wanted, outputs = trainer.score_examples(arrays, False), trainer.predict(arrays)
        for (keys, got), column in (
            (trainer.score_examples(data, False), wanted),
            (trainer.feed_forward_with_key(data), outputs),
        ):
            assert keys.tolist() == KEYS
            np.testing.assert_allclose(got, column, rtol=0, atol=1e-12)
        np.testing.assert_allclose(trainer.predict(data), outputs, rtol=0, atol=1e-12)


def pandas_frame():
    columns = {"x2": X[:, 2], "x3": X[:, 3], "y": Y, "w": W, "id": KEYS, "city": ["Ulm"] * 90}
    return pd.DataFrame({"pair": X[:, :2].tolist(), **columns, "rest": X[:, 4:].tolist()})


@pytest.mark.dask
def test_a_dask_dataframe(dask_client, tmp_path):
    import dask
    import dask.dataframe as dd

    with dask.config.set({"dataframe.convert-string": False}):  # or lists become texts
        frame = dd.from_pandas(pandas_frame(), npartitions=4)
    check_against_arrays(frame, dask_client)
    pandas_frame().to_parquet(tmp_path / "t.parquet", row_group_size=8)
    check_against_arrays(tmp_path / "t.parquet", dask_client, ["Export"])
    with pytest.raises(DataError, match=r"city holds texts .*categorize\(\[\"city\"\]\).*get_dummies"):
        sb.data.table(dd.from_pandas(pandas_frame(), npartitions=1), ["x2", "city"])
    gaps = sb.data.table(dd.from_pandas(pd.DataFrame({"x": [1.0, np.nan]}), npartitions=1), "x")
    message = "x holds whole numbers and 1 NaN, the first at row 1 of partition 0"
    with sb.Trainer(make_network(), backend=dask_client) as trainer, pytest.raises(TaskError, match=message):
        trainer.predict(gaps)


@pytest.mark.spark
def test_a_spark_dataframe_with_a_vector(tmp_path):
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    from helpers.spark import spark_session
    from pyspark.ml.linalg import SparseVector, Vectors, VectorUDT
    from pyspark.sql.types import ArrayType, DoubleType, LongType, StringType, StructField, StructType

    vectors = [SparseVector(2, [0, 1], row) if n % 2 else Vectors.dense(row) for n, row in enumerate(X[:, 4:])]
    rows = zip(X[:, :2].tolist(), *X[:, 2:4].T.tolist(), Y.tolist(), W.tolist(), KEYS, vectors, strict=True)
    kinds = [ArrayType(DoubleType()), DoubleType(), DoubleType(), LongType(), LongType(), StringType(), VectorUDT()]
    names = ["pair", "x2", "x3", "y", "w", "id", "rest"]
    schema = StructType([StructField(*column) for column in zip(names, kinds, strict=True)])
    frame = spark_session().createDataFrame(list(rows), schema)
    check_against_arrays(frame, spark_session(), ["Direct"])
    frame.write.parquet(str(tmp_path / "t"))
    sb.data.export(sb.data.table(tmp_path / "t", **COLUMNS), tmp_path / "t.zarr", progress=False)
    stored = sb.data.open_dataset(tmp_path / "t.zarr")
    np.testing.assert_array_equal(np.concatenate([stored.read(block)["features"] for block in stored.blocks()]), X)
    assert stored.read_keys(0, 90).tolist() == KEYS
    with pytest.raises(DataError, match=r"id holds texts \(string\).*StringIndexer"):
        sb.data.table(frame, ["x2", "id"])
    rows = [([1.0, 2.0], [1]), ([1.0, None], [])]
    bad = spark_session().createDataFrame(rows, "gap array<double>, ragged array<long>").coalesce(1)
    with sb.Trainer(make_network(), backend=spark_session()) as trainer:
        for name, message in (("gap", "has a missing value at"), ("ragged", "need one shape:")):
            with pytest.raises(TaskError, match=f"column {name} {message} row 1 of partition 0"):
                trainer.predict(sb.data.table(bad, name))
