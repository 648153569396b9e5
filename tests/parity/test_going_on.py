"""Members of shared training that go on without a lost one: whoever dies whenever, each row of each epoch counts once.

The members are threads here, so that each moment can be tried in a fraction of a second; `tests/faults` kills
processes.
"""

from __future__ import annotations

import functools
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import numpy as np
import pytest
from helpers.networks import make_batch_norm, make_data, make_mlp, make_network
from torch import nn

import strombus as sb
from strombus.errors import ConfigurationError, MemberLost
from strombus.executors.board import new_run_id
from strombus.executors.local import LocalExecutor
from strombus.executors.members import run_member
from strombus.executors.rendezvous import RendezvousMember, RendezvousServer
from strombus.runs import CheckpointStore
from strombus.transport.memory import MemoryTransport
from strombus.types import Capacity
from strombus.worker import peers
from strombus.worker.peers import Kind

ROWS, EPOCHS, BATCH, WORKERS = 67, 3, 4, 3


class Died(BaseException):
    """A member's death, which no code of the member sees."""


class Threads(LocalExecutor):
    """Gangs whose members are threads; `slots` of them are there."""

    def __init__(self, slots):
        super().__init__(1)
        self.slots, self.sizes = slots, []

    def capacity(self):
        return Capacity(self.slots, ("here",), 1)

    def gang(self, body, payloads, shared=None, *, timeout, on_event=None, control=None, attempt=0, survive=False):
        self.sizes.append(len(payloads))
        with RendezvousServer(len(payloads), new_run_id(), attempt, timeout, survive=survive) as server:
            board = server.board

            def work(rank):
                with RendezvousMember(server.ticket(rank), "127.0.0.1") as member:
                    return run_member(member, body, shared.get, payloads[rank])

            with ThreadPoolExecutor(len(payloads)) as pool:
                futures = [pool.submit(work, rank) for rank in range(len(payloads))]

                def poll():
                    for rank, future in enumerate(futures):
                        if future.done() and future.exception() is not None:
                            board.lose(rank, "it died")

                board.supervise(poll, on_event, control)
                return board.some(
                    [
                        board.give_up(rank) if board.is_lost(rank) else board.accept(rank, future.result(60))
                        for rank, future in enumerate(futures)
                    ]
                )


class Seen(sb.TrainingHook):
    """Note every row that is trained, and each member's parameters when it hands in its result."""

    def __init__(self, rows=None):
        self.rows, self.vectors, self.replica = [] if rows is None else rows, [], None

    def __deepcopy__(self, memo):
        return Seen(self.rows)

    def pre_update(self, batch, replica):
        self.replica = replica

    def post_update(self, batch, replica):
        self.rows += [int(value) for value in batch.features[:, 0]]

    def state(self):
        return None if self.replica is None else self.replica.flat.read()

    def collect(self, rank, state):
        self.vectors.append(state)


class Epochs(sb.Callback):
    """Note how many rows had been trained at each epoch's end, which no member passes before."""

    def __init__(self, rows):
        self.rows, self.marks = rows, [0]

    def on_epoch_end(self, record):
        self.marks.append(len(self.rows))


def mortal(*deaths, hangs=False):
    """Return a transport whose members die: each of `deaths` is (rank, kind of message, which one of that kind).

    Those that hang do so until their gang tells them to stop.
    """
    left, sent = set(deaths), Counter()

    class Mortal(MemoryTransport):
        def send(self, kind, step, payload, *, to=None):
            rank = self.seat.rank
            death = (rank, Kind(kind).name, sent[rank, kind])
            sent[rank, kind] += 1
            if death in left:
                left.discard(death)
                while hangs and not self.stopping():
                    time.sleep(0.01)
                self.abort()
                raise Died
            super().send(kind, step, payload, to=to)

    return Mortal


def data_of():
    """Rows whose first feature numbers them."""
    features, labels = make_data(ROWS)
    features[:, 0] = np.arange(ROWS)
    return features, labels


