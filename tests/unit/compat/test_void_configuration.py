"""DL4J's network configuration, its algorithms and its repartitioners: as its files and its own runs have them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import strombus as sb
from strombus.compat import dl4j
from strombus.compat.dl4j.void_configuration import INERT
from strombus.errors import ConfigurationError, StrombusWarning

GOLDEN = Path(__file__).parents[2] / "golden"
Void = dl4j.VoidConfiguration


@pytest.fixture(autouse=True)
def no_warnings():
    """Nothing here may warn but where a test asks for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_properties_and_defaults_are_dl4js_in_its_order():
    written = json.loads((GOLDEN / "masters" / "void_configuration.json").read_text())
    assert list(Void.model_fields) == list(written)
    set_by_the_run = {"controllerAddress", "networkMask"}
    for name in written.keys() - set_by_the_run - {"portSupplier", "shardAddresses", "backupAddresses"}:
        assert getattr(Void(), name) == written[name], name
    assert Void().getPortSupplier().getPort() == written["portSupplier"]["port"]
    with pytest.warns(StrombusWarning, match="has no effect"):
        everything = Void(
            *(value if name != "portSupplier" else dl4j.StaticPortSupplier() for name, value in written.items())
        )
    assert everything.getNetworkMask() == written["networkMask"]
    with pytest.raises(ConfigurationError, match="25 values in a row or of named ones, got 2"):
        Void(1, 2)


