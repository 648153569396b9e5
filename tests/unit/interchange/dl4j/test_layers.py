"""Layers that no file of DL4J's shows, against NumPy written from what DL4J's own code computes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers.dl4j_models import activation, build, chain, layer, output, preprocessor

RNG = np.random.default_rng(3)
close = np.testing.assert_allclose


def run(module, x, mask=None):
    with torch.no_grad():
        return module(torch.as_tensor(x), None if mask is None else torch.as_tensor(mask)).numpy()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x, axis=1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


X = np.linspace(-7, 7, 141).reshape(3, 47)
TANH = 2 / 3 * X
ACTIVATIONS = {
    ("Cube",): X**3,
    ("ELU", ("alpha", 0.5)): np.where(X > 0, X, 0.5 * np.expm1(X)),
    ("GELU", ("precise", False)): X * sigmoid(1.702 * X),
    ("HardSigmoid",): np.clip(0.2 * X + 0.5, 0, 1),
    ("HardTanH",): np.clip(X, -1, 1),
    ("Identity",): X,
    ("LReLU", ("alpha", 0.2)): np.where(X > 0, X, 0.2 * X),
    ("Mish",): X * np.tanh(np.log1p(np.exp(X))),
    ("RReLU", ("l", 0.1), ("u", 0.3)): np.where(X > 0, X, 0.2 * X),
    ("RationalTanh",): 1.7159 * np.sign(TANH) * (1 - 1 / (1 + np.abs(TANH) + TANH**2 + 1.41645 * TANH**4)),
    ("ReLU", ("max", 3.0), ("threshold", 1.0), ("negativeSlope", 0.5)): np.where(
        X >= 3, 3, np.where(X < 1, 0.5 * (X - 1), X)
    ),
    ("ReLU6",): np.clip(X, 0, 6),
    ("RectifiedTanh",): np.maximum(0, np.tanh(X)),
    ("SELU",): 1.0507009873554805 * np.where(X > 0, X, 1.6732632423543772 * np.expm1(X)),
    ("Sigmoid",): sigmoid(X),
    ("SoftPlus",): np.log1p(np.exp(X)),
    ("SoftSign",): X / (1 + np.abs(X)),
    ("Softmax",): softmax(X),
    ("Swish",): X * sigmoid(X),
    ("TanH",): np.tanh(X),
    ("ThresholdedReLU", ("theta", 2.0)): np.where(X > 2, X, 0),
}


@pytest.mark.parametrize("given", ACTIVATIONS, ids=lambda given: given[0])
def test_activation(given):
    name, *options = given
    one = layer("ActivationLayer", activationFn=activation(name, **dict(options)))
    module, _ = build(chain(one))
    close(run(module, X), ACTIVATIONS[given], rtol=1e-12, atol=1e-12)


def windows(x, kernel, stride, dilation, pads, fill=0.0):
    """Yield the place of each window in the result, and its values (examples, channels, *kernel)."""
    wide = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=fill)
    sizes = [
        (size - (k - 1) * d - 1) // s + 1
        for size, k, s, d in zip(wide.shape[2:], kernel, stride, dilation, strict=True)
    ]
    for place in np.ndindex(*sizes):
        cut = tuple(
            slice(p * s, p * s + (k - 1) * d + 1, d) for p, k, s, d in zip(place, kernel, stride, dilation, strict=True)
        )
        yield place, wide[(slice(None), slice(None), *cut)]


def pads_of(mode, sizes, kernel, stride, padding, dilation):
    if mode != "Same":
        return [(p, p) for p in padding]
    totals = [
        max(0, (math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n)
        for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True)
    ]
    return [(total // 2, total - total // 2) for total in totals]


def collect(pieces):
    """Put the values of all windows together."""
    found = dict(pieces)
    shape = tuple(np.max(list(found), 0) + 1)
    first = next(iter(found.values()))
    whole = np.empty((*first.shape, *shape))
    for place, value in found.items():
        whole[(slice(None), slice(None), *place)] = value
    return whole


CONVOLUTIONS = [
    ("Truncate", (3, 2), (2, 1), (1, 0), (1, 1)),
    ("Truncate", (2, 2), (1, 1), (0, 1), (2, 1)),
    ("Same", (4, 3), (2, 2), (0, 0), (1, 1)),
    ("Same", (3, 3), (1, 1), (0, 0), (1, 2)),
    ("Strict", (3, 3), (2, 2), (0, 1), (1, 1)),
]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=lambda case: case[0])
def test_convolution_of_images(case):
    mode, kernel, stride, padding, dilation = case
    settings = {"kernelSize": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    settings = {name: list(values) for name, values in settings.items()}
    one = layer("ConvolutionLayer", "TanH", nin=2, nout=3, convolutionMode=mode, **settings)
    module, table = build(chain(one))
    x = RNG.normal(size=(2, 2, 7, 7))
    pads = pads_of(mode, (7, 7), kernel, stride, padding, dilation)
    pieces = windows(x, kernel, stride, dilation, pads)
    z = collect((place, np.einsum("ncij,ocij->no", w, table["0_W"]) + table["0_b"]) for place, w in pieces)
    close(run(module, x), np.tanh(z), rtol=1e-10)


@pytest.mark.parametrize("mode", ["Truncate", "Same"])
def test_convolution_of_sequences_and_their_masks(mode):
    one = layer("Convolution1DLayer", "Sigmoid", nin=2, nout=3, convolutionMode=mode, kernelSize=[3, 1], stride=[2, 1])
    after = layer("RnnLossLayer", "Identity", lossFn={"@class": "org.nd4j.linalg.lossfunctions.impl.LossMSE"})
    module, table = build(chain(one, after))
    x = RNG.normal(size=(2, 2, 8))
    mask = np.array([[1.0] * 8, [1, 1, 1, 0, 0, 0, 0, 0]])
    pads = pads_of(mode, (8,), (3,), (2,), (0,), (1,))
    weights = table["0_W"][..., 0]
    z = collect(
        (place, np.einsum("nci,oci->no", w, weights) + table["0_b"]) for place, w in windows(x, (3,), (2,), (1,), pads)
    )
    kept = collect((place, w.max(2)) for place, w in windows(mask[:, None], (3,), (2,), (1,), pads, -np.inf))
    close(run(module, x, mask), sigmoid(z) * kept, rtol=1e-10)
    assert 0 < kept.sum() < kept.size


@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize("mode", ["Truncate", "Same"])
@pytest.mark.parametrize("kind", ["MAX", "AVG", "AVG with padding", "PNORM"])
def test_pooling(kind, mode, dimensions):
    kernel, stride = (3, 2)[:dimensions], (2, 2)[:dimensions]
    padding = (0, 0)[:dimensions] if mode == "Same" else (1, 0)[:dimensions]
    one = layer(
        "SubsamplingLayer" if dimensions == 2 else "Subsampling1DLayer",
        poolingType=kind.split()[0],
        convolutionMode=mode,
        kernelSize=list(kernel),
        stride=list(stride),
        padding=list(padding),
        pnorm=3 if kind == "PNORM" else 0,
        eps=1e-8,
        avgPoolIncludePadInDivisor=kind == "AVG with padding",
    )
    module, _ = build(chain(one))
    x = RNG.normal(size=(2, 3, *(6, 7)[:dimensions]))
    pads = pads_of(mode, x.shape[2:], kernel, stride, padding, (1, 1)[:dimensions])
    axes = tuple(range(2, 2 + dimensions))

    def pool(window):
        inside = np.where(np.isnan(window), 0, window)
        if kind == "MAX":
            return np.nanmax(window, axes)
        if kind == "PNORM":
            return (np.abs(inside) ** 3).sum(axes) ** (1 / 3)
        return inside.mean(axes) if kind == "AVG with padding" else np.nanmean(window, axes)

    pieces = windows(x, kernel, stride, (1, 1)[:dimensions], pads, np.nan)
    close(run(module, x), collect((place, pool(w)) for place, w in pieces), rtol=1e-10)


def test_masks_of_images_shrink_with_them():
    one = layer("SubsamplingLayer", poolingType="MAX", convolutionMode="Truncate", kernelSize=[2, 2], stride=[2, 2])
    module, _ = build(chain(one, layer("GlobalPoolingLayer", poolingType="SUM", pnorm=2)))
    x, mask = RNG.normal(size=(2, 3, 4, 6)), np.ones((2, 1, 4, 1))
    mask[0, 0, 2:] = 0
    pooled = x.reshape(2, 3, 2, 2, 3, 2).max((3, 5))
    pooled[0, :, 1:] = 0
    close(run(module, x, mask), pooled.sum((2, 3)))


@pytest.mark.parametrize(
    "one",
    [
        layer("SubsamplingLayer", poolingType="PNORM", kernelSize=[2, 2], stride=[2, 2], pnorm=2),
        layer("GlobalPoolingLayer", poolingType="PNORM", pnorm=2),
    ],
    ids=["window", "global"],
)
def test_a_norm_of_zeros_has_a_gradient(one):
    module, _ = build(chain(one))
    x = torch.zeros(1, 1, 2, 4, dtype=torch.float64)
    x[..., 3] = 2
    module(x.requires_grad_()).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad[..., 3].min() > 0


def test_a_window_that_does_not_fit_is_refused():
    strict = layer(
        "ConvolutionLayer", "TanH", nin=1, nout=1, convolutionMode="Strict", kernelSize=[2, 2], stride=[2, 2]
    )
    module, _ = build(chain(strict))
    with pytest.raises(ValueError, match=r"layer 0 \(ConvolutionLayer\).*axis of 5 padded by 0 in mode Strict"):
        run(module, np.ones((1, 1, 5, 4)))


@pytest.mark.parametrize(
    ("one", "shape", "wanted"),
    [
        (
            layer("ZeroPaddingLayer", padding=[1, 2, 0, 3]),
            (2, 2, 3, 4),
            lambda x: np.pad(x, [(0, 0), (0, 0), (1, 2), (0, 3)]),
        ),
        (layer("ZeroPadding1DLayer", padding=[2, 1]), (2, 3, 4), lambda x: np.pad(x, [(0, 0), (0, 0), (2, 1)])),
        (layer("Upsampling2D", size=[2, 3]), (2, 2, 3, 4), lambda x: x.repeat(2, 2).repeat(3, 3)),
        (layer("Upsampling1D", size=[2, 2]), (2, 3, 4), lambda x: x.repeat(2, 2)),
    ],
    ids=["ZeroPadding", "ZeroPadding1D", "Upsampling2D", "Upsampling1D"],
)
def test_layers_that_make_arrays_larger(one, shape, wanted):
    module, _ = build(chain(one))
    x = RNG.normal(size=shape)
    assert (run(module, x) == wanted(x)).all()
    mask = np.ones((2, 4) if len(shape) == 3 else (2, 1, 3, 1))
    mask.reshape(2, -1)[1, -1] = 0
    whole, _ = build(chain(one, layer("GlobalPoolingLayer", poolingType="SUM")))
    weight = mask[:, None] if len(shape) == 3 else mask
    close(run(whole, x, mask), wanted(x * weight).sum(tuple(range(2, len(shape)))))


def recur(kind, table, x, mask, prefix=""):
    """Run a recurrent layer step by step, with DL4J's gates: block input, forget, output, input gate."""
    w, r, b = (table[f"0_{prefix}{key}"] for key in ("W", "RW", "b"))
    size = len(r)
    h = c = np.zeros((len(x), size))
    steps = []
    for t in range(x.shape[2]):
        z = x[:, :, t] @ w + h @ r[:, : w.shape[1]] + b
        if kind == "SimpleRnn":
            h = np.tanh(z)
        else:
            block, forget, out, gate = np.split(z, 4, 1)
            if kind == "GravesLSTM":
                forget, gate = forget + c * r[:, -3], gate + c * r[:, -1]
            c = sigmoid(forget) * c + sigmoid(gate) * np.tanh(block)
            out = out + c * r[:, -2] if kind == "GravesLSTM" else out
            h = sigmoid(out) * np.tanh(c)
        column = 1 if mask is None else mask[:, t : t + 1]
        h, c = h * column, c * column
        steps.append(h)
    return np.stack(steps, 2)


