"""Every Python snippet of the README and the documentation runs, page by page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def snippets(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text())


def run_apart(code: str, folder: Path) -> None:
    """Run a page that opens a Spark session: this process may have one already."""
    pytest.importorskip("grpc", reason="Spark Connect's client is not installed (pip install strombus[connect])")
    from helpers.spark import JAVA, SETTINGS

    (folder / "page.py").write_text(code)
    settings = {**SETTINGS, "spark.sql.shuffle.partitions": "2"}
    (folder / "spark-defaults.conf").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    surroundings = {key: value for key, value in os.environ.items() if not key.startswith(("PYSPARK", "SPARK"))}
    surroundings |= JAVA | {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    surroundings |= {"SPARK_CONF_DIR": str(folder), "PYTHONPATH": SETTINGS["spark.executorEnv.PYTHONPATH"]}
    done = subprocess.run(
        [sys.executable, "page.py"], env=surroundings, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_every_snippet_is_found():
    """What only looks like a snippet, such as an indented one or one of another language's name, would never run."""
    for page in PAGES:
        assert len(snippets(page)) == len(re.findall(r"```+ *\{?[\w-]*\}? *py", page.read_text())), page
    assert len(snippets(ROOT / "README.md")) > 0


@pytest.mark.parametrize("page", [page for page in PAGES if snippets(page)], ids=lambda p: str(p.relative_to(ROOT)))
def test_snippets_run(page, tmp_path, monkeypatch):
    code = "\n".join(snippets(page))
    if "spark" in code.lower():
        pytest.importorskip("pyspark", reason="this page's snippets use Spark, and pyspark is not installed")
    if "torchmetrics" in code:
        pytest.importorskip("torchmetrics", reason="this page's snippets use torchmetrics, which is not installed")
    monkeypatch.chdir(tmp_path)
    if "SparkSession.builder" in code:
        run_apart(code, tmp_path)
        return
    exec(compile(code, str(page), "exec"), {"__name__": "__snippets__"})
