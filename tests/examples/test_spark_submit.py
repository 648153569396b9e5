"""spark-submit as on a real cluster: a standalone master, workers on two hosts, code and Python sent along."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import numpy as np
import pytest
from helpers.networks import make_data
from helpers.programs import spark_programs, spark_tool

import strombus as sb

pytest.importorskip("pyspark", reason="pyspark is not installed")

pytestmark = pytest.mark.spark

SENT_ALONG = """
import functools, os, signal, time
import strombus as sb, torch
from torch import nn

def make_network():
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    return sb.MultiLayerNetwork(module, nn.CrossEntropyLoss(), functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9))

class Trouble(sb.TrainingHook):
    '''Be slow once, so that Spark runs a copy of the task elsewhere, and die once, so that it repeats the task.'''

    def __init__(self, folder):
        self.folder = folder

    def once(self, name):
        try:
            os.close(os.open(os.path.join(self.folder, name), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    def pre_update(self, batch, replica):
        from pyspark import TaskContext

        context = TaskContext.get()
        if context.attemptNumber():
            self.once("repeated" if os.path.exists(os.path.join(self.folder, "dead")) else "copied")
        if context.partitionId() == 1 and replica.iteration >= 2 and self.once("slow"):
            time.sleep(60)
        if context.partitionId() == 1 and replica.iteration >= 6 and self.once("dead"):
            os.kill(os.getpid(), signal.SIGKILL)
"""

JOB = """
import json, sys
import strombus as sb
from strombus.executors.spark import SparkExecutor
from sent_along import Trouble, make_network

def where(shared, part):
    import socket, sys
    return sys.prefix

folder = sys.argv[1]
hooks = [Trouble(folder)]
averaging = sb.ParameterAveragingTrainingMaster(
    workers=2, batch_size_per_worker=8, averaging_frequency=2, rng_seed=1, training_hooks=hooks)
sharing = sb.SharedTrainingMaster(workers=2, batch_size_per_worker=8, rng_seed=1, max_staleness=0)
with SparkExecutor() as executor:
    print("environments", json.dumps(sorted(set(executor.map(where, range(4))))))
    for name, master in (("averaging", averaging), ("sharing", sharing)):
        network = make_network()
        trainer = sb.Trainer(network, master, backend=executor)
        print(name, "examples", trainer.fit(folder + "/data.zarr", epochs=2, progress=False).examples)
        network.save(f"{folder}/{name}.safetensors")
"""


def pack_environment(path: Path) -> None:
    """Pack a virtual environment of links: copies of its packages would be gigabytes of torch."""
    root = path.parent / "environment"
    packages = root / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    packages.mkdir(parents=True)
    (root / "bin").mkdir()
    base = Path(sys.base_prefix) / "bin" / Path(os.path.realpath(sys.executable)).name
    (root / "bin" / "python").symlink_to(base)
    (root / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    # A directory that a .pth names is searched, but the .pth files in it are not read: so name those of its own too.
    folders = [sysconfig.get_path("purelib"), *(entry for entry in sys.path if entry.endswith("package"))]
    (packages / "links.pth").write_text("".join(f"{folder}\n" for folder in folders))
    with tarfile.open(path, "w:gz") as archive:
        for entry in root.iterdir():
            archive.add(entry, entry.name)


@pytest.fixture(scope="module")
def environment():
    from helpers.spark import JAVA

    plain = {key: value for key, value in os.environ.items() if not key.startswith(("PYSPARK", "SPARK", "PYTHONPATH"))}
    return plain | JAVA | {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_DRIVER_PYTHON": sys.executable}


@pytest.fixture(scope="module")
def cluster(environment, tmp_path_factory):
    """A standalone master and two workers, on two hosts: Spark runs a copy of a slow task on another host only."""
    with spark_programs(tmp_path_factory.mktemp("spark"), environment, ("127.0.0.1", "127.0.0.2"), cores=1) as master:
        yield master


def submit(master, environment, python, folder, *arguments, **settings):
    """Run spark-submit in `folder` on both workers; return what it printed."""
    settings = {"driver.host": "127.0.0.1", "driver.bindAddress": "127.0.0.1", "ui.enabled": "false", **settings}
    cores = ["--total-executor-cores", 2, "--executor-cores", 1, "--executor-memory", "512m"]
    conf = [part for name, value in settings.items() for part in ("--conf", f"spark.{name}={value}")]
    done = subprocess.run(
        [str(part) for part in (spark_tool("spark-submit"), "--master", master, *cores, *conf, *arguments)],
        cwd=folder,
        env=environment | {"PYSPARK_PYTHON": str(python)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_example(cluster, environment, tmp_path):
    pytest.importorskip("sklearn", reason="the examples' digits come with scikit-learn")
    program = Path(__file__).parents[2] / "examples" / "digits.py"
    options = ["--backend", "spark", "--master", "sharing", "--batch-size-per-worker", 16, "--epochs", 4]
    printed = submit(cluster, environment, sys.executable, tmp_path, program, *options)
    assert float(re.search(r"^accuracy +([\d.]+)$", printed, re.MULTILINE)[1]) > 0.85


def test_code_and_environment_sent_along_and_no_row_counted_twice(cluster, environment, tmp_path):
    features, labels = make_data(96)
    sb.data.export((features, labels), tmp_path / "data.zarr", backend="local", progress=False)
    (tmp_path / "sent_along.py").write_text(SENT_ALONG)
    (tmp_path / "job.py").write_text(JOB)
    pack_environment(tmp_path / "environment.tar.gz")
    speculation = {"": "true", ".quantile": "0.5", ".multiplier": "1.1", ".interval": "200ms"}
    printed = submit(
        cluster,
        environment,
        "./environment/bin/python",
        tmp_path,
        *("--py-files", "sent_along.py", "--archives", "environment.tar.gz#environment", "job.py", tmp_path),
        **{f"speculation{name}": value for name, value in speculation.items()},
    )
    environments = [line for line in printed.splitlines() if line.startswith("environments")]
    assert len(environments) == 1
    assert "environment" in environments[0]
    assert sys.prefix not in environments[0]
    assert "averaging examples 192" in printed
    assert "sharing examples 192" in printed
    assert {"slow", "copied", "dead", "repeated"} <= {path.name for path in tmp_path.iterdir()}

    names: dict = {}
    exec(SENT_ALONG, names)
    expected = names["make_network"]()
    quiet = sb.ParameterAveragingTrainingMaster(workers=2, batch_size_per_worker=8, averaging_frequency=2, rng_seed=1)
    with sb.Trainer(expected, quiet, backend="local") as trainer:
        trainer.fit(tmp_path / "data.zarr", epochs=2, progress=False)
    found = names["make_network"]().load(tmp_path / "averaging.safetensors")
    np.testing.assert_allclose(found.state().parameters, expected.state().parameters, rtol=0, atol=1e-12)
