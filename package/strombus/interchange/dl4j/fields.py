"""Objects of DL4J's JSON: every property is taken by name, and one that nobody takes is an error, never a guess."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any, TypeVar

from strombus.documents import shorten
from strombus.errors import ConfigurationError, DataError

__all__ = ["Fields", "Options", "shown", "unread"]

T = TypeVar("T")

_LARGEST = 2**31 - 1
_MISSING: Any = object()


def unread(place: str, what: str, advice: str) -> ConfigurationError:
    """Return the error for something of DL4J's that is not read: where, what, and what to do."""
    return ConfigurationError(f"{place}: {what} is not read; {advice}")


def shown(values: Mapping[str, Any], names: Iterable[str]) -> str:
    """Return numbers, texts and lists of those names as ``nin=4, nout=8``, for what torch prints of a module."""
    kinds = (int, float, str, list)
    return ", ".join(f"{name}={values[name]}" for name in names if isinstance(values.get(name), kinds))


class Options:
    """What the caller wants to do with the network.

    Parameters
    ----------
    training : bool
        Whether what concerns training alone must be understood too.
    """

    def __init__(self, training: bool = True) -> None:
        self.training = training


def _same(value: Any, wanted: Any) -> bool:
    if isinstance(value, str) and isinstance(wanted, str):
        return value.lower() == wanted.lower()
    return bool(value == wanted)


class Fields:
    """One object, and where it stands.

    Parameters
    ----------
    values : mapping
        What JSON gave.
    place : str
        Such as ``layer 'conv1' (ConvolutionLayer)``, for errors.
    options : Options

    Notes
    -----
    Names are compared without regard to case: DL4J writes ``nin``, ``rnndataFormat`` or ``rnnDataFormat`` by version.
    """

    def __init__(self, values: Any, place: str, options: Options | None = None) -> None:
        if not isinstance(values, Mapping):
            raise DataError(f"{place}: an object must stand here, got {shorten(values)}")
        self.values = values
        self.place = place
        self.options = options or Options()
        self._left = {str(name).lower(): name for name in values}

    def take(self, name: str, default: Any = _MISSING) -> Any:
        """Return a property's value; null counts as missing where there is a default."""
        key = self._left.pop(name.lower(), None)
        value = None if key is None else self.values[key]
        if value is None:
            if default is _MISSING:
                raise DataError(f"{self.place}: {name} is missing")
            return default
        return value

    def ignore(self, *names: str) -> None:
        """Pass over properties that say nothing about what the network computes."""
        for name in names:
            self._left.pop(name.lower(), None)

    def integer(self, name: str, least: int = 0, default: Any = _MISSING) -> int:
        """Take an integer of at least `least`."""
        value = self.take(name, default)
        if value is default:
            return value  # type: ignore[no-any-return]
        return self._integer(name, value, least)

    def _integer(self, name: str, value: Any, least: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _LARGEST:
            raise DataError(f"{self.place}: {name} must be an integer of at least {least}, got {shorten(value)}")
        return value

    def integers(
        self, name: str, count: Sequence[int] = (), least: int = 0, default: Any = _MISSING
    ) -> tuple[int, ...]:
        """Take a list of integers, of one of the lengths in `count` if there are any."""
        value = self.take(name, default)
        if value is default:
            return value  # type: ignore[no-any-return]
        values = value if isinstance(value, list) else [value]
        if count and len(values) not in count:
            wanted = " or ".join(map(str, count))
            raise DataError(f"{self.place}: {name} must be a list of {wanted} integers, got {shorten(value)}")
        return tuple(self._integer(name, one, least) for one in values)

    def number(self, name: str, default: Any = _MISSING) -> float:
        """Take a finite number."""
        value = self.take(name, default)
        if value is default:
            return value  # type: ignore[no-any-return]
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise DataError(f"{self.place}: {name} must be a number, got {shorten(value)}")
        return float(value)

    def flag(self, name: str, default: Any = _MISSING) -> bool:
        """Take true or false."""
        value = self.take(name, default)
        if not isinstance(value, bool):
            raise DataError(f"{self.place}: {name} must be true or false, got {shorten(value)}")
        return value

    def text(self, name: str, default: Any = _MISSING) -> str:
        """Take a text."""
        value = self.take(name, default)
        if value is not default and not isinstance(value, str):
            raise DataError(f"{self.place}: {name} must be a text, got {shorten(value)}")
        return value  # type: ignore[no-any-return]

    def texts(self, name: str, default: Any = _MISSING) -> tuple[str, ...]:
        """Take a list of texts."""
        value = self.take(name, default)
        if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
            raise DataError(f"{self.place}: {name} must be a list of texts, got {shorten(value)}")
        return tuple(value)

    def choice(self, name: str, known: Sequence[str], default: Any = _MISSING) -> str:
        """Take one of the texts in `known`, without regard to case; any other is not read."""
        value = self.text(name, default)
        found = next((one for one in known if one.lower() == str(value).lower()), None)
        if found is None:
            raise unread(self.place, f"{name} {shorten(value)}", f"read are: {', '.join(known)}")
        return found

    def only(self, name: str, wanted: Any, advice: str) -> None:
        """Accept a property that is missing, null or `wanted`."""
        value = self.take(name, wanted)
        if not _same(value, wanted):
            raise unread(self.place, f"{name} {shorten(value)}", advice)

    def only_for_training(self, name: str, wanted: Any, what: str) -> None:
        """Accept anything but `wanted` only where the network is not to be trained."""
        value = self.take(name, wanted)
        if self.options.training and value != [] and not _same(value, wanted):
            raise self.untrained(f"{name} {shorten(value)} ({what})")

    def untrained(self, what: str) -> ConfigurationError:
        """Return the error for an option that training would need."""
        return unread(
            self.place, what, "load_dl4j(path, training=False) reads the network for predictions and scores alone"
        )

    def child(self, name: str, default: Any = _MISSING) -> Fields | None:
        """Take an object; None where it is missing and has a default."""
        value = self.take(name, default)
        return None if value is default and value is None else self.at(value, name)

    def at(self, value: Any, name: str) -> Fields:
        """Return an object within this one."""
        return Fields(value, f"{self.place}, {name}", self.options)

    def kind(self, package: str, known: Mapping[str, T], what: str) -> T:
        """Take ``@class`` and return what is known for that class.

        Parameters
        ----------
        package : str
            Java's package that the class must be in, or one below it; another's class is not DL4J's.
        known : mapping
            By simple name.
        what : str
            What it is, for errors.
        """
        name = self.text("@class")
        simple = name.rpartition(".")[2]
        if not name.startswith(f"{package}.") or simple not in known:
            raise unread(
                self.place,
                f"the {what} {shorten(name)}",
                f"read are: {', '.join(sorted(known))}; replace it in DL4J, or write the network as a torch module",
            )
        return known[simple]

    def done(self) -> None:
        """Make sure that nothing is left.

        Raises
        ------
        ConfigurationError
            Names the properties that nobody took.
        """
        left = [name for name in self._left.values() if self.values[name] is not None]
        if left:
            listed = ", ".join(f"{name} = {shorten(self.values[name], 80)}" for name in left[:10])
            raise unread(
                self.place,
                f"the option {listed}",
                "it is none of DL4J 1.0.0-M2's that are known; save the network with that version, or report it",
            )
