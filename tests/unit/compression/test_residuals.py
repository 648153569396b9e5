"""Clipping of residuals: DL4J's own figures, and what is removed is counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from strombus.compression.residuals import (
    NoOpResidualPostProcessor,
    ResidualClippingPostProcessor,
    residual_post_processors,
)

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "thresholds" / "residual_clipping.json").read_text())


def values(array):
    return np.array([float(value) for value in array["values"]], np.float32)


def test_dl4js_clipping():
    steps = GOLDEN["clipping_5_5_threshold_1e-3"]
    assert any(step["before"] != step["after"] for step in steps)
    for step in steps:
        residual = values(step["before"])
        removed = ResidualClippingPostProcessor().process_(residual, 1e-3, step["iteration"])
        assert np.array_equal(residual, values(step["after"]), equal_nan=True)
        lost = np.abs(values(step["before"]) - residual)[np.isfinite(residual)].sum(dtype=np.float64)
        assert removed == pytest.approx(lost, rel=1e-6)


def test_nothing_is_done_where_nothing_is_asked():
    residual = np.array([1e9, -3.0])
    assert NoOpResidualPostProcessor().process_(residual, 1e-3, 5) == 0.0
    assert residual.tolist() == [1e9, -3.0]


@pytest.mark.parametrize("options", [{"frequency": 0}, {"threshold_multiple_value": 0.5}])
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        ResidualClippingPostProcessor(**options)


def test_the_table_and_dl4js_names():
    for name in residual_post_processors:
        assert residual_post_processors[name].name == name
    made = ResidualClippingPostProcessor(thresholdMultipleClipValue=4.0, frequency=3)
    assert made.model_dump(by_alias=True) == {"thresholdMultipleClipValue": 4.0, "frequency": 3}
