"""Scores and outputs on every backend: keys, order, masks, several outputs, Zarr results, and what goes wrong."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import torch
import zarr
from helpers.networks import make_data, make_network
from torch import nn

import strombus as sb
from strombus.errors import ConfigurationError, DataError, NonFiniteError, TaskError

cloudpickle.register_pickle_by_value(sys.modules[__name__])

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/scoring/scoring.json").read_text())


class Engine:
    """A backend, and the collection of objects that it holds: a Bag, an RDD."""

    def __init__(self, backend):
        self.backend = backend
        self.spark = type(backend).__module__.startswith("pyspark")
        self.client = backend if type(backend).__module__.startswith("distributed") else None

    def collection(self, objects, partitions=3):
        """Return `objects` in partitions of about one size, the last of them empty."""
        size = max(1, -(-len(objects) // (partitions - 1)))
        parts = [objects[start : start + size] for start in range(0, size * partitions, size)]
        if self.spark:
            return self.backend.sparkContext.parallelize(parts, partitions).flatMap(list)
        import dask.bag as db
        from dask import delayed

        return db.from_delayed([delayed(list, traverse=False)(part) for part in parts])

    def collected(self, collection):
        """Return the objects of a collection, which nothing has computed so far."""
        if self.spark:
            assert type(collection).__module__.startswith("pyspark")
            return collection.collect()
        assert type(collection).__name__ == "Bag"
        return collection.compute(scheduler=self.client or "synchronous")


@pytest.fixture
def engine(backend):
    return Engine(backend)


class Steps(nn.Module):
    """A recurrent network over sequences of any length, whose masked steps leave the state as it was."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.inner, self.across, self.out = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.double()

    def forward(self, x, mask=None):
        state, states = x.new_zeros(len(x), 4), []
        for step in range(x.shape[1]):
            following = torch.tanh(self.inner(x[:, step]) + self.across(state))
            kept = 1.0 if mask is None else mask[:, step, None]
            state = kept * following + (1 - kept) * state
            states.append(state)
        return self.out(torch.stack(states, 1))


class Two(nn.Module):
    """Two inputs, two outputs of different rank."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.left, self.right = nn.Linear(3, 2).double(), nn.Linear(4, 2).double()

    def forward(self, left, right):
        a, b = self.left(left), self.right(right)
        return a + b, (a - b).sum(dim=1)


class Broken(nn.Module):
    """Fails for one row."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(6, 3).double()

    def forward(self, x):
        if (x[:, 0] == 13).any():
            raise RuntimeError("row 13 is unlucky")
        return self.out(x)


def golden():
    def array(record):
        return np.array(record["values"], np.float64).reshape(record["shape"])

    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    with torch.no_grad():
        for layer, number in ((module[0], 0), (module[2], 1)):
            layer.weight.copy_(torch.from_numpy(array(GOLDEN["param_table"][f"{number}_W"]).T))
            layer.bias.copy_(torch.from_numpy(array(GOLDEN["param_table"][f"{number}_b"])[0]))
    network = sb.MultiLayerNetwork(module, nn.CrossEntropyLoss(), l1=GOLDEN["l1"], l2=GOLDEN["l2"])
    return network, array(GOLDEN["features"]), array(GOLDEN["labels"])


def losses_of(network, features, labels):
    with torch.no_grad():
        output = network.module(torch.from_numpy(features))
    return nn.functional.cross_entropy(output, torch.from_numpy(labels), reduction="none").numpy()


# -- the figures of Deeplearning4j ---------------------------------------------------------------


def test_golden_scores_of_examples_by_key(engine):
    network, features, labels = golden()
    keyed = [(f"key-{i}", sb.DataSet(features[i : i + 1], labels[i : i + 1])) for i in range(23)]
    with sb.Trainer(network, backend=engine.backend) as trainer:
        assert trainer.calculate_score(engine.collection(keyed), batch_size=8) == pytest.approx(
            GOLDEN["calculate_score_average_batch_8"], abs=1e-12
        )
        total = trainer.calculate_score((features, labels), average=False, batch_size=8)
        assert total == pytest.approx(GOLDEN["calculate_score_sum_batch_8"], abs=1e-11)
        found = engine.collected(trainer.score_examples(engine.collection(keyed), True, batch_size=8))
        assert [key for key, _ in found] == [key for key, _ in keyed]
        assert dict(found) == pytest.approx(GOLDEN["score_examples_keyed_with_regularization"], rel=1e-7)
        plain = trainer.score_examples((features, labels), False, batch_size=5)
        np.testing.assert_allclose(plain, GOLDEN["score_examples_without_regularization"], rtol=1e-7)


