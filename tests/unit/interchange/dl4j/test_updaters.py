"""DL4J's updaters, penalties, normalisation and schedules against the same written down in NumPy."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from helpers.dl4j import RATE, penalty, record, schedule, trainings_of
from torch import nn

from strombus.errors import ConfigurationError, DataError
from strombus.interchange.dl4j.fields import Fields
from strombus.interchange.dl4j.optimizers import RULES, Dl4jOptimizer
from strombus.interchange.dl4j.schedules import read_schedule, schedule_names
from strombus.interchange.dl4j.training import Dl4jSchedule, GradientNormalization, OptimizerFactory
from strombus.interchange.dl4j.updater_state import join_state, split_state
from strombus.networks import checks


def read(given):
    return read_schedule(Fields(given, "model.zip, layer 0, lr"))


def fixed(value):
    return schedule("Fixed", value=value)


def layer(updater, **more):
    return {"iupdater": updater, "biasUpdater": None, "regularization": [], "regularizationBias": [], **more}


def numpy_step(rule, g, s, t, rate=RATE):
    """Return what `rule` subtracts for gradient `g` in its step `t` (from 1); `s` is its state."""
    b1, b2, eps, rho = 0.8, 0.95, 1e-3, 0.9
    if rule == "NoOp":
        return g
    if rule == "Sgd":
        return rate * g
    if rule == "Nesterovs":
        v, s["v"] = s.get("v", 0 * g), 0.7 * s.get("v", 0 * g) - rate * g
        return 0.7 * v - 1.7 * s["v"]
    if rule == "AdaGrad":
        s["h"] = s.get("h", 1e-6) + g**2
        return rate * g / (np.sqrt(s["h"]) + eps)
    if rule == "RmsProp":
        s["h"] = rho * s.get("h", eps) + (1 - rho) * g**2
        return rate * g / (np.sqrt(s["h"]) + eps)
    if rule == "AdaDelta":
        s["h"] = rho * s.get("h", 0) + (1 - rho) * g**2
        step = g * np.sqrt(s.get("d", 0) + eps) / np.sqrt(s["h"] + eps)
        s["d"] = rho * s.get("d", 0) + (1 - rho) * step**2
        return step
    s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    if rule == "AdaMax":
        s["u"] = np.maximum(b2 * s.get("u", 0), abs(g))
        return rate / (1 - b1**t) * s["m"] / s["u"]
    s["v"] = b2 * s.get("v", 0) + (1 - b2) * g**2
    if rule == "Nadam":
        return rate * (b1 * s["m"] + (1 - b1) * g) / (1 - b1**t) / (np.sqrt(s["v"]) + eps)
    s["top"] = np.maximum(s.get("top", 0), s["v"]) if rule == "AMSGrad" else s["v"]
    return rate * np.sqrt(1 - b2**t) / (1 - b1**t) * s["m"] / (np.sqrt(s["top"]) + eps)


def make_factory(*layers):
    """Return a factory for layers of one weight and one bias."""
    names = tuple(f"{n}.{name}" for n in range(len(layers)) for name in ("weight", "bias"))
    return OptimizerFactory(trainings_of(*layers), names)


def make_module(layers=1, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(*(nn.Linear(3, 3) for _ in range(layers))).double()


def set_gradients(module, rng, scale=1.0):
    for parameter in module.parameters():
        parameter.grad = torch.from_numpy(rng.normal(size=tuple(parameter.shape))) * scale


def values(module):
    return {name: parameter.detach().numpy().copy() for name, parameter in module.named_parameters()}


@pytest.mark.parametrize("decays", [None, True, False], ids=["plain", "decay times rate", "decay"])
@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_rule_is_the_one_in_numpy(rule, decays):
    decay = [] if decays is None else [penalty("WeightDecay", 0.03, applyLR=decays)]
    factory = make_factory(layer(record(rule), regularization=decay))
    module = make_module()
    optimizer = pickle.loads(pickle.dumps(factory))(list(module.named_parameters()))
    assert type(copy.deepcopy(optimizer)) is type(optimizer)
    own = rule in {"NoOp", "Sgd", "AdaGrad", "RmsProp", "AdaDelta"} and decays is None
    assert isinstance(optimizer, Dl4jOptimizer) is not own
    expected, states, rng = values(module), {"0.weight": {}, "0.bias": {}}, np.random.default_rng(1)
    rate = 1.0 if rule in {"NoOp", "AdaDelta"} else RATE
    for t in range(1, 5):
        set_gradients(module, rng)
        for name, p in module.named_parameters():
            w, g = expected[name], p.grad.numpy().copy()
            factor = 0.0 if decays is None or name == "0.bias" else 0.03 * (rate if decays else 1)
            expected[name] = w - numpy_step(rule, g, states[name], t) - factor * w
        optimizer.step()
        for name, got in values(module).items():
            np.testing.assert_allclose(got, expected[name], rtol=0, atol=1e-12)


def test_layers_and_biases_have_updaters_of_their_own():
    factory = make_factory(
        layer(record("Sgd", learningRate=0.5), biasUpdater=record("Nesterovs")), layer(record("Adam"))
    )
    module, rng = make_module(2), np.random.default_rng(0)
    before = values(module)
    optimizer = factory(list(module.named_parameters()))
    set_gradients(module, rng)
    gradients = {name: parameter.grad.numpy() for name, parameter in module.named_parameters()}
    optimizer.step()
    for name, rule, rate in [("0.weight", "Sgd", 0.5), ("0.bias", "Nesterovs", RATE), ("1.bias", "Adam", RATE)]:
        step = numpy_step(rule, gradients[name], {}, 1, rate)
        np.testing.assert_allclose(values(module)[name], before[name] - step, rtol=0, atol=1e-14)
    with pytest.raises(ConfigurationError, match=r"without 2\.weight, 2\.bias"):
        factory(list(make_module(3).named_parameters()))


def test_parameters_that_are_frozen_leave_their_group_empty():
    factory = make_factory(layer(record("Adam")), layer(record("Adam")))
    named = list(make_module(2).named_parameters())
    optimizer = factory(named[1:])
    assert [len(group["params"]) for group in optimizer.param_groups] == [0, 1, 1, 1]


@pytest.mark.parametrize("kind", ["RenormalizeL2", "ClipL2", "ClipElementWiseAbsoluteValue"])
@pytest.mark.parametrize("scope", ["PerLayer", "PerParamType"])
def test_gradients_of_a_layer_are_normalised(kind, scope):
    name = kind if kind.startswith("ClipE") else kind + scope
    clipped = layer(record("Sgd"), gradientNormalization=name, gradientNormalizationThreshold=0.4)
    factory, module = make_factory(clipped, layer(record("Sgd"))), make_module(2)
    set_gradients(module, np.random.default_rng(2))
    g = {name: parameter.grad.numpy().copy() for name, parameter in module.named_parameters()}
    normalize = GradientNormalization(factory.trainings, factory.names)
    assert normalize
    pickle.loads(pickle.dumps(normalize))(dict(module.named_parameters()))
    whole = math.sqrt(sum((g[name] ** 2).sum() for name in ("0.weight", "0.bias")))
    for one in ("0.weight", "0.bias"):
        norm = whole if scope == "PerLayer" else math.sqrt((g[one] ** 2).sum())
        assert norm > 0.4
        if kind.startswith("ClipE"):
            wanted = np.clip(g[one], -0.4, 0.4)
        else:
            wanted = g[one] / norm * (1 if kind.startswith("R") else 0.4)
        np.testing.assert_allclose(module.get_parameter(one).grad, wanted, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(module[1].weight.grad, g["1.weight"])
    set_gradients(module, np.random.default_rng(2), scale=0.0)
    normalize(dict(module.named_parameters()))
    assert not module[0].weight.grad.any()
    assert not GradientNormalization(make_factory(layer(record("Sgd"))).trainings, factory.names[:2])


SCHEDULES = [
    # values at positions 0, 1, 5, 10 and 25, worked out by hand
    (fixed(0.3), [0.3] * 5),
    (schedule("Exponential", initialValue=2.0, gamma=0.5), [2, 1, 2 / 32, 2 / 1024, 2 / 2**25]),
    (schedule("Inverse", initialValue=1.0, gamma=0.2, power=2.0), [1, 1 / 1.44, 1 / 4, 1 / 9, 1 / 36]),
    (schedule("Map", values={"0": 0.5, "5": 0.25, "20": 0.1}), [0.5, 0.5, 0.25, 0.25, 0.1]),
    (schedule("Poly", initialValue=0.1, power=2.0, maxIter=20), [0.1, 0.11025, 0.15625, 0.225, 0.0]),
    (
        schedule("Sigmoid", initialValue=1.0, gamma=0.5, stepSize=10),
        [1 / (1 + math.exp(0.5 * (10 - i))) for i in (0, 1, 5, 10, 25)],
    ),
    (schedule("Step", initialValue=1.0, decayRate=0.1, step=5.0), [1, 1, 0.1, 0.01, 1e-5]),
    (
        schedule(
            "Cycle",
            initialLearningRate=0.1,
            maxLearningRate=0.9,
            cycleLength=20,
            annealingLength=4,
            annealingDecay=0.5,
            stepSize=8,
            increment=0.1,
        ),
        [0.1, 0.2, 0.6, 0.7, 0.6],
    ),
]


@pytest.mark.parametrize(("given", "wanted"), SCHEDULES, ids=[one["@class"].rpartition(".")[2] for one, _ in SCHEDULES])
def test_schedules_by_iteration_and_by_epoch(given, wanted):
    counts = given["@class"].endswith("FixedSchedule") or "ITERATION"
    for kind in ("ITERATION", "EPOCH"):
        one = read(given if counts is True else {**given, "scheduleType": kind})
        got = [one.value_at(*((i, 3) if kind == "ITERATION" else (3, i))) for i in (0, 1, 5, 10, 25)]
        assert got == pytest.approx(wanted, rel=1e-12)


def test_the_end_of_a_cycle_and_a_ramp():
    cycle = {"initialLearningRate": 0.1, "maxLearningRate": 0.9, "cycleLength": 20, "annealingLength": 4}
    one = read(schedule("Cycle", scheduleType="ITERATION", annealingDecay=0.5, **cycle))
    assert [one.value_at(i, 0) for i in (16, 17, 19, 20)] == pytest.approx([0.1, 0.05, 0.0125, 0.1])
    ramp = read(schedule("Ramp", baseSchedule=fixed(0.8), numIter=4))
    assert [ramp.value_at(i, 9) for i in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert {one["@class"].rpartition(".")[2] for one, _ in SCHEDULES} | {"RampSchedule"} == set(schedule_names())


def test_rate_and_momentum_follow_their_schedules():
    """Nesterovs with a rate by iteration and a momentum by epoch, in NumPy and across a restart."""
    updater = record(
        "Nesterovs",
        learningRate="NaN",
        learningRateSchedule=schedule("Exponential", scheduleType="ITERATION", initialValue=0.2, gamma=0.9),
        momentum="NaN",
        momentumISchedule=schedule("Map", scheduleType="EPOCH", values={"0": 0.5, "1": 0.9}),
    )
    factory = make_factory(layer(updater))
    module, rng = make_module(), np.random.default_rng(3)
    optimizer, following = factory(list(module.named_parameters())), factory.schedule()
    clock = following(optimizer)
    expected, v = values(module)["0.weight"], 0.0
    for i in range(6):
        if i % 3 == 0:
            clock.begin_epoch(i // 3)
        if i == 4:  # as a worker does that goes on from a state
            saved, clock = clock.state_dict(), following(optimizer)
            clock.load_state_dict(saved)
        set_gradients(module, rng)
        mu, g = (0.5, 0.9)[i // 3], module[0].weight.grad.numpy().copy()
        v, before = mu * v - 0.2 * 0.9**i * g, v
        expected = expected - (mu * before - (1 + mu) * v)
        optimizer.step()
        clock.step()
        np.testing.assert_allclose(values(module)["0.weight"], expected, rtol=0, atol=1e-13)
    fresh = following(factory(list(module.named_parameters())))
    assert isinstance(fresh, Dl4jSchedule)
    fresh.move_to(6, 1)
    assert fresh.get_last_lr() == clock.get_last_lr()
    assert make_factory(layer(record("Adam"))).schedule() is None


def test_the_state_lies_block_by_block():
    """Two layers with one Adam, a bias with its own updater between them: moments of a block lie together."""
    adam, other = layer(record("Adam")), layer(record("Adam"), biasUpdater=record("AdaGrad"))
    trainings = make_factory(adam, other, adam).trainings
    sizes = [4, 2, 6, 3, 5, 1]
    vector = np.arange(2 * (4 + 2 + 6) + 3 + 2 * (5 + 1), dtype=np.float32)
    states = split_state(vector, trainings, sizes)
    np.testing.assert_array_equal(states[0]["exp_avg"], [0, 1, 2, 3])
    np.testing.assert_array_equal(states[2]["exp_avg"], np.arange(6, 12))
    np.testing.assert_array_equal(states[1]["exp_avg_sq"], [16, 17])
    np.testing.assert_array_equal(states[3]["sum"], [24, 25, 26])
    np.testing.assert_array_equal(states[5]["exp_avg_sq"], [38])
    np.testing.assert_array_equal(join_state(states, trainings, sizes, np.float32), vector)
    with pytest.raises(DataError, match="40 numbers, the configuration's updaters keep 39"):
        split_state(np.zeros(40, np.float32), trainings, sizes)


WRONG = [
    (record("Lion"), {}, "updater of W: the updater '.*Lion' is not read; read are: AMSGrad"),
    ({**record("Sgd"), "@class": "my.Sgd"}, {}, "the updater 'my.Sgd' is not read"),
    (record("Adam", beta1=1.0), {}, "layer 0, updater of W: beta1 must be at least 0 and below 1, got 1.0"),
    (record("Sgd", learningRate="NaN"), {}, "updater of W: learningRate must be a number"),
    (record("Sgd", momentum=0.9), {}, "the option momentum = 0.9 is not read"),
    (record("Sgd", learningRateSchedule=schedule("Wave")), {}, "WaveSchedule' is not read; read are: CycleSchedule"),
    (
        record("Sgd", learningRateSchedule=schedule("Map", scheduleType="ITERATION", values={"1": 1.0})),
        {},
        "learningRateSchedule: a MapSchedule cannot be made of it: .*position 0",
    ),
    (
        record("Sgd", learningRateSchedule=schedule("Step", initialValue=1.0, decayRate=1.0, step=1.0)),
        {},
        "scheduleType: Field required",
    ),
    (record("Sgd"), {"gradientNormalization": "Clip"}, "gradientNormalization 'Clip' is not read; read are: None"),
]


@pytest.mark.parametrize(("updater", "more", "message"), WRONG)
def test_what_is_not_known_is_named(updater, more, message):
    with pytest.raises((ConfigurationError, DataError), match=message):
        trainings_of(layer(updater, **more))


NASTY = (None, True, -1, 0, 1, 2**31, 1.5, 1e308, "x", "", "NaN", [], [1], {}, {"@class": "java.lang.Runtime"}, [[[]]])


def leaves(value, path=()):
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from leaves(inner, (*path, key))


def test_every_value_replaced_is_refused_or_trains():
    cycle = {"initialLearningRate": 0.1, "maxLearningRate": 0.9, "cycleLength": 20, "annealingLength": 4}
    by_cycle = schedule("Cycle", scheduleType="ITERATION", annealingDecay=0.5, **cycle)
    good = layer(
        record("Nesterovs", momentumISchedule=schedule("Ramp", baseSchedule=by_cycle, numIter=4)),
        biasUpdater=record("Adam", learningRateSchedule=schedule("Map", scheduleType="EPOCH", values={"0": 1.0})),
        regularization=[penalty("WeightDecay", 0.3, applyLR=False)],
        gradientNormalization="ClipL2PerLayer",
        gradientNormalizationThreshold=0.5,
    )
    outcomes = set()
    for path in list(leaves(good)):
        place = good
        for key in path[:-1]:
            place = place[key]
        before = place[path[-1]]
        for nasty in NASTY:
            place[path[-1]] = nasty
            outcomes.add(trains(good))
        place[path[-1]] = before
    assert outcomes == {True, False}
    assert trains(good)


def trains(one):
    """Take two steps as a layer's JSON says; say whether that could be done."""
    module = make_module()
    try:
        factory = make_factory(one)
        optimizer = checks.make_optimizer(factory, list(module.named_parameters()))
        clock = factory.schedule() and factory.schedule()(optimizer)
    except (ConfigurationError, DataError):
        return False
    for epoch in range(2):
        if clock:
            clock.begin_epoch(epoch)
        set_gradients(module, np.random.default_rng(0))
        GradientNormalization(factory.trainings, factory.names)(dict(module.named_parameters()))
        optimizer.step()
        if clock:
            clock.step()
    return True
