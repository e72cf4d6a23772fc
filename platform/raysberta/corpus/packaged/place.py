"""Where a package lies and which version it is, without importing it."""

from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

from raysberta.errors import InputError


def folder(package: str, key: str) -> Path:
    """The folder of an installed package.

    Args:
        package: Its import name, top level only.
        key: The recipe's key that asks for it, for the message.

    Raises:
        InputError: it is not installed, or is a single file.
    """
    try:
        spec = find_spec(package) if "." not in package else None
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"{key}: package {package!r} is not installed; right would be `pip install {package.replace('_', '-')}`")
    return Path(next(iter(spec.submodule_search_locations)))


def installed_version(package: str) -> str:
    """The version of the distribution that holds a package, "" where no metadata tells."""
    try:
        return version(package)
    except PackageNotFoundError:  # the distribution has another name: look through all of them, which takes a second
        distributions = packages_distributions().get(package, ())
    return version(distributions[0]) if distributions else ""
