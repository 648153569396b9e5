from __future__ import annotations

import functools
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from strombus.errors import ConfigurationError, DataError
from strombus.networks.losses import Loss

WEIGHT = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)


class Focal(nn.Module):
    """A loss of one's own that only has a scalar form."""

    def forward(self, output: Tensor, labels: Tensor) -> Tensor:
        return ((1 - output.softmax(1).gather(1, labels[:, None])) ** 2).mean()


def scores(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def classes(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 4, shape))


CASES = [
    (nn.CrossEntropyLoss(), scores(12, 4), classes(12)),
    (nn.CrossEntropyLoss(label_smoothing=0.1), scores(12, 4), classes(12)),
    (nn.CrossEntropyLoss(), scores(12, 4), scores(12, 4, seed=1).softmax(1)),
    (nn.CrossEntropyLoss(), scores(12, 4, 5), classes(12, 5)),
    (F.cross_entropy, scores(12, 4), classes(12)),
    (nn.MSELoss(), scores(12, 3), scores(12, 3, seed=1)),
    (F.l1_loss, scores(12, 3, 2), scores(12, 3, 2, seed=1)),
    (nn.BCEWithLogitsLoss(), scores(12, 3), (scores(12, 3, seed=1) > 0).double()),
    (nn.KLDivLoss(reduction="batchmean"), scores(12, 4).log_softmax(1), scores(12, 4, seed=1).softmax(1)),
    (nn.MultiMarginLoss(), scores(12, 4), classes(12)),
    (lambda o, y: (o - y).square().sum(1), scores(12, 3), scores(12, 3, seed=1)),
    (Focal(), scores(12, 4), classes(12)),
]


@pytest.mark.parametrize(("function", "output", "labels"), CASES)
def test_without_a_mask_it_is_the_users_own_call(function: object, output: Tensor, labels: Tensor) -> None:
    value, _ = Loss(function).mean(output, labels)
    assert torch.equal(value, function(output, labels).mean())


@pytest.mark.parametrize(("function", "output", "labels"), CASES)
def test_each_example_is_the_loss_of_that_row(function: object, output: Tensor, labels: Tensor) -> None:
    expected = torch.stack([function(output[i : i + 1], labels[i : i + 1]).mean() for i in range(len(output))])
    torch.testing.assert_close(Loss(function).per_example(output, labels), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("function", "output", "labels", "mask"),
    [
        (nn.CrossEntropyLoss(), scores(12, 4), classes(12), (12,)),
        (nn.CrossEntropyLoss(), scores(12, 4), classes(12), (12, 1)),
        (nn.CrossEntropyLoss(), scores(12, 4, 5), classes(12, 5), (12, 5)),
        (nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=2), scores(12, 4, 5), classes(12, 5), (12, 5)),
        (nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.2), scores(12, 4), classes(12), None),
        (nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=1), scores(12, 4), classes(12), None),
        (functools.partial(F.cross_entropy, weight=WEIGHT, ignore_index=0), scores(12, 4), classes(12), None),
        (nn.NLLLoss(ignore_index=3), scores(12, 4).log_softmax(1), classes(12), None),
        (nn.CrossEntropyLoss(), scores(12, 4, 5), scores(12, 4, 5, seed=1).softmax(1), (12, 5)),
        (nn.MSELoss(), scores(12, 5, 3), scores(12, 5, 3, seed=1), (12, 5)),
        (nn.MSELoss(), scores(12, 3, 5), scores(12, 3, 5, seed=1), (12, 5)),
        (nn.MSELoss(), scores(12, 3), scores(12, 3, seed=1), (12, 3)),
        (nn.MSELoss(), scores(12, 3), scores(12, 3, seed=1), (12,)),
        (nn.KLDivLoss(reduction="batchmean"), scores(12, 4).log_softmax(1), scores(12, 4, seed=1).softmax(1), (12,)),
        (Focal(), scores(12, 4), classes(12), (12,)),
        (Focal(), scores(12, 4), classes(12), (12, 1)),
        (nn.MSELoss(), scores(12, 5, 3), scores(12, 5, 3, seed=1), (12, 1)),
        (nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=2), scores(12, 4, 5), classes(12, 5), (12, 1)),
        (nn.MSELoss(), scores(12, 3), scores(12, 3, seed=1), None),
    ],
)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 999), cuts=st.sets(st.integers(1, 11), max_size=3))
def test_workers_count_weighted_means_are_the_big_batchs_mean(
    function: object, output: Tensor, labels: Tensor, mask: tuple | None, seed: int, cuts: set[int]
) -> None:
    """Values and gradients: the gradient of a weighted mean is what parameter averaging works with."""
    loss = Loss(function)
    output = output.clone().requires_grad_()
    rng = np.random.default_rng(seed)
    masks = None if mask is None else torch.from_numpy(rng.integers(0, 2, mask) * rng.choice([1.0, 0.3, 2.5], mask))
    total, count = loss.mean(output, labels, masks)
    edges = [0, *sorted(cuts), len(output)]
    pieces = [loss.mean(output[a:b], labels[a:b], None if masks is None else masks[a:b]) for a, b in pairwise(edges)]
    assert sum(c for _, c in pieces) == pytest.approx(count, abs=1e-12)
    if not count:
        assert total.item() == 0
        return
    merged = sum(value * c for value, c in pieces) / count
    torch.testing.assert_close(merged, total, rtol=1e-12, atol=1e-12)
    (big,) = torch.autograd.grad(total, output, retain_graph=True)
    (small,) = torch.autograd.grad(merged, output)
    torch.testing.assert_close(small, big, rtol=1e-12, atol=1e-14)


