from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from strombus.errors import ConfigurationError, DataError, NonFiniteError
from strombus.networks import ComputationGraph, MultiLayerNetwork
from strombus.types import DataSet, MultiDataSet, NetworkState

OPTIMIZERS = {
    "sgd": functools.partial(torch.optim.SGD, lr=0.1),
    "momentum": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
    "adam": functools.partial(torch.optim.Adam, lr=0.01),
    "adamw": functools.partial(torch.optim.AdamW, lr=0.01, amsgrad=True),
    "adagrad": functools.partial(torch.optim.Adagrad, lr=0.05),
    "rmsprop": functools.partial(torch.optim.RMSprop, lr=0.01, momentum=0.5, centered=True),
    "nadam": functools.partial(torch.optim.NAdam, lr=0.01),
    "adafactor": functools.partial(torch.optim.Adafactor, lr=0.01),
}


def mlp(inputs: int = 7, hidden: int = 13, outputs: int = 4) -> nn.Module:
    torch.manual_seed(5)
    layers = [nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.Tanh(), nn.Linear(hidden, outputs)]
    return nn.Sequential(*layers).double()


def batches(count: int = 6, rows: int = 11, inputs: int = 7) -> list[DataSet]:
    rng = np.random.default_rng(1)
    return [DataSet(rng.normal(size=(rows, inputs)), rng.integers(0, 4, rows)) for _ in range(count)]


def halving(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)


def plain_loop(module: nn.Module, data: list[DataSet], optimizer: Callable, schedule: Callable | None) -> list[float]:
    stepper = optimizer(module.parameters())
    scheduler = schedule(stepper) if schedule else None
    losses = []
    for batch in data:
        stepper.zero_grad()
        loss = F.cross_entropy(module(torch.from_numpy(batch.features)), torch.from_numpy(batch.labels))
        loss.backward()
        stepper.step()
        if scheduler:
            scheduler.step()
        losses.append(loss.item())
    return losses


def same(replica_module: nn.Module, module: nn.Module) -> bool:
    mine, its = replica_module.state_dict(), module.state_dict()
    return all(torch.equal(mine[name], its[name]) for name in its)


