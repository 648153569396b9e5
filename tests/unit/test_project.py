"""The project's own promises: layers, names, docstrings, errors, a quick command line."""

from __future__ import annotations

import ast
import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import strombus
from strombus import errors

ROOT = Path(__file__).parents[2]
PACKAGE = Path(strombus.__file__).parent


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


def test_the_package_is_the_installed_one():
    assert not any(name == "package" or name.startswith("package.") for name in sys.modules)


@pytest.mark.parametrize(
    "command",
    [("lint-imports", "--no-cache"), ("ruff", "check", "package", "tests", "examples"), ("mypy",)],
    ids=lambda command: command[0],
)
def test_checkers_are_content(command):
    program = Path(sys.executable).with_name(command[0])
    if not program.exists():
        pytest.skip(f"{command[0]} is not installed: the extra 'check' brings it")
    result = run(str(program), *command[1:])
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_public_name_exists_and_is_documented():
    assert set(strombus.__all__) == {"__version__", *strombus._WHERE}
    for name in strombus.__all__:
        value = getattr(strombus, name)
        if name != "__version__":
            assert inspect.getdoc(value), name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = strombus.nothing


def test_importing_strombus_does_not_import_torch():
    code = "import strombus, strombus.cli, sys; assert not {'torch', 'dask', 'zarr', 'pyspark'} & set(sys.modules)"
    result = run(sys.executable, "-c", code)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", [name for name in errors.__all__ if inspect.isclass(getattr(errors, name))])
def test_every_exception_survives_pickle(name):
    kind = getattr(errors, name)
    error = pickle.loads(pickle.dumps(kind("what happened")))
    assert (type(error), str(error)) == (kind, "what happened")


def test_a_task_error_keeps_part_and_traceback():
    error = pickle.loads(pickle.dumps(errors.TaskError("part 3 failed", 3, "Traceback ...")))
    assert (error.part, error.traceback, str(error)) == (3, "Traceback ...", "part 3 failed")


def test_every_module_says_what_it_is_for():
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), f"{path.relative_to(PACKAGE)} has no docstring"


def test_no_file_is_too_long_to_read():
    long = {
        str(p.relative_to(PACKAGE)): n for p in PACKAGE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 400
    }
    assert not long
