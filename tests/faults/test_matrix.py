"""Faults at every phase of both masters on every backend: what is promised holds, and nothing is left behind.

A small sample of the cells runs by default. STROMBUS_FAULTS=0:3 runs all cells of the seeds 0, 1 and 2, which is what
``tox -e soak`` does; the table that is printed at the end says what became of each fault.
"""

from __future__ import annotations

import contextlib
import functools
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from distributed import Status
from helpers import networks
from helpers.fault_matrix import OFTEN, REFUSED, Row, cells, sample, seeds
from helpers.hooks import SeenRows
from helpers.leftovers import Leftovers, stopped_processes
from helpers.networks import make_batch_norm, make_data, make_network

import strombus as sb
from strombus.errors import GangError, TaskError
from strombus.executors.local import LocalExecutor
from strombus.runs import CheckpointStore
from strombus.testing.faults import Fault, inject, kill_process

cloudpickle.register_pickle_by_value(networks)
cloudpickle.register_pickle_by_value(sys.modules[SeenRows.__module__])
cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROWS, EPOCHS = 67, 3
MARKS = {"dask": [pytest.mark.dask], "spark": [pytest.mark.spark], "local": []}


def chosen():
    """Return the cells that the environment asks for, or the sample."""
    return [cell for seed in seeds() for cell in cells(seed)] or sample(0)


def be_there(_, number):
    """Take so long that a second task needs another process."""
    time.sleep(0.1)


class CountSteps(sb.TrainingHook):
    """Leave a mark in a file for each step, on the line of attempts that counts or not."""

    def __init__(self, path):
        self.path = str(path)

    def post_update(self, batch, replica):
        with open(self.path, "ab", buffering=0) as file:
            file.write(b".")


class CutOff(sb.Callback):
    """End the fit after its second epoch."""

    def on_epoch_end(self, record):
        if record.epoch == 2:
            raise KeyboardInterrupt


class Engine:
    """A backend of two workers, and what a matrix must know of it."""

    def __init__(self, name, executor, client=None):
        self.name, self.executor, self.client = name, executor, client
        self.undisturbed = functools.cache(self._undisturbed)

    def _undisturbed(self, master):
        with tempfile.TemporaryDirectory() as folder:
            found = fit(self, master, Path(folder))
        assert found.steps == found.result.minibatches
        return found

    def mend(self, restart=False):
        """Have two workers again, as whoever runs a cluster does; `restart` ends threads that hang."""
        if self.name == "local":
            list(self.executor.map(be_there, range(2)))
        if self.client is None:
            return
        if restart:
            self.client.restart(wait_for_workers=False)
        for process in stopped_processes():  # a worker that hangs, which nobody restarts
            kill_process(process.pid)
        deadline = time.monotonic() + 60
        while self.executor.capacity().slots < 2:
            assert time.monotonic() < deadline, "no two workers came back"
            with contextlib.suppress(TimeoutError):
                self.client.wait_for_workers(2, timeout=5)
                time.sleep(0.1)
                continue
            cluster = self.client.cluster
            coming = sum(
                nanny.status in (Status.init, Status.starting, Status.running) for nanny in cluster.workers.values()
            )
            if coming < 2:  # a nanny gave its worker up
                cluster.scale(len(cluster.worker_spec) + 1)

    def retire(self):
        """Take a worker away in good order, and start another one, as an adaptive cluster does."""
        cluster = self.client.cluster
        worker = sorted(self.client.scheduler_info(n_workers=-1)["workers"])[-1]
        self.client.retire_workers([worker], close_workers=True)
        cluster.scale(len(cluster.worker_spec) + 1)

    def decommission(self):
        """Have Spark take an executor away once its tasks have ended, and start another one."""
        scala = self.executor.context._jsc.sc()
        jvm = self.executor.context._jvm
        backend = scala.schedulerBackend()
        executors = backend.getExecutorIds()
        reason = jvm.org.apache.spark.scheduler.ExecutorDecommissionInfo("a trial", jvm.scala.Option.empty())
        one_of = (executors.apply(number) for number in range(executors.size()))  # another may still be on its way out
        assert any(backend.decommissionExecutor(executor, reason, False, False) for executor in one_of)


