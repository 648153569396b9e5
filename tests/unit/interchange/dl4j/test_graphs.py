"""Graphs: every vertex against NumPy, and masks through all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.dl4j_models import build, graph, layer, preprocessor, vertex

RNG = np.random.default_rng(8)
A, B = RNG.normal(size=(2, 3, 4))
S, U = RNG.normal(size=(2, 3, 2, 5))
I = RNG.normal(size=(3, 2, 4, 4))  # noqa: E741


def run(module, arrays, masks=None):
    given = () if masks is None else tuple(None if m is None else torch.tensor(m) for m in masks)
    with torch.no_grad():
        outputs = module(*map(torch.tensor, arrays), masks=given)
    return [output.numpy() for output in outputs]


def norm(x):
    return np.sqrt((x**2).sum(tuple(range(1, x.ndim)), keepdims=True))


VERTICES = {
    "merge": (vertex("Merge", mergeAxis=1, modified=False), (A, B), lambda a, b: np.concatenate((a, b), 1)),
    "merge images": (vertex("Merge"), (I, I), lambda a, b: np.concatenate((a, b), 1)),
    "add": (vertex("ElementWise", op="Add"), (A, B, A), lambda a, b, c: a + b + c),
    "subtract": (vertex("ElementWise", op="Subtract"), (A, B), lambda a, b: a - b),
    "product": (vertex("ElementWise", op="Product"), (A, B), lambda a, b: a * b),
    "average": (vertex("ElementWise", op="Average"), (A, B, B), lambda a, b, c: (a + 2 * b) / 3),
    "max": (vertex("ElementWise", op="Max"), (A, B), np.maximum),
    "broadcast": (vertex("ElementWise", op="Add"), (A, B[:, :1]), lambda a, b: a + b),
    "subset": (vertex("Subset", **{"from": 1, "to": 2}), (A,), lambda a: a[:, 1:3]),
    "subset of sequences": (vertex("Subset", **{"from": 0, "to": 0}), (S,), lambda a: a[:, :1]),
    "stack": (vertex("Stack"), (A, B), lambda a, b: np.concatenate((a, b))),
    "unstack": (vertex("Unstack", **{"from": 1, "stackSize": 3}), (A,), lambda a: a[1:2]),
    "scale": (vertex("Scale", scaleFactor=2.5), (A,), lambda a: a * 2.5),
    "shift": (vertex("Shift", shiftFactor=-1.5), (A,), lambda a: a - 1.5),
    "reshape": (vertex("Reshape", newShape=[-1, 2, 2], reshapeOrder="c"), (A,), lambda a: a.reshape(3, 2, 2)),
    "normalize": (vertex("L2Normalize", eps=1e-8), (A,), lambda a: a / norm(a)),
    "normalize images": (vertex("L2Normalize", dimension=None, eps=1e-8), (I,), lambda a: a / norm(a)),
    "preprocessor": (
        vertex(
            "Preprocessor", preProcessor=preprocessor("CnnToFeedForward", numChannels=2, inputHeight=4, inputWidth=4)
        ),
        (I,),
        lambda a: a.reshape(3, -1),
    ),
    "last step": (vertex("LastTimeStep", maskArrayInputName="in0"), (S,), lambda a: a[:, :, -1]),
    "to time series": (
        vertex("DuplicateToTimeSeries", inputName="in1"),
        (A, S),
        lambda a, _: np.repeat(a[:, :, None], 5, 2),
    ),
}


@pytest.mark.parametrize("name", VERTICES)
def test_vertex(name):
    one, arrays, wanted = VERTICES[name]
    inputs = [f"in{number}" for number in range(len(arrays))]
    takes = inputs[:1] if name == "to time series" else inputs
    module, _ = build(graph(inputs, ["v"], v=(one, takes)))
    np.testing.assert_allclose(run(module, arrays)[0], wanted(*arrays), rtol=1e-12)


def test_nothing_has_a_gradient_of_nothing():
    module, _ = build(graph(["a"], ["v"], v=(vertex("L2Normalize", eps=1e-8), ["a"])))
    x = torch.zeros(2, 3, requires_grad=True)
    module(x)[0].sum().backward()
    assert torch.isfinite(x.grad).all()


LONG = np.array([[1.0, 1, 1, 1, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]])
SHORT = np.array([[1.0, 0, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
SUM = layer("GlobalPoolingLayer", poolingType="SUM")


@pytest.mark.parametrize(
    ("one", "masks", "kept"),
    [
        (vertex("Merge"), (LONG, SHORT), np.maximum(LONG, SHORT)),
        (vertex("Merge"), (LONG, None), np.ones((3, 5))),
        (vertex("ElementWise", op="Add"), (LONG, SHORT), np.maximum(LONG, SHORT)),
    ],
    ids=["merge", "one without", "add"],
)
def test_a_step_counts_where_one_input_has_it(one, masks, kept):
    module, _ = build(graph(["a", "b"], ["v", "sum"], v=(one, ["a", "b"]), sum=(SUM, ["v"])))
    joined, total = run(module, (S, U), masks)
    np.testing.assert_allclose(total, (joined * kept[:, None]).sum(2), rtol=1e-12)


def test_masks_of_stacks_and_of_last_steps():
    module, _ = build(
        graph(
            ["a", "b"],
            ["sum", "last"],
            stack=(vertex("Stack"), ["a", "b"]),
            second=(vertex("Unstack", **{"from": 1, "stackSize": 2}), ["stack"]),
            sum=(SUM, ["second"]),
            last=(vertex("LastTimeStep", maskArrayInputName="b"), ["a"]),
        )
    )
    total, last = run(module, (S, U), (LONG, SHORT))
    np.testing.assert_allclose(total, (U * SHORT[:, None]).sum(2), rtol=1e-12)
    np.testing.assert_allclose(last, S[[0, 1, 2], :, [0, 2, 4]])


def test_a_graph_says_what_it_takes():
    module, _ = build(graph(["a", "b"], ["v"], v=(vertex("ElementWise", op="Add"), ["a", "b"])))
    with pytest.raises(ValueError, match=r"takes inputs a, b, got 1 array"):
        run(module, (A,))


def test_names_of_layers_become_names_of_modules():
    dense = layer("DenseLayer", "TanH", nin=4, nout=4)
    module, table = build(graph(["a"], ["forward"], **{"conv.1": (dense, ["a"]), "forward": (dense, ["conv.1"])}))
    assert [name for name, _ in module.named_parameters()] == [
        "conv_1.weight",
        "conv_1.bias",
        "forward_.weight",
        "forward_.bias",
    ]
    assert list(table) == ["conv.1_W", "conv.1_b", "forward_W", "forward_b"]
