"""Options and evaluations from anywhere: whatever a text says, it is read or refused by an error of Strombus's own."""

from __future__ import annotations

import copy
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import strombus as sb
from strombus.errors import ConfigurationError, DataError
from strombus.evaluation import (
    ROC,
    BaseEvaluation,
    Evaluation,
    EvaluationBinary,
    EvaluationCalibration,
    RegressionEvaluation,
    ROCBinary,
    ROCMultiClass,
)
from strombus.jobs import read_job

GOLDEN = Path(__file__).parents[1] / "golden" / "masters"
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)


def written(name):
    return json.loads((GOLDEN / name).read_text())


def options_of_shared_training():
    master = sb.SharedTrainingMaster(
        encoder=sb.DenseEncoder(),
        repartitioner=sb.DefaultRepartitioner(max_partitions=9),
        transport_options=sb.TransportOptions(host="10.0.0.1", ports=(5000, 5009)),
    )
    return master.to_dict()


MASTERS = [
    (sb.SharedTrainingMaster, options_of_shared_training()),
    (sb.SharedTrainingMaster, written("shared_default.json")),
    (sb.ParameterAveragingTrainingMaster, written("parameter_averaging_custom.json")),
]


def evaluated():
    rng = np.random.default_rng(0)
    classes, scores = rng.integers(0, 3, 20), rng.random((20, 3))
    scores /= scores.sum(1, keepdims=True)
    yes = (rng.random((20, 3)) < 0.5).astype(float)
    for metric in (Evaluation(labels=["a", "b", "c"]), ROCMultiClass(), ROCMultiClass(5), EvaluationCalibration(3, 4)):
        metric.add(np.eye(3)[classes], scores)
        yield metric.to_dict()
    for metric in (EvaluationBinary(roc_binary_steps=4), ROCBinary(), RegressionEvaluation()):
        metric.add(yes, rng.random((20, 3)))
        yield metric.to_dict()
    roc = ROC()
    roc.add(yes[:, :1], rng.random((20, 1)))
    yield roc.to_dict()


EVALUATIONS = list(evaluated())

odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([0, -1, 2**31, 2**53 + 1, 10**9, 1e308, 1e-308, -0.5, float("nan"), float("inf")]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["", "adaptive", "zeromq", "../x", "x" * 10_000, "os:system", "1e400"]),
)
anything = st.recursive(
    odd,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value, path=()):
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(min(len(value), 4)):
            yield from places(value[key], (*path, key))


@st.composite
def changed(draw, records):
    """One of `records`, of which some values are others, or gone, or new."""
    record = copy.deepcopy(draw(st.sampled_from(records)))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(record))))
        if not path:
            if draw(st.integers(0, 9)) == 0:
                return draw(anything)
            continue
        inside = record
        for key in path[:-1]:
            inside = inside[key]
        if draw(st.integers(0, 4)) == 0 and isinstance(inside, dict):
            inside[draw(st.text(max_size=5) | st.sampled_from(["type", "class"]))] = draw(anything)
        elif draw(st.integers(0, 4)) == 0:
            del inside[path[-1]]
        else:
            inside[path[-1]] = draw(anything)
        if not isinstance(record, dict | list):
            break
    return record


def check_length(error):
    assert len(str(error)) < 20_000


def texts(record):
    yield "json", json.dumps(record)
    yield "yaml", yaml.safe_dump(record)


@pytest.mark.parametrize("number", range(len(MASTERS)))
def test_any_options_make_a_master_or_a_configuration_error(number):
    kind, options = MASTERS[number]

    @settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
    @given(changed([options]))
    def check(record):
        for form, text in texts(record):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    master = getattr(kind, f"from_{form}")(text)
            except ConfigurationError as error:
                check_length(error)
            else:
                assert kind.from_json(master.to_json()) == master
                repr(master)

    check()


@pytest.mark.parametrize("number", range(len(EVALUATIONS)))
def test_any_statistics_make_an_evaluation_or_an_error(number):
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(changed([EVALUATIONS[number]]))
    def check(record):
        for form, text in texts(record):
            try:
                with np.errstate(all="ignore"):
                    metric = getattr(BaseEvaluation, f"from_{form}")(text)
                    repr(metric)
                    metric.stats()
                    metric.merge(BaseEvaluation.from_json(metric.to_json()))
            except (ConfigurationError, DataError) as error:
                check_length(error)

    check()


@settings(max_examples=100, deadline=None)
@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_any_text_at_all(text):
    for kind in (sb.SharedTrainingMaster, sb.ParameterAveragingTrainingMaster, BaseEvaluation):
        for read in (kind.from_json, kind.from_yaml):
            with pytest.raises((ConfigurationError, DataError)):
                read(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LAUGHS, "aliases stand for more"),
        ("[" * 100_000, "levels deep"),
        ("numWorkers: 1\nnumWorkers: 2", "there twice"),
        ("numWorkers: !!python/object/apply:os.system [true]", "constructor"),
        ("numWorkers: " + "9" * 5000, "digits"),
        ("exportDirectory: " + "x" * 2**20, "characters, at most"),
        ("numWorkers: " + "x" * 2**17, "numWorkers"),
        ("\n".join(f"x{n}: 1" for n in range(10_000)), "and 9980 more"),
    ],
    ids=range(8),
)
def test_texts_that_would_cost_much(tmp_path, text, reason):
    started = time.monotonic()
    with pytest.raises(ConfigurationError, match=reason) as caught:
        sb.SharedTrainingMaster.from_yaml(text)
    assert len(str(caught.value)) < 100_000
    if reason != "numWorkers":
        (tmp_path / "job.yaml").write_text(text)
        with pytest.raises(ConfigurationError):
            read_job(tmp_path / "job.yaml")
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999", '"nan"', '"inf"', "[]"])
@pytest.mark.parametrize(
    "options",
    [
        '{"timeout": %s}',
        '{"stepTimeout": %s}',
        '{"numWorkers": %s}',
        '{"maxStaleness": %s}',
        '{"rngSeed": %s}',
        '{"transportOptions": {"sendTimeout": %s}}',
        '{"thresholdAlgorithm": {"type": "fixed", "threshold": %s}}',
        '{"residualPostProcessor": {"type": "clipping", "thresholdMultipleClipValue": %s}}',
    ],
)
def test_what_is_no_finite_number(options, text):
    sb.SharedTrainingMaster.from_json(options % 2)
    with pytest.raises(ConfigurationError):
        sb.SharedTrainingMaster.from_json(options % text)


def test_a_large_file_is_not_read(tmp_path):
    with open(tmp_path / "job.yaml", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(ConfigurationError, match="more than 1,048,576 bytes"):
        read_job(tmp_path / "job.yaml")
