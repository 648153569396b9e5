from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

from strombus.errors import ConfigurationError
from strombus.networks.updater import check_updater, read_updater, write_updater_
from strombus.types import UpdaterState


class Counting(torch.optim.Optimizer):
    """Keeps a Python number for each parameter, as some third-party optimizers do."""

    def __init__(self, parameters: object) -> None:
        super().__init__(parameters, {"lr": 0.1})

    def step(self) -> None:
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                state = self.state[parameter]
                state["seen"] = state.get("seen", 0) + 1
                parameter.sub_(parameter.grad * 0.1 / state["seen"])


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(3))]


def stepped(factory: object, steps: int = 3) -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
    mine = parameters()
    optimizer = factory(mine)
    for _ in range(steps):
        for parameter in mine:
            parameter.grad = parameter.detach() + 1
        optimizer.step()
    return mine, optimizer


def test_keys_and_values_are_the_optimizers_own() -> None:
    mine, optimizer = stepped(functools.partial(torch.optim.Adam, lr=0.02, betas=(0.8, 0.9)))
    state = read_updater(optimizer, mine, None)
    assert set(state.tensors) == {f"{i}.{name}" for i in (0, 1) for name in ("step", "exp_avg", "exp_avg_sq")}
    np.testing.assert_array_equal(state.tensors["0.exp_avg"], optimizer.state[mine[0]]["exp_avg"].numpy())
    assert state.tensors["1.step"].shape == ()
    assert state.tensors["1.step"] == 3
    assert (state.groups[0]["lr"], state.groups[0]["betas"]) == (0.02, (0.8, 0.9))
    assert "params" not in state.groups[0]
    assert state.schedule is None


def test_the_copy_is_a_copy() -> None:
    mine, optimizer = stepped(functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9))
    state = read_updater(optimizer, mine, None)
    before = state.tensors["0.momentum_buffer"].copy()
    optimizer.step()
    np.testing.assert_array_equal(state.tensors["0.momentum_buffer"], before)


def test_numbers_stay_numbers() -> None:
    mine, optimizer = stepped(Counting)
    state = read_updater(optimizer, mine, None)
    fresh = parameters()
    other = Counting(fresh)
    write_updater_(state, other, fresh, None)
    assert other.state[fresh[0]] == {"seen": 3}
    assert type(other.state[fresh[0]]["seen"]) is int


def test_order_of_groups_does_not_renumber() -> None:
    def groups(given: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": given[1:], "lr": 0.5}, {"params": given[:1]}], lr=0.1, momentum=0.9)

    mine, optimizer = stepped(groups)
    state = read_updater(optimizer, mine, None)
    assert state.tensors["0.momentum_buffer"].shape == (3, 2)
    assert [group["lr"] for group in state.groups] == [0.5, 0.1]


def test_schedule_and_learning_rate_come_back() -> None:
    mine, optimizer = stepped(functools.partial(torch.optim.SGD, lr=1.0))
    schedule = StepLR(optimizer, 1, 0.5)
    optimizer.step()
    schedule.step()
    state = read_updater(optimizer, mine, schedule)
    fresh = parameters()
    other = torch.optim.SGD(fresh, lr=1.0)
    again = StepLR(other, 1, 0.5)
    write_updater_(state, other, fresh, again)
    assert (again.last_epoch, other.param_groups[0]["lr"]) == (1, 0.5)
    other.step()
    again.step()
    assert other.param_groups[0]["lr"] == 0.25
    assert state.schedule["last_epoch"] == 1


def test_states_that_do_not_fit_are_refused_before_anything_changes() -> None:
    mine, optimizer = stepped(functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9))
    good = read_updater(optimizer, mine, None)
    shapes = {**good.tensors, "0.momentum_buffer": np.zeros((4, 2), np.float32)}
    for state, message in [
        (UpdaterState(shapes, good.groups), r"shape \(4, 2\), its parameter \(3, 2\)"),
        (UpdaterState({"2.momentum_buffer": np.zeros(3)}, good.groups), "none of the 2 trainable parameters"),
        (UpdaterState({"momentum_buffer": np.zeros(3)}, good.groups), "none of the 2 trainable parameters"),
        (UpdaterState(good.tensors, good.groups * 2), "2 parameter group"),
        (UpdaterState(good.tensors, ({"betas": (0.9, 0.99)},)), "betas, which SGD does not know"),
        (UpdaterState(good.tensors, ({"lr": "fast"},)), "wanted a number"),
        (UpdaterState(good.tensors, good.groups, {"last_epoch": 3}), "the network has none"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            check_updater(state, optimizer, mine, None)
    cosine = CosineAnnealingLR(optimizer, 5)
    with pytest.raises(ConfigurationError, match="step_size, which CosineAnnealingLR does not know"):
        write_updater_(UpdaterState(good.tensors, good.groups, {"step_size": 3}), optimizer, mine, cosine)
    np.testing.assert_array_equal(read_updater(optimizer, mine, None).tensors["0.momentum_buffer"],
                                  good.tensors["0.momentum_buffer"])  # fmt: skip


def test_parameters_without_state_lose_theirs() -> None:
    mine, optimizer = stepped(functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9))
    good = read_updater(optimizer, mine, None)
    write_updater_(UpdaterState({"1.momentum_buffer": good.tensors["1.momentum_buffer"]}, good.groups),
                   optimizer, mine, None)  # fmt: skip
    assert set(read_updater(optimizer, mine, None).tensors) == {"1.momentum_buffer"}


def test_lists_are_refused_by_name() -> None:
    mine = parameters()
    optimizer = torch.optim.LBFGS(mine)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = sum((parameter**2).sum() for parameter in mine)
        loss.backward()
        return loss

    optimizer.step(closure)
    with pytest.raises(ConfigurationError, match="LBFGS is a list"):
        read_updater(optimizer, mine, None)
