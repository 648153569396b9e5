"""What workers log and warn of comes to the driver's log: each text once, no flood, with rank and place."""

from __future__ import annotations

import logging
import re
import socket
import subprocess
import sys
import warnings

import cloudpickle
import numpy as np
import pytest
from helpers.networks import make_data, make_mlp, make_network

import strombus as sb
from strombus.stats import Ear, Listening, Relay
from strombus.stats.relay import BURST, LOGGER, LONGEST, MOST, WINDOW

cloudpickle.register_pickle_by_value(sys.modules[__name__])

ELSEWHERE = Listening("another-host:1", logging.WARNING)


def texts(caplog):
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


# -- what an ear hears


def test_an_ear_hears_warnings_of_all_loggers():
    before = warnings.showwarning, list(logging.getLogger().handlers)
    with Ear(ELSEWHERE) as ear:
        logging.getLogger("strombus.some.module").warning("a minibatch of %d rows", 3)
        hearing = next(one for one in logging.getLogger().handlers if one not in before[1])
        # Whose arguments do not go with its text.
        hearing.handle(logging.LogRecord("another", logging.ERROR, "", 1, "broken: %s and %s", ("one",), None))
        logging.getLogger("another").info("nothing to worry about")
        try:
            raise OSError("full")
        except OSError:
            logging.getLogger().exception("not written")
        logging.getLogger().warning("twice")
        logging.getLogger().warning("twice")
    said = {(name, text): (level, count) for name, level, text, count in ear.take()}
    assert said.pop(("strombus.some.module", "a minibatch of 3 rows")) == (logging.WARNING, 1)
    assert said.pop(("another", "broken: %s and %s")) == (logging.ERROR, 1)
    assert said.pop(("root", "not written (OSError: full)")) == (logging.ERROR, 1)
    assert said.pop(("root", "twice")) == (logging.WARNING, 2)
    assert not said
    assert ear.take() == ()
    assert (warnings.showwarning, list(logging.getLogger().handlers)) == before


def test_an_ear_hears_pythons_warnings_once_even_where_they_are_logged(monkeypatch):
    shown = []
    monkeypatch.setattr(warnings, "showwarning", lambda *_: shown.append(1))
    with Ear(ELSEWHERE) as ear:
        warnings.showwarning(UserWarning("old option"), UserWarning, "/some/module.py", 7)
    assert ear.take() == (("py.warnings", logging.WARNING, "UserWarning: old option (module.py:7)", 1),)
    assert shown == [1]
    logging.captureWarnings(True)
    try:
        with Ear(ELSEWHERE) as ear:
            warnings.showwarning(UserWarning("old option"), UserWarning, "/some/module.py", 7)
    finally:
        logging.captureWarnings(False)
    ((name, _, text, count),) = ear.take()
    assert (name, count) == ("py.warnings", 1)
    assert "old option" in text


def test_an_ear_keeps_a_bounded_number_of_texts_and_counts_the_rest():
    with Ear(ELSEWHERE) as ear:
        for number in range(MOST + 7):
            logging.getLogger("many").warning("%d %s", number, "x" * 2 * LONGEST)
    said = ear.take()
    assert len(said) == MOST + 1
    assert max(len(text) for _, _, text, _ in said) == LONGEST
    assert said[-1] == ("", 0, "", 7)


def test_overlapping_ears_hear_each_their_own_time():
    first, second = Ear(ELSEWHERE), Ear(ELSEWHERE)
    with second:
        first.__enter__()
        logging.getLogger("x").warning("both")
    logging.getLogger("x").warning("the first alone")
    first.__exit__()
    logging.getLogger("x").warning("nobody")
    assert [text for _, _, text, _ in first.take()] == ["both", "the first alone"]
    assert [text for _, _, text, _ in second.take()] == ["both"]


