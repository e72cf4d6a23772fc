"""The smoke recipe as a person runs it: killed on the way, run again, run a third time; and a Ray of its own to keep.

Everything is real: vLLM with SmolLM2, mE5-small, DeepSpeed, Ray Tune, mteb. Only the sizes are small.
"""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import requests
from sentence_transformers import SentenceTransformer

from raysberta.evaluation.facts import ScoresFacts
from raysberta.merging.facts import MergeFacts
from raysberta.mining.facts import ExamplesFacts
from raysberta.pipeline import local
from raysberta.storage.artifacts import Manifest
from raysberta.training.facts import TrainingFacts
from raysberta.tuning.facts import SearchFacts

ROOT = Path(__file__).parents[1]
KILLED_IN = "questions"


def start(storage: Path, log: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "jobs/local.py", "run", "--recipe", "recipes/smoke.yaml", "--set", f"storage={storage}"]
    with log.open("wb") as output:
        return subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)


def finish(process: "subprocess.Popen[bytes]", log: Path, limit: float) -> tuple[str, dict]:
    code = process.wait(timeout=limit)
    text = log.read_text(errors="replace")
    assert code == 0, text[-4000:]
    return text, json.loads(text.strip().splitlines()[-1])


def manifests(storage: Path) -> list[Manifest]:
    return [Manifest.model_validate_json(path.read_text()) for path in storage.glob("*/*/manifest.json")]


def of_this_run() -> list[psutil.Process]:
    """Ray processes of this checkout's own local Ray."""
    mark = str(ROOT / "runs" / "ray")
    return [process for process in psutil.process_iter(["cmdline"]) if any(mark in part for part in process.info["cmdline"] or [])]


@pytest.mark.end_to_end
@pytest.mark.timeout(1800)  # a busy machine takes its time; the limits below only end what hangs
def test_a_newcomers_run(tmp_path: Path) -> None:
    storage, logs = tmp_path / "store", [tmp_path / f"{number}.log" for number in range(3)]

    first = start(storage, logs[0])
    deadline = time.monotonic() + 400
    while f"{KILLED_IN}: started" not in logs[0].read_text(errors="replace"):
        assert first.poll() is None, logs[0].read_text(errors="replace")[-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.5)
    time.sleep(5)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    committed = {manifest.id for manifest in manifests(storage)}
    assert {"model", "corpus"} <= {name.partition("/")[0] for name in committed}
    assert "written" not in {name.partition("/")[0] for name in committed}

    text, result = finish(start(storage, logs[1]), logs[1], 1200)
    made = {manifest.id: manifest for manifest in manifests(storage)}
    assert {"e5", "corpus"} <= set(result["reused"]), "it goes on from what was committed"
    assert not {"release", "general", "merged"} & set(result["reused"])
    assert all(made[name].started < min(made[new].started for new in made.keys() - committed) for name in committed)
    assert not of_this_run(), "nothing is left running"
    leaked = [line for line in text.splitlines() if re.search(r"\(\S+ pid=\d+\)|DeepSpeed|WARNING", line)]
    assert not leaked, "what workers and libraries print is in the log file only"
    check_report(Path(result["report"]).read_text(encoding="utf-8"))
    check_model(Path(result["model"]), result)
    check_graph(list(made.values()))
    check_every_model_loads(storage, list(made.values()))

    _, again = finish(start(storage, logs[2]), logs[2], 300)
    assert {"release", "merged", "questions"} <= set(again["reused"])
    assert len(again["reused"]) == len(made)
    assert (again["model"], again["own_final"]) == (result["model"], result["own_final"])
    assert {manifest.id for manifest in manifests(storage)} == made.keys(), "nothing was made again"


def check_report(page: str) -> None:
    for heading in ("DictionaryRetrieval", "InterfaceBitext", "near_duplicate", "mined_again", "search_merged", "softened"):
        assert heading in page, heading
    assert not re.search(r"""(src|href)=["']https?://""", page), "it is viewable offline"
    assert page.count("<svg") + page.count("data:image/png") >= 4, "pictures are drawn"