# -- what comes back is what went in ---------------------------------------------------------------


def test_every_form_of_data_gives_the_same_scores_and_outputs_in_its_own_form(engine, tmp_path):
    features, labels = make_data(90)
    network = make_network()
    losses, outputs = losses_of(network, features, labels), network.predict(features)
    objects = [sb.DataSet(features[i:j], labels[i:j]) for i, j in [(0, 7), (7, 7), (7, 8), (8, 90)]]
    path = tmp_path / "data.zarr"
    sb.data.export((features, labels), path, progress=False)
    with sb.Trainer(network, backend=engine.backend) as trainer:
        for data in ((features, labels), path, objects, iter(objects)):
            np.testing.assert_allclose(trainer.score_examples(data, False), losses, rtol=1e-12)
        for data in (features, path, objects):
            np.testing.assert_allclose(trainer.predict(data, batch_size=7), outputs, rtol=1e-12)
        lazy = trainer.score_examples(engine.collection(objects, 2), False, batch_size=16)
        found = engine.collected(lazy)
        assert isinstance(found[0], float)
        np.testing.assert_allclose(found, losses, rtol=1e-12)
        found = engine.collected(trainer.predict(engine.collection(objects)))
        assert [len(output) for output in found] == [7, 0, 1, 82]
        np.testing.assert_allclose(np.concatenate(found), outputs, rtol=1e-12)
        assert trainer.calculate_score(engine.collection(objects)) == pytest.approx(losses.mean(), rel=1e-12)


def test_keys_of_any_type_stay_with_their_outputs_and_duplicates_stay(engine):
    features, network = make_data(15)[0], make_network()
    keys = ["a", 3, ("user", 7), None, "a", frozenset({1}), 2.5]
    pairs = [(key, features[2 * i : 2 * i + 1 + i % 2]) for i, key in enumerate(keys)]
    pairs.append(("vector", features[14]))
    with sb.Trainer(network, backend=engine.backend) as trainer:
        found = engine.collected(trainer.feed_forward_with_key(engine.collection(pairs), batch_size=4))
        listed = trainer.feed_forward_with_key(iter(pairs), batch_size=4)
    for (key, output), (same, again), (wanted, given) in zip(found, listed, pairs, strict=True):
        assert key == same == wanted
        np.testing.assert_array_equal(output, again)
        expected = network.predict(np.atleast_2d(given))
        np.testing.assert_allclose(output, expected if given.ndim == 2 else expected[0], rtol=1e-12)


def test_a_collection_is_computed_with_the_network_as_it_was(engine):
    features, network = make_data(8)[0], make_network()
    wanted = network.predict(features)
    with sb.Trainer(network, backend=engine.backend) as trainer:
        lazy = trainer.predict(engine.collection([sb.DataSet(features)]))
    with torch.no_grad():
        for parameter in network.module.parameters():
            parameter.zero_()
    np.testing.assert_allclose(engine.collected(lazy)[0], wanted, rtol=1e-12)


# -- sequences, masks, several outputs ---------------------------------------------------------------


def test_sequences_of_any_length_come_back_in_their_own(engine):
    rng = np.random.default_rng(5)
    network = sb.MultiLayerNetwork(Steps, nn.MSELoss())
    lengths = [4, 2, 4, 1, 7, 2, 2, 4, 1]
    pairs = [(i, rng.normal(size=(1 + i % 2, n, 3))) for i, n in enumerate(lengths)]
    masked = [(key, (x, (rng.random(x.shape[:2]) < 0.6).astype(np.float64))) for key, x in pairs[:-1]]
    masked.append((8, (rng.normal(size=(5, 3)), np.array([1.0, 1, 0, 1, 0]))))  # one example without its axis
    with sb.Trainer(network, backend=engine.backend) as trainer:
        found = engine.collected(trainer.feed_forward_with_key(engine.collection(pairs), batch_size=3))
        with_masks = engine.collected(trainer.feed_forward_with_mask_and_key(engine.collection(masked), batch_size=3))
        data = [sb.DataSet(x, rng.normal(size=(len(x), x.shape[1], 2)), mask) for _, (x, mask) in masked[:-1]]
        score = trainer.calculate_score(engine.collection(data), batch_size=3)
    for (key, output), (wanted, x) in zip(found, pairs, strict=True):
        assert key == wanted
        np.testing.assert_allclose(output, network.predict(x), rtol=1e-12)
    for (_, output), (_, (x, mask)) in zip(with_masks[:-1], masked[:-1], strict=True):
        np.testing.assert_allclose(output, network.predict(x, mask), rtol=1e-12)
    x, mask = masked[-1][1]
    np.testing.assert_allclose(with_masks[-1][1], network.predict(x[None], mask[None])[0], rtol=1e-12)
    errors = [
        ((network.predict(d.features, d.features_mask) - d.labels) ** 2 * d.features_mask[..., None]).sum()
        for d in data
    ]
    assert score == pytest.approx(sum(errors) / sum(2 * d.features_mask.sum() for d in data), rel=1e-12)


