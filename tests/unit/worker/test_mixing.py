"""What a member takes from another one, and what it refuses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strombus.errors import WireError
from strombus.testing.transport_suite import gang
from strombus.transport import TransportOptions
from strombus.transport.memory import MemoryTransport
from strombus.worker.mixing import LEFT_OUT, Mixer, Pace
from strombus.worker.peers import Kind, Peers, Regroup


class Sums:
    """Adds numbers in place of parameters."""

    def __init__(self):
        self.total = 0.0

    def apply_own_(self, scale):
        self.total += scale

    def apply_(self, payload, scale):
        self.total += scale * float(bytes(payload))


def mixer_of(end, staleness, weighting="examples"):
    peers = Peers(SimpleNamespace(rank=end.seat.rank, size=2, stopping=lambda: False), 5.0)
    peers.transport = end
    mixer = Mixer(peers, target := Sums(), "mean", staleness, Pace(5.0, None), weighting)
    mixer.start([[3], [1]])
    return mixer, target


@pytest.mark.parametrize("staleness", [0, 1])
@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -2.0])
def test_a_weight_that_is_none_is_refused_before_anything_is_added(staleness, weight):
    with gang(MemoryTransport, 2, TransportOptions()) as ends:
        (honest, target), (other, _) = mixer_of(ends[0], staleness), mixer_of(ends[1], 1)
        other.add(b"100", weight)
        with pytest.raises(WireError, match="member 1 sent step 0 with a weight of"):
            honest.add(b"1", 3.0)
        assert target.total <= 1.0


@pytest.mark.parametrize(
    ("weighting", "staleness", "shares"),
    [
        ("examples", 1, (0.75, 0.25)),  # rows, that all know of beforehand
        ("examples", 0, (0.6, 0.4)),  # what the losses averaged over
        ("uniform", 1, (0.5, 0.5)),
        ("uniform", 0, (0.5, 0.5)),
    ],
)
def test_updates_of_a_step_weigh_as_the_options_say(weighting, staleness, shares):
    with gang(MemoryTransport, 2, TransportOptions()) as ends:
        # The second one does not wait for the first, which runs in the same thread.
        (first, target), (second, _) = mixer_of(ends[0], staleness, weighting), mixer_of(ends[1], 1, weighting)
        second.add(b"100", 1.0)
        first.add(b"1", 1.5)
        assert target.total == pytest.approx(shares[0] + 100 * shares[1])


@pytest.mark.parametrize(("count", "total"), [(3.0, 1.0), (0.0, 1.0), (LEFT_OUT, 0.0)])
def test_what_is_left_out_weighs_nothing_in_its_step(count, total):
    """Not even where everything of the other one is masked; where both leave it out nothing is added."""
    with gang(MemoryTransport, 2, TransportOptions()) as ends:
        (first, target), (second, _) = mixer_of(ends[0], 0), mixer_of(ends[1], 1)
        second.add(b"100", LEFT_OUT)
        first.add(b"1", count)
        assert target.total == total


def cut_at(end, staleness, told, planned, rows):
    """Take the steps of a stretch as a member that is told, before step `told`, to end it; return steps and end."""
    peers = Peers(SimpleNamespace(rank=end.seat.rank, size=3, stopping=lambda: False), 20.0)
    peers.transport = end
    mixer = Mixer(peers, Sums(), "sum", staleness, Pace(20.0, None))
    mixer.start([[1] * planned] * 3)
    own = 0
    while own < rows:
        if own == told:
            mixer.cut()
        if mixer.ends:
            break
        mixer.add(b"1", 1.0)
        own += 1
    notes = mixer.finish(b"")
    assert len(notes) == 2
    return own, mixer.length(planned)


@settings(max_examples=40, deadline=None)
@given(
    staleness=st.integers(0, 3),
    told=st.lists(st.integers(0, 30), min_size=3, max_size=3),
    rows=st.lists(st.integers(0, 20), min_size=3, max_size=3),
)
def test_members_that_are_cut_off_end_after_the_same_step(staleness, told, rows):
    """Whoever is told first, or at the same time as others, or has no rows left."""
    planned = max(rows)
    with gang(MemoryTransport, 3, TransportOptions()) as ends, ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(cut_at, end, staleness, told[i], planned, rows[i]) for i, end in enumerate(ends)]
        found = [call.result(30) for call in calls]
    (length,) = {length for _, length in found}
    assert [own for own, _ in found] == [min(mine, length) for mine in rows]
    first = min((step for step, mine in zip(told, rows, strict=True) if step < mine), default=planned)
    # The first by the clock may be ahead of the one with the fewest steps, by as many as it may run ahead.
    assert first <= length <= min(planned, first + 2 * staleness + 1)


def test_a_lost_member_counts_as_one_that_has_ended():
    """Its updates that have come count as dealt; from then on those of the others weigh 1 together."""
    with gang(MemoryTransport, 3, TransportOptions()) as ends:
        mixers = []
        for end in ends:
            end.tolerate()
            peers = Peers(SimpleNamespace(rank=end.seat.rank, size=3, stopping=lambda: False), 5.0)
            peers.transport = end
            mixers.append((Mixer(peers, target := Sums(), "mean", None, Pace(5.0, None)), target, peers))
            mixers[-1][0].start([[3] * 3, [1] * 3, [4] * 3])
        (first, target, peers), (second, _, _), (third, _, _) = mixers
        third.add(b"1000", 4.0)
        for _ in range(3):
            second.add(b"100", 1.0)
        peers.lose(2)
        third.add(b"1000", 4.0)
        for _ in range(3):
            first.add(b"1", 3.0)
        assert first.taken() == [3, 3, 1]
        assert target.total == pytest.approx((3 + 100 + 4000) / 8 + 2 * (3 + 100) / 4)
        mixers[1][2].send(Kind.END, 3)
        with pytest.raises(Regroup):
            first.finish(b"")
