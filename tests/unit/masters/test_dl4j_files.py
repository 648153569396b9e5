"""The files of masters that DL4J wrote, property by property: each acts, or stands in one list of those that do not."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

import strombus as sb
from strombus.errors import ConfigurationError, StrombusWarning
from strombus.masters import base, dl4j_files

GOLDEN = Path(__file__).parents[2] / "golden/masters"
Averaging, Shared = sb.ParameterAveragingTrainingMaster, sb.SharedTrainingMaster

MASTERS = {
    "parameter_averaging_custom": Averaging,
    "parameter_averaging_default": Averaging,
    "shared_default": Shared,
}
OTHERS = {
    "parameter_averaging_defaults_by_reflection",  # below
    "shared_builder_results",  # tests/unit/compat/test_masters.py builds each of them
    "void_configuration",  # below
}


def read(name, kind="json"):
    return (GOLDEN / f"{name}.{kind}").read_text()


def written(name):
    return json.loads(read(name))


def test_every_file_of_the_folder_is_named_here():
    files = {f"{name}.{kind}" for name in MASTERS for kind in ("json", "yaml")} | {f"{name}.json" for name in OTHERS}
    assert {path.name for path in GOLDEN.iterdir()} == files


@pytest.mark.parametrize("name", MASTERS)
def test_both_texts_are_read_alike_without_a_warning_and_come_back(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        master = MASTERS[name].from_json(read(name))
        assert MASTERS[name].from_yaml(read(name, "yaml")) == master
        assert MASTERS[name].from_json(master.to_json()) == MASTERS[name].from_yaml(master.to_yaml()) == master


@pytest.mark.parametrize(
    ("name", "wrong", "property_"),
    [("parameter_averaging_custom", Shared, "averagingFrequency"), ("shared_default", Averaging, "thresholdAlgorithm")],
)
def test_the_file_of_the_other_master_is_named(name, wrong, property_):
    right = MASTERS[name].__name__
    with (
        pytest.warns() if wrong is Averaging else warnings.catch_warnings(),
        pytest.raises(ConfigurationError) as caught,
    ):
        wrong.from_json(read(name))
    head = str(caught.value).partition("; ")[0]
    assert head.startswith(f"{right} has ")
    assert property_ in head
    assert head.endswith(f", {wrong.__name__} has not: read it as a {right}, or leave that out")


# Another value for each property that acts.
COMMON = {
    "batchSizePerWorker": 9,
    "collectTrainingStats": True,
    "exportDirectory": "memory://elsewhere",
    "numWorkers": 7,
    "rddDataSetNumExamples": 11,
    "rddTrainingApproach": "Direct",
    "repartition": "Never",
    "repartitionStrategy": "SparkDefault",
    "storageLevel": "DISK_ONLY_2",
    "storageLevelStreams": "OFF_HEAP",
}
ACTING = {
    Averaging: COMMON | {"aggregationDepth": 5, "averagingFrequency": 6, "prefetchNumBatches": 3, "saveUpdater": True},
    Shared: COMMON
    | {
        "debugLongerIterations": 2,
        "encodingDebugMode": True,
        "numWorkersPerNode": 3,
        "repartitioner": {"maxPartitions": 7},
        "residualPostProcessor": {"frequency": 2, "thresholdMultipleClipValue": 3.0},
        "thresholdAlgorithm": {"threshold": 0.5},
        "workerPrefetchBatches": 8,
    },
}
VOID = {
    "controllerAddress": "10.9.9.9",
    "meshBuildMode": "MESH",
    "networkMask": "10.9.0.0/16",
    "portSupplier": {"port": 4000},
    "responseTimeout": 45_000,
    "transportType": "CUSTOM",  # refused
    "unicastControllerPort": 4001,
}


def partition(*lists):
    """Return all names, none of which may stand in two lists."""
    names = [name for one in lists for name in one]
    assert len(names) == len(set(names))
    return set(names)


def test_each_property_acts_or_stands_in_one_list():
    listed = partition(ACTING[Averaging], base._NULL_ONLY, base._INERT)
    assert set(written("parameter_averaging_default")) == set(written("parameter_averaging_custom")) == listed
    lists = [ACTING[Shared], dl4j_files._STATE, dl4j_files._INERT, dl4j_files._OBJECTS, ["voidConfiguration"]]
    null = {"broadcastHadoopConfig", "statsStorage"}
    assert set(written("shared_default")) == partition(*lists, null)
    assert null < base._NULL_ONLY
    void = partition(VOID, dl4j_files._VOID_INERT, dl4j_files._FORCED)
    assert void == set(written("shared_default")["voidConfiguration"]) == set(written("void_configuration"))
    assert set(VOID) == dl4j_files._VOID_ACTING


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, kind in MASTERS.items() for key in ACTING[kind]])
def test_each_property_that_acts_changes_the_master_and_none_is_lost(name, key):
    kind, options = MASTERS[name], written(name)
    changed = ACTING[kind][key]
    if options[key] == changed:
        changed = not changed if isinstance(changed, bool) else "Export"
    master = kind.from_dict(options | {key: changed})
    assert master != kind.from_dict(options)
    assert kind.from_json(master.to_json()) == master


@pytest.mark.parametrize("key", VOID)
def test_each_property_of_the_network_that_acts_changes_the_master(key):
    options = written("shared_default")
    changed = options | {"voidConfiguration": options["voidConfiguration"] | {key: VOID[key]}}
    if key == "transportType":
        with pytest.raises(ConfigurationError, match="transportType CUSTOM names nothing that runs here"):
            Shared.from_dict(changed)
        return
    master = Shared.from_dict(changed)
    assert master != Shared.from_dict(options)
    assert Shared.from_json(master.to_json()) == master


@pytest.mark.parametrize("key", sorted(base._INERT))
def test_options_of_the_jvms_collector_are_read_with_a_warning(key):
    options = written("parameter_averaging_default")
    with pytest.warns(StrombusWarning, match=f"DL4J's {key} have no effect here"):
        assert Averaging.from_dict(options | {key: 5}) == Averaging.from_dict(options)


def test_what_dl4js_builder_sets_is_our_default_but_where_ours_is_better():
    """DL4J's fields after ``Builder(16)``; ours saves the updater and reads ahead."""
    fields = written("parameter_averaging_defaults_by_reflection")
    ours = Averaging(rdd_data_set_num_examples=int(fields["rddDataSetNumExamples"])).to_dict()
    compared = {key: fields[key] for key in ACTING[Averaging] if key in fields and not key.startswith("storageLevel")}
    differing = {key for key, value in compared.items() if str(value).lower() != str(ours[key]).lower()}
    assert differing == {"saveUpdater", "prefetchNumBatches"}
