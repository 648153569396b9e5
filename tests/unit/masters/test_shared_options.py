"""Options of shared training: written, read under DL4J's names, and acting or refused."""

from __future__ import annotations

import json
import pickle
import sys
import textwrap
import warnings
from pathlib import Path

import pytest

import strombus as sb
from strombus.errors import ConfigurationError, StrombusWarning
from strombus.masters import masters
from strombus.types import Capacity

GOLDEN = Path(__file__).parents[2] / "golden" / "masters"
Master = sb.SharedTrainingMaster


EVERYTHING = {
    "workers": 3,
    "batch_size_per_worker": 7,
    "worker_prefetch_num_batches": 3,
    "rdd_data_set_num_examples": 5,
    "repartition_data": "Never",
    "repartition_strategy": "SparkDefault",
    "repartitioner": sb.DefaultRepartitioner(max_partitions=9),
    "rdd_training_approach": "Direct",
    "export_directory": "memory://x",
    "storage_level": "DISK_ONLY",
    "storage_level_streams": None,
    "rng_seed": 11,
    "shuffle": False,
    "last_batch": "keep",
    "collect_training_stats": True,
    "default_evaluation_workers": 2,
    "threshold_algorithm": sb.TargetSparsityThresholdAlgorithm(sparsity_target=0.01, maximum_threshold=1.0),
    "threshold_scope": "tensor",
    "residual_post_processor": sb.ResidualClippingPostProcessor(threshold_multiple_value=3, frequency=2),
    "encoder": sb.DenseEncoder(dtype="float16"),
    "weighting": "uniform",
    "max_staleness": None,
    "workers_per_node": 2,
    "on_nonfinite": "skip",
    "max_rollbacks": 4,
    "transport": "memory",
    "transport_options": sb.TransportOptions(host="10.0.0.1", ports=(5000, 5009), queue=3),
    "debug_longer_iterations": 4,
    "encoding_debug_mode": True,
    "timeout": 9.0,
    "step_timeout": 7.0,
    "on_peer_lost": "continue",
    "max_failures": 3,
    "min_workers": 2,
}


def test_every_option_survives_json_and_yaml():
    given = [EVERYTHING, {**EVERYTHING, "combine": "sum", "weighting": "examples"}]  # a weighting is of a mean
    found, defaults = [Master(**options) for options in given], Master()
    changed = {name for one in found for name in Master.model_fields if getattr(one, name) != getattr(defaults, name)}
    assert changed == set(Master.model_fields) == set(given[1])
    for master in found:
        for again in (Master.from_json(master.to_json()), Master.from_yaml(master.to_yaml())):
            assert again == master
            assert all(type(getattr(again, name)) is type(getattr(master, name)) for name in EVERYTHING)
        assert pickle.loads(pickle.dumps(master)) == master


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("threshold_algorithm", sb.AdaptiveThresholdAlgorithm(initial_threshold=0.01, decay_rate=0.9)),
        ("threshold_algorithm", sb.FixedThresholdAlgorithm(threshold=0.1)),
        ("threshold_algorithm", sb.TargetSparsityThresholdAlgorithm()),
        ("residual_post_processor", sb.NoOpResidualPostProcessor()),
        ("residual_post_processor", sb.ResidualClippingPostProcessor()),
        ("encoder", sb.ThresholdEncoder()),
        ("encoder", sb.DenseEncoder()),
        ("encoder", sb.Dl4jEncoder()),
        ("repartitioner", sb.EqualRepartitioner()),
        ("repartitioner", sb.NoOpRepartitioner()),
    ],
    ids=repr,
)
def test_each_kind_comes_back_as_its_own_class_and_goes_by_name(option, value):
    again = getattr(Master.from_json(Master(**{option: value}).to_json()), option)
    assert (type(again), again) == (type(value), value)
    if value.name != "fixed":
        assert type(getattr(Master(**{option: value.name}), option)) is type(value)


def test_what_another_distribution_registers_is_read_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "others.py").write_text(
        textwrap.dedent(
            """
            import strombus as sb

            class Halves(sb.Encoder):
                name = "halves"
                bits: int = 1
                def encode_(self, intake):
                    raise NotImplementedError

            class Slow(sb.ThresholdAlgorithm):
                name = "slow"
                start: float = 1.0
                def next(self, state):
                    return self.start
            """
        )
    )
    info = tmp_path / "others-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[strombus.encoders]\nhalves = others:Halves\n[strombus.threshold_algorithms]\nslow = others:Slow\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        master = Master(encoder={"type": "halves", "bits": 2}, threshold_algorithm={"type": "slow", "start": 0.5})
        assert (master.encoder.bits, master.threshold_algorithm.next(None)) == (2, 0.5)
        assert Master.from_yaml(master.to_yaml()) == master
        with pytest.raises(ConfigurationError, match="known: dense, dl4j, halves, threshold"):
            Master(encoder="quarters")
    finally:
        sys.modules.pop("others", None)


