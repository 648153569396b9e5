"""Where on a Dask cluster a fit runs: within a task, on chosen workers, beside another; never where nobody comes."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import cloudpickle
import numpy as np
import pytest
from distributed import Event, get_client, secede, worker_client
from helpers import networks
from helpers.networks import make_data, make_network

import strombus as sb
from strombus.errors import ConfigurationError, ExecutorError
from strombus.executors.dask import DaskExecutor
from strombus.executors.dask_cluster import open_dask
from strombus.testing import executor_tasks as tasks
from strombus.testing import faults

pytestmark = pytest.mark.dask
cloudpickle.register_pickle_by_value(networks)
cloudpickle.register_pickle_by_value(sys.modules[__name__])

PATIENCE = 60.0
AVERAGING = {"workers": 2, "batch_size_per_worker": 4, "rng_seed": 0}
SHARING = {**AVERAGING, "max_staleness": 0, "updates_threshold": 0.05, "timeout": 30.0}


def master_of(kind, **options):
    if kind == "averaging":
        return sb.ParameterAveragingTrainingMaster(**{**AVERAGING, **options})
    return sb.SharedTrainingMaster(**{**SHARING, **options})


def fit(backend, kind, callbacks=(), network=None, **options):
    """Fit, and return the parameters, the scheduler and the number of slots that the trainer had."""
    network = network or make_network("momentum")
    with sb.Trainer(network, master_of(kind, **options), backend=backend) as trainer:
        trainer.fit(make_data(40), 2, callbacks=callbacks, progress=False)
        executor = trainer.executor
        return network.state().parameters, executor.client.scheduler.address, executor.capacity().slots


def fit_in_task(how, kind):
    """Fit within a task, on its own cluster: as `distributed` has it, or by name."""
    if how == "worker_client":
        with worker_client() as client:
            return fit(client, kind)
    return fit(how, kind)


def process_of(_, __):
    return os.getpid()


@pytest.mark.parametrize(("how", "kind"), [("auto", "sharing"), ("worker_client", "averaging")])
def test_a_fit_in_a_task_has_all_workers_of_its_cluster(dask_client, how, kind):
    """Both workers have one thread, and one of them runs the task: its slot must be free for a member."""
    found, scheduler, slots = dask_client.submit(fit_in_task, how, kind, pure=False).result(PATIENCE)
    assert (scheduler, slots) == (dask_client.scheduler.address, 2)
    np.testing.assert_array_equal(found, fit(dask_client, kind)[0])


class Meet(sb.Callback):
    """Wait, in the first round, until the other fit is in its own."""

    def __init__(self, barrier):
        self.barrier = barrier

    def on_round(self, progress):
        barrier, self.barrier = self.barrier, None
        if barrier is not None:
            barrier.wait()


@pytest.mark.parametrize("kinds", [("averaging", "sharing"), ("sharing", "sharing")], ids="-".join)
def test_fits_on_disjoint_workers_run_at_the_same_time(dask_client, kinds):
    """Were one to wait for the other's end, neither would come through the barrier."""
    barrier = threading.Barrier(2, timeout=PATIENCE)
    addresses = sorted(dask_client.scheduler_info()["workers"])
    name = dask_client.scheduler_info()["workers"][addresses[1]]["name"]
    places = [DaskExecutor(dask_client, workers=[one]) for one in (addresses[0], name)]
    pids = dask_client.run(os.getpid)
    assert [list(place.map(process_of, range(3))) for place in places] == [[pids[one]] * 3 for one in addresses]
    with ThreadPoolExecutor(2) as threads:
        fits = [
            threads.submit(fit, place, kind, [Meet(barrier)], make_network("momentum"), workers=1)
            for place, kind in zip(places, kinds, strict=True)
        ]
        found = [one.result(PATIENCE) for one in fits]
    for kind, (parameters, _, slots) in zip(kinds, found, strict=True):
        assert slots == 1
        np.testing.assert_array_equal(parameters, fit(places[0], kind, workers=1)[0])


def test_resources_choose_the_workers_and_are_taken(dask_client):
    """Of one board, two tasks at a time take one: the part waits until somebody else's task has given it back."""
    worker, _ = sorted(dask_client.scheduler_info()["workers"])

    async def give(dask_worker, amount):
        await dask_worker.set_resources(BOARD=amount)

    def wait(name):
        get_client()
        secede()  # of the thread, not of the board
        return Event(name).wait(PATIENCE)

    with pytest.raises(ConfigurationError, match=r"no worker of the cluster has resources=\{'BOARD': 1\}"):
        DaskExecutor(dask_client, resources={"BOARD": 1})
    dask_client.run(give, amount=1, workers=[worker])
    try:
        executor = DaskExecutor(dask_client, resources={"BOARD": 1})
        assert executor.capacity().slots == 1
        assert set(executor.map(process_of, range(3))) == set(dask_client.run(os.getpid, workers=[worker]).values())
        assert executor.placement.latest == [worker]
        event = Event("strombus-test-board", client=dask_client)
        busy = dask_client.submit(wait, "strombus-test-board", resources={"BOARD": 1}, pure=False)
        with ThreadPoolExecutor(1) as threads:
            part = threads.submit(list, executor.map(process_of, [0]))
            with pytest.raises(TimeoutError):
                part.result(1.0)
            event.set()
            assert busy.result(PATIENCE)
            part.result(PATIENCE)
    finally:
        dask_client.run(give, amount=0, workers=[worker])


def test_workers_that_are_not_there_are_named_with_those_that_are(dask_client):
    (first, _) = sorted(dask_client.scheduler_info()["workers"])
    with pytest.raises(ConfigurationError, match=rf"no worker .*\['nobody'\]; choose among {first} \(name"):
        DaskExecutor(dask_client, workers=[first, "nobody"])
    with pytest.raises(ConfigurationError, match="must be a list"):
        DaskExecutor(dask_client, workers=first)


def test_a_round_on_chosen_workers_goes_on_when_one_of_them_dies():
    """Its part was for that worker alone, and no other address will ever be the same."""
    with open_dask(workers=2) as cluster:
        client = cluster.client
        executor = DaskExecutor(client, workers=sorted(client.scheduler_info()["workers"]))
        first = executor.map_reduce(tasks.add_shared, [0, 1], tasks.add, executor.share(1))
        assert first.look(tasks.negate) == -3
        victim = sorted(client.run(os.getpid).items())[0]
        second = executor.map_reduce(tasks.add_shared, [0, 1], tasks.add, first)
        faults.kill_process(victim[1])
        third = executor.map_reduce(tasks.add_shared, [0, 1], tasks.add, second)
        assert third.get() == 15
        assert victim[0] not in executor.placement.latest


def test_a_callback_that_trains_on_the_workers_that_wait_for_it_is_refused_at_once(dask_client):
    errors = []

    class Again(sb.Callback):
        def on_epoch_end(self, record):
            with pytest.raises(ExecutorError, match="wait for the callback that asks for them") as caught:
                fit(dask_client, "averaging")
            errors.append(caught.value)

    fit(dask_client, "sharing", [Again()])
    assert len(errors) == 2
