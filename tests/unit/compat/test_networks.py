"""Every member of DL4J's two wrappers gives what the core gives, on one machine, on Dask and on Spark."""

from __future__ import annotations

import functools
import inspect
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import numpy as np
import pytest
import torch
from helpers.counting import Counting
from helpers.networks import load_file, load_multi
from torch import nn

import strombus as sb
import strombus.data
from strombus.compat import dl4j
from strombus.compat.dl4j import SparkComputationGraph, SparkDl4jMultiLayer
from strombus.errors import ConfigurationError, DataError, MissingDataError
from strombus.evaluation import Metric
from strombus.executors.local import LocalExecutor

cloudpickle.register_pickle_by_value(sys.modules[__name__])

GOLDEN = Path(__file__).parents[2] / "golden" / "dl4j"
MEMBERS = json.loads((GOLDEN / "members.json").read_text())
HEADINGS = json.loads((GOLDEN / "headings.json").read_text())
JAVA = {
    SparkDl4jMultiLayer: "org.deeplearning4j.spark.impl.multilayer.SparkDl4jMultiLayer",
    SparkComputationGraph: "org.deeplearning4j.spark.impl.graph.SparkComputationGraph",
}

RNG = np.random.default_rng(4)
FEATURES = RNG.normal(size=(30, 4)).astype(np.float32)
CLASSES = (FEATURES[:, 0] > 0).astype(np.int64)
VALUES = FEATURES[:, :2] * 2
SIZES = (7, 13, 10)
SGD = functools.partial(torch.optim.SGD, lr=0.2)


def make_module():
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


def make_line():
    torch.manual_seed(2)
    return nn.Linear(4, 1)


class Sequences(nn.Module):
    """The mean over the steps that count."""

    def forward(self, steps, mask=None):
        weights = torch.ones(steps.shape[:2]) if mask is None else mask
        return (steps * weights[:, :, None]).sum(1) / weights.sum(1, keepdim=True)


class TwoWays(nn.Module):
    def forward(self, left, right):
        return left + right, left - right


def make_network(kind):
    match kind:
        case "classes":
            return sb.MultiLayerNetwork(make_module, nn.CrossEntropyLoss(), SGD, l2=0.1)
        case "values":
            return sb.MultiLayerNetwork(make_module, nn.MSELoss(), SGD)
        case "number":
            return sb.MultiLayerNetwork(make_line, nn.MSELoss(), SGD)
        case "sequences":
            return sb.MultiLayerNetwork(Sequences)
        case "graph":
            return sb.ComputationGraph(make_module, nn.CrossEntropyLoss(), SGD, l2=0.1)
        case "graph of values":
            return sb.ComputationGraph(make_module, nn.MSELoss(), SGD)
        case "two ways":
            return sb.ComputationGraph(TwoWays)


def make_master(**options):
    options = {"batch_size_per_worker": 5, "averaging_frequency": 2, "rng_seed": 7, "workers": 2, **options}
    return sb.ParameterAveragingTrainingMaster(rdd_training_approach="Direct", **options)


def spans():
    ends = np.cumsum(SIZES)
    return [slice(end - size, end) for size, end in zip(SIZES, ends, strict=True)]


