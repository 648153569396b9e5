"""Options: checked, frozen, written and read under Deeplearning4j's names."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import yaml

import strombus as sb
from strombus.errors import ConfigurationError, StrombusWarning
from strombus.masters import masters
from strombus.transport.zeromq import ZeroMQTransport

GOLDEN = Path(__file__).parents[2] / "golden" / "masters"
Master = sb.ParameterAveragingTrainingMaster


@pytest.mark.parametrize("name", ["parameter_averaging_default", "parameter_averaging_custom"])
def test_dl4j_files_are_read_property_by_property_and_none_is_lost(name):
    written = json.loads((GOLDEN / f"{name}.json").read_text())
    master = Master.from_json((GOLDEN / f"{name}.json").read_text())
    assert Master.from_yaml((GOLDEN / f"{name}.yaml").read_text()) == master
    again = json.loads(master.to_json())
    for key, value in written.items():
        if value is not None:
            assert again[key] == value, key


def test_every_option_survives_json_and_yaml():
    master = Master(
        workers=3,
        batch_size_per_worker=7,
        worker_prefetch_num_batches=3,
        rdd_data_set_num_examples=5,
        repartition_data="Never",
        repartition_strategy="SparkDefault",
        repartitioner=sb.DefaultRepartitioner(max_partitions=9),
        rdd_training_approach="Direct",
        export_directory="memory://x",
        storage_level="DISK_ONLY",
        storage_level_streams=None,
        rng_seed=11,
        shuffle=False,
        last_batch="keep",
        collect_training_stats=True,
        default_evaluation_workers=2,
        averaging_frequency=2,
        aggregation_depth=3,
        save_updater=False,
        weighting="uniform",
        on_nonfinite="rollback",
        max_rollbacks=4,
    )
    defaults = Master()
    changed = [name for name in Master.model_fields if getattr(master, name) != getattr(defaults, name)]
    assert sorted(changed) == sorted(Master.model_fields)
    assert Master.from_json(master.to_json()) == Master.from_yaml(master.to_yaml()) == master
    assert pickle.loads(pickle.dumps(master)) == master


@pytest.mark.parametrize(
    "repartitioner",
    [
        sb.EqualRepartitioner(),
        sb.NoOpRepartitioner(),
        sb.DefaultRepartitioner(),
        sb.DefaultRepartitioner(max_partitions=3),
    ],
    ids=repr,
)
def test_each_repartitioner_comes_back_as_its_own_class(repartitioner):
    again = Master.from_json(Master(repartitioner=repartitioner).to_json()).repartitioner
    assert (type(again), again) == (type(repartitioner), repartitioner)


def test_repartitioners_are_known_by_name_and_in_dl4j_form():
    assert Master(repartitioner="equal").repartitioner == sb.EqualRepartitioner()
    assert Master.from_dict({"repartitioner": {"maxPartitions": 7}}).repartitioner.max_partitions == 7
    with pytest.raises(ConfigurationError, match="known: default, equal, none"):
        Master(repartitioner="best")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("workers", 0),
        ("workers", -2),
        ("batch_size_per_worker", 0),
        ("worker_prefetch_num_batches", -1),
        ("rdd_data_set_num_examples", 0),
        ("averaging_frequency", 0),
        ("aggregation_depth", 0),
        ("weighting", "rows"),
        ("storage_level", "SOMEWHERE"),
        ("repartition_data", "Sometimes"),
        ("rng_seed", -1),
        ("default_evaluation_workers", 0),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_option_and_value(option, value):
    with pytest.raises(ConfigurationError, match=f"ParameterAveragingTrainingMaster: .* = {value!r}"):
        Master(**{option: value})


def test_an_unknown_option_lists_the_known():
    with pytest.raises(ConfigurationError, match=r"no option 'frequency'.*averaging_frequency.*training_hooks"):
        Master(frequency=3)
    with pytest.raises(ConfigurationError, match="no option 'broadcastHadoopConfig'"):
        Master.from_dict({"broadcastHadoopConfig": {"a": 1}})


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (Master.from_json, "{", "not JSON"),
        (Master.from_yaml, "a: [", "not YAML"),
        (Master.from_json, "[1]", "written as a mapping, got list"),
        (Master.from_yaml, "!!python/object/apply:os.getcwd []", "not YAML"),
    ],
)
def test_text_that_is_no_configuration_is_refused(read, text, message):
    with pytest.raises(ConfigurationError, match=message):
        read(text)


def test_options_are_frozen_and_a_copy_has_others():
    master = Master(workers=2, training_hooks=[sb.TrainingHook()])
    with pytest.raises(ConfigurationError, match=r"frozen.* other = master\.with_options\(workers=\.\.\.\)"):
        master.workers = 3
    other = master.with_options(workers=3)
    assert (master.workers, other.workers, other.training_hooks) == (2, 3, master.training_hooks)
    with pytest.raises(ConfigurationError, match="workers = 0"):
        master.with_options(workers=0)


def test_an_address_by_a_function_is_not_written():
    master = sb.SharedTrainingMaster(transport_options=sb.TransportOptions(host=address))
    assert master.transport_options.host is pickle.loads(pickle.dumps(master)).transport_options.host
    with pytest.raises(ConfigurationError, match="host= is a function, which cannot be written"):
        master.to_json()
    assert f"host='{__name__}:address'" in repr(master)  # by which a run knows its settings again


def address():
    return "127.0.0.1"


def test_hooks_are_added_removed_and_not_written_silently():
    first, second = sb.TrainingHook(), sb.TrainingHook()
    master = Master(training_hooks=[first])
    master.add_hook(second)
    assert master.training_hooks == (first, second)
    with pytest.warns(StrombusWarning, match="hooks are code"):
        text = master.to_json()
    assert "Hook" not in text
    master.remove_hook(first)
    assert master.training_hooks == (second,)
    with pytest.raises(ConfigurationError, match="not among the hooks"):
        master.remove_hook(first)
    with pytest.raises(ConfigurationError, match="TrainingHook, got int"):
        Master(training_hooks=[3])


def test_yaml_is_plain():
    assert yaml.safe_load(Master().to_yaml())["saveUpdater"] is True


def test_masters_are_known_by_name():
    assert masters["parameter_averaging"] is Master
    assert Master.name == "parameter_averaging"


@pytest.mark.parametrize(
    ("options", "parts", "workers", "expected"),
    [
        ({}, 5, 2, "equal"),
        ({"repartition_data": "Never"}, 5, 2, "none"),
        ({"repartition_data": "NumPartitionsWorkersDiffers"}, 2, 2, "none"),
        ({"repartition_data": "NumPartitionsWorkersDiffers"}, 3, 2, "equal"),
        ({"repartition_strategy": "SparkDefault"}, 3, 2, "default"),
        ({"repartition_strategy": "ApproximateBalanced"}, 3, 2, "equal"),
        ({"repartition_data": "Never", "repartitioner": "equal"}, 3, 2, "equal"),
    ],
)
def test_when_and_how_choose_the_repartitioner(options, parts, workers, expected):
    class Parts(sb.data.Source):
        kind, columns, part_rows = "DataSet", {}, (4,) * parts

        def blocks(self):
            return ()

        def read(self, block):
            return {}

    assert Master(**options).choose_repartitioner(Parts(), workers).name == expected


def test_a_transport_is_written_by_its_name_or_not_at_all():
    class Mine(ZeroMQTransport):
        name = "mine"

    class Posing(ZeroMQTransport):
        name = "memory"

    master = sb.SharedTrainingMaster(transport=ZeroMQTransport)
    assert sb.SharedTrainingMaster.from_json(master.to_json()).transport == "zeromq"
    for kind in (Mine, Posing):
        with pytest.raises(ConfigurationError, match=rf"{kind.__name__} cannot be written.*strombus\.transports"):
            sb.SharedTrainingMaster(transport=kind).to_json()
    for wrong in ("carrier pigeon", int):
        with pytest.raises(ConfigurationError, match="transport"):
            sb.SharedTrainingMaster(transport=wrong)
