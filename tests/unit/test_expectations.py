"""The table of what people ask for names pages and tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "expectations.md"
ROW = re.compile(r"^\| (\d+) \| (\S.*?) \| (\S.*?) \| \[.+?\]\((\w+\.md)\) \| `([\w/.]+)`, `(\w+)` \|$", re.MULTILINE)


def test_each_expectation_has_a_page_and_a_test_that_exist():
    rows = ROW.findall(PAGE.read_text())
    assert [int(row[0]) for row in rows] == list(range(1, 47))
    assert len({row[1] for row in rows}) == len(rows)
    missing = [
        (number, page, test)
        for number, _, _, page, file, test in rows
        if not (PAGE.parent / page).exists()
        or not re.search(rf"^ *def {test}\(", (TESTS / file).read_text(), re.MULTILINE)
    ]
    assert missing == []
