"""Every name that DL4J has for training masters and what they are built of is here, and says what it does."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from strombus.compat import dl4j
from strombus.compat.dl4j.networks import SparkNetwork

GOLDEN = Path(__file__).parents[2] / "golden" / "dl4j"
MEMBERS = json.loads((GOLDEN / "members.json").read_text())
HEADINGS = json.loads((GOLDEN / "headings.json").read_text())

# What every Java object has; Python's ==, hash, str and enum have it too.
OBJECT = {"compareTo", "describeConstable", "equals", "getDeclaringClass", "hashCode", "name", "toString"}

ENGINE = "DL4J's own driving of Spark; Trainer.fit does it"
STATE = "masters and algorithms keep no state; it is with the fit, the network or trainer.stats"
JVM = "there is no JVM"
ABSENT = {
    "executeTraining": ENGINE,
    "executeTrainingMDS": ENGINE,
    "executeTrainingPaths": ENGINE,
    "getWorkerInstance": ENGINE,
    "getBroadcastConfiguration": ENGINE,
    "setBroadcastConfiguration": ENGINE,
    "getBroadcastModel": ENGINE,
    "setBroadcastModel": ENGINE,
    "getInstanceId": ENGINE,
    "getIsFirstRun": ENGINE,
    "setIsFirstRun": ENGINE,
    "isSetupDone": ENGINE,
    "setSetupDone": ENGINE,
    "getTrainingDriver": ENGINE,
    "setTrainingDriver": ENGINE,
    "getUpdatesConsumer": ENGINE,
    "setUpdatesConsumer": ENGINE,
    "repartition": ENGINE,
    "getRng": STATE,
    "setRng": STATE,
    "getStats": STATE,
    "setStats": STATE,
    "getTrainingStats": STATE,
    "getIterationCount": STATE,
    "setIterationCount": STATE,
    "getLastSparsity": STATE,
    "getLastThreshold": STATE,
    "newReducer": STATE,
    "setListeners": "listeners are callbacks of a fit",
    "isLogMinibatchesPerWorker": "counts are in trainer.stats",
    "setLogMinibatchesPerWorker": "counts are in trainer.stats",
    "getWorkerPeriodicGCFrequency": JVM,
    "setWorkerPeriodicGCFrequency": JVM,
    "getWorkerTogglePeriodicGC": JVM,
    "setWorkerTogglePeriodicGC": JVM,
}

PART = {
    "AdaptiveThresholdAlgorithm",
    "DefaultRepartitioner",
    "EqualRepartitioner",
    "FixedThresholdAlgorithm",
    "NoOpRepartitioner",
    "NoOpResidualPostProcessor",
    "ParameterAveragingTrainingMaster",
    "ParameterAveragingTrainingMaster$Builder",
    "RDDTrainingApproach",
    "Repartition",
    "RepartitionStrategy",
    "ResidualClippingPostProcessor",
    "SharedTrainingMaster",
    "SharedTrainingMaster$Builder",
    "TargetSparsityThresholdAlgorithm",
    "TrainingHook",
    "VoidConfiguration",
}
OURS = {
    name: getattr(dl4j, name.rpartition(".")[2].partition("$")[0])
    for name in MEMBERS
    if name.rpartition(".")[2] in PART
}


def members(java: str) -> set[str]:
    written = [member.split("(")[0].removeprefix("static ").removeprefix("enum ") for member in MEMBERS[java]]
    return {name for name in written if name != "<init>"} - OBJECT


def face(java: str) -> type:
    kind = OURS[java]
    return kind.Builder if java.endswith("$Builder") else kind


@pytest.mark.parametrize("java", sorted(OURS), ids=lambda java: java.rpartition(".")[2])
def test_every_public_member_is_here_or_listed_as_absent(java):
    kind = face(java)
    assert inspect.getdoc(kind)
    for name in members(java):
        if name in ABSENT and not issubclass(kind, SparkNetwork):
            assert not hasattr(kind, name), f"{name} is listed as absent"
        else:
            assert inspect.getdoc(getattr(kind, name, None)), f"{kind.__qualname__}.{name} is missing or undocumented"


def test_what_is_listed_as_absent_is_dl4js():
    every = set().union(*(members(java) for java in OURS))
    assert ABSENT.keys() <= every


@pytest.mark.parametrize("master", ["SharedTrainingMaster", "ParameterAveragingTrainingMaster"])
def test_every_heading_of_the_reference_page_is_here(master):
    kind = getattr(dl4j, master)
    for heading in HEADINGS[master]:
        where = kind if hasattr(kind, heading) and not hasattr(kind.Builder, heading) else kind.Builder
        assert inspect.getdoc(getattr(where, heading, None)), heading


def test_the_list_of_names_is_one_and_lazy():
    assert set(dl4j.__all__) == set(dl4j._WHERE) == set(dir(dl4j))
    with pytest.raises(AttributeError, match="no attribute 'SparkNothing'"):
        _ = dl4j.SparkNothing
    code = "import strombus.compat.dl4j, sys; assert not {'torch', 'dask', 'pyspark'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_enumerations_are_the_texts_that_options_take():
    assert [one.value for one in dl4j.Repartition.values()] == ["Never", "Always", "NumPartitionsWorkersDiffers"]
    assert dl4j.Repartition.valueOf("Always") is dl4j.Repartition.Always
    assert dl4j.Repartition.Always == "Always"
    assert dl4j.RepartitionStrategy.ApproximateBalanced.ordinal() == 2
    with pytest.raises(ValueError, match="no member 'Sometimes'; known: Never, Always"):
        dl4j.Repartition.valueOf("Sometimes")
