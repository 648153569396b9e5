"""Stages on disk: params as JSON, a network's values as safetensors, both written by Spark."""

from __future__ import annotations

import copy
import importlib
import posixpath
import tempfile
from pathlib import Path
from typing import Any, Self

from pyspark.ml.util import DefaultParamsReader, DefaultParamsWriter, MLReader, MLWriter

from strombus.documents import DocumentError, parse_json, shorten
from strombus.errors import ConfigurationError, DataError
from strombus.masters import masters
from strombus.networks import Network

__all__ = ["NetworkReader", "NetworkWriter", "imported"]

LONGEST = 1 << 20
"""Characters of a stage's params."""

CHUNK = 8 << 20
"""Bytes of the weights in one row of what is saved."""


def imported(path: str) -> Any:
    """Call the function at ``"package.module:function"``."""
    module, separator, name = path.partition(":")
    try:
        if not separator:
            raise AttributeError("it has no colon")
        make = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"network must be the import path of a function, 'package.module:function'; got {path!r}: {error}"
        ) from error
    return make()


class NetworkWriter(MLWriter):  # type: ignore[misc]
    """Write ``metadata`` (JSON) and ``weights`` (a safetensors file in rows of bytes) through Spark.

    So both lie where Spark's paths lead, whatever storage that is, and also where a Connect client has none of it.
    """

    def __init__(self, instance: Any) -> None:
        super().__init__()
        self.instance = instance

    def save(self, path: str) -> None:
        """Write to `path`; after ``overwrite()`` also over what is there."""
        one, session = self.instance, self.sparkSession
        mode = "overwrite" if self.shouldOverwrite else "errorifexists"
        metadata = DefaultParamsWriter._get_metadata_to_save(one, session, self._extra(), one.plain_params())
        lines = session.createDataFrame([(metadata,)], ["value"])
        lines.coalesce(1).write.mode(mode).text(posixpath.join(path, "metadata"))
        data = _serialized(one.make_network())
        rows = [(at // CHUNK, bytearray(data[at : at + CHUNK])) for at in range(0, len(data), CHUNK)]
        chunks = session.createDataFrame(rows, "chunk long, data binary")
        chunks.write.mode(mode).parquet(posixpath.join(path, "weights"))

    def _extra(self) -> dict[str, Any]:
        one = self.instance
        given = one.getOrDefault(one.network)
        extra = {"network": getattr(one, "made_by", None) or (given if isinstance(given, str) else None)}
        if one.hasParam("master") and one.isDefined(one.master):
            master = one.getOrDefault(one.master)
            extra["master"] = {"type": master.name, "options": master.to_dict()}
        return extra


class NetworkReader(MLReader):  # type: ignore[misc]
    """Read what `NetworkWriter` wrote; nothing in it is unpickled."""

    def __init__(self, kind: type[Any]) -> None:
        super().__init__()
        self._kind = kind
        self._network: Network | None = None

    def network(self, network: Network) -> Self:
        """Load the values into (a copy of) `network`, instead of one made by the import path that was saved."""
        self._network = network
        return self

    def load(self, path: str) -> Any:
        """Return the instance that was saved to `path`."""
        session = self.sparkSession
        text = session.read.text(posixpath.join(path, "metadata")).first()[0]
        try:
            metadata = parse_json(text, LONGEST, finite=False)
        except DocumentError as error:
            raise DataError(f"{path}/metadata cannot be read: {error}") from None
        wanted = f"{self._kind.__module__}.{self._kind.__name__}"
        if not isinstance(metadata, dict) or metadata.get("class") != wanted:
            raise DataError(f"{path} holds {shorten(metadata)}, not a {wanted}")
        rows = session.read.parquet(posixpath.join(path, "weights")).orderBy("chunk").collect()
        instance = self._kind(network=self._filled(metadata["network"], b"".join(row.data for row in rows), path))
        instance._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(instance, metadata, ["network"])
        instance.made_by = metadata["network"]
        if (master := metadata.get("master")) is not None:
            instance._set(master=masters[master["type"]].from_dict(master["options"]))
        return instance

    def _filled(self, made_by: str | None, data: bytes, path: str) -> Network:
        if self._network is None and made_by is None:
            raise ConfigurationError(
                f"{path} was saved with a network that no import path makes: give one of the same architecture, "
                f"{self._kind.__name__}.read().network(network).load(path), or train with "
                "network='package.module:function'"
            )
        network: Network = copy.deepcopy(self._network) if self._network is not None else imported(str(made_by))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "network.safetensors"
            file.write_bytes(data)
            return network.load(file)


def _serialized(network: Network) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.safetensors"
        network.save(file)
        return file.read_bytes()
