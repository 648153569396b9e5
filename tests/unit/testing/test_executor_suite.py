"""The suite cannot be weakened by a subclass without saying so, and its own arithmetic is right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from strombus.testing import faults
from strombus.testing.executor_suite import ExecutorSuite, ScriptedControl, fold


def test_a_case_cannot_be_overridden() -> None:
    with pytest.raises(TypeError, match=r"cannot be overridden: test_close_twice; use `unsupported`"):
        type("TestMine", (ExecutorSuite,), {"test_close_twice": lambda self: None})


def test_a_gap_must_name_a_case() -> None:
    with pytest.raises(TypeError, match="names no case of ExecutorSuite: test_gang"):
        type("TestMine", (ExecutorSuite,), {"unsupported": {"test_gang": "why"}})


def test_a_declared_gap_is_skipped_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "import pytest\n"
        "from strombus.executors.local import LocalExecutor\n"
        "from strombus.testing.executor_suite import ExecutorSuite\n"
        "@pytest.fixture(scope='module')\n"
        "def make_executor():\n"
        "    return lambda: LocalExecutor(workers=1)\n"
        "class TestMine(ExecutorSuite):\n"
        "    unsupported = {'test_no_parts_no_results': 'cannot count to nought'}\n"
    )
    command = [sys.executable, "-m", "pytest", "-rs", "-k", "no_parts or close_twice", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert "1 passed, 1 skipped" in done.stdout, done.stdout
    assert "cannot count to nought" in done.stdout


def test_fold_follows_the_plan() -> None:
    def join(left: str, right: str) -> str:
        return f"({left}{right})"

    assert fold("abcde", join, 1) == "((((ab)c)d)e)"
    assert fold("abcde", join, 2) == "(((ab)c)(de))"
    assert fold("abcde", join, 3) == "(((ab)(cd))e)"
    assert fold("a", join, 2) == "a"


def test_a_scripted_control_hands_out_its_commands_once() -> None:
    control = ScriptedControl(0.0, ["go"], stop=True)
    assert (control.stopping(), control.commands(), control.commands()) == (True, ["go"], [])
    assert ScriptedControl(60.0, ["go"], stop=True).commands() == []


def test_a_killed_process_is_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    faults.kill_process(process.pid)
    assert process.wait(5) == -9
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
