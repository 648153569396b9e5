"""The contract of an `Executor` as tests: subclass `ExecutorSuite` to check an engine.

Examples
--------
A test module of a third party's engine::

    @pytest.fixture(scope="module")
    def make_executor():
        return lambda: MyExecutor(workers=2)

    class TestMyEngine(ExecutorSuite):
        unsupported = {"test_two_gangs_side_by_side": "MyEngine runs one gang at a time"}
"""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import pytest

from strombus.errors import ConfigurationError, GangError, GangUnavailable, TaskError
from strombus.executors.base import Executor, merge_plan
from strombus.testing import executor_tasks as tasks
from strombus.types import Event

__all__ = ["ExecutorSuite", "ScriptedControl", "fold"]

TIMEOUT = 60.0
"""Seconds a gang may take to come up on the slowest engine."""

SCRIPT = """
class Point:
    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return isinstance(other, Point) and self.x == other.x

    def __hash__(self):
        return hash(self.x)

def move(shared, part):
    return Point(shared.x + part)

def body(member, shared, payload):
    return Point(shared.x + payload + len(member.exchange(b"")))
"""


class ScriptedControl:
    """A `Control` that says stop, or hands out commands, after `delay` seconds."""

    def __init__(self, delay: float = 0.5, commands: Sequence[Any] = (), stop: bool = False) -> None:
        self._due = time.monotonic() + delay
        self._commands = list(commands)
        self._stop = stop

    def set(self, *commands: Any) -> None:
        """Hand out these commands, now."""
        self._due, self._commands = 0.0, list(commands)

    def stopping(self) -> bool:
        """Say whether members should finish early."""
        return self._stop and time.monotonic() >= self._due

    def commands(self) -> list[Any]:
        """Return the commands once, when they are due."""
        if time.monotonic() < self._due:
            return []
        found, self._commands = self._commands, []
        return found


def fold(items: Sequence[Any], merge: Callable[[Any, Any], Any], depth: int) -> Any:
    """Merge `items` in the order of `merge_plan`, one after another: what every engine must equal."""
    level = list(items)
    for groups in merge_plan(len(level), depth):
        merged = []
        for group in groups:
            value = level[group[0]]
            for index in group[1:]:
                value = merge(value, level[index])
            merged.append(value)
        level = merged
    return level[0]


