"""A sequence model with masks: digits read row by row, of which only some rows have been seen.

python examples/sequences.py --backend dask
"""

import argparse
import functools

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import strombus as sb


class RowReader(nn.Module):
    """Read the rows of a digit one by one and name the digit after each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.memory = nn.GRU(8, 64, batch_first=True)
        self.name = nn.Linear(64, 10)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows of shape (n, 8 steps, 8 pixels) to logits of shape (n, 10 classes, 8 steps)."""
        states, _ = self.memory(rows)
        return self.name(states).transpose(1, 2)


def load() -> tuple[sb.DataSet, sb.DataSet]:
    """Return (train, test): each digit cut off after 5 to 8 rows, the loss counting from the fifth row on."""
    images, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(images))
    images, labels = (images[order] / 16).astype(np.float32).reshape(-1, 8, 8), labels[order]
    seen = rng.integers(5, 9, len(images))
    steps = np.arange(8)
    features_mask = (steps < seen[:, None]).astype(np.float32)
    labels_mask = features_mask * (steps >= 4)
    digits = sb.DataSet(
        images * features_mask[:, :, None], np.repeat(labels[:, None], 8, axis=1), features_mask, labels_mask
    )
    return digits[:1437], digits[1437:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="local", help="local, dask, spark or a scheduler's address")
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()

    network = sb.MultiLayerNetwork(RowReader, nn.CrossEntropyLoss(), functools.partial(torch.optim.Adam, lr=1e-2))
    master = sb.ParameterAveragingTrainingMaster(workers=2, batch_size_per_worker=32, rng_seed=0)
    train, test = load()
    with sb.Trainer(network, master, backend=args.backend) as trainer:
        trainer.fit(train, epochs=args.epochs, validation=test)
        print(trainer.evaluate(test).stats())


if __name__ == "__main__":
    main()
