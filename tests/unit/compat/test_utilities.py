"""DL4J's statistics, data sets, files, validation and conversions, without an engine."""

from __future__ import annotations

import io
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

import strombus as sb
from strombus import data as sb_data
from strombus.compat import dl4j
from strombus.errors import ConfigurationError, DataError
from strombus.stats import TrainingStats
from strombus.types import Event

EVENTS = [
    Event("train", None, 10.0, 3.0, "driver:1"),
    Event("fit", 0, 10.5, 0.25, "host:2", {"examples": 16, "loss": 0.5}),
    Event("fit", 0, 11.5, 0.125, "host:2", {"examples": 16, "loss": 0.25}),
    Event("warm_up", 0, 10.1, 0.1, "host:2"),
]


# -- statistics


def test_statistics_answer_to_dl4js_keys():
    stats = dl4j.SparkTrainingStats(TrainingStats(EVENTS))
    fit = {"ParameterAveragingWorkerFitTimesMs", "WorkerFlatMapProcessMiniBatchTimesMs"}
    assert stats.getKeySet() == {"ParameterAveragingMasterFitTimesMs", "warm_up", *fit}
    durations = [event.seconds for event in stats.getValue("ParameterAveragingWorkerFitTimesMs")]
    assert durations == [event.seconds for event in stats.getValue("fit")] == [0.25, 0.125]
    assert stats.getValue("ParameterAveragingMasterSplitTimesMs") == []
    assert stats.getShortNameForKey("WorkerFlatMapProcessMiniBatchTimesMs") == "ProcessBatch"
    assert stats.getShortNameForKey("warm_up") == "warm_up"
    assert stats.defaultIncludeInPlots("fit")
    assert not stats.defaultIncludeInPlots("ParameterAveragingMasterFitTimesMs")
    with pytest.raises(ConfigurationError, match="no phase is called 'Nothing'; timed were: "):
        stats.getValue("Nothing")


def test_statistics_add_up_and_hold_the_workers():
    stats = dl4j.SparkTrainingStats()
    assert stats.getNestedTrainingStats() is None
    stats.addOtherTrainingStats(TrainingStats(EVENTS[:1]))
    stats.addOtherTrainingStats(dl4j.SparkTrainingStats(TrainingStats(EVENTS[1:])))
    workers = stats.getNestedTrainingStats()
    assert workers.core.keys() == ("fit", "warm_up")
    assert workers.getNestedTrainingStats() is None
    assert stats.statsAsString() == TrainingStats(EVENTS).as_string()


@pytest.mark.parametrize("name", ["exportStatsAsHtml", "exportStatsAsHTML"])
def test_the_page_goes_to_a_path_or_a_stream(tmp_path, name):
    export = getattr(dl4j.StatsUtils, name)
    stats = dl4j.SparkTrainingStats(TrainingStats(EVENTS))
    binary, text = io.BytesIO(), io.StringIO()
    export(stats, str(tmp_path / "new" / "page.html"), None)
    export(stats.core, 1_200_000, binary)
    export(stats, text)
    stats.core.to_html(tmp_path / "core.html")
    page = (tmp_path / "core.html").read_text()
    assert (tmp_path / "new" / "page.html").read_text() == binary.getvalue().decode() == text.getvalue() == page
    with pytest.raises(ConfigurationError, match="one path or stream"):
        export(stats, None)


def test_events_are_written_as_text(tmp_path):
    stats = dl4j.SparkTrainingStats(TrainingStats(EVENTS))
    stats.exportStatFiles(str(tmp_path), None)
    assert {path.name for path in tmp_path.iterdir()} == {"train.csv", "fit.csv", "warm_up.csv"}
    events = stats.getValue("fit")
    assert dl4j.StatsUtils.getDurationAsString(events, ",") == "250,125"
    dl4j.StatsUtils.exportStats(events, str(tmp_path), "fit.txt", "\t", None)
    dl4j.StatsUtils.exportStats(events, str(tmp_path / "other.txt"), "\t")
    wanted = "rank\thost\tstarted\tseconds\n0\thost:2\t10.5\t0.25\n0\thost:2\t11.5\t0.125\n"
    assert (tmp_path / "fit.txt").read_text() == (tmp_path / "other.txt").read_text() == wanted


# -- data sets


def made(rows=6):
    return dl4j.DataSet(np.arange(2.0 * rows).reshape(rows, 2), np.eye(3)[np.arange(rows) % 3])


def test_a_data_set_answers_in_dl4js_names():
    data = made()
    assert (data.numExamples(), data.numInputs(), data.numOutcomes()) == (6, 2, 3)
    assert data.getFeatures() is data.features
    assert data.labelCounts() == {0: 2, 1: 2, 2: 2}
    assert data.get(4).outcome() == 1
    assert data.getRange(1, 3).getFeatures().tolist() == [[2, 3], [4, 5]]
    assert [len(batch) for batch in data.batchBy(4)] == [len(batch) for batch in data.dataSetBatches(4)] == [4, 2]
    assert data.filterBy([0, 2]).getFeatures()[:, 0].tolist() == [0, 4, 6, 10]
    assert {type(one) for one in (*data.asList(), *data.iterator(), *data.batchBy(2), data.copy())} == {dl4j.DataSet}
    assert not np.shares_memory(data.copy().features, data.features)
    assert not data.isEmpty()
    assert data.getMemoryFootprint() == 6 * 5 * 8
    assert len(set(data.sample(4).features[:, 0])) == 4
    with pytest.raises(ConfigurationError, match="one example, this data set has 6"):
        data.outcome()


