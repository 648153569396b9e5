"""What the local engine promises beyond the contract: in-process runs, dead processes, files, threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch

from strombus.errors import ConfigurationError, ExecutorError, GangError, GangUnavailable, TaskError
from strombus.executors.local import LocalExecutor
from strombus.testing import executor_tasks as tasks
from strombus.testing import faults
from strombus.testing.executor_suite import ScriptedControl
from strombus.types import Event, NativePartition

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def process_of(_: Any, __: Any) -> int:
    return os.getpid()


def identity_of(shared: Any, _: Any) -> tuple[int, int]:
    return os.getpid(), id(shared)


def scribble(shared: np.ndarray, part: int) -> float:
    shared[0] += part
    return float(shared[0])


def torch_threads(_: Any, __: Any) -> tuple[int, str]:
    return torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]


@pytest.fixture(scope="module")
def two() -> Iterator[LocalExecutor]:
    with LocalExecutor(workers=2) as executor:
        yield executor


def test_one_slot_runs_in_the_calling_thread_of_this_process() -> None:
    seen: list[int] = []

    def task(_: Any, part: int) -> int:
        seen.append(threading.get_ident())
        torch.manual_seed(part)
        torch.set_num_threads(3)
        return os.getpid()

    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with LocalExecutor(workers=1) as executor:
        assert list(executor.map(task, [1, 2])) == [os.getpid()] * 2
        body = executor.gang(lambda member, shared, payload: (os.getpid(), member.size, shared), [None], timeout=1)
        assert body == [(os.getpid(), 1, None)]
    assert seen == [threading.get_ident()] * 2
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_a_gang_of_one_talks_to_the_driver_directly() -> None:
    seen: list[tuple[int, Event]] = []
    with LocalExecutor(workers=1) as executor:
        executor.gang(tasks.report_steps, [2], timeout=1, on_event=lambda rank, event: seen.append((rank, event)))
        stopped = executor.gang(tasks.wait_for_stop, [5.0], timeout=1, control=ScriptedControl(0.1, stop=True))
        told = executor.gang(tasks.wait_for_command, [5.0], timeout=1, control=ScriptedControl(0.1, ["faster"]))
        with pytest.raises(GangError, match=r"member 0 .*ZeroDivisionError") as caught:
            executor.gang(tasks.exchange_and_fail, [None], executor.share(0), timeout=1)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert [(rank, event.values["step"]) for rank, event in seen] == [(0, 0), (0, 1)]
    assert (stopped, told) == ([True], [["faster"]])


def test_a_process_killed_under_a_task_does_not_lose_the_job(two: LocalExecutor, tmp_path: Path) -> None:
    marker = two.share(str(tmp_path / "died"))
    assert list(two.map(faults.die_once, range(6), marker)) == list(range(6))
    assert (tmp_path / "died").exists()


def test_a_part_that_kills_every_process_is_named(two: LocalExecutor) -> None:
    with pytest.raises(TaskError, match="part 1 failed: 4 processes died") as caught:
        list(two.map(faults.die_under, range(2), two.share(1)))
    assert caught.value.part == 1
    assert list(two.map(tasks.square, [3])) == [9]


def test_a_killed_member_is_named_and_frees_the_others(two: LocalExecutor) -> None:
    started = time.monotonic()
    with pytest.raises(GangError, match=r"member 1 .*was lost") as caught:
        two.gang(faults.die_in_gang, [60.0, 60.0], two.share(1), timeout=60)
    assert caught.value.part == 1
    assert time.monotonic() - started < 15
    assert two.gang(tasks.exchange_twice, [b"a", b"b"], timeout=60) == [([b"a", b"b"], [b"aa", b"bb"])] * 2


def test_a_result_that_does_not_come_is_waited_for_no_longer_than_said(two: LocalExecutor) -> None:
    started = time.monotonic()
    with pytest.raises(
        GangError, match=r"member 1 .*finished.*result did not come within 2 s \(option `timeout`\)"
    ) as caught:
        two.gang(tasks.return_slowly, [0, 0], two.share(8.0), timeout=2)
    assert caught.value.part == 1
    assert time.monotonic() - started < 7
    assert two.gang(tasks.exchange_twice, [b"a", b"b"], timeout=60) == [([b"a", b"b"], [b"aa", b"bb"])] * 2


def test_gangs_of_one_executor_queue(two: LocalExecutor) -> None:
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(two.gang(tasks.exchange_twice, [b"a", b"b"], timeout=60)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [[([b"a", b"b"], [b"aa", b"bb"])] * 2] * 3


def test_a_shared_value_is_loaded_once_in_each_process_and_is_its_own(two: LocalExecutor) -> None:
    shared = two.share({"weights": np.arange(1000.0)})
    by_process: dict[int, set[int]] = {}
    for process, identity in two.map(identity_of, range(8), shared):
        by_process.setdefault(process, set()).add(identity)
    assert all(len(identities) == 1 for identities in by_process.values())
    array = np.zeros(10_000)
    list(two.map(scribble, [1, 2], two.share(array)))
    assert not array.any()


def test_files_of_shared_values_go_with_free_with_the_handle_and_with_the_executor() -> None:
    executor = LocalExecutor(workers=2)
    first, second = executor.share(np.zeros(100)), executor.share(np.zeros(100))
    folder = first.write().parent
    assert len(list(folder.iterdir())) == 2
    first.free()
    assert len(list(folder.iterdir())) == 1
    with pytest.raises(ExecutorError, match="freed"):
        first.get()
    del second
    assert not list(folder.iterdir())
    executor.close()
    assert not folder.exists()
    with pytest.raises(ExecutorError, match="closed"):
        executor.share(1)


def test_processes_share_the_cpus() -> None:
    cpus = len(os.sched_getaffinity(0))
    with LocalExecutor(workers=2) as executor:
        capacity = executor.capacity()
        assert (capacity.slots, capacity.threads) == (2, max(1, cpus // 2))
        assert list(executor.map(torch_threads, [0])) == [(capacity.threads, str(capacity.threads))]


def test_part_i_finds_the_process_of_part_i_again(two: LocalExecutor) -> None:
    first = list(two.map(process_of, range(2)))
    assert len(set(first)) == 2
    assert list(two.map(process_of, range(2))) == first


def test_a_consumer_that_stops_early_leaves_the_executor_usable(two: LocalExecutor) -> None:
    results = two.map(tasks.square, range(1000))
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert list(two.map(tasks.square, [4])) == [16]


def test_a_result_that_cannot_be_pickled_is_the_tasks_error(two: LocalExecutor) -> None:
    with pytest.raises(TaskError, match="the result must be picklable"):
        list(two.map(lambda shared, part: threading.Lock(), [0]))


def test_a_merge_that_fails_is_a_task_error(two: LocalExecutor) -> None:
    with pytest.raises(TaskError, match=r"merging failed .*TypeError") as caught:
        two.map_reduce(tasks.square, [1, 2], lambda left, right: left + "text")
    assert isinstance(caught.value.__cause__, TypeError)


def test_native_partitions_of_dask_are_computed_and_those_of_spark_refused(two: LocalExecutor) -> None:
    import dask

    part = NativePartition("dask", dask.delayed(sum)([1, 2, 3]), 0)
    assert list(two.map(tasks.square, [part])) == [36]
    with pytest.raises(ConfigurationError, match="held by spark"):
        list(two.map(tasks.square, [NativePartition("spark", object(), 0)]))


def test_wrong_numbers_of_workers_are_refused(two: LocalExecutor) -> None:
    with pytest.raises(ConfigurationError, match="at least 1, got 0"):
        LocalExecutor(workers=0)
    with pytest.raises(GangUnavailable, match=r"3 members .* has 2;"):
        two.gang(tasks.exchange_twice, [b""] * 3, timeout=1)


def test_a_script_needs_no_main_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from strombus.executors.local import LocalExecutor\n"
        "class Point:\n"
        "    def __init__(self, x): self.x = x\n"
        "with LocalExecutor(workers=2) as executor:\n"
        "    print(sum(p.x for p in executor.map(lambda s, n: Point(s.x + n), range(3), executor.share(Point(5)))))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("18\n", "")


def test_large_results_leave_no_file_behind(two: LocalExecutor) -> None:
    shared = two.share(np.ones(2**18, np.float32))
    folder = shared.write().parent  # type: ignore[attr-defined]
    before = set(folder.iterdir())
    results = two.map(tasks.scale_arrays, [np.full(1, n, np.float32) for n in range(6)], shared)
    third = [next(results) for _ in range(3)][2]
    results.close()  # type: ignore[attr-defined]
    third += 1
    assert third.sum() == 3 * 2**18
    deadline = time.monotonic() + 10
    while set(folder.iterdir()) - before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