@pytest.mark.parametrize("schedule", [None, halving], ids=["constant", "halving"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_worker_is_the_plain_loop_bit_for_bit(name: str, schedule: Callable | None) -> None:
    network = MultiLayerNetwork(mlp, nn.CrossEntropyLoss(), OPTIMIZERS[name], schedule=schedule, device="cpu")
    replica, plain = network.replica(), mlp()
    expected = plain_loop(plain, batches(), OPTIMIZERS[name], schedule)
    results = [replica.fit(batch) for batch in batches()]
    assert [result.loss for result in results] == expected
    assert {(result.count, result.examples) for result in results} == {(11.0, 11)}
    assert same(replica.module, plain)
    assert replica.iteration == 6


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_handing_the_state_to_another_replica_between_steps_changes_nothing(name: str) -> None:
    network = MultiLayerNetwork(mlp, nn.CrossEntropyLoss(), OPTIMIZERS[name], schedule=halving, device="cpu")
    plain, pair = mlp(), [network.replica(), network.replica()]
    plain_loop(plain, batches(), OPTIMIZERS[name], halving)
    state = network.state()
    for turn, batch in enumerate(batches()):
        replica = pair[turn % 2]
        replica.load(state)
        replica.fit(batch)
        state = replica.state()
    assert state.iteration == 6
    network.load_state(state)
    assert same(network.module, plain)
    assert network.updater is not None


@settings(max_examples=15, deadline=None)
@given(inputs=st.integers(1, 40), hidden=st.integers(2, 40), rows=st.integers(2, 33))
def test_odd_shapes_are_bit_for_bit_too(inputs: int, hidden: int, rows: int) -> None:
    """Views of one vector are not aligned as torch's own allocations are."""
    factory = functools.partial(mlp, inputs, hidden)
    optimizer = OPTIMIZERS["momentum"]
    replica = MultiLayerNetwork(factory, nn.CrossEntropyLoss(), optimizer, device="cpu").replica()
    plain, data = factory(), batches(3, rows, inputs)
    plain_loop(plain, data, optimizer, None)
    for batch in data:
        replica.fit(batch)
    assert same(replica.module, plain)


def test_loading_copies_in_place() -> None:
    network = MultiLayerNetwork(mlp, nn.CrossEntropyLoss(), OPTIMIZERS["momentum"], device="cpu")
    replica = network.replica()
    replica.fit(batches()[0])
    parameter = replica.flat.parameters[0]
    address = parameter.data_ptr(), replica.optimizer.state[parameter]["momentum_buffer"].data_ptr()
    state = replica.state()
    replica.fit(batches()[1])
    replica.load(state)
    assert address == (parameter.data_ptr(), replica.optimizer.state[parameter]["momentum_buffer"].data_ptr())
    np.testing.assert_array_equal(replica.state().parameters, state.parameters)


def test_a_state_without_an_updater_starts_the_optimizer_afresh_unless_told_not_to() -> None:
    network = MultiLayerNetwork(mlp, nn.CrossEntropyLoss(), OPTIMIZERS["adam"], schedule=halving, device="cpu")
    replica = network.replica()
    start = network.state()
    for batch in batches():
        replica.fit(batch)
    replica.load(start, updater=False)
    assert replica.state().updater.tensors["0.step"] == 6
    replica.load(start)
    assert replica.iteration == 0
    assert not replica.state().updater.tensors
    first = replica.fit(batches()[0])
    assert first.loss == network.replica().fit(batches()[0]).loss


def test_a_replica_goes_on_from_the_networks_updater() -> None:
    network = MultiLayerNetwork(mlp, nn.CrossEntropyLoss(), OPTIMIZERS["adam"], schedule=halving, device="cpu")
    first, data = network.replica(), batches()
    for batch in data[:3]:
        first.fit(batch)
    network.load_state(first.state())
    second = network.replica()
    for batch in data[3:]:
        assert first.fit(batch) == second.fit(batch)


def test_regularisation_is_what_autograd_makes_of_the_formula() -> None:
    l1, l2 = 0.03, 0.2
    network = MultiLayerNetwork(mlp, nn.CrossEntropyLoss(), OPTIMIZERS["sgd"], l1=l1, l2=l2, device="cpu")
    replica, plain = network.replica(), mlp()
    stepper = OPTIMIZERS["sgd"](plain.parameters())
    for batch in batches(3):
        weights = [plain[0].weight, plain[3].weight]
        terms = sum(l1 * w.abs().sum() + l2 / 2 * w.square().sum() for w in weights)
        loss = F.cross_entropy(plain(torch.from_numpy(batch.features)), torch.from_numpy(batch.labels)) + terms
        assert replica.regularization() == pytest.approx(terms.item(), rel=1e-12)
        stepper.zero_grad()
        loss.backward()
        stepper.step()
        assert replica.fit(batch).loss == pytest.approx(loss.item(), rel=1e-12)
    assert network.regularization() == network.replica().regularization()
    for mine, its in zip(replica.module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-12, atol=1e-14)


def test_regularization_of_each_parameter_and_weight_decay():
    module = nn.Linear(3, 2).double()
    amounts = {"l1": {"bias": 0.3}, "l2": {"weight": 0.2, "bias": 0.1}, "weight_decay": {"weight": 0.5}}
    sgd = functools.partial(torch.optim.SGD, lr=1.0)
    network = MultiLayerNetwork(module, nn.MSELoss(), sgd, device="cpu", **amounts)
    data = DataSet(np.ones((4, 3)), np.zeros((4, 2)))
    weight, bias = (p.detach().clone().requires_grad_() for p in module.parameters())
    terms = 0.3 * bias.abs().sum() + 0.1 * weight.square().sum() + 0.05 * bias.square().sum()
    decay = 0.25 * weight.square().sum()  # the optimizer's business: it counts, and adds no gradient
    loss = (nn.functional.linear(torch.ones(4, 3).double(), weight, bias)).square().mean()
    (loss + terms).backward()
    replica = network.replica()
    assert replica.regularization() == pytest.approx((terms + decay).item(), rel=1e-12)
    assert network.regularization() == replica.regularization()
    assert replica.gradients(data).loss == pytest.approx((loss + terms + decay).item(), rel=1e-12)
    for mine, other in zip(replica.flat.parameters, (weight, bias), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-12, atol=1e-12)
    assert pickle.loads(pickle.dumps(network)).regularization() == network.regularization()
    with pytest.raises(
        ConfigurationError, match=r"l2 names wight, which the module does not have; it has bias, weight"
    ):
        MultiLayerNetwork(module, l2={"wight": 0.1})
    with pytest.raises(ConfigurationError, match=r"weight_decay of bias must be a finite number of at least 0, got -1"):
        MultiLayerNetwork(module, weight_decay={"bias": -1})


def plain_mlp() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(7, 13), nn.Tanh(), nn.Linear(13, 4)).double()


@pytest.mark.parametrize("slices", [2, 3, 50])
def test_slices_give_the_step_of_the_whole_minibatch(slices: int) -> None:
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 2.0, 1.0], dtype=torch.float64))
    make = functools.partial(MultiLayerNetwork, plain_mlp, loss, OPTIMIZERS["momentum"], l2=0.1, device="cpu")
    whole, sliced = make().replica(), make(accumulate=slices).replica()
    for batch in batches():
        first, second = whole.fit(batch), sliced.fit(batch)
        assert second.loss == pytest.approx(first.loss, rel=1e-12)
        assert second.count == pytest.approx(first.count, rel=1e-12)
    np.testing.assert_allclose(sliced.state().parameters, whole.state().parameters, rtol=0, atol=1e-12)
    assert sliced.iteration == 6


