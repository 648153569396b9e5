"""The compiled passes, against the same in plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from strombus.compression import kernels

SIZES = [1, 7, 8, 9, 63, 1023, 1024, 1025, 2500]
DTYPES = [np.float32, np.float64]


def plain(residual, tau):
    """Return (codes, what is left), element by element."""
    codes, left = [], residual.copy()
    for index, value in enumerate(residual):
        if abs(value) >= tau:
            codes.append(2 * index + (value < 0))
            left[index] = value + tau if value < 0 else value - tau
    return np.array(codes, np.uint32), left


def run(kernel, *arguments, residual, tau):
    """Run a kernel; return (codes, quantum) and leave the rest in `residual`."""
    quantum = residual.dtype.type(tau)
    codes = np.empty(len(residual) + kernels.SLACK, np.uint32)
    count = kernel(*arguments, residual, quantum, codes, 0, 0)
    return (codes[:count] if count >= 0 else None), quantum


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from(DTYPES), st.sampled_from(SIZES), st.sampled_from([1e-3, 0.5, 3.0]))
def test_selection_equals_the_plain_definition(data, dtype, size, tau):
    width = np.dtype(dtype).itemsize * 8
    residual = data.draw(arrays(dtype, size, elements=st.floats(-10, 10, width=width)))
    residual[data.draw(st.integers(0, size - 1))] = dtype(tau)  # inclusive
    before = residual.copy()
    codes, quantum = run(kernels.select, residual=residual, tau=tau)
    wanted, left = plain(before, quantum)
    assert np.array_equal(codes, wanted)
    assert np.array_equal(residual, left)
    back = np.zeros(size, dtype)
    kernels.add_codes(codes, len(codes), quantum, back, 0)
    # Between one and two quanta the difference is exact, and else within one rounding of the value.
    assert np.all(np.abs(back + residual - before) <= np.spacing(np.abs(before)))
    small = (np.abs(before) <= 2 * quantum) & (np.abs(before) >= quantum)
    assert np.array_equal((back + residual)[small], before[small])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1023, 1024, 2499])
def test_what_is_not_finite_is_told(dtype, bad, place):
    residual = np.zeros(2500, dtype)
    residual[place] = bad
    assert run(kernels.select, residual=residual, tau=1.0)[0] is None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_the_difference_of_a_step(dtype, size):
    rng = np.random.default_rng(size)
    before, after = rng.normal(size=(2, size)).astype(dtype)
    residual = rng.normal(size=size).astype(dtype)
    wanted, left = plain(residual + (after - before), dtype(0.8))
    codes, _ = run(kernels.select_difference, after, before, residual=residual, tau=0.8)
    assert np.array_equal(codes, wanted)
    assert np.array_equal(residual, left)
    assert np.array_equal(after, before)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adam", "adamw"])
def test_the_optimizers_steps_are_torchs(name, decay):
    rng = np.random.default_rng(1)
    size = 700
    values = rng.normal(size=size)
    makers = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=decay),
        "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.3, weight_decay=decay),
        "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=decay),
        "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=decay),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=decay),
    }
    parameter = torch.nn.Parameter(torch.from_numpy(values.copy()))
    optimizer = makers[name]([parameter])
    states = np.zeros((2, size))
    for step in range(1, 5):
        gradient = rng.normal(size=size)
        before = parameter.detach().numpy().copy()
        residual = np.zeros(size)
        if name == "sgd":
            arguments = (kernels.select_sgd, gradient, before, np.array([0.1, decay]))
        elif name in ("momentum", "nesterov"):
            keep = 0.7 if name == "momentum" and step > 1 else 1.0  # torch starts with the whole gradient
            rates = np.array([0.1, decay, 0.9, keep])
            arguments = (kernels.select_momentum, gradient, before, states[0], rates, name == "nesterov")
        else:
            adam, adamw = (decay, 0.0) if name == "adam" else (0.0, 0.01 * decay)
            rate, root = 0.01 / (1 - 0.9**step), 1 / np.sqrt(1 - 0.999**step)
            rates = np.array([rate, 1 - 0.9, 0.999, 1 - 0.999, root, 1e-8, adam, adamw])
            arguments = (kernels.select_adam, gradient, before, states[0], states[1], rates)
        codes, _ = run(*arguments, residual=residual, tau=1e3)
        assert len(codes) == 0
        parameter.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        np.testing.assert_allclose(residual, parameter.detach().numpy() - before, rtol=1e-9, atol=1e-13)
