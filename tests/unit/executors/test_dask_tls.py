"""A Dask cluster with TLS: keys go through its channel alone, and what members say to one another cannot be read."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import cloudpickle
import pytest
import torch
import zmq
from distributed import Client, LocalCluster
from distributed.security import Security
from helpers.networks import make_data
from helpers.recording import FOLDER, RecordedTransport, found_in
from torch import nn

import strombus as sb
from strombus.executors.dask_gang import warn_of_open_channel

pytestmark = pytest.mark.dask
cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytest.importorskip("cryptography", reason="temporary certificates need cryptography")

TESTS = str(Path(__file__).parents[2])


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    folder = tmp_path / "recordings"
    folder.mkdir()
    monkeypatch.setenv(FOLDER, str(folder))
    monkeypatch.setenv("PYTHONPATH", TESTS)
    return folder


@pytest.fixture
def client(recordings):
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    options["env"] = {FOLDER: str(recordings)}  # the process that forks workers may be older than this variable
    with (
        LocalCluster(security=Security.temporary(), protocol="tls://", **options) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def make_module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 3)).double()


def test_a_fit_with_tls_cannot_be_listened_to(client, recordings, monkeypatch, caplog):
    made, make = [], zmq.curve_keypair

    def keypair():
        made.append(make())
        return made[-1]

    monkeypatch.setattr(zmq, "curve_keypair", keypair)
    assert client.scheduler.address.startswith("tls://")
    network = sb.MultiLayerNetwork(make_module, nn.CrossEntropyLoss(), lambda p: torch.optim.SGD(p, 0.1))
    before = network.state().parameters
    # What is dense travels as it is: were it not encrypted, the updates and the parameters would lie on the wire.
    master = sb.SharedTrainingMaster(
        workers=2, batch_size_per_worker=8, encoder="dense", transport=RecordedTransport, timeout=60
    )
    with caplog.at_level(logging.WARNING, "strombus"), sb.Trainer(network, master, client) as trainer:
        result = trainer.fit(make_data(96), progress=False)
    assert result.examples == 96
    after = network.state().parameters
    assert (before != after).any()
    recorded = b"".join(file.read_bytes() for file in recordings.iterdir())
    assert len(recorded) > after.nbytes, "the parameters went over the listener's wire"
    assert found_in(recorded, after.tobytes()) == found_in(recorded, before.tobytes()) == 0
    assert b"CURVE" in recorded

    assert len(made) >= 2
    assert not [secret for _, secret in made if secret in recorded or zmq.utils.z85.decode(secret) in recorded]
    assert "not encrypted" not in caplog.text


@pytest.mark.parametrize(
    ("address", "warned"),
    [
        ("tcp://10.0.0.1:8786", True),
        ("tcp://scheduler:8786", True),
        ("ws://10.0.0.1:8786", True),
        ("tls://10.0.0.1:8786", False),
        ("wss://10.0.0.1:8786", False),
        ("tcp://127.0.0.1:8786", False),
        ("tcp://127.0.1.1:8786", False),
        ("tcp://[::1]:8786", False),
        ("inproc://10.0.0.1/2/3", False),
    ],
)
def test_keys_on_an_open_network_are_warned_of(caplog, address, warned):
    with caplog.at_level(logging.WARNING, "strombus"):
        warn_of_open_channel(address)
    assert ("not encrypted" in caplog.text and address in caplog.text) == warned
