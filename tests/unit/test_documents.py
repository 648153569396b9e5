"""JSON and YAML from anywhere: what is read, and that nothing else costs time or memory."""

from __future__ import annotations

import contextlib
import json
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from strombus.documents import DocumentError, parse_json, parse_yaml, shorten
from strombus.errors import DataError
from strombus.files import read_whole

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 10))

texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=5)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(plain)
def test_plain_values_come_back(value):
    assert parse_yaml(yaml.safe_dump(value), 10**6) == value
    if "Infinity" not in json.dumps(value):
        assert parse_json(json.dumps(value), 10**6) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "levels deep"),
        ("[" * 70 + "]" * 70, "levels deep"),
        ('{"a":' * 70 + "1" + "}" * 70, "levels deep"),
        ("[NaN]", "NaN is no number"),
        ("[-Infinity]", "no number"),
        ('{"a": 1, "a": 2}', "'a' is there twice"),
        ("1" * 5000, "digits"),
        ("1" * 100, "330 bits"),
        ('["\\ud800"]', "half a character"),
        ('{"\\udc00": 1}', "half a character"),
        ("[1,", "Expecting value"),
        ("", "Expecting value"),
        (b"\xff\xfe\x00", "it is no text"),
        ("9" * 2000, "characters, at most 1,000"),
        (None, "a text is wanted"),
    ],
    ids=range(15),
)
def test_json_that_is_refused(text, reason):
    most = 1000 if text == "9" * 2000 else 10**6
    with pytest.raises(DocumentError, match=reason):
        parse_json(text, most)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LAUGHS, "aliases stand for more than"),
        (MERGES, "aliases stand for more than"),
        ("&a [*a]", "in itself"),
        ("a: &a {b: {<<: *a}}", "in itself"),
        ("[" * 100_000, "levels deep"),
        ("- " * 200 + "x", "levels deep"),
        ("a: 1\nb: 2\na: 3", "'a' is there twice"),
        ("!!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("!!binary aGVsbG8=", "bytes"),
        ("!!set {a, b}", "set"),
        ("a: 2001-01-01", "write it in quotes"),
        ("a: 2001-13-01", "month must be"),
        ("1: a", "keys must be texts"),
        ("0x" + "f" * 10_000, "bits"),
        ("1" * 5000, "digits"),
        ("? [a]\n: b", "unhashable"),
        ("a: *b", "undefined alias"),
        ("a: b: c", "mapping values"),
        ("a: 1\n--- \nb: 2", "single document"),
        ("a: \x00", "special characters"),
        ('"\\uD800"', "half a character"),
    ],
    ids=range(21),
)
def test_yaml_that_is_refused(text, reason):
    started = time.monotonic()
    with pytest.raises(DocumentError, match=reason):
        parse_yaml(text, 10**6)
    assert time.monotonic() - started < 5


def test_aliases_are_of_use():
    text = "base: &base {lr: 0.1, momentum: 0.9}\nfirst: *base\nsecond: {<<: *base, lr: 0.2}"
    assert parse_yaml(text, 1000)["second"] == {"lr": 0.2, "momentum": 0.9}


@given(st.text() | st.binary())
def test_any_text_is_a_document_or_refused(text):
    for parse in (parse_json, parse_yaml):
        with contextlib.suppress(DocumentError):
            parse(text, 1000)


def test_a_large_value_makes_no_large_message():
    assert len(shorten("x" * 10**6)) < 250
    assert len(shorten([["x"] * 1000] * 10)) < 250
    assert shorten({"a": 1}) == "{'a': 1}"


def test_files_are_read_up_to_a_limit(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert read_whole(tmp_path / "file", 5) == b"12345"
    with pytest.raises(DataError, match="more than 4 bytes"):
        read_whole(tmp_path / "file", 4)
    with pytest.raises(IsADirectoryError):
        read_whole(tmp_path, 4)
    with pytest.raises(FileNotFoundError):
        read_whole(tmp_path / "none", 4)
    with pytest.raises(DataError, match="no regular file"):
        read_whole("/dev/zero", 4)