GAPS = np.array([[1.0, 1, 0, 1, 1], [0, 1, 1, 1, 0], [1, 0, 0, 0, 0]])
"""Masks that leave out steps in the middle, too."""

ENDS = np.array([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]])


@pytest.mark.parametrize("mask", [None, GAPS, ENDS], ids=["whole", "gaps", "ends"])
@pytest.mark.parametrize("kind", ["LSTM", "GravesLSTM", "SimpleRnn"])
def test_recurrent_layers(kind, mask):
    module, table = build(chain(layer(kind, "TanH", nin=2, nout=3)))
    x = RNG.normal(size=(3, 2, 5))
    close(run(module, x, mask), recur(kind, table, x, mask), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mask", [None, ENDS], ids=["whole", "ends"])
def test_torchs_lstm_and_ours_have_the_same_gradients(mask):
    x, weights = RNG.normal(size=(3, 2, 5)), torch.tensor(RNG.normal(size=(3, 3, 5)))
    found = []
    for plain in (True, False):
        module, _ = build(chain(layer("LSTM", "TanH", nin=2, nout=3)))
        assert module.layer0.plain
        module.layer0.plain = plain
        (module(torch.tensor(x), None if mask is None else torch.tensor(mask)) * weights).sum().backward()
        found.append([parameter.grad for parameter in module.parameters()])
    for mine, other in zip(*found, strict=True):
        close(mine, other, rtol=1e-9)


def test_an_lstm_is_torchs_with_the_gates_in_another_order():
    module, table = build(chain(layer("LSTM", "TanH", nin=2, nout=3)))
    order = [9, 10, 11, 3, 4, 5, 0, 1, 2, 6, 7, 8]
    other = torch.nn.LSTM(2, 3, batch_first=True).double()
    with torch.no_grad():
        other.weight_ih_l0.copy_(torch.tensor(table["0_W"].T[order]))
        other.weight_hh_l0.copy_(torch.tensor(table["0_RW"].T[order]))
        other.bias_ih_l0.copy_(torch.tensor(table["0_b"][0, order]))
        other.bias_hh_l0.zero_()
        x = torch.tensor(RNG.normal(size=(3, 2, 5)))
        close(module(x), other(x.transpose(1, 2))[0].transpose(1, 2), rtol=1e-10)


@pytest.mark.parametrize("mask", [None, GAPS], ids=["whole", "masked"])
@pytest.mark.parametrize("mode", ["CONCAT", "ADD", "MUL", "AVERAGE"])
def test_bidirectional(mode, mask):
    inner = layer("LSTM", "TanH", nin=2, nout=3)
    module, table = build(chain(layer("Bidirectional", fwd=inner, bwd=inner, mode=mode, rnndataFormat="NCW")))
    assert list(table) == ["0_fW", "0_fRW", "0_fb", "0_bW", "0_bRW", "0_bb"]
    x = RNG.normal(size=(3, 2, 5))
    there = recur("LSTM", table, x, mask, "f")
    back = recur("LSTM", table, x[:, :, ::-1], None if mask is None else mask[:, ::-1], "b")[:, :, ::-1]
    wanted = {
        "CONCAT": np.concatenate((there, back), 1),
        "ADD": there + back,
        "MUL": there * back,
        "AVERAGE": (there + back) / 2,
    }
    close(run(module, x, mask), wanted[mode], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mask", [None, GAPS], ids=["whole", "masked"])
def test_last_time_step(mask):
    inner = layer("SimpleRnn", "TanH", nin=2, nout=3)
    module, table = build(chain(layer("LastTimeStep", underlying=inner), output(3, 2)))
    x = RNG.normal(size=(3, 2, 5))
    steps = recur("SimpleRnn", table, x, mask)
    last = [4, 4, 4] if mask is None else [4, 3, 0]
    rows = steps[np.arange(3), :, last]
    close(run(module, x, mask), softmax(rows @ table["1_W"] + table["1_b"]), rtol=1e-10)


@pytest.mark.parametrize("kind", ["MAX", "AVG", "SUM", "PNORM"])
def test_global_pooling(kind):
    pool = {
        "MAX": lambda x: x.max(),
        "AVG": lambda x: x.mean(),
        "SUM": lambda x: x.sum(),
        "PNORM": lambda x: (np.abs(x) ** 3).sum() ** (1 / 3),
    }[kind]
    x = RNG.normal(size=(3, 2, 5))
    images = RNG.normal(size=(2, 3, 4, 5))
    module, _ = build(chain(layer("GlobalPoolingLayer", poolingType=kind, pnorm=3)))
    close(run(module, x), [[pool(row) for row in one] for one in x])
    close(run(module, images), [[pool(row) for row in one] for one in images])
    kept = [[pool(row[one_mask > 0]) for row in one] for one, one_mask in zip(x, GAPS, strict=True)]
    close(run(module, x, GAPS), kept)
    flat, _ = build(chain(layer("GlobalPoolingLayer", poolingType=kind, pnorm=3, collapseDimensions=False)))
    assert run(flat, images).shape == (2, 3, 1, 1)


@pytest.mark.parametrize("bias", [True, False])
def test_embedding_of_sequences(bias):
    one = layer("EmbeddingSequenceLayer", "TanH", nin=6, nout=2, hasBias=bias, inferInputLength=True, inputLength=1)
    module, table = build(chain(one))
    x = RNG.integers(0, 6, (3, 5))
    rows = np.tanh(table["0_W"][x] + (table["0_b"] if bias else 0)).transpose(0, 2, 1)
    close(run(module, x, GAPS), rows * GAPS[:, None])
    close(run(module, x[:, None].astype(float)), rows)
    with pytest.raises(ValueError, match="takes indices of 0 to 5, got 0 to 6"):
        run(module, [[0, 6]])


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 4, 2)], ids=str)
@pytest.mark.parametrize("logarithm", [True, False])
def test_batch_normalization(shape, logarithm):
    one = layer("BatchNormalization", "ReLU", nin=3, nout=3, eps=1e-3, decay=0.8, useLogStd=logarithm)
    module, table = build(chain(one))
    gamma, beta, mean, spread = (table[key][0] for key in table)
    if not logarithm:  # a variance is not negative
        module.layer0.running_var.abs_()
    variance = 10 ** (2 * spread) if logarithm else np.abs(spread)
    x = torch.tensor(RNG.normal(size=shape))
    wanted = torch.nn.functional.batch_norm(x, *map(torch.tensor, (mean, variance, gamma, beta)), False, 0.1, 1e-3)
    close(run(module, x), wanted, rtol=1e-9)
    axes = [axis for axis in range(x.ndim) if axis != 1]
    with torch.no_grad():
        found = module.train()(x)
    own = torch.nn.functional.batch_norm(x, None, None, torch.tensor(gamma), torch.tensor(beta), True, 0.1, 1e-3)
    close(found, own, rtol=1e-9)
    close(module.layer0.running_mean, 0.8 * mean + 0.2 * x.mean(axes).numpy(), rtol=1e-9)
    now = 10 ** (2 * module.layer0.running_log10_std) if logarithm else module.layer0.running_var
    close(now, 0.8 * variance + 0.2 * x.var(axes, correction=0).numpy(), rtol=1e-9)
    with pytest.raises(ValueError, match="DL4J takes their examples for features"):
        run(module, np.ones((6, 3, 4)))


