"""What Java classes have and Python's do without: getters and setters; and one kind of error for wrong values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, ValidationError

from strombus.documents import explain
from strombus.errors import ConfigurationError

__all__ = ["checked", "getter", "setter"]


@contextmanager
def checked(kind: type[BaseModel]) -> Iterator[None]:
    """Turn what pydantic finds wrong into a `ConfigurationError` that names `kind` and its options."""
    try:
        yield
    except ValidationError as error:
        raise ConfigurationError(
            explain(error, kind.__name__, {name: name for name in sorted(kind.model_fields)})
        ) from None


def getter(option: str) -> Callable[[Any], Any]:
    """Return a method that returns an option."""

    def get(self: Any) -> Any:
        return getattr(self, option)

    get.__doc__ = f"Return `{option}`."
    return get


def setter(option: str) -> Callable[[Any, Any], None]:
    """Return a method that hands an option's new value to ``_change``."""

    def change(self: Any, value: Any) -> None:
        self._change(option, value)

    change.__doc__ = f"Set `{option}`; ConfigurationError for a value that cannot work, and nothing is changed."
    return change