class World:
    """A context, and all data in the form that it holds."""

    def __init__(self, context, hold, directory):
        self.context, self.hold = context, hold
        self.sets = hold([sb.DataSet(FEATURES[s], CLASSES[s]) for s in spans()])
        self.values = hold([sb.DataSet(FEATURES[s], VALUES[s]) for s in spans()])
        self.multi = hold([sb.MultiDataSet([FEATURES[s]], [CLASSES[s]]) for s in spans()])
        self.multi_values = hold([sb.MultiDataSet([FEATURES[s]], [VALUES[s]]) for s in spans()])
        single = [slice(i, i + 1) for i in range(9)]
        self.keyed = hold([(f"k{s.start}", sb.DataSet(FEATURES[s], CLASSES[s])) for s in single])
        self.keyed_multi = hold([(s.start, sb.MultiDataSet([FEATURES[s]], [CLASSES[s]])) for s in single])
        self.features = hold([(s.start, FEATURES[s]) for s in spans()])
        self.pairs = hold([(s.start, [FEATURES[s], FEATURES[s] * 2]) for s in spans()])
        steps = [(n, RNG.normal(size=(2, 3 + n % 2, 4)).astype(np.float32)) for n in range(4)]
        self.masked = hold([(n, (x, np.arange(x.shape[1])[None] < [[2], [3]])) for n, x in steps])
        self.points = hold([make_point(float(y), x) for x, y in zip(FEATURES, CLASSES, strict=True)])
        self.numbers = hold([make_point(float(y[0]), x) for x, y in zip(FEATURES, VALUES, strict=True)])
        self.path = str(directory / "all.zarr")
        self.parts = [str(directory / f"part{n}.zarr") for n in range(3)]
        self.paths = hold(self.parts)
        self.files = str(directory / "files")
        self.listed = sorted(str(file) for file in (directory / "files").iterdir())
        self.file_paths = hold(self.listed)
        self.one_hot = hold([sb.DataSet(FEATURES[s], np.eye(2, dtype=np.float32)[CLASSES[s]]) for s in spans()])
        self.first_values = hold([sb.DataSet(FEATURES[s], VALUES[s, :1]) for s in spans()])

    def open(self, kind, wrapped=True, **options):
        network = make_network(kind)
        if not wrapped:
            return sb.Trainer(network, make_master(**options), self.context)
        wrapper = SparkComputationGraph if network.several else SparkDl4jMultiLayer
        return wrapper(self.context, network, make_master(**options))


def make_point(label, features):
    return SimpleNamespace(label=label, features=features)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    root = tmp_path_factory.mktemp("networks")
    (root / "files").mkdir()
    strombus.data.export((FEATURES, CLASSES), root / "all.zarr", progress=False)
    for number, rows in enumerate(spans()):
        strombus.data.export((FEATURES[rows], CLASSES[rows]), root / f"part{number}.zarr", progress=False)
        np.savez(root / "files" / f"{number}.npz", features=FEATURES[rows], labels=CLASSES[rows])
    return root


@pytest.fixture(scope="module")
def world(request, directory):
    if request.param == "local":
        with LocalExecutor(1) as executor:
            yield World(executor, list, directory)
    elif request.param == "dask":
        import dask.bag

        client = request.getfixturevalue("dask_client")
        yield World(client, functools.partial(dask.bag.from_sequence, npartitions=2), directory)
    else:
        from helpers.spark import spark_context

        context = spark_context()
        yield World(context, functools.partial(context.parallelize, numSlices=2), directory)


def plain(value):
    """Return what can be compared of a result."""
    if hasattr(value, "collect"):
        value = value.collect()
    elif hasattr(value, "to_delayed"):
        value = value.compute(scheduler="synchronous")
    if isinstance(value, sb.networks.Network):
        return {name: tensor.detach().numpy() for name, tensor in value.module.state_dict().items()}
    if hasattr(value, "stats"):
        return value.stats()
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value


def fitted(trainer, data):
    trainer.fit(data, progress=False)
    return trainer.network


def counted(trainer, data, **settings):
    """Evaluate as DL4J counts: undefined classes are left out of averages."""
    return trainer.do_evaluation(data, [sb.Evaluation(undefined="exclude", **settings)])[0]


