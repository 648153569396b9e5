"""What a member takes from another one, and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from strombus.errors import WireError
from strombus.testing.transport_suite import gang
from strombus.transport import TransportOptions
from strombus.transport.memory import MemoryTransport
from strombus.worker.mixing import LEFT_OUT, Mixer, Pace
from strombus.worker.peers import Peers


class Sums:
    """Adds numbers in place of parameters."""

    def __init__(self):
        self.total = 0.0

    def apply_own_(self, scale):
        self.total += scale

    def apply_(self, payload, scale):
        self.total += scale * float(bytes(payload))


def mixer_of(end, staleness):
    peers = Peers(SimpleNamespace(rank=end.seat.rank, size=2, stopping=lambda: False), 5.0)
    peers.transport = end
    mixer = Mixer(peers, target := Sums(), "mean", staleness, Pace(5.0, None))
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


def test_updates_of_a_step_weigh_as_their_examples():
    with gang(MemoryTransport, 2, TransportOptions()) as ends:
        (first, target), (second, _) = (mixer_of(end, 1) for end in ends)
        second.add(b"100", 1.0)
        first.add(b"1", 3.0)
        assert target.total == pytest.approx(0.75 + 25.0)


@pytest.mark.parametrize(("count", "total"), [(3.0, 1.0), (0.0, 1.0), (LEFT_OUT, 0.0)])
def test_what_is_left_out_weighs_nothing_in_its_step(count, total):
    """Not even where everything of the other one is masked; where both leave it out nothing is added."""
    with gang(MemoryTransport, 2, TransportOptions()) as ends:
        (first, target), (second, _) = mixer_of(ends[0], 0), mixer_of(ends[1], 1)
        second.add(b"100", LEFT_OUT)
        first.add(b"1", count)
        assert target.total == total
