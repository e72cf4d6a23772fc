"""Packages of Debian and Ubuntu that hold texts: fetched by `apt-get download`, unpacked by `dpkg-deb -x`, never installed, without root.

They lie beside the Python packages, in the environment that the program runs in, each in a folder named by its version. So what holds for
a Python package holds for them: every node that reads has them, the version is the identity, and a newer one is not taken by itself.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from raysberta.errors import InputError

HOME = Path(sys.prefix) / "share" / "raysberta" / "distribution"
LONGEST_SECONDS = 300
"""Of one command: some megabytes over a slow line."""


def folder(package: str, key: str) -> Path:
    """Where a package is unpacked.

    Args:
        package: Its name in the distribution.
        key: The recipe's key that asks for it, for the message.

    Raises:
        InputError: it is not there.
    """
    found = sorted(HOME.glob(f"{package}_*"))
    if not found:
        raise InputError(f"{key}: {package} is not in {HOME}; right would be Debian or Ubuntu, where a run fetches it")
    return found[-1]


def unpacked_version(package: str, key: str) -> str:
    """The version of an unpacked package.

    Raises:
        InputError: it is not there.
    """
    return folder(package, key).name.removeprefix(f"{package}_")


def fetch(packages: Sequence[str], key: str) -> None:
    """Unpack those packages that are not there yet; what is there stays.

    Args:
        packages: Their names in the distribution.
        key: The recipe's key that asks for them, for the message.

    Raises:
        InputError: apt-get is not here, does not know a package, or has no network.
    """
    missing = [package for package in packages if not any(HOME.glob(f"{package}_*"))]
    if not missing:
        return
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise InputError(f"{key}: {', '.join(missing)} cannot be fetched without {program}; right would be Debian or Ubuntu")
    try:
        HOME.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=HOME) as aside:
            _download(missing, Path(aside))
            for file in sorted(Path(aside).glob("*.deb")):
                _unpack(file, Path(aside) / "unpacked")
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(f"{key}: {', '.join(missing)} cannot be fetched: {_why(error)}") from error


def _download(packages: Sequence[str], target: Path) -> None:
    """Where the machine's own lists of packages are empty or old, once more with fresh ones, which are thrown away."""
    try:
        _run(["apt-get", "download", *packages], target)
    except subprocess.CalledProcessError:
        (target / "lists" / "partial").mkdir(parents=True)
        own = ["-o", f"Dir::State::lists={target / 'lists'}", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="]
        _run(["apt-get", *own, "-o", "Acquire::Languages=none", "update"], target)
        _run(["apt-get", *own, "download", *packages], target)


def _unpack(file: Path, aside: Path) -> None:
    """A file `package_version_architecture.deb`, in whose name a colon is %3a, to its folder: whole, or not at all."""
    package, version, _ = unquote(file.stem).split("_")
    _run(["dpkg-deb", "-x", str(file), str(aside)], file.parent)
    place = HOME / f"{package}_{version}"
    if not place.exists():
        aside.rename(place)
    shutil.rmtree(aside, ignore_errors=True)


def _run(command: Sequence[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=LONGEST_SECONDS)


def _why(error: Exception) -> str:
    """In one line: the first that apt-get marks as an error, else the exception itself."""
    said = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
    return next((line for line in (said or "").splitlines() if line.startswith("E:")), " ".join(str(error).split()))
