from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from strombus.errors import ConfigurationError, DataError, MissingDataError
from strombus.networks import MultiLayerNetwork
from strombus.types import DataSet

Adam = functools.partial(torch.optim.Adam, lr=0.01)
schedules = torch.optim.lr_scheduler


class Example(nn.Module):
    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, width), nn.Linear(4, width)
        self.second.weight = self.first.weight
        self.norm, self.head = nn.BatchNorm1d(width), nn.Linear(width, 3)
        self.first.bias.requires_grad_(False)
        self.frozen = nn.Parameter(torch.ones(2, dtype=torch.bfloat16), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.first(x) + self.second(x)))


def batch() -> DataSet:
    rng = np.random.default_rng(0)
    return DataSet(rng.normal(size=(9, 4)), rng.integers(0, 3, 9))


def make(optimizer: Callable = Adam, width: int = 5, **options: object) -> MultiLayerNetwork:
    return MultiLayerNetwork(
        functools.partial(Example, width), nn.CrossEntropyLoss(), optimizer, device="cpu", **options
    )


def trained(network: MultiLayerNetwork, steps: int = 5) -> MultiLayerNetwork:
    replica = network.replica()
    for _ in range(steps):
        network.score = replica.fit(batch()).loss
    network.load_state(replica.state())
    network.epoch = 2
    return network


SCHEDULES = {
    "step": functools.partial(schedules.StepLR, step_size=2, gamma=0.3),
    "milestones": functools.partial(schedules.MultiStepLR, milestones=[2, 6, 6], gamma=0.3),
    "cosine": functools.partial(schedules.CosineAnnealingLR, T_max=7),
    "one cycle": functools.partial(schedules.OneCycleLR, max_lr=0.1, total_steps=20),
    "warmup": lambda o: schedules.SequentialLR(
        o, [schedules.LinearLR(o, total_iters=4), schedules.ExponentialLR(o, 0.9)], milestones=[4]
    ),
    "lambda": functools.partial(schedules.LambdaLR, lr_lambda=lambda step: 1 / (step + 1)),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_loaded_network_goes_on_as_the_saved_one(name: str, tmp_path: Path) -> None:
    network = trained(make(schedule=SCHEDULES[name]))
    network.save(tmp_path / "a" / "net.safetensors")
    loaded = make(schedule=SCHEDULES[name]).load(tmp_path / "a" / "net.safetensors")
    assert (loaded.iteration, loaded.epoch, loaded.score) == (5, 2, network.score)
    assert loaded.module.second.weight is loaded.module.first.weight
    assert not loaded.module.first.bias.requires_grad
    for mine, its in zip(network.module.state_dict().values(), loaded.module.state_dict().values(), strict=True):
        assert torch.equal(mine, its)
    one, two = network.replica(), loaded.replica()
    for _ in range(6):
        assert one.fit(batch()) == two.fit(batch())
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["net.safetensors"]


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    trained(make()).save(path)
    with safe_open(path, "pt") as file:
        names = set(file.keys())
        header = json.loads(file.metadata()["strombus"])
    assert {n for n in names if n.startswith("module.")} == {
        "module.frozen",
        "module.first.weight",
        "module.first.bias",
        "module.second.bias",
        "module.norm.weight",
        "module.norm.bias",
        "module.norm.running_mean",
        "module.norm.running_var",
        "module.norm.num_batches_tracked",
        "module.head.weight",
        "module.head.bias",
    }
    assert "updater.0.exp_avg" in names
    assert (header["format"], header["class"], header["dtype"]) == (1, "MultiLayerNetwork", "float32")
    assert header["updater"]["groups"][0]["lr"] == 0.01


def test_without_the_updater(tmp_path: Path) -> None:
    network = trained(make())
    network.save(tmp_path / "bare", updater=False)
    assert make().load(tmp_path / "bare").updater is None
    network.save(tmp_path / "full")
    assert make().load(tmp_path / "full", updater=False).updater is None
    assert make(torch.optim.SGD).load(tmp_path / "bare").iteration == 5


def test_any_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = trained(make())
    network.save("memory://saved/one/net.safetensors")
    network.save("memory://saved/one/net.safetensors")
    assert fsspec.filesystem("memory").ls("/saved/one", detail=False) == ["/saved/one/net.safetensors"]
    loaded = make().load("memory://saved/one/net.safetensors")
    np.testing.assert_array_equal(loaded.state().parameters, network.state().parameters)
    network.save(f"file://{tmp_path}/x")
    monkeypatch.chdir(tmp_path)
    assert make().load("x").iteration == 5


def test_a_failed_write_leaves_the_file_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net"
    network = trained(make())
    network.save(path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        trained(network).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


def test_the_differences_are_listed_and_nothing_changes(tmp_path: Path) -> None:
    trained(make(width=6)).save(tmp_path / "wide")
    network = make()
    before = network.state().parameters
    with pytest.raises(DataError, match=r"head\.weight has shape \(3, 6\), the module's \(3, 5\)"):
        network.load(tmp_path / "wide")
    MultiLayerNetwork(nn.Sequential(nn.Linear(1, 1))).save(tmp_path / "other")
    with pytest.raises(DataError, match=r"0\.bias is not in the module.*head\.bias is missing"):
        network.load(tmp_path / "other")
    MultiLayerNetwork(nn.Linear(2, 2).double()).save(tmp_path / "double")
    with pytest.raises(DataError, match=r"bias is torch\.float64, the module's torch\.float32"):
        MultiLayerNetwork(nn.Linear(2, 2)).load(tmp_path / "double")
    trained(make()).save(tmp_path / "adam")
    other = make(functools.partial(torch.optim.SGD, lr=0.1))
    unchanged = other.state().parameters
    with pytest.raises(ConfigurationError, match="which SGD does not know"):
        other.load(tmp_path / "adam")
    np.testing.assert_array_equal(other.state().parameters, unchanged)
    np.testing.assert_array_equal(network.state().parameters, before)
    assert other.load(tmp_path / "adam", updater=False).iteration == 5


def test_files_that_are_none(tmp_path: Path) -> None:
    network = make()
    with pytest.raises(MissingDataError, match="no network file"):
        network.load(tmp_path / "nowhere")
    with pytest.raises(MissingDataError, match="no network file"):
        network.load(tmp_path)
    network.save(tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    damaged = [b"", b"PK\x03\x04", whole[:50], whole[:-7], b"\xff" * 200, whole[:8] + b"[" * 2000]
    for data in damaged:
        (tmp_path / "bad").write_bytes(data)
        with pytest.raises(DataError, match="no network file, or is damaged"):
            network.load(tmp_path / "bad")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99}, "format 99"),
        ({"iteration": -1}, "iteration must be a count"),
        ({"epoch": "3"}, "epoch must be a count"),
        ({"score": [1]}, "score must be"),
        ({"updater": 5}, "no records"),
        ({"updater": {"groups": [1], "schedule": None}}, "no records"),
        ({"updater": {"groups": [], "schedule": {"$pairs": [1]}}}, "damaged"),
    ],
)
def test_headers_that_lie(changes: dict, message: str, tmp_path: Path) -> None:
    network = make()
    network.save(tmp_path / "good")
    with safe_open(tmp_path / "good", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()["strombus"])
    save_file(tensors, tmp_path / "bad", {"strombus": json.dumps({**header, **changes})})
    with pytest.raises(DataError, match=message):
        network.load(tmp_path / "bad")
    save_file(tensors, tmp_path / "bare")
    with pytest.raises(DataError, match="no network file"):
        network.load(tmp_path / "bare")
