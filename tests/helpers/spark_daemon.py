"""What Spark's executors fork Python workers from, with what these come to import imported before the fork.

Spark ends a worker under which a task failed, or that was idle for a minute: the next would import torch for seconds.
"""

from __future__ import annotations

from importlib import import_module

from pyspark.daemon import manager

if __name__ == "__main__":
    # torch imports the last one for its first optimizer.
    for name in ("strombus.worker.averaging", "strombus.worker.sharing", "torch._dynamo"):
        import_module(name)
    manager()
