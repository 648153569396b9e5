"""Who is connected to whom, and the way from one member to another; pure functions of ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

__all__ = ["ARITY", "LARGEST_MESH", "Shape", "Topology"]

Topology = Literal["auto", "mesh", "tree", "star"]

ARITY = 8
"""Children of a member of a tree, at most."""
LARGEST_MESH = 16
"""Members of the largest gang that "auto" makes a mesh of: 120 connections."""


@dataclass(frozen=True)
class Shape:
    """The connections of a gang.

    In a mesh each pair has one. In a tree rank 0 is the root, and the parent of rank r is (r - 1) // arity. In a star
    all are connected to the hub.

    Parameters
    ----------
    size : int
        Members.
    arity : int, optional
        Children of a member of a tree.
    hub : int, optional
        The hub's rank in a star; `size` is that of one that is no member.
    """

    size: int
    arity: int | None = None
    hub: int | None = None

    @classmethod
    def of(cls, topology: Topology, size: int, hub: int = 0) -> Self:
        """Return the shape of a gang of `size`."""
        if topology == "star":
            return cls(size, hub=hub)
        if topology == "mesh" or (topology == "auto" and size <= LARGEST_MESH):
            return cls(size)
        return cls(size, ARITY)

    @property
    def is_mesh(self) -> bool:
        """Whether nobody passes on what others say."""
        return self.arity is None and self.hub is None

    def neighbours(self, rank: int) -> list[int]:
        """Return whom a member has a connection to, in rank order."""
        if self.hub is not None and rank != self.hub:
            return [self.hub]
        if self.arity is None:
            return [other for other in range(self.size) if other != rank]
        children = range(rank * self.arity + 1, min(rank * self.arity + self.arity + 1, self.size))
        return [*([self._parent(rank)] if rank else []), *children]

    def next_hop(self, rank: int, to: int) -> int:
        """Return the neighbour of `rank` that a message for `to` goes through."""
        if self.hub is not None and rank != self.hub:
            return self.hub
        if self.arity is None:
            return to
        while to > rank:
            above = self._parent(to)
            if above == rank:
                return to
            to = above
        return self._parent(rank)

    def dials(self, rank: int, other: int) -> bool:
        """Say whether of two neighbours `rank` makes the connection, to where `other` listens."""
        return rank > other if self.hub is None else rank != self.hub

    def _parent(self, rank: int) -> int:
        assert self.arity is not None
        return (rank - 1) // self.arity
