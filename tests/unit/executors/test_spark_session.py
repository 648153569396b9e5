"""Spark applications that Strombus opens itself, or that lack something: each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyspark", reason="pyspark is not installed")

from helpers.spark import JAVA

pytestmark = pytest.mark.spark

PROGRAM = """
import os, sys
from pyspark import SparkConf, SparkContext
from strombus.errors import ExecutorError
from strombus.executors.spark import SparkExecutor

def interpreter(shared, part):
    return sys.executable

executor = SparkExecutor()
assert "PYSPARK_PYTHON" not in os.environ, "the environment is as it was"
assert executor.context.master == "local[*]", executor.context.master
assert set(executor.map(interpreter, range(2))) == {sys.executable}
assert executor.capacity().slots == os.cpu_count()
assert executor.gang(lambda member, shared, payload: member.exchange(payload), [b"a"], timeout=60) == [[b"a"]]
executor.check()
executor.close()
executor.close()
assert SparkContext._active_spark_context is None, "what was opened is closed"

for use in (executor.capacity, lambda: list(executor.map(interpreter, [0])), lambda: SparkExecutor(executor.context)):
    try:
        use()
        raise SystemExit("a stopped application was used")
    except ExecutorError as error:
        assert "stopped" in str(error), error

os.environ["PYSPARK_PYTHON"] = sys.executable
lacking = SparkContext(conf=SparkConf().setMaster("local[1]").set("spark.executorEnv.PYTHONPATH", sys.argv[1])
                       .set("spark.ui.enabled", "false").set("spark.log.level", "OFF"))
with SparkExecutor(lacking) as executor:
    for use in (executor.check, lambda: list(executor.map(interpreter, [0])),
                lambda: executor.gang(interpreter, [0], timeout=60)):
        try:
            use()
            raise SystemExit("workers without strombus went unnoticed")
        except ExecutorError as error:
            assert "--archives" in str(error), error
            print(error)
lacking.stop()
"""

BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "strombus":
            raise ModuleNotFoundError("No module named 'strombus'", name="strombus")

sys.meta_path.insert(0, Blocker())
"""


def test_an_embedded_application_and_workers_without_strombus(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    (tmp_path / "program.py").write_text(PROGRAM)
    surroundings = {key: value for key, value in os.environ.items() if not key.startswith(("PYSPARK", "SPARK"))}
    done = subprocess.run(
        [sys.executable, "program.py", str(tmp_path)],
        cwd=tmp_path,
        env=surroundings | {"SPARK_LOCAL_IP": "127.0.0.1", **JAVA},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Strombus cannot be imported on" in done.stdout
