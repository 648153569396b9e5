"""What is done around every call: pickling with a useful error, failures as values, torch's state kept."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from strombus.errors import ConfigurationError, TaskError
from strombus.executors.calls import Failure, dump, load, run_task, torch_guard
from strombus.executors.values import FileValue, LoadOnce, Packed, write_file

nested = st.recursive(
    st.integers() | st.text() | st.binary() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def test_the_error_leads_to_what_cannot_be_pickled() -> None:
    value = types.SimpleNamespace(layers=[{"a": 1}, {"guard": threading.Lock()}])
    with pytest.raises(ConfigurationError, match=r"network\.layers\[1\]\['guard'\] of type _thread\.lock"):
        dump(value, "network")
    lock = threading.Lock()
    with pytest.raises(ConfigurationError, match=r"task variable lock of type _thread\.lock"):
        dump(lambda: lock, "task")


def test_a_failure_carries_the_exception_where_it_can_travel() -> None:
    class Stubborn(Exception):
        def __reduce__(self) -> str:
            raise TypeError("no")

    def fail(_: object, part: BaseException) -> None:
        raise part

    failure = run_task(fail, KeyError("k"), 4, lambda: None)
    error = pickle.loads(pickle.dumps(failure)).to_error()
    assert isinstance(error, TaskError)
    assert isinstance(error.__cause__, KeyError)
    assert error.part == 4
    assert "in fail" in error.traceback
    stubborn = run_task(fail, Stubborn("s"), 4, lambda: None)
    assert isinstance(stubborn, Failure)
    assert stubborn.to_error().__cause__ is None
    assert "Stubborn: s" in str(stubborn.to_error())


def test_torch_state_is_kept_also_when_a_task_fails() -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()

    def fail() -> None:
        with torch_guard(threads + 1):
            assert torch.get_num_threads() == threads + 1
            torch.rand(3)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_torch_is_not_imported_for_its_state() -> None:
    code = (
        "import sys\n"
        "from strombus.executors.calls import run_task\n"
        "from strombus.executors import resolve\n"
        "assert run_task(lambda s, p: p, 1, 0, lambda: None, 2) == 1\n"
        "assert resolve('local', 1).name == 'local'\n"
        "print([name for name in ('torch', 'distributed', 'pyspark') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@settings(max_examples=25, deadline=None)
@given(nested, st.lists(st.integers(0, 3000), max_size=3))
def test_values_survive_the_file_and_the_engine(tmp_path_factory: pytest.TempPathFactory, value: object, sizes) -> None:
    arrays = [np.arange(size, dtype=np.float32) for size in sizes]
    packed = Packed.of((value, arrays))
    path = write_file(packed, tmp_path_factory.mktemp("values"))
    blob = pickle.dumps(packed, protocol=5)
    again = pickle.loads(pickle.dumps(pickle.loads(blob), protocol=5))
    for found, found_arrays in (FileValue(path)._load(), load(again.head, again.buffers)):
        assert found == value
        assert all(np.array_equal(one, two) for one, two in zip(arrays, found_arrays, strict=True))
        assert all(array.flags.writeable for array in found_arrays)


def test_a_process_keeps_the_values_used_last() -> None:
    kept, made = LoadOnce(2), []

    def get(key: str) -> str:
        return kept.get(key, lambda: made.append(key) or key)

    for key in "abaca":
        assert get(key) == key
    assert made == ["a", "b", "c"]
    get("b")
    assert made == ["a", "b", "c", "b"]