NOISE = {
    "Dropout": {"p": 0.8},
    "AlphaDropout": {"p": 0.8},
    "SpatialDropout": {"p": 0.8},
    "GaussianDropout": {"rate": 0.2},
    "GaussianNoise": {"stddev": 0.5},
}


@pytest.mark.parametrize("kind", NOISE)
def test_noise_while_training(kind):
    noise = {"@class": f"org.deeplearning4j.nn.conf.dropout.{kind}", **NOISE[kind]}
    module, _ = build(chain(layer("DropoutLayer", "TanH", idropout=noise, nin=0, nout=0)))
    x = torch.ones(200, 50, 4, dtype=torch.float64)
    assert (module(x) == x).all()
    torch.manual_seed(0)
    y = module.train()(x)
    spread = {"GaussianNoise": 0.25, "GaussianDropout": 0.25, "Dropout": 0.25, "SpatialDropout": 0.25}
    assert y.mean().item() == pytest.approx(1, abs=0.02) or kind == "AlphaDropout"
    if kind in spread:
        assert y.var().item() == pytest.approx(spread[kind], abs=0.02)
    if kind == "SpatialDropout":
        assert (y == y[:, :, :1]).all()
    if kind in ("Dropout", "SpatialDropout"):  # the probability is that to keep
        assert (y != 0).double().mean().item() == pytest.approx(0.8, abs=0.02)
        assert y.max().item() == pytest.approx(1 / 0.8)
    if kind == "AlphaDropout":
        normal = module(torch.randn(400, 50, 4, dtype=torch.float64))
        assert (normal.mean().item(), normal.std().item()) == pytest.approx((0, 1), abs=0.03)


