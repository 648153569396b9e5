"""The page that answers DL4J's tests names tests that exist, and answers each of its rows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "tests/README.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", PAGE)))
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in PAGE.splitlines() if line[:2] == "| "]


@pytest.mark.parametrize(("path", "name"), NAMED, ids=lambda value: value or "file")
def test_what_is_named_exists(path, name):
    file = next((folder / path for folder in (ROOT / "tests", ROOT) if (folder / path).exists()), None)
    assert file, path
    if name:
        nodes = ast.walk(ast.parse(file.read_text()))
        assert name in {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_each_row_has_a_test_or_a_reason():
    assert len(ROWS) > 100
    for row in ROWS:
        assert len(row) == 2, row
        assert all(row), row
