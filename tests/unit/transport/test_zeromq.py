"""Real sockets on loopback, beyond the suite of all transports: strangers, processes that die, and ports."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zmq

from strombus.errors import ConfigurationError, PeerLost
from strombus.transport import Seat, TransportOptions, make_keys, make_transport, transports

OPTIONS = TransportOptions(host="127.0.0.1", connect_timeout=20, dead_after=1.0, send_timeout=5)


def meet(ends):
    """Connect all ends, each from a thread of its own."""
    addresses = [end.address() for end in ends]
    with ThreadPoolExecutor(len(ends)) as pool:
        list(pool.map(lambda end: end.connect(addresses), ends))


@contextlib.contextmanager
def gang(size, options=OPTIONS, run="run"):
    keys = make_keys()
    ends = [make_transport("zeromq", Seat(rank, size, run, 0, keys), options) for rank in range(size)]
    try:
        meet(ends)
        yield ends
    finally:
        for end in ends:
            end.close(flush=0.5)


def take(end, count, timeout=20.0):
    found, deadline = [], time.monotonic() + timeout
    while len(found) < count and time.monotonic() < deadline:
        found += end.receive(0.1)
    return found


@pytest.mark.parametrize("sender", [0, 1])
def test_a_slow_reader_loses_nothing_and_the_sender_waits(sender):
    payload = np.random.default_rng(0).bytes(60_000)
    with gang(2) as ends:
        started = time.monotonic()
        done = threading.Event()

        def send():
            for step in range(600):
                ends[sender].send(1, step, payload)
            done.set()

        thread = threading.Thread(target=send)
        thread.start()
        assert not done.wait(0.7)  # 36 MB do not fit into queues and socket buffers
        reader, found = ends[1 - sender], []
        while len(found) < 600 and time.monotonic() - started < 60:
            found += reader.receive(0.1)
        thread.join(20)
        assert [message.step for message in found] == list(range(600))
        assert all(bytes(message.payload) == payload for message in found)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "with other keys"])
def test_a_stranger_delivers_no_byte(secure):
    keys = make_keys()
    end = make_transport("zeromq", Seat(0, 2, "run", 0, keys), OPTIONS)
    try:
        host, port = __import__("json").loads(end.address())
        context = zmq.Context()
        stranger = context.socket(zmq.DEALER)
        stranger.setsockopt(zmq.LINGER, 0)
        stranger.setsockopt(zmq.IDENTITY, b"member-1")
        if secure:
            stranger.curve_serverkey = keys.server_public
            stranger.curve_publickey, stranger.curve_secretkey = zmq.curve_keypair()
        stranger.connect(f"tcp://{host}:{port}")
        for _ in range(5):
            stranger.send(b"x" * 1000)
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            assert end.receive(0.1) == []
        assert end.figures.bytes_received == 0
        stranger.close()
        context.term()
    finally:
        end.close(flush=0)


def _member(rank, keys, pipe):
    end = make_transport("zeromq", Seat(rank, 2, "run", 0, keys), OPTIONS)
    pipe.send(end.address())
    end.connect(pipe.recv())
    pipe.send("met")
    while True:
        end.receive(0.1)


@pytest.mark.parametrize("dies", [0, 1])
def test_a_member_that_dies_is_named_within_seconds(dies):
    keys = make_keys()
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_member, args=(dies, keys, there), daemon=True)
    process.start()
    end = make_transport("zeromq", Seat(1 - dies, 2, "run", 0, keys), OPTIONS)
    try:
        addresses = [here.recv(), end.address()] if dies == 0 else [end.address(), here.recv()]
        here.send(addresses)
        end.connect(addresses)
        assert here.recv() == "met"
        os.kill(process.pid, signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(PeerLost, match=f"member {dies} was lost") as caught:
            take(end, 1)
        assert caught.value.rank == dies
        assert time.monotonic() - started < 10
    finally:
        end.close(flush=0)
        process.kill()
        process.join(10)


def test_closing_frees_the_port_and_ends_the_threads():
    before = threading.active_count()
    with gang(2) as ends:
        pass
    for end in ends:
        end.close()
    assert threading.active_count() == before
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        low = free.getsockname()[1]
    options = OPTIONS.model_copy(update={"ports": (low, low)})
    for _ in range(2):
        with gang(2, options) as ends:
            ends[1].send(1, 0, b"")
            assert len(take(ends[0], 1)) == 1


def test_bad_options_and_names():
    with pytest.raises(ConfigurationError, match="known: memory, zeromq"):
        make_transport("zmq", Seat(0, 1, "run", 0), OPTIONS)
    with pytest.raises(ConfigurationError, match="make_keys"):
        make_transport("zeromq", Seat(0, 2, "run", 0), OPTIONS)
    for name in transports:
        assert transports[name].name == name
    end = make_transport("zeromq", Seat(0, 2, "run", 0, make_keys()), OPTIONS.model_copy(update={"host": "192.0.2.7"}))
    try:
        with pytest.raises(ConfigurationError, match="cannot listen on"):
            end.address()
    finally:
        end.close(flush=0)