def test_several_outputs_with_masks_of_their_own_are_scored_exactly(engine):
    rng = np.random.default_rng(6)
    network = sb.ComputationGraph(Two, [nn.MSELoss(), nn.L1Loss()], loss_weights=[1.0, 3.0])
    features = [rng.normal(size=(50, 3)), rng.normal(size=(50, 4))]
    labels = [rng.normal(size=(50, 2)), rng.normal(size=50)]
    masks = [(rng.random(50) < p).astype(np.float64) for p in (0.9, 0.2)]
    masks[1][:20] = 0
    data = sb.MultiDataSet(features, labels, None, masks)
    a, b = network.predict(features)
    first = (((a - labels[0]) ** 2).mean(1) * masks[0]).sum() / masks[0].sum()
    second = (abs(b - labels[1]) * masks[1]).sum() / masks[1].sum()
    with sb.Trainer(network, backend=engine.backend) as trainer:
        score = trainer.calculate_score(engine.collection([data[:13], data[13:21], data[21:]]), batch_size=4)
        assert score == pytest.approx(first + 3 * second, rel=1e-12)
        each = trainer.score_examples(data, False)
        wanted = ((a - labels[0]) ** 2).mean(1) * masks[0] + 3 * abs(b - labels[1]) * masks[1]
        np.testing.assert_allclose(each, wanted, rtol=1e-12)
        pairs = [(i, [features[0][i : i + 2], features[1][i : i + 2]]) for i in range(0, 50, 2)]
        found = engine.collected(trainer.feed_forward_with_key(engine.collection(pairs)))
        np.testing.assert_allclose(np.concatenate([output[0] for _, output in found]), a, rtol=1e-12)
        np.testing.assert_allclose(np.concatenate([output[1] for _, output in found]), b, rtol=1e-12)


# -- results in Zarr ---------------------------------------------------------------------------------


def test_results_in_zarr_are_in_order_and_whole(engine, tmp_path):
    features, labels = make_data(120)
    network = make_network()
    losses, outputs = losses_of(network, features, labels), network.predict(features)
    sb.data.export((features, labels), tmp_path / "data.zarr", progress=False)
    keyed = [(f"k{i}", sb.DataSet(features[i : i + 1], labels[i : i + 1])) for i in range(120)]
    with sb.Trainer(network, backend=engine.backend) as trainer:
        scores = trainer.score_examples(tmp_path / "data.zarr", False, to=tmp_path / "scores.zarr")
        assert isinstance(scores, zarr.Array)
        np.testing.assert_allclose(scores[:], losses, rtol=1e-12)
        assert scores.dtype == np.float64
        group = trainer.score_examples(engine.collection(keyed), False, to=tmp_path / "keyed.zarr")
        assert list(group["keys"][:]) == [key for key, _ in keyed]
        np.testing.assert_allclose(group["scores"][:], losses, rtol=1e-12)
        output = trainer.predict(engine.collection([sb.DataSet(features)]), to=tmp_path / "outputs.zarr")
        np.testing.assert_allclose(output[:], outputs, rtol=1e-12)
        with pytest.raises(DataError, match=r"scores\.zarr is there already"):
            trainer.predict(features, to=tmp_path / "scores.zarr")
    features[33] = 13
    with (
        sb.Trainer(sb.MultiLayerNetwork(Broken), backend=engine.backend) as trainer,
        pytest.raises(TaskError, match="row 13"),
    ):
        trainer.predict(features, to=tmp_path / "bad.zarr")
    wanted = ["data.zarr", "keyed.zarr", "outputs.zarr", "scores.zarr"]
    deadline = time.monotonic() + 30  # other workers may be at it still when one has failed
    while sorted(path.name for path in tmp_path.iterdir()) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sorted(path.name for path in tmp_path.iterdir()) == wanted