# -- DL4J's own files ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["json", "yaml"])
def test_dl4js_file_gives_the_options_that_dl4j_meant(kind):
    text = (GOLDEN / f"shared_default.{kind}").read_text()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        master = getattr(Master, f"from_{kind}")(text)
    assert master == Master(
        threshold_algorithm=sb.AdaptiveThresholdAlgorithm(initial_threshold=1e-4),
        residual_post_processor=sb.ResidualClippingPostProcessor(),
        repartitioner=sb.DefaultRepartitioner(max_partitions=5000),
        rdd_data_set_num_examples=32,
        storage_level="MEMORY_ONLY_SER",
        transport_options=sb.TransportOptions(
            network_mask="10.0.0.0/16", controller_address="10.0.2.4", topology="star"
        ),
    )


def test_dl4js_network_configuration_acts():
    void = json.loads((GOLDEN / "void_configuration.json").read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        master = Master.from_dict({"voidConfiguration": void})
    assert master.transport_options == sb.TransportOptions(
        network_mask="10.0.0.0/16", controller_address="10.0.2.4", topology="star"
    )
    assert Master.from_json(master.to_json()) == master


def written(**changes):
    """Return DL4J's file as a mapping, without the two addresses that were set in it, and with changes."""
    options = json.loads((GOLDEN / "shared_default.json").read_text())
    options["voidConfiguration"] |= {"controllerAddress": None, "networkMask": None}
    options["voidConfiguration"] |= changes.pop("voidConfiguration", {})
    return options | changes


@pytest.mark.parametrize(
    ("changes", "option", "value"),
    [
        ({"batchSizePerWorker": 64}, "batch_size_per_worker", 64),
        ({"workerPrefetchBatches": 5}, "worker_prefetch_num_batches", 5),
        ({"numWorkersPerNode": 3}, "workers_per_node", 3),
        ({"voidConfiguration": {"meshBuildMode": "MESH"}}, "transport_options", sb.TransportOptions(topology="tree")),
        ({"numWorkers": 4}, "workers", 4),
        ({"repartition": "Never"}, "repartition_data", "Never"),
        ({"repartitionStrategy": "SparkDefault"}, "repartition_strategy", "SparkDefault"),
        ({"rddTrainingApproach": "Direct"}, "rdd_training_approach", "Direct"),
        ({"exportDirectory": "hdfs:///tmp/x"}, "export_directory", "hdfs:///tmp/x"),
        ({"collectTrainingStats": True}, "collect_training_stats", True),
        ({"debugLongerIterations": 3}, "debug_longer_iterations", 3),
        ({"encodingDebugMode": True}, "encoding_debug_mode", True),
        ({"residualPostProcessor": None}, "residual_post_processor", sb.NoOpResidualPostProcessor()),
        ({"thresholdAlgorithm": None}, "threshold_algorithm", sb.AdaptiveThresholdAlgorithm()),
        ({"thresholdAlgorithm": {"threshold": 0.1}}, "threshold_algorithm", sb.FixedThresholdAlgorithm(threshold=0.1)),
        (
            {"thresholdAlgorithm": {"initialThreshold": 1e-4, "sparsityTarget": 1e-3, "lastThreshold": "NaN"}},
            "threshold_algorithm",
            sb.TargetSparsityThresholdAlgorithm(initial_threshold=1e-4, sparsity_target=1e-3),
        ),
        ({"repartitioner": None}, "repartitioner", None),
        (
            {"storageLevel": {"_useMemory": False, "_useDisk": True, "_replication": 1, "_deserialized": False}},
            "storage_level",
            "DISK_ONLY",
        ),
        ({"storageLevel": None}, "storage_level", None),
        *[
            ({"voidConfiguration": changes}, "transport_options", sb.TransportOptions(**options))
            for changes, options in [
                ({"portSupplier": {"port": 5000}}, {"ports": (5000, 5000)}),
                ({"unicastControllerPort": 5000}, {"ports": (5000, 5000)}),
                ({"portSupplier": {"port": 5000}, "unicastControllerPort": 6000}, {"ports": (5000, 5000)}),
                ({"responseTimeout": 45_000}, {"connect_timeout": 45.0, "send_timeout": 45.0}),
                ({"meshBuildMode": "MESH", "controllerAddress": "h"}, {"topology": "tree", "controller_address": "h"}),
                ({"transportType": "ROUTED_UDP", "executionMode": "SHARDED"}, {}),
            ]
        ],
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_each_property_of_dl4j_is_read(changes, option, value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        master = Master.from_dict(written(**changes))
    assert getattr(master, option) == value


def test_a_transport_of_ones_own_stands_above_dl4js():
    master = Master.from_dict(written(transport="memory", voidConfiguration={"transportType": "CUSTOM"}))
    assert master.transport == "memory"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"updateThreshold": 1}, r"no option 'updateThreshold'; known: batch_size_per_worker.*workers_per_node"),
        (
            {"voidConfiguration": {"port": 1}},
            r"voidConfiguration has no property 'port'; known: backupAddresses.*useNS",
        ),
        (
            {"voidConfiguration": {"transportType": "CUSTOM"}},
            r"transportType CUSTOM.* as transport \(memory, zeromq\)",
        ),
        ({"trainingHooks": [{}]}, "no option 'trainingHooks'"),
        ({"repartitioner": {}}, "equal and its no-op repartitioner alike"),
        (
            {"thresholdAlgorithm": {"initialThreshold": -1.0}},
            r"AdaptiveThresholdAlgorithm: initialThreshold = -1\.0: .*greater than 0$",
        ),
        (
            {"thresholdAlgorithm": {"initalThreshold": 1.0}},
            "AdaptiveThresholdAlgorithm has no option 'initalThreshold'; known: decay_rate",
        ),
    ],
)
def test_what_dl4j_does_not_have_is_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        Master.from_dict(written(**changes))