# What each member is called with, on which network, and what the core is asked for.
FITS = [
    ("fit", "classes", lambda n, w: n.fit(w.sets), lambda t, w: fitted(t, w.sets)),
    ("fit", "classes", lambda n, w: n.fit(w.path), lambda t, w: fitted(t, (FEATURES, CLASSES))),
    ("fit", "graph", lambda n, w: n.fit(w.sets), lambda t, w: fitted(t, w.sets)),
    ("fitPaths", "classes", lambda n, w: n.fitPaths(w.paths), lambda t, w: fitted(t, w.parts)),
    ("fitPaths", "classes", lambda n, w: n.fitPaths(w.file_paths, load_file), lambda t, w: fitted(t, w.sets)),
    ("fitPaths", "graph", lambda n, w: n.fitPaths(w.listed, load_multi), lambda t, w: fitted(t, w.multi)),
    ("fitMultiDataSet", "graph", lambda n, w: n.fitMultiDataSet(w.multi), lambda t, w: fitted(t, w.multi)),
    ("fitPathsMultiDataSet", "graph", lambda n, w: n.fitPathsMultiDataSet(w.paths), lambda t, w: fitted(t, w.parts)),
    ("fitLabeledPoint", "classes", lambda n, w: n.fitLabeledPoint(w.points), lambda t, w: fitted(t, w.sets)),
    ("fitLabeledPoint", "values", lambda n, w: n.fitLabeledPoint(w.points), lambda t, w: fitted(t, w.one_hot)),
    (
        "fitContinuousLabeledPoint",
        "number",
        lambda n, w: n.fitContinuousLabeledPoint(w.numbers),
        lambda t, w: fitted(t, w.first_values),
    ),
]
SCORES = [
    ("calculateScore", "classes", lambda n, w: n.calculateScore(w.sets, True), lambda t, w: t.calculate_score(w.sets)),
    (
        "calculateScore",
        "graph",
        lambda n, w: n.calculateScore(w.sets, False, 4),
        lambda t, w: t.calculate_score(w.sets, False, 4),
    ),
    (
        "calculateScoreMultiDataSet",
        "graph",
        lambda n, w: n.calculateScoreMultiDataSet(w.multi, True),
        lambda t, w: t.calculate_score(w.multi),
    ),
    (
        "scoreExamples",
        "classes",
        lambda n, w: n.scoreExamples(w.sets, True),
        lambda t, w: t.score_examples(w.sets, True),
    ),
    (
        "scoreExamples",
        "graph",
        lambda n, w: n.scoreExamples(w.keyed, False, 4),
        lambda t, w: t.score_examples(w.keyed, False, 4),
    ),
    (
        "scoreExamplesMultiDataSet",
        "graph",
        lambda n, w: n.scoreExamplesMultiDataSet(w.keyed_multi, True),
        lambda t, w: t.score_examples(w.keyed_multi, True),
    ),
]
OUTPUTS = [
    (
        "feedForwardWithKey",
        "classes",
        lambda n, w: n.feedForwardWithKey(w.features, 8),
        lambda t, w: t.feed_forward_with_key(w.features, 8),
    ),
    (
        "feedForwardWithKey",
        "two ways",
        lambda n, w: n.feedForwardWithKey(w.pairs, 8),
        lambda t, w: t.feed_forward_with_key(w.pairs, 8),
    ),
    (
        "feedForwardWithKeySingle",
        "graph",
        lambda n, w: n.feedForwardWithKeySingle(w.features, 8),
        lambda t, w: [(s.start, t.network.predict(FEATURES[s])[0]) for s in spans()],
    ),
    (
        "feedForwardWithMaskAndKey",
        "sequences",
        lambda n, w: n.feedForwardWithMaskAndKey(w.masked, 3),
        lambda t, w: t.feed_forward_with_mask_and_key(w.masked, 3),
    ),
]
EVALUATIONS = [
    ("evaluate", "classes", lambda n, w: n.evaluate(w.sets), lambda t, w: counted(t, w.sets)),
    (
        "evaluate",
        "graph",
        lambda n, w: n.evaluate(w.sets, ["no", "yes"], 4),
        lambda t, w: counted(t, w.sets, labels=["no", "yes"]),
    ),
    ("evaluate", "classes", lambda n, w: n.evaluate(w.path), lambda t, w: counted(t, w.sets)),
    ("evaluate", "classes", lambda n, w: n.evaluate(w.files, 4, load_file), lambda t, w: counted(t, w.sets)),
    ("evaluate", "graph", lambda n, w: n.evaluate(w.files, load_multi), lambda t, w: counted(t, w.sets)),
    ("evaluateMDS", "graph", lambda n, w: n.evaluateMDS(w.multi, 4), lambda t, w: counted(t, w.sets)),
    (
        "evaluateRegression",
        "values",
        lambda n, w: n.evaluateRegression(w.values),
        lambda t, w: t.evaluate_regression(w.values),
    ),
    (
        "evaluateRegressionMDS",
        "graph of values",
        lambda n, w: n.evaluateRegressionMDS(w.multi_values, 4),
        lambda t, w: t.evaluate_regression(w.values),
    ),
    ("evaluateROC", "classes", lambda n, w: n.evaluateROC(w.sets), lambda t, w: t.evaluate_roc(w.sets, 32)),
    ("evaluateROC", "classes", lambda n, w: n.evaluateROC(w.sets, 0, 4), lambda t, w: t.evaluate_roc(w.sets)),
    ("evaluateROCMDS", "graph", lambda n, w: n.evaluateROCMDS(w.multi), lambda t, w: t.evaluate_roc(w.sets, 32)),
    (
        "evaluateROCMultiClass",
        "classes",
        lambda n, w: n.evaluateROCMultiClass(w.sets, 10, 4),
        lambda t, w: t.evaluate_roc_multi_class(w.sets, 10),
    ),
    (
        "doEvaluation",
        "classes",
        lambda n, w: n.doEvaluation(w.sets, dl4j.Evaluation(), 4),
        lambda t, w: counted(t, w.sets),
    ),
    (
        "doEvaluation",
        "classes",
        lambda n, w: n.doEvaluation(w.sets, 1, 4, dl4j.Evaluation(), dl4j.ROC(5)),
        lambda t, w: [counted(t, w.sets), t.evaluate_roc(w.sets, 5)],
    ),
    (
        "doEvaluation",
        "classes",
        lambda n, w: n.doEvaluation(w.file_paths, load_file, dl4j.Evaluation()),
        lambda t, w: [counted(t, w.sets)],
    ),
    (
        "doEvaluation",
        "graph",
        lambda n, w: n.doEvaluation(w.listed, 2, 4, load_multi, dl4j.Evaluation()),
        lambda t, w: [counted(t, w.sets)],
    ),
    (
        "doEvaluationMDS",
        "graph",
        lambda n, w: n.doEvaluationMDS(w.multi, 4, dl4j.Evaluation(), dl4j.ROC(0)),
        lambda t, w: [counted(t, w.sets), t.evaluate_roc(w.sets)],
    ),
]
FACE = {dl4j.Evaluation, dl4j.RegressionEvaluation, dl4j.ROC, dl4j.ROCMultiClass}
CALLS = [*FITS, *SCORES, *OUTPUTS, *EVALUATIONS]
_NAMES = [name for name, *_ in CALLS]
ON_SPARK = {
    4,  # fitPaths with a loader
    *map(_NAMES.index, ["fit", "fitPaths", "fitLabeledPoint", "calculateScore", "scoreExamplesMultiDataSet"]),
    *map(_NAMES.index, ["fitContinuousLabeledPoint", "feedForwardWithKey", "feedForwardWithKeySingle"]),
    *map(_NAMES.index, ["feedForwardWithMaskAndKey", "evaluate", "evaluateROC", "evaluateROCMultiClass"]),
    _NAMES.index("evaluateRegression"),
    _NAMES.index("doEvaluation") + 2,  # with a loader
}
ACCESSORS = {
    "getDefaultEvaluationWorkers",
    "getNetwork",
    "getScore",
    "getSparkContext",
    "getSparkTrainingStats",
    "getTrainingMaster",
    "predict",
    "setCollectTrainingStats",
    "setDefaultEvaluationWorkers",
    "setListeners",
    "setNetwork",
    "setScore",
}
"""Tried below, one by one."""


