"""DL4J's masters: its builders and its files come to the same, and every option is seen on what is built."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers.networks import make_data, make_network

import strombus as sb
from strombus.compat import dl4j
from strombus.errors import ConfigurationError, StrombusWarning
from strombus.executors.local import LocalExecutor
from strombus.transport.zeromq import ZeroMQTransport

GOLDEN = Path(__file__).parents[2] / "golden"
MEMBERS = json.loads((GOLDEN / "dl4j" / "members.json").read_text())
BUILT = json.loads((GOLDEN / "masters" / "shared_builder_results.json").read_text())
Averaging, Shared = dl4j.ParameterAveragingTrainingMaster, dl4j.SharedTrainingMaster
Void = dl4j.VoidConfiguration


@pytest.fixture(autouse=True)
def no_warnings():
    """Nothing here may warn but where a test asks for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# -- files and builders --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Json", "Yaml"])
def test_dl4js_averaging_files_are_what_its_builder_makes(kind):
    read = getattr(Averaging, f"from{kind}")
    folder = GOLDEN / "masters"
    default = Averaging.Builder(32).saveUpdater(False).build()
    assert read((folder / f"parameter_averaging_default.{kind.lower()}").read_text()) == default
    custom = (
        Averaging.Builder(4, 1)
        .aggregationDepth(4)
        .averagingFrequency(3)
        .batchSizePerWorker(64)
        .collectTrainingStats(True)
        .exportDirectory("hdfs:///tmp/x")
        .workerPrefetchNumBatches(7)
        .rddTrainingApproach(dl4j.RDDTrainingApproach.Direct)
        .repartionData(dl4j.Repartition.NumPartitionsWorkersDiffers)
        .repartitionStrategy(dl4j.RepartitionStrategy.ApproximateBalanced)
        .saveUpdater(False)
        .storageLevel(dl4j.StorageLevel.DISK_ONLY())
        .storageLevelStreams(dl4j.StorageLevel.MEMORY_AND_DISK())
        .build()
    )
    assert read((folder / f"parameter_averaging_custom.{kind.lower()}").read_text()) == custom


@pytest.mark.parametrize("kind", ["Json", "Yaml"])
def test_dl4js_sharing_file_is_what_its_builder_makes(kind):
    read = getattr(Shared, f"from{kind}")((GOLDEN / "masters" / f"shared_default.{kind.lower()}").read_text())
    built = Shared.Builder(Void.builder().networkMask("10.0.0.0/16").controllerAddress("10.0.2.4").build(), 32).build()
    assert read == built
    assert type(read.getThresholdAlgorithm()) is dl4j.AdaptiveThresholdAlgorithm
    assert type(read.getRepartitioner()) is dl4j.DefaultRepartitioner


WAYS = {
    "Builder(16)": lambda vc: Shared.Builder(16),
    "Builder(vc, 16)": lambda vc: Shared.Builder(vc, 16),
    "Builder(vc, 16).updatesThreshold(0.005)": lambda vc: Shared.Builder(vc, 16).updatesThreshold(0.005),
    "Builder(vc, null, 0.005, 16)": lambda vc: Shared.Builder(vc, None, 0.005, 16),
    "Builder(vc, 4, 0.005, 16)": lambda vc: Shared.Builder(vc, 4, 0.005, 16),
    "thresholdAlgorithm(Fixed(0.1)) then updatesThreshold(0.005)": lambda vc: (
        Shared.Builder(vc, 16).thresholdAlgorithm(dl4j.FixedThresholdAlgorithm(0.1)).updatesThreshold(0.005)
    ),
    "updatesThreshold(0.005) then thresholdAlgorithm(Fixed(0.1))": lambda vc: (
        Shared.Builder(vc, 16).updatesThreshold(0.005).thresholdAlgorithm(dl4j.FixedThresholdAlgorithm(0.1))
    ),
    "Builder(new FixedThresholdAlgorithm(0.1), 16)": lambda vc: Shared.Builder(dl4j.FixedThresholdAlgorithm(0.1), 16),
    "everything": lambda vc: (
        Shared.Builder(vc, 16)
        .repartitionData(dl4j.Repartition.Never)
        .repartitionStrategy(dl4j.RepartitionStrategy.SparkDefault)
        .repartitioner(dl4j.DefaultRepartitioner())
        .residualPostProcessor(None)
        .workersPerNode(3)
        .workerPrefetchNumBatches(5)
        .rddTrainingApproach(dl4j.RDDTrainingApproach.Direct)
        .storageLevel(dl4j.StorageLevel.DISK_ONLY)
        .batchSizePerWorker(64)
    ),
    "workersPerNode(0)": lambda vc: Shared.Builder(vc, 16).workersPerNode(0),
    "workersPerNode(-1)": lambda vc: Shared.Builder(vc, 16).workersPerNode(-1),
    "batchSizePerWorker(0)": lambda vc: Shared.Builder(vc, 16).batchSizePerWorker(0),
}

