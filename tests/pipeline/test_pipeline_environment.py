"""The start-up check, and that the files that install things agree with one another and with it."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from raysberta.errors import InputError
from raysberta.pipeline import environment

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    return {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower(): line.split("==")[1] for line in lines if line and not line.startswith("#")}


def test_this_environment_passes() -> None:
    environment.check()


def test_missing_mismatched_and_doubled_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "NEEDED", {"no-such-package": ">=1"})
    with pytest.raises(InputError, match="package no-such-package is missing; right would be no-such-package>=1"):
        environment.check()
    monkeypatch.setattr(environment, "NEEDED", {"pyarrow": ">=999"})
    with pytest.raises(InputError, match=f"package pyarrow is {version('pyarrow')}; right would be pyarrow>=999"):
        environment.check()
    monkeypatch.setattr(environment, "NEEDED", {})
    monkeypatch.setattr(environment, "installed", lambda name: "1.0")
    with pytest.raises(InputError, match="exactly one build of FAISS"):
        environment.check()


@pytest.mark.parametrize("name", ["cpu.txt", "cuda.txt"])
def test_pins_lie_in_the_ranges(name: str) -> None:
    pinned = pins(name)
    extra = PROJECT["optional-dependencies"][name.removesuffix(".txt")]
    for text in [*PROJECT["dependencies"], *extra]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pinned[re.sub(r"[-_.]+", "-", wanted.name).lower()]), text
    ranges = {Requirement(text).name: str(Requirement(text).specifier) for text in PROJECT["dependencies"]}
    for package, wanted_range in environment.NEEDED.items():
        assert set(ranges[package].split(",")) == set(wanted_range.split(",")), package


def test_what_is_installed_is_what_is_pinned() -> None:
    for package in ("ray", "torch", "transformers", "deepspeed", "mteb", "sentence-transformers"):
        assert version(package).split("+")[0] == pins("cpu.txt")[package]
    assert "torchvision" not in pins("cpu.txt")
