"""Results in Zarr: pieces of attempts that count, and what is there only when it is whole."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from strombus.data import results
from strombus.data.results import PieceWriter, assemble, begin, end, plan_assembly, publish
from strombus.errors import DataError, EmptyDataError, ExecutorError


def write(folder, *columns):
    begin(str(folder))
    writer = PieceWriter(str(folder))
    for some in columns:
        writer.add(some)
    return writer.finish()


def finish(folder, pieces, to):
    assembly = plan_assembly(str(folder), pieces)
    for span in assembly.spans():
        assemble(assembly, span)
    return publish(assembly, str(to))


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(sum), small=st.booleans())
@settings(deadline=None, max_examples=15)
def test_rows_are_in_order_whatever_the_pieces(sizes, small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    numbers = np.arange(sum(sizes) * 3, dtype=np.float32).reshape(-1, 3)
    parts = np.split(numbers, np.cumsum(sizes)[:-1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "PIECE_BYTES", 200 if small else 1 << 20)
        patch.setattr(results, "CHUNK_BYTES", 60 if small else 1 << 18)
        pieces = [
            piece for part in parts for piece in write(folder / "job", {"output": part[:4]}, {"output": part[4:]})
        ]
        found = finish(folder / "job", pieces, folder / "result.zarr")
    assert isinstance(found, zarr.Array)
    np.testing.assert_array_equal(found[:], numbers)
    assert found.dtype == np.float32


def test_an_attempt_that_lost_its_race_leaves_no_trace(tmp_path):
    lost = write(tmp_path / "job", {"scores": np.zeros(10)})
    taken = write(tmp_path / "job", {"scores": np.arange(10.0)})
    assert lost[0].name != taken[0].name
    assembly = plan_assembly(str(tmp_path / "job"), taken)
    for span in assembly.spans() * 2:  # a task that runs twice
        assemble(assembly, span)
    assert not (tmp_path / "scores.zarr").exists()
    np.testing.assert_array_equal(publish(assembly, str(tmp_path / "scores.zarr"))[:], np.arange(10.0))
    with pytest.raises(DataError, match=r"scores\.zarr is there already"):
        publish(assembly, str(tmp_path / "scores.zarr"))


def test_a_task_that_comes_too_late_leaves_nothing(tmp_path):
    job, columns = tmp_path / "job", {"scores": np.zeros(10)}
    pieces, late = write(job, columns), PieceWriter(str(job))
    late.add(columns)
    assembly = plan_assembly(str(job), pieces)
    end(str(job))
    with pytest.raises(ExecutorError, match="has ended"):
        late.finish()
    assert list(tmp_path.iterdir()) == []
    write(job, columns)
    (job / "marker").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        assemble(assembly, (0, 10))


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        (["a", "bcd"], ["", "ü" * 40], ["a", "bcd", "", "ü" * 40]),
        ([1, 2], [2.5, 3], [1, 2, 2.5, 3]),
        ([True], [False], [True, False]),
    ],
)
def test_keys_are_strings_or_numbers(tmp_path, first, second, wanted):
    pieces = [
        piece
        for keys in (first, second)
        for piece in write(tmp_path / "job", {"scores": np.ones(len(keys)), "keys": np.array(keys)})
    ]
    group = finish(tmp_path / "job", pieces, tmp_path / "keyed.zarr")
    assert list(group["keys"][:]) == wanted
    assert group["scores"].shape == (len(wanted),)


def test_what_makes_no_array_is_refused(tmp_path):
    def pieces(*columns):
        return [piece for some in columns for piece in write(tmp_path / "job", some)]

    with pytest.raises(DataError, match="one shape"):
        plan_assembly(str(tmp_path / "job"), pieces({"output": np.ones((2, 3))}, {"output": np.ones((2, 4))}))
    with pytest.raises(DataError, match="all strings or all numbers, got float64, string"):
        plan_assembly(str(tmp_path / "job"), pieces({"keys": np.array(["a"])}, {"keys": np.ones(1)}))
    with pytest.raises(EmptyDataError, match="no examples"):
        plan_assembly(str(tmp_path / "job"), pieces({"output": np.ones((0, 3))}))
