"""What can be read on the wire between members: nothing."""

from __future__ import annotations

import numpy as np
import pytest
import zmq
from helpers.recording import FOLDER, RecordedTransport, found_in
from hypothesis import given
from hypothesis import strategies as st

from strombus.testing.transport_suite import gang, in_threads, take
from strombus.transport import Keys, Seat, TransportOptions, make_keys
from strombus.transport.frames import Frame, Lane, pack

OPTIONS = TransportOptions(host="127.0.0.1", connect_timeout=20)


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    return tmp_path


def test_a_listener_finds_neither_parameters_nor_keys(recordings):
    values = np.random.default_rng(0).standard_normal(20_000).astype("float32").tobytes()
    keys = make_keys()
    with gang(RecordedTransport, 2, OPTIONS, keys=keys) as ends:
        in_threads(ends, lambda end: end.send(4, 7, values))
        heard = in_threads(ends, lambda end: take(end, 1))
    assert [bytes(messages[0].payload) for messages in heard] == [values, values]
    recorded = b"".join(file.read_bytes() for file in recordings.iterdir())
    assert len(recorded) > 2 * len(values), "all of it has passed the listener"
    assert found_in(recorded, values) == 0
    assert b"CURVE" in recorded
    for secret in (keys.secret, keys.server_secret):
        assert secret not in recorded
        assert zmq.utils.z85.decode(secret) not in recorded
    assert b"StrB" not in recorded, "not even a frame's header"
    # The same listener would find them if they were sent as they are.
    plain = b"x" * 5 + pack(Lane.of("run", 0), Frame(4, 0, 7, values), 0, 0)
    assert found_in(plain, values) == len(values) // 16


def test_no_repr_tells_a_secret():
    keys = make_keys()
    for shown in (repr(keys), str(keys), repr(Seat(0, 2, "run", 0, keys))):
        assert keys.secret.decode() not in shown
        assert keys.server_secret.decode() not in shown


@given(st.binary(min_size=40, max_size=40))
def test_whatever_the_keys_are(secret):
    assert repr(secret) not in repr(Keys(b"a", secret, b"b", secret))