def test_a_data_set_is_split_and_merged_without_losing_a_row():
    data = made()
    for split in (data.splitTestAndTrain(4), data.splitTestAndTrain(0.65), data.splitTestAndTrain(4, 7)):
        assert (split.getTrain().numExamples(), split.getTest().numExamples()) == (4, 2)
        merged = dl4j.DataSet.merge(split)
        assert sorted(merged.features[:, 0]) == data.features[:, 0].tolist()
    with pytest.raises(ConfigurationError, match="from 1 to 5"):
        data.splitTestAndTrain(6)


def test_several_arrays_are_answered_for_one_by_one():
    both = dl4j.MultiDataSet([np.ones((2, 3)), np.zeros((2, 4))], [np.ones((2, 1))], [None, np.ones((2, 4))])
    assert (both.numFeatureArrays(), both.numLabelsArrays()) == (2, 1)
    assert both.getFeatures(1) is both.getFeatures()[1]
    assert both.hasMaskArrays()
    assert (both.getFeaturesMaskArray(0), both.getLabelsMaskArray(0)) == (None, None)
    assert type(both[:1]) is dl4j.MultiDataSet
    assert type(dl4j.MultiDataSet.merge([both, both])) is dl4j.MultiDataSet


def test_what_trains_takes_them():
    source = sb_data.open_source([made(), made()])
    assert [type(rows) for rows in source] == [dl4j.DataSet, dl4j.DataSet]


# -- files


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, None]},
        np.arange(6).reshape(2, 3),
        made(),
        dl4j.MultiDataSet([np.ones((2, 3)), np.zeros((2, 4))], [np.ones((2, 1))]),
        sb.DataSet(np.ones((2, 3))),
        dl4j.ParameterAveragingTrainingMaster.Builder(16).averagingFrequency(7).build(),
        dl4j.ROC(4),
        TrainingStats(EVENTS),
    ],
    ids=lambda value: type(value).__name__,
)
def test_objects_are_read_as_they_were_written(tmp_path, value):
    path = str(tmp_path / "deep" / "object")
    dl4j.SparkUtils.writeObjectToFile(path, value, None)
    read = dl4j.SparkUtils.readObjectFromFile(path, type(value), None)
    assert type(read) is type(value)
    if hasattr(value, "columns"):
        for name, array in value.columns().items():
            assert (read.columns()[name] == array).all()
    elif isinstance(value, TrainingStats):
        assert read.as_string() == value.as_string()
    else:
        assert np.all(read == value)


def test_objects_that_could_hold_code_are_neither_written_nor_read(tmp_path):
    path = str(tmp_path / "object")
    with pytest.raises(ConfigurationError, match="what is written to a file must be an array"):
        dl4j.SparkUtils.writeObjectToFile(path, lambda: None)
    with pytest.raises(ConfigurationError, match="what is written to a file must be an array"):
        dl4j.SparkUtils.writeObjectToFile(path, np.array([print]))
    np.save(tmp_path / "pickled.npy", np.array([print]), allow_pickle=True)
    with pytest.raises(DataError, match="does not hold a ndarray"):
        dl4j.SparkUtils.readObjectFromFile(str(tmp_path / "pickled.npy"), np.ndarray)
    for kind in (dl4j.DataSet, dict, np.ndarray):
        (tmp_path / "broken").write_bytes(b"PK nothing")
        with pytest.raises(DataError, match="does not hold"):
            dl4j.SparkUtils.readObjectFromFile(str(tmp_path / "broken"), kind)
    with pytest.raises(DataError, match="there is no file"):
        dl4j.SparkUtils.readObjectFromFile(str(tmp_path / "nothing"), dict)


def test_texts_pass_through_files(tmp_path):
    path = str(tmp_path / "deep" / "text")
    dl4j.SparkUtils.writeStringToFile(path, "größer\n", None)
    assert dl4j.SparkUtils.readStringFromFile(path, None) == "größer\n"
    assert dl4j.SparkUtils.checkKryoConfiguration(None, None) is True
    assert ":" in dl4j.SparkUtils.getSparkExecutorId()