def fit(executor, transport=MemoryTransport, callbacks=(), fit_options=None, **options):
    """Fit; return network, result, the hook and how often each row was trained in each epoch."""
    seen = Seen()
    epochs = Epochs(seen.rows)
    defaults = {"batch_size_per_worker": BATCH, "rng_seed": 7, "timeout": 20, "on_peer_lost": "continue"}
    master = sb.SharedTrainingMaster(
        transport=transport, training_hooks=[seen], **{**defaults, "workers": WORKERS, **options}
    )
    network = make_network("momentum", make_batch_norm)
    with sb.Trainer(network, master, backend=executor) as trainer:
        result = trainer.fit(
            data_of(), EPOCHS, make_data(30, 5), callbacks=[epochs, *callbacks], progress=False, **(fit_options or {})
        )
    counts = [Counter(seen.rows[a:b]) for a, b in zip(epochs.marks, epochs.marks[1:], strict=False)]
    return network, result, seen, counts


def check_whole(found, again=0):
    """Check that every row of every epoch counts once, and was trained, at most `again` of them twice."""
    network, result, _, counts = found
    assert [record.examples for record in result.epochs] == [ROWS] * EPOCHS
    assert result.examples == ROWS * EPOCHS
    assert [set(one) for one in counts] == [set(range(ROWS))] * EPOCHS
    assert sum(sum(one.values()) for one in counts) - ROWS * EPOCHS <= again
    assert network.epoch == EPOCHS
    assert np.isfinite(network.state().parameters).all()
    assert all(np.isfinite([record.score, record.validation["score"]]).all() for record in result.epochs)


