"""Network files from anywhere: read, or refused with the network as it was."""

from __future__ import annotations

import contextlib
import functools
import json
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from strombus.errors import ConfigurationError, DataError
from strombus.networks import MultiLayerNetwork
from strombus.types import DataSet

DATA = DataSet(np.ones((4, 3), "float32"), np.array([0, 1, 1, 0]))


def make():
    adam = functools.partial(torch.optim.Adam, lr=0.01)
    schedule = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=2)
    module = functools.partial(nn.Linear, 3, 2)
    return MultiLayerNetwork(module, nn.CrossEntropyLoss(), adam, schedule=schedule, device="cpu")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    network, path = make(), tmp_path_factory.mktemp("good") / "network"
    replica = network.replica()
    replica.fit(DATA)
    network.load_state(replica.state())
    network.save(path)
    return path.read_bytes()


def check_length(error):
    assert len(str(error)) < 50_000


@pytest.fixture
def load(tmp_path):
    """Load bytes as a file into a network, which stays as it was when they are refused."""
    network = make()

    def run(data):
        (tmp_path / "file").write_bytes(data)
        state = network.state()
        try:
            network.load(tmp_path / "file")
        except (DataError, ConfigurationError) as error:
            assert (network.state().parameters == state.parameters).all()
            assert (network.iteration, network.epoch) == (0, 0)
            assert network.updater is None
            check_length(error)
            raise
        finally:
            network.load_state(state)
            network.epoch = network.iteration = 0
            network.reset_updater()

    return run


def split(data):
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join(header, body, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def change_header(header, **values):
    record = json.loads(header["__metadata__"]["strombus"])
    return {**header, "__metadata__": {"strombus": json.dumps({**record, **values})}}


def change_updater(header, **values):
    record = json.loads(header["__metadata__"]["strombus"])["updater"]
    return change_header(header, updater={**record, **values})


def change_group(header, **values):
    group = json.loads(header["__metadata__"]["strombus"])["updater"]["groups"][0]
    return change_updater(header, groups=[{**group, **values}])


def change_tensor(header, name="module.weight", **values):
    return {**header, name: {**header[name], **values}}


CHANGES = {
    "header larger than the file": lambda h, b: join(h, b, 10**6),
    "header of 2^64": lambda h, b: join(h, b, 2**64 - 1),
    "header of nothing": lambda h, b: join(b"", b),
    "header is a list": lambda h, b: join([h], b),
    "deep header": lambda h, b: join(b"[" * 10**6, b),
    "deep metadata": lambda h, b: join({**h, "__metadata__": {"strombus": "[" * 10**6}}, b),
    "a name twice": lambda h, b: join(json.dumps(h)[:-1].encode() + b', "module.weight": {}}', b),
    "metadata of numbers": lambda h, b: join({**h, "__metadata__": {"strombus": 5}}, b),
    "overlapping tensors": lambda h, b: join(
        change_tensor(h, "updater.0.exp_avg", data_offsets=h["module.weight"]["data_offsets"]), b
    ),
    "beyond the file": lambda h, b: join(change_tensor(h, data_offsets=[0, 2**40]), b),
    "backwards": lambda h, b: join(change_tensor(h, data_offsets=[24, 0]), b),
    "huge shape": lambda h, b: join(change_tensor(h, shape=[2**32, 2**32]), b),
    "huge empty shape": lambda h, b: join(change_tensor(h, shape=[0, 2**62, 2**62], data_offsets=[0, 0]), b),
    "negative shape": lambda h, b: join(change_tensor(h, shape=[-2, -3]), b),
    "shape of texts": lambda h, b: join(change_tensor(h, shape=["2", "3"]), b),
    "another dtype": lambda h, b: join(change_tensor(h, dtype="I32"), b),
    "unknown dtype": lambda h, b: join(change_tensor(h, dtype="O"), b),
    "small dtype": lambda h, b: join(change_tensor(h, dtype="F4"), b),
    "cut short": lambda h, b: join(h, b[:-1]),
    "too long": lambda h, b: join(h, b + b"x"),
    "iteration of 2^62": lambda h, b: join(change_header(h, iteration=2**62), b),
    "iteration of 2^100": lambda h, b: join(change_header(h, iteration=2**100), b),
    "epoch is true": lambda h, b: join(change_header(h, epoch=True), b),
    "score is a text": lambda h, b: join(change_header(h, score="x" * 10**6), b),
    "normalizer is a list": lambda h, b: join(change_header(h, normalizer=[]), b),
    "normalizer of an unknown type": lambda h, b: join(change_header(h, normalizer={"type": "x" * 10**6}), b),
    "normalizer without values": lambda h, b: join(change_header(h, normalizer={"type": "standardize"}), b),
    "updater is a list": lambda h, b: join(change_header(h, updater=[]), b),
    "groups of nothing": lambda h, b: join(change_updater(h, groups=[]), b),
    "lr is a text": lambda h, b: join(change_group(h, lr="0.1"), b),
    "betas are a number": lambda h, b: join(change_group(h, betas=5), b),
    "betas are few": lambda h, b: join(change_group(h, betas=[0.9]), b),
    "betas are texts": lambda h, b: join(change_group(h, betas=["a", "b"]), b),
    "group with params": lambda h, b: join(change_group(h, params=[1]), b),
    "schedule with a method": lambda h, b: join(change_updater(h, schedule={"step": 1}), b),
    "schedule of texts": lambda h, b: join(change_updater(h, schedule={"step_size": "x"}), b),
    "schedule is a list": lambda h, b: join(change_updater(h, schedule=[1]), b),
    "updater of no parameter": lambda h, b: join(
        {name.replace("updater.0", "updater." + "9" * 5000): value for name, value in h.items()}, b
    ),
    "updater of other digits": lambda h, b: join(
        {name.replace("updater.0", "updater.\u0660"): value for name, value in h.items()}, b
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_lies_changes_nothing(good, load, change):
    header, body = split(good)
    with pytest.raises((DataError, ConfigurationError)):
        load(CHANGES[change](header, body))


def test_a_good_file_is_read(good, load):
    load(good)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_damage_is_noticed_or_harmless(good, load, data):
    damaged = bytearray(good)
    length = struct.unpack("<Q", good[:8])[0]
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, 8 + length - 1))
        how = data.draw(st.integers(0, 3))
        if how == 0:
            damaged[place] = data.draw(st.integers(0, 255))
        elif how == 1:
            damaged[place : place + 1] = b""
        elif how == 2:
            damaged[place:place] = data.draw(
                st.binary(max_size=6) | st.sampled_from([b"[", b'"', b"9" * 30, b"e9", b"-"])
            )
        else:
            del damaged[place : place + data.draw(st.integers(1, 40))]
    if data.draw(st.booleans()):  # so that the header itself is looked at
        damaged[:8] = struct.pack("<Q", max(0, length + len(damaged) - len(good)))
    with contextlib.suppress(DataError, ConfigurationError):
        load(bytes(damaged))


def test_a_file_of_no_end_is_not_read(tmp_path, load):
    with open(tmp_path / "large", "wb") as file:
        file.truncate(2**38)
    code = (
        "import sys, resource, torch, strombus as sb\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (600 << 20),) * 2)\n"
        "try:\n    sb.MultiLayerNetwork(torch.nn.Linear(3, 2)).load(sys.argv[1])\n"
        "except sb.errors.DataError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "large")], capture_output=True, text=True, timeout=60, check=False
    )
    assert "more than" in done.stdout, done.stderr[-2000:]
    for path in ("/dev/zero", "/dev/null"):
        with pytest.raises(DataError, match="no regular file"):
            make().load(path)
