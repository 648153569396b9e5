"""DL4J's messages: its own words, decoded arrays and residuals; ours where DL4J loses something."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strombus.compression.thresholds import AdaptiveThresholdAlgorithm, ThresholdState
from strombus.errors import DataError, WireError
from strombus.interchange.dl4j.messages import (
    HEADER,
    bitmap_length,
    dump_words,
    load_words,
    read_words,
    take_bitmap_,
    take_sparse_,
    take_words_,
)
from strombus.interchange.dl4j.ndarray import write_ndarray

FOLDER = Path(__file__).parents[3] / "golden/encoded"
TAKE = {"bitmap": take_bitmap_, "threshold": take_sparse_}
MESSAGES = [
    "bitmap_16",
    "bitmap_17",
    "bitmap_at_boundary",
    "bitmap_dense",
    "bitmap_odd_length",
    "threshold_at_boundary",
    "threshold_dense_64",
    "threshold_few",
    "threshold_one_element",
    "threshold_sparse",
]


def read(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


def values(array):
    return np.array([float(value) for value in array["values"]], np.float32)


def test_every_file_of_the_folder_is_named_here():
    files = {f"{name}{end}" for name in MESSAGES for end in (".json", ".ndarray.bin")}
    assert {path.name for path in FOLDER.iterdir()} == files | {"threshold_nothing.json", "handler_trace_adaptive.json"}


@pytest.mark.parametrize("name", MESSAGES)
def test_dl4js_words_and_residuals(name):
    golden, residual = read(name), values(read(name)["updates"])
    words, sent = TAKE[golden["encoding"]](residual, golden["threshold"])
    theirs = golden["encoded"]
    # DL4J's threads end in any order, and each writes the elements of its own stretch.
    assert words.tolist() == theirs[:HEADER] + sorted(theirs[HEADER:], key=abs if words[3] == 0 else theirs.index)
    assert np.array_equal(residual, values(golden["residual_after"]))
    for message in (words, np.array(theirs, np.int32)):
        assert np.array_equal(read_words(message, len(residual), np.float32), values(golden["decoded"]))
    assert np.array_equal(sent, values(golden["decoded"]))


@pytest.mark.parametrize("name", MESSAGES)
def test_bytes_between_here_and_a_jvm(name):
    data, theirs = (FOLDER / f"{name}.ndarray.bin").read_bytes(), np.array(read(name)["encoded"], np.int32)
    assert load_words(data).tolist() == theirs.tolist()
    assert dump_words(theirs) == data
    for length in range(len(data)):
        with pytest.raises(DataError, match="byte"):
            load_words(data[:length])


def test_an_array_that_is_no_row_of_words_is_refused():
    target = io.BytesIO()
    write_ndarray(target, np.zeros((2, 3), np.float32))
    with pytest.raises(DataError, match=r"must be a row of 32-bit words, got float32 of shape \(2, 3\)"):
        load_words(target.getvalue())


def test_the_trace_of_dl4js_handler_step_by_step():
    """Its threshold, the kind and the head of each message, and what clipping leaves, with our additions off.

    The updates are not in the trace: how many elements a message names is taken from it, all else follows.
    """
    algorithm = AdaptiveThresholdAlgorithm(initial_threshold=1e-3)  # a number: no warm start, and no bound is near
    state, steps, elements = ThresholdState(), read("handler_trace_adaptive")["steps"], 20_000
    assert len(steps) == 60
    for number, step in enumerate(steps):
        threshold = algorithm.next(state)
        assert np.float32(threshold) == np.float32(step["threshold"])
        count, total, bits, kind = step["header"]
        assert (total, bits) == (elements, np.float32(threshold).view(np.int32))
        quantum = float(np.float32(threshold))
        taken = step["residual_norm1_before"] - step["residual_norm1_after"]
        if kind == 0:
            assert step["message_length"] == HEADER + count < bitmap_length(elements)
            rounding = 1e-6 * step["residual_norm1_before"]
            assert taken >= count * quantum - rounding
            if number % 5:  # every fifth step clips too
                assert taken == pytest.approx(count * quantum, abs=rounding)
        else:
            assert step["message_length"] == bitmap_length(elements)
            assert count == elements
        # DL4J counts the head of a message in, and takes 1 in 16 for a bitmap.
        share = step["message_length"] / elements if kind == 0 else 1 / 16
        state = ThresholdState(threshold, share, number + 1)


def test_nothing_is_a_message_without_elements():
    golden = read("threshold_nothing")
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
