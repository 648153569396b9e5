"""What averaging must equal: a plain torch loop, or training on the joined minibatches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from helpers.networks import make_batch_norm, make_data, make_network, plain_loop

import strombus as sb
from strombus.executors.local import LocalExecutor
from strombus.partitioning import batch_sizes


def fit(backend, network, data, epochs=1, **options):
    defaults = {"shuffle": False, "rng_seed": 1, "last_batch": "keep"}
    master = sb.ParameterAveragingTrainingMaster(**{**defaults, **options})
    with sb.Trainer(network, master, backend=backend) as trainer:
        result = trainer.fit(data, epochs=epochs, progress=False)
    return network.state().parameters, result


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("frequency", [1, 3, 100])
def test_one_worker_is_the_plain_loop_bit_for_bit(backend, optimizer, frequency):
    data, network = make_data(50), make_network(optimizer)
    expected = plain_loop(make_network(optimizer), *data, batch_sizes(50, 8, "keep"), epochs=2)
    got, result = fit(
        backend, network, data, epochs=2, workers=1, batch_size_per_worker=8, averaging_frequency=frequency
    )
    assert np.array_equal(got, expected)
    assert network.iteration == result.minibatches == 14
    assert result.examples == 100


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_sgd_at_frequency_one_is_the_joined_minibatch(backend, workers):
    rows, batch = workers * 10, 5
    features, labels = make_data(rows)
    # Worker w holds rows w*10 to (w+1)*10: round r joins each worker's r-th minibatch.
    order = np.concatenate(
        [np.arange(w * 10 + r * batch, w * 10 + (r + 1) * batch) for r in range(2) for w in range(workers)]
    )
    expected = plain_loop(make_network(), features[order], labels[order], [workers * batch] * 2)
    network = make_network()
    got, _ = fit(
        backend, network, (features, labels), workers=workers, batch_size_per_worker=batch, averaging_frequency=1
    )
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    assert network.iteration == 2


@pytest.fixture(scope="module")
def executor():
    with LocalExecutor(1) as executor:
        yield executor


def test_unequal_rows_are_weighted_to_the_joined_minibatch(executor):
    features, labels = make_data(9)
    expected = plain_loop(make_network(), features, labels, [9])
    options = {"workers": 2, "batch_size_per_worker": 8, "averaging_frequency": 1}
    got, _ = fit(executor, make_network(), (features, labels), **options)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    sizes = [4, 5] if np.random.default_rng(1).permutation(2)[0] else [5, 4]
    halves = [
        plain_loop(make_network(), features[start : start + size], labels[start : start + size], [size])
        for start, size in zip((0, sizes[0]), sizes, strict=True)
    ]
    uniform, _ = fit(executor, make_network(), (features, labels), weighting="uniform", **options)
    np.testing.assert_allclose(uniform, np.mean(halves, axis=0), rtol=0, atol=1e-12)


def test_l2_and_schedule_join_minibatches_too(executor):
    def halving(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)

    features, labels = make_data(20)
    network = make_network(l2=0.1, schedule=halving)
    got, _ = fit(executor, network, (features, labels), workers=2, batch_size_per_worker=5, averaging_frequency=1)
    order = [*range(5), *range(10, 15), *range(5, 10), *range(15, 20)]
    module = make_network().copy_module()
    for step, rows in enumerate((order[:10], order[10:])):
        output = module(torch.from_numpy(features[rows]))
        loss = torch.nn.functional.cross_entropy(output, torch.from_numpy(labels[rows]))
        weights = [p for p in module.parameters() if p.ndim == 2]
        (loss + 0.05 * sum(w.square().sum() for w in weights)).backward()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.sub_(0.1 * 0.5**step * parameter.grad)
                parameter.grad = None
    expected = np.concatenate([p.detach().numpy().ravel() for p in module.parameters()])
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_tree_depths_agree(executor):
    data = make_data(70)
    vectors = [
        fit(executor, make_network("adam"), data, workers=7, batch_size_per_worker=3, aggregation_depth=depth)[0]
        for depth in (1, 2, 3)
    ]
    for vector in vectors[1:]:
        np.testing.assert_allclose(vector, vectors[0], rtol=0, atol=1e-14)


def test_fewer_rows_than_workers_and_no_rows(executor, caplog):
    network = make_network()
    _, result = fit(executor, network, make_data(2), workers=4, batch_size_per_worker=8)
    assert result.examples == 2
    before = network.state().parameters
    after, result = fit(executor, network, (np.zeros((0, 6)), np.zeros(0, np.int64)), workers=4)
    assert np.array_equal(before, after)
    assert result.examples == 0
    assert "no examples" in caplog.text


def test_small_data_is_trained_by_every_worker(executor):
    ranks = []

    class Ranks(sb.TrainingHook):
        def __init__(self):
            self.rows = 0

        def post_update(self, batch, replica):
            self.rows += batch.examples

        def state(self):
            return self.rows

        def collect(self, rank, state):
            ranks.append((rank, state))

    fit(executor, make_network(), make_data(60), workers=4, batch_size_per_worker=100, training_hooks=[Ranks()])
    assert ranks == [(0, 15), (1, 15), (2, 15), (3, 15)]


def test_batch_norm_buffers_are_averaged(executor):
    network = make_network(module=make_batch_norm)
    fit(executor, network, make_data(40), workers=2, batch_size_per_worker=10, averaging_frequency=1)
    buffers = dict(network.module.named_buffers())
    assert int(buffers["1.num_batches_tracked"]) == 2
    features = torch.from_numpy(make_data(40)[0])
    hidden = make_network(module=make_batch_norm).module[0]
    first = [hidden(features[start : start + 10]).detach() for start in (0, 20)]
    assert not torch.equal(buffers["1.running_mean"], torch.zeros(8))
    one_round = make_network(module=make_batch_norm)
    fit(
        executor,
        one_round,
        tuple(a[[*range(10), *range(20, 30)]] for a in make_data(40)),
        workers=2,
        batch_size_per_worker=10,
        averaging_frequency=1,
    )
    expected = 0.1 * (first[0].mean(0) + first[1].mean(0)) / 2
    torch.testing.assert_close(dict(one_round.module.named_buffers())["1.running_mean"], expected)


@pytest.mark.parametrize(("optimizer", "save_updater"), list(itertools.product(["momentum", "adam"], [True, False])))
def test_updater_state_is_averaged_or_left(executor, optimizer, save_updater):
    features, labels = make_data(20)
    network = make_network(optimizer)
    got, _ = fit(
        executor,
        network,
        (features, labels),
        workers=2,
        batch_size_per_worker=5,
        averaging_frequency=1,
        save_updater=save_updater,
    )
    reference = make_network(optimizer)
    modules = [reference.copy_module() for _ in range(2)]
    optimizers = [reference.optimizer(module.parameters()) for module in modules]
    for step in range(2):
        for worker, (module, torch_optimizer) in enumerate(zip(modules, optimizers, strict=True)):
            rows = slice(worker * 10 + step * 5, worker * 10 + (step + 1) * 5)
            torch_optimizer.zero_grad()
            output = module(torch.from_numpy(features[rows]))
            torch.nn.functional.cross_entropy(output, torch.from_numpy(labels[rows])).backward()
            torch_optimizer.step()
        with torch.no_grad():
            for pair in zip(*(module.parameters() for module in modules), strict=True):
                mean = (pair[0] + pair[1]) / 2
                states = [o.state[p] for o, p in zip(optimizers, pair, strict=True)]
                for parameter in pair:
                    parameter.copy_(mean)
                for name in set(states[0]) - {"step"}:
                    moment = (states[0][name] + states[1][name]) / 2 if save_updater else 0 * states[0][name]
                    for state in states:
                        state[name] = moment.clone()
    expected = np.concatenate([p.detach().numpy().ravel() for p in modules[0].parameters()])
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13)
