"""RDDs and DataFrames on executors that are processes of their own."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pyspark", reason="pyspark is not installed")

from helpers.spark import spark_session

from strombus.data import DataSet, export, load_cell, open_dataset, open_source
from strombus.data.spark_source import storage_level_named
from strombus.errors import ConfigurationError, DataError
from strombus.executors.spark import SparkExecutor

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def session():
    return spark_session()


@pytest.fixture(scope="module")
def executor(session):
    with SparkExecutor(session) as made:
        yield made


def rows(start, count):
    ids = np.arange(start, start + count)
    return DataSet(np.stack([ids, ids], axis=1).astype(np.float32), ids)


def ids_of(path):
    source = open_dataset(path)
    return np.concatenate([source.read(block)["labels"] for block in source.blocks()]).tolist()


def test_an_rdd_is_exported_by_its_executors(session, executor, tmp_path):
    sizes = [3, 1, 5, 0, 100, 7, 4, 1, 79]
    starts = np.cumsum([0, *sizes])
    made = [rows(int(start), size) for start, size in zip(starts[:-1], sizes, strict=True)]
    rdd = session.sparkContext.parallelize(made, 4)
    manifest = export(rdd, tmp_path / "d.zarr", batch_size=16, executor=executor, progress=False)
    assert manifest.examples == 200
    assert ids_of(tmp_path / "d.zarr") == list(range(200))


def test_an_rdd_is_arranged_into_cells_and_released(session, executor):
    rdd = session.sparkContext.parallelize([rows(0, 5), rows(5, 0), rows(5, 1), rows(6, 32), rows(38, 2)], 3)
    source = open_source(rdd)
    assert sum(source.counts(executor)) == 40
    cells = source.arrange(executor, [7, 1, 20, 12], storage_level="MEMORY_ONLY_SER")
    opened = cells[0].handle.collect()
    assert [(number, rows.examples) for number, rows in opened] == [(0, 7), (1, 1), (2, 20), (3, 12)]
    assert [int(i) for _, rows in opened for i in rows.labels] == list(range(40))
    assert cells[0].handle.getStorageLevel() == storage_level_named("MEMORY_ONLY")
    source.release()
    assert not cells[0].handle.getStorageLevel().useMemory


def test_unknown_storage_levels_are_refused():
    with pytest.raises(ConfigurationError, match=r"known: .*MEMORY_AND_DISK"):
        storage_level_named("RAM")


def test_a_data_frame_gives_its_columns(session, executor):
    from pyspark.ml.linalg import Vectors
    from pyspark.sql.types import ArrayType, FloatType, IntegerType, StructField, StructType

    schema = StructType([StructField("features", ArrayType(FloatType())), StructField("label", IntegerType())])
    frame = session.createDataFrame([([float(i), float(i)], i) for i in range(20)], schema)
    source = open_source(frame)
    found = [load_cell(list(part)) for part in source.rdd.glom().collect()]
    assert found[0].features.dtype == np.float32
    assert [int(i) for cell in found for i in cell.labels] == list(range(20))
    vectors = session.createDataFrame([(Vectors.dense([i, 2.0]), float(i)) for i in range(4)], ["pixels", "label"])
    made = [load_cell(list(part)) for part in open_source(vectors, features="pixels").rdd.glom().collect() if part]
    assert [row.tolist() for cell in made for row in cell.features] == [[float(i), 2.0] for i in range(4)]
    numbers = session.createDataFrame([(1.0, 2.0), (3.0, 4.0)], ["a", "b"])
    plain = open_source(numbers, features=["a", "b"], label=None).rdd.collect()
    assert [row for cell in plain for row in cell.features.tolist()] == [[1.0, 2.0], [3.0, 4.0]]
    with pytest.raises(DataError, match="no column features, it has a, b"):
        open_source(numbers)
