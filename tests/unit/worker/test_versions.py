"""Pairs of packages that do not fit, among packages made for it."""

from __future__ import annotations

from platform import python_version

import pytest

from strombus.worker.versions import installed_versions, misfits


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a package's metadata where Python looks for it."""
    monkeypatch.syspath_prepend(tmp_path)

    def put(name, version, *lines):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        text = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines]
        (folder / "METADATA").write_text("\n".join(text))

    return put


def test_what_is_installed_here_fits():
    assert misfits() == []
    assert installed_versions()["python"] == python_version()
    assert "missing" not in installed_versions().values()


def test_pairs_are_named(install):
    extra = "Requires-Dist: t-lake<2; extra == 'wide'"
    install("t_river", "1.0", "Requires-Dist: t-brook>=2", "Provides-Extra: wide", extra, "Requires-Dist: t-nowhere>9")
    install("t_brook", "1.5", "Requires-Dist: t-spring==1.*", "Requires-Dist: t-lake<1; extra == 'never'")
    install("t_lake", "3.0", "Requires-Dist: t-river", "Requires-Python: <3")
    install("t_spring", "1.7")
    assert misfits("t-river") == [
        f"t-lake 3.0 needs Python <3, here is {python_version()}",
        "t-river 1.0 needs t-brook>=2, here is 1.5",
        "t-river 1.0 needs t-lake<2, here is 3.0",
    ]
