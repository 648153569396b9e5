"""A member of shared training that dies, hangs or breaks ends the fit within seconds, is named, and leaves nothing."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from pathlib import Path
from unittest import mock

import cloudpickle
import pytest
from helpers import networks
from helpers.networks import make_data, make_network
from helpers.programs import Programs

import strombus as sb
from strombus.errors import GangError, MemberLost
from strombus.executors.local import LocalExecutor
from strombus.executors.members import GRACE, LEASE
from strombus.testing.faults import Fault, inject, kill_process

cloudpickle.register_pickle_by_value(networks)
cloudpickle.register_pickle_by_value(sys.modules[__name__])

SOON = 15.0
"""Seconds in which a fit must have ended whose member was lost."""
SILENT = SOON + LEASE
"""The same where only a member's silence tells."""


def fit(executor, **options):
    network = make_network("momentum")
    defaults = {"workers": 2, "batch_size_per_worker": 4, "rng_seed": 1, "timeout": 60}
    master = sb.SharedTrainingMaster(**{**defaults, **options})
    with sb.Trainer(network, master, backend=executor) as trainer:
        trainer.fit(make_data(80), epochs=2, progress=False)
    return network


def suffer(executor, fault, within=SOON, **options):
    """Fit under a fault; return the error, once it has come in time."""
    started = time.monotonic()
    with inject(executor, fault), pytest.raises(GangError) as caught:
        fit(executor, **options)
    assert time.monotonic() - started < within
    return caught.value


@pytest.fixture(scope="module")
def pair():
    with LocalExecutor(2) as executor:
        fit(executor)
        yield executor


def children():
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())


@pytest.mark.parametrize(
    ("rank", "phase"),
    [(0, "start"), (1, "UPDATE")],  # all the others: test_matrix.py
)
def test_a_killed_local_member_is_named_and_leaves_nothing(pair, rank, phase):
    before = threading.active_count(), len(children())
    error = suffer(pair, Fault(rank, phase, "kill"))
    assert error.part == rank
    assert re.search(f"member {rank} .*was lost", str(error))
    assert list(pair._folder.path.iterdir()) == []
    fit(pair)
    assert (threading.active_count(), len(children())) == before


@pytest.mark.parametrize(("rank", "phase"), [(0, "REQUEST"), (1, "STATE"), (0, "result"), (1, "result")])
def test_a_local_member_killed_at_the_very_end_costs_nothing(pair, rank, phase):
    expected = fit(pair, max_staleness=0).state().parameters
    check_loss_at_the_end(pair, rank, phase, expected)
    assert list(pair._folder.path.iterdir()) == []


def check_loss_at_the_end(executor, rank, phase, expected):
    """Check that another member's result is taken, and that it is said what was lost."""
    with inject(executor, Fault(rank, phase, "kill"), 1):
        network = make_network("momentum")
        master = sb.SharedTrainingMaster(workers=2, batch_size_per_worker=4, rng_seed=1, max_staleness=0)
        with sb.Trainer(network, master, backend=executor) as trainer:
            result = trainer.fit(make_data(80), epochs=2, progress=False)
    (failure,) = result.failures
    assert re.search(f"member {rank} .*was lost.* everything had been trained", failure)
    assert [record.examples for record in result.epochs] == [80, 80]
    assert (network.state().parameters == expected).all()


def test_a_loss_after_the_last_checkpoint_needs_no_other_attempt(pair, tmp_path):
    """Spark, for one, gives back no result of a stage whose task was lost."""
    network, started = make_network("momentum"), []
    master = sb.SharedTrainingMaster(workers=2, batch_size_per_worker=4, rng_seed=1, max_staleness=0)
    gang = pair.gang

    def lose(*arguments, **options):
        started.append(gang(*arguments, **options))
        raise MemberLost("member 1 was lost: its rack has no power", 1)

    with mock.patch.object(pair, "gang", lose), sb.Trainer(network, master, backend=pair) as trainer:
        result = trainer.fit(make_data(80), epochs=2, progress=False, name="one", storage_path=tmp_path)
    assert len(started) == 1
    assert result.failures == ("member 1 was lost: its rack has no power",)
    assert (network.state().parameters == fit(pair, max_staleness=0).state().parameters).all()


def test_a_member_that_raises_brings_its_traceback(pair):
    error = suffer(pair, Fault(1, "UPDATE", "raise"))
    assert error.part == 1
    assert isinstance(error.__cause__, RuntimeError)
    assert "broken on purpose" in error.traceback


@pytest.mark.parametrize("staleness", [0, 4])
def test_an_update_that_is_garbage_names_its_origin(pair, staleness):
    error = suffer(pair, Fault(1, "UPDATE", "garbage"), max_staleness=staleness)
    assert error.part == 0
    assert "member 1" in str(error)
    assert isinstance(error.__cause__, sb.errors.WireError)


def test_a_member_that_hangs_is_found_by_how_long_steps_take(pair):
    error = suffer(pair, Fault(1, "UPDATE", "hang", step=6), step_timeout=1.0)
    assert isinstance(error.__cause__, sb.errors.PeerLost)
    assert error.__cause__.rank == 1
    assert "step_timeout" in str(error)
    fit(pair)


def test_a_stopped_process_is_found_by_its_silence(pair):
    error = suffer(pair, Fault(0, "UPDATE", "stop"), SILENT)
    assert error.part == 0
    assert "was lost" in str(error)
    fit(pair)


# -- Dask


@pytest.fixture(scope="module")
def restarting(restarting_client):
    from strombus.executors.dask import DaskExecutor

    fit(DaskExecutor(restarting_client))  # so that no test measures what workers import
    return restarting_client