def test_keys_of_a_zarr_dataset_come_along(engine, tmp_path):
    features, labels = make_data(40)
    network = make_network()
    group = zarr.create_group(tmp_path / "keyed.zarr")
    for name, array in (("features", features), ("labels", labels), ("keys", np.arange(40)[::-1] * 10)):
        group.create_array(name, data=array, chunks=(16, *array.shape[1:]))
    with sb.Trainer(network, backend=engine.backend) as trainer:
        keys, scores = trainer.score_examples(tmp_path / "keyed.zarr", False, batch_size=8)
        also, outputs = trainer.feed_forward_with_key(tmp_path / "keyed.zarr", batch_size=8)
        written = trainer.feed_forward_with_key(tmp_path / "keyed.zarr", batch_size=8, to=tmp_path / "out.zarr")
        np.testing.assert_array_equal(trainer.predict(tmp_path / "keyed.zarr", batch_size=8), outputs)
    np.testing.assert_array_equal(keys, np.arange(40)[::-1] * 10)
    np.testing.assert_array_equal(also, keys)
    np.testing.assert_array_equal(written["keys"][:], keys)
    np.testing.assert_array_equal(written["output"][:], outputs)
    np.testing.assert_allclose(scores, losses_of(network, features, labels), rtol=1e-12)


# -- what goes wrong ---------------------------------------------------------------------------------


def test_nothing_to_score(engine):
    features, labels = make_data(6)
    empty = sb.DataSet(features[:0], labels[:0])
    masked = sb.DataSet(features, labels, None, np.zeros(6))
    with sb.Trainer(make_network(), backend=engine.backend) as trainer:
        for data in (engine.collection([empty, empty]), (features[:0], labels[:0]), [], engine.collection([])):
            with pytest.raises(DataError, match="no examples"):
                trainer.calculate_score(data)
        with pytest.raises(DataError, match="all of the 6 examples are masked"):
            trainer.calculate_score(masked)
        assert engine.collected(trainer.score_examples(engine.collection([empty]), False)) == []


def test_nan_is_named(engine):
    features, labels = make_data(30)
    features[17, 2] = np.nan
    network = make_network()
    with sb.Trainer(network, backend=engine.backend) as trainer:
        with pytest.raises(NonFiniteError, match=r"the loss is nan: the data contains NaN.*features 1, in a run of"):
            trainer.calculate_score((features, labels), batch_size=8)
        scores = trainer.score_examples((features, labels), False)
        assert np.flatnonzero(np.isnan(scores)).tolist() == [17]
        mask = np.ones(30)
        mask[17] = 0
        kept = np.delete(losses_of(network, features, labels), 17)
        masked = sb.DataSet(features, labels, None, mask)
        assert trainer.calculate_score(masked, batch_size=8) == pytest.approx(kept.mean(), rel=1e-12)
        with torch.no_grad():
            network.module[0].bias[3] = np.nan
        with pytest.raises(NonFiniteError, match=r"parameters of the network are NaN or infinite \(0\.bias 1\)"):
            trainer.calculate_score(make_data(9), batch_size=8)


def test_a_partition_that_fails_says_why_and_the_next_call_works(engine):
    network, bad = sb.MultiLayerNetwork(Broken, nn.MSELoss()), np.zeros((40, 6))
    bad[33] = 13
    fine = [(i, np.ones((1, 6))) for i in range(5)]
    with sb.Trainer(network, backend=engine.backend) as trainer:
        with pytest.raises(TaskError, match="row 13 is unlucky"):
            trainer.predict(bad, batch_size=4)
        if not engine.spark:  # which repeats its own job in three new processes first
            with pytest.raises(Exception, match="row 13 is unlucky"):
                engine.collected(trainer.predict(engine.collection([sb.DataSet(bad)])))
        with pytest.raises(TaskError, match="the object of key 'k' holds 2 examples"):
            trainer.score_examples([("k", sb.DataSet(bad[:2], bad[:2, :3]))], False)
        assert len(engine.collected(trainer.feed_forward_with_key(engine.collection(fine)))) == 5
        with pytest.raises(DataError, match="needs keys"):
            trainer.feed_forward_with_key(bad)
        with pytest.raises(ConfigurationError, match="batch_size must be at least 1"):
            trainer.score_examples(bad, True, batch_size=0)