def test_two_workers_mean_is_the_big_batch_step_with_uneven_masks() -> None:
    """SGD, one step: the count-weighted mean of the workers' parameters is the step on all rows."""
    rng = np.random.default_rng(4)
    features, labels = rng.normal(size=(8, 7)), rng.normal(size=(8, 4))
    mask = np.array([[1], [0], [1], [1], [0], [0], [0], [1]])
    network = MultiLayerNetwork(plain_mlp, nn.MSELoss(), OPTIMIZERS["sgd"], device="cpu")

    def step(rows: slice) -> tuple[np.ndarray, float]:
        replica = network.replica()
        count = replica.fit(DataSet(features[rows], labels[rows], labels_mask=mask[rows])).count
        return replica.state().parameters, count

    (one, a), (two, b), (big, c) = step(slice(0, 3)), step(slice(3, 8)), step(slice(0, 8))
    assert (a, b, c) == (2, 2, 4)
    np.testing.assert_allclose((one * a + two * b) / c, big, rtol=0, atol=1e-12)


def test_lbfgs_can_be_fitted_but_its_state_cannot_travel() -> None:
    network = MultiLayerNetwork(plain_mlp, nn.CrossEntropyLoss(), functools.partial(torch.optim.LBFGS, lr=0.5))
    replica, batch = network.replica("cpu"), batches()[0]
    losses = [replica.fit(batch).loss for _ in range(3)]
    assert losses[2] < losses[1] < losses[0]
    assert replica.state(updater=False).updater is None
    with pytest.raises(ConfigurationError, match=r"LBFGS.*save_updater=False"):
        replica.state()


def test_frozen_and_unused_parameters_stay() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.frozen, self.unused, self.head = nn.Linear(7, 5), nn.Linear(3, 3), nn.Linear(5, 4)
            self.frozen.requires_grad_(False)
            self.double()

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.frozen(x))

    network = MultiLayerNetwork(Partly, nn.CrossEntropyLoss(), OPTIMIZERS["adam"], device="cpu")
    replica = network.replica()
    for batch in batches():
        replica.fit(batch)
    state = replica.state()
    assert len(state.parameters) == 3 * 3 + 3 + 5 * 4 + 4
    assert sorted(state.updater.tensors) == [f"{i}.{n}" for i in (2, 3) for n in ("exp_avg", "exp_avg_sq", "step")]
    assert torch.equal(replica.module.frozen.weight, network.module.frozen.weight)
    assert torch.equal(replica.module.unused.weight, network.module.unused.weight)
    assert not torch.equal(replica.module.head.weight, network.module.head.weight)
    other = network.replica()
    other.load(state)
    assert other.fit(batches()[0]) == replica.fit(batches()[0])