def test_preprocessors_carry_arrays_and_masks_through():
    dense = layer("DenseLayer", "Sigmoid", nin=2, nout=4)
    image = layer("ConvolutionLayer", "Identity", nin=1, nout=1, kernelSize=[1, 1], hasBias=False)
    rnn = layer(
        "RnnOutputLayer", "Softmax", nin=4, nout=3, lossFn={"@class": "org.nd4j.linalg.lossfunctions.impl.LossMCXENT"}
    )
    shape = {"numChannels": 1, "inputHeight": 2, "inputWidth": 2}
    before = {
        "0": preprocessor("RnnToFeedForward", rnnDataFormat="NCW"),
        "1": preprocessor("FeedForwardToCnn", **shape),
        "2": {
            "@class": "org.deeplearning4j.nn.conf.preprocessor.ComposableInputPreProcessor",
            "inputPreProcessors": [
                preprocessor("CnnToFeedForward", **shape),
                preprocessor("FeedForwardToRnn"),
                preprocessor("RnnToCnn", **shape, rnnDataFormat="NCW"),
                preprocessor("CnnToRnn", **shape, rnnDataFormat="NCW"),
            ],
        },
    }
    module, table = build(chain(dense, image, rnn, before=before))
    x = RNG.normal(size=(3, 2, 5))
    hidden = sigmoid(np.einsum("nit,io->not", x, table["0_W"]) + table["0_b"].T[None]) * table["1_W"].item()
    wanted = softmax(np.einsum("nit,io->not", hidden, table["2_W"]) + table["2_b"].T[None])
    close(run(module, x), wanted, rtol=1e-10)
    close(run(module, x, GAPS), wanted * GAPS[:, None], rtol=1e-10)
