"""A graph of two inputs and two outputs: both halves of a digit, its name, and whether it is even.

python examples/two_inputs.py --backend spark
"""

import argparse
import functools

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import strombus as sb


class Halves(nn.Module):
    """See the left and the right half of a digit through layers of their own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right = nn.Linear(32, 48), nn.Linear(32, 48)
        self.joined = nn.Linear(96, 64)
        self.digit, self.even = nn.Linear(64, 10), nn.Linear(64, 1)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = torch.cat([self.left(left).relu(), self.right(right).relu()], dim=1)
        joined = self.joined(seen).relu()
        return self.digit(joined), self.even(joined)


def load() -> tuple[sb.MultiDataSet, sb.MultiDataSet]:
    """Return (train, test)."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = (images[order] / 16).astype(np.float32).reshape(-1, 8, 8), labels[order]
    halves = [images[:, :, :4].reshape(-1, 32), images[:, :, 4:].reshape(-1, 32)]
    even = (labels % 2 == 0).astype(np.float32)[:, None]
    digits = sb.MultiDataSet(halves, [labels, even])
    return digits[:1437], digits[1437:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="local", help="local, dask, spark or a scheduler's address")
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()

    network = sb.ComputationGraph(
        Halves,
        loss=[nn.CrossEntropyLoss(), nn.BCEWithLogitsLoss()],
        optimizer=functools.partial(torch.optim.Adam, lr=2e-3),
    )
    master = sb.ParameterAveragingTrainingMaster(workers=2, batch_size_per_worker=32, rng_seed=0)
    train, test = load()
    with sb.Trainer(network, master, backend=args.backend) as trainer:
        trainer.fit(train, epochs=args.epochs, validation=test)
        print(trainer.evaluate(test).stats())
        digit, even = trainer.predict(test)
    agree = np.mean((even[:, 0] > 0) == (digit.argmax(axis=1) % 2 == 0))
    print(f"both outputs agree on {agree:.1%} of the test digits")


if __name__ == "__main__":
    main()
