"""Copies of a network that are lent, and passes that are as wide as memory allows."""

from __future__ import annotations

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from helpers.networks import make_batch_norm, make_data, make_network
from torch import nn

import strombus as sb
from strombus.errors import ExecutorError
from strombus.worker import models as models_module
from strombus.worker.inference import Outputs
from strombus.worker.models import Models
from strombus.worker.passes import PASS_BYTES, Passes


def test_copies_share_parameters_and_give_the_same_outputs():
    network = make_network(module=make_batch_norm)
    with torch.no_grad():
        network.module[1].running_mean += 0.5
    models, features = Models(network, 2), make_data(9)[0]
    with models.lend() as first, models.lend() as second:
        assert first is not second
        assert first.module is not second.module
        for one, other in zip(first.module.parameters(), second.module.parameters(), strict=True):
            assert one.data_ptr() == other.data_ptr()
        torch.testing.assert_close(first.forward(features), second.forward(features), rtol=0, atol=0)
        np.testing.assert_allclose(first.forward(features).numpy(), network.predict(features), rtol=1e-12)


@pytest.mark.parametrize("copies", [1, 3])
def test_many_tasks_of_one_process_share_the_copies_and_none_waits_for_ever(copies):
    models = Models(make_network(), copies)
    at_work, seen, peak, lock = set(), set(), [], threading.Lock()

    def work(number):
        with models.lend() as replica:
            with lock:
                assert id(replica) not in at_work
                at_work.add(id(replica))
                seen.add(id(replica))
                peak.append(len(at_work))
            time.sleep(0.001)
            with lock:
                at_work.remove(id(replica))
            if number % 5 == 0:
                raise ValueError("a task that fails keeps no copy")

    with ThreadPoolExecutor(12) as pool:
        failed = [future.exception(timeout=60) for future in [pool.submit(work, number) for number in range(80)]]
    assert sum(isinstance(error, ValueError) for error in failed) == 16
    assert len(seen) == max(peak) == copies


def test_a_network_that_cannot_be_made_keeps_no_place(monkeypatch):
    network = make_network()
    models, made = Models(network, 1), network.replica

    def fail():
        raise RuntimeError("no memory")

    monkeypatch.setattr(network, "replica", fail)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="no memory"), models.lend():
            raise AssertionError("unreachable")
    monkeypatch.setattr(network, "replica", made)
    with models.lend() as replica:
        assert replica.several is False


def test_a_wait_for_a_copy_ends(monkeypatch):
    monkeypatch.setattr(models_module, "PATIENCE", 0.05)
    models = Models(make_network(), 1)
    with models.lend(), pytest.raises(ExecutorError, match=r"none of the 1 copies .* within 0\.05 s"), models.lend():
        raise AssertionError("unreachable")


def test_models_travel_empty():
    models = Models(make_network(), 2)
    with models.lend():
        pass
    again = pickle.loads(pickle.dumps(models))
    assert again.copies == 2
    with again.lend() as replica:
        assert replica.iteration == 0


class Recorder(nn.Module):
    """Remembers how many rows came, and makes `width` values of each."""

    def __init__(self, width):
        super().__init__()
        self.out, self.seen = nn.Linear(6, width), []

    def forward(self, x):
        self.seen.append(len(x))
        return torch.tanh(self.out(x)).sum(1, keepdim=True)


def widths(width, rows, batch_size):
    network = sb.MultiLayerNetwork(lambda: Recorder(width))
    passes = Passes(Models(network, 1), batch_size)
    slab = sb.DataSet(np.random.default_rng(0).normal(size=(rows, 6)).astype(np.float32))
    (found,) = zip(*passes.run([slab], Outputs(False)), strict=True)
    np.testing.assert_allclose(np.concatenate(found), network.predict(slab.features), rtol=1e-5, atol=1e-5)
    with passes.models.lend() as replica:
        return replica.module.seen[1:]  # the first measured


def test_minibatches_share_a_pass_where_memory_allows():
    assert widths(4, rows=50_000, batch_size=64) == [50_000]
    narrow = widths(2000, rows=5_000, batch_size=64)  # 16 kB a row
    assert sum(narrow) == 5_000
    assert 64 < max(narrow) <= PASS_BYTES / 16_000
    assert max(narrow) - min(narrow) <= 1
    assert max(widths(100_000, rows=200, batch_size=64)) <= 64


def test_passes_side_by_side_keep_their_order():
    network = sb.MultiLayerNetwork(nn.Identity)

    def work(replica, rows):
        time.sleep(0.01 if rows.features[0, 0] % 2 else 0)
        return int(rows.features[0, 0])

    slabs = [sb.DataSet(np.full((3, 1), number, np.float32)) for number in range(20)]
    assert list(Passes(Models(network, 3), 8).run(slabs, work, workers=3)) == list(range(20))


def test_a_reader_that_fails_and_a_consumer_that_stops_end_the_passes():
    passes = Passes(Models(sb.MultiLayerNetwork(nn.Identity), 2), 8)

    def slabs():
        yield sb.DataSet(np.ones((3, 1), np.float32))
        raise ValueError("the storage is gone")

    with pytest.raises(ValueError, match="the storage is gone"):
        list(passes.run(slabs(), Outputs(False), workers=2))
    endless = (sb.DataSet(np.ones((3, 1), np.float32)) for _ in iter(int, 1))
    run = passes.run(endless, Outputs(False), workers=2)
    next(run)
    run.close()
    with passes.models.lend(), passes.models.lend():
        pass  # both copies are back


def test_threads_are_divided_among_the_copies():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        assert Passes(Models(make_network(), 2), 8).divide_threads() == 2
        assert torch.get_num_threads() == 2
        assert Passes(Models(make_network(), 4), 8).divide_threads() == 2
        assert torch.get_num_threads() == 1
        assert Passes(Models(make_network(), 4), 8).divide_threads() == 1
    finally:
        torch.set_num_threads(before)
