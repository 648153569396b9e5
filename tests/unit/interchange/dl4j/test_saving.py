"""Model zips as bytes: counts in a text that stays as it is otherwise, entries in DL4J's order."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest

from strombus.errors import DataError
from strombus.interchange.dl4j.ndarray import read_ndarray
from strombus.interchange.dl4j.saving import pack_model, with_counts

TEXT = '{\n  "confs" : [ {\n    "iterationCount" : 0, "x" : "}\\"{"\n  } ],\n  "iterationCount" : 3,\n  "seed" : 1\n}'


def test_only_the_outermost_counts_change():
    assert with_counts(TEXT.replace("3,", '3,\n  "epochCount" : 2,'), 3, 2) == TEXT.replace(
        "3,", '3,\n  "epochCount" : 2,'
    )
    changed = with_counts(TEXT, 41, 7)
    assert changed.replace("41", "3").replace('"epochCount" : 7, ', "") == TEXT
    assert json.loads(changed) == {**json.loads(TEXT), "iterationCount": 41, "epochCount": 7}
    assert json.loads(with_counts(" { } ", 1, 2)) == {"iterationCount": 1, "epochCount": 2}


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"a" 1}', '{"a" : 1', '{"a" : 1 "b" : 2}', "{1 : 2}", '{"a" : ' + "[" * 9**5]
)
def test_a_damaged_configuration_is_not_written(text):
    with pytest.raises(DataError, match="a configuration must be a JSON object, got "):
        with_counts(text, 1, 1)


def test_a_zip_has_dl4js_entries_and_always_the_same_bytes():
    coefficients, updater = np.arange(6, dtype=np.float32)[None], np.ones((1, 12), np.float32)
    data = pack_model(TEXT, coefficients, updater, {"normalizer.bin": b"n"})
    assert data == pack_model(TEXT, coefficients, updater, {"normalizer.bin": b"n"})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == ["configuration.json", "coefficients.bin", "updaterState.bin", "normalizer.bin"]
        assert archive.read("configuration.json").decode() == TEXT
        np.testing.assert_array_equal(read_ndarray(archive.read("coefficients.bin")), coefficients)
    with zipfile.ZipFile(io.BytesIO(pack_model(TEXT, coefficients, updater[:, :0]))) as archive:
        assert archive.namelist() == ["configuration.json", "coefficients.bin"]
