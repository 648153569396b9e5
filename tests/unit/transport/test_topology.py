"""Meshes, trees and stars: who is next to whom, and the ways between all pairs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strombus.transport.topology import ARITY, LARGEST_MESH, arity_of, neighbours, next_hop

sizes = st.integers(1, 200)
arities = st.one_of(st.none(), st.integers(1, 20))


@given(sizes, arities)
def test_neighbours_are_mutual(size, arity):
    found = [neighbours(rank, size, arity) for rank in range(size)]
    assert all(rank in found[other] for rank in range(size) for other in found[rank])
    connections = sum(map(len, found)) // 2
    assert connections == (size * (size - 1) // 2 if arity is None else size - 1)
    if arity is not None:
        assert max(map(len, found)) <= arity + 1


@given(st.integers(2, 60), arities, st.data())
def test_every_way_leads_there_through_neighbours_and_back_the_same_way(size, arity, data):
    start, end = data.draw(st.lists(st.integers(0, size - 1), min_size=2, max_size=2, unique=True))

    def way(rank, to):
        passed = [rank]
        while rank != to:
            hop = next_hop(rank, to, arity)
            assert hop in neighbours(rank, size, arity)
            assert hop not in passed
            passed.append(rank := hop)
        return passed

    assert way(start, end) == way(end, start)[::-1]


@pytest.mark.parametrize(
    ("topology", "size", "arity"),
    [
        ("auto", LARGEST_MESH, None),
        ("auto", LARGEST_MESH + 1, ARITY),
        ("mesh", 50, None),
        ("tree", 2, ARITY),
        ("star", 50, 49),
        ("star", 1, 1),
    ],
)
def test_the_shape_of_a_gang(topology, size, arity):
    assert arity_of(topology, size) == arity


def test_a_star_goes_through_rank_0():
    assert neighbours(0, 5, arity_of("star", 5)) == [1, 2, 3, 4]
    assert {next_hop(3, to, 4) for to in (0, 1, 2, 4)} == {0}
