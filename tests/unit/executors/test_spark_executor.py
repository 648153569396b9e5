"""SparkExecutor beyond the common contract: what it borrows, RDD partitions, waves, and lost executors."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest

pytest.importorskip("pyspark", reason="pyspark is not installed")

from helpers.spark import spark_context, spark_session

from strombus.errors import ConfigurationError, ExecutorError, GangError, GangUnavailable
from strombus.executors import spark_gang
from strombus.executors.base import merge_plan
from strombus.executors.spark import SparkExecutor
from strombus.executors.spark_jobs import explain
from strombus.executors.spark_session import ask_for_slots
from strombus.testing import executor_tasks as tasks
from strombus.types import Event, NativePartition

pytestmark = pytest.mark.spark

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # executors cannot import a test module


@pytest.fixture
def executor() -> Iterator[SparkExecutor]:
    with SparkExecutor(spark_context()) as executor:
        yield executor


def total(_: Any, numbers: Iterator[int]) -> int:
    return sum(numbers)


def listed(_: Any, numbers: Iterator[int]) -> str:
    return str(list(numbers))


def first_of(_: Any, numbers: Iterator[int]) -> int:
    return next(numbers)


def join(left: str, right: str) -> str:
    return f"({left}+{right})"


def natives(rdd: Any, *indices: int) -> list[NativePartition]:
    return [NativePartition("spark", rdd, index) for index in indices]


class TestBorrowing:
    def test_a_borrowed_session_stays_open_and_as_it_was(self) -> None:
        session = spark_session()
        context = session.sparkContext
        context.setLocalProperty("spark.job.description", "the caller's own")
        before = sorted(context.getConf().getAll())
        try:
            with SparkExecutor(session) as executor:
                assert list(executor.map(total, [[1, 2]])) == [3]
                with pytest.raises(ZeroDivisionError):
                    executor.map_reduce(total, [[1]], join, finish=lambda one: one // 0)
            assert sorted(context.getConf().getAll()) == before
            assert context.getLocalProperty("spark.job.description") == "the caller's own"
            assert context.getLocalProperty("spark.job.interruptOnCancel") is None
            assert not context.getLocalProperty("spark.job.tags")
            assert context.parallelize([1, 2]).sum() == 3
        finally:
            context.setLocalProperty("spark.job.description", None)

    def test_without_a_session_the_active_context_is_borrowed(self) -> None:
        with SparkExecutor() as executor:
            assert executor.context is spark_context()
        assert spark_context().parallelize([1]).count() == 1

    def test_jobs_tell_what_they_are(self, executor: SparkExecutor) -> None:
        def described(_: Any, part: int) -> str:
            from pyspark import TaskContext

            return str(TaskContext.get().getLocalProperty("spark.job.description"))

        assert "described, parts 0 to 1 of 2" in next(executor.map(described, [0, 1]))

    def test_what_is_no_session_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="SparkSession"):
            SparkExecutor("local[2]")  # type: ignore[arg-type]

    def test_spark_connect_is_refused(self) -> None:
        remote = type("SparkSession", (), {"__module__": "pyspark.sql.connect.session"})()
        with pytest.raises(ExecutorError, match="Classic"):
            SparkExecutor(remote)


class TestNativePartitions:
    def test_tasks_read_the_partitions_asked_for_in_their_order(self, executor: SparkExecutor) -> None:
        rdd = spark_context().parallelize(range(8), 4).map(lambda n: n * 10)
        assert list(executor.map(total, natives(rdd, 3, 0, 2))) == [130, 10, 90]

    def test_many_partitions_run_in_waves(self, executor: SparkExecutor) -> None:
        rdd = spark_context().parallelize(range(12), 12)
        assert list(executor.map(total, natives(rdd, *range(12)))) == list(range(12))

    def test_partitions_of_several_rdds(self, executor: SparkExecutor) -> None:
        one, two = spark_context().parallelize([1, 2], 2), spark_context().parallelize([3, 4], 2)
        assert list(executor.map(total, [*natives(two, 1), *natives(one, 0, 1)])) == [4, 1, 2]

    def test_a_task_may_leave_elements_unread(self, executor: SparkExecutor) -> None:
        rdd = spark_context().parallelize(range(2000), 2)
        assert list(executor.map(first_of, natives(rdd, 0, 1))) == [0, 1000]

    def test_a_tree_merges_in_the_order_of_the_parts(self, executor: SparkExecutor) -> None:
        rdd = spark_context().parallelize(range(6), 6)
        order = (4, 5, 0, 1, 2)
        merged = executor.map_reduce(listed, natives(rdd, *order), join, depth=2)
        assert len(merge_plan(len(order))) == 2
        assert merged.get() == "((([4]+[5])+[0])+([1]+[2]))"

    def test_a_round_over_some_partitions_leaves_the_others_and_their_processes_alone(
        self, executor: SparkExecutor, tmp_path: Path
    ) -> None:
        def numbered(index: int, numbers: Iterator[int]) -> Iterator[int]:
            (tmp_path / str(index)).touch()
            return numbers

        def process(_: Any, numbers: Iterator[int]) -> list[int]:
            assert list(numbers)
            return [os.getpid()]

        rdd = spark_context().parallelize(range(16), 8).mapPartitionsWithIndex(numbered)
        before = {pid for pids in executor.map(process, natives(rdd, *range(8))) for pid in pids}
        for file in tmp_path.iterdir():
            file.unlink()
        for _ in range(2):
            merged = executor.map_reduce(process, natives(rdd, 6, 1, 3, 4), tasks.add, depth=2)
            assert set(merged.get()) <= before
        assert sorted(file.name for file in tmp_path.iterdir()) == ["1", "3", "4", "6"]

    def test_mixed_foreign_and_repeated_parts_are_refused(self, executor: SparkExecutor) -> None:
        rdd = spark_context().parallelize([1], 1)
        with pytest.raises(ConfigurationError, match="all native partitions or none"):
            executor.map(total, [*natives(rdd, 0), [1]])
        with pytest.raises(ConfigurationError, match="dask"):
            executor.map(total, [NativePartition("dask", rdd, 0)])
        with pytest.raises(ConfigurationError, match="once"):
            executor.map(total, natives(rdd, 0, 0))


class TestSharing:
    def test_a_process_loads_a_value_once(self, executor: SparkExecutor, tmp_path: Path) -> None:
        class Counted:
            def __setstate__(self, state: dict[str, Any]) -> None:
                self.__dict__.update(state)
                with (self.folder / str(os.getpid())).open("a") as file:  # type: ignore[attr-defined]
                    file.write("x")

        def process(shared: Any, part: int) -> int:
            return os.getpid()

        value = Counted()
        value.folder = tmp_path  # type: ignore[attr-defined]
        shared = executor.share(value)
        processes = {*executor.map(process, range(6), shared), *executor.map(process, range(6), None)}
        processes |= set(executor.map(process, range(6), shared))
        loads = {int(file.name): len(file.read_text()) for file in tmp_path.iterdir()}
        assert loads.keys() <= processes
        assert set(loads.values()) == {1}
        shared.free()
        with pytest.raises(ExecutorError, match="freed"):
            list(executor.map(process, [0], shared))

    def test_results_of_long_lists_come_wave_by_wave(self, executor: SparkExecutor, tmp_path: Path) -> None:
        def leave_mark(folder: Path, part: int) -> int:
            (folder / str(part)).touch()
            return part

        results = executor.map(leave_mark, range(20), executor.share(tmp_path))
        assert next(results) == 0
        assert len(list(tmp_path.iterdir())) == 8
        results.close()  # type: ignore[attr-defined]
        assert len(list(tmp_path.iterdir())) == 8
        assert spark_context().statusTracker().getActiveJobsIds() == []


def report_processes(member: Any, _: Any, payload: Any) -> None:
    """Report the process and the executor (the JVM two levels up), then work until stopped."""
    daemon = os.getppid()
    jvm = int(Path(f"/proc/{daemon}/stat").read_text().rpartition(")")[2].split()[1])
    member.report(Event("here", values={"worker": os.getpid(), "executor": jvm}))
    member.exchange(b"")
    while not member.stopping():
        time.sleep(0.05)
    member.report(Event("stopped"))


class ChosenError(Exception):
    """An error of the caller's own."""


