"""DL4J's helpers around RDDs do on Spark and on Dask what they say, and lose nothing."""

from __future__ import annotations

import zipfile
from io import BytesIO

import numpy as np
import pytest

import strombus as sb
from strombus.compat import dl4j
from strombus.errors import ConfigurationError


def sizes(rdd):
    return [len(part) for part in rdd.glom().collect()]


def test_partitions_are_made_even_and_keep_their_order(sc):
    rdd = sc.parallelize(range(11), 2)
    even = dl4j.SparkUtils.repartition(rdd, "Always", "Balanced", 100, 4)
    assert sorted(sizes(even)) == [2, 3, 3, 3]
    assert even.collect() == list(range(11))
    assert sizes(dl4j.SparkUtils.repartitionEqually(rdd, "NumPartitionsWorkersDiffers", 2)) == sizes(rdd)
    assert dl4j.SparkUtils.repartitionApproximateBalance(rdd, "Never", 4) is rdd
    assert dl4j.SparkUtils.repartition(rdd, "Always", "SparkDefault", 1, 3).getNumPartitions() == 3
    with pytest.raises(ConfigurationError, match="at least 1, got 0"):
        dl4j.SparkUtils.repartitionBalanceIfRequired(rdd, "Always", 1, 0)


def test_splits_hold_every_object_once(sc):
    rdd = sc.parallelize(range(23), 3)
    splits = dl4j.SparkUtils.balancedRandomSplit(23, 5, rdd, 7)
    found = [split.collect() for split in splits]
    assert sorted(len(split) for split in found) == [5, 6, 6, 6]
    assert sorted(number for split in found for number in split) == list(range(23))
    assert dl4j.SparkUtils.balancedRandomSplit(23, 5, rdd, 7)[0].collect() == found[0] != list(range(6))


def test_examples_are_shuffled_across_objects(sc):
    objects = [sb.DataSet(np.arange(start, start + 10)[:, None], np.arange(start, start + 10)) for start in (0, 10, 20)]
    rdd = sc.parallelize(objects, 3)
    shuffled = dl4j.SparkUtils.shuffleExamples(rdd, 4, 2, seed=3).collect()
    rows = [row for item in shuffled for row in item.labels.tolist()]
    assert sorted(rows) == list(range(30)) != rows
    assert all((item.features[:, 0] == item.labels).all() for item in shuffled)
    assert sum(len(item) != 4 for item in shuffled) <= 2
    again = dl4j.SparkUtils.shuffleExamples(rdd, 4, 2, seed=3).collect()
    assert [item.labels.tolist() for item in again] == [item.labels.tolist() for item in shuffled]


def test_files_are_listed_and_put_together(sc, tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("a.csv", "b.txt", "deep/c.csv"):
        (tmp_path / "in" / name).write_text(name)
    listed = dl4j.SparkUtils.listPaths(sc, str(tmp_path / "in"), True, {"csv"})
    assert listed.collect() == [str(tmp_path / "in" / name) for name in ("a.csv", "deep/c.csv")]
    assert dl4j.SparkUtils.listPaths(sc, str(tmp_path / "in")).count() == 2
    dl4j.SparkDataUtils.createFileBatchesSpark(listed, str(tmp_path / "out"), 2, sc)
    (path,) = (tmp_path / "out").iterdir()
    with zipfile.ZipFile(path) as file:
        assert [file.read(f"file_{number}.csv") for number in range(2)] == [b"a.csv", b"deep/c.csv"]
    with pytest.raises(ConfigurationError, match="no folder"):
        dl4j.SparkUtils.listPaths(sc, str(tmp_path / "nothing"))


def test_objects_are_numbered_and_arrays_broadcast(sc):
    assert dl4j.SparkUtils.indexedRDD(sc.parallelize("ab", 2)).collect() == [(0, "a"), (1, "b")]
    broadcast = dl4j.SparkUtils.asByteArrayBroadcast(sc, np.arange(3))
    total = sc.parallelize([0], 1).map(lambda _: int(np.load(BytesIO(broadcast.value)).sum())).collect()
    assert total == [3]


def test_written_partitions_train(sc, tmp_path):
    objects = [sb.DataSet(np.full((rows, 2), rows, np.float32), np.ones((rows, 1))) for rows in (3, 1, 5, 2)]
    function = dl4j.BatchAndExportDataSetsFunction(4, tmp_path / "out")
    paths = sc.parallelize(objects, 2).mapPartitionsWithIndex(function).collect()
    assert len(paths) == 2
    assert sorted(sb.data.open_dataset(paths).layout.columns) == ["features", "labels"]
    assert sb.data.open_dataset(paths).rows == 11


def test_points_are_made_and_read(sc):
    pytest.importorskip("pyspark.mllib.regression", reason="pyspark is not installed")
    rdd = sc.parallelize([sb.DataSet(np.array([[1.0, 2.0], [3.0, 4.0]]), np.eye(3)[[2, 0]])], 1)
    points = dl4j.MLLibUtil.fromDataSet(rdd)
    assert list(map(str, points.collect())) == ["(2.0,[1.0,2.0])", "(0.0,[3.0,4.0])"]
    back = dl4j.MLLibUtil.fromLabeledPoint(points, 3, 2).collect()
    assert back[0].labels.tolist() == np.eye(3)[[2, 0]].tolist()
    assert str(dl4j.MLLibUtil.pointOf(["0.5", 2, "1"])) == "(1.0,[0.5,2.0])"
    matrix = np.arange(6.0).reshape(2, 3)
    assert dl4j.MLLibUtil.toMatrix(dl4j.MLLibUtil.toMatrix(matrix)).tolist() == matrix.tolist()
    assert dl4j.MLLibUtil.toVector(dl4j.MLLibUtil.toVector(matrix[0])).tolist() == [0, 1, 2]
