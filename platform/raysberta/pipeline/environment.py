"""The start-up check: each package that a run needs, its version in range, named in one line where it is not."""

from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import SpecifierSet

from raysberta.errors import InputError

NEEDED = {
    "ray": ">=2.60,<2.61",
    "torch": ">=2.13,<2.15",
    "transformers": ">=5.16.1,<5.21",
    "deepspeed": ">=0.19.8,<0.20",
    "mteb": ">=2.26,<3",
    "sentence-transformers": ">=6.2,<7",
    "pyarrow": ">=21",
    "tokenizers": ">=0.22",
}
"""The ranges of pyproject.toml for what breaks in silence when mismatched (ray and vLLM are a tested pair, not a range)."""


def check() -> None:
    """Look at the installed packages without importing them.

    Raises:
        InputError: one is missing or out of range, or both FAISS builds are installed (they corrupt one another).
    """
    for name, wanted in NEEDED.items():
        found = installed(name)
        if found is None:
            raise InputError(
                f"package {name} is missing; right would be {name}{wanted}: pip install --no-deps -r requirements/cpu.txt (or cuda.txt)"
            )
        if found.split("+")[0] not in SpecifierSet(wanted):
            raise InputError(
                f"package {name} is {found}; right would be {name}{wanted}: pip install --no-deps -r requirements/cpu.txt (or cuda.txt)"
            )
    builds = [name for name in ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu12") if installed(name)]
    if len(builds) != 1:
        raise InputError(f"exactly one build of FAISS must be installed, found {', '.join(builds) or 'none'}")


def installed(name: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
