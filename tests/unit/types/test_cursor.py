"""A cursor as JSON: what was written comes back, and nothing else is taken for one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strombus.errors import DataError
from strombus.types import Cursor

counts = st.integers(0, 2**40)
spans = st.tuples(counts, st.integers(1, 99)).map(lambda pair: (pair[0], sum(pair)))
cursors = st.builds(
    Cursor, counts, counts, counts, st.lists(st.lists(spans, max_size=3).map(tuple), max_size=4).map(tuple)
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(cursors)
def test_what_was_written_comes_back(cursor):
    assert Cursor.from_dict(json.loads(json.dumps(cursor.to_dict()))) == cursor


@given(cursors, st.sampled_from(["epoch", "number", "workers", "left"]), values)
def test_anything_else_is_refused_or_a_cursor(cursor, name, value):
    try:
        found = Cursor.from_dict({**cursor.to_dict(), name: value})
    except DataError:
        return
    assert type(value) in (int, list)
    assert Cursor.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize("left", [7, None, [3], [[3]], [[[1]]], [[[2, 1]]], [[[1, 1]]], [[[-1, 1]]], [[["0", "1"]]]])
def test_stretches_that_are_none(left):
    with pytest.raises(DataError, match="no place in an epoch"):
        Cursor.from_dict({"epoch": 0, "number": 1, "workers": 1, "left": left})
    with pytest.raises(DataError, match="no place in an epoch"):
        Cursor.from_dict({})
