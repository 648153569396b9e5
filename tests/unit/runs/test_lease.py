"""The lease on a run directory: who holds it, who is refused, and how one that was left runs out."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import fsspec
import pytest

from strombus.errors import RunError
from strombus.runs import Lease

HOLDER = """
import sys, time
from strombus.runs import Lease
with Lease(sys.argv[1], "the run 'x'", float(sys.argv[2])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lease in `tmp_path`."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "lease"), "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.send_signal(signal.SIGCONT)
        process.kill()


def test_a_lease_is_taken_and_given_back(tmp_path):
    for _ in range(2):
        with Lease(str(tmp_path / "folder" / "lease"), "it") as lease:
            lease.check()
            assert (tmp_path / "folder" / "lease").exists()
        assert list((tmp_path / "folder").iterdir()) == []


def test_a_live_process_keeps_it_and_is_named(tmp_path, other):
    with pytest.raises(RunError, match=rf"the run 'x' is in use by .*:{other.pid}; ") as caught:
        Lease(str(tmp_path / "lease"), "the run 'x'", 3.0).__enter__()
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert json.loads((tmp_path / "lease").read_text())["holder"].endswith(str(other.pid))


def test_what_a_killed_process_left_is_taken_at_once(tmp_path, other):
    other.kill()
    other.wait()
    started = time.monotonic()
    with Lease(str(tmp_path / "lease"), "the run 'x'", 60.0):
        assert time.monotonic() - started < 30


@pytest.mark.parametrize(("place", "value"), [(0, "another boot"), (1, "pid:[7]"), (None, None)])
def test_what_a_process_elsewhere_left_runs_out(tmp_path, place, value):
    """Its number says nothing here, where no process or another one may have it."""
    path = tmp_path / "lease"
    with Lease(str(path), "the run 'x'", 60.0) as lease:
        record = json.loads(lease._content())
    assert record["process"][2] == os.getpid()
    record["process"][2] = 2**22 + 1  # no process has it
    if place is None:
        record["process"] = None
    else:
        record["process"][place] = value
    path.write_text(json.dumps(record))
    started = time.monotonic()
    with Lease(str(path), "the run 'x'", 1.0):
        assert time.monotonic() - started >= 1.0


def test_a_process_that_has_the_number_of_one_that_ended_is_another(tmp_path, other):
    path = tmp_path / "lease"
    found = json.loads(path.read_text())
    found["process"][3] = str(int(found["process"][3]) - 1)  # it began earlier
    other.send_signal(signal.SIGSTOP)
    path.write_text(json.dumps(found))
    with Lease(str(path), "the run 'x'", 60.0) as lease:
        lease.check()


def test_a_process_that_was_suspended_learns_that_it_lost_it(tmp_path):
    path = str(tmp_path / "lease")
    with Lease(path, "the run 'x'", 0.6) as lease:
        lease.check()
        with Lease(path + "-other", "the run 'x'") as usurper:  # what another process would write meanwhile
            (tmp_path / "lease").write_bytes(usurper._content())
            lease._thread.join(20)
            with pytest.raises(RunError, match="was taken over by"):
                lease.check()
    assert (tmp_path / "lease").exists()  # it is the other's now


@pytest.mark.parametrize("left", [None, b"", b"{}", b'{"mark": "gone", "holder": "host:1"}'])
def test_of_several_that_come_at_once_one_gets_it(tmp_path, left):
    path, held, refused = tmp_path / "lease", [], []
    if left is not None:
        path.write_bytes(left)
    ended = threading.Event()

    def come():
        try:
            with Lease(str(path), "the run 'x'", 2.0):
                held.append(1)
                ended.wait(30)
        except RunError:
            refused.append(1)

    threads = [threading.Thread(target=come) for _ in range(4)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    while len(held) + len(refused) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    ended.set()
    for thread in threads:
        thread.join(30)
    assert (len(held), len(refused)) == (1, 3)


def test_at_a_uri():
    files = fsspec.filesystem("memory")
    uri = "memory://leases/it"
    with Lease(uri, "it", 1.0) as lease:
        lease.check()
        with pytest.raises(RunError, match="in use by"):
            Lease(uri, "it", 1.0).__enter__()
    assert not files.exists("/leases/it")