def test_files_are_put_together_in_zips_and_each_is_in_one(tmp_path):
    source = tmp_path / "in"
    (source / "deep").mkdir(parents=True)
    for number in range(5):
        (source / "deep" / f"{number}.png").write_bytes(bytes([number] * 10))
    (source / "notes.txt").write_text("no")
    dl4j.SparkDataUtils.createFileBatchesLocal(source, ["png"], True, tmp_path / "out", 2)
    found = []
    for path in sorted((tmp_path / "out").iterdir()):
        with zipfile.ZipFile(path) as file:
            uris = file.read("originalUris.txt").decode().splitlines()
            for number, uri in enumerate(uris):
                assert file.read(f"file_{number}.png") == (source / uri).read_bytes()
            found.append(uris)
    assert [len(uris) for uris in found] == [2, 2, 1]
    assert sorted(uri for uris in found for uri in uris) == [
        str(source / "deep" / f"{number}.png") for number in range(5)
    ]
    with pytest.raises(ConfigurationError, match="at least 1 file"):
        dl4j.SparkDataUtils.createFileBatchesLocal(source, False, tmp_path / "out", 0)


# -- validation


def test_invalid_parts_are_found_and_set_aside(tmp_path):
    root = str(tmp_path / "data.zarr")
    sb_data.export(sb.DataSet(np.ones((40, 3)), np.ones((40, 2))), root, backend="local", progress=False)
    check = dl4j.SparkDataValidation
    assert check.validateDataSets("local", root).ok
    assert check.validateDataSets("local", root, [-1, 3], [-1, 2]).ok
    report = check.validateDataSets("local", root, [-1, 4], None)
    assert (report.mismatched, report.quarantined) == (1, ())
    with pytest.raises(DataError, match="is a dataset of DataSet, not of MultiDataSet"):
        check.validateMultiDataSets("local", root)
    report = check.deleteInvalidDataSets("local", root, [-1, 4], None)
    assert len(report.quarantined) == 1


def test_every_array_of_several_is_checked(tmp_path):
    root = str(tmp_path / "data.zarr")
    data = sb.MultiDataSet([np.ones((8, 3)), np.ones((8, 5))], [np.ones((8, 2))])
    sb_data.export(data, root, backend="local", progress=False)
    check = dl4j.SparkDataValidation.validateMultiDataSets
    assert check("local", root, 2, 1).ok
    assert check("local", root, [[8, 3], None], [[-1, 2]]).ok
    assert check("local", root, [None, [8, 4]], [[-1, 2]]).mismatched == 1
    with pytest.raises(DataError, match="has 2 arrays of features, wanted 3"):
        check("local", root, 3, 1)
    assert dl4j.SparkDataValidation.deleteInvalidMultiDataSets("local", root, [None, [8, 4]], None).quarantined


# -- export and conversion


def test_written_partitions_are_data_that_trains(tmp_path):
    objects = [sb.DataSet(np.full((rows, 2), rows), np.ones((rows, 1))) for rows in (3, 1, 5)]
    paths = list(dl4j.BatchAndExportDataSetsFunction(4, tmp_path / "one")(0, iter(objects)))
    assert sb_data.open_dataset(paths).rows == 9
    dl4j.DataSetExportFunction(str(tmp_path / "two"))(iter(objects))
    assert sb_data.open_dataset(sorted((tmp_path / "two").iterdir())).rows == 9
    assert [rows.examples for rows in dl4j.BatchDataSetsFunction(4)(objects)] == [4, 4, 1]
    assert [rows.examples for rows in dl4j.SplitDataSetsFunction()(objects)] == [1] * 9
    with pytest.raises(ConfigurationError, match="at least 1, got 0"):
        dl4j.BatchDataSetsFunction(0)


class Vector:
    """What MLlib's vectors have."""

    def __init__(self, *values):
        self.values = values

    def toArray(self):
        return np.array(self.values)


class Partition(list):
    """An RDD of one partition."""

    def mapPartitions(self, function):
        return Partition(function(iter(self)))


def test_labelled_points_become_data_sets():
    points = Partition(SimpleNamespace(label=float(n % 3), features=Vector(n, n + 1)) for n in range(5))
    one_hot = dl4j.MLLibUtil.fromLabeledPoint(points, 3, 2)
    assert [len(item) for item in one_hot] == [2, 2, 1]
    assert one_hot[1].labels.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert one_hot[1].features.tolist() == [[2, 3], [3, 4]]
    assert len(dl4j.MLLibUtil.fromLabeledPoint(None, points, 3)) == 5
    assert dl4j.MLLibUtil.fromContinuousLabeledPoint(points)[2].labels.tolist() == [[2.0]]
    assert dl4j.MLLibUtil.toClassifierPrediction(Vector(0.1, 0.7, 0.2)) == 1.0
    assert dl4j.MLLibUtil.toVector(Vector(1, 2)).tolist() == [1, 2]
    with pytest.raises(DataError, match=r"class numbers in 0\.\.1, got 2\.0; fitCont"):
        dl4j.MLLibUtil.fromLabeledPoint(points, 2)
    with pytest.raises(ConfigurationError, match="number of classes"):
        dl4j.MLLibUtil.fromLabeledPoint(points)
    with pytest.raises(ConfigurationError, match="wanted an RDD, got int"):
        dl4j.MLLibUtil.fromContinuousLabeledPoint(3)