LEVELS = {"StorageLevel(memory, 1 replicas)": "MEMORY_ONLY_SER", "StorageLevel(disk, 1 replicas)": "DISK_ONLY"}


def written_as_dl4j(algorithm):
    names = {
        "fixed": ["threshold"],
        "adaptive": ["initialThreshold", "minTargetSparsity", "maxTargetSparsity", "decayRate"],
    }
    options = algorithm.model_dump(by_alias=True)
    return type(algorithm).__name__, {name: options[name] for name in names[algorithm.name]}


def parsed(text):
    kind, _, rest = text.rstrip(")").partition("(")
    return kind, {key: float(value) for key, value in (part.split("=") for part in rest.split(","))}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_building_ends_where_dl4js_does(way):
    master, expected = WAYS[way](Void()).build(), BUILT[way]
    assert written_as_dl4j(master.getThresholdAlgorithm()) == parsed(expected["thresholdAlgorithm"])
    clips = expected["residualPostProcessor"] is not None
    assert (master.getResidualPostProcessor() == dl4j.ResidualClippingPostProcessor(5.0, 5)) is clips
    assert (master.getResidualPostProcessor() == dl4j.NoOpResidualPostProcessor()) is not clips
    assert master.getRepartitioner() == dl4j.DefaultRepartitioner(5000)
    assert master.getRepartition() == expected["repartition"]
    assert master.getRepartitionStrategy() == expected["repartitionStrategy"]
    assert str(master.getNumWorkersPerNode()) == expected["numWorkersPerNode"]
    assert str(master.getWorkerPrefetchBatches()) == expected["workerPrefetchBatches"]
    assert master.getRddTrainingApproach() == expected["rddTrainingApproach"]
    assert master.getStorageLevel() == LEVELS[expected["storageLevel"]]
    assert str(master.getRddDataSetNumExamples()) == expected["rddDataSetNumExamples"]
    # 0 is DL4J's "not set", and nothing can be trained with it.
    assert master.batch_size_per_worker == (int(expected["batchSizePerWorker"]) or 16)
    # A number of workers acts here, where DL4J drops it.
    assert master.getNumWorkers() == (4 if "vc, 4," in way else None)


def test_the_ways_left_over_are_refused_or_better():
    assert BUILT.keys() - WAYS.keys() == {
        "updatesThreshold(-1)",
        "workerPrefetchNumBatches(-1)",
        "thresholdAlgorithm(null)",
    }
    with pytest.raises(ConfigurationError, match=r"AdaptiveThresholdAlgorithm: .* = -1: .*greater than 0"):
        Shared.Builder(16).updatesThreshold(-1)
    with pytest.raises(ConfigurationError, match="= -1"):
        Shared.Builder(16).workerPrefetchNumBatches(-1).build()
    assert Shared.Builder(16).thresholdAlgorithm(None).build().threshold_algorithm.initial_threshold is None


# -- every method of the builders ----------------------------------------------------------------


class Hook(dl4j.TrainingHook):
    pass


HOOK = Hook()
FOUND = dl4j.AdaptiveThresholdAlgorithm(None)

