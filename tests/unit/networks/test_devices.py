"""Each process of a host computes on a GPU of its own, as far as they go round; the number of GPUs is pretended."""

from __future__ import annotations

import os
import sys
import types
from unittest import mock

import cloudpickle
import pytest
import torch

from strombus.networks.devices import Claims, choose_gpu, resolve_device

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def gpus(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


def refuse(names):
    raise AssertionError(f"nothing was to be claimed, but one of {names} was")


@pytest.mark.parametrize(
    ("count", "assigned", "visible", "wanted"),
    [
        (4, ["2"], [], 2),  # as `nvidia-smi` counts, all visible
        (2, ["6", "7"], ["4", "6"], 1),  # a task of two GPUs, one of which this process may see
        (2, ["1"], ["GPU-ab", "GPU-cd"], 1),  # an index where GPUs are listed otherwise
        (1, [], ["3"], 0),  # one GPU to a process, as a container gives it
    ],
)
def test_what_an_engine_has_assigned_is_taken(count, assigned, visible, wanted):
    assert choose_gpu(count, assigned, visible, refuse) == wanted


def test_an_address_that_torch_does_not_see_is_no_reason_to_share(tmp_path):
    assert choose_gpu(2, ["7"], [], Claims(tmp_path).take) == 0
    assert choose_gpu(2, ["7"], [], Claims(tmp_path).take) == 0  # the first has let go of it


def test_processes_take_what_is_free_and_then_share_evenly(tmp_path):
    claims = [Claims(tmp_path) for _ in range(5)]  # a lock is of an open file, so one process can try for several
    assert [one.take(["0", "1"]) for one in claims] == [0, 1, 0, 1, 0]
    assert [one.take(["0", "1"]) for one in claims] == [0, 1, 0, 1, 0]  # and keep it
    del claims[1]
    assert Claims(tmp_path).take(["0", "1"]) == 1


def test_processes_that_list_the_gpus_in_other_orders_do_not_meet(tmp_path):
    first, second, third = (Claims(tmp_path) for _ in range(3))
    assert first.take(["0", "1", "2"]) == 0
    assert second.take(["1", "2", "0"]) == 0  # as dask-cuda lists them for its second worker
    assert third.take(["0", "1", "2"]) == 2


def test_where_nothing_can_be_written_there_is_still_a_gpu(tmp_path):
    (tmp_path / "file").write_text("no folder")
    assert Claims(tmp_path / "file").take(["0", "1", "2"]) == os.getpid() % 3


def test_a_task_of_spark_computes_on_the_gpu_that_it_was_given(gpus, monkeypatch):
    task = types.SimpleNamespace(resources=lambda: {"gpu": types.SimpleNamespace(name="gpu", addresses=["3"])})
    context = types.SimpleNamespace(get=lambda: task)
    monkeypatch.setitem(sys.modules, "pyspark", types.SimpleNamespace(TaskContext=context))
    assert resolve_device("auto") == torch.device("cuda", 3)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)  # who names one has it


def choose_among_three(folder, part):
    """Resolve "auto" where torch would see three GPUs; a task."""
    pretended = {"is_available": lambda: True, "device_count": lambda: 3}
    with mock.patch.multiple(torch.cuda, **pretended), mock.patch("strombus.networks.devices.CLAIMS", Claims(folder)):
        return str(resolve_device("auto"))


def test_workers_have_gpus_of_their_own(local_executors, tmp_path):
    """Real processes, each keeps its lock: the second sees that the first has taken GPU 0."""
    keeping = Claims(tmp_path)
    assert keeping.take(["0", "1", "2"]) == 0
    executor = local_executors[2]
    shared = executor.share(tmp_path)
    assert list(executor.map(choose_among_three, [0], shared)) == ["cuda:1"]
    shared.free()


def test_without_gpus_it_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
