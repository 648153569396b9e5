"""Each example runs as a program of its own and learns what it should."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.programs import dask_programs, spark_tool

pytest.importorskip("sklearn", reason="the examples' digits come with scikit-learn")

EXAMPLES = Path(__file__).parents[2] / "examples"
SHARING = ["digits.py", "--master", "sharing", "--batch-size-per-worker", 16]


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
        (["digits.py", "--epochs", 5, "--workers", 1, "--save", "digits.safetensors"], 0.93),
        (["digits.py", "--epochs", 4], 0.85),
        (["digits.py", "--epochs", 2, "--model", "cnn"], 0.85),
        ([*SHARING, "--epochs", 5], 0.9),
        ([*SHARING, "--epochs", 3, "--model", "cnn"], 0.85),
        (["sequences.py", "--epochs", 6], 0.75),
        (["two_inputs.py", "--epochs", 4], 0.85),
    ],
    ids=["mlp-1-saved", "mlp-2", "cnn", "sharing-mlp", "sharing-cnn", "sequences", "two-inputs"],
)
def test_an_example_on_this_machine(arguments, wanted, tmp_path):
    name, *options = arguments
    printed = run([sys.executable, EXAMPLES / name, "--backend", "local", *options], tmp_path)
    assert accuracy(printed) > wanted
    if name == "two_inputs.py":
        agree = float(re.search(r"both outputs agree on ([\d.]+)%", printed)[1])
        assert agree > 85
    assert [path.name for path in tmp_path.iterdir()] == (["digits.safetensors"] if "--save" in options else [])


@pytest.mark.dask
def test_an_example_on_a_dask_cluster_that_runs_already(tmp_path):
    home = tmp_path / "elsewhere"
    home.mkdir()
    with dask_programs(tmp_path) as (address, programs):
        for name, *options in (["digits.py"], SHARING):
            printed = run([sys.executable, EXAMPLES / name, "--backend", address, "--epochs", 4, *options], home)
            assert accuracy(printed) > 0.85
        assert all(program.poll() is None for program in programs.running.values())


@pytest.mark.dask
def test_an_example_on_a_dask_cluster_of_its_own(tmp_path):
    name, *options = SHARING
    printed = run([sys.executable, EXAMPLES / name, "--backend", "dask", "--epochs", 4, *options], tmp_path)
    assert accuracy(printed) > 0.85
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [pytest.param("search_dask.py", marks=pytest.mark.dask), "search_optuna.py"])
def test_a_search_stops_what_lags_behind_and_finds_a_good_configuration(request, name, tmp_path):
    options = []
    if name == "search_optuna.py":
        pytest.importorskip("optuna", reason="optuna is not installed: the extra 'search' brings it")
    else:
        options = ["--scheduler", request.getfixturevalue("dask_cluster").scheduler_address]
    printed = run([sys.executable, EXAMPLES / name, *options], tmp_path)
    assert accuracy(printed) > 0.9
    if name == "search_dask.py":
        trained = dict(map(int, found) for found in re.findall(r"(\d+) trials trained (\d+) epochs", printed))
        first, second, third = trained
        assert first == 20
        # Each rung takes in a third of the one below, and as much again of those that were among the best for a time.
        assert 6 <= second <= 13
        assert second // 3 <= third < second
    else:
        assert 10 <= int(re.search(r"(\d+) of 20 trials were pruned", printed)[1]) < 20


@pytest.fixture
def spark_environment():
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    from helpers.spark import JAVA

    plain = {key: value for key, value in os.environ.items() if not key.startswith(("PYSPARK", "SPARK"))}
    return plain | JAVA | {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}


def submit(master, *options):
    """Return the start of a spark-submit command for `master`, on loopback."""
    command = [spark_tool("spark-submit"), "--master", master, *options]
    settings = ("driver.host=127.0.0.1", "driver.bindAddress=127.0.0.1", "ui.enabled=false", "log.level=ERROR")
    return command + [part for setting in settings for part in ("--conf", f"spark.{setting}")]


@pytest.mark.spark
def test_an_example_on_executors_that_are_processes_of_this_machine(tmp_path, spark_environment):
    options = ["-useSparkLocal", "false", "-numEpochs", 3, "-networkMask", "127.0.0.0/8"]
    command = [*submit("local-cluster[2,1,1024]"), EXAMPLES / "dl4j" / "char_lstm.py", *options]
    printed = run(command, tmp_path, spark_environment)
    assert float(re.search(r"^mean loss of a character ([\d.]+)$", printed, re.MULTILINE)[1]) < 1.5