@pytest.mark.parametrize("wrapper", JAVA)
def test_every_public_member_and_heading_is_here_documented_and_tried(wrapper):
    names = {member.split("(")[0] for member in MEMBERS[JAVA[wrapper]]} - {"<init>"}
    assert names >= {heading for heading in HEADINGS[wrapper.__name__] if heading[0].islower()}
    assert len(inspect.getdoc(wrapper)) > 100
    for name in names:
        assert inspect.getdoc(getattr(wrapper, name)), name
    assert names <= {name for name, *_ in CALLS} | ACCESSORS
    # Of names that are one function, one is tried on Spark.
    on_spark = {getattr(one, CALLS[number][0], None) for number in ON_SPARK for one in JAVA}
    assert {getattr(wrapper, name) for name in names - ACCESSORS} <= on_spark


def cases():
    """Yield all calls on one machine and on Dask; on Spark, which is slow, the first of those that differ there."""
    for number, (name, kind, *calls) in enumerate(CALLS):
        yield pytest.param("local", kind, *calls, id=f"local-{name}-{number}")
        yield pytest.param("dask", kind, *calls, id=f"dask-{name}-{number}", marks=pytest.mark.dask)
        if number in ON_SPARK:
            yield pytest.param("spark", kind, *calls, id=f"spark-{name}-{number}", marks=pytest.mark.spark)