def have_two_workers(client):
    """Wait for two workers; where a nanny missed that its worker died, as happens when many do, add one."""
    try:
        client.wait_for_workers(2, timeout=15)
    except TimeoutError:
        client.cluster.scale(len(client.cluster.worker_spec) + 1)
        client.wait_for_workers(2, timeout=60)


@pytest.mark.dask
@pytest.mark.parametrize(("rank", "phase"), [(1, "UPDATE")])
def test_a_killed_dask_worker_is_named(restarting, rank, phase):
    from strombus.executors.dask import DaskExecutor

    executor = DaskExecutor(restarting)
    have_two_workers(restarting)
    error = suffer(executor, Fault(rank, phase, "kill"))
    assert error.part == rank
    assert "was lost" in str(error)
    have_two_workers(restarting)
    fit(executor)


@pytest.mark.dask
def test_a_stopped_dask_worker_is_found_by_its_silence(restarting):
    from strombus.executors.dask import DaskExecutor

    have_two_workers(restarting)
    workers = restarting.run(os.getpid)
    error = suffer(DaskExecutor(restarting), Fault(1, "UPDATE", "stop"), SILENT)
    assert error.part == 1
    assert "was lost" in str(error)
    stopped = [at for at, pid in workers.items() if "T (stopped)" in Path(f"/proc/{pid}/status").read_text()]
    assert len(stopped) == 1
    assert DaskExecutor(restarting).capacity().slots == 1  # the scheduler itself lets go of it after minutes
    kill_process(workers[stopped[0]])
    deadline = time.monotonic() + 60
    while stopped[0] in restarting.scheduler_info(n_workers=-1)["workers"] and time.monotonic() < deadline:
        time.sleep(0.05)  # the scheduler hears of it a moment later
    have_two_workers(restarting)
    fit(DaskExecutor(restarting))


@pytest.mark.dask
@pytest.mark.parametrize("rank", [0, 1])
def test_a_dask_worker_killed_at_the_very_end_costs_nothing(restarting, pair, rank):
    from strombus.executors.dask import DaskExecutor

    have_two_workers(restarting)
    check_loss_at_the_end(DaskExecutor(restarting), rank, "result", fit(pair, max_staleness=0).state().parameters)


def test_a_dask_worker_trains_again_though_a_thread_of_its_process_hangs(restarting):
    from strombus.executors.dask import DaskExecutor

    have_two_workers(restarting)
    executor = DaskExecutor(restarting)
    error = suffer(executor, Fault(1, "UPDATE", "hang", step=6), step_timeout=1.0)
    assert isinstance(error.__cause__, sb.errors.PeerLost)
    fit(executor)
    restarting.restart(wait_for_workers=False)  # nothing else ends the thread
    have_two_workers(restarting)


DRIVER = """
import sys
sys.path[:0] = {path!r}
import cloudpickle, torch, strombus as sb
from helpers import networks
cloudpickle.register_pickle_by_value(networks)
cloudpickle.register_pickle_by_value(sys.modules[__name__])
class Tell(sb.Callback):
    def on_round(self, progress):
        print("at work", flush=True)
network = networks.make_network("momentum")
master = sb.SharedTrainingMaster(workers=2, batch_size_per_worker=4, debug_longer_iterations=20)
with sb.Trainer(network, master, backend={address!r}) as trainer:
    trainer.fit(networks.make_data(80), epochs=10_000, callbacks=[Tell()], progress=False)
"""


@pytest.mark.dask
def test_members_whose_driver_was_killed_stop_by_themselves(restarting, tmp_path):
    have_two_workers(restarting)
    script, programs = tmp_path / "driver.py", Programs(tmp_path)
    address = restarting.scheduler_info()["address"]
    script.write_text(DRIVER.format(path=[str(Path(__file__).parents[1])], address=address))
    try:
        programs.start("driver", [sys.executable, str(script)], "at work")
        assert sum(map(bool, restarting.run(_members_running).values())) == 2
        kill_process(programs.running["driver"].pid)
    finally:
        programs.close()
    deadline = time.monotonic() + LEASE + GRACE + 3.0
    while any(restarting.run(_members_running).values()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    fit(restarting)


def _members_running():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("strombus-member")]


# -- Spark


@pytest.fixture(scope="module")
def spark():
    pytest.importorskip("pyspark", reason="pyspark is not installed: the extra 'spark' brings it")
    from helpers.spark import spark_context

    from strombus.executors.spark import SparkExecutor

    executor = SparkExecutor(spark_context())
    fit(executor)
    return executor


@pytest.mark.spark
@pytest.mark.parametrize(("rank", "phase"), [(1, "start"), (0, "UPDATE")])
def test_a_killed_spark_worker_is_named(spark, rank, phase):
    error = suffer(spark, Fault(rank, phase, "kill"))
    assert error.part == rank
    assert "was lost" in str(error)
    fit(spark)


@pytest.mark.spark
def test_a_killed_spark_executor_is_named(spark):
    """Its JVM dies, and its Python worker with it a moment later."""
    error = suffer(spark, Fault(0, "UPDATE", "kill_engine"))
    assert error.part == 0
    assert "was lost" in str(error)
    fit(spark)


@pytest.mark.spark
def test_a_stopped_spark_worker_is_found_by_its_silence(spark):
    error = suffer(spark, Fault(1, "UPDATE", "stop"), SILENT)
    assert error.part == 1
    assert "was lost" in str(error)
    fit(spark)
