"""Every Python snippet of the README and the documentation runs, page by page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def snippets(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text())


@pytest.mark.parametrize("page", [page for page in PAGES if snippets(page)], ids=lambda p: str(p.relative_to(ROOT)))
def test_snippets_run(page, tmp_path, monkeypatch):
    code = "\n".join(snippets(page))
    if "spark" in code.lower():
        pytest.importorskip("pyspark", reason="this page's snippets use Spark, and pyspark is not installed")
    if "torchmetrics" in code:
        pytest.importorskip("torchmetrics", reason="this page's snippets use torchmetrics, which is not installed")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(page), "exec"), {"__name__": "__snippets__"})
