from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from strombus.errors import DataError
from strombus.networks import MultiLayerNetwork
from strombus.networks.tensors import to_tensors
from strombus.types import DataSet, MultiDataSet

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("given", "features", "labels"),
    [
        (np.float16, torch.float64, torch.float64),
        (np.float32, torch.float64, torch.float64),
        (">f8", torch.float64, torch.float64),
        (np.longdouble, torch.float64, torch.float64),
        (np.uint8, torch.float64, torch.int64),
        (np.bool_, torch.float64, torch.int64),
        (np.int8, torch.int64, torch.int64),
        (np.uint16, torch.int64, torch.int64),
        (np.int32, torch.int64, torch.int64),
        ("<u4", torch.int64, torch.int64),
        (np.uint64, torch.int64, torch.int64),
    ],
)
def test_types(given: object, features: torch.dtype, labels: torch.dtype) -> None:
    values = np.array([[0, 1], [1, 0], [1, 1]], given)
    found = to_tensors(DataSet(values, values, labels_mask=values), torch.float64, CPU)
    assert (found.features[0].dtype, found.labels[0].dtype) == (features, labels)
    assert found.labels_masks[0].dtype == torch.float64
    for tensor in (found.features[0], found.labels[0], found.labels_masks[0]):
        np.testing.assert_array_equal(tensor.numpy(), values.astype(float))


@pytest.mark.filterwarnings("error")
def test_memory_is_shared_where_torch_can_and_never_written() -> None:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert to_tensors(DataSet(values), torch.float32, CPU).features[0].data_ptr() == values.ctypes.data
    for awkward in (values[::-1], values[:, ::-1], values[1:], values[:, 1:], values.T):
        np.testing.assert_array_equal(to_tensors(DataSet(awkward), torch.float32, CPU).features[0].numpy(), awkward)
    values.setflags(write=False)
    to_tensors(DataSet(values), torch.float32, CPU).features[0].add_(1)
    assert values[0, 0] == 0


def test_several_inputs_with_some_masks() -> None:
    batch = MultiDataSet([np.zeros((4, 2)), np.ones((4, 3, 2))], [np.zeros(4, int)], [None, np.ones((4, 3))])
    found = to_tensors(batch, torch.float32, CPU)
    assert [t.shape for t in found.features] == [(4, 2), (4, 3, 2)]
    assert found.features_masks[0] is None
    assert found.features_masks[1].shape == (4, 3)
    assert found.labels_masks == (None,)


@pytest.mark.parametrize(("rows", "count", "expected"), [(7, 3, [2, 2, 3]), (2, 5, [1, 1]), (4, 1, [4])])
def test_slices_are_even_and_never_empty(rows: int, count: int, expected: list[int]) -> None:
    features = np.arange(rows, dtype=float)[:, None]
    pieces = list(to_tensors(DataSet(features, features), torch.float64, CPU).slices(count))
    assert [piece.examples for piece in pieces] == expected
    assert torch.cat([piece.labels[0] for piece in pieces]).flatten().tolist() == list(range(rows))


def test_text_is_refused() -> None:
    with pytest.raises(DataError, match="must be a regular numeric array, got texts"):
        to_tensors(DataSet(np.array(["a", "b"])), torch.float32, CPU)


def test_integer_features_reach_an_embedding_as_indices() -> None:
    network = MultiLayerNetwork(lambda: nn.Embedding(10, 3), device="cpu")
    found = network.predict(np.array([[1, 2], [3, 9]], np.int16))
    np.testing.assert_array_equal(found, network.module.weight.detach().numpy()[[[1, 2], [3, 9]]])
    with pytest.raises(DataError, match=r"Embedding failed on features \(1, 1\) int64"):
        network.predict(np.array([[10]]))
