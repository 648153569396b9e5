"""Meshes, trees and stars: who is next to whom, and the ways between all pairs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strombus.transport.topology import ARITY, LARGEST_MESH, Shape


@st.composite
def shapes(draw, least=1, most=200):
    size = draw(st.integers(least, most))
    kind = draw(st.sampled_from(["mesh", "tree", "star"]))
    if kind == "star":
        return Shape(size, hub=draw(st.integers(0, size)))
    return Shape(size, draw(st.integers(1, 20)) if kind == "tree" else None)


def ranks(shape):
    """Return the members, and a hub that is none."""
    return range(shape.size + (shape.hub == shape.size))


@given(shapes())
def test_neighbours_are_mutual_and_one_of_them_dials(shape):
    found = [shape.neighbours(rank) for rank in ranks(shape)]
    pairs = {(rank, other) for rank in ranks(shape) for other in found[rank]}
    assert all((other, rank) in pairs for rank, other in pairs)
    assert all(shape.dials(rank, other) != shape.dials(other, rank) for rank, other in pairs)
    size = len(ranks(shape))
    assert len(pairs) // 2 == (size * (size - 1) // 2 if shape.is_mesh else size - 1)
    if shape.arity is not None:
        assert max(map(len, found)) <= shape.arity + 1
    if shape.hub is not None:  # its port is the only one
        assert all(other == shape.hub for rank, other in pairs if shape.dials(rank, other))


@given(shapes(2, 60), st.data())
def test_every_way_leads_there_through_neighbours_and_back_the_same_way(shape, data):
    start, end = data.draw(st.lists(st.integers(0, shape.size - 1), min_size=2, max_size=2, unique=True))

    def way(rank, to):
        passed = [rank]
        while rank != to:
            hop = shape.next_hop(rank, to)
            assert hop in shape.neighbours(rank)
            assert hop not in passed
            passed.append(rank := hop)
        return passed

    assert way(start, end) == way(end, start)[::-1]


@pytest.mark.parametrize(
    ("topology", "size", "expected"),
    [
        ("auto", LARGEST_MESH, Shape(LARGEST_MESH)),
        ("auto", LARGEST_MESH + 1, Shape(LARGEST_MESH + 1, ARITY)),
        ("mesh", 50, Shape(50)),
        ("tree", 2, Shape(2, ARITY)),
        ("star", 50, Shape(50, hub=3)),
    ],
)
def test_the_shape_of_a_gang(topology, size, expected):
    assert Shape.of(topology, size, 3) == expected


def test_a_star_goes_through_its_hub():
    shape = Shape(5, hub=2)
    assert shape.neighbours(2) == [0, 1, 3, 4]
    assert {shape.next_hop(3, to) for to in (0, 1, 2, 4)} == {2}
    beside = Shape(5, hub=5)
    assert beside.neighbours(5) == [0, 1, 2, 3, 4]
    assert {shape.next_hop(0, to) for to in (1, 4)} == {2}
