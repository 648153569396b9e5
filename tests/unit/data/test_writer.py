"""Objects of any size become parts without loss, and what cannot go together is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strombus.data.rows import rebatch
from strombus.data.writer import manifest_of, write_parts
from strombus.errors import DataError
from strombus.types import DataSet, MultiDataSet


def rows(start, count):
    ids = np.arange(start, start + count)
    return DataSet(ids[:, None], ids)


def objects(sizes):
    starts = np.cumsum([0, *sizes])
    return [rows(start, size) for start, size in zip(starts[:-1], sizes, strict=True)]


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(0, 40), max_size=12), batch=st.integers(1, 33))
def test_rebatch_keeps_every_row_in_order(sizes, batch):
    made = list(rebatch(objects(sizes), batch))
    assert [int(i) for rows in made for i in rows.labels] == list(range(sum(sizes)))
    assert all(rows.examples == batch for rows in made[:-1])


def test_parts_hold_whole_batches_but_for_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr("strombus.data.writer.PART_BYTES", 8 * 100)
    monkeypatch.setattr("strombus.data.writer.CHUNK_BYTES", 8)
    written = write_parts(objects([7, 0, 300, 1, 1, 60]), str(tmp_path), "x", batch_size=32)
    assert [part.examples for part in written.parts] == [96, 96, 96, 81]
    assert written.chunk_rows == 32


def test_two_attempts_never_share_a_name(tmp_path):
    first, second = (write_parts(objects([3]), str(tmp_path), "x") for _ in range(2))
    assert first.parts[0].name != second.parts[0].name
    assert len(list(tmp_path.iterdir())) == 2


def test_memory_stays_at_about_one_part(tmp_path, monkeypatch):
    """A generator that is consumed to the end before the first part is written would hold everything."""
    monkeypatch.setattr("strombus.data.writer.PART_BYTES", 8 * 64)
    monkeypatch.setattr("strombus.data.writer.CHUNK_BYTES", 8)
    ahead = []

    def generate():
        for start in range(0, 640, 10):
            ahead.append(start - 64 * len(list(tmp_path.iterdir())))
            yield rows(start, 10)

    write_parts(generate(), str(tmp_path), "x", batch_size=32)
    assert max(ahead) < 64 + 10


def test_a_generator_may_reuse_its_array(tmp_path):
    import zarr

    buffer = np.zeros((2, 1))

    def generate():
        for value in range(5):
            buffer[:] = value
            yield DataSet(buffer)

    part = write_parts(generate(), str(tmp_path), "x").parts[0]
    assert zarr.open_array(tmp_path / part.name / "features")[:, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize(
    "other",
    [
        DataSet(np.zeros((2, 2)), np.zeros(2, int)),
        DataSet(np.zeros((2, 1), np.float32), np.zeros(2, int)),
        DataSet(np.zeros((2, 1), int)),
        MultiDataSet([np.zeros((2, 1), int)], [np.zeros(2, int)]),
    ],
)
def test_objects_that_disagree_are_both_shown(tmp_path, other):
    with pytest.raises(DataError, match=r"DataSet\(features int64\[1\].*another object is") as caught:
        write_parts([rows(0, 2), other], str(tmp_path), "x")
    assert "must agree" in str(caught.value)


def test_writers_that_disagree_are_both_named(tmp_path):
    first = write_parts([rows(0, 2)], str(tmp_path), "x")
    second = write_parts([DataSet(np.zeros((2, 5)), np.zeros(2))], str(tmp_path), "x")
    with pytest.raises(DataError, match=f"{first.parts[0].name} is.*{second.parts[0].name} is"):
        manifest_of([first, second])


@pytest.mark.parametrize("values", [np.array(["a", "b"]), np.zeros((2, 0)), np.zeros(2, "datetime64[s]")])
def test_what_zarr_cannot_hold_is_refused(tmp_path, values):
    with pytest.raises(DataError, match=r"must be a regular numeric array|has no values"):
        write_parts([DataSet(values)], str(tmp_path), "x")


def test_nothing_at_all_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no examples at all"):
        manifest_of([write_parts([], str(tmp_path), "x"), write_parts([rows(0, 0)], str(tmp_path), "y")])
