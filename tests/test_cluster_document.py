"""The commands of docs/cluster.md against the repository and the pinned Ray, and its tables against what computes them."""

import os
import re
import shlex
import subprocess
import sys
from functools import cache
from itertools import pairwise

import click
import pytest
from ray.scripts.scripts import cli

from raysberta.parsing import load
from source_tree import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import cluster_cost

PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    """What the page gives to type, word by word, its variables put in."""
    text = "\n".join(re.findall(r"^```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    values = dict(re.findall(r"\b(RECIPE|BUCKET)=(\S+)", text))
    for name, value in values.items():
        text = text.replace(f"${name}", value)
    return [shlex.split(line) for line in re.findall(r"^ *((?:ray|python|--set) .*)$", text, re.MULTILINE)]


def jobs() -> list[list[str]]:
    """The words after `python` of each command, those handed to a shell too."""
    found = []
    for words in commands():
        words = [part for word in words for part in (shlex.split(word) if " && " in word else [word])]
        while "python" in words:
            words = words[words.index("python") + 1 :]
            found.append(words[: words.index("&&")] if "&&" in words else words)
    return found


@cache
def told(job: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "platform"), "COLUMNS": "200"}
    asked = [sys.executable, job, "--help"]
    return subprocess.run(asked, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


def test_the_page_names_what_it_is_about() -> None:
    run = {words[0] for words in jobs()}
    assert run >= {"jobs/fetch_data.py", "jobs/fetch_benchmark.py", "jobs/fetch_models.py", "jobs/full_pipeline.py"}


@pytest.mark.parametrize("words", jobs(), ids=" ".join)
def test_jobs_and_their_options_exist(words) -> None:
    assert (ROOT / words[0]).is_file()
    for option in (word for word in words if word.startswith("--")):
        assert re.search(rf"{option}\b", told(words[0])), f"{words[0]} knows no {option}"
    sets = [value for option, value in pairwise(words) if option == "--set"]
    for option, value in pairwise(words):
        if option == "--recipe":
            assert load(ROOT / value, sets).storage in (load(ROOT / value).storage, "s3://your-bucket/run")


def test_settings_beside_commands_exist() -> None:
    more = [value for words in commands() if words[0] == "--set" for value in words if "=" in value]
    found = [*more, *re.findall(r"`--set ([\w.]+=\w+)`", PAGE)]
    assert len(found) >= 6
    load(ROOT / "recipes" / "ru_en_rosberta.yaml", found)


@pytest.mark.parametrize("words", [words for words in commands() if words[0] == "ray"], ids=" ".join)
def test_rays_commands_and_their_options_exist(words) -> None:
    group, rest = cli, words[1:]
    while isinstance(group, click.Group):
        assert rest[0] in group.commands, f"Ray has no command {' '.join(words[:3])}"
        group, rest = group.commands[rest[0]], rest[1:]
    own = rest[: rest.index("--")] if "--" in rest else rest
    known = {name for parameter in group.params for name in [*parameter.opts, *parameter.secondary_opts]}
    assert {word for word in own if word.startswith("-")} <= known


def test_files_and_targets_that_it_names_exist() -> None:
    for name in re.findall(r"`((?:docs|requirements|recipes|jobs|benchmarks)/[\w./-]+)`", PAGE):
        assert (ROOT / name).is_file(), name
    for target in re.findall(r"`make ([\w-]+)", PAGE):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
    for image in ("ami-00000000000000000", "us-east-2"):
        assert image in (ROOT / "cluster.yaml").read_text(), "the page puts another in its place"


def test_its_tables_are_what_is_computed() -> None:
    made = cluster_cost.tables(load(cluster_cost.RECIPE))
    assert cluster_cost.with_tables(PAGE, made) == PAGE, "run python benchmarks/cluster_cost.py --write"