BOTH = [
    ("batchSizePerWorker", (7,), "batch_size_per_worker", 7),
    ("collectTrainingStats", (True,), "collect_training_stats", True),
    ("exportDirectory", ("memory://x",), "export_directory", "memory://x"),
    ("rddTrainingApproach", (dl4j.RDDTrainingApproach.Direct,), "rdd_training_approach", "Direct"),
    ("repartitionData", (dl4j.Repartition.Never,), "repartition_data", "Never"),
    ("repartionData", (dl4j.Repartition.Never,), "repartition_data", "Never"),
    ("repartitionStrategy", (dl4j.RepartitionStrategy.SparkDefault,), "repartition_strategy", "SparkDefault"),
    ("repartitioner", (dl4j.NoOpRepartitioner(),), "repartitioner", dl4j.NoOpRepartitioner()),
    ("repartitioner", (sb.EqualRepartitioner(),), "repartitioner", dl4j.EqualRepartitioner()),
    ("rngSeed", (12345,), "rng_seed", 12345),
    ("storageLevel", (dl4j.StorageLevel.MEMORY_AND_DISK_SER_2(),), "storage_level", "MEMORY_AND_DISK_SER_2"),
    ("storageLevel", ("OFF_HEAP",), "storage_level", "OFF_HEAP"),
    ("storageLevel", (None,), "storage_level", None),
    ("trainingHooks", (HOOK, HOOK), "training_hooks", (HOOK, HOOK)),
    ("trainingHooks", ([HOOK],), "training_hooks", (HOOK,)),
    ("trainingHooks", (None,), "training_hooks", ()),
    ("workerPrefetchNumBatches", (5,), "worker_prefetch_num_batches", 5),
]
AVERAGING = [
    ("aggregationDepth", (3,), "aggregation_depth", 3),
    ("averagingFrequency", (9,), "averaging_frequency", 9),
    ("saveUpdater", (False,), "save_updater", False),
    ("storageLevelStreams", (dl4j.StorageLevel.DISK_ONLY_2,), "storage_level_streams", "DISK_ONLY_2"),
]
SHARED = [
    ("debugLongerIterations", (3,), "debug_longer_iterations", 3),
    ("encodingDebugMode", (True,), "encoding_debug_mode", True),
    ("maxStaleness", (0,), "max_staleness", 0),
    ("residualPostProcessor", (dl4j.ResidualClippingPostProcessor(3.0, 2),), "residual_post_processor", None),
    ("residualPostProcessor", (None,), "residual_post_processor", dl4j.NoOpResidualPostProcessor()),
    ("thresholdAlgorithm", (dl4j.TargetSparsityThresholdAlgorithm(),), "threshold_algorithm", None),
    (
        "thresholdAlgorithm",
        (sb.AdaptiveThresholdAlgorithm(),),
        "threshold_algorithm",
        dl4j.AdaptiveThresholdAlgorithm(None),
    ),
    ("transport", ("memory",), "transport", "memory"),
    ("transport", (ZeroMQTransport,), "transport", ZeroMQTransport),
    ("updatesThreshold", (0.01,), "threshold_algorithm", dl4j.AdaptiveThresholdAlgorithm(0.01)),
    ("workersPerNode", (2,), "workers_per_node", 2),
]


def expected_of(value, arguments):
    return arguments[0] if value is None and arguments[0] is not None else value


@pytest.mark.parametrize(
    ("master", "method", "arguments", "option", "value"),
    [
        *((master, *row) for master in (Averaging, Shared) for row in BOTH),
        *((Averaging, *row) for row in AVERAGING),
        *((Shared, *row) for row in SHARED),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "__name__", "_"),
)
def test_each_method_of_a_builder_acts_on_the_master(master, method, arguments, option, value):
    builder = master.Builder(8)
    assert getattr(builder, method)(*arguments) is builder
    built = builder.build()
    assert isinstance(built, getattr(sb, master.__name__))
    assert getattr(built, option) == expected_of(value, arguments)
    if arguments[0] is not None:
        assert getattr(built, option) != getattr(master.Builder(8).build(), option)


def test_the_tables_have_every_method_of_the_builders():
    inert = {"workerTogglePeriodicGC", "workerPeriodicGCFrequency"}
    for master, package, rows in (
        (Averaging, "org.deeplearning4j.spark.impl.paramavg.", AVERAGING),
        (Shared, "org.deeplearning4j.spark.parameterserver.training.", SHARED),
    ):
        listed = MEMBERS[f"{package}{master.__name__}$Builder"]
        methods = {one.split("(")[0] for one in listed} - {"<init>", "build"}
        assert methods <= {row[0] for row in (*BOTH, *rows)} | inert


def test_a_repartitioner_and_the_two_options_before_it_the_last_call_wins():
    builder = Shared.Builder(8)
    assert builder.build().repartitioner == dl4j.DefaultRepartitioner()
    assert builder.repartitionData("Never").build().repartitioner is None
    assert builder.repartitioner(dl4j.EqualRepartitioner()).build().repartitioner == dl4j.EqualRepartitioner()


def test_a_builder_builds_again_and_masters_do_not_share():
    builder = Averaging.Builder(8).trainingHooks(HOOK)
    first, second = builder.build(), builder.averagingFrequency(2).build()
    first.removeHook(HOOK)
    assert (first.getAveragingFrequency(), first.getTrainingHookList()) == (5, ())
    assert (second.getAveragingFrequency(), second.getTrainingHookList()) == (2, (HOOK,))


