"""The trainer's promises: counts, going on, scores, evaluation, prediction, and who closes what."""

from __future__ import annotations

import math
import sys

import cloudpickle
import numpy as np
import pytest
import torch
from helpers.networks import make_data, make_mlp, make_network, plain_loop
from sklearn import metrics
from torch import nn

import strombus as sb
from strombus.errors import ConfigurationError, DataError, ExecutorError, TaskError
from strombus.worker import scoring

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Both(nn.Module):
    """Sum and difference of two inputs, through weights."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.left, self.right = nn.Linear(3, 2).double(), nn.Linear(4, 2).double()

    def forward(self, left, right):
        a, b = self.left(left), self.right(right)
        return a + b, (a - b).sum(dim=1)


BACKENDS = ["local-1", "local-2", pytest.param("dask", marks=pytest.mark.dask)]


@pytest.fixture(params=BACKENDS)
def backend(request):
    if request.param == "dask":
        return request.getfixturevalue("dask_client")
    return request.getfixturevalue("local_executors")[int(request.param[-1])]


@pytest.fixture
def alone(local_executors):
    return local_executors[1]


def master_of(**options):
    return sb.ParameterAveragingTrainingMaster(
        **{"workers": 1, "batch_size_per_worker": 10, "rng_seed": 4, "shuffle": False, **options}
    )


def parameters_of(network):
    return network.state().parameters


def split_evenly(rows, batch):
    return [batch] * (rows // batch) + [rows % batch] * bool(rows % batch)


# -- training ------------------------------------------------------------------------------------


def test_a_fit_counts_what_it_trained(alone):
    data, network = make_data(57), make_network("adam")
    master = master_of(workers=3, averaging_frequency=2, batch_size_per_worker=5, collect_training_stats=True)
    with sb.Trainer(network, master, alone) as trainer:
        assert trainer.score == 0.0
        result = trainer.fit(data, epochs=3, validation=make_data(20, seed=1), progress=False)
        assert result.network is network
        assert (result.examples, result.minibatches) == (3 * 57, 3 * 3 * 4)
        assert [record.epoch for record in result.epochs] == [1, 2, 3]
        assert [record.iteration for record in result.epochs] == [4, 8, 12]
        assert {(record.examples, record.minibatches) for record in result.epochs} == {(57, 12)}
        assert result.score == trainer.score == result.epochs[-1].score
        assert 0 < sum(record.seconds for record in result.epochs) <= result.seconds
        assert (network.epoch, network.iteration, result.seed) == (3, 12, 4)
        assert {"fit", "round"} <= {event.name for event in result.stats.events}
        assert list(result.stats.events) == list(trainer.stats.events)


def test_a_seed_that_was_drawn_repeats_the_fit(alone):
    data, first, second = make_data(40), make_network(), make_network()
    drawn = sb.Trainer(first, master_of(rng_seed=None, shuffle=True), alone).fit(data, epochs=2, progress=False)
    sb.Trainer(second, master_of(rng_seed=drawn.seed, shuffle=True), alone).fit(data, epochs=2, progress=False)
    np.testing.assert_array_equal(parameters_of(first), parameters_of(second))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_fit_goes_on_where_the_first_ended(alone, workers):
    data, split, whole = make_data(45), make_network("momentum"), make_network("momentum")
    with sb.Trainer(split, master_of(workers=workers), alone) as trainer:
        trainer.fit(data, epochs=2, progress=False)
        result = trainer.fit(data, epochs=3, progress=False)
    with sb.Trainer(whole, master_of(workers=workers), alone) as trainer:
        assert len(trainer.fit(data, epochs=5, progress=False).epochs) == 5
    assert [record.epoch for record in result.epochs] == [3, 4, 5]
    assert (split.epoch, split.iteration) == (whole.epoch, whole.iteration)
    np.testing.assert_array_equal(parameters_of(split), parameters_of(whole))
    assert split.updater.tensors.keys() == whole.updater.tensors.keys()
    for name, array in whole.updater.tensors.items():
        np.testing.assert_array_equal(split.updater.tensors[name], array)
    if workers == 1:
        plain = plain_loop(make_network("momentum"), *data, split_evenly(45, 10), epochs=5)
        np.testing.assert_array_equal(parameters_of(whole), plain)


def test_another_trainer_goes_on_too(alone):
    data, split, whole = make_data(30), make_network("momentum"), make_network("momentum")
    for _ in range(2):
        sb.Trainer(split, master_of(), alone).fit(data, progress=False)
    sb.Trainer(whole, master_of(), alone).fit(data, epochs=2, progress=False)
    np.testing.assert_array_equal(parameters_of(split), parameters_of(whole))


def test_validation_is_the_score_and_the_accuracy_after_each_epoch(alone):
    data, held_out, network = make_data(40), make_data(33, seed=9), make_network(l2=0.01)
    seen = []

    class Check(sb.Callback):
        def on_epoch_end(self, record):
            with torch.no_grad():
                output = network.copy_module()(torch.from_numpy(held_out[0]))
            loss = nn.functional.cross_entropy(output, torch.from_numpy(held_out[1])).item()
            accuracy = np.mean(output.argmax(dim=1).numpy() == held_out[1])
            assert record.validation["score"] == pytest.approx(loss + network.regularization(), rel=1e-12)
            assert record.validation["accuracy"] == pytest.approx(accuracy)
            seen.append(record.epoch)

    with sb.Trainer(network, master_of(), alone) as trainer:
        trainer.fit(data, epochs=2, validation=held_out, callbacks=[Check()], progress=False)
    assert seen == [1, 2]


def test_a_regression_is_validated_by_its_score_alone(alone):
    features = make_data(20)[0]
    network = sb.MultiLayerNetwork(make_mlp, nn.MSELoss(), lambda p: torch.optim.SGD(p, lr=0.1))
    data = (features, features[:, :3])
    with sb.Trainer(network, master_of(), alone) as trainer:
        result = trainer.fit(data, validation=data, progress=False)
    assert set(result.epochs[0].validation) == {"score"}


# -- scores --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [7, 64])
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_a_score_is_what_torch_gives(backend, l2, batch_size):
    features, labels = make_data(45)
    network = make_network(l2=l2)
    losses = nn.functional.cross_entropy(
        network.module(torch.from_numpy(features)), torch.from_numpy(labels), reduction="none"
    ).detach()
    weights = [p for p in network.module.parameters() if p.ndim > 1]
    penalty = l2 / 2 * sum(float((weight.detach() ** 2).sum()) for weight in weights)
    with sb.Trainer(network, backend=backend) as trainer:
        mean = trainer.calculate_score((features, labels), batch_size=batch_size)
        total = trainer.calculate_score((features, labels), average=False, batch_size=batch_size)
    assert mean == pytest.approx(losses.mean().item() + penalty, rel=1e-12)
    assert total == pytest.approx(losses.sum().item() + 45 * penalty, rel=1e-12)


def test_scoring_needs_data_labels_and_a_loss(alone):
    features, labels = make_data(5)
    with sb.Trainer(make_network(), backend=alone) as trainer:
        for call in (trainer.calculate_score, trainer.evaluate, trainer.predict):
            with pytest.raises(DataError, match="no examples"):
                call((features[:0], labels[:0]))
            with pytest.raises(ConfigurationError, match="batch_size must be at least 1, got 0"):
                call((features, labels), batch_size=0)
        with pytest.raises(TaskError, match="need labels"):
            trainer.calculate_score(features)
        with pytest.raises(TaskError, match="needs labels"):
            trainer.evaluate(features)
    with (
        sb.Trainer(sb.MultiLayerNetwork(make_mlp), backend=alone) as trainer,
        pytest.raises(TaskError, match="no loss"),
    ):
        trainer.calculate_score((features, labels))


# -- evaluation ----------------------------------------------------------------------------------


def test_an_evaluation_agrees_with_scikit_learn(backend):
    features, labels = make_data(201)
    network = make_network()
    predicted = network.predict(features).argmax(axis=1)
    with sb.Trainer(network, backend=backend) as trainer:
        found = trainer.evaluate((features, labels), batch_size=16)
        one_hot = trainer.evaluate((features, np.eye(3)[labels]))
    np.testing.assert_array_equal(found.confusion_matrix, metrics.confusion_matrix(labels, predicted))
    np.testing.assert_array_equal(found.confusion_matrix, one_hot.confusion_matrix)
    assert found.accuracy() == pytest.approx(metrics.accuracy_score(labels, predicted))
    macro = {"average": "macro", "zero_division": 0}
    assert found.precision() == pytest.approx(metrics.precision_score(labels, predicted, **macro))
    assert found.recall() == pytest.approx(metrics.recall_score(labels, predicted, **macro))
    assert found.f1() == pytest.approx(metrics.f1_score(labels, predicted, **macro))
    each = metrics.f1_score(labels, predicted, average=None, zero_division=0)
    assert [found.f1(label) for label in range(3)] == pytest.approx(list(each))


def test_several_metrics_take_one_pass(alone, monkeypatch):
    batches = []
    read = scoring.ScoringWork.batches
    monkeypatch.setattr(scoring.ScoringWork, "batches", lambda work, part: batches.append(part) or read(work, part))
    with sb.Trainer(make_network(), backend=alone) as trainer:
        given = [sb.Evaluation(), sb.Evaluation(labels=["a", "b", "c"])]
        plain, named = trainer.do_evaluation(make_data(30), given)
    assert len(batches) == 1
    np.testing.assert_array_equal(plain.confusion_matrix, named.confusion_matrix)
    assert "a" in named.stats()
    with pytest.raises(DataError, match="no data"):
        given[0].accuracy()


# -- inference -----------------------------------------------------------------------------------


def test_predictions_are_in_the_datas_order(backend, tmp_path):
    features, labels = make_data(333)
    network = make_network()
    with torch.no_grad():
        wanted = network.module(torch.from_numpy(features)).numpy()
    path = tmp_path / "data.zarr"
    sb.data.export((features, labels), path, progress=False)
    with sb.Trainer(network, backend=backend) as trainer:
        for data in (features, torch.from_numpy(features), (features, labels), sb.DataSet(features), path):
            found = trainer.predict(data, batch_size=50)
            assert found.dtype == np.float64
            np.testing.assert_allclose(found, wanted, rtol=1e-12)
        frames = [sb.DataSet(features[i : i + 90]) for i in range(0, 333, 90)]
        np.testing.assert_allclose(trainer.predict(iter(frames)), wanted, rtol=1e-12)


def test_features_alone_can_be_a_dask_array(backend):
    da = pytest.importorskip("dask.array", reason="Dask's arrays are not installed (pip install dask[array])")
    features, network = make_data(40)[0], make_network()
    with sb.Trainer(network, backend=backend) as trainer:
        found = trainer.predict(da.from_array(features, chunks=(15, 6)))
    np.testing.assert_allclose(found, network.predict(features), rtol=1e-12)


def test_a_frames_label_is_no_feature(alone):
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    features, labels = make_data(20)
    frame = pd.DataFrame({"features": list(features), "label": labels})
    network = make_network()
    with sb.Trainer(network, backend=alone) as trainer:
        np.testing.assert_allclose(trainer.predict(frame), network.predict(features), rtol=1e-12)
        assert trainer.calculate_score(frame) == pytest.approx(trainer.calculate_score((features, labels)))


def test_a_graph_predicts_a_tuple_as_its_own_predict_does(backend):
    rng = np.random.default_rng(2)
    left, right = rng.normal(size=(70, 3)), rng.normal(size=(70, 4))
    network = sb.ComputationGraph(Both)
    with sb.Trainer(network, backend=backend) as trainer:
        total, difference = trainer.predict(sb.MultiDataSet([left, right]), batch_size=9)
    a, b = network.predict([left, right])
    np.testing.assert_allclose(total, a, rtol=1e-12)
    np.testing.assert_allclose(difference, b, rtol=1e-12)
    assert difference.shape == (70,)
    single = sb.ComputationGraph(make_mlp)
    features = make_data(12)[0]
    with sb.Trainer(single, backend=backend) as trainer:
        (output,) = trainer.predict(sb.MultiDataSet([features]))
    np.testing.assert_allclose(output, single.predict([features])[0], rtol=1e-12)


# -- who closes what -----------------------------------------------------------------------------


def test_what_the_trainer_opened_it_closes():
    network, data = make_network(), make_data(30)
    with sb.Trainer(network, master_of(), backend="local") as trainer:
        opened = trainer.executor
        assert opened is trainer.executor
        assert opened.capacity().slots == 1
        trainer.fit(data, progress=False)
    with pytest.raises(Exception, match="closed"):
        list(opened.map(len, []))
    trainer.close()
    with pytest.raises(ExecutorError, match="this Trainer is closed"):
        trainer.fit(data, progress=False)


def test_a_trainer_and_its_data_say_what_they_are():
    shown = repr(sb.Trainer(make_network(), master_of(), "tcp://me:secret@127.0.0.1:9"))
    assert shown.startswith("Trainer(MultiLayerNetwork(")
    assert shown.endswith("parameters), ParameterAveragingTrainingMaster, backend='tcp://***@127.0.0.1:9')")
    one, many = make_data(1), make_data(1200)
    assert repr(sb.data.open_source(one)) == "ArraySource(DataSet of 1 example in 1 part)"
    assert repr(sb.data.mix([many, many], [0.9, 0.1], examples=1100)) == "MixedSource(990 + 110 examples, seed 0)"
    assert repr(sb.data.examples([one[0]] * 1200)) == "ExampleSource(1,200 examples)"


def test_a_borrowed_executor_stays_open(local_executors):
    for executor in local_executors.values():
        with sb.Trainer(make_network(), master_of(), executor) as trainer:
            assert trainer.executor is executor
        assert executor.share(1).get() == 1


@pytest.mark.dask
def test_a_borrowed_client_stays_open_and_a_clients_executor_uses_its_workers(dask_client):
    with sb.Trainer(make_network(), master_of(workers=2), dask_client) as trainer:
        assert trainer.executor.capacity().slots == 2
        assert trainer.fit(make_data(30), progress=False).examples == 30
    assert dask_client.status == "running"
    assert dask_client.submit(int, "7").result() == 7


def test_nothing_is_opened_before_it_is_needed():
    with sb.Trainer(make_network(), backend="tcp://127.0.0.1:9") as trainer:
        assert trainer.score == 0.0


def test_an_empty_collection_trains_nothing(alone, caplog):
    network = make_network()
    before = parameters_of(network).copy()
    features, labels = make_data(4)
    with sb.Trainer(network, master_of(), alone) as trainer:
        result = trainer.fit(sb.DataSet(features[:0], labels[:0]), progress=False)
    assert (result.examples, result.epochs) == (0, ())
    assert math.isnan(result.score)
    assert "no examples" in caplog.text
    np.testing.assert_array_equal(parameters_of(network), before)