def script() -> dict[str, Any]:
    """Return the names of a program as the interpreter's ``__main__`` has them: no worker can import them."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(SCRIPT, "script.py", "exec"), names)
    return names


class ExecutorSuite:
    """Check one engine against the contract of `Executor`.

    The module of the subclass has a fixture `make_executor`, of class scope or wider: a function without
    arguments that returns a new executor with at least two slots each time. Every case runs; one that an
    engine cannot pass is listed in `unsupported` with the reason, and is then skipped with that reason.
    """

    unsupported: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cases = {name for name in vars(ExecutorSuite) if name.startswith("test_")}
        overridden = sorted(cases & set(vars(cls)))
        if overridden:
            raise TypeError(f"cases of ExecutorSuite cannot be overridden: {', '.join(overridden)}; use `unsupported`")
        unknown = sorted(set(cls.unsupported) - cases)
        if unknown:
            raise TypeError(f"`unsupported` names no case of ExecutorSuite: {', '.join(unknown)}")

    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls, make_executor: Callable[[], Executor]) -> Iterator[Executor]:
        """Yield one executor for all cases of the class."""
        with make_executor() as executor:
            yield executor

    @pytest.fixture(autouse=True)
    def declared_gaps(self, request: pytest.FixtureRequest) -> None:
        """Skip what the engine declares that it cannot do."""
        name = getattr(request.node, "originalname", request.node.name)
        if name in self.unsupported:
            pytest.skip(self.unsupported[name])

    # ---- capacity and check

    def test_capacity(self, executor: Executor) -> None:
        capacity = executor.capacity()
        assert capacity.slots is None or capacity.slots >= 2
        assert capacity.threads >= 1
        assert list(capacity.hosts) == sorted(set(capacity.hosts))

    def test_workers_have_strombus(self, executor: Executor) -> None:
        executor.check()

    # ---- map

    def test_results_come_in_the_order_of_the_parts(self, executor: Executor) -> None:
        assert list(executor.map(tasks.square, [5, 3, 4, 1])) == [25, 9, 16, 1]

    def test_no_parts_no_results(self, executor: Executor) -> None:
        assert list(executor.map(tasks.square, [])) == []

    def test_more_parts_than_slots(self, executor: Executor) -> None:
        assert list(executor.map(tasks.square, range(40))) == [n * n for n in range(40)]

    def test_shared_is_none_one_value_or_a_tuple(self, executor: Executor) -> None:
        one, two = executor.share([1]), executor.share({"two": 2})
        assert list(executor.map(tasks.shared_and_part, [7])) == [(None, 7)]
        assert list(executor.map(tasks.shared_and_part, [7], one)) == [([1], 7)]
        assert list(executor.map(tasks.shared_and_part, [7], (one, two))) == [(([1], {"two": 2}), 7)]

    def test_every_task_sees_the_shared_value_until_it_is_freed(self, executor: Executor) -> None:
        shared = executor.share("value")
        assert list(executor.map(tasks.shared_and_part, range(6), shared)) == [("value", n) for n in range(6)]
        assert shared.get() == "value"
        assert shared.look(tasks.length) == 5
        shared.free()
        shared.free()
        assert list(executor.map(tasks.square, [2])) == [4]

    def test_arrays_of_megabytes_travel_unchanged(self, executor: Executor) -> None:
        array = tasks.mebibytes(8)
        shared = executor.share(array)
        parts = [np.full(1, factor, np.float32) for factor in (1, 2, 3)]
        for factor, result in zip((1, 2, 3), executor.map(tasks.scale_arrays, parts, shared), strict=True):
            assert result.dtype == np.float32
            assert np.array_equal(result, array * np.float32(factor))
        shared.free()

    def test_functions_and_classes_of_a_script_go_by_value(self, executor: Executor) -> None:
        names = script()
        point = names["Point"]
        shared = executor.share(point(10))
        assert list(executor.map(names["move"], [1, 2], shared)) == [point(11), point(12)]
        assert executor.gang(names["body"], [1, 2], shared, timeout=TIMEOUT) == [point(13), point(14)]

    def test_torch_random_state_of_the_driver_is_untouched(self, executor: Executor) -> None:
        import torch

        before, threads = torch.get_rng_state(), torch.get_num_threads()
        drawn = list(executor.map(tasks.seed_and_draw, [1, 2, 1, 2]))
        assert drawn[:2] == drawn[2:]
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.get_num_threads() == threads

    # ---- errors

    def test_an_error_tells_part_type_and_remote_traceback(self, executor: Executor) -> None:
        shared = executor.share([3, 5])
        results = executor.map(tasks.fail_on, range(8), shared)
        with pytest.raises(TaskError) as caught:
            list(results)
        error = caught.value
        assert error.part == 3
        assert "3" in str(error)
        assert "ZeroDivisionError" in str(error)
        assert "fail_on" in error.traceback
        assert error.__cause__ is None or "ZeroDivisionError" in repr(error.__cause__) + str(error.__cause__)
        copy = pickle.loads(pickle.dumps(error))
        assert (copy.part, copy.traceback) == (error.part, error.traceback)

    def test_an_error_under_a_reduction_comes_from_get_or_look(self, executor: Executor) -> None:
        shared = executor.share([2])
        with pytest.raises(TaskError, match="ZeroDivisionError") as caught:
            executor.map_reduce(tasks.fail_on, range(5), tasks.add, shared).get()
        assert caught.value.part == 2
        with pytest.raises(TaskError, match="ZeroDivisionError"):
            executor.map_reduce(tasks.fail_on, range(5), tasks.add, shared).look(tasks.negate)

    def test_work_goes_on_after_an_error(self, executor: Executor) -> None:
        with pytest.raises(TaskError):
            list(executor.map(tasks.fail_on, [0], executor.share([0])))
        assert list(executor.map(tasks.square, [3])) == [9]

    def test_a_value_that_cannot_be_pickled_is_refused(self, executor: Executor) -> None:
        with pytest.raises(ConfigurationError, match="lock"):
            executor.share({"weights": [1.0], "guard": threading.Lock()})

    def test_a_value_that_cannot_be_loaded_is_an_error(self, executor: Executor) -> None:
        with pytest.raises((ConfigurationError, TaskError), match="broken on arrival"):
            list(executor.map(tasks.shared_and_part, [1], executor.share(tasks.BrokenOnArrival())))

    # ---- map_reduce

    @pytest.mark.parametrize("depth", [1, 2, 3])
    @pytest.mark.parametrize("count", [1, 2, 3, 7, 33])
    def test_reduction_follows_the_merge_plan(self, executor: Executor, count: int, depth: int) -> None:
        merged = executor.map_reduce(tasks.label, range(count), tasks.join, depth=depth)
        assert merged.get() == fold([str(n) for n in range(count)], tasks.join, depth)

    def test_reduction_keeps_the_order_of_the_parts(self, executor: Executor) -> None:
        merged = executor.map_reduce(tasks.label, [9, 1, 8, 2, 7], tasks.join_in_steps)
        assert merged.get() == "9,1,8,2,7"

    def test_reduction_of_nothing_is_refused(self, executor: Executor) -> None:
        with pytest.raises(ConfigurationError, match="part"):
            executor.map_reduce(tasks.label, [], tasks.join)

    @pytest.mark.parametrize("count", [1, 5])
    def test_finish_is_applied_once(self, executor: Executor, count: int) -> None:
        merged = executor.map_reduce(tasks.square, range(1, count + 1), tasks.add, finish=tasks.negate)
        assert merged.get() == -sum(n * n for n in range(1, count + 1))

    def test_look_computes_where_the_value_lies(self, executor: Executor) -> None:
        merged = executor.map_reduce(tasks.label, range(4), tasks.join_in_steps)
        assert merged.look(tasks.length) == len("0,1,2,3")
        assert merged.get() == "0,1,2,3"
        merged.free()
        merged.free()

    def test_a_round_takes_the_result_of_the_round_before(self, executor: Executor) -> None:
        value = executor.share(1)
        for _ in range(4):
            value = executor.map_reduce(tasks.add_shared, [0, 1], tasks.add, value)
        assert value.get() == 31
        assert list(executor.map(tasks.add_shared, [1, 2], value)) == [32, 33]

    # ---- gang

    def test_members_see_rank_payload_and_run(self, executor: Executor) -> None:
        shared = executor.share("shared")
        seen = executor.gang(tasks.describe_member, ["a", "b"], shared, timeout=TIMEOUT, attempt=3)
        assert [(one["rank"], one["payload"]) for one in seen] == [(0, "a"), (1, "b")]
        assert {(one["size"], one["attempt"], one["shared"]) for one in seen} == {(2, 3, "shared")}
        assert len({one["run_id"] for one in seen}) == 1
        assert all(one["host"] for one in seen)
        assert all(0 <= one["clock"].error < TIMEOUT for one in seen)

    def test_members_run_at_the_same_time(self, executor: Executor) -> None:
        first, second = [b"a", b"\x00\xff"], [b"aa", b"\x00\xff\x00\xff"]
        assert executor.gang(tasks.exchange_twice, first, timeout=TIMEOUT) == [(first, second)] * 2

    def test_a_gang_of_one(self, executor: Executor) -> None:
        assert executor.gang(tasks.exchange_twice, [b"x"], timeout=TIMEOUT) == [([b"x"], [b"xx"])]

    @pytest.mark.parametrize("failing", [0, 1])
    def test_a_failing_member_frees_those_that_wait_for_it(self, executor: Executor, failing: int) -> None:
        self._fails(executor, tasks.exchange_and_fail, failing)

    def test_a_failing_member_stops_those_that_work(self, executor: Executor) -> None:
        self._fails(executor, tasks.fail_and_watch, 1)

    def _fails(self, executor: Executor, body: Any, failing: int) -> None:
        started = time.monotonic()
        with pytest.raises(GangError, match="ZeroDivisionError") as caught:
            executor.gang(body, [None, None], executor.share(failing), timeout=TIMEOUT)
        assert caught.value.part == failing
        assert "this member failed by itself" in caught.value.traceback
        assert time.monotonic() - started < TIMEOUT / 3

    def test_a_gang_larger_than_the_engine_is_refused_at_once(self, executor: Executor) -> None:
        slots = executor.capacity().slots
        if slots is None:
            pytest.skip("this engine does not tell its number of slots")
        started = time.monotonic()
        with pytest.raises(GangUnavailable, match=rf"\b{slots + 1}\b.*\b{slots}\b"):
            executor.gang(tasks.describe_member, [None] * (slots + 1), timeout=TIMEOUT)
        assert time.monotonic() - started < 5

    def test_stopping_reaches_the_members(self, executor: Executor) -> None:
        control = ScriptedControl(stop=True)
        assert executor.gang(tasks.wait_for_stop, [30.0, 30.0], timeout=TIMEOUT, control=control) == [True, True]

    def test_commands_reach_every_member_once(self, executor: Executor) -> None:
        sent = [{"learning_rate": 0.5}, {"stop": False}]
        control = ScriptedControl(commands=sent)
        assert executor.gang(tasks.wait_for_command, [30.0, 30.0], timeout=TIMEOUT, control=control) == [sent, sent]

    def test_events_reach_the_driver_with_their_rank(self, executor: Executor) -> None:
        seen: list[tuple[int, Event]] = []
        executor.gang(
            tasks.report_steps, [3, 2], timeout=TIMEOUT, on_event=lambda rank, event: seen.append((rank, event))
        )
        assert [event.values["step"] for rank, event in seen if rank == 0] == [0, 1, 2]
        assert [event.values["step"] for rank, event in seen if rank == 1] == [0, 1]
        assert all((event.name, event.rank, event.seconds) == ("step", rank, 0.5) for rank, event in seen)
        assert all(event.host for _, event in seen)

    # ---- several at once, and the end

    def test_two_gangs_side_by_side(self, make_executor: Callable[[], Executor]) -> None:
        with make_executor() as first, make_executor() as second, ThreadPoolExecutor(2) as threads:
            started = [
                threads.submit(one.gang, tasks.exchange_twice, [name + b"0", name + b"1"], timeout=TIMEOUT)
                for one, name in ((first, b"a"), (second, b"b"))
            ]
            for name, running in zip((b"a", b"b"), started, strict=True):
                both = [name + b"0", name + b"1"]
                assert running.result(TIMEOUT) == [(both, [both[0] * 2, both[1] * 2])] * 2

    def test_a_part_beside_a_gang(self, make_executor: Callable[[], Executor]) -> None:
        with make_executor() as executor:
            first, rest = executor.split(1)
            if rest is None:
                pytest.skip(f"{executor.name} does not tell which slots are free: its split gives one executor")
            assert first.split(executor.capacity().slots or 1)[1] is None
            control = ScriptedControl(TIMEOUT)

            def answer(rank: int, event: Event) -> None:
                found = list(rest.map(tasks.square, [3, 4], rest.share(1)))
                control.set(rest.map_reduce(tasks.square, found, tasks.add).look(tasks.negate))

            assert first.gang(tasks.report_and_wait, [TIMEOUT], timeout=TIMEOUT, on_event=answer, control=control) == [
                [-(9**2 + 16**2)]
            ]

    def test_two_jobs_side_by_side(self, make_executor: Callable[[], Executor]) -> None:
        with make_executor() as first, make_executor() as second:
            one, two = first.share(100), second.share(200)
            left, right = first.map(tasks.add_shared, range(5), one), second.map(tasks.add_shared, range(5), two)
            assert list(zip(left, right, strict=True)) == [(100 + n, 200 + n) for n in range(5)]

    def test_close_twice(self, make_executor: Callable[[], Executor]) -> None:
        executor = make_executor()
        assert list(executor.map(tasks.square, [2])) == [4]
        executor.close()
        executor.close()
