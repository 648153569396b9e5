"""The compressor: whatever an optimizer would have added is sent, or still there; and peers end with the same bits."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from strombus.compression import (
    AdaptiveThresholdAlgorithm,
    Compression,
    Compressor,
    DenseEncoder,
    Dl4jEncoder,
    FixedThresholdAlgorithm,
    NoOpResidualPostProcessor,
    ResidualClippingPostProcessor,
    TargetSparsityThresholdAlgorithm,
    ThresholdEncoder,
    ThresholdState,
)
from strombus.compression import compressor as compressor_module
from strombus.compression.torch_ops import TorchStepper
from strombus.errors import ConfigurationError, NonFiniteError, WireError

SHAPES = [(7, 5), (7,), (300, 3), (1,)]
LENGTH = sum(int(np.prod(shape)) for shape in SHAPES)


class OwnOptimizer(torch.optim.SGD):
    """A subclass may do anything in its step; nothing is assumed of it."""

    def step(self, closure=None):
        super().step()
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.mul_(0.99)


OPTIMIZERS = {
    "sgd": functools.partial(torch.optim.SGD, lr=0.1),
    "sgd-decay": functools.partial(torch.optim.SGD, lr=0.1, weight_decay=0.01),
    "sgd-maximize": functools.partial(torch.optim.SGD, lr=0.1, maximize=True),
    "momentum": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, dampening=0.1),
    "nesterov": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": functools.partial(torch.optim.Adam, lr=0.01),
    "adam-decay": functools.partial(torch.optim.Adam, lr=0.01, weight_decay=0.01),
    "adam-amsgrad": functools.partial(torch.optim.Adam, lr=0.01, amsgrad=True),
    "adamw": functools.partial(torch.optim.AdamW, lr=0.01),
    "rmsprop": functools.partial(torch.optim.RMSprop, lr=0.01),
    "rmsprop-decay": functools.partial(torch.optim.RMSprop, lr=0.01, weight_decay=0.1),
    "adagrad": functools.partial(torch.optim.Adagrad, lr=0.01),
    "nadam": functools.partial(torch.optim.NAdam, lr=0.01),
    "own": functools.partial(OwnOptimizer, lr=0.1),
}


def make_parameters(dtype=torch.float64, seed=0):
    """Return (parameters, the vector that they are views of)."""
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(LENGTH, dtype=dtype, generator=generator)
    parameters, start = [], 0
    for shape in SHAPES:
        size = int(np.prod(shape))
        parameters.append(nn.Parameter(vector[start : start + size].view(shape)))
        start += size
    return parameters, vector


def give_gradients(parameters, step, leave_out=None):
    rng = np.random.default_rng(step)
    for number, parameter in enumerate(parameters):
        values = rng.normal(size=parameter.shape) * rng.lognormal(0, 1, parameter.shape)
        parameter.grad = None if number == leave_out else torch.from_numpy(values).to(parameter.dtype)


def make(dtype=torch.float64, seed=0, **options):
    parameters, vector = make_parameters(dtype, seed)
    defaults = {"residual_post_processor": NoOpResidualPostProcessor()}
    return Compressor(Compression(**{**defaults, **options}), parameters, vector), parameters, vector


def fixed(tau=0.05):
    return FixedThresholdAlgorithm(threshold=tau)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("leave_out", [None, 1])
def test_the_residual_holds_what_the_optimizer_would_have_added(name, leave_out):
    """With a threshold that nothing reaches the residual is the sum of all updates, and state is torch's own."""
    compressor, parameters, vector = make(threshold_algorithm=fixed(1e9))
    plain, plain_vector = make_parameters()
    ours, torchs = OPTIMIZERS[name](parameters), OPTIMIZERS[name](plain)
    start = vector.clone()
    wanted = torch.zeros_like(vector)
    for step in range(4):
        give_gradients(parameters, step, leave_out)
        give_gradients(plain, step, leave_out)
        compressor.step_(ours)
        before = plain_vector.clone()
        torchs.step()
        wanted += plain_vector - before
        plain_vector.copy_(before)  # what was not sent has moved nothing
        assert torch.equal(vector, start)
    torch.testing.assert_close(compressor.residual, wanted, rtol=1e-9, atol=1e-12)
    mine, theirs = ours.state_dict(), torchs.state_dict()
    assert mine["state"].keys() == theirs["state"].keys()
    for number, state in theirs["state"].items():
        assert mine["state"][number].keys() == state.keys()
        for key, value in state.items():
            if value is not None:
                torch.testing.assert_close(mine["state"][number][key], value, rtol=1e-9, atol=1e-12)


ALGORITHMS = {
    "fixed": fixed(),
    "adaptive": AdaptiveThresholdAlgorithm(),
    "adaptive-dl4j": AdaptiveThresholdAlgorithm(initial_threshold=1e-4),
    "target": TargetSparsityThresholdAlgorithm(sparsity_target=0.01),
    "nothing": fixed(1e9),
    "everything": fixed(1e-9),
}

