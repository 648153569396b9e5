"""Every exception Strombus raises on purpose; each one survives pickle, says what to do next and tells no password."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = [
    "ConfigurationError",
    "DataError",
    "EmptyDataError",
    "ExecutorError",
    "FitInterrupted",
    "GangError",
    "GangTimeout",
    "GangUnavailable",
    "MemberLost",
    "MissingDataError",
    "NonFiniteError",
    "PeerLost",
    "RunError",
    "StrombusError",
    "StrombusWarning",
    "TaskError",
    "UnfinishedExportError",
    "WireError",
    "hide_credentials",
    "kind_of",
    "nonfinite_of",
    "reason_of",
]

_USER = re.compile(r"(?<=://)(?:[^/?#]+|[^:/?#]+:.*)@")  # keys of S3 have slashes, which people forget to quote
_QUERY = re.compile(r"(?<=[?&])([\w.~%-]{1,100})=[^&#]+")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")


def hide_credentials(text: str) -> str:
    """Return a text with ``***`` for what stands before an @ in its URIs, and for the values of their queries.

    People write keys there (``s3://key:secret@bucket/data``, ``https://host/data?sig=...``); messages, logs and
    records are passed on.
    """
    if "://" not in text:
        return text
    return _URI.sub(lambda found: _QUERY.sub(r"\1=***", _USER.sub("***@", found[0])), text)


def _without_credentials(value: Any) -> Any:
    return hide_credentials(value) if isinstance(value, str) else value


class StrombusError(Exception):
    """Base of all errors that Strombus raises on purpose; see `hide_credentials` for what their texts leave out."""

    def __init__(self, *args: Any) -> None:
        self.args = tuple(map(_without_credentials, args))


class ConfigurationError(StrombusError, ValueError):
    """An option has a value that cannot work: wanted, got, and what to do."""


class DataError(StrombusError, ValueError):
    """Data that cannot be used as it is: shapes, lengths, types, corrupt parts."""


class MissingDataError(FileNotFoundError, DataError):
    """A path or URI where no data was found."""

    def __init__(self, *args: Any) -> None:
        StrombusError.__init__(self, *args)

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class EmptyDataError(DataError):
    """Data without a single example, where at least one is needed."""


class UnfinishedExportError(DataError):
    """A dataset directory without its manifest: an export that did not finish."""


class NonFiniteError(StrombusError, ArithmeticError):
    """A loss, a gradient, an update or a parameter became NaN or infinite.

    Parameters
    ----------
    message : str
        What became so, where, and what may help.
    what : {"", "loss", "gradient", "update", "parameters"}
    place : tuple of int or None
        The minibatch that is at fault, where one is: epoch and worker, both from zero, the round (or cell, or step)
        of the epoch, and the minibatch in it.
    """

    def __init__(self, message: str, what: str = "", place: tuple[int, int, int, int] | None = None) -> None:
        super().__init__(message, what, place)
        self.message = hide_credentials(message)
        self.what = what
        self.place = place

    def __str__(self) -> str:
        return self.message

    def at(self, place: tuple[int, int, int, int], blames: bool = True) -> NonFiniteError:
        """Return the error with its worker and epoch named; `blames` says whether that minibatch is at fault."""
        epoch, worker, *_ = place
        message = f"worker {worker}, epoch {epoch + 1}: {self.message}"
        return NonFiniteError(message, self.what, place if blames else None)


class ExecutorError(StrombusError, RuntimeError):
    """The engine under an executor cannot do what was asked."""


class GangUnavailable(ExecutorError):
    """Fewer free slots than members: names both numbers."""


class GangTimeout(TimeoutError, ExecutorError):
    """A wait of a gang passed its deadline: who was waited for, for what, how long, which option changes it."""

    def __init__(self, *args: Any) -> None:
        StrombusError.__init__(self, *args)

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class TaskError(ExecutorError):
    """A task failed on a worker.

    Parameters
    ----------
    message : str
        One line: which part, where, which error.
    part : int or None
        Number of the part whose task failed; None where results of several parts were merged.
    traceback : str
        The worker's traceback as text.
    """

    def __init__(self, message: str, part: int | None = None, traceback: str = "") -> None:
        super().__init__(message, part, traceback)
        self.message = hide_credentials(message)
        self.part = part
        self.traceback = hide_credentials(traceback)

    def __str__(self) -> str:
        return self.message


class GangError(TaskError):
    """A member of a gang failed; `part` is its rank.

    Attributes
    ----------
    results : mapping of int to object
        What other members had returned by then, by rank, where the engine still gave it.
    """

    results: Mapping[int, Any] = MappingProxyType({})


class MemberLost(GangError):
    """A member of a gang died, or was given up because it said nothing; `part` is its rank."""


class WireError(DataError):
    """Bytes from a peer that are not what they claim to be: truncated, corrupt, or of another kind."""


class PeerLost(ConnectionError, ExecutorError):
    """Another member of the gang can no longer be reached.

    Parameters
    ----------
    message : str
        Who was lost, in which step, after how long, which option changes the wait.
    rank : int or None
        The member that was lost.
    """

    def __init__(self, message: str, rank: int | None = None) -> None:
        StrombusError.__init__(self, message, rank)
        self.message = hide_credentials(message)
        self.rank = rank

    def __str__(self) -> str:
        return self.message


class RunError(StrombusError, RuntimeError):
    """A run directory that cannot be used: its run has ended, was begun before, or is another process's."""


def nonfinite_of(error: BaseException) -> NonFiniteError | None:
    """Return the error of numbers that are not finite which `error` is, or was caused by; engines wrap what comes."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, NonFiniteError):
        cause = cause.__cause__
    return cause


class FitInterrupted(StrombusError, RuntimeError):
    """A signal has ended a fit; what is left of it, and how to go on, is in the message.

    Parameters
    ----------
    message : str
    reason : str
        The signal's name, such as ``"SIGTERM"``.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message, reason)
        self.message = hide_credentials(message)
        self.reason = reason

    def __str__(self) -> str:
        return self.message


class StrombusWarning(UserWarning):
    """Something that works but is probably not what was meant."""


def reason_of(error: BaseException) -> str:
    """Return an error's class and text, for another message; many have no text, such as those of a timeout."""
    return ": ".join(filter(None, (type(error).__name__, str(error))))


def kind_of(value: object) -> str:
    """Return what an error calls a value that was given instead of another: its class, or that it is one."""
    return f"the class {value.__name__} itself" if isinstance(value, type) else type(value).__name__
