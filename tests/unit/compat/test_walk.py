"""One walk over what people look for: each heading of DL4J's reference page, and each member of its two wrappers.

For each name there is the test that shows on Spark and on Dask what it does, or, where no engine has a part in it, the
one that shows it on the driver. What every other class has of DL4J's is compared in `test_master_names` and
`test_utility_names`.
"""

from __future__ import annotations

import ast
import functools
import inspect
import json
import re
import warnings
from pathlib import Path

import pytest

from strombus.compat import dl4j
from strombus.errors import StrombusWarning

TESTS = Path(__file__).parents[2]
GOLDEN = TESTS / "golden" / "dl4j"
HEADINGS = json.loads((GOLDEN / "headings.json").read_text())
MEMBERS = json.loads((GOLDEN / "members.json").read_text())
WRAPPERS = {"SparkDl4jMultiLayer": "impl.multilayer", "SparkComputationGraph": "impl.graph"}
MASTERS = ("ParameterAveragingTrainingMaster", "SharedTrainingMaster")

HERE = "unit/compat"
CALLS = f"{HERE}/test_networks.py::test_member_gives_what_the_core_gives"
PROGRAM = f"{HERE}/test_driver_program.py::test_the_same_program_gives_the_same_network"
AVERAGING = f"{HERE}/test_options_on_engines.py::test_each_option_of_averaging_acts"
SHARING = f"{HERE}/test_options_on_engines.py::test_each_option_of_sharing_acts"
KEPT = f"{HERE}/test_kept_export.py::test_each_epoch_reads_the_export_of_the_first"
FILES = f"{HERE}/test_masters.py::test_dl4js_averaging_files_are_what_its_builder_makes"
FILE = f"{HERE}/test_masters.py::test_dl4js_sharing_file_is_what_its_builder_makes"
NETWORKS = f"{HERE}/test_networks.py::"

ON_ENGINES = {
    (*WRAPPERS,): {
        CALLS: (
            "calculateScore doEvaluation evaluate evaluateROC evaluateROCMultiClass evaluateRegression "
            "feedForwardWithKey fit fitPaths scoreExamples"
        ),
        PROGRAM: "getNetwork",
        AVERAGING: "getSparkTrainingStats",
    },
    ("SparkDl4jMultiLayer",): {CALLS: "feedForwardWithMaskAndKey fitContinuousLabeledPoint fitLabeledPoint"},
    ("SparkComputationGraph",): {
        CALLS: (
            "calculateScoreMultiDataSet doEvaluationMDS evaluateMDS evaluateROCMDS evaluateRegressionMDS "
            "feedForwardWithKeySingle fitMultiDataSet fitPathsMultiDataSet scoreExamplesMultiDataSet"
        )
    },
    (MASTERS[0],): {
        AVERAGING: (
            "addHook aggregationDepth averagingFrequency batchSizePerWorker collectTrainingStats exportDirectory "
            "rddTrainingApproach removeHook repartionData repartitionStrategy rngSeed saveUpdater storageLevel "
            "storageLevelStreams trainingHooks workerPrefetchNumBatches"
        )
    },
    (MASTERS[1],): {
        SHARING: (
            "batchSizePerWorker collectTrainingStats debugLongerIterations encodingDebugMode exportDirectory "
            "rddTrainingApproach repartitionData repartitionStrategy repartitioner residualPostProcessor rngSeed "
            "storageLevel thresholdAlgorithm transport workerPeriodicGCFrequency workerPrefetchNumBatches "
            "workerTogglePeriodicGC workersPerNode"
        ),
        PROGRAM: "updatesThreshold",
    },
}
ON_THE_DRIVER = {
    (*WRAPPERS,): {
        NETWORKS + "test_constructors_take_a_network_or_a_function_that_makes_one": "getSparkContext getTrainingMaster",
        NETWORKS + "test_another_network_may_be_of_another_architecture": "setNetwork",
        NETWORKS + "test_evaluation_workers": "getDefaultEvaluationWorkers setDefaultEvaluationWorkers",
        NETWORKS + "test_each_fit_trains_one_epoch_of_the_drivers_network": "getScore setScore",
        NETWORKS + "test_statistics_are_collected_on_request": "setCollectTrainingStats",
        NETWORKS + "test_listeners_are_told_and_get_their_router": "setListeners",
    },
    ("SparkDl4jMultiLayer",): {NETWORKS + "test_predict_on_vectors_and_matrices_of_spark": "predict"},
    (MASTERS[0],): {FILES: "fromJson fromYaml"},
    (MASTERS[1],): {FILE: "fromJson fromYaml"},
}
INERT = "workerTogglePeriodicGC", "workerPeriodicGCFrequency"

