"""Keys and passwords: where they must never be found."""

from __future__ import annotations

import logging
import pickle
import traceback
from pathlib import Path

import fsspec
import pytest
import zmq
from helpers.networks import make_data, make_network

import strombus as sb
from strombus.data import open_dataset
from strombus.errors import (
    ConfigurationError,
    DataError,
    GangTimeout,
    MissingDataError,
    PeerLost,
    RunError,
    TaskError,
    hide_credentials,
)
from strombus.executors.calls import Failure
from strombus.executors.local import LocalExecutor
from strombus.executors.rendezvous import RendezvousServer
from strombus.stats import TrainingStats

PASSWORD = "Zebra7Quagga"
PLACE = f"memory://user:{PASSWORD}@host"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"no data at s3://key:{PASSWORD}@bucket/x: check", "no data at s3://***@bucket/x: check"),
        (f"s3://key:sl/ash/{PASSWORD}@bucket/x", "s3://***@bucket/x"),
        (f"sftp://{PASSWORD}@host/x", "sftp://***@host/x"),
        (f"'https://host/x?sig={PASSWORD}&sv=2#part'", "'https://host/x?sig=***&sv=***#part'"),
        (f"simplecache::https://u:{PASSWORD}@h/a?token={PASSWORD}", "simplecache::https://***@h/a?token=***"),
        ("tcp://10.0.0.1:8786 and mail@host, a?b=c", "tcp://10.0.0.1:8786 and mail@host, a?b=c"),
        ("s3://bucket/with/path", "s3://bucket/with/path"),
    ],
)
def test_what_is_hidden(text, shown):
    assert hide_credentials(text) == shown == hide_credentials(shown)


@pytest.mark.parametrize("kind", [ConfigurationError, DataError, MissingDataError, RunError, GangTimeout])
def test_no_error_tells_a_password(kind):
    error = kind(f"nothing at {PLACE}/x")
    again = pickle.loads(pickle.dumps(error))
    for one in (error, again):
        assert str(one) == "nothing at memory://***@host/x"
        assert PASSWORD not in repr(one) + repr(vars(one))


def test_no_error_of_a_worker_tells_a_password():
    def fail():
        raise OSError(f"403 for url {PLACE}/x")

    try:
        fail()
    except OSError as raised:
        failure = Failure.of(raised, 3)
    for error in (TaskError(failure.text, 3, failure.traceback), PeerLost(f"lost {PLACE}", 1)):
        again = pickle.loads(pickle.dumps(error))
        assert PASSWORD not in f"{error}{error!r}{vars(error)}{again}{vars(again)}"
        assert "***@host" in str(error)


def test_a_run_at_an_address_with_a_password(caplog, capfd):
    caplog.set_level(logging.DEBUG)
    sb.data.export(make_data(40), f"{PLACE}/data", progress=False)
    master = sb.ParameterAveragingTrainingMaster(
        workers=1, batch_size_per_worker=8, export_directory=f"{PLACE}/export", collect_training_stats=True
    )
    network = make_network()
    with LocalExecutor(1) as executor, sb.Trainer(network, master, executor) as trainer:
        for data, name in ((f"{PLACE}/data", "one"), (make_data(40), "two")):
            result = trainer.fit(data, name=name, storage_path=f"{PLACE}/runs", progress=False)
        shown = [repr(trainer), repr(master), str(master), repr(result), result.stats.as_string()]
        for wrong in (
            lambda: trainer.fit(f"{PLACE}/data", name="one", storage_path=f"{PLACE}/runs"),
            lambda: trainer.fit(f"{PLACE}/none"),
            lambda: trainer.evaluate(f"{PLACE}/runs"),
            lambda: network.load(f"{PLACE}/none"),
            lambda: sb.data.export(make_data(9), f"{PLACE}/data", progress=False),
            lambda: TrainingStats.load(f"{PLACE}/data"),
            lambda: open_dataset([f"{PLACE}/data", f"{PLACE}/none"]),
        ):
            with pytest.raises(sb.errors.StrombusError) as caught:
                wrong()
            shown.append("".join(traceback.format_exception_only(caught.value)))
            assert "***@host" in str(caught.value)
            assert PASSWORD not in f"{caught.value}{caught.value!r}"
    files = fsspec.filesystem("memory")
    written = {path: files.cat_file(path) for path in files.find(f"/user:{PASSWORD}@host/runs")}
    names = {path.rsplit("/", 1)[1] for path in written}
    assert {"config.json", "result.json", "network.safetensors", "stats.jsonl"} <= names
    assert b"***@host/export" in next(data for path, data in written.items() if path.endswith("one/config.json"))
    assert not [path for path, data in written.items() if PASSWORD.encode() in data]
    captured = capfd.readouterr()
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("strombus")]
    for text in (*shown, *ours, captured.out):
        assert PASSWORD not in text
    assert master.export_directory == f"{PLACE}/export", "the master itself still knows it"
    assert type(master).from_json(master.to_json()) == master


class Spy(sb.Callback):
    """Look, while members train, at what anybody on this machine sees of all processes."""

    def __init__(self):
        self.seen = b""

    def on_round(self, progress):
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                self.seen += file.read_bytes()
            except OSError:
                continue


def test_the_keys_of_a_gang_are_told_to_nobody(tmp_path, monkeypatch, caplog, capfd):
    made = []
    make = zmq.curve_keypair

    def keypair():
        made.append(make())
        return made[-1]

    monkeypatch.setattr(zmq, "curve_keypair", keypair)
    caplog.set_level(logging.DEBUG)
    spy = Spy()
    master = sb.SharedTrainingMaster(workers=2, batch_size_per_worker=8, collect_training_stats=True, timeout=60)
    network = make_network()
    with LocalExecutor(2) as executor, sb.Trainer(network, master, executor) as trainer:
        result = trainer.fit(
            make_data(64), epochs=2, name="run", storage_path=tmp_path, callbacks=[spy], progress=False
        )
        shown = repr([trainer, master, result, result.stats.events[:50], executor])
    result.stats.to_html(tmp_path / "run" / "page.html")
    secrets = [secret for _, secret in made]
    assert len(secrets) >= 4, "the members' among themselves, and theirs with the driver"
    assert b"python" in spy.seen
    captured = capfd.readouterr()
    texts = {"repr": shown.encode(), "processes": spy.seen, "log": caplog.text.encode()}
    texts |= {"out": captured.out.encode(), "err": captured.err.encode()}
    texts |= {str(file): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert str(tmp_path / "run" / "config.json") in texts
    assert not [where for where, text in texts.items() for secret in secrets if secret in text]


def test_a_ticket_shows_no_secret():
    with RendezvousServer(2, "run", 0, 10.0) as server:
        ticket = server.ticket(1)
    assert ticket.secret.decode() not in repr(ticket)
    assert ticket.secret.decode() not in repr([vars(server.board)])
    assert pickle.loads(pickle.dumps(ticket)) == ticket
