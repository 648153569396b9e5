"""Two fits at a time come to what each comes to alone, or the second waits and says so; none is ever wrong or stuck."""

from __future__ import annotations

import functools
import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import cloudpickle
import numpy as np
import pytest
from helpers import networks
from helpers.networks import make_batch_norm, make_data, make_network

import strombus as sb
from strombus.errors import ConfigurationError, GangTimeout
from strombus.executors.local import LocalExecutor

cloudpickle.register_pickle_by_value(networks)
cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROWS, EPOCHS = 67, 4
PATIENCE = 120.0

TOGETHER = [("averaging", "averaging"), ("averaging", "sharing"), ("sharing", "sharing")]


def make(master, seed, **options):
    """Make a network with dropout, and its master: what draws random numbers shows who has drawn in between."""
    options = {"workers": 2, "batch_size_per_worker": 4, "rng_seed": seed, **options}
    if master == "averaging":
        return make_network("momentum", make_batch_norm), sb.ParameterAveragingTrainingMaster(**options)
    sharing = {"max_staleness": 0, "timeout": PATIENCE, "updates_threshold": 0.05}
    return make_network("momentum", make_batch_norm), sb.SharedTrainingMaster(**{**sharing, **options})


def fit(backend, network, master, callbacks=()):
    """Fit, and return the parameters."""
    with sb.Trainer(network, master, backend=backend) as trainer:
        result = trainer.fit(make_data(ROWS), EPOCHS, callbacks=callbacks, progress=False)
    assert result.examples == ROWS * EPOCHS
    return network.state().parameters


@pytest.fixture(scope="module")
def alone():
    """What a fit comes to that has a backend for itself; made when first asked for."""
    found = {}

    def get(name, backend, kind, seed, workers):
        key = (name, kind, seed)
        if key not in found:
            found[key] = fit(backend, *make(kind, seed, workers=workers))
        return found[key]

    return get


@pytest.fixture
def backends(request):
    """Two backends of two fits: in this process, in the same processes, two drivers of a cluster, an application."""

    def find(name, stack):
        if name == "threads":
            return [stack.enter_context(LocalExecutor(1)) for _ in range(2)], 1
        if name == "processes":
            return [request.getfixturevalue("local_executors")[2]] * 2, 2
        if name == "dask":
            from distributed import Client

            cluster = request.getfixturevalue("dask_cluster")
            return [stack.enter_context(Client(cluster.scheduler_address, set_as_default=False)) for _ in range(2)], 2
        pytest.importorskip("pyspark", reason="pyspark is not installed: the extra 'spark' brings it")
        from helpers.spark import spark_context

        return [spark_context()] * 2, 2

    with ExitStack() as stack:
        yield functools.partial(find, stack=stack)


PLACES = [
    "threads",
    "processes",
    pytest.param("dask", marks=pytest.mark.dask),
    pytest.param("spark", marks=pytest.mark.spark),
]


@pytest.mark.parametrize("kinds", TOGETHER, ids="-".join)
@pytest.mark.parametrize("place", PLACES)
def test_each_comes_to_what_it_comes_to_alone(backends, alone, place, kinds):
    """Two gangs that need every slot are among them: none may hold one and wait for the other."""
    both, workers = backends(place)
    expected = [alone(place, both[0], kind, seed, workers) for seed, kind in enumerate(kinds)]
    made = [make(kind, seed, workers=workers) for seed, kind in enumerate(kinds)]
    start = threading.Barrier(2, timeout=PATIENCE)

    def run(number):
        start.wait()
        return fit(both[number], *made[number])

    with ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(run, number) for number in range(2)]
        found = [future.result(PATIENCE) for future in futures]
    for mine, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, wanted)


@pytest.mark.parametrize("place", PLACES)
def test_one_after_another_on_one_backend(backends, alone, place):
    """A network knows nothing of the one before it, whatever processes have kept."""
    (backend, _), workers = backends(place)
    for kind, seed in [("averaging", 0), ("sharing", 1), ("averaging", 1), ("averaging", 0)]:
        expected = alone(place, backend, kind, seed, workers)
        np.testing.assert_array_equal(fit(backend, *make(kind, seed, workers=workers)), expected)


class Meanwhile(sb.Callback):
    """Do something within a fit, once."""

    def __init__(self, call):
        self.call, self.found = call, None

    def on_round(self, progress):
        call, self.call = self.call, None
        if call is not None:
            self.found = call()


@pytest.mark.parametrize("kind", ["averaging", "sharing"])
def test_a_network_that_is_in_a_fit_is_refused(local_executors, kind):
    network, master = make(kind, 0, workers=1)
    other = sb.ParameterAveragingTrainingMaster(workers=1)

    def again():
        with ThreadPoolExecutor(1) as thread, pytest.raises(ConfigurationError, match="is in another fit now"):
            thread.submit(fit, local_executors[1], network, other).result(PATIENCE)
        return True

    meanwhile = Meanwhile(again)
    fit(local_executors[1], network, master, [meanwhile])
    assert meanwhile.found
    fit(local_executors[1], network, other)


def test_a_network_is_free_after_a_fit_that_failed(local_executors):
    network, master = make("averaging", 0, workers=1)

    def fail():
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        fit(local_executors[1], network, master, [Meanwhile(fail)])
    fit(local_executors[1], network, master)


def test_who_waits_too_long_says_for_what(local_executors, caplog):
    first, second = make("sharing", 0), make("sharing", 1, timeout=1.5)

    def wait():
        with ThreadPoolExecutor(1) as thread, pytest.raises(GangTimeout, match=r"another gang .*raise `timeout`"):
            thread.submit(fit, local_executors[2], *second).result(PATIENCE)
        return True

    meanwhile = Meanwhile(wait)
    with caplog.at_level(logging.WARNING):
        fit(local_executors[2], *first, [meanwhile])
    assert meanwhile.found
    assert "for another gang" in caplog.text