ENGINES = {
    "spark": r"\b(sc|world|backend)\b|spark_context|mark\.spark",
    "dask": r"\b(sc|world|backend)\b|dask_client|mark\.dask",
}
"""What a test on an engine has in it: a fixture that stands for both, or one of its own."""


def rows(table):
    """Yield (class, name, test) for each entry."""
    for kinds, tests in table.items():
        for test, names in tests.items():
            yield from ((kind, name, test) for kind in kinds for name in names.split())


WALK = [*rows(ON_ENGINES), *rows(ON_THE_DRIVER)]


@functools.cache
def functions(path):
    """Return the source of each test of a file, with its decorators."""
    text = (TESTS / path).read_text()
    found = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            found[node.name] = "\n".join(text.splitlines()[first - 1 : node.end_lineno])
    return found


def source(test):
    path, _, name = test.partition("::")
    return functions(path)[name]


def test_the_walk_leaves_nothing_out():
    wanted = {(kind, name) for kind, names in HEADINGS.items() for name in names}
    for kind, package in WRAPPERS.items():
        members = MEMBERS[f"org.deeplearning4j.spark.{package}.{kind}"]
        wanted |= {(kind, member.partition("(")[0]) for member in members} - {(kind, "<init>")}
    walked = [(kind, name) for kind, name, _ in WALK]
    assert set(walked) == wanted
    assert len(walked) == len(set(walked))


@pytest.mark.parametrize(("kind", "name", "test"), WALK, ids=[f"{kind}.{name}" for kind, name, _ in WALK])
def test_each_name_is_here_says_what_it_does_and_is_tried(kind, name, test):
    ours = getattr(dl4j, kind)
    found = [getattr(where, name) for where in (ours, getattr(ours, "Builder", None)) if hasattr(where, name)]
    assert found
    assert all(len(inspect.getdoc(one)) > 20 for one in found)
    text = source(test)
    if (kind, name, test) in [*rows(ON_ENGINES)]:
        assert all(re.search(pattern, text) for pattern in ENGINES.values())


def test_each_class_of_the_page_says_what_it_is():
    for kind in HEADINGS:
        assert len(inspect.getdoc(getattr(dl4j, kind))) > 100


def test_the_documentation_has_each_heading_in_order_with_a_link():
    page = (TESTS.parent / "docs" / "dl4j_headings.md").read_text()
    row = re.compile(r"^\| `(\w+)` \| \S.* \| \[\]\(\w+\.md(?:#[\w-]+)?\) \|$", re.MULTILINE)
    listed = {part.partition("\n")[0]: row.findall(part) for part in page.split("\n## ")[1:]}
    assert listed == HEADINGS


@pytest.mark.parametrize("name", INERT)
def test_what_is_inert_says_so_and_warns_once(name):
    method = getattr(dl4j.SharedTrainingMaster.Builder, name)
    assert "inert" in inspect.getdoc(method)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        builder = dl4j.SharedTrainingMaster.Builder(16)
        for value in (1, 2, 3):
            method(builder, value)
    assert [one.category for one in caught] == [StrombusWarning]
    assert f"{name} has no effect" in str(caught[0].message)