@pytest.mark.parametrize("name", ["workerTogglePeriodicGC", "workerPeriodicGCFrequency"])
def test_the_jvms_options_warn_and_change_nothing(name):
    builder = Shared.Builder(8)
    with pytest.warns(StrombusWarning, match=f"{name} has no effect") as found:
        assert getattr(builder, name)(1) is builder
    assert (len(found), found[0].filename) == (1, __file__)
    assert builder.build() == Shared.Builder(8).build()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((), "wanted one of"),
        ((1, 2, 3, 4, 5), "got 5 values"),
        (("10.0.0.0/8", 16), "got str as the network's configuration"),
    ],
)
def test_a_builder_of_other_values_says_what_there_is(values, message):
    with pytest.raises(ConfigurationError, match=message):
        Shared.Builder(*values)


def test_builders_take_each_of_dl4js_lists_of_values():
    void, fixed = Void(networkMask="10.1.0.0/16"), dl4j.FixedThresholdAlgorithm(0.1)
    for values in ((void, fixed, 16), (void, None, fixed, 16), (void, None, 0.1, 16)):
        master = Shared.Builder(*values).build()
        assert master.transport_options.network_mask == "10.1.0.0/16"
        assert (master.threshold_algorithm == fixed) is (fixed in values)
    assert Averaging.Builder(3, 8).build().getNumWorkers() == 3
    assert Averaging.Builder(None, 8).build().getNumWorkers() is None
    for values in ((), (1, 2, 3)):
        with pytest.raises(ConfigurationError, match="wanted Builder"):
            Averaging.Builder(*values)
    for wrong in (Averaging.Builder(0), Averaging.Builder(0, 8), Averaging.Builder(8).averagingFrequency(0)):
        with pytest.raises(ConfigurationError, match="= 0"):
            wrong.build()


# -- constructors, getters, setters --------------------------------------------------------------


def test_masters_are_made_of_values_in_a_row():
    six = Averaging(False, 2, 10, 16, 4, 3)
    assert (
        six
        == Averaging.Builder(2, 10)
        .batchSizePerWorker(16)
        .averagingFrequency(4)
        .workerPrefetchNumBatches(3)
        .saveUpdater(False)
        .build()
    )
    ten = Averaging(False, 2, 10, 16, 4, 7, 3, dl4j.Repartition.Never, dl4j.RepartitionStrategy.SparkDefault, True)
    eleven = Averaging(
        False, 2, 10, 16, 4, 7, 3, dl4j.Repartition.Never, dl4j.RepartitionStrategy.SparkDefault,
        dl4j.StorageLevel.DISK_ONLY, True,
    )  # fmt: skip
    assert (ten.aggregation_depth, ten.repartition_data, ten.collect_training_stats) == (7, "Never", True)
    assert (ten.storage_level, eleven.storage_level) == ("MEMORY_ONLY_SER", "DISK_ONLY")
    with pytest.raises(ConfigurationError, match="6, 10, 11 values in a row or of named options, got 3"):
        Averaging(True, 2, 3)

    shared = Shared(
        Void(networkMask="10.1.0.0/16"), 2, dl4j.RDDTrainingApproach.Direct, dl4j.StorageLevel.NONE, True,
        dl4j.RepartitionStrategy.Balanced, dl4j.Repartition.Always, dl4j.FixedThresholdAlgorithm(0.1), None,
        16, 32, 5, 3, 4, dl4j.EqualRepartitioner(), None, None, True,
    )  # fmt: skip
    assert shared == (
        Shared.Builder(Void(networkMask="10.1.0.0/16"), 2, dl4j.FixedThresholdAlgorithm(0.1), 16)
        .rddTrainingApproach("Direct")
        .storageLevel("NONE")
        .collectTrainingStats(True)
        .residualPostProcessor(None)
        .batchSizePerWorker(32)
        .debugLongerIterations(5)
        .workersPerNode(3)
        .workerPrefetchNumBatches(4)
        .repartitioner(dl4j.EqualRepartitioner())
        .encodingDebugMode(True)
        .build()
    )


