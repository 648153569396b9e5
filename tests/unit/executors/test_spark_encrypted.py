"""Spark with authentication and encryption: members meet as ever, and what they say cannot be read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyspark", reason="pyspark is not installed")

from helpers.recording import FOLDER
from helpers.spark import JAVA

pytestmark = pytest.mark.spark

TESTS = Path(__file__).parents[2]
SECRET = "Okapi4Zebra9"

PROGRAM = """
import os
from pathlib import Path
from pyspark import SparkConf, SparkContext
from torch import nn
import torch
import strombus as sb
from helpers.networks import make_data
from helpers.recording import FOLDER, RecordedTransport, found_in
from helpers.spark import SETTINGS

def make_module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 3)).double()

conf = SparkConf().setMaster("local-cluster[2,1,1024]").setAll(SETTINGS.items())
for name in ("spark.authenticate", "spark.network.crypto.enabled", "spark.io.encryption.enabled"):
    conf.set(name, "true")
conf.set("spark.authenticate.secret", os.environ["SECRET"])
conf.set(f"spark.executorEnv.{FOLDER}", os.environ[FOLDER])
context = SparkContext(conf=conf)
network = sb.MultiLayerNetwork(make_module, nn.CrossEntropyLoss(), lambda p: torch.optim.SGD(p, 0.1))
master = sb.SharedTrainingMaster(
    workers=2, batch_size_per_worker=8, encoder="dense", transport=RecordedTransport, timeout=90
)
with sb.Trainer(network, master, context) as trainer:
    result = trainer.fit(make_data(64), progress=False)
    print(repr(trainer), repr(result))
context.stop()
after = network.state().parameters
recorded = b"".join(file.read_bytes() for file in Path(os.environ[FOLDER]).iterdir())
assert result.examples == 64
assert len(recorded) > after.nbytes, len(recorded)
assert b"CURVE" in recorded
assert found_in(recorded, after.tobytes()) == 0
print("nothing to be read")
"""


def test_a_fit_on_an_encrypted_spark_cannot_be_listened_to(tmp_path):
    surroundings = {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", "PYTHONPATH": str(TESTS), **JAVA}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **surroundings, FOLDER: str(tmp_path), "SECRET": SECRET},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "nothing to be read" in done.stdout
    assert SECRET not in done.stdout + done.stderr
