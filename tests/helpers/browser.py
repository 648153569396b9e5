"""A headless Chromium that loads a page and hands back what its scripts have made of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["load_page"]

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = ("no-first-run", "disable-background-networking", "disable-component-update", "disable-sync", "disable-quic")


def load_page(page: Path, profile: Path, width: int = 1400) -> tuple[str, str]:
    """Return the page's elements as HTML after its scripts ran, and what the browser's console said.

    Skips the test where there is no Chromium.
    """
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no Chromium is installed: none of {', '.join(NAMES)} is on the path")
    options = [f"--{name}" for name in ("headless", "no-sandbox", "disable-gpu", *QUIET, "enable-logging=stderr")]
    options += [f"--user-data-dir={profile}", f"--window-size={width},900", "--virtual-time-budget=3000", "--dump-dom"]
    done = subprocess.run(
        [program, *options, page.as_uri()], capture_output=True, text=True, timeout=120, check=True, errors="replace"
    )
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