@pytest.mark.parametrize("master", [Averaging(), Shared()], ids=lambda master: type(master).__name__)
def test_what_is_set_is_got_and_what_cannot_work_changes_nothing(master):
    values = {
        "collect_training_stats": True,
        "worker_prefetch_num_batches": 1,
        "rdd_training_approach": "Direct",
        "repartition_data": "Never",
        "repartition_strategy": "SparkDefault",
        "repartitioner": dl4j.EqualRepartitioner(),
        "residual_post_processor": dl4j.NoOpResidualPostProcessor(),
        "storage_level": "DISK_ONLY",
        "threshold_algorithm": dl4j.FixedThresholdAlgorithm(0.2),
        "transport": "memory",
        "encoding_debug_mode": True,
        "save_updater": False,
    }
    seen = 0
    for name in [name for name in dir(master) if name.startswith("set") and name[3].isupper()]:
        read = next(
            found
            for prefix in ("get", "getIs", "is")
            if (found := getattr(master, prefix + name[3:], None)) is not None
        )
        option = read.__doc__.split("`")[1]
        if option == "training_hooks":
            value = (HOOK,)
        elif option == "transport_options":
            continue
        else:
            value = values.get(option, 3)
        assert read() != value, name
        getattr(master, name)(value)
        assert read() == value, name
        before, hooks = master.model_copy(), master.training_hooks
        with pytest.raises(ConfigurationError, match=r"=|TrainingHook, got object"):
            getattr(master, name)([object()])
        assert (master, master.training_hooks) == (before, hooks)
        seen += 1
    assert seen >= 8
    with pytest.raises(ValueError, match="frozen"):
        master.workers = 2


def test_options_survive_json_yaml_pickle_and_keep_their_classes():
    master = Shared.Builder(Void(networkMask="10.1.0.0/16"), 3, 0.01, 16).rngSeed(4).build()
    for again in (
        Shared.fromJson(master.toJson()),
        Shared.fromYaml(master.toYaml()),
        pickle.loads(pickle.dumps(master)),
    ):
        assert again == master
        assert type(again.getThresholdAlgorithm()) is dl4j.AdaptiveThresholdAlgorithm
    assert sb.SharedTrainingMaster.from_json(master.toJson()).workers == 3
    with pytest.raises(ConfigurationError, match="not JSON"):
        Shared.fromJson("{")
    assert master.deleteTempFiles() is True


# -- fits ----------------------------------------------------------------------------------------


class Counting(dl4j.TrainingHook):
    """Counts what it sees on the workers, and brings it home."""

    def __init__(self):
        self.seen, self.total = [0, 0], [0, 0]

    def preUpdate(self, minibatch, model):
        assert len(list(model.module.parameters())) == 4
        self.seen[0] += minibatch.examples

    def postUpdate(self, minibatch, model):
        self.seen[1] += minibatch.examples

    def state(self):
        return self.seen

    def collect(self, rank, state):
        self.total = [one + other for one, other in zip(self.total, state, strict=True)]


@pytest.fixture(scope="module")
def executor():
    with LocalExecutor(1) as executor:
        yield executor


@pytest.mark.parametrize(
    ("builder", "core"),
    [
        (
            Averaging.Builder(2, 1).averagingFrequency(2).workerPrefetchNumBatches(2),
            sb.ParameterAveragingTrainingMaster(workers=2, averaging_frequency=2, batch_size_per_worker=5, rng_seed=3),
        ),
        (
            Shared.Builder(Void(), 1, 0.01, 1),
            sb.SharedTrainingMaster(
                workers=1, updates_threshold=0.01, repartitioner="default", batch_size_per_worker=5, rng_seed=3
            ),
        ),
    ],
    ids=["averaging", "sharing"],
)
def test_a_built_master_trains_as_the_cores_does(executor, builder, core):
    data, hook = make_data(60), Counting()
    master = builder.batchSizePerWorker(5).rngSeed(3).trainingHooks([hook]).build()
    networks = make_network(), make_network()
    for network, one in zip(networks, (master, core), strict=True):
        result = sb.Trainer(network, one, executor).fit(data, epochs=2, progress=False)
        assert result.minibatches == 24
    ours, theirs = (network.state().parameters for network in networks)
    assert np.array_equal(ours, theirs)
    assert not np.array_equal(ours, make_network().state().parameters)
    assert hook.total == [120, 120]


@pytest.mark.spark
def test_pysparks_levels_are_taken():
    levels = pytest.importorskip("pyspark", reason="pyspark is not installed").StorageLevel
    for level, name in (
        (levels.NONE, "NONE"),
        (levels.DISK_ONLY_2, "DISK_ONLY_2"),
        (levels.MEMORY_ONLY, "MEMORY_ONLY_SER"),
        (levels.MEMORY_AND_DISK, "MEMORY_AND_DISK_SER"),
        (levels.MEMORY_AND_DISK_DESER, "MEMORY_AND_DISK"),
        (levels.OFF_HEAP, "OFF_HEAP"),
    ):
        for master in (Averaging, Shared):
            assert master.Builder(1).storageLevel(level).build().storage_level == name
    for ours in dl4j.StorageLevel.values():
        same = levels(ours.useDisk, ours.useMemory, ours.useOffHeap, ours.deserialized, ours.replication)
        assert Averaging.Builder(1).storageLevel(same).build().storage_level == ours