class Once(sb.Callback):
    """Call a function after the first round that the driver hears of."""

    def __init__(self, call):
        self.call = call

    def on_round(self, progress):
        call, self.call = self.call, None
        if call is not None:
            call()


class Attempts(sb.Callback):
    """Note how many workers each attempt had."""

    passive = True

    def __init__(self):
        self.workers = []

    def on_fit_start(self, plan):
        self.workers.append(plan.workers)


@dataclass
class Fitted:
    """A fit that has ended: the rows of its last attempt, the steps of all attempts, the workers of each."""

    network: sb.MultiLayerNetwork
    result: sb.FitResult
    rows: list
    steps: int
    workers: list


def fit(engine, master, folder, callbacks=(), **options):
    """Fit with a name and checkpoints in every third step."""
    counter, seen, attempts = folder / "steps", SeenRows(), Attempts()
    counter.touch()
    common = {"workers": 2, "batch_size_per_worker": 4, "rng_seed": 7, "training_hooks": [CountSteps(counter), seen]}
    if master == "sharing":
        sharing = {"max_staleness": 0, "timeout": 60, "max_failures": 2, "updates_threshold": 0.05}
        made = sb.SharedTrainingMaster(**{**common, **sharing, **options})
    else:
        made = sb.ParameterAveragingTrainingMaster(averaging_frequency=2, **common)
    features, labels = make_data(ROWS)
    features[:, 0] = np.arange(ROWS)
    network = make_network("momentum", make_batch_norm)
    checkpoint = sb.CheckpointConfig(every="3steps", max_share=1)
    with sb.Trainer(network, made, backend=engine.executor) as trainer:
        result = trainer.fit(
            (features, labels),
            EPOCHS,
            callbacks=[attempts, *callbacks],
            progress=False,
            name="one",
            storage_path=folder,
            checkpoint=checkpoint,
        )
    return Fitted(network, result, seen.rows, counter.stat().st_size, attempts.workers)


def check_same(found, expected):
    """Compare parameters, buffers and optimizer bit for bit, and count every row."""
    state, other = found.network.state(), expected.network.state()
    np.testing.assert_array_equal(state.parameters, other.parameters)
    for name, array in other.buffers.items():
        np.testing.assert_array_equal(state.buffers[name], array, err_msg=name)
    for name, array in other.updater.tensors.items():
        np.testing.assert_array_equal(state.updater.tensors[name], array, err_msg=name)
    assert found.result.minibatches == expected.result.minibatches


def check_rows(found):
    assert found.result.examples == ROWS * EPOCHS
    assert [record.examples for record in found.result.epochs] == [ROWS] * EPOCHS


@pytest.fixture(scope="module", autouse=True)
def own_folder(tmp_path_factory):
    """Have this module's temporary directories where nobody else's are."""
    before, tempfile.tempdir = tempfile.tempdir, str(tmp_path_factory.mktemp("temporary"))
    yield
    tempfile.tempdir = before


@pytest.fixture(scope="module")
def local_engine(own_folder):
    with LocalExecutor(2) as executor:
        yield Engine("local", executor)


@pytest.fixture(scope="module")
def dask_engine(restarting_client):
    from strombus.executors.dask import DaskExecutor

    return Engine("dask", DaskExecutor(restarting_client), restarting_client)


@pytest.fixture(scope="module")
def spark_engine():
    pytest.importorskip("pyspark", reason="pyspark is not installed: the extra 'spark' brings it")
    from helpers.spark import spark_context

    from strombus.executors.spark import SparkExecutor

    return Engine("spark", SparkExecutor(spark_context()))


@pytest.mark.parametrize("cell", [pytest.param(cell, marks=MARKS[cell.backend], id=str(cell)) for cell in chosen()])
def test_a_fault(request, tmp_path, cell, fault_rows):
    engine = request.getfixturevalue(f"{cell.backend}_engine")
    engine.mend()
    expected = engine.undisturbed(cell.master)
    before = Leftovers(processes=cell.backend == "local")
    started = time.monotonic()
    try:
        outcome, steps = suffer(engine, cell, tmp_path)
    except BaseException as error:
        fault_rows.append(_row(cell, f"NOT AS PROMISED: {type(error).__name__}", "", started))
        raise
    fault_rows.append(_row(cell, outcome, str(steps - expected.steps) if steps is not None else "", started))
    engine.mend(restart=cell.fault == "hang")
    # The nanny of a retired worker stays in this process until its cluster is closed.
    before.check(apart_from={"listening sockets", "shared memory"} if cell.fault == "retire" else set())


