"""A character LSTM on lines of any length with gradient sharing, written as for Deeplearning4j on Spark.

python examples/dl4j/char_lstm.py -dask
python examples/dl4j/char_lstm.py -useSparkLocal true -textPath lines.txt
spark-submit --master spark://host:7077 examples/dl4j/char_lstm.py -useSparkLocal false -networkMask 10.0.0.0/16
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
from strombus.compat.dl4j import (
    AdaptiveThresholdAlgorithm,
    DaskSparkContext,
    DataSet,
    EqualRepartitioner,
    RDDTrainingApproach,
    SharedTrainingMaster,
    SparkDl4jMultiLayer,
    VoidConfiguration,
)

END = "\n"
NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight"),
    *("nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen"),
)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-useSparkLocal", choices=["true", "false"], default="true", help="false: as spark-submit says")
    parser.add_argument("-dask", nargs="?", const="", help="a Dask scheduler's address; without one, a cluster here")
    parser.add_argument("-batchSizePerWorker", type=int, default=8)
    parser.add_argument("-numEpochs", type=int, default=5)
    parser.add_argument("-textPath", help="a text that every worker reaches; else sums in words")
    parser.add_argument("-gradientThreshold", type=float, default=1e-2, help="where it starts; with Adam the rate")
    parser.add_argument("-maxStaleness", type=int, default=4, help="steps ahead of the slowest; 0: runs repeat")
    parser.add_argument("-networkMask", help="network in which the workers reach each other, such as 10.0.0.0/16")
    return parser.parse_args(argv)


def make_context(args: argparse.Namespace) -> Any:
    if args.dask is not None:
        return DaskSparkContext(args.dask or None)
    from pyspark import SparkConf, SparkContext

    conf = SparkConf().setAppName("Character LSTM")
    if args.useSparkLocal == "true":
        conf.setMaster("local[*]")
    return SparkContext.getOrCreate(conf)


def make_lines() -> list[str]:
    lines = []
    for a, b in itertools.product(range(9), repeat=2):
        one, other, both = NUMBERS[a], NUMBERS[b], NUMBERS[a + b]
        lines += [f"{one} and {other} is {both}", f"{both} less {other} is {one}"]
    return lines


def encode(characters: str, length: int, line: str) -> DataSet:
    """Return a line as one example: each character, and as its label the next one; masked behind the line's end."""
    numbers = [characters.index(character) for character in END + line + END]
    steps = np.zeros((1, length + 2), np.int64)
    steps[0, : len(numbers)] = numbers
    mask = np.arange(length + 1)[None] <= len(line)
    return DataSet(steps[:, :-1], steps[:, 1:], mask, mask)


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
    network_configuration = VoidConfiguration.builder().networkMask(args.networkMask).build()
    training_master = (
        SharedTrainingMaster.Builder(network_configuration, 1)
        .thresholdAlgorithm(AdaptiveThresholdAlgorithm(args.gradientThreshold))
        .batchSizePerWorker(args.batchSizePerWorker)
        .maxStaleness(args.maxStaleness)
        .repartitioner(EqualRepartitioner())
        .rddTrainingApproach(RDDTrainingApproach.Direct)
        .rngSeed(12345)
        .build()
    )
    with make_context(args) as sc:
        lines = sc.textFile(args.textPath) if args.textPath else sc.parallelize(make_lines())
        characters = "".join(sorted({END, *lines.flatMap(set).distinct().collect()}))
        length = lines.map(len).max()
        train_data = lines.map(functools.partial(encode, characters, length)).cache()

        spark_network = SparkDl4jMultiLayer(sc, make_network(len(characters)), training_master)
        rng = np.random.default_rng(12345)
        for epoch in range(args.numEpochs):
            network = spark_network.fit(train_data)
            print(f"epoch {epoch}, score {spark_network.getScore():.4f}: {sample(network, characters, length, rng)}")
        print(f"mean loss of a character {spark_network.calculateScore(train_data, True):.4f}")
        training_master.deleteTempFiles(sc)
        train_data.unpersist()
    return spark_network.getNetwork()


if __name__ == "__main__":
    main()
