"""Look an implementation up by name: a lazy table, extended by entry points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from strombus.errors import ConfigurationError

__all__ = ["Registry"]


class Registry(Mapping[str, Any]):
    """Map names to objects that are imported on first use.

    Parameters
    ----------
    kind : str
        What the table holds, in the singular; used in errors.
    table : mapping of str to str
        Name to ``"module:attribute"``.
    group : str, optional
        Entry-point group through which other distributions add rows.
    """

    def __init__(self, kind: str, table: Mapping[str, str], group: str | None = None) -> None:
        self.kind = kind
        self._table = dict(table)
        self._group = group

    def _targets(self) -> dict[str, str]:
        found = {} if self._group is None else {e.name: e.value for e in entry_points(group=self._group)}
        return {**found, **self._table}

    def __getitem__(self, name: str) -> Any:
        targets = self._targets()
        if name not in targets:
            raise ConfigurationError(f"no {self.kind} is called {name!r}; known: {', '.join(sorted(targets))}")
        module, _, attribute = targets[name].partition(":")
        return getattr(import_module(module), attribute)

    def __contains__(self, name: object) -> bool:
        return name in self._targets()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._targets()))

    def __len__(self) -> int:
        return len(self._targets())