def _row(cell, outcome, redone, started):
    return Row(cell.fault, cell.phase, cell.master, cell.backend, outcome, redone, time.monotonic() - started)


def suffer(engine, cell, folder):
    """Fit under a fault, and compare with what is promised; return what it came to, and the steps that it took."""
    if cell.fault == "damage":
        return damaged(engine, cell, folder)
    if cell.fault in ("retire", "decommission"):
        found = fit(engine, cell.master, folder, [Once(getattr(engine, cell.fault))])
        return compare(engine, cell, found)
    options = {"step_timeout": 2.0, "timeout": 20.0} if cell.fault in ("hang", "cut") else {}
    if cell.phase == "PARAMETERS":  # members that wait for each other in every step have the same ones
        options["max_staleness"] = 4
    happened = folder / "happened"
    step, after = (0, cell.step) if cell.phase in OFTEN else (cell.step, 0)
    fault = Fault(cell.rank, cell.phase, cell.fault, step=step, after=after, once=str(happened))
    with inject(engine.executor, fault, gangs=1):
        if cell.fault in REFUSED:
            return refused(engine, cell, folder, **options)
        found = fit(engine, cell.master, folder, **options)
        assert happened.exists() or cell.fault == "flip"
        return compare(engine, cell, found)


def compare(engine, cell, found):
    """Every row is counted; the parameters are those of a fit that nobody disturbed, with as many workers."""
    check_rows(found)
    expected = engine.undisturbed(cell.master)
    if cell.master == "averaging":
        assert Counter(found.rows) == Counter(expected.rows)
        assert Counter(row for _, row in found.rows) == dict.fromkeys(range(ROWS), EPOCHS)
    elif cell.fault in ("kill", "kill_engine", "stop", "hang", "cut"):
        assert len(found.result.failures) == 1
        assert f"member {cell.rank}" in found.result.failures[0]
    if found.workers[-1] == 2 and cell.phase != "PARAMETERS":
        check_same(found, expected)
    again = f", {len(found.workers)} attempts" if len(found.workers) > 1 else ""
    return f"survived{again}" + ("" if found.workers[-1] == 2 else ", 1 worker at last"), found.steps


def refused(engine, cell, folder, **options):
    """The fit ends with the error of who failed, and its directory lets the same command go on."""
    with pytest.raises((GangError, TaskError)) as caught:
        fit(engine, cell.master, folder, **options)
    blamed = caught.value.part
    merging = cell.phase in ("merge", "finish")  # which is nobody's part
    assert caught.value.__cause__ is not None
    if cell.fault == "raise":
        assert (blamed, str(caught.value.__cause__)) == (None if merging else cell.rank, "broken on purpose")
        assert ("the parts' results" in str(caught.value)) == merging
    else:  # who gets what is none refuses it, and names who sent it
        assert blamed == 1 - cell.rank
        assert f"member {cell.rank}" in str(caught.value)
    found = fit(engine, cell.master, folder, **options)  # the fault has happened, and does not again
    check_rows(found)
    if cell.phase != "PARAMETERS":
        check_same(found, engine.undisturbed(cell.master))
    return "refused, then gone on", found.steps


def damaged(engine, cell, folder):
    """Cut a fit off after an epoch, damage its last checkpoint, and go on: from the one before."""
    with pytest.raises(KeyboardInterrupt):
        fit(engine, cell.master, folder, [CutOff()])
    last = next(CheckpointStore(str(folder / "one")).whole())
    name = random.Random(str(cell)).choice(sorted([*last.files, "manifest.json"]))
    damage(Path(last.file("state.json")).with_name(name), cell.seed)
    found = fit(engine, cell.master, folder)
    check_rows(found)
    check_same(found, engine.undisturbed(cell.master))
    return f"survived {name.partition('-')[0]}", found.steps


def damage(path, seed):
    """Flip one bit of a file."""
    data, draw = bytearray(path.read_bytes()), random.Random(seed)
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