@pytest.mark.parametrize("name", sorted(INERT))
def test_each_inert_property_is_kept_warns_once_and_reaches_nothing(name):
    value = True if name.startswith("use") else Void.model_fields[name].default or "something"
    with pytest.warns(StrombusWarning, match=f"^{name} has no effect") as found:
        void = getattr(Void.builder(), name)(value).build()
    assert len(found) == 1
    assert getattr(void, name) == value
    assert void.toTransportOptions() == sb.TransportOptions()
    fresh = Void()
    with pytest.warns(StrombusWarning, match=f"^{name} has no effect") as found:
        getattr(fresh, f"set{name[0].upper()}{name[1:]}")(value)
    assert (len(found), found[0].filename) == (1, __file__)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda b: b, {}),
        (lambda b: b.unicastPort(40123), {"ports": (40123, 40123)}),
        (lambda b: b.portSupplier(dl4j.StaticPortSupplier(40123)), {"ports": (40123, 40123)}),
        (lambda b: b.portSupplier(dl4j.EnvironmentVarPortSupplier("A_PORT")), {"ports": (40124, 40124)}),
        (lambda b: b.unicastControllerPort(40125), {"ports": (40125, 40125)}),
        (lambda b: b.controllerAddress("10.0.2.4"), {"controller_address": "10.0.2.4", "topology": "star"}),
        (lambda b: b.responseTimeout(4000), {"connect_timeout": 4.0, "send_timeout": 4.0}),
        (lambda b: b.networkMask("10.1.0.0/16"), {"network_mask": "10.1.0.0/16"}),
        (lambda b: b.networkMask("10.1.2.3"), {"network_mask": "10.1.2.0/24"}),
        (lambda b: b.meshBuildMode(dl4j.MeshBuildMode.MESH), {"topology": "tree"}),
        (lambda b: b.meshBuildMode(dl4j.MeshBuildMode.PLAIN), {}),
        (lambda b: b.transportType(dl4j.TransportType.ROUTED_UDP), {}),
    ],
)
def test_what_acts_reaches_the_transport_and_comes_back(monkeypatch, build, expected):
    monkeypatch.setenv("A_PORT", "40124")
    options = build(Void.builder()).build().toTransportOptions()
    assert options == sb.TransportOptions(**expected)
    assert Void.of(options).toTransportOptions() == options
    master = dl4j.SharedTrainingMaster.Builder(build(Void.builder()).build(), 8).build()
    assert master.transport_options == options
    other = dl4j.SharedTrainingMaster.Builder(8).build()
    other.setVoidConfiguration(master.getVoidConfiguration())
    assert other == master


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Void(port=3), "VoidConfiguration has no option 'port'; known: backupAddresses"),
        (lambda: Void.builder().networkMask("ten").build().toTransportOptions(), "TransportOptions: networkMask"),
        (lambda: dl4j.SharedTrainingMaster.Builder(Void(networkMask="ten"), 8).build(), "SharedTrainingMaster: .*Mask"),
        (lambda: Void(unicastControllerPort=70000), "unicastControllerPort = 70000"),
        (lambda: Void(transportType="PIGEONS"), "transportType = 'PIGEONS'"),
        (lambda: Void().setMeshBuildMode("TREE"), "meshBuildMode = 'TREE'"),
        (lambda: Void.builder().unicastPort(0), "1 to 65535, got 0"),
        (lambda: dl4j.EnvironmentVarPortSupplier("NO_SUCH_PORT").getPort(), "NO_SUCH_PORT must hold a port, got ''"),
    ],
)
def test_what_cannot_work_is_refused(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


@pytest.mark.parametrize("name", ["maxChunkSize", "responseTimeframe", "retransmitTimeout", "maxFailuresPerNode"])
def test_what_has_another_name_here_is_warned_about_as_in_a_file(name):
    void = getattr(Void.builder(), name)(7).build()
    with pytest.warns(StrombusWarning, match=f"DL4J's {name} have no effect here"):
        assert void.toTransportOptions() == sb.TransportOptions()


def test_a_transport_that_dl4j_cannot_run_is_refused_unless_one_of_ours_is_named():
    builder = dl4j.SharedTrainingMaster.Builder(Void(transportType=dl4j.TransportType.CUSTOM), 8)
    with pytest.raises(ConfigurationError, match="transportType CUSTOM names nothing that runs here"):
        builder.build()
    assert builder.transport("memory").build().transport == "memory"


def test_a_builder_has_a_method_for_each_property_and_no_other():
    assert all(callable(getattr(dl4j.VoidConfiguration.builder(), name)) for name in Void.model_fields)
    with pytest.raises(AttributeError, match="netMask"):
        Void.builder().netMask("10.0.0.0/8")


# -- algorithms ----------------------------------------------------------------------------------

TRACES = json.loads((GOLDEN / "thresholds" / "traces.json").read_text())
MADE = {
    "adaptive_default": dl4j.AdaptiveThresholdAlgorithm(),
    "adaptive_initial_0.01_min_1e-3_max_1e-2_decay_0.9": dl4j.AdaptiveThresholdAlgorithm(0.01, 1e-3, 1e-2, 0.9),
    "target_sparsity_default": dl4j.TargetSparsityThresholdAlgorithm(),
    "target_sparsity_initial_0.01_target_1e-3_decay_0.9": dl4j.TargetSparsityThresholdAlgorithm(0.01, 1e-3, 0.9),
    "fixed_0.002": dl4j.FixedThresholdAlgorithm(0.002),
}


@pytest.mark.parametrize("name", MADE)
def test_thresholds_are_those_that_dl4j_calculated(name):
    algorithm = MADE[name]
    for iteration, call in enumerate(TRACES[name]):
        found = algorithm.calculateThreshold(
            iteration, 0, call["last_threshold"], call["last_was_dense"], call["last_sparsity"], None
        )
        assert found == pytest.approx(call["threshold"], rel=1e-12)
    assert algorithm.clone() == algorithm
    assert type(algorithm.clone()) is type(algorithm)


@pytest.mark.parametrize("name", ["clipping_5_5_threshold_1e-3"])
def test_residuals_are_clipped_as_dl4j_clips_them(name):
    post = dl4j.ResidualClippingPostProcessor(5.0, 5)
    for call in json.loads((GOLDEN / "thresholds" / "residual_clipping.json").read_text())[name]:
        residual = np.array(call["before"]["values"], np.float32)
        post.processResidual(call["iteration"], 0, 1e-3, residual)
        np.testing.assert_array_equal(residual, np.array(call["after"]["values"], np.float32))
    assert post.clone() == post == dl4j.ResidualClippingPostProcessor()


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=9), st.integers(0, 20))
def test_no_post_processor_changes_nothing(values, iteration):
    residual = np.array(values, np.float32)
    dl4j.NoOpResidualPostProcessor().processResidual(iteration, 0, 1e-3, residual)
    np.testing.assert_array_equal(residual, np.array(values, np.float32))


def test_constructors_and_their_refusals():
    assert dl4j.FixedThresholdAlgorithm(0.1).getThreshold() == 0.1
    assert dl4j.DefaultRepartitioner(7).max_partitions == 7
    assert isinstance(dl4j.AdaptiveThresholdAlgorithm(0.1), sb.AdaptiveThresholdAlgorithm)
    assert dl4j.FixedThresholdAlgorithm(1.0, maximum_threshold=2.0).maximum_threshold == 2.0
    for make in (
        lambda: dl4j.AdaptiveThresholdAlgorithm(0.0),
        lambda: dl4j.AdaptiveThresholdAlgorithm(1e-3, 1e-2, 1e-4),
        lambda: dl4j.TargetSparsityThresholdAlgorithm(1e-3, 0.5),
        lambda: dl4j.ResidualClippingPostProcessor(0.5, 5),
        lambda: dl4j.ResidualClippingPostProcessor(5.0, 0),
        lambda: dl4j.DefaultRepartitioner(0),
    ):
        with pytest.raises(ConfigurationError, match=r"Algorithm|PostProcessor|Repartitioner"):
            make()
