"""Packages of Debian and Ubuntu that hold texts: fetched by `apt-get download`, unpacked by `dpkg-deb -x`, never installed, without root.

They lie beside the Python packages, in the environment that the program runs in, each in a folder named by its version. So what holds for
a Python package holds for them: every node that reads has them, the version is the identity, and a newer one is not taken by itself. The
descriptions that apt has of all packages lie there in the same way; their version is the hash of what was fetched.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote

from raysberta.errors import InputError

HOME = Path(sys.prefix) / "share" / "raysberta" / "distribution"
DESCRIPTIONS = "descriptions"
"""What the packages' descriptions are called among the packages."""
LONGEST_SECONDS = 300
"""Of one command: some megabytes over a slow line."""


def folder(package: str, key: str) -> Path:
    """Where a package is unpacked.

    Args:
        package: Its name in the distribution, or DESCRIPTIONS.
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

    def made(aside: Path) -> None:
        _download(missing, aside)
        for file in sorted(aside.glob("*.deb")):
            package, version, _ = unquote(file.stem).split("_")  # package_version_architecture.deb, a colon of it %3a
            _run(["dpkg-deb", "-x", str(file), str(aside / "unpacked")], aside)
            _place(aside / "unpacked", package, version)

    missing = [package for package in packages if not any(HOME.glob(f"{package}_*"))]
    if missing:
        _fetched(made, ", ".join(missing), ("apt-get", "dpkg-deb"), key)


def fetch_descriptions(languages: Sequence[str], key: str) -> None:
    """Fetch the descriptions of all packages where they are not there yet, a file of apt's a language and part of the distribution.

    Raises:
        InputError: apt-get is not here, has no network, or the distribution has no descriptions.
    """

    def made(aside: Path) -> None:
        told = ["-o", f"Acquire::Languages={','.join(languages)}", "-o", "Acquire::GzipIndexes=false"]
        _update(aside, [*told, "-o", "Acquire::IndexTargets::deb::Packages::DefaultEnabled=false"])
        kept = aside / DESCRIPTIONS
        kept.mkdir()
        hashed = hashlib.sha256()
        for file in sorted((aside / "lists").glob("*_i18n_Translation-*")):
            hashed.update(file.read_bytes())
            file.rename(kept / file.name)
        if not any(kept.iterdir()):
            raise InputError(f"{key}: the distribution has no descriptions in {' or '.join(languages)}; right would be Debian or Ubuntu")
        _place(kept, DESCRIPTIONS, hashed.hexdigest()[:16])

    if not any(HOME.glob(f"{DESCRIPTIONS}_*")):
        _fetched(made, "the descriptions of packages", ("apt-get",), key)


def _fetched(make: Callable[[Path], None], what: str, programs: Sequence[str], key: str) -> None:
    """Make something in a folder of its own, which goes with whatever is left in it."""
    for program in programs:
        if shutil.which(program) is None:
            raise InputError(f"{key}: {what} cannot be fetched without {program}; right would be Debian or Ubuntu")
    try:
        HOME.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=HOME) as aside:
            make(Path(aside))
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(f"{key}: {what} cannot be fetched: {_why(error)}") from error


def _place(made: Path, package: str, version: str) -> None:
    """Put what is whole where it is looked for, unless another process has."""
    place = HOME / f"{package}_{version}"
    if place.exists():
        shutil.rmtree(made)
    else:
        made.rename(place)


def _download(packages: Sequence[str], aside: Path) -> None:
    """Where the machine's own lists of packages are empty or old, once more with fresh ones, which are thrown away."""
    try:
        _run(["apt-get", "download", *packages], aside)
    except subprocess.CalledProcessError:
        own = _update(aside, ["-o", "Acquire::Languages=none"])
        _run(["apt-get", *own, "download", *packages], aside)


def _update(aside: Path, options: Sequence[str]) -> list[str]:
    """Fresh lists in `lists`; the options by which apt-get reads them."""
    (aside / "lists" / "partial").mkdir(parents=True)
    own = ["-o", f"Dir::State::lists={aside / 'lists'}", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="]
    _run(["apt-get", *own, *options, "update"], aside)
    return own


def _run(command: Sequence[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=LONGEST_SECONDS)


def _why(error: Exception) -> str:
    """In one line: the first that apt-get marks as an error, else the exception itself."""
    said = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
    return next((line for line in (said or "").splitlines() if line.startswith("E:")), " ".join(str(error).split()))