def check_model(folder: Path, result: dict) -> None:
    model = SentenceTransformer(str(folder), device="cpu")
    assert {"search_query", "search_document", "classification", "clustering"} <= set(model.prompts)
    query = model.encode(["собака"], prompt_name="search_query")
    texts = model.encode(["домашнее животное, собака", "numpy array of numbers"], prompt_name="search_document")
    similarities = model.similarity(query, texts)[0]
    assert similarities[0] > similarities[1]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "model-index" in card
    assert 0 < result["own_base"] <= 100
    assert result["own_final"] > 20, "far above what a model that knows nothing reaches"


def check_graph(made: list[Manifest]) -> None:
    """Two contrastive phases in a row with mining by the model between them, a branch, a merge of three, two searches."""
    contrastive = {item.id: item for item in made if item.kind == "contrastive"}
    examples = {item.id: item for item in made if item.kind == "examples"}
    [tuned] = [item for item in contrastive.values() if set(item.inputs.values()) & contrastive.keys()]
    [general] = set(tuned.inputs.values()) & contrastive.keys()
    [again] = set(tuned.inputs.values()) & examples.keys()
    assert general in examples[again].inputs.values(), "the second phase's negatives are mined by the first one's model"
    assert examples[again].told(ExamplesFacts).negatives > 0
    assert [point.step for point in contrastive[general].told(TrainingFacts).dev_curve] == [2, 4]
    assert set(tuned.told(TrainingFacts).chosen) == {"temperature"}
    searches = {tuple(item.told(SearchFacts).best): item.told(SearchFacts) for item in made if item.kind == "search"}
    assert {len(facts.trials) for facts in searches.values()} == {2}
    [merged] = [item for item in made if item.kind == "merge" and len(item.told(MergeFacts).shares) == 3]
    facts = merged.told(MergeFacts)
    assert facts.chosen == searches[("weights.2",)].best
    assert sum(facts.shares) == pytest.approx(1)
    assert len([item for item in made if item.kind == "score" and item.told(ScoresFacts).scores]) == 3
    spans = sorted((item.started, item.started + item.seconds) for item in made)
    assert any(later[0] < earlier[1] - 1 for earlier, later in itertools.pairwise(spans)), "no two nodes overlapped"


def check_every_model_loads(storage: Path, made: list[Manifest]) -> None:
    """From the first phase on: sentence-transformers reads each model folder, prompts and all."""
    kinds = ("vocabulary", "mlm", "merge", "contrastive")
    folders = [storage / item.id / item.attempt / "model" for item in made if item.kind in kinds]
    assert len(folders) == 6
    for folder in folders:
        model = SentenceTransformer(str(folder), device="cpu")
        assert "Retrieval-query" in model.prompts and "search_query" in model.prompts
        assert model.encode(["замок"], prompt_name="search_query").shape == (1, 384)


def test_up_and_down_leave_nothing(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    cluster = local.start(runs, kept=True)
    try:
        assert local.running(runs) == cluster
        token = (runs / "ray" / "token").read_text()
        assert (runs / "ray" / "token").stat().st_mode & 0o077 == 0
        deadline = time.monotonic() + 30
        address = f"{cluster.dashboard}/api/version"
        while requests.get(address, headers={"Authorization": f"Bearer {token}"}, timeout=10).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert requests.get(f"{cluster.dashboard}/api/jobs/", timeout=10).status_code in (401, 403)
        family = psutil.Process(cluster.pid).children(recursive=True)
        assert any("raylet" in process.name() for process in family)
    finally:
        assert local.stop(runs)
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert local.running(runs) is None
    assert not local.stop(runs)


def test_bad_input_starts_nothing_and_exits_2() -> None:
    for arguments, says in (
        (["--recipe", "nowhere.yaml"], "no recipe file that can be read"),
        (["--set", "phases.tuned.stepz=3"], "did you mean steps?"),
        (["--job", "nothing"], "no such job"),
        (["--until", "nothing"], "no node 'nothing'"),
    ):
        done = subprocess.run([sys.executable, "jobs/local.py", "run", *arguments], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2
        assert says in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert (
            not (ROOT / "runs" / "ray" / "cluster.json").exists()
            or json.loads((ROOT / "runs" / "ray" / "cluster.json").read_text())["kept"]
        )