ENCODERS = {
    "threshold": ThresholdEncoder(),
    "dl4j": Dl4jEncoder(),
    "float32": DenseEncoder(dtype="float32"),
    "float16": DenseEncoder(dtype="float16"),
}


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(ALGORITHMS)),
    st.sampled_from(["sgd", "momentum", "adam", "adagrad", "own"]),
    st.sampled_from(["model", "tensor"]),
    st.sampled_from(sorted(ENCODERS)),
    st.lists(st.booleans(), min_size=1, max_size=14),
)
def test_nothing_is_lost(algorithm, optimizer_name, scope, encoder_name, saves):
    """Sum of updates = sum of what was sent + residual, across modes, empty steps and save/restore."""
    encoder, scope = ENCODERS[encoder_name], "model" if encoder_name == "dl4j" else scope
    options = {"threshold_algorithm": ALGORITHMS[algorithm], "threshold_scope": scope, "encoder": encoder}
    compressor, parameters, vector = make(**options)
    reference, ref_parameters, ref_vector = make(threshold_algorithm=fixed(1e9))
    optimizer, ref_optimizer = OPTIMIZERS[optimizer_name](parameters), OPTIMIZERS[optimizer_name](ref_parameters)
    sent = torch.zeros_like(vector)
    for step, save in enumerate(saves):
        give_gradients(parameters, step)
        give_gradients(ref_parameters, step)
        compressor.step_(optimizer)
        reference.step_(ref_optimizer)
        before = vector.clone()
        compressor.apply_own_(1.0)
        sent += vector - before
        vector.copy_(before)
        ref_vector.copy_(before)
        if save:
            kept = compressor.state()
            compressor = Compressor(compressor._options, parameters, vector)
            compressor.load(kept)
    scale = float(reference.residual.abs().max()) + 1
    torch.testing.assert_close(sent + compressor.residual, reference.residual, rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scope", ["model", "tensor"])
@pytest.mark.parametrize("encoder", [ThresholdEncoder(), DenseEncoder(), DenseEncoder(dtype="float16")])
def test_a_peer_ends_with_the_same_bits(dtype, scope, encoder):
    check_peers_agree(
        make(dtype, threshold_scope=scope, encoder=encoder), make(dtype, threshold_scope=scope, encoder=encoder)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_peer_reads_dl4js_messages(dtype):
    check_peers_agree(make(dtype, encoder=Dl4jEncoder()), make(dtype, encoder=Dl4jEncoder()))


def check_peers_agree(one, other):
    (compressor, parameters, vector), (peer, _, peer_vector) = one, other
    optimizer = OPTIMIZERS["momentum"](parameters)
    before, sent = vector.clone(), 0
    for step in range(15):
        give_gradients(parameters, step)
        update = compressor.step_(optimizer)
        compressor.apply_own_(1 / 3)
        peer.apply_(bytes(update.payload), 1 / 3)
        assert torch.equal(vector, peer_vector)
        assert update.nbytes == len(update.payload)
        assert not peer.residual.any()
        sent += update.count
    assert sent > 0
    assert not torch.equal(vector, before)


def test_state_goes_on_bit_for_bit():
    compressor, parameters, vector = make(torch.float32)
    optimizer = OPTIMIZERS["sgd"](parameters)
    for step in range(12):
        give_gradients(parameters, step)
        compressor.step_(optimizer)
    other = Compressor(Compression(residual_post_processor=NoOpResidualPostProcessor()), parameters, vector)
    other.load(compressor.state())
    for step in range(12, 20):
        give_gradients(parameters, step)
        assert bytes(compressor.step_(optimizer).payload) == bytes(other.step_(optimizer).payload)
    assert torch.equal(compressor.residual, other.residual)


def test_what_clipping_removes_is_counted():
    clipping = ResidualClippingPostProcessor(threshold_multiple_value=2.0, frequency=2)
    compressor, parameters, vector = make(residual_post_processor=clipping, threshold_algorithm=fixed(0.01))
    optimizer = OPTIMIZERS["sgd"](parameters)
    wanted, removed = torch.zeros_like(vector), 0.0
    for step in range(7):
        give_gradients(parameters, step)
        wanted += -0.1 * torch.cat([parameter.grad.view(-1) for parameter in parameters])
        held, before = compressor.residual.clone(), vector.clone()
        compressor.step_(optimizer)
        compressor.apply_own_(1.0)
        update = -0.1 * torch.cat([parameter.grad.view(-1) for parameter in parameters])
        lost = held + update - (vector - before) - compressor.residual
        removed += float(lost.abs().sum())
        vector.copy_(before)
        if step and step % 2 == 0:
            assert compressor.residual.abs().max() <= 0.02 + 1e-12
    assert removed > 0
    assert compressor.state().clipped == pytest.approx(removed, rel=1e-9)


def test_one_threshold_for_each_tensor():
    algorithm = TargetSparsityThresholdAlgorithm(sparsity_target=0.05)
    compressor, parameters, _ = make(threshold_scope="tensor", threshold_algorithm=algorithm)
    optimizer = OPTIMIZERS["sgd"](parameters)
    for step in range(5):
        give_gradients(parameters, step)
        parameters[2].grad *= 1000
        compressor.step_(optimizer)
    thresholds = [state.threshold for state in compressor.state().thresholds]
    assert len(thresholds) == len(SHAPES)
    assert thresholds[2] > 50 * thresholds[0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("encoder", [ThresholdEncoder(), DenseEncoder()])
@pytest.mark.parametrize("algorithm", ["fixed", "adaptive"])
def test_updates_that_are_not_finite(bad, encoder, algorithm):
    compressor, parameters, _ = make(encoder=encoder, threshold_algorithm=ALGORITHMS[algorithm])
    give_gradients(parameters, 0)
    parameters[2].grad[7, 1] = bad
    with pytest.raises(NonFiniteError, match="on_nonfinite") as caught:
        compressor.step_(OPTIMIZERS["sgd"](parameters))
    assert caught.value.what == "update"


def test_a_step_that_is_left_out_sends_nothing_and_keeps_the_residual():
    compressor, parameters, vector = make(threshold_algorithm=fixed())
    give_gradients(parameters, 0)
    compressor.step_(OPTIMIZERS["sgd"](parameters))
    before, kept = vector.clone(), compressor.residual.clone()
    update = compressor.skip_()
    compressor.apply_own_(1.0)
    compressor.apply_(update.payload, 1.0)
    assert (update.count, compressor.state().skipped) == (0, 1)
    assert torch.equal(vector, before)
    assert torch.equal(compressor.residual, kept)


def test_a_damaged_payload_changes_nothing():
    compressor, parameters, vector = make(threshold_algorithm=fixed())
    give_gradients(parameters, 0)
    payload = bytearray(compressor.step_(OPTIMIZERS["sgd"](parameters)).payload)
    before = vector.clone()
    for stop in range(0, len(payload), 7):
        with pytest.raises(WireError):
            compressor.apply_(payload[:stop], 1.0)
    assert torch.equal(vector, before)


def test_statistics_are_numpys():
    compressor, parameters, _ = make(threshold_algorithm=fixed())
    give_gradients(parameters, 0)
    update = compressor.step_(OPTIMIZERS["sgd"](parameters))
    figures, size = compressor.statistics(), compressor.residual.abs().numpy()
    assert (figures["count"], figures["elements"]) == (update.count, LENGTH)
    assert figures["mean"] == pytest.approx(size.mean())
    assert figures["percentiles"]["99.9"] == pytest.approx(np.percentile(size, 99.9))
    assert figures["percentiles_in_thresholds"]["50"] == pytest.approx(np.percentile(size, 50) / 0.05)


def test_zero_gradients_send_nothing():
    compressor, parameters, vector = make()
    optimizer = OPTIMIZERS["sgd"](parameters)
    before = vector.clone()
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    for _ in range(30):
        assert compressor.step_(optimizer).count == 0
        compressor.apply_own_(1.0)
    assert torch.equal(vector, before)


def test_parameters_that_cannot_be_shared_are_refused():
    parameters, vector = make_parameters(torch.float16)
    with pytest.raises(ConfigurationError, match="float32 or float64"):
        Compressor(Compression(), parameters, vector)


def test_a_state_of_other_parameters_is_refused():
    compressor, _, _ = make()
    with pytest.raises(ConfigurationError, match="thresholds, the state"):
        make(threshold_scope="tensor")[0].load(compressor.state())


@pytest.mark.parametrize("threshold", [1e-50, 1e50])
def test_a_threshold_beyond_the_parameters_type_is_refused(threshold):
    compressor, parameters, _ = make(torch.float32, threshold_algorithm=fixed(threshold))
    give_gradients(parameters, 0)
    with pytest.raises(ConfigurationError, match="minimum_threshold"):
        compressor.step_(OPTIMIZERS["sgd"](parameters))


def test_an_optimizers_hooks_are_called():
    compressor, parameters, _ = make(threshold_algorithm=fixed(1e9))
    optimizer, called = OPTIMIZERS["sgd"](parameters), []
    before = [parameter.clone() for parameter in parameters]
    optimizer.register_step_pre_hook(lambda *_: called.append("before"))
    optimizer.register_step_pre_hook(lambda *_: called.append(all(map(torch.equal, parameters, before))))
    optimizer.register_step_post_hook(lambda *_: called.append("after"))
    give_gradients(parameters, 0)
    compressor.step_(optimizer)
    assert called == ["before", True, "after"]
    wanted = -0.1 * torch.cat([parameter.grad.view(-1) for parameter in parameters])
    torch.testing.assert_close(compressor.residual, wanted)


def test_an_update_says_what_was_clipped_and_how_it_is_written():
    clipping = ResidualClippingPostProcessor(threshold_multiple_value=1.0, frequency=1)
    compressor, parameters, _ = make(residual_post_processor=clipping, threshold_algorithm=fixed(0.01))
    optimizer, total = OPTIMIZERS["sgd"](parameters), 0.0
    for step in range(3):
        give_gradients(parameters, step)
        update = compressor.step_(optimizer)
        total += update.clipped
        assert not update.dense
    assert total == pytest.approx(compressor.state().clipped)
    assert total > 0
    compressor, parameters, _ = make(encoder=DenseEncoder())
    give_gradients(parameters, 0)
    assert compressor.step_(OPTIMIZERS["sgd"](parameters)).dense


def test_dl4js_messages_hold_one_threshold():
    with pytest.raises(ValueError, match="one threshold"):
        Compression(encoder=Dl4jEncoder(), threshold_scope="tensor")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scope", ["model", "tensor"])
@pytest.mark.parametrize("name", ["sgd", "adagrad", "adamw", "own"])
def test_torch_operations_do_what_the_compiled_passes_do(monkeypatch, dtype, scope, name):
    """What other devices use, here on the CPU: the same quanta are sent, the same is left, peers read one another."""
    clipping = ResidualClippingPostProcessor(threshold_multiple_value=2.0, frequency=3)
    options = {"threshold_algorithm": fixed(), "threshold_scope": scope, "residual_post_processor": clipping}
    compiled, parameters, vector = make(dtype, **options)
    with monkeypatch.context() as patch:
        patch.setattr(compressor_module, "Stepper", TorchStepper)
        torchs, torch_parameters, torch_vector = make(dtype, **options)
    optimizer, torch_optimizer = OPTIMIZERS[name](parameters), OPTIMIZERS[name](torch_parameters)
    # Parameters of size 3 after a step minus before it: each step rounds by up to 2.4e-7 in float32.
    close = {"rtol": 1e-5, "atol": 4e-6} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-12}
    for step in range(8):
        give_gradients(parameters, step)
        give_gradients(torch_parameters, step)
        update, torch_update = compiled.step_(optimizer), torchs.step_(torch_optimizer)
        assert bytes(update.payload) == bytes(torch_update.payload)
        assert update.clipped == pytest.approx(torch_update.clipped, rel=1e-4)
        compiled.apply_own_(0.5)
        torchs.apply_own_(0.5)
        compiled.apply_(torch_update.payload, 0.5)
        torchs.apply_(update.payload, 0.5)
        torch.testing.assert_close(torchs.residual, compiled.residual, **close)
        torch.testing.assert_close(torch_vector, vector, **close)
    torch_parameters[1].grad[0] = float("nan")
    with pytest.raises(NonFiniteError):
        torchs.step_(torch_optimizer)


@pytest.mark.parametrize("encoder", [ThresholdEncoder(), DenseEncoder(), Dl4jEncoder()])
def test_state_and_statistics_with_torch_operations(monkeypatch, encoder):
    monkeypatch.setattr(compressor_module, "Stepper", TorchStepper)
    check_peers_agree(make(torch.float32, encoder=encoder), make(torch.float32, encoder=encoder))
    compressor, parameters, vector = make(torch.float32, encoder=encoder)
    give_gradients(parameters, 0)
    optimizer = OPTIMIZERS["sgd"](parameters)
    compressor.step_(optimizer)
    other = Compressor(compressor._options, parameters, vector)
    other.load(compressor.state())
    assert other.statistics()["mean"] == compressor.statistics()["mean"]
    assert bytes(other.step_(optimizer).payload) == bytes(compressor.step_(optimizer).payload)


def test_the_first_threshold_lets_the_wanted_share_through_whatever_lies_in_rows():
    """Images have columns with nothing in them: a sample of every 28th element of 784 would see nothing else."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2400, 784)) * np.where(np.arange(784) % 28, 1.0, 0.01)
    parameter = nn.Parameter(torch.from_numpy(rows.astype(np.float32)).view(-1) * 0)
    compressor = Compressor(Compression(), [parameter], parameter.data)
    parameter.grad = torch.from_numpy(rows.astype(np.float32)).view(-1)
    update = compressor.step_(torch.optim.SGD([parameter], lr=0.1))
    wanted = AdaptiveThresholdAlgorithm().share_to_estimate(ThresholdState(elements=rows.size))
    assert update.count / rows.size == pytest.approx(wanted, rel=0.05)
