"""Run every benchmark and print one table of ratios; each peer runs in the same process or beside it, in turn.

python tests/benchmarks/run.py [NAME ...] [--digits FOLDER]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main(arguments: list[str]) -> int:
    names = [a for a in arguments if not a.startswith("-") and (HERE / f"{a}.py").exists()]
    options = [a for a in arguments if a not in names]
    known = sorted(path.stem for path in HERE.glob("*.py") if path.stem != "run" and "__main__" in path.read_text())
    print(f"{'what: peer':<58} {'ours':>9} {'peer':>9} {'unit':<11} ratio (lowest-highest)  target")
    failed = 0
    for name in names or known:
        takes_digits = "--digits" in (HERE / f"{name}.py").read_text()
        command = [sys.executable, str(HERE / f"{name}.py"), *(options if takes_digits else [])]
        failed += subprocess.run(command, check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