@pytest.mark.parametrize(("world", "kind", "call", "core"), list(cases()), indirect=["world"])
def test_member_gives_what_the_core_gives(world, kind, call, core):
    with world.open(kind) as wrapper, world.open(kind, wrapped=False) as trainer:
        given = call(wrapper, world)
        metrics = [one for one in (given if isinstance(given, list) else [given]) if isinstance(one, Metric)]
        assert {type(one) for one in metrics} <= FACE
        found, expected = plain(given), plain(core(trainer, world))
        assert plain(wrapper.getNetwork()).keys() == plain(trainer.network).keys()
        assert wrapper.getNetwork().epoch == trainer.network.epoch
        assert wrapper.getScore() == pytest.approx(trainer.score, abs=1e-6)
    if isinstance(expected, str):
        assert found == expected
    elif isinstance(expected, dict):
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-6)
    else:
        assert_close(found, expected)


def assert_close(found, expected):
    """Compare numbers in lists and tuples of any depth; order counts."""
    if isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
    elif isinstance(expected, str):
        assert found == expected
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# -- on the driver alone ------------------------------------------------------------------------------


@pytest.fixture
def executor():
    with LocalExecutor(1) as executor:
        yield executor


@pytest.fixture
def network(executor):
    return SparkDl4jMultiLayer(executor, make_network("classes"), make_master())


def test_constructors_take_a_network_or_a_function_that_makes_one(executor):
    made = SparkDl4jMultiLayer(executor, functools.partial(make_network, "classes"))
    assert isinstance(made.getNetwork(), sb.MultiLayerNetwork)
    assert made.getSparkContext() is executor
    assert made.getTrainingMaster() is None
    with pytest.raises(ConfigurationError, match="SparkComputationGraph needs a ComputationGraph"):
        SparkComputationGraph(executor, make_network("classes"))
    with pytest.raises(ConfigurationError, match="SparkDl4jMultiLayer needs a MultiLayerNetwork"):
        SparkDl4jMultiLayer(executor, nn.Linear(4, 2))


def test_without_a_master_all_but_training_works(executor):
    network = SparkDl4jMultiLayer(executor, make_network("classes"), None)
    assert 0 <= network.evaluate((FEATURES, CLASSES)).accuracy() <= 1
    assert network.getSparkTrainingStats() is None
    with pytest.raises(ConfigurationError, match="fit needs a training master"):
        network.fit((FEATURES, CLASSES))
    with pytest.raises(ConfigurationError, match="needs a training master"):
        network.setCollectTrainingStats(True)