STEPS = -(-ROWS // WORKERS // BATCH)
"""Steps of a member in an epoch."""
FLIGHT = (2 * 4 + 2) * BATCH
"""Rows of a member whose updates may be under way."""


DEATHS = [
    *[(rank, "UPDATE", step) for rank, step in ((0, 0), (2, 0), (0, STEPS + 2), (1, STEPS + 3))],
    *[(rank, "END", number) for rank, number in ((0, 0), (1, 1), (2, EPOCHS - 1))],
    *[(0, "PARAMETERS", 0), (0, "PARAMETERS", 1), (1, "GATHER", 0), (0, "GATHER", 1), (2, "GATHER", 3)],
    *[(0, "REQUEST", 0), (0, "REQUEST", 2), (1, "STATE", 0), (2, "STATE", 0)],
]


@pytest.mark.parametrize(("death", "staleness"), list(zip(DEATHS, cycle((1, None)), strict=False)), ids=str)
def test_whoever_dies_whenever(death, staleness):
    with Threads(WORKERS) as executor:
        found = fit(executor, mortal(death), max_staleness=staleness)
    check_whole(found, FLIGHT)
    _, result, seen, _ = found
    assert len(result.failures) == 1
    assert f"member {death[0]} on" in result.failures[0]
    assert "was lost: it died" in result.failures[0]
    assert executor.sizes[0] == WORKERS
    if "dealt anew" in result.failures[0]:  # then the last gang's members have trained, and have the same parameters
        last = seen.vectors[-executor.sizes[-1] :]
        assert all(np.array_equal(one, last[0]) for one in last)


def test_a_member_that_hangs_is_given_up():
    with Threads(WORKERS) as executor:
        found = fit(executor, mortal((1, "UPDATE", STEPS + 3), hangs=True), step_timeout=0.5)
    check_whole(found, FLIGHT)
    assert "does it hang? raise `step_timeout`" in found[1].failures[0]


@pytest.mark.parametrize("combine", ["mean", "sum"])
def test_two_die_in_one_epoch_and_one_goes_on(combine):
    deaths = mortal((0, "UPDATE", STEPS + 1), (2, "UPDATE", STEPS + 3))
    with Threads(WORKERS) as executor:

        def none_comes_back(progress):
            executor.slots = 1

        found = fit(executor, deaths, [Does(none_comes_back)], combine=combine)
    check_whole(found, 2 * FLIGHT)
    assert executor.sizes == [3, 1]
    assert all(f"member {rank} on" in found[1].failures[0] for rank in (0, 2))


class Does(sb.Callback):
    """Do something in every round."""

    def __init__(self, what):
        self.on_round = what


@pytest.mark.parametrize("dies", [(0, "UPDATE", STEPS + 3), (2, "UPDATE", STEPS + 4), (1, "END", 3)], ids=str)
def test_with_checkpoints_within_epochs(tmp_path, dies):
    """The members meet every second step, and those behind leave with those ahead."""
    checkpoint = sb.CheckpointConfig(every="2steps", max_share=1)
    options = {"name": "one", "storage_path": tmp_path, "checkpoint": checkpoint}
    with Threads(WORKERS) as executor:
        found = fit(executor, mortal(dies), fit_options=options)
        check_whole(found, FLIGHT)
        assert len(found[1].failures) == 1
        state = next(CheckpointStore(str(tmp_path / "one")).whole()).state
    cursor = state["cursor"]
    left = sum(stop - start for spans in cursor["left"] for start, stop in spans) if cursor["number"] else ROWS
    assert left + state["examples"] == ROWS
    assert state["trained"][0] == ROWS * cursor["epoch"] + state["examples"]


def test_one_that_dies_before_all_have_met_costs_nothing():
    class DiesOnce(MemoryTransport):
        left = 1

        def connect(self, addresses):
            if self.seat.rank == 1 and DiesOnce.left:
                DiesOnce.left -= 1
                self.abort()
                raise Died
            super().connect(addresses)

    with Threads(WORKERS) as executor:
        found = fit(executor, DiesOnce)
    check_whole(found)
    assert executor.sizes == [WORKERS] * 2
    assert len(found[1].failures) == 1


class LoadsBadly(Threads):
    """The last member of the second gang dies, or hangs until it is told to stop, before it has met the others."""

    def __init__(self, slots, hangs):
        super().__init__(slots)
        self.hangs = hangs

    def gang(self, body, payloads, *given, **options):
        last = len(payloads) - 1 if len(self.sizes) == 1 else None

        def load(member, value, payload):
            if member.rank == last:
                while self.hangs and not member.stopping():
                    time.sleep(0.01)
                raise Died
            return body(member, value, payload)

        return super().gang(load, payloads, *given, **options)


@pytest.mark.parametrize("hangs", [False, True], ids=["dies", "hangs"])
def test_a_joiner_is_lost_while_the_others_wait_for_it_to_load(hangs):
    with LoadsBadly(2, hangs) as executor:

        def one_comes(progress):
            executor.slots = 3

        found = fit(executor, callbacks=[Does(one_comes)], workers=None, timeout=3)
    check_whole(found)
    assert executor.sizes == [2, 3, 3]
    [failure] = found[1].failures
    assert re.search(
        "waited 3 s for members .2. in exchange 0" if hangs else "member 2 on .* was lost: it died", failure
    )


@pytest.mark.parametrize("death", [(0, "PARAMETERS", 3), (2, "STATE", 2)], ids=str)
def test_a_source_dies_in_the_middle_of_what_the_others_load(monkeypatch, death):
    monkeypatch.setattr(peers, "_PIECE", 100)
    with Threads(WORKERS) as executor:
        found = fit(executor, mortal(death))
    check_whole(found, FLIGHT)
    assert len(found[1].failures) == 1


class SlowToValidate(nn.Module):
    """Takes its time where a row is large, so often, but not in training."""

    def __init__(self, seconds, times):
        super().__init__()
        self.seconds, self.times, self.inner = seconds, times, make_mlp()

    def forward(self, rows):
        if not self.training and rows.max() > LARGE and self.times:
            self.times -= 1
            time.sleep(self.seconds)
        return self.inner(rows)


LARGE = 1e3


def validate_slowly(seconds, times):
    """Fit two members, the second of which takes so many seconds for each of some minibatches; return the result."""
    features, labels = make_data(2 * 3 * 64)
    features[len(features) // 2 :] += 2 * LARGE
    master = sb.SharedTrainingMaster(batch_size_per_worker=BATCH, transport=MemoryTransport, timeout=1.0)
    network = make_network(module=functools.partial(SlowToValidate, seconds, times))
    with Threads(2) as executor, sb.Trainer(network, master, backend=executor) as trainer:
        return trainer.fit(make_data(ROWS), 2, (features, labels), progress=False)


def test_a_member_that_validates_longer_than_the_timeout_does_not_hang():
    result = validate_slowly(0.25, 6)
    assert len(result.epochs) == 2


def test_a_member_that_hangs_in_validation_is_noticed():
    with pytest.raises(MemberLost, match=r"member 0 waited .* of member 1, which said nothing .*raise `timeout`"):
        validate_slowly(2.5, 1)


def test_a_loss_at_the_very_end_costs_nothing():
    """Not even where too few are left to go on: nothing is left to do."""
    with Threads(WORKERS) as executor:

        def none_comes_back(progress):
            executor.slots = 2

        last = 3 * EPOCHS + 2  # rank 0 asks for all states after each epoch, and once more
        found = fit(executor, mortal((0, "REQUEST", last)), [Does(none_comes_back)], min_workers=3)
    check_whole(found)
    assert executor.sizes == [WORKERS]
    assert len(found[1].failures) == 1


def test_others_join_at_an_epochs_end():
    with Threads(2) as executor:

        def one_comes(progress):
            executor.slots = 3

        found = fit(executor, callbacks=[Does(one_comes)], workers=None)
    check_whole(found)
    assert executor.sizes == [2, 3]
    assert found[1].failures == ()
    assert len(found[2].vectors) == 5


def test_failures_are_counted():
    deaths = [(rank, "UPDATE", number) for rank, number in ((2, 1), (1, STEPS + 2))]
    with Threads(WORKERS) as executor, pytest.raises(MemberLost, match="member 1 on"):
        fit(executor, mortal(*deaths), max_failures=1)


def test_fewer_than_min_workers_do_not_go_on():
    with Threads(WORKERS) as executor:

        def none_comes_back(progress):
            executor.slots = 2

        with pytest.raises(MemberLost, match="member 2 on") as caught:
            fit(executor, mortal((2, "UPDATE", 1)), [Does(none_comes_back)], min_workers=3, timeout=3)
    assert any("wanted 3 (option `min_workers`)" in note for note in caught.value.__notes__)


def test_a_fit_that_is_stopped_ends():
    with Threads(WORKERS) as executor:
        stops = Does(lambda progress: progress.epoch == 1)
        _, result, _, _ = fit(executor, mortal((2, "UPDATE", STEPS + 1)), [stops])
    assert result.stopped_by == "Does"
    assert len(result.epochs) == 1


# -- refused


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"max_staleness": 0}, "needs max_staleness of at least 1, or None"),
        ({"transport_options": {"topology": "star"}}, "reach each other directly.*got 'star' of 'zeromq'"),
        ({"transport_options": {"topology": "tree"}}, "got 'tree'"),
        ({"on_nonfinite": "rollback"}, "does not go with on_nonfinite='rollback'"),
    ],
)
def test_where_members_cannot_go_on(options, match):
    with pytest.raises(ConfigurationError, match=match):
        sb.SharedTrainingMaster(on_peer_lost="continue", **options)
    assert sb.SharedTrainingMaster(**options).on_peer_lost == "restart"


def test_engines_that_end_all_members_are_refused(monkeypatch):
    monkeypatch.setattr(Threads, "survives", False)
    with (
        Threads(2) as executor,
        pytest.raises(ConfigurationError, match=r"not for the backend local.*'restart' goes on"),
    ):
        fit(executor)


def test_rows_in_an_engines_memory_are_refused():
    import dask.bag

    bag = dask.bag.from_sequence([sb.DataSet(*make_data(20))], npartitions=1)
    master = sb.SharedTrainingMaster(on_peer_lost="continue", rdd_training_approach="Direct", workers=1)
    with Threads(1) as executor, pytest.raises(ConfigurationError, match="wanted rdd_training_approach='Export'"):
        sb.Trainer(make_network(), master, backend=executor).fit(bag, progress=False)
