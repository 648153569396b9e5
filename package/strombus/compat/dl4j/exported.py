"""The export of a collection that is fitted again and again, one epoch at a time, kept as DL4J's masters keep it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

from strombus.data import NativeCollection, Source, open_source
from strombus.executors.base import Executor
from strombus.exporting import readable_source
from strombus.trainer import Trainer

__all__ = ["KeepingTrainer", "KeptExport", "KeptExports"]


class KeptExport:
    """The RDD, Bag or DataFrame that was fitted last, and its export.

    The files are removed by `remove`, when another collection takes the place, and at the latest when this object
    is collected or the program ends.
    """

    def __init__(self) -> None:
        self._data: Any = None
        self._collection: NativeCollection | None = None
        self._exported: Source | None = None
        self._close: Callable[[], object] | None = None

    def opened(self, data: Any) -> Any:
        """Return `data` as the core opens it: the same collection where it is the object that came last."""
        if data is not self._data or self._collection is None:
            source = open_source(data)
            if not isinstance(source, NativeCollection):
                return source
            self.remove()
            self._data, self._collection = data, source
        return self._collection

    def readable(self, source: Any, executor: Executor, **options: Any) -> AbstractContextManager[Source]:
        """Give `source` as `readable_source` does; the export of the collection stays afterwards."""
        if source is not self._collection:
            return readable_source(source, executor, **options)
        if self._exported is None:
            with ExitStack() as stack:
                self._exported = stack.enter_context(readable_source(source, executor, **options))
                self._close = weakref.finalize(self, stack.pop_all().close)
        return nullcontext(self._exported)

    def remove(self) -> None:
        """Remove the files, and forget the collection; a second call does nothing."""
        close, self._close = self._close, None
        self._data = self._collection = self._exported = None
        if close is not None:
            close()


class KeptExports(weakref.WeakSet[KeptExport]):
    """What is kept for a master; a copy of that, in a file or in another process, starts with nothing."""

    def __reduce__(self) -> tuple[Any, ...]:
        return KeptExports, ()


class KeepingTrainer(Trainer):
    """A trainer that exports a collection once, however often it is fitted."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.kept = KeptExport()

    def fit(self, data: Any, *arguments: Any, **options: Any) -> Any:
        """Train; see `strombus.Trainer.fit`."""
        return super().fit(self.kept.opened(data), *arguments, **options)

    def _readable(self, source: Any, executor: Executor, **options: Any) -> AbstractContextManager[Source]:
        return self.kept.readable(source, executor, **options)

    def close(self) -> None:
        """Remove what was exported, and close the backend if this trainer opened it."""
        self.kept.remove()
        super().close()
