"""DL4J's network configuration: what of it acts, and the closed list of what does not."""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

from strombus.compat.dl4j.beans import checked, getter, setter
from strombus.compat.dl4j.enumerations import MeshBuildMode, TransportType
from strombus.errors import ConfigurationError, StrombusWarning
from strombus.masters.dl4j_files import from_dl4j
from strombus.transport import TransportOptions

__all__ = [
    "EnvironmentVarPortSupplier",
    "PortSupplier",
    "StaticPortSupplier",
    "VoidConfiguration",
    "VoidConfigurationBuilder",
    "warn_inert",
]

INERT = frozenset(
    {
        "backupAddresses",
        "chunksBufferSize",
        "executionMode",
        "faultToleranceStrategy",
        "forcedRole",
        "multicastInterface",
        "multicastNetwork",
        "multicastPort",
        "numberOfShards",
        "shardAddresses",
        "streamId",
        "ttl",
        "useHS",
        "useNS",
    }
)
"""Properties that are taken and warned about, and do nothing."""


def warn_inert(name: str, stacklevel: int = 3) -> None:
    """Warn that a property of DL4J's does nothing here; Python shows it once for each line that sets it."""
    warnings.warn(f"{name} has no effect: DL4J has it, and here nothing needs it", StrombusWarning, stacklevel)


class PortSupplier(ABC):
    """Where the members listen."""

    @abstractmethod
    def getPort(self) -> int:
        """Return the port; asked once, on the driver, when the master is built."""


@dataclass(frozen=True)
class StaticPortSupplier(PortSupplier):
    """One port, on which each member listens.

    Raises
    ------
    ConfigurationError
        For a port that does not lie within 1 to 65535.
    """

    port: int = 49876

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise ConfigurationError(f"a port lies within 1 to 65535, got {self.port}")

    def getPort(self) -> int:
        """Return the port."""
        return self.port


@dataclass(frozen=True)
class EnvironmentVarPortSupplier(PortSupplier):
    """A port that an environment variable of the driver holds."""

    varName: str

    def getPort(self) -> int:
        """Return the port; ConfigurationError where the variable holds none."""
        text = os.environ.get(self.varName, "")
        if not text.isdigit():
            raise ConfigurationError(f"the environment variable {self.varName} must hold a port, got {text!r}")
        return StaticPortSupplier(int(text)).port