def test_buffers_travel() -> None:
    network = MultiLayerNetwork(mlp, nn.CrossEntropyLoss(), OPTIMIZERS["sgd"], device="cpu")
    replica = network.replica()
    replica.fit(batches()[0])
    state = replica.state()
    assert set(state.buffers) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert state.buffers["1.num_batches_tracked"] == 1
    network.load_state(state)
    assert torch.equal(network.module[1].running_mean, replica.module[1].running_mean)
    replica.fit(batches()[1])
    assert state.buffers["1.num_batches_tracked"] == 1


class MaskedMean(nn.Module):
    """Classify a sequence by the mean of its real steps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.head = nn.Linear(3, 4).double()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        weights = torch.ones(x.shape[:2], dtype=x.dtype) if mask is None else mask
        return self.head((x * weights[..., None]).sum(1) / weights.sum(1, keepdim=True))


def test_a_module_that_takes_a_mask_gets_it() -> None:
    rng = np.random.default_rng(0)
    x, lengths = rng.normal(size=(5, 6, 3)), [6, 2, 4, 1, 3]
    mask = np.array([[step < length for step in range(6)] for length in lengths])
    replica = MultiLayerNetwork(MaskedMean, nn.CrossEntropyLoss(), OPTIMIZERS["sgd"], device="cpu").replica()
    found = replica.forward(x, mask)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(found[row : row + 1], replica.forward(x[row : row + 1, :length]))
    labelled = DataSet(x, rng.integers(0, 4, 5), features_mask=mask)
    assert torch.equal(replica.forward(labelled), found)
    assert replica.fit(labelled).count == 5


def test_a_features_mask_stands_in_where_labels_are_sequences() -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(5, 6, 3)), rng.normal(size=(5, 6, 2))
    mask = np.array([[step < length for step in range(6)] for length in [6, 2, 4, 1, 3]])
    network = MultiLayerNetwork(lambda: nn.Linear(3, 2).double(), nn.MSELoss(), OPTIMIZERS["sgd"], device="cpu")
    replica = network.replica()
    by_features = replica.score(DataSet(x, labels, features_mask=mask))
    assert by_features == replica.score(DataSet(x, labels, labels_mask=mask))
    assert by_features[1] == 16
    assert replica.score(DataSet(x, labels))[1] == 5
    weights = np.array([0.5, 2, 1, 0, 3])
    weighed = replica.score(DataSet(x, labels, mask, weights=weights))
    assert weighed == pytest.approx(replica.score(DataSet(x, labels, labels_mask=mask * weights[:, None])))
    assert weighed[1] == pytest.approx((mask.sum(1) * weights).sum())


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.left, self.right = nn.Linear(3, 4).double(), nn.Linear(5, 2).double()

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return self.left(a), self.right(b)


def test_a_graph_sums_its_outputs_losses() -> None:
    rng = np.random.default_rng(0)
    a, b, y, z = rng.normal(size=(6, 3)), rng.normal(size=(6, 5)), rng.integers(0, 4, 6), rng.normal(size=(6, 2))
    losses = [nn.CrossEntropyLoss(), nn.MSELoss()]
    graph = ComputationGraph(TwoHeads, losses, OPTIMIZERS["sgd"], loss_weights=[1, 0.3], device="cpu")
    replica, module, data = graph.replica(), TwoHeads(), MultiDataSet([a, b], [y, z])
    left, right = module(torch.from_numpy(a), torch.from_numpy(b))
    expected = F.cross_entropy(left, torch.from_numpy(y)) + 0.3 * F.mse_loss(right, torch.from_numpy(z))
    assert replica.score(data) == (expected.item(), 6)
    assert replica.per_example(data).mean() == pytest.approx(expected.item(), rel=1e-12)
    assert replica.fit(data).loss == expected.item()
    assert [tuple(output.shape) for output in replica.forward([a, b])] == [(6, 4), (6, 2)]
    with pytest.raises(DataError, match=r"2 output\(s\), the data has labels for 1"):
        replica.fit(MultiDataSet([a, b], [y]))


def test_scoring_neither_trains_nor_depends_on_the_batch() -> None:
    network = MultiLayerNetwork(mlp, nn.CrossEntropyLoss(), OPTIMIZERS["sgd"], l2=0.1, device="cpu")
    replica, batch = network.replica(), batches()[0]
    replica.fit(batch)
    before = replica.state()
    value, count = replica.score(batch)
    each = replica.per_example(batch)
    assert (count, each.shape) == (11, (11,))
    assert each.mean() == pytest.approx(value, rel=1e-12)
    assert replica.score(batch[:1])[0] == pytest.approx(each[0], rel=1e-12)
    np.testing.assert_allclose(replica.per_example(batch, regularization=True), each + replica.regularization())
    after = replica.state()
    np.testing.assert_array_equal(after.parameters, before.parameters)
    np.testing.assert_array_equal(after.buffers["1.running_mean"], before.buffers["1.running_mean"])
    replica.fit(batch)
    assert replica.state().buffers["1.num_batches_tracked"] == 2


def test_a_loss_that_is_not_finite_says_where_to_look_and_changes_nothing() -> None:
    network = MultiLayerNetwork(plain_mlp, nn.CrossEntropyLoss(), OPTIMIZERS["sgd"], device="cpu")
    replica, batch = network.replica(), batches()[0]
    spoiled = batch.features.copy()
    spoiled[2, 3] = np.nan
    with pytest.raises(NonFiniteError, match=r"NaN or infinite values \(features 1\)"):
        replica.fit(DataSet(spoiled, batch.labels))
    np.testing.assert_array_equal(replica.state().parameters, network.state().parameters)
    replica.flat.vector.fill_(float("inf"))
    parameters = r"the parameters were NaN or infinite before it \(0\.weight 91, 0\.bias 13, .*lower the learning rate"
    with pytest.raises(NonFiniteError, match=parameters) as caught:
        replica.fit(batch)
    assert caught.value.what == "parameters"


def test_a_gradient_that_is_not_finite_is_named_where_it_is_looked_at_and_changes_nothing() -> None:
    network = MultiLayerNetwork(mlp, nn.CrossEntropyLoss(), OPTIMIZERS["adam"], device="cpu")
    replica, (first, second, *_) = network.replica(), batches()
    replica.fit(first, check_gradient=True)
    before, buffers = replica.state(), replica.buffers()
    for factor, message in (
        (float("nan"), r"NaN or infinite in minibatch 1 \(3\.bias 4\)"),
        (1e200, "squares overflow"),
    ):
        handle = replica.module[3].bias.register_hook(lambda gradient, factor=factor: gradient * factor)
        with pytest.raises(NonFiniteError, match=message) as caught:
            replica.fit(second, check_gradient=True)
        assert caught.value.what == "gradient"
        handle.remove()
    replica.leave_out(buffers)
    after = replica.state()
    np.testing.assert_array_equal(after.parameters, before.parameters)
    for found, wanted in ((after.buffers, before.buffers), (after.updater.tensors, before.updater.tensors)):
        for name, array in wanted.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert (before.iteration, after.iteration) == (1, 2)


def clip_norm(module: nn.Module) -> None:
    nn.utils.clip_grad_norm_(module.parameters(), 0.05)


def clip_value(module: nn.Module) -> None:
    nn.utils.clip_grad_value_(module.parameters(), 0.01)


CLIPPING = {"norm": ({"clip_grad_norm": 0.05}, clip_norm), "value": ({"clip_grad_value": 0.01}, clip_value)}


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("kind", CLIPPING)
def test_clipped_gradients_are_those_of_the_plain_loop(kind: str, slices: int, autocast: torch.dtype | None) -> None:
    """Clipped once for each step, regularisation included, whatever its slices: bit for bit without slices."""
    options, clip = CLIPPING[kind]
    module = plain_mlp if autocast is None else lambda: plain_mlp().float()
    options = {**options, "accumulate": slices, "autocast": autocast, "l2": 0.1, "device": "cpu"}
    replica, plain = MultiLayerNetwork(module, nn.CrossEntropyLoss(), OPTIMIZERS["adam"], **options).replica(), module()
    stepper, changed = OPTIMIZERS["adam"](plain.parameters()), 0
    for batch in batches(12):
        stepper.zero_grad()
        features = torch.from_numpy(batch.features).to(next(plain.parameters()).dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast is not None):
            loss = F.cross_entropy(plain(features), torch.from_numpy(batch.labels))
        loss.backward()
        for weight in (plain[0].weight, plain[2].weight):
            weight.grad.add_(weight.detach(), alpha=0.1)
        before = [parameter.grad.clone() for parameter in plain.parameters()]
        clip(plain)
        changed += any(not torch.equal(a, p.grad) for a, p in zip(before, plain.parameters(), strict=True))
        stepper.step()
        replica.fit(batch)
    assert changed == 12
    tolerance = 0 if slices == 1 else 1e-12 if autocast is None else 2e-3
    for mine, its in zip(replica.module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=tolerance)


def test_data_that_does_not_fit_is_named_with_its_shapes() -> None:
    replica = MultiLayerNetwork(plain_mlp, nn.CrossEntropyLoss(), OPTIMIZERS["sgd"], device="cpu").replica()
    with pytest.raises(DataError, match=r"Sequential failed on features \(3, 8\) float64"):
        replica.fit(DataSet(np.zeros((3, 8)), np.zeros(3, int)))
    with pytest.raises(DataError, match=r"output \(3, 4\) float64 with labels \(3, 1\) int64"):
        replica.fit(DataSet(np.zeros((3, 7)), np.zeros((3, 1), int)))
    with pytest.raises(DataError, match="need labels"):
        replica.fit(DataSet(np.zeros((3, 7))))
    with pytest.raises(DataError, match="at least one example"):
        replica.fit(DataSet(np.zeros((0, 7)), np.zeros(0, int)))
    with pytest.raises(ConfigurationError, match="trainable parameters, the state 3"):
        replica.load(NetworkState(np.zeros(3), {}))


def test_without_optimizer_or_loss() -> None:
    only_predicts = MultiLayerNetwork(plain_mlp, device="cpu").replica()
    assert only_predicts.forward(batches()[0]).shape == (11, 4)
    with pytest.raises(ConfigurationError, match="no loss"):
        only_predicts.score(batches()[0])
    with pytest.raises(ConfigurationError, match=r"functools\.partial\(torch\.optim\.SGD"):
        only_predicts.fit(batches()[0])
    assert only_predicts.state().updater is None
    only_predicts.load(only_predicts.state())


def test_mixed_precision_computes_in_bfloat16_and_keeps_float32() -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(7, 32), nn.ReLU(), nn.Linear(32, 4))

    fine = MultiLayerNetwork(make, nn.CrossEntropyLoss(), OPTIMIZERS["sgd"], device="cpu").replica()
    mixed = MultiLayerNetwork(
        make, nn.CrossEntropyLoss(), OPTIMIZERS["sgd"], device="cpu", autocast="bfloat16"
    ).replica()
    batch = batches()[0]
    exact, rounded = fine.fit(batch).loss, mixed.fit(batch).loss
    assert exact != rounded
    assert rounded == pytest.approx(exact, rel=0.02)
    assert mixed.forward(batch).dtype == mixed.flat.vector.dtype == torch.float32


def test_replicas_share_nothing() -> None:
    network = MultiLayerNetwork(mlp(), nn.CrossEntropyLoss(), OPTIMIZERS["sgd"], device="cpu")
    before = copy.deepcopy(network.module.state_dict())
    one, two = network.replica(), network.replica()
    one.fit(batches()[0])
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in two.module.state_dict().items())