def test_a_masked_mean_is_the_mean_over_the_terms_that_are_left() -> None:
    output, labels = scores(6, 4, 5), classes(6, 5)
    mask = (scores(6, 5, seed=2) > 0).double()
    value, count = Loss(nn.CrossEntropyLoss()).mean(output, labels, mask)
    kept = mask.bool()
    expected = F.cross_entropy(output.movedim(1, 2)[kept], labels[kept])
    torch.testing.assert_close(value, expected, rtol=1e-13, atol=0)
    assert count == int(kept.sum())


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
@pytest.mark.parametrize(
    ("function", "output", "labels"),
    [
        (nn.CrossEntropyLoss(), scores(6, 4), classes(6)),
        (nn.CrossEntropyLoss(), scores(6, 4, 5), classes(6, 5)),
        (nn.MSELoss(), scores(6, 5, 3), scores(6, 5, 3, seed=1)),
        (nn.BCEWithLogitsLoss(), scores(6, 3), (scores(6, 3, seed=1) > 0).double()),
        (lambda o, y: (o - y).square().sum(1), scores(6, 3), scores(6, 3, seed=1)),
        (Focal(), scores(6, 4), classes(6)),
    ],
)
def test_examples_weights_give_the_weighted_mean_of_their_losses(function, output, labels, shape) -> None:
    weights = np.array([0.5, 0, 2, 1, 0.25, 3])
    rows = [float(function(output[i : i + 1], labels[i : i + 1]).mean()) for i in range(6)]
    value, count = Loss(function).mean(output, labels, torch.from_numpy(weights.reshape(shape)))
    assert float(value) == pytest.approx(np.average(rows, weights=weights), rel=1e-12)
    steps = labels.shape[1] if labels.ndim == 2 and not labels.is_floating_point() else 1
    assert count == pytest.approx(weights.sum() * steps)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(DataError, match=r"must not be negative for the loss MSELoss: the least entry is -0\.5"):
        Loss(nn.MSELoss()).mean(scores(2, 3), scores(2, 3, seed=1), torch.tensor([1.0, -0.5]))


def test_masked_class_weights_divide_as_torch_does() -> None:
    output, labels = scores(9, 4), classes(9)
    kept = torch.tensor([1, 1, 0, 1, 0, 0, 1, 1, 1]).bool()
    value, count = Loss(nn.CrossEntropyLoss(weight=WEIGHT)).mean(output, labels, kept.double())
    torch.testing.assert_close(value, F.cross_entropy(output[kept], labels[kept], weight=WEIGHT), rtol=1e-13, atol=0)
    assert count == float(WEIGHT[labels[kept]].sum())


