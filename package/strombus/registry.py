"""Look an implementation up: by name in a lazy table that entry points extend, or by its import path."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from strombus.errors import ConfigurationError

__all__ = ["Registry", "import_object"]


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


def import_object(path: str) -> Any:
    """Import ``"package.module:name"``; ConfigurationError says what is missing."""
    module_name, colon, name = path.partition(":")
    if not colon or not module_name or not name:
        raise ConfigurationError(f"an import path is written 'package.module:name', got {path!r}")
    try:
        module = import_module(module_name)
    except Exception as error:  # the module's own code may raise anything
        raise ConfigurationError(
            f"cannot import {module_name!r} for {path!r}: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, name):
        raise ConfigurationError(f"module {module_name!r} has no {name!r}")
    _ship_by_value(module)
    return getattr(module, name)


def _ship_by_value(module: ModuleType) -> None:
    """Have a module that is not installed travel with what uses it: workers cannot import it."""
    file, package = getattr(module, "__file__", None), module.__name__.partition(".")[0]
    installed = file is None or {"site-packages", "dist-packages"} & set(Path(file).parts)
    if not installed and package not in {"strombus", "torch", *sys.stdlib_module_names}:
        cloudpickle.register_pickle_by_value(module)
