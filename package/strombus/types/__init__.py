"""Plain records that several packages share: data in, state out, no behaviour of an engine."""

from strombus.types.capacity import Capacity
from strombus.types.clock import ClockBounds
from strombus.types.cursor import Cursor
from strombus.types.dataset import Columns, DataSet, MultiDataSet, from_columns
from strombus.types.epoch_length import EpochLength
from strombus.types.event import Event
from strombus.types.finding import Finding
from strombus.types.native import NativePartition
from strombus.types.partition import Block, Partition
from strombus.types.report import WorkerReport
from strombus.types.state import NetworkState, UpdaterState

__all__ = [
    "Block",
    "Capacity",
    "ClockBounds",
    "Columns",
    "Cursor",
    "DataSet",
    "EpochLength",
    "Event",
    "Finding",
    "MultiDataSet",
    "NativePartition",
    "NetworkState",
    "Partition",
    "UpdaterState",
    "WorkerReport",
    "from_columns",
]