def test_an_example_of_a_sequence_is_the_mean_of_its_real_steps() -> None:
    output, labels = scores(3, 4, 5), classes(3, 5)
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]).double()
    found = Loss(nn.CrossEntropyLoss()).per_example(output, labels, mask)
    terms = F.cross_entropy(output, labels, reduction="none")
    expected = torch.stack([terms[0, :2].mean(), terms[1].mean(), torch.zeros((), dtype=torch.float64)])
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)


def test_nan_in_masked_steps_does_not_count() -> None:
    output = scores(2, 3)
    output[1] = float("nan")
    value, count = Loss(nn.MSELoss()).mean(output, torch.zeros(2, 3).double(), torch.tensor([1.0, 0.0]).double())
    assert (float(value), count) == (float(output[0].square().mean()), 1)


def test_all_labels_ignored_is_nothing_rather_than_nan() -> None:
    output = scores(3, 4).requires_grad_()
    value, count = Loss(nn.CrossEntropyLoss()).mean(output, torch.full((3,), -100))
    value.backward()
    assert (value.item(), count, output.grad.abs().sum().item()) == (0, 0, 0)


def test_labels_are_cast_to_what_the_loss_compares() -> None:
    output = scores(5, 3)
    whole = (scores(5, 3, seed=1) > 0).long()
    for function in (nn.MSELoss(), nn.BCEWithLogitsLoss(), F.mse_loss):
        assert torch.equal(Loss(function).mean(output, whole)[0], function(output, whole.double()))
    value, count = Loss(nn.CrossEntropyLoss(weight=WEIGHT)).mean(scores(5, 4), classes(5).double())
    assert torch.equal(value, F.cross_entropy(scores(5, 4), classes(5), WEIGHT))
    assert count == WEIGHT[classes(5)].sum()
    one_hot = F.one_hot(classes(5), 4)
    value, count = Loss(nn.CrossEntropyLoss()).mean(scores(5, 4), one_hot)
    assert torch.equal(value, F.cross_entropy(scores(5, 4), one_hot.double()))
    assert count == 5


@pytest.mark.parametrize(
    ("function", "output", "labels"),
    [
        (nn.CrossEntropyLoss(), scores(6, 4), scores(6)),
        (nn.CrossEntropyLoss(), scores(6, 4), classes(6, 1)),
        (nn.CrossEntropyLoss(), scores(6, 4), classes(6) + 4),
        (nn.CrossEntropyLoss(weight=WEIGHT), scores(6, 4), classes(6) + 4),
        (nn.MSELoss(), scores(6, 1), scores(6)),
        (nn.MSELoss(), scores(6, 2), scores(5, 2)),
    ],
)
def test_labels_that_do_not_fit_are_named_with_their_shapes(
    function: nn.Module, output: Tensor, labels: Tensor
) -> None:
    with pytest.raises(DataError) as caught:
        Loss(function).mean(output, labels)
    assert str(tuple(labels.shape)) in str(caught.value) or "class numbers must lie in 0..3" in str(caught.value)


def test_a_mask_that_fits_nothing() -> None:
    with pytest.raises(DataError, match=r"\(6, 7\) does not fit"):
        Loss(nn.MSELoss()).mean(scores(6, 2), scores(6, 2), torch.ones(6, 7))
    with pytest.raises(DataError, match="return its terms"):
        Loss(Focal()).mean(scores(6, 4), classes(6), torch.ones(6, 2))


def test_losses_that_cannot_be_averaged_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="reduction='mean'"):
        Loss(nn.MSELoss(reduction="sum"))
    with pytest.raises(ConfigurationError, match="reduction='mean'"):
        Loss(functools.partial(F.mse_loss, reduction="sum"))
    with pytest.raises(ConfigurationError, match=r"write CrossEntropyLoss\(\)"):
        Loss(nn.CrossEntropyLoss)
    with pytest.raises(ConfigurationError, match="callable"):
        Loss("mse")
    learned = nn.MSELoss()
    learned.scale = nn.Parameter(torch.ones(1))
    with pytest.raises(ConfigurationError, match="part of the module"):
        Loss(learned)
