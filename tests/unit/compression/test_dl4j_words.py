"""DL4J's messages: its own words, decoded arrays and residuals; ours where DL4J loses something."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strombus.compression.dl4j_words import (
    HEADER,
    bitmap_length,
    read_words,
    take_bitmap_,
    take_sparse_,
    take_words_,
)
from strombus.errors import WireError

GOLDEN = {path.stem: json.loads(path.read_text()) for path in (Path(__file__).parents[2] / "golden/encoded").glob("*")}
TAKE = {"bitmap": take_bitmap_, "threshold": take_sparse_}


def values(array):
    return np.array([float(value) for value in array["values"]], np.float32)


@pytest.mark.parametrize("name", sorted(set(GOLDEN) - {"threshold_nothing"}))
def test_dl4js_words_and_residuals(name):
    golden = GOLDEN[name]
    residual = values(golden["updates"])
    words, sent = TAKE[golden["encoding"]](residual, golden["threshold"])
    assert words.tolist() == golden["encoded"]
    assert np.array_equal(residual, values(golden["residual_after"]))
    assert np.array_equal(sent, values(golden["decoded"]))
    assert np.array_equal(read_words(words, len(residual), np.float32), values(golden["decoded"]))


def test_nothing_is_a_message_without_elements():
    golden = GOLDEN["threshold_nothing"]
    residual = values(golden["updates"])
    words, sent = take_words_(residual, golden["threshold"])
    assert len(words) == HEADER
    assert not sent.any()
    assert np.array_equal(residual, values(golden["residual_after"]))


def test_one_element_alone_is_sent():
    residual = np.zeros(50, np.float32)
    residual[7] = -2.0
    words, _ = take_words_(residual, 1.5)
    assert words.tolist()[HEADER:] == [-8]
    assert residual[7] == -0.5


def test_what_dl4j_loses_stays():
    """160 elements, 12 at the threshold: DL4J's sparse message hits its limit of 10 and is thrown away."""
    residual = np.zeros(160, np.float32)
    residual[::13][:12] = 1.25
    before = residual.copy()
    words, _ = take_words_(residual, 1.0)
    assert len(words) == bitmap_length(160)
    assert np.array_equal(read_words(words, 160, np.float32) + residual, before)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from([1, 15, 16, 17, 31, 32, 500]),
    st.sampled_from([0.01, 0.5, 3.0]),
    st.integers(0, 1000),
    st.sampled_from([np.float32, np.float64]),
)
def test_a_message_and_the_residual_are_what_was_there(elements, threshold, seed, dtype):
    residual = np.random.default_rng(seed).normal(size=elements).astype(dtype)
    before = residual.copy()
    words, sent = take_words_(residual, threshold)
    assert len(words) <= bitmap_length(elements)
    assert np.array_equal(read_words(words, elements, dtype), sent)
    np.testing.assert_allclose(sent + residual, before, rtol=0, atol=np.finfo(dtype).eps * 8)
    assert np.all(np.abs(residual) <= np.abs(before))


def test_words_that_are_no_message_are_refused():
    sparse, _ = take_sparse_(np.array([2.0, 0, -2, 0, 2] * 10, np.float32), 1.0)
    bitmap, _ = take_bitmap_(np.array([2.0, 0, -2, 0, 2] * 10, np.float32), 1.0)
    damages = [
        sparse[:3], sparse[:-1], np.append(sparse, np.int32(51)), _with(sparse, 0, 3), _with(sparse, 1, 51),
        _with(sparse, 2, 0), _with(sparse, 2, -1), _with(sparse, 3, 2), _with(sparse, 4, 0), _with(sparse, 5, 1),
        _with(sparse, -1, 51), bitmap[:-1], _with(bitmap, 0, 49), _with(bitmap, -1, 1 << 10),
    ]  # fmt: skip
    for damaged in damages:
        with pytest.raises(WireError):
            read_words(damaged, 50, np.float32)


def _with(words, where, value):
    changed = words.copy()
    changed[where] = value
    return changed
