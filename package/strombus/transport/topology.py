"""Who is connected to whom, and the way from one member to another; pure functions of ranks.

In a mesh each pair has a connection. In a tree rank 0 is the root, and the parent of rank r is (r - 1) // arity; a star
is a tree whose arity takes in all. A parent's rank is lower than its children's in any of them.
"""

from __future__ import annotations

from typing import Literal

__all__ = ["ARITY", "LARGEST_MESH", "Topology", "arity_of", "neighbours", "next_hop"]

Topology = Literal["auto", "mesh", "tree", "star"]

ARITY = 8
"""Children of a member of a tree, at most."""
LARGEST_MESH = 16
"""Members of the largest gang that "auto" makes a mesh of: 120 connections."""


def arity_of(topology: Topology, size: int) -> int | None:
    """Return how many children a member of a gang of `size` may have; None for a mesh."""
    if topology == "star":
        return max(1, size - 1)
    if topology == "mesh" or (topology == "auto" and size <= LARGEST_MESH):
        return None
    return ARITY


def neighbours(rank: int, size: int, arity: int | None) -> list[int]:
    """Return whom a member has a connection to, in rank order."""
    if arity is None:
        return [other for other in range(size) if other != rank]
    children = range(rank * arity + 1, min(rank * arity + arity + 1, size))
    return [*([_parent(rank, arity)] if rank else []), *children]


def next_hop(rank: int, to: int, arity: int | None) -> int:
    """Return the neighbour of `rank` that a message for `to` goes through."""
    if arity is None:
        return to
    while to > rank:
        above = _parent(to, arity)
        if above == rank:
            return to
        to = above
    return _parent(rank, arity)


def _parent(rank: int, arity: int) -> int:
    return (rank - 1) // arity
