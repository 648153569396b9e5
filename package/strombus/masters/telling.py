"""Tell by its properties which master a file is of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from strombus.masters import masters

__all__ = ["owner_of"]


def owner_of(options: Mapping[str, Any], wanted: type[BaseModel] | None = None) -> tuple[type[Any], list[str]] | None:
    """Return the only master with properties of its own among these, and which they are; None where none is told.

    Parameters
    ----------
    options : mapping
    wanted : type, optional
        A master that is not meant: what it knows tells nothing.
    """
    names = {kind: _names(kind) for kind in masters.values()}
    found: list[tuple[type[Any], list[str]]] = []
    for kind, known in names.items():
        others = set().union(*(theirs for other, theirs in names.items() if other is not kind))
        own = options.keys() & (known - others - (_names(wanted) if wanted else set()))
        if own:
            found.append((kind, sorted(own)))
    return found[0] if len(found) == 1 else None


def _names(kind: type[BaseModel]) -> set[str]:
    return {name for key, field in kind.model_fields.items() for name in (key, field.alias) if name}
