"""A character LSTM on lines of any length with gradient sharing, from an RDD on Spark or on Dask.

python examples/char_lstm.py --backend dask
python examples/char_lstm.py --backend tcp://scheduler:8786 --text-path /shared/lines.txt
spark-submit --master spark://host:7077 examples/char_lstm.py --backend spark --network-mask 10.0.0.0/16
"""

import argparse
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

import strombus as sb
from strombus.compat.dl4j import DaskSparkContext

END = "\n"
NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight"),
    *("nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen"),
)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="dask", help="dask, spark or a Dask scheduler's address")
    parser.add_argument("--batch-size-per-worker", type=int, default=8)
    parser.add_argument("--num-epochs", type=int, default=5)
    parser.add_argument("--text-path", help="a text that every worker reaches; else sums in words")
    parser.add_argument("--gradient-threshold", type=float, default=1e-2, help="where it starts; with Adam the rate")
    parser.add_argument("--max-staleness", type=int, default=4, help="steps ahead of the slowest; 0: runs repeat")
    parser.add_argument("--network-mask", help="network in which the workers reach each other, such as 10.0.0.0/16")
    return parser.parse_args(argv)


def make_context(backend: str) -> Any:
    if backend == "spark":
        from pyspark import SparkContext

        return SparkContext.getOrCreate()
    return DaskSparkContext(None if backend == "dask" else backend)


def make_lines() -> list[str]:
    lines = []
    for a, b in itertools.product(range(9), repeat=2):
        one, other, both = NUMBERS[a], NUMBERS[b], NUMBERS[a + b]
        lines += [f"{one} and {other} is {both}", f"{both} less {other} is {one}"]
    return lines


def encode(characters: str, length: int, line: str) -> sb.DataSet:
    """Return a line as one example: each character, and as its label the next one; masked behind the line's end."""
    numbers = [characters.index(character) for character in END + line + END]
    steps = np.zeros((1, length + 2), np.int64)
    steps[0, : len(numbers)] = numbers
    mask = np.arange(length + 1)[None] <= len(line)
    return sb.DataSet(steps[:, :-1], steps[:, 1:], mask, mask)


class CharacterLSTM(nn.Module):
    """Say after each character how likely each is to follow."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, 16)
        self.memory = nn.LSTM(16, 64, batch_first=True)
        self.following = nn.Linear(64, characters)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        """Take numbers of shape (n, steps), return logits of shape (n, characters, steps)."""
        states, _ = self.memory(self.embedding(steps))
        return self.following(states).transpose(1, 2)


def make_network(characters: int) -> sb.MultiLayerNetwork:
    torch.manual_seed(12345)
    module = CharacterLSTM(characters)
    return sb.MultiLayerNetwork(module, nn.CrossEntropyLoss(), functools.partial(torch.optim.Adam, lr=1e-2))


def sample(network: sb.MultiLayerNetwork, characters: str, length: int, rng: np.random.Generator) -> str:
    """Draw one character after the other from what the network thinks likely, up to a line's end."""
    line = END
    while len(line) <= length:
        logits = network.predict([[characters.index(character) for character in line]])[0, :, -1]
        likely = np.exp(logits - logits.max(), dtype=np.float64)
        line += characters[rng.choice(len(characters), p=likely / likely.sum())]
        if line[-1] == END:
            break
    return line.strip(END)


def main(argv: Sequence[str] | None = None) -> sb.MultiLayerNetwork:
    args = parse(argv)
    master = sb.SharedTrainingMaster(
        threshold_algorithm=sb.AdaptiveThresholdAlgorithm(initial_threshold=args.gradient_threshold),
        batch_size_per_worker=args.batch_size_per_worker,
        max_staleness=args.max_staleness,
        transport_options=sb.TransportOptions(network_mask=args.network_mask),
        rdd_training_approach="Direct",
        rng_seed=12345,
    )
    with make_context(args.backend) as sc:
        lines = sc.textFile(args.text_path) if args.text_path else sc.parallelize(make_lines())
        characters = "".join(sorted({END, *lines.flatMap(set).distinct().collect()}))
        length = lines.map(len).max()
        rows = lines.map(functools.partial(encode, characters, length)).cache()

        network = make_network(len(characters))
        rng = np.random.default_rng(12345)
        with sb.Trainer(network, master, backend=sc) as trainer:
            for epoch in range(args.num_epochs):
                result = trainer.fit(rows, progress=False)
                print(f"epoch {epoch}, score {result.score:.4f}: {sample(network, characters, length, rng)}")
            print(f"mean loss of a character {trainer.calculate_score(rows):.4f}")
        rows.unpersist()
    return network


if __name__ == "__main__":
    main()
