"""Each example runs as a program of its own and learns what it should."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.programs import dask_programs, spark_programs, spark_tool

pytest.importorskip("sklearn", reason="the examples' digits come with scikit-learn")

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(command, folder, env=None):
    """Run a program in an empty folder and return what it printed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def accuracy(printed):
    return float(re.search(r"^accuracy +([\d.]+)$", printed, re.MULTILINE)[1])


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["digits.py", "--epochs", 5, "--workers", 1], 0.93),
        (["digits.py", "--epochs", 4], 0.85),
        (["digits.py", "--epochs", 2, "--model", "cnn"], 0.85),
        (["sequences.py", "--epochs", 6], 0.75),
        (["two_inputs.py", "--epochs", 4], 0.85),
    ],
    ids=["mlp-1", "mlp-2", "cnn", "sequences", "two-inputs"],
)
def test_an_example_on_this_machine(arguments, wanted, tmp_path):
    name, *options = arguments
    printed = run([sys.executable, EXAMPLES / name, "--backend", "local", *options], tmp_path)
    assert accuracy(printed) > wanted
    if name == "two_inputs.py":
        agree = float(re.search(r"both outputs agree on ([\d.]+)%", printed)[1])
        assert agree > 85
    assert not list(tmp_path.iterdir())


def test_an_example_saves_its_network(tmp_path):
    command = [sys.executable, EXAMPLES / "digits.py", "--workers", 1, "--epochs", 1, "--save"]
    run([*command, tmp_path / "digits.safetensors"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["digits.safetensors"]


@pytest.mark.dask
def test_an_example_on_a_dask_cluster_that_runs_already(tmp_path):
    home = tmp_path / "elsewhere"
    home.mkdir()
    with dask_programs(tmp_path) as (address, programs):
        printed = run([sys.executable, EXAMPLES / "digits.py", "--backend", address, "--epochs", 4], home)
        assert accuracy(printed) > 0.85
        assert all(program.poll() is None for program in programs.running.values())


@pytest.mark.spark
def test_an_example_through_spark_submit(tmp_path):
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    from helpers.spark import JAVA

    home = tmp_path / "elsewhere"
    home.mkdir()
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("PYSPARK", "SPARK"))}
    env = plain | JAVA | {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    with spark_programs(tmp_path, env) as master:
        submit = [spark_tool("spark-submit"), "--master", master, "--total-executor-cores", 2, "--executor-cores", 1]
        submit += ["--executor-memory", "512m", "--conf", "spark.driver.host=127.0.0.1"]
        submit += ["--conf", "spark.driver.bindAddress=127.0.0.1", "--conf", "spark.ui.enabled=false"]
        submit += ["--conf", "spark.log.level=ERROR"]
        printed = run([*submit, EXAMPLES / "digits.py", "--backend", "spark", "--epochs", 2], home, env)
    assert accuracy(printed) > 0.5