@pytest.mark.parametrize("far", [True, False])
def test_what_python_shows_by_itself_is_shown_once_on_the_drivers_host(far):
    """In a process of its own, in which nobody has configured any logging."""
    host = "another-host" if far else socket.gethostname()
    code = f"""
import logging, warnings
from strombus.stats import Ear, Listening
with Ear(Listening("{host}:1", logging.WARNING)) as ear:
    logging.getLogger("x").warning("logged")
    logging.getLogger("x").info("not logged")
    warnings.warn("warned")
print(len(ear.take()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "2\n"
    assert [one in done.stderr for one in ("logged", "warned", "not logged")] == [far, far, False]


@pytest.mark.parametrize("level", ["driver", logging.CRITICAL + 1])
def test_nothing_is_heard_in_the_drivers_own_process_or_when_nobody_listens(level):
    listening = Listening.now() if level == "driver" else Listening("another-host:1", level)
    with Ear(listening) as ear, Ear(None) as deaf:
        logging.getLogger("x").critical("said here")
    assert ear.take() == deaf.take() == ()


# -- what the driver repeats


def test_a_text_is_repeated_once_whoever_says_it(caplog):
    with Relay() as relay:
        relay.take(1, "node-a:7", [("some.module", logging.ERROR, "s3://key:secret@bucket is gone", 3)])
        relay.take(0, "node-b:8", [("some.module", logging.ERROR, "s3://key:secret@bucket is gone", 1)])
        relay.take(None, "node-b:8", [("other", logging.WARNING, "once", 1)])
    first, second, end = texts(caplog)
    assert first == "worker 1 on node-a:7, some.module: s3://***@bucket is gone"
    assert second == "a worker on node-b:8, other: once"
    assert "3 repetitions and 0 others" in end
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING, logging.WARNING]


def test_a_flood_is_cut_off_and_counted(caplog):
    now = [0.0]
    relay = Relay(clock=lambda: now[0])
    relay.take(0, "a:1", [("x", logging.WARNING, f"first {number}", 1) for number in range(BURST + 5)])
    now[0] = WINDOW + 1
    relay.take(0, "a:1", [("x", logging.WARNING, f"later {number}", 1) for number in range(3)])
    relay.take(0, "a:1", [("", 0, "", 40)])
    relay.close()
    relay.close()
    said = texts(caplog)
    assert len(said) == BURST + 3 + 1
    assert "0 repetitions and 45 others" in said[-1]


# -- from real workers


class Complaining(sb.TrainingHook):
    """Logs and warns around each update."""

    def pre_update(self, batch, replica):
        logging.getLogger("mine").warning("a minibatch of %d rows", len(batch))

    def post_update(self, batch, replica):
        warnings.warn_explicit("an old option", UserWarning, "/mine/hook.py", 12)


class Talking:
    """Softens the network's outputs, and says so, in scoring alone."""

    def __call__(self, module, inputs, outputs):
        if not module.training:
            logging.getLogger("mine").warning("an evaluation of %d rows", len(outputs))


def make_talking():
    module = make_mlp()
    module.register_forward_hook(Talking())
    return module


def master_of(kind, **options):
    return kind(workers=2, batch_size_per_worker=5, rng_seed=1, training_hooks=[Complaining()], **options)


@pytest.mark.parametrize(
    ("backend", "kind"),
    [
        ("local", sb.SharedTrainingMaster),
        ("local", sb.ParameterAveragingTrainingMaster),
        pytest.param("dask", sb.ParameterAveragingTrainingMaster, marks=pytest.mark.dask),
        pytest.param("spark", sb.SharedTrainingMaster, marks=pytest.mark.spark),
    ],
)
def test_what_workers_log_in_a_fit_is_in_the_drivers_log(backend, kind, request, caplog):
    if backend == "spark":
        pytest.importorskip("pyspark", reason="pyspark is not installed")
        from helpers.spark import spark_context

        given = spark_context()
    else:
        given = request.getfixturevalue("dask_client" if backend == "dask" else "local_executors")
        given = given[2] if backend == "local" else given
    with sb.Trainer(make_network(module=make_talking), master_of(kind), given) as trainer:
        result = trainer.fit(make_data(40), epochs=2, progress=False)
        fitted = texts(caplog)
        caplog.clear()
        trainer.evaluate(make_data(30))
        evaluated = texts(caplog)
    assert result.minibatches == 2 * 8
    rows = [text for text in fitted if "mine: a minibatch of 5 rows" in text]
    assert len(rows) == 1
    assert rows[0].startswith(("worker 0 on ", "worker 1 on "))
    warned = [text for text in fitted if "py.warnings: UserWarning: an old option (hook.py:12)" in text]
    assert len(warned) == 1
    # Each of 16 minibatches logged a text, and each may have warned too.
    assert 15 <= int(re.search(r"(\d+) repetitions", fitted[-1])[1]) <= 30
    assert any(text.startswith("a worker on ") and "mine: an evaluation of" in text for text in evaluated)


def test_the_level_of_the_drivers_logger_switches_it_off(local_executors, caplog):
    logging.getLogger(LOGGER).setLevel(logging.CRITICAL)
    try:
        with sb.Trainer(make_network(), master_of(sb.ParameterAveragingTrainingMaster), local_executors[2]) as trainer:
            trainer.fit(make_data(40), progress=False)
    finally:
        logging.getLogger(LOGGER).setLevel(logging.NOTSET)
    assert texts(caplog) == []


def test_what_a_member_said_before_it_failed_is_told(local_executors, caplog):
    features, labels = make_data(40)
    features[:] = np.nan
    with (
        sb.Trainer(make_network(), master_of(sb.SharedTrainingMaster), local_executors[2]) as trainer,
        pytest.raises(sb.errors.GangError, match="NaN"),
    ):
        trainer.fit((features, labels), progress=False)
    assert any("mine: a minibatch of 5 rows" in text for text in texts(caplog))
