from __future__ import annotations

import functools
import pickle

import cloudpickle
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from strombus.errors import ConfigurationError, DataError
from strombus.networks import ComputationGraph, MultiLayerNetwork, Network
from strombus.types import DataSet, MultiDataSet, NetworkState

SGD = functools.partial(torch.optim.SGD, lr=0.1)
STEP = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=3)


class Example(nn.Module):
    """Frozen and trainable layers, tied weights, buffers of both kinds, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.5)
        self.decode = nn.Linear(4, 6)
        self.decode.weight = self.encode.weight
        self.head = nn.Linear(6, 3)
        self.register_buffer("scratch", torch.zeros(2), persistent=False)
        self.head.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.norm(self.encode(x) + self.decode(x))))


def double_example() -> nn.Module:
    return Example().double()


def data() -> DataSet:
    rng = np.random.default_rng(0)
    return DataSet(rng.normal(size=(8, 4)).astype(np.float32), rng.integers(0, 3, 8))


def make(module: object = Example, **options: object) -> MultiLayerNetwork:
    return MultiLayerNetwork(module, nn.CrossEntropyLoss(), SGD, device="cpu", **options)


def changed(network: Network) -> Network:
    """Train a little and touch what training does not."""
    replica = network.replica()
    replica.fit(data())
    network.load_state(replica.state())
    with torch.no_grad():
        network.module.head.bias.fill_(4.5)
    network.epoch, network.score = 3, 0.25
    return network


@pytest.mark.parametrize("module", [Example, Example(), double_example], ids=["factory", "module", "cast"])
@pytest.mark.parametrize("by", [pickle, cloudpickle], ids=["pickle", "cloudpickle"])
def test_a_pickled_network_carries_every_value(module: object, by: object) -> None:
    network = changed(make(module))
    copy = pickle.loads(by.dumps(network))
    mine, its = network.module.state_dict(), copy.module.state_dict()
    assert mine.keys() == its.keys()
    assert all(torch.equal(mine[name], its[name]) and mine[name].dtype == its[name].dtype for name in mine)
    assert copy.module.decode.weight is copy.module.encode.weight
    assert not copy.module.head.bias.requires_grad
    assert (copy.iteration, copy.epoch, copy.score) == (1, 3, 0.25)
    torch.manual_seed(1)
    first = copy.replica().fit(data())
    torch.manual_seed(1)
    assert network.replica().fit(data()) == first


def test_a_factory_is_called_once_on_the_driver_and_its_draws_disturb_nobody() -> None:
    torch.manual_seed(7)
    network = make()
    expected = torch.rand(3)
    torch.manual_seed(7)
    Example()
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(9)
    pickle.loads(pickle.dumps(network))
    network.replica()
    found = torch.rand(3)
    torch.manual_seed(9)
    assert torch.equal(torch.rand(3), found)


def test_freezing_on_the_driver_reaches_the_workers() -> None:
    network = make()
    network.module.encode.requires_grad_(False)
    copy = pickle.loads(pickle.dumps(network))
    expected = network.num_params(trainable_only=True)
    assert len(copy.replica().state().parameters) == len(network.state().parameters) == expected
    assert expected == network.num_params() - 6 * 4 - 6 - 3


def test_the_updater_follows_the_parameters_names_through_freezing() -> None:
    network = changed(
        MultiLayerNetwork(Example, nn.CrossEntropyLoss(), functools.partial(torch.optim.Adam), device="cpu")
    )

    def moments():
        replica = network.replica()
        names = {id(parameter): name for name, parameter in replica.module.named_parameters()}
        return {names[id(one)]: state["exp_avg"].clone() for one, state in replica.optimizer.state.items()}

    trained = moments()
    network.module.encode.requires_grad_(False)
    head = {name: moment for name, moment in trained.items() if not name.startswith("encode.")}
    assert 0 < len(head) < len(trained)
    torch.testing.assert_close(moments(), head, rtol=0, atol=0)
    changed(network)  # a fit without the frozen ones
    network.module.encode.requires_grad_(True)
    assert moments().keys() == head.keys()  # the others start afresh
    network.replica().fit(data())
    network.reset_updater()
    assert not moments()


def test_the_given_module_is_left_alone() -> None:
    module = Example()
    before = [parameter.clone() for parameter in module.parameters()]
    network = changed(make(module))
    assert all(torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))
    assert not torch.equal(network.module.encode.weight, module.encode.weight)


def test_state_round_trip() -> None:
    network, other = changed(make()), make()
    other.load_state(network.state())
    a, b = network.state(), other.state()
    np.testing.assert_array_equal(a.parameters, b.parameters)
    assert set(a.buffers) == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert all(np.array_equal(a.buffers[name], b.buffers[name]) for name in a.buffers)
    assert (b.iteration, b.updater) == (1, a.updater)
    assert network.state(updater=False).updater is None
    assert a.parameters.dtype == np.float32
    with pytest.raises(ConfigurationError, match="another architecture"):
        other.load_state(NetworkState(a.parameters[1:], a.buffers))
    with pytest.raises(ConfigurationError, match="only one has"):
        other.load_state(NetworkState(a.parameters, {}))


def test_predict_evaluates_and_restores_the_mode() -> None:
    network = make()
    network.module.norm.eval()
    first, second = network.predict(data().features), network.predict(torch.from_numpy(data().features))
    np.testing.assert_array_equal(first, second)
    assert network.module.training
    assert network.module.drop.training
    assert not network.module.norm.training
    assert first.shape == (8, 3)


def test_predict_takes_a_data_set_with_its_mask() -> None:
    class Counts(nn.Module):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return (x * mask.unsqueeze(1)).sum((1, 2))[:, None]

    sequences, mask = np.ones((2, 3, 4), np.float32), np.array([[1, 1, 0, 0], [1, 1, 1, 0]], np.float32)
    network = MultiLayerNetwork(Counts)
    for rows in (DataSet(sequences, None, mask), MultiDataSet([sequences], None, [mask])):
        assert network.predict(rows).tolist() == [[6], [9]]
    with pytest.raises(DataError, match="the DataSet has masks of its own"):
        network.predict(DataSet(sequences, None, mask), mask)
    with pytest.raises(DataError, match=r"features \(2, 3, 4\) float32 with features_mask \(2, 5\) float32: "):
        network.predict(sequences, np.ones((2, 5)))


def test_predict_of_a_graph() -> None:
    class Both(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            return a + b, a - b

    one, two = np.full((2, 1), 5.0, np.float32), np.full((2, 1), 3.0, np.float32)
    total, difference = ComputationGraph(Both).predict([one, two])
    assert (total[0, 0], difference[0, 0]) == (8, 2)
    with pytest.raises(ConfigurationError, match="ComputationGraph takes several"):
        MultiLayerNetwork(lambda: nn.LSTM(3, 2)).predict(np.zeros((2, 4, 3)))


def test_summary_and_repr() -> None:
    text = make().summary()
    assert "head.bias" in text
    assert "frozen" in text
    assert text.endswith("69 parameters, 66 of them trainable")
    assert repr(make()) == "MultiLayerNetwork(Example, 69 parameters)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"module": [nn.Linear(1, 1)]}, r"wrap the layers in nn\.Sequential"),
        ({"module": nn.Linear}, "must be a function of no arguments"),
        ({"module": lambda: 3}, r"must return an nn\.Module, got int"),
        ({"module": lambda: nn.LazyLinear(2)}, "no values yet"),
        ({"optimizer": torch.optim.SGD([torch.zeros(1)])}, r"functools\.partial\(torch\.optim\.SGD, lr=0\.1\)"),
        ({"optimizer": "sgd"}, "must make an optimizer"),
        ({"optimizer": lambda parameters: None}, r"must return a torch\.optim\.Optimizer"),
        ({"optimizer": functools.partial(torch.optim.SGD, lr=-1)}, "Invalid learning rate"),
        ({"optimizer": functools.partial(torch.optim.SGD, rate=1)}, "cannot be called so|cannot be made"),
        ({"optimizer": SGD, "schedule": torch.optim.lr_scheduler.ReduceLROnPlateau}, "that counts steps"),
        ({"optimizer": SGD, "schedule": torch.optim.lr_scheduler.StepLR}, "cannot be called so"),
        ({"optimizer": SGD, "schedule": lambda optimizer: 5}, "must return a torch LRScheduler"),
        ({"schedule": STEP}, "needs an optimizer"),
        ({"loss": nn.MSELoss}, r"write MSELoss\(\)"),
        ({"loss": [nn.MSELoss()]}, "callable"),
        ({"l1": -0.1}, "l1 must be a finite number of at least 0, got -0.1"),
        ({"l2": float("nan")}, "l2"),
        ({"accumulate": 0}, "accumulate must be an integer of at least 1"),
        ({"accumulate": 1.5}, "accumulate"),
        ({"normalize_gradients": "clip"}, "normalize_gradients must be a function, got str"),
        ({"normalize_gradients": lambda: None}, "normalize_gradients must be a function of the parameters by name"),
        ({"clip_grad_norm": 0}, "clip_grad_norm must be a finite number above 0, or None, got 0"),
        ({"clip_grad_value": float("inf")}, "clip_grad_value must be a finite number above 0"),
        ({"clip_grad_norm": 1.0, "clip_grad_value": 1.0}, "give clip_grad_norm or clip_grad_value, not both"),
        ({"device": "gpu"}, "device must be 'auto'"),
        ({"autocast": "float16"}, "losses scaled"),
        ({"autocast": "half-hearted"}, "autocast must be"),
    ],
)
def test_arguments_that_cannot_work(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        MultiLayerNetwork(**{"module": Example, **arguments})


def test_graph_arguments_that_cannot_work() -> None:
    with pytest.raises(ConfigurationError, match="one weight for each output"):
        ComputationGraph(Example, [nn.MSELoss(), nn.MSELoss()], loss_weights=[1])
    with pytest.raises(ConfigurationError, match="got none"):
        ComputationGraph(Example, [])
    with pytest.raises(ConfigurationError, match="loss_weights"):
        ComputationGraph(Example, nn.MSELoss(), loss_weights=[-1])


def test_a_factory_that_makes_another_module_later_is_noticed() -> None:
    network = make()
    network.module.head = nn.Linear(6, 5)
    with pytest.raises(ConfigurationError, match="from the module itself"):
        network.replica()
