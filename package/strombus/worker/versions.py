"""Which versions a process has, and which pairs of them do not fit together."""

from __future__ import annotations

from contextlib import suppress
from importlib import metadata
from platform import python_version

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

__all__ = ["installed_versions", "misfits"]

PACKAGES = ("strombus", "torch", "numpy", "zarr", "numba", "pyzmq")
"""What must be alike on all workers, beside Python."""


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of what training needs; "missing" where a package is not there."""
    versions = {"python": python_version()}
    for name in PACKAGES:
        versions[name] = "missing"
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def misfits(root: str = "strombus") -> list[str]:
    """Return the pairs of installed packages of which one needs another version of the other, as sentences.

    All that `root` and its extras lead to is looked at, as far as it is installed: installers let such pairs come about
    when packages are added one by one.
    """
    found, seen, waiting = [], set(), [root]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        with suppress(metadata.PackageNotFoundError):
            package = metadata.distribution(name)
            extras = package.metadata.get_all("Provides-Extra") or [] if name == root else []
            if (text := _misfit_with_python(package)) is not None:
                found.append(text)
            for needed, version in _needs(package, extras):
                waiting.append(needed.name)
                if not needed.specifier.contains(version, prereleases=True):
                    found.append(f"{name} {package.version} needs {needed.name}{needed.specifier}, here is {version}")
    return sorted(found)


def _needs(package: metadata.Distribution, extras: list[str]) -> list[tuple[Requirement, str]]:
    """Return the requirements of a package that are installed, each with the version that is."""
    found = []
    for text in package.requires or []:
        with suppress(InvalidRequirement, metadata.PackageNotFoundError):
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                found.append((needed, metadata.version(needed.name)))
    return found


def _misfit_with_python(package: metadata.Distribution) -> str | None:
    here, name = python_version(), canonicalize_name(package.name)
    with suppress(InvalidSpecifier, KeyError):
        wanted = SpecifierSet(package.metadata["Requires-Python"] or "")
        if not wanted.contains(here, prereleases=True):
            return f"{name} {package.version} needs Python {wanted}, here is {here}"
    return None
