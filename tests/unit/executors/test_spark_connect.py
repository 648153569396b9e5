"""SparkConnectExecutor beyond the common contract: shared values, partitions, gangs without a socket, lost members."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import numpy as np
import pytest

pytest.importorskip("grpc", reason="Spark Connect's client is not installed (pip install strombus[connect])")
pytest.importorskip("pyspark", reason="pyspark is not installed")

from helpers.spark_connect import connect_session

from strombus.errors import ConfigurationError, ExecutorError, GangError
from strombus.executors import resolve
from strombus.executors.spark_connect import INLINE, SparkConnectExecutor
from strombus.testing import executor_tasks as tasks
from strombus.types import Event, NativePartition

pytestmark = pytest.mark.spark

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # executors cannot import a test module


@pytest.fixture(scope="module")
def executor() -> SparkConnectExecutor:
    return SparkConnectExecutor(connect_session())


def test_a_connect_session_is_a_backend() -> None:
    found = resolve(connect_session())
    assert isinstance(found, SparkConnectExecutor)
    assert found.concerns() == []
    found.close()
    assert not connect_session().is_stopped, "borrowed"


def length(shared: Any, _: int) -> tuple[int, int]:
    return len(shared), os.getpid()


def test_a_large_value_takes_a_directory(executor: SparkConnectExecutor, tmp_path: Path) -> None:
    value = np.zeros(INLINE + 1, np.uint8)
    with pytest.raises(ConfigurationError, match=r"directory=\.\.\."):
        executor.share(value)
    with SparkConnectExecutor(connect_session(), directory=tmp_path) as stored:
        shared = stored.share(value)
        assert [size for size, _ in stored.map(length, range(3), shared)] == [len(value)] * 3
        assert len(list(tmp_path.rglob("value-*"))) == 1
        shared.free()
        assert not list(tmp_path.rglob("value-*"))
        with pytest.raises(ExecutorError, match="freed"):
            list(stored.map(length, [0], shared))


def test_results_of_several_mebibytes_arrive_whole(executor: SparkConnectExecutor) -> None:
    for found, count in zip(executor.map(lambda _, n: tasks.mebibytes(n), [3, 5]), (3, 5), strict=True):
        np.testing.assert_array_equal(found, tasks.mebibytes(count))


def test_partitions_of_a_frame_are_read_in_the_order_asked_for(executor: SparkConnectExecutor) -> None:
    def opened(batches: Any) -> Any:
        return (number for batch in batches for number in batch.column(0).to_pylist())

    def total(_: Any, numbers: Any) -> int:
        return sum(numbers)

    def parts(partitions: int, *indices: int) -> list[NativePartition]:
        handle = SimpleNamespace(frame=executor.session.range(0, 8, 1, 4), partitions=partitions, open=opened)
        return [NativePartition("spark-connect", handle, index) for index in indices]

    assert list(executor.map(total, parts(4, 3, 0, 2))) == [13, 1, 9]
    joined = executor.map_reduce(lambda _, numbers: str(list(numbers)), parts(4, 2, 3, 0, 1), tasks.join, depth=2)
    assert joined.get() == "(([4, 5]+[6, 7])+([0, 1]+[2, 3]))"
    with pytest.raises(ExecutorError, match="more now"):
        list(executor.map(total, parts(3, 0, 1, 2)))
    with pytest.raises(ConfigurationError, match="Spark Connect has no RDDs"):
        executor.map(total, [NativePartition("spark", object(), 0)])


def test_a_gang_meets_through_the_directory_where_no_socket_reaches_the_driver(
    executor: SparkConnectExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strombus.executors.spark_connect_gang._cut_off", lambda *_: "no route to host")
    with pytest.raises(ExecutorError, match=r"STROMBUS_HOST.*directory=\.\.\."):
        executor.gang(tasks.exchange_twice, [b"a", b"b"], timeout=60)
    with SparkConnectExecutor(connect_session(), directory=tmp_path) as stored:
        both = [b"a", b"b"]
        assert stored.gang(tasks.exchange_twice, both, timeout=60) == [(both, [b"aa", b"bb"])] * 2
        with pytest.raises(GangError, match="ZeroDivisionError") as caught:
            stored.gang(tasks.fail_and_watch, [None, None], stored.share(1), timeout=60)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert not list(tmp_path.rglob("gang-*"))


def work_until_stopped(member: Any, _: Any, payload: Any) -> None:
    member.report(Event("here", values={"process": os.getpid()}))
    member.exchange(b"")
    while not member.stopping():
        time.sleep(0.05)


def test_a_killed_member_ends_the_gang(executor: SparkConnectExecutor) -> None:
    killed: list[float] = []

    def on_event(rank: int, event: Event) -> None:
        if rank == 1 and not killed:
            killed.append(time.monotonic())
            os.kill(event.values["process"], signal.SIGKILL)

    with pytest.raises(GangError, match="lost"):
        executor.gang(work_until_stopped, [None, None], timeout=60, on_event=on_event)
    assert time.monotonic() - killed[0] < 30
    assert list(executor.map(tasks.square, [3])) == [9], "nothing of the gang holds the slots"
