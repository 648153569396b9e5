"""Which engine a backend stands for; what cannot be one is refused with what can."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from distributed import Client

from strombus.errors import ConfigurationError, ExecutorError
from strombus.executors import EXECUTORS, resolve
from strombus.executors.dask import DaskExecutor
from strombus.executors.local import LocalExecutor
from strombus.testing import executor_tasks as tasks
from strombus.testing import faults

ACCEPTED = (
    r'"auto", "dask", "local", "spark", "spark-connect", the address of a Dask scheduler .* '
    r"a SparkContext, or an Executor"
)


def test_an_executor_is_returned_as_it_is() -> None:
    with LocalExecutor(workers=1) as executor:
        assert resolve(executor) is executor


@pytest.fixture
def no_spark(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the Spark session that other tests of the run share in this process."""
    monkeypatch.setattr("strombus.executors._spark_is_active", lambda: False)


@pytest.mark.usefixtures("no_spark")
def test_without_an_active_engine_auto_is_local() -> None:
    with resolve(workers=3) as executor:
        assert isinstance(executor, LocalExecutor)
        assert executor.capacity().slots == 3


@pytest.mark.parametrize("backend", ["dusk", "spark://host:7077", 3, None, object()])
def test_what_is_no_backend_is_refused_with_what_is(backend: object) -> None:
    with pytest.raises(ConfigurationError, match=ACCEPTED):
        resolve(backend)


@pytest.mark.dask
@pytest.mark.usefixtures("no_spark")
def test_auto_and_dask_take_the_current_client(dask_client: Client) -> None:
    assert resolve(dask_client).name == "dask"
    with dask_client.as_current():
        for backend in ("auto", "dask"):
            executor = resolve(backend)
            assert isinstance(executor, DaskExecutor)
            assert executor.client is dask_client
            executor.close()
    assert dask_client.status == "running"


@pytest.mark.dask
def test_auto_does_not_choose_between_two_engines(dask_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strombus.executors._spark_is_active", lambda: True)
    with dask_client.as_current(), pytest.raises(ConfigurationError, match="both a current Dask client and an active"):
        resolve("auto")


@pytest.mark.dask
def test_an_address_makes_a_client_that_close_closes(dask_client: Client) -> None:
    executor = resolve(dask_client.scheduler.address)
    assert isinstance(executor, DaskExecutor)
    assert list(executor.map(tasks.square, [3])) == [9]
    executor.close()
    assert executor.client.status == "closed"
    assert dask_client.submit(int, "3").result() == 3


@pytest.mark.dask
def test_an_address_without_a_scheduler_is_an_error_within_seconds() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        with pytest.raises(
            ExecutorError, match=r"no Dask scheduler answered at tcp://127\.0\.0\.1:\d+ within 5 s \(TimeoutError\)"
        ):
            resolve(f"tcp://127.0.0.1:{silent.getsockname()[1]}")
    assert time.monotonic() - started < 15


def test_without_pyspark_the_error_says_how_to_get_it(tmp_path: Path) -> None:
    code = (
        "from strombus.errors import ExecutorError\n"
        "from strombus.executors import resolve\n"
        "try:\n"
        "    resolve('spark')\n"
        "except ExecutorError as error:\n"
        "    print(error)\n"
    )
    env = os.environ | {"PYTHONPATH": str(faults.block_import("pyspark", tmp_path))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert "pip install strombus[spark]" in done.stdout, done.stderr


@pytest.mark.dask
def test_dask_by_name_embeds_a_cluster_without_a_main_guard(tmp_path: Path) -> None:
    (tmp_path / "lies_beside.py").write_text("def double(_, number):\n    return 2 * number\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import os, lies_beside\n"
        "from strombus.executors import resolve\n"
        "with resolve('dask', workers=2) as executor:\n"
        "    capacity = executor.capacity()\n"
        "    print(executor.name, capacity.slots, capacity.threads)\n"
        "    pids = set(executor.map(lambda s, n: (os.getpid(), n)[0], range(2)))\n"
        "    print(len(pids), os.getpid() in pids)\n"
        "    print(list(executor.map(lies_beside.double, range(3))))\n"
        "    client = executor.client\n"
        "print(client.status)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "dask 2 1\n2 False\n[0, 2, 4]\nclosed\n", done.stderr
    assert "Traceback" not in done.stderr


def test_backends_are_listed_by_name() -> None:
    assert {"local", "dask", "spark"} <= set(EXECUTORS)