def test_an_option_by_two_names_is_named():
    with pytest.raises(ConfigurationError, match="was given workers twice: as 'workers' and as 'numWorkers'"):
        Master.from_dict(Master().to_dict() | {"workers": 3})


def test_the_known_options_are_listed_once():
    with pytest.raises(ConfigurationError) as caught:
        Master.from_dict({"first": 1, "second": 2, "third": 3})
    assert str(caught.value).count("known:") == 1
    assert all(one in str(caught.value) for one in ("'first'", "'second'", "'third'"))


def test_what_means_nothing_here_is_warned_about_where_it_was_changed():
    changes = {"workerTogglePeriodicGC": False, "voidConfiguration": {"useNS": True, "maxChunkSize": 1500}}
    with pytest.warns(StrombusWarning) as found:
        Master.from_dict(written(**changes))
    assert [str(one.message) for one in found] == [
        "DL4J's maxChunkSize, useNS have no effect here; maxChunkSize: messages travel whole, and "
        "transport_options.largest_message bounds them",
        "DL4J's workerTogglePeriodicGC have no effect here",
    ]


def test_updates_threshold_is_the_adaptive_algorithm_starting_there():
    expected = json.loads((GOLDEN / "shared_builder_results.json").read_text())[
        "Builder(vc, 16).updatesThreshold(0.005)"
    ]
    algorithm = Master(updates_threshold=0.005).threshold_algorithm
    assert expected["thresholdAlgorithm"] == (
        f"AdaptiveThresholdAlgorithm(initialThreshold={algorithm.initial_threshold},minTargetSparsity=1.0E-4,"
        f"maxTargetSparsity={algorithm.max_target_sparsity},decayRate={algorithm.decay_rate})"
    )
    with pytest.raises(ConfigurationError, match="not both"):
        Master(updates_threshold=0.1, threshold_algorithm="adaptive")
    with pytest.raises(ConfigurationError, match="greater than 0"):
        Master(updates_threshold=0.0)


# -- what cannot work ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers_per_node": 0}, r"workers_per_node = 0: wanted: -1"),
        ({"workers_per_node": -2}, "workers_per_node = -2"),
        ({"max_staleness": -1}, "max_staleness = -1"),
        ({"combine": "median"}, "combine = 'median'"),
        ({"timeout": 0}, "timeout = 0"),
        ({"debug_longer_iterations": -1}, "debug_longer_iterations = -1"),
        ({"transport": "pigeons"}, "no transport is called 'pigeons'; known: memory, zeromq"),
        ({"transport": "strombus.transport.zeromq:ZeroMQTransport"}, "no transport is called"),
        ({"transport": 3}, "transport"),
        ({"threshold_algorithm": "none"}, "known: adaptive, fixed, target_sparsity"),
        ({"residual_post_processor": "nothing"}, "known: clipping, none"),
        ({"encoder": {"dtype": "float16"}}, "written with its type"),
        (
            {"encoder": "dl4j", "threshold_scope": "tensor"},
            "SharedTrainingMaster: compression: messages of the encoder 'dl4j' hold one threshold",
        ),
        ({"weighting": "uniform", "combine": "sum"}, "weighting='uniform' is of combine='mean'"),
        (
            {"transport_options": {"topology": "star", "port": 3}},
            "TransportOptions has no option 'port'; known: connect_timeout, .*; did you mean ports",
        ),
        ({"averaging_frequency": 3}, r"no option 'averaging_frequency'; known: .*combine"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_value_that_cannot_work_is_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        Master(**options)


@pytest.mark.parametrize(
    ("options", "capacity", "expected"),
    [
        ({}, Capacity(6, ("a", "b")), 6),
        ({"workers_per_node": 2}, Capacity(6, ("a", "b")), 4),
        ({"workers_per_node": 3}, Capacity(6, ("a", "b")), 6),
        ({"workers_per_node": 2}, Capacity(None, ("a", "b")), 4),
        ({"workers_per_node": 2, "workers": 3}, Capacity(6, ("a", "b")), 3),
        ({}, Capacity(None), None),
    ],
)
def test_how_many_members_train(options, capacity, expected):
    assert Master(**options).count_workers(capacity) == expected


def test_more_workers_of_a_node_than_slots_are_warned_about():
    with pytest.warns(StrombusWarning, match="workers_per_node=5 asks for 10 workers, and the backend has 6 slots"):
        assert Master(workers_per_node=5).count_workers(Capacity(6, ("a", "b"))) == 6


def test_the_master_is_known_by_name():
    assert masters["shared_training"] is Master
    assert Master.name == "shared_training"