def test_each_fit_trains_one_epoch_of_the_drivers_network(network):
    mine = network.getNetwork()
    assert network.getScore() == 0.0
    for epoch in range(1, 4):
        assert network.fit((FEATURES, CLASSES)) is mine
        assert mine.epoch == epoch
    again = sb.Trainer(make_network("classes"), make_master(), network.getSparkContext())
    again.fit((FEATURES, CLASSES), epochs=3, progress=False)
    for name, values in plain(again.network).items():
        np.testing.assert_array_equal(plain(mine)[name], values)
    network.setScore(0.25)
    assert network.getScore() == mine.score == 0.25


def test_the_number_of_partitions_is_deprecated(network, directory):
    with pytest.warns(DeprecationWarning, match="minPartitions"):
        network.fit(str(directory / "all.zarr"), 4)
    assert network.getNetwork().epoch == 1


def test_another_network_may_be_of_another_architecture(executor):
    wide = sb.MultiLayerNetwork(functools.partial(nn.Linear, 4, 3), nn.CrossEntropyLoss(), SGD)
    master = dl4j.SharedTrainingMaster(batch_size_per_worker=5, workers=1)
    network = SparkDl4jMultiLayer(executor, make_network("classes"), master)
    network.fit((FEATURES, CLASSES))  # leaves residuals, of the old network's size
    network.setNetwork(wide)
    assert network.getNetwork() is wide
    assert network.predict(FEATURES).shape == (30, 3)
    assert network.fit((FEATURES, CLASSES)) is wide
    assert len(network.scoreExamples((FEATURES, CLASSES), False)) == 30
    with pytest.raises(ConfigurationError, match="needs a MultiLayerNetwork"):
        network.setNetwork(make_network("graph"))


def test_evaluation_workers(network, directory):
    assert network.getDefaultEvaluationWorkers() == SparkDl4jMultiLayer.DEFAULT_EVAL_WORKERS == 4
    network.setDefaultEvaluationWorkers(2)
    assert network.getDefaultEvaluationWorkers() == 2
    for wrong in (lambda: network.setDefaultEvaluationWorkers(0), lambda: evaluate_with(network, 0)):
        with pytest.raises(ConfigurationError, match="workers must be at least 1, got 0"):
            wrong()


def evaluate_with(network, workers):
    return network.doEvaluation((FEATURES, CLASSES), workers, 8, sb.Evaluation())


def test_workers_are_the_copies_that_evaluate_in_one_process():
    from distributed import Client

    with Client(processes=False, n_workers=1, threads_per_worker=3, dashboard_address=None) as client:
        network = SparkDl4jMultiLayer(client, sb.MultiLayerNetwork(Counting))
        for workers in (1, 2):
            Counting.most = 0
            network.doEvaluation((FEATURES, CLASSES), workers, 3, sb.Evaluation())
            assert Counting.most == workers
        Counting.most = 0
        network.setDefaultEvaluationWorkers(1)
        network.evaluate((FEATURES, CLASSES), 3)
        assert Counting.most == 1


@pytest.mark.parametrize("kind", ["ParameterAveragingTrainingMaster", "SharedTrainingMaster"])
@pytest.mark.parametrize("library", [sb, dl4j])
def test_statistics_are_collected_on_request(executor, kind, library):
    master = getattr(library, kind)(batch_size_per_worker=5, workers=1)
    network = SparkDl4jMultiLayer(executor, make_network("classes"), master)
    network.fit((FEATURES, CLASSES))
    assert network.getSparkTrainingStats() is None
    network.setCollectTrainingStats(True)
    assert network.getTrainingMaster().collect_training_stats
    network.fit((FEATURES, CLASSES))
    assert {"train", "export"} <= {event.name for event in network.getSparkTrainingStats().core.events}