def fail_with_own_error(member: Any, _: Any, payload: Any) -> None:
    member.exchange(b"")
    if member.rank == 1:
        raise ChosenError("chosen")
    member.exchange(b"")


def test_a_members_own_error_is_the_cause(executor: SparkExecutor) -> None:
    with pytest.raises(GangError, match="chosen") as caught:
        executor.gang(fail_with_own_error, [None, None], timeout=60)
    assert caught.value.part == 1
    assert isinstance(caught.value.__cause__, ChosenError)


def has_ended(process: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


class TestLoss:
    @pytest.mark.parametrize("victim", ["worker", "executor"])
    def test_a_killed_member_is_named_and_the_others_stop(self, executor: SparkExecutor, victim: str) -> None:
        seen: dict[int, Event] = {}
        stopped: list[int] = []
        killed: list[float] = []

        def on_event(rank: int, event: Event) -> None:
            if event.name == "stopped":
                stopped.append(rank)
                return
            seen[rank] = event
            if len(seen) == 2:
                killed.append(time.monotonic())
                os.kill(seen[1].values[victim], signal.SIGKILL)

        with pytest.raises(GangError, match=r"member 1 .*lost") as caught:
            executor.gang(report_processes, [None, None], timeout=60, on_event=on_event)
        assert time.monotonic() - killed[0] < 15
        assert caught.value.part == 1
        assert stopped == [0] or has_ended(seen[0].values["worker"]), "told to stop, or ended by Spark itself"
        assert spark_context().statusTracker().getActiveJobsIds() == []

    def test_a_result_that_does_not_come_is_waited_for_no_longer_than_said(
        self, executor: SparkExecutor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_job, supervise = spark_gang.run_job, spark_gang.Board.supervise

        def run_and_keep(*arguments: Any) -> Any:
            found = run_job(*arguments)
            time.sleep(3)
            return found

        def supervise_and_hurry(board: spark_gang.Board, *arguments: Any) -> None:
            supervise(board, *arguments)
            board.timeout = 0.5

        monkeypatch.setattr(spark_gang, "run_job", run_and_keep)
        monkeypatch.setattr(spark_gang.Board, "supervise", supervise_and_hurry)
        with pytest.raises(GangError, match=r"member 0 .*did not come within 0.5 s \(option `timeout`\)"):
            executor.gang(tasks.exchange_twice, [b"a", b"b"], timeout=60)

    def test_an_executor_killed_in_a_map_loses_nothing(self, executor: SparkExecutor, tmp_path: Path) -> None:
        def kill_once(folder: Path, part: int) -> int:
            marker = folder / "killed"
            if part == 1 and not marker.exists():
                marker.touch()
                jvm = int(Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[1])
                os.kill(jvm, signal.SIGKILL)
                time.sleep(30)
            return part

        assert list(executor.map(kill_once, range(5), executor.share(tmp_path))) == list(range(5))
        assert (tmp_path / "killed").exists()


def test_a_gang_under_dynamic_allocation_is_refused_by_the_name_of_the_setting() -> None:
    from strombus.executors.spark_gang import run_gang

    conf = {"spark.dynamicAllocation.enabled": "true"}
    context = SimpleNamespace(getConf=lambda: conf, master="spark://host:7077")
    with pytest.raises(ExecutorError, match=r"spark\.dynamicAllocation\.enabled=false"):
        run_gang(context, report_processes, [None], None, 10.0, None, None, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("master", "flags"),
    [
        ("local[1]", "--master local[6]"),
        ("local-cluster[1,1,512]", "--master local-cluster[3,2,1024]"),
        ("spark://host:7077", "--total-executor-cores 6 --executor-cores 2"),
        ("yarn", "--num-executors 3 --executor-cores 2"),
        ("k8s://https://host", "--num-executors 3 --executor-cores 2"),
    ],
)
def test_missing_slots_are_asked_for_by_the_options_of_spark_submit(master: str, flags: str) -> None:
    assert ask_for_slots(master, 3, 2) == flags


@pytest.mark.parametrize("host", ["192.0.2.200", "no-such-host.invalid"])
def test_a_driver_address_that_is_not_its_own_is_named(host: str) -> None:
    from strombus.executors.spark_gang import _serve

    context = SimpleNamespace(getConf=lambda: {"spark.driver.host": host}, master="spark://host:7077")
    with ExitStack() as stack, pytest.raises(ExecutorError, match=f"spark.driver.host={host}"):
        _serve(stack, context, 2, 10.0, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("ModuleNotFoundError: No module named 'strombus'", "--archives"),
        ("[PYTHON_VERSION_MISMATCH] Python in worker has different version: 3.9", "PYSPARK_PYTHON"),
        ("Total size of serialized results is bigger than spark.driver.maxResultSize", "raise"),
        ("Container killed by YARN for exceeding physical memory limits", "--conf spark.executor.memoryOverhead"),
        (
            "ExecutorLostFailure (executor 1 exited): Command exited with code 137",
            "--conf spark.executor.memoryOverhead",
        ),
    ],
)
def test_errors_of_spark_say_what_to_do(text: str, advice: str) -> None:
    assert advice in str(explain(text))


def profiles_of(context: Any, jobs: set[int]) -> list[int]:
    """Return the resource profiles of the stages of these jobs, in their order."""
    tracker, store = context.statusTracker(), context._jsc.sc().statusStore()
    stages = sorted(stage for job in jobs for stage in tracker.getJobInfo(job).stageIds)
    return [store.lastStageAttempt(stage).resourceProfileId() for stage in stages]


def test_a_profile_is_that_of_tasks_and_members() -> None:
    """Of task requests alone: executor requests need dynamic allocation, and so no gang; they are not tried here."""
    from pyspark.resource import ResourceProfileBuilder, TaskResourceRequests

    context = spark_context()
    known = context._jsc.sc().statusTracker().getJobIdsForGroup
    profile = ResourceProfileBuilder().require(TaskResourceRequests().cpus(1)).build
    with SparkExecutor(context, profile=profile) as executor:
        assert executor.capacity().slots == 2
        rdd = context.parallelize(range(4), 2)
        before = set(known(None))
        assert list(executor.map(tasks.square, [2, 3])) == [4, 9]
        assert list(executor.map(total, natives(rdd, 1, 0))) == [5, 1]
        both = [b"a", b"b"]
        assert executor.gang(tasks.exchange_twice, both, timeout=60) == [(both, [b"aa", b"bb"])] * 2
        assert profiles_of(context, set(known(None)) - before) == [executor.profile.id] * 3
        assert executor.profile.id != 0  # the application's own
        assert rdd.getResourceProfile() is None
    wide = ResourceProfileBuilder().require(TaskResourceRequests().cpus(2)).build
    with SparkExecutor(context, profile=wide) as executor:
        assert (executor.capacity().slots, executor.capacity().threads) == (0, 2)  # executors have one core
        with pytest.raises(GangUnavailable, match=r"Spark runs 0 tasks of that profile .*local-cluster\[1,2,1024\]"):
            executor.gang(tasks.exchange_twice, [b"a"], timeout=60)
    with pytest.raises(ConfigurationError, match=r"must be a pyspark.resource.ResourceProfile, got int"):
        SparkExecutor(context, profile=2)
