"""Run directories: what a fit that has a name leaves behind."""

from strombus.runs.checkpoint_config import CheckpointConfig, Interval
from strombus.runs.checkpoints import Checkpoint, CheckpointStore, Draft, digest
from strombus.runs.lease import Lease
from strombus.runs.run import CONFIG, METRICS, RESULT, FinishedRun, Run, open_run, path_of, plain, read_result
from strombus.runs.saving import MODEL, Saving, member_file

__all__ = [
    "CONFIG",
    "METRICS",
    "MODEL",
    "RESULT",
    "Checkpoint",
    "CheckpointConfig",
    "CheckpointStore",
    "Draft",
    "FinishedRun",
    "Interval",
    "Lease",
    "Run",
    "Saving",
    "digest",
    "member_file",
    "open_run",
    "path_of",
    "plain",
    "read_result",
]
