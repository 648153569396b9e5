"""Signals stop a fit in order: a checkpoint, a named reason, nothing left running, and the same command goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import cloudpickle
import numpy as np
import psutil
import pytest
from helpers import hooks, networks, stopped
from helpers.networks import make_data, make_network, plain_loop
from helpers.stopped import EPOCHS, ROWS, make_fit

import strombus as sb
from strombus.errors import FitInterrupted
from strombus.executors.local import LocalExecutor
from strombus.runs import CheckpointStore

for module in (hooks, networks, stopped, sys.modules[__name__]):
    cloudpickle.register_pickle_by_value(module)

HELPERS = Path(__file__).parents[1] / "helpers"
PATIENCE = 120.0
SOON = 15.0
"""Seconds in which a fit that was told to stop must have ended on a busy machine."""


class Press(sb.Callback):
    """Send this process a signal, as soon as a fit has come so far."""

    def __init__(self, number, epoch=1, passive=True, times=1):
        self.number, self.epoch, self.passive, self.times = number, epoch, passive, times

    def on_round(self, progress):
        while self.times and progress.epoch >= self.epoch:
            self.times -= 1
            signal.raise_signal(self.number)


def open_backend(name, request):
    if name == "spark":
        return pytest.importorskip("helpers.spark", reason="pyspark is not installed").spark_context()
    return request.getfixturevalue("dask_client") if name == "dask" else request.getfixturevalue("local_executors")[2]


def fit(executor, master, callbacks=(), epochs=EPOCHS, **options):
    network, master = make_fit(master)
    trainer = sb.Trainer(network, master, executor)
    return network, lambda: trainer.fit(make_data(ROWS), epochs, callbacks=callbacks, progress=False, **options)


@pytest.fixture(scope="module")
def undisturbed(local_executors):
    """Return the parameters after a number of epochs."""
    found = {}

    def make(master, epochs=EPOCHS):
        if (master, epochs) not in found:
            network, run = fit(local_executors[2], master, epochs=epochs)
            run()
            found[master, epochs] = network.state().parameters
        return found[master, epochs]

    return make


# -- in this process


@pytest.mark.parametrize(
    ("backend", "master", "number", "passive"),
    [
        ("local", "averaging", signal.SIGTERM, True),
        ("local", "sharing", signal.SIGINT, True),
        ("local", "sharing", signal.SIGTERM, False),
        pytest.param("dask", "sharing", signal.SIGTERM, True, marks=pytest.mark.dask),
        pytest.param("spark", "sharing", signal.SIGTERM, True, marks=pytest.mark.spark),
        pytest.param("spark", "averaging", signal.SIGINT, True, marks=pytest.mark.spark),
    ],
)
def test_a_signal_leaves_a_checkpoint_from_which_the_same_command_goes_on(
    request, tmp_path, local_executors, undisturbed, backend, master, number, passive
):
    options = {"name": "one", "storage_path": tmp_path}
    network, run = fit(open_backend(backend, request), master, [Press(number, passive=passive)], **options)
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    threads = set(threading.enumerate())
    started = time.monotonic()
    with pytest.raises((KeyboardInterrupt, FitInterrupted)) as caught:
        run()
    assert time.monotonic() - started < SOON
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before
    left = set(threading.enumerate()) - threads
    assert not [thread for thread in left if thread.name.startswith("strombus")]
    if number == signal.SIGTERM:
        assert (caught.type, caught.value.reason) == (FitInterrupted, "SIGTERM")
        text = str(caught.value)
    else:
        assert caught.type is KeyboardInterrupt
        (text,) = caught.value.__notes__
    step = int(re.search(r"stopped by \w+: its last checkpoint, of step (\d+), is in .*one; run the same", text)[1])
    latest = next(CheckpointStore(str(tmp_path / "one")).whole())
    assert latest.step == step
    if latest.state["cursor"]["number"]:
        left = sum(stop - start for spans in latest.state["cursor"]["left"] for start, stop in spans)
        assert left == ROWS - latest.state["examples"]
    network, run = fit(local_executors[2], master, **options)
    result = run()
    assert np.array_equal(network.state().parameters, undisturbed(master))
    assert [record.examples for record in result.epochs] == [ROWS] * EPOCHS


@pytest.mark.parametrize("passive", [True, False])
def test_without_a_name_the_network_has_the_last_epoch_s_parameters(local_executors, undisturbed, passive):
    network, run = fit(local_executors[2], "sharing", [Press(signal.SIGINT, passive=passive)])
    with pytest.raises(KeyboardInterrupt) as caught:
        run()
    assert "nothing was written: give fit a name" in caught.value.__notes__[0]
    assert network.epoch in {1, 2}
    assert np.array_equal(network.state().parameters, undisturbed("sharing", network.epoch))


def test_without_a_name_averaging_leaves_the_last_round_s_parameters(local_executors):
    network = make_network("momentum")
    master = sb.ParameterAveragingTrainingMaster(
        workers=1, batch_size_per_worker=4, averaging_frequency=3, shuffle=False
    )
    features, labels = make_data(40)
    with pytest.raises(FitInterrupted, match="SIGTERM"), sb.Trainer(network, master, local_executors[1]) as trainer:
        trainer.fit((features, labels), callbacks=[Press(signal.SIGTERM, epoch=0)], progress=False)
    assert 3 <= network.iteration < 10
    assert network.iteration % 3 == 0
    expected = plain_loop(make_network("momentum"), features, labels, [4] * network.iteration)
    np.testing.assert_allclose(network.state().parameters, expected, rtol=1e-12, atol=1e-12)


class Sleep(sb.TrainingHook):
    """Take an hour for a step, and leave a file that says that it has begun."""

    def __init__(self, file):
        self.file = file

    def post_update(self, batch, replica):
        self.file.touch()
        time.sleep(3600.0)


def press_when_there(file, times):
    deadline = time.monotonic() + PATIENCE
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)


@pytest.mark.parametrize("grace", ["1s", "1h"])
def test_grace_ends_and_a_second_signal_does_not_wait_for_it(tmp_path, grace):
    master = sb.ParameterAveragingTrainingMaster(workers=2, training_hooks=[Sleep(tmp_path / "begun")])
    options = {"name": "one", "storage_path": tmp_path, "checkpoint": sb.CheckpointConfig(grace=grace)}
    presses = threading.Thread(target=press_when_there, args=(tmp_path / "begun", 1 if grace == "1s" else 2))
    presses.start()
    with LocalExecutor(2) as executor:
        before = set(psutil.Process().children())
        trainer = sb.Trainer(make_network(), master, executor)
        with pytest.raises(KeyboardInterrupt) as caught:
            trainer.fit(make_data(128), progress=False, **options)
        assert set(psutil.Process().children()) <= before  # the processes that sleep are gone
    presses.join()
    assert ("within 1 s (option `grace`" in caught.value.__notes__[0]) == (grace == "1s")
    assert "of step 0" in caught.value.__notes__[0]


def test_handlers_of_the_program_are_called_at_the_end(local_executors):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        _, run = fit(local_executors[2], "averaging", [Press(signal.SIGTERM, epoch=0)])
        with pytest.raises(FitInterrupted):
            run()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_an_ignored_signal_and_other_threads_are_left_alone(local_executors):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _, run = fit(local_executors[2], "averaging", [Press(signal.SIGINT, epoch=0)], epochs=1)
        assert run().examples == ROWS
    finally:
        signal.signal(signal.SIGINT, before)
    seen = []
    _, run = fit(local_executors[2], "averaging", [Watch(seen)], epochs=1)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE)
    assert set(seen) == {before}


class Watch(sb.Callback):
    def __init__(self, seen):
        self.seen = seen

    def on_round(self, progress):
        self.seen.append(signal.getsignal(signal.SIGINT))


# -- programs

JOB = """
    network:
      module: stopped_module:make_batch_norm
      optimizer: {class: torch.optim:SGD, lr: 0.1, momentum: 0.9}
    data: {train: train.zarr}
    master: {type: shared_training, numWorkers: 2, batch_size_per_worker: 4, rng_seed: 7, max_staleness: 0,
             debugLongerIterations: 20}
    backend: local
    epochs: 3
    output: network.safetensors
    name: one
    storage_path: runs
