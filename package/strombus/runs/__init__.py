"""Run directories: what a fit that has a name leaves behind."""

from strombus.runs.lease import Lease
from strombus.runs.run import CONFIG, METRICS, RESULT, Run, open_run, plain

__all__ = ["CONFIG", "METRICS", "RESULT", "Lease", "Run", "open_run", "plain"]
