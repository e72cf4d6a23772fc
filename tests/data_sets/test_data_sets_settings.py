"""What an entry may say, and where its files lie."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raysberta.data_sets.settings import DatasetSource
from raysberta.errors import InputError
from raysberta.nodes import located, nodes_of
from raysberta.parsing import load
from raysberta.recipe import Recipe
from source_tree import ROOT

PATH = {"kind": "dataset", "path": "a.parquet", "task": "topic"}
HUB = {"kind": "dataset", "hub": "owner/name", "revision": "0" * 40, "files": "*.parquet", "task": "topic"}


def recipe(tmp_path: Path, entry: dict[str, Any], *settings: str) -> Recipe:
    import yaml

    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump({"name": "r", "sources": {"x": entry}}))
    return load(file, settings)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({**PATH, "limit": 0}, "sources.x.limit: Input should be greater than 0, given 0"),
        ({**HUB, "sample": 0}, "sources.x.sample: Input should be greater than 0, given 0"),
        ({**HUB, "revision": "main"}, "sources.x.revision: 'main' is no commit; right would be its 40 hex digits"),
        ({**HUB, "revision": "0" * 39}, f"sources.x.revision: '{'0' * 39}' is no commit"),
        ({**HUB, "hub": "name"}, "sources.x.hub: 'name' is no data set of a hub; right would be owner/name"),
        ({**HUB, **PATH}, "sources.x: path: right would be either path or hub"),
        ({"kind": "dataset", "task": "topic"}, "sources.x: path: right would be either path or hub"),
        ({**PATH, "revision": "0" * 40}, "sources.x: revision: a path has none"),
        ({**HUB, "split": "train"}, "sources.x: files: right would be either files or split"),
        ({**HUB, "config": "ru"}, "sources.x: config: chooses nothing without a split"),
        ({**PATH, "label_field": "label"}, "sources.x: labels: label_field and labels go together"),
        ({**PATH, "label_field": "label", "labels": {"a": "negative"}}, "sources.x: labels: none of them makes a positive"),
        ({**PATH, "label_field": "l", "labels": {"a": "good"}}, "sources.x.labels.a: Input should be 'positive', 'negative' or 'unused'"),
        ({**PATH, "sample": 5}, "sources.x: sample: only a snapshot has one"),
        ({**PATH, "query_field": "a..b"}, "sources.x.query_field: 'a..b' names no column"),
        ({**PATH, "language": "xx"}, "sources.x.language: 'xx' is no two-letter code"),
        ({**PATH, "minimum": {"views": float("nan")}}, "sources.x.minimum.views: Input should be a finite number"),
        ({**PATH, "held_out": True}, "sources.x.held_out: unknown key"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, entry: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as raised:
        recipe(tmp_path, entry)
    assert says in str(raised.value) and "\n" not in str(raised.value)


def test_labels_and_values_are_texts_whatever_yaml_reads() -> None:
    entry = {**PATH, "label_field": "label", "labels": {0: "positive", True: "unused"}, "where": {"year": 2024, "part": [1, "b"]}}
    source = DatasetSource.model_validate(entry)
    assert source.labels == {"0": "positive", "True": "unused"}
    assert source.where == {"year": "2024", "part": ("1", "b")}


def test_relative_paths_lie_under_the_data_root(tmp_path: Path) -> None:
    entry = {**PATH, "path": ["a/*.parquet", "/b/c.jsonl", "s3://bucket/d?region=eu"]}
    more = ("corpus.evaluation_sets=[sets/texts.parquet]", "benchmarks.b={name: 'MTEB(rus, v1.1)', snapshot: rumteb}")
    for root, first, sets, benchmark in (
        ("data", "data/a/*.parquet", "data/sets/texts.parquet", "data/rumteb"),
        ("/mnt/all/", "/mnt/all/a/*.parquet", "/mnt/all/sets/texts.parquet", "/mnt/all/rumteb"),
        (
            "s3://k:s@b/x?region=eu",
            "s3://k:s@b/x/a/*.parquet?region=eu",
            "s3://k:s@b/x/sets/texts.parquet?region=eu",
            "s3://k:s@b/x/rumteb?region=eu",
        ),
    ):
        nodes = nodes_of(recipe(tmp_path, entry, f"data={root}", *more))
        natural = nodes["natural"].settings
        assert natural.data_sets["x"].path == (first, "/b/c.jsonl", "s3://bucket/d?region=eu")  # type: ignore[attr-defined]
        assert natural.data_sets["x"].snapshot.startswith(root.partition("?")[0].rstrip("/"))  # type: ignore[attr-defined]
        assert natural.evaluation_sets == (sets,) == nodes["corpus"].settings.rules.evaluation_sets  # type: ignore[attr-defined]
        assert nodes["b"].settings.snapshot == benchmark  # type: ignore[attr-defined]


def test_a_place_is_put_under_the_root_once(tmp_path: Path) -> None:
    asked = recipe(tmp_path, PATH, f"data={tmp_path}")
    assert located(located(asked)) == located(asked)


def test_the_published_mixture_is_whole() -> None:
    sources = [each for each in load(ROOT / "recipes" / "ru_en_rosberta.yaml").sources.values() if isinstance(each, DatasetSource)]
    assert len(sources) == 54
    groups = [sum(each.limit or 0 for each in sources[start:stop]) for start, stop in ((0, 30), (30, 47), (47, 52), (52, 54))]
    assert groups == [1_255_000, 1_775_000, 747_000, 20_000], "basic English, basic Russian, synthetic, retrieval"
    tasks = [each.task for each in sources[:47]]
    assert (tasks.count("retrieval"), tasks.count("paraphrase"), tasks.count("topic")) == (19, 12, 16)


def test_neither_git_nor_rays_upload_takes_data_along(tmp_path: Path) -> None:
    """As a working folder is sent to a cluster: a tree with this repository's own list of what to leave out."""
    from ray._private.runtime_env.packaging import create_package

    (tmp_path / "tree" / "data" / "snapshot").mkdir(parents=True)
    (tmp_path / "tree" / "platform" / "data_sets").mkdir(parents=True)
    (tmp_path / "tree" / "platform" / "data_sets" / "read.py").write_text("code = 1\n")
    (tmp_path / "tree" / "data" / "snapshot" / "part.parquet").write_bytes(b"x" * 1000)
    (tmp_path / "tree" / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    create_package(str(tmp_path / "tree"), tmp_path / "package.zip", include_gitignore=True)
    listed = subprocess.run([sys.executable, "-m", "zipfile", "-l", str(tmp_path / "package.zip")], capture_output=True, text=True).stdout
    assert "platform/data_sets/read.py" in listed and "part.parquet" not in listed
    subprocess.run(["git", "init", "-q"], cwd=tmp_path / "tree", check=True)
    status = subprocess.run(["git", "status", "--short", "-uall"], cwd=tmp_path / "tree", capture_output=True, text=True).stdout
    assert "read.py" in status and "data/snapshot" not in status