class VoidConfiguration(BaseModel):
    """How members of shared training reach each other, as DL4J writes it; see `strombus.TransportOptions`.

    Every property has a getter and a setter (``getNetworkMask``, ``setNetworkMask``, ``isUseHS``), and is an attribute.

    Parameters
    ----------
    unicastControllerPort : int
        A port on which each member listens; DL4J's own, 49876, stands for any that is free.
    portSupplier : PortSupplier
        The same, and stands above it.
    transportType : TransportType
        Anything but ROUTED_UDP is refused, unless the master's ``transport`` names one of ours.
    meshBuildMode : MeshBuildMode
        MESH is a tree of members. PLAIN is a star around the driver where a controller's address is given, and else the
        shape that suits their number.
    networkMask : str
        A network in which every member has an address. Without a length it is that of 24 bits, as in DL4J.
    controllerAddress : str
        An address that every member reaches.
    responseTimeout : int
        Milliseconds to meet the others, and to hand over one message.

    Notes
    -----
    The rest of the properties have no effect, most of them none in DL4J either. Setting one warns; for maxChunkSize,
    retransmitTimeout and responseTimeframe the warning comes with the master and names what to use instead.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True, arbitrary_types_allowed=True)

    # In the order of DL4J's constructor, and with its defaults.
    streamId: int = -1
    unicastControllerPort: int = Field(default=49876, ge=0, le=65535)
    multicastPort: int = 59876
    numberOfShards: int = 1
    faultToleranceStrategy: str | None = "NONE"
    executionMode: str | None = "SHARDED"
    shardAddresses: Any = ()
    backupAddresses: Any = ()
    transportType: TransportType = TransportType.ROUTED_UDP
    meshBuildMode: MeshBuildMode = MeshBuildMode.PLAIN
    networkMask: str | None = None
    multicastNetwork: str | None = "224.0.1.1"
    multicastInterface: str | None = None
    ttl: int = 4
    forcedRole: str | None = None
    useHS: bool = False
    useNS: bool = False
    retransmitTimeout: int = 1000
    responseTimeframe: int = 500
    responseTimeout: int = 30000
    chunksBufferSize: int = 1 << 30
    maxChunkSize: int = 65536
    maxFailuresPerNode: int = 3
    controllerAddress: str | None = None
    portSupplier: PortSupplier = StaticPortSupplier()

    def __init__(self, *values: Any, **options: Any) -> None:
        names = tuple(type(self).model_fields)
        if len(values) not in (0, len(names)):
            raise ConfigurationError(
                f"VoidConfiguration is made of {len(names)} values in a row or of named ones, got {len(values)} values"
            )
        given = {**dict(zip(names, values, strict=False)), **options}
        with checked(type(self)):
            super().__init__(**given)
        for name in sorted(INERT & given.keys()):
            warn_inert(name)

    @field_validator("networkMask")
    @classmethod
    def _with_length(cls, value: str | None) -> str | None:
        return value if not value or "/" in value else f"{value.rpartition('.')[0]}.0/24"

    @classmethod
    def builder(cls) -> VoidConfigurationBuilder:
        """Return a builder: one method for each property."""
        return VoidConfigurationBuilder()

    @classmethod
    def of(cls, options: TransportOptions) -> Self:
        """Return the configuration that comes to `options`, as far as DL4J has words for them."""
        words = {
            "controllerAddress": options.controller_address,
            "meshBuildMode": MeshBuildMode.MESH if options.topology == "tree" else None,
            "networkMask": options.network_mask,
            "portSupplier": StaticPortSupplier(options.ports[0]) if options.ports else None,
            "responseTimeout": round(1000 * options.send_timeout),
        }
        return cls(**{name: value for name, value in words.items() if value is not None})

    def toTransportOptions(self) -> TransportOptions:
        """Return what was set as options of a transport, as a file of DL4J's is read."""
        return TransportOptions(**from_dl4j({"voidConfiguration": self.properties()})["transportOptions"])

    def properties(self) -> dict[str, Any]:
        """Return the properties that were set and act, as DL4J writes them."""
        found = {name: getattr(self, name) for name in self.model_fields_set - INERT}
        if "portSupplier" in found:
            found["portSupplier"] = {"port": self.portSupplier.getPort()}
        return found

    if TYPE_CHECKING:  # the accessors, which are made below

        def __getattr__(self, name: str) -> Any: ...

    def _change(self, name: str, value: Any) -> None:
        with checked(type(self)):
            setattr(self, name, value)
        if name in INERT:
            warn_inert(name, stacklevel=4)


class VoidConfigurationBuilder:
    """Gather properties, one method for each; what is called last stands."""

    def __init__(self) -> None:
        self._options: dict[str, Any] = {}

    def unicastPort(self, port: int) -> Self:
        """Set the port on which each member listens; here it is the one that is used (DL4J stays at 49876)."""
        self._options["portSupplier"] = StaticPortSupplier(port)
        return self

    def build(self) -> VoidConfiguration:
        """Return the configuration; ConfigurationError for a value that cannot work."""
        return VoidConfiguration(**self._options)

    if TYPE_CHECKING:  # one method for each property

        def __getattr__(self, name: str) -> Any: ...


def _adder(name: str) -> Callable[..., VoidConfigurationBuilder]:
    def add(self: VoidConfigurationBuilder, *values: Any) -> VoidConfigurationBuilder:
        self._options[name] = values[0] if len(values) == 1 else values
        return self

    add.__doc__ = f"Set `{name}`{' (without effect)' if name in INERT else ''}."
    return add


# Fifty accessors and five and twenty methods that differ in a name: written out, they would hide what there is to read.
for _name, _field in VoidConfiguration.model_fields.items():
    _tail = _name[0].upper() + _name[1:]
    setattr(VoidConfiguration, f"{'is' if _field.annotation is bool else 'get'}{_tail}", getter(_name))
    setattr(VoidConfiguration, f"set{_tail}", setter(_name))
    setattr(VoidConfigurationBuilder, _name, _adder(_name))
