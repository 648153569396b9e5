from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from strombus.errors import ConfigurationError
from strombus.networks.flat import flatten_, read_parameters, write_parameters_


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(6, 4)
        self.decode = nn.Linear(4, 6)
        self.decode.weight = self.out = nn.Parameter(torch.randn(6, 4))
        self.again = nn.Linear(4, 6, bias=False)
        self.again.weight = self.decode.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        code = self.encode(x)
        return self.decode(code) + self.again(code)


def mlp() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def test_views_alias_the_vector_both_ways() -> None:
    module = mlp()
    before = [parameter.detach().clone() for parameter in module.parameters()]
    flat = flatten_(module)
    assert flat.vector.is_contiguous()
    assert flat.names == ("0.weight", "0.bias", "2.weight", "2.bias")
    assert flat.offsets == (0, 35, 42, 63)
    assert len(flat.vector) == 66
    assert all(torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))
    flat.vector.fill_(2.0)
    assert all(bool((p == 2).all()) for p in module.parameters())
    with torch.no_grad():
        module[2].bias.copy_(torch.tensor([7.0, 8.0, 9.0]))
    assert flat.vector[-3:].tolist() == [7, 8, 9]


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_an_optimizer_step_moves_the_vector_as_it_moves_a_plain_module(optimizer: type) -> None:
    module, plain = mlp().double(), mlp().double()
    flat = flatten_(module)
    x = torch.randn(9, 5, dtype=torch.float64)
    for each in (module, plain):
        stepper = optimizer(each.parameters(), lr=0.1)
        for _ in range(3):
            stepper.zero_grad()
            each(x).square().mean().backward()
            stepper.step()
    expected = torch.cat([p.detach().reshape(-1) for p in plain.parameters()])
    assert torch.equal(flat.vector, expected)


def test_tied_weights_stay_tied_and_count_once() -> None:
    module = Tied()
    flat = flatten_(module)
    assert len(flat.vector) == 6 * 4 + 6 * 4 + 4 + 6
    assert module.again.weight is module.decode.weight is module.out
    flat.load_(np.arange(len(flat.vector), dtype=np.float32))
    assert module.again.weight.data_ptr() == module.decode.weight.data_ptr()
    assert torch.equal(module.again.weight, module.decode.weight)


def test_frozen_parameters_stay_outside() -> None:
    module = mlp()
    module[0].requires_grad_(False)
    frozen = module[0].weight.data_ptr()
    flat = flatten_(module)
    assert flat.names == ("2.weight", "2.bias")
    assert module[0].weight.data_ptr() == frozen


def test_parameters_that_are_not_contiguous_keep_their_values() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)).to(memory_format=torch.channels_last)
    module[0].bias = nn.Parameter(torch.arange(8.0)[::2])
    before = copy.deepcopy(module.state_dict())
    assert not module[0].weight.is_contiguous()
    x = torch.randn(2, 3, 8, 8)
    expected = module(x)
    flatten_(module)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    torch.testing.assert_close(module(x), expected)


def test_flattening_again_after_a_cast() -> None:
    module = mlp()
    single = flatten_(module).vector
    module.to(torch.float64)
    flat = flatten_(module)
    assert flat.vector.dtype == torch.float64
    assert torch.equal(flat.vector.float(), single)
    flat.vector.zero_()
    assert not module[0].weight.any()
    assert flatten_(module).names == flat.names


def test_one_gradient_vector() -> None:
    module = mlp()
    flat = flatten_(module)
    gradient = flat.attach_gradient_()
    module(torch.ones(2, 5)).sum().backward()
    expected = torch.cat([p.grad.reshape(-1) for p in module.parameters()])
    assert torch.equal(gradient, expected)
    assert float(gradient.abs().sum()) > 0
    gradient.zero_()
    assert all(float(p.grad.abs().sum()) == 0 for p in module.parameters())


def test_in_place_load_and_copy_out() -> None:
    module = mlp()
    flat = flatten_(module)
    address = flat.vector.data_ptr()
    values = np.linspace(0, 1, 66).astype(np.float32)
    values.setflags(write=False)
    flat.load_(values)
    assert flat.vector.data_ptr() == address == module[0].weight.data_ptr()
    copied = flat.read()
    np.testing.assert_array_equal(copied, values)
    copied[:] = -1
    assert float(flat.vector.min()) == 0
    with pytest.raises(ConfigurationError, match="66 trainable parameters, the state 65"):
        flat.load_(values[:-1])


def test_read_and_write_leave_a_module_its_own_memory() -> None:
    module = Tied()
    addresses = [p.data_ptr() for p in module.parameters()]
    values = read_parameters(module)
    np.testing.assert_array_equal(values, flatten_(copy.deepcopy(module)).read())
    write_parameters_(module, values * 2)
    np.testing.assert_array_equal(read_parameters(module), values * 2)
    assert [p.data_ptr() for p in module.parameters()] == addresses


def test_a_module_without_parameters() -> None:
    assert len(flatten_(nn.Flatten()).vector) == 0


def test_what_cannot_be_flat_is_refused() -> None:
    mixed = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
    with pytest.raises(ConfigurationError, match="must have one type"):
        flatten_(mixed)
    with pytest.raises(ConfigurationError, match=r"autocast=torch\.bfloat16"):
        flatten_(nn.Linear(2, 2).to(torch.bfloat16))
    with pytest.raises(ConfigurationError, match="no values yet"):
        flatten_(nn.LazyLinear(2))
    shared = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    shared[1].weight = nn.Parameter(shared[0].weight.data)
    with pytest.raises(ConfigurationError, match="share memory"):
        flatten_(shared)