"""


def start(command, folder):
    """Start a program that is the first of a process group, as in a terminal or a batch system."""
    surroundings = {**os.environ, "PYTHONPATH": str(HELPERS.parent)}
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=surroundings,
            cwd=folder,
            start_new_session=True,
        )


def stop(command, folder, number, run, epochs):
    """Run a program, send the signal to it and all its children in the second epoch, and see that none is left."""
    process, metrics, deadline = start(command, folder), run / "metrics.jsonl", time.monotonic() + PATIENCE
    try:
        while not metrics.exists() or '"epoch": 2' not in metrics.read_text():
            assert process.poll() is None, (folder / "log").read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        children = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, number)
        code = process.wait(SOON)
        _, alive = psutil.wait_procs(children, SOON)
        assert alive == []
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)
    return code, (folder / "log").read_text()


def test_sigterm_ends_strombus_train_and_the_same_command_goes_on(tmp_path):
    (tmp_path / "stopped_module.py").write_text("from helpers.networks import make_batch_norm\n")
    (tmp_path / "job.yaml").write_text(textwrap.dedent(JOB))
    sb.data.export(make_data(ROWS), tmp_path / "train.zarr", progress=False)
    command = [sys.executable, "-c", "from strombus.cli import main; main()", "train", "job.yaml"]
    code, log = stop(command, tmp_path, signal.SIGTERM, tmp_path / "runs" / "one", EPOCHS)
    assert code == 143
    assert re.search(r"Error: the fit was stopped by SIGTERM: its last checkpoint, of step \d+, is in", log)
    assert not (tmp_path / "network.safetensors").exists()
    assert start(command, tmp_path).wait(PATIENCE) == 0, (tmp_path / "log").read_text()[-3000:]
    assert f"trained on {ROWS * EPOCHS} examples" in (tmp_path / "log").read_text()


@pytest.mark.dask
def test_ctrl_c_in_a_terminal_ends_a_program_and_its_dask_cluster(tmp_path, local_executors, undisturbed):
    command = [sys.executable, str(HELPERS / "stopped.py"), "dask", str(tmp_path)]
    code, log = stop(command, tmp_path, signal.SIGINT, tmp_path / "one", EPOCHS)
    assert code == -signal.SIGINT
    assert re.search(r"KeyboardInterrupt\nthe fit was stopped by SIGINT: its last checkpoint, of step \d+, is in", log)
    latest = next(CheckpointStore(str(tmp_path / "one")).whole())
    network = make_fit("averaging")[0].load(latest.file("model.safetensors"))
    assert np.array_equal(np.load(tmp_path / "held.npy"), network.state().parameters)
    network, run = fit(local_executors[2], "averaging", name="one", storage_path=tmp_path)
    run()
    assert np.array_equal(network.state().parameters, undisturbed("averaging"))
