"""What Dask adds to the contract: workers that die, clients that stay, gangs that queue, a cluster of programs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from distributed import Client

from strombus.errors import ConfigurationError, ExecutorError, GangError, GangTimeout, TaskError
from strombus.executors import dask_gang
from strombus.executors.dask import DaskExecutor
from strombus.executors.dask_cluster import connect, open_dask
from strombus.executors.dask_placement import spread
from strombus.testing import executor_tasks as tasks
from strombus.testing import faults
from strombus.types import NativePartition

pytestmark = pytest.mark.dask
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def process_of(_: Any, __: Any) -> int:
    return os.getpid()


def identity_of(shared: Any, _: Any) -> tuple[int, int]:
    return os.getpid(), id(shared)


def meet_and_tell_host(member: Any, _: Any, __: Any) -> tuple[str, float, float]:
    started = time.time()
    member.exchange(b"")
    time.sleep(0.3)
    return member.host, started, time.time()


def add_in_place(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    left += right
    return left


@pytest.fixture
def executor(dask_client: Client) -> DaskExecutor:
    return DaskExecutor(dask_client)


@pytest.fixture(scope="module")
def expendable() -> Iterator[DaskExecutor]:
    """A cluster of its own, for tests that kill workers."""
    with open_dask(workers=2) as executor:
        yield executor


@pytest.fixture
def doomed(expendable: DaskExecutor) -> DaskExecutor:
    """The same, all workers restarted."""
    expendable.client.wait_for_workers(2, timeout=60)
    return expendable


def test_a_worker_killed_under_a_task_does_not_lose_the_job(doomed: DaskExecutor, tmp_path: Path) -> None:
    marker = doomed.share(str(tmp_path / "died"))
    assert list(doomed.map(faults.die_once, range(6), marker)) == list(range(6))
    assert (tmp_path / "died").exists()


def test_a_shared_value_that_died_with_its_worker_is_brought_again(doomed: DaskExecutor) -> None:
    shared = doomed.share(np.arange(5))
    client = doomed.client
    (holder,) = client.who_has(shared.future)[shared.future.key]  # type: ignore[attr-defined]
    faults.kill_process(client.run(os.getpid, workers=[holder])[holder])
    assert [list(result) for result in doomed.map(tasks.add_shared, [1, 2], shared)] == [
        [1, 2, 3, 4, 5],
        [2, 3, 4, 5, 6],
    ]


def test_a_round_that_died_with_its_worker_is_made_again(doomed: DaskExecutor) -> None:
    client = doomed.client
    first = doomed.map_reduce(tasks.add_shared, [0, 1], tasks.add, doomed.share(1))
    assert first.look(tasks.negate) == -3
    for pid in client.run(os.getpid).values():
        faults.kill_process(pid)
    second = doomed.map_reduce(tasks.add_shared, [0, 1], tasks.add, first)
    assert second.get() == 7


def test_a_killed_member_is_named_soon(doomed: DaskExecutor) -> None:
    started = time.monotonic()
    with pytest.raises(GangError, match=r"member 1 .*was lost") as caught:
        doomed.gang(faults.die_in_gang, [60.0, 60.0], doomed.share(1), timeout=60)
    assert caught.value.part == 1
    assert time.monotonic() - started < 15
    doomed.client.wait_for_workers(2, timeout=30)
    assert doomed.gang(tasks.exchange_twice, [b"a", b"b"], timeout=60) == [([b"a", b"b"], [b"aa", b"bb"])] * 2


def test_a_result_that_does_not_come_is_waited_for_no_longer_than_said(doomed: DaskExecutor) -> None:
    started = time.monotonic()
    with pytest.raises(
        GangError, match=r"member 1 .*finished.*result did not come within 2 s \(option `timeout`\)"
    ) as caught:
        doomed.gang(tasks.return_slowly, [0, 0], doomed.share(8.0), timeout=2)
    assert caught.value.part == 1
    assert time.monotonic() - started < 7


def test_a_task_that_kills_every_worker_is_named(doomed: DaskExecutor) -> None:
    with pytest.raises(TaskError, match="part 1 failed") as caught:
        list(doomed.map(faults.die_under, range(2), doomed.share(1)))
    assert caught.value.part == 1


def test_gangs_on_one_cluster_queue_and_small_ones_run_side_by_side(executor: DaskExecutor) -> None:
    with ThreadPoolExecutor(2) as threads:
        large = [threads.submit(executor.gang, meet_and_tell_host, [0, 1], timeout=60) for _ in range(2)]
        (_, start_1, end_1), (_, start_2, end_2) = (one.result(60)[0] for one in large)
        assert end_1 <= start_2 or end_2 <= start_1
        small = [threads.submit(executor.gang, meet_and_tell_host, [0], timeout=60) for _ in range(2)]
        (_, start_1, end_1), (_, start_2, end_2) = (one.result(60)[0] for one in small)


def test_a_gang_that_finds_its_workers_taken_says_so(executor: DaskExecutor) -> None:
    workers = sorted(executor.client.nthreads())
    with (
        dask_gang.leased_workers(executor.client, workers, 2, 5),
        pytest.raises(GangTimeout, match="held by another gang"),
    ):
        executor.gang(tasks.exchange_twice, [b"a", b"b"], timeout=0.5)


def test_members_that_find_their_worker_busy_time_out(executor: DaskExecutor) -> None:
    busy = executor.client.submit(time.sleep, 2.5, pure=False)
    time.sleep(0.2)
    with pytest.raises(GangTimeout, match=r"1 of 2 members did not start within 1 s"):
        executor.gang(tasks.exchange_twice, [b"a", b"b"], timeout=1)
    busy.result()


def test_part_i_finds_the_worker_of_part_i_again(executor: DaskExecutor) -> None:
    first = list(executor.map(process_of, range(2)))
    assert len(set(first)) == 2
    assert list(executor.map(process_of, range(2))) == first


def test_a_shared_value_is_loaded_once_in_each_process(executor: DaskExecutor) -> None:
    by_process: dict[int, set[int]] = {}
    for process, identity in executor.map(identity_of, range(12), executor.share({"a": np.zeros(10)})):
        by_process.setdefault(process, set()).add(identity)
    assert all(len(identities) == 1 for identities in by_process.values())


def test_a_merge_may_reuse_the_memory_of_its_left_side(executor: DaskExecutor) -> None:
    parts = [np.full(3, number) for number in range(5)]
    ones = executor.share(np.ones(3))
    for _ in range(2):
        assert list(executor.map_reduce(tasks.scale_arrays, parts, add_in_place, ones).get()) == [10.0] * 3


def test_partitions_of_dask_are_opened_where_they_lie(executor: DaskExecutor) -> None:
    import dask

    delayed = NativePartition("dask", dask.delayed(sum)([1, 2]), 0)
    future = NativePartition("dask", executor.client.submit(sum, [3, 4]), 1)
    failing = NativePartition("dask", dask.delayed(int)("no number"), 2)
    assert list(executor.map(tasks.square, [delayed, future])) == [9, 49]
    with pytest.raises(TaskError, match=r"part 1 .*ValueError") as caught:
        list(executor.map(tasks.square, [delayed, failing]))
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(ConfigurationError, match="held by spark"):
        list(executor.map(tasks.square, [NativePartition("spark", object(), 0)]))


def test_nothing_stays_on_the_cluster(executor: DaskExecutor) -> None:
    before = set(_left_over(executor.client))
    shared = executor.share(1)
    for number, _ in enumerate(executor.map(tasks.add_shared, range(100), shared)):
        if number == 3:
            break
    merged = executor.map_reduce(tasks.add_shared, range(7), tasks.add, shared)
    assert merged.get() == 28
    assert executor.gang(tasks.exchange_twice, [b""], timeout=30)
    with pytest.raises(TaskError):
        list(executor.map(tasks.fail_on, range(20), executor.share([2])))
    merged.free()
    shared.free()
    deadline = time.monotonic() + 10
    while remaining := set(_left_over(executor.client)) - before:
        assert time.monotonic() < deadline, remaining
        time.sleep(0.05)
    with pytest.raises(ExecutorError, match="freed"):
        shared.get()


def _left_over(client: Client) -> list[str]:
    return client.run_on_scheduler(
        lambda dask_scheduler: [
            *(str(key) for key in dask_scheduler.tasks),
            *dask_scheduler.extensions["queues"].queues,
        ]
    )


def test_a_borrowed_client_stays_open_and_as_it_was(executor: DaskExecutor) -> None:
    client = executor.client
    executor.close()
    executor.close()
    assert client.status == "running"
    assert client.submit(int, "3").result() == 3
    with pytest.raises(ValueError, match="No clients found"):
        Client.current()


def test_an_asynchronous_client_is_refused(dask_client: Client) -> None:
    async def attempt() -> None:
        async with Client(dask_client.scheduler.address, asynchronous=True, set_as_default=False) as client:
            with pytest.raises(ConfigurationError, match="synchronous"):
                DaskExecutor(client)

    asyncio.run(attempt())


def test_jobs_of_two_threads_do_not_mix(executor: DaskExecutor) -> None:
    def job(base: int) -> list[int]:
        shared = executor.share(base)
        return [
            *executor.map(tasks.add_shared, range(10), shared),
            executor.map_reduce(tasks.add_shared, range(3), tasks.add, shared).get(),
        ]

    results: dict[int, list[int]] = {}
    threads = [threading.Thread(target=lambda b=base: results.update({b: job(b)})) for base in (100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {base: [*range(base, base + 10), 3 * base + 3] for base in (100, 200)}


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The address of a real scheduler with two workers, the second of which cannot import Strombus."""
    dask = [sys.executable, "-m", "dask"]
    file = tmp_path / "scheduler.json"
    blocked = os.environ | {"PYTHONPATH": str(faults.block_import("strombus", tmp_path))}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    worker = [*dask, "worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1"]
    scheduler = [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    programs = [
        subprocess.Popen([*scheduler, "--scheduler-file", str(file)], **quiet),
        subprocess.Popen([*worker, "--name", "good"], **quiet),
        subprocess.Popen([*worker, "--name", "bare"], env=blocked, **quiet),
    ]
    try:
        with Client(scheduler_file=str(file), set_as_default=False, timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
            yield client.scheduler.address
    finally:
        for program in programs:  # told to end, a Dask program may wait long for peers that end with it
            program.kill()
            program.wait(20)


def test_workers_without_strombus_are_named(address: str) -> None:
    with connect(address) as executor:
        workers = executor.client.scheduler_info()["workers"]
        bare = next(one for one, info in workers.items() if info["name"] == "bare")
        good = next(one for one, info in workers.items() if info["name"] == "good")
        with pytest.raises(ExecutorError, match=rf"not installed on worker {bare}.*pip install strombus") as caught:
            executor.check()
        assert good not in str(caught.value)
        executor.client.retire_workers([bare])
        executor.check()
        assert list(executor.map(tasks.square, range(5))) == [0, 1, 4, 9, 16]
        assert executor.capacity().slots == 1
    with Client(address, set_as_default=False, timeout=5) as client:
        assert client.status == "running"


def test_members_go_to_different_hosts_first():
    workers = [f"tcp://{host}:{port}" for host in ("a", "b") for port in (1, 2)]
    assert spread(workers, dict.fromkeys(workers, 0)) == ["tcp://a:1", "tcp://b:1", "tcp://a:2", "tcp://b:2"]
    busy = {**dict.fromkeys(workers, 0), "tcp://a:1": 1}
    assert spread(workers, busy) == ["tcp://a:2", "tcp://b:1", "tcp://b:2", "tcp://a:1"]