class Listener(dl4j.TrainingListener):
    def __init__(self):
        self.told = []
        self.router = None

    def onEpochStart(self, model):
        self.told.append(("start", model.epoch))

    def onEpochEnd(self, model):
        self.told.append(("end", model.epoch))

    def iterationDone(self, model, iteration, epoch):
        self.told.append((iteration, epoch))

    def setStorageRouter(self, router):
        self.router = router


def test_listeners_are_told_and_get_their_router(network):
    first, second = Listener(), Listener()
    router = SimpleNamespace(putUpdate=None)
    network.setListeners(router, [first])
    network.fit((FEATURES, CLASSES))
    assert first.router is router
    assert first.told == [("start", 0), (2, 0), (3, 0), ("end", 1)]
    network.setListeners(second, sb.callbacks.Callback())
    network.fit((FEATURES, CLASSES))
    assert len(first.told) == 4
    assert second.told[0] == ("start", 1)
    network.setListeners(None)
    network.fit((FEATURES, CLASSES))
    assert second.told[-1] == ("end", 2)
    with pytest.raises(ConfigurationError, match="a listener is a TrainingListener"):
        network.setListeners("all")
    with pytest.raises(ConfigurationError, match="a router needs a listener"):
        network.setListeners(router, sb.callbacks.Callback())


# -- vectors, matrices and labelled points ------------------------------------------------------------


def test_predict_gives_back_what_it_is_given(network):
    expected = network.getNetwork().predict(FEATURES)
    np.testing.assert_array_equal(network.predict(FEATURES), expected)
    np.testing.assert_allclose(network.predict(FEATURES[0]), expected[0], rtol=1e-6)


@pytest.mark.parametrize("library", ["mllib", "ml"])
def test_predict_on_vectors_and_matrices_of_spark(network, library):
    linalg = pytest.importorskip(f"pyspark.{library}.linalg", reason="pyspark is not installed")
    expected = network.getNetwork().predict(FEATURES[:3])
    matrix = linalg.Matrices.dense(3, 4, FEATURES[:3].ravel(order="F"))
    found = network.predict(matrix)
    assert isinstance(found, linalg.DenseMatrix)
    np.testing.assert_allclose(found.toArray(), expected, rtol=1e-5)
    for vector in (linalg.Vectors.dense(FEATURES[0]), linalg.Vectors.sparse(4, range(4), FEATURES[0])):
        found = network.predict(vector)
        assert isinstance(found, linalg.DenseVector)
        np.testing.assert_allclose(found.toArray(), expected[0], rtol=1e-5)


def test_an_output_that_is_no_vector_is_refused_for_a_vector(executor):
    linalg = pytest.importorskip("pyspark.mllib.linalg", reason="pyspark is not installed")
    network = SparkDl4jMultiLayer(executor, sb.MultiLayerNetwork(functools.partial(nn.Unflatten, 1, (2, 2))))
    assert network.predict(FEATURES[0]).shape == (2, 2)
    with pytest.raises(DataError, match="must have 1 axes"):
        network.predict(linalg.Vectors.dense(FEATURES[0]))


@pytest.mark.parametrize("label", [1.5, -1.0])
def test_labels_of_points_must_be_classes(network, label):
    with pytest.raises(DataError, match=r"class numbers from 0 on.*fitContinuousLabeledPoint"):
        network.fitLabeledPoint([make_point(label, FEATURES[0])])


def test_a_graph_of_several_outputs_has_no_single_one(executor):
    graph = SparkComputationGraph(executor, make_network("two ways"))
    pairs = [(0, [FEATURES, FEATURES])]
    assert len(graph.feedForwardWithKey(pairs, 8)[0][1]) == 2
    with pytest.raises(DataError, match="the graph has 2 outputs"):
        graph.feedForwardWithKeySingle(pairs, 8)


def test_a_directory_without_files_is_missing(network, tmp_path):
    with pytest.raises(MissingDataError, match="no files"):
        network.evaluate(str(tmp_path), load_file)
    with pytest.raises(ConfigurationError, match="a loader is a function"):
        network.fitPaths([], loader="npz")
