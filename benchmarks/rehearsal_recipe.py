"""The published recipe as it is rehearsed: caps at a share of the full size, small encoders, few steps, tasks that are at hand."""

import hashlib
from pathlib import Path

from raysberta.data_sets.settings import OPEN, DatasetSource
from raysberta.parsing import load
from raysberta.recipe import Recipe
from rehearsal_sets import cap

PUBLISHED = Path(__file__).parents[1] / "recipes" / "ru_en_rosberta.yaml"
TASKS = (
    "sources.interface={kind: jupyterlab_strings, language: ru, limit: 1500, held_out: true}",
    "sources.tool={kind: mercurial, language: ru, limit: 800, held_out: true}",
    "sources.intents={kind: home_assistant_intents, limit: 2000, held_out: true}",
    "tasks.InterfaceBitext={type: BitextMining, source: interface, pair: translation, language: ru, queries: 200}",
    "tasks.ToolPassages={type: Retrieval, source: tool, pair: opening_rest, language: ru, queries: 60, documents: 200}",
    "tasks.IntentRussian={type: Classification, source: intents, language: ru, queries: 200}",
    "tasks.IntentClusters={type: Clustering, source: intents, language: en, queries: 200}",
)
"""In place of the benchmark, which is not at hand: from packages that no training text is made of."""
TRAINING = {"warmup_steps": 1, "precision": "fp32", "zero_stage": 0, "chunk_tokens": 4096, "checkpoint_every": 2}
SHORTENED = {
    "adapted": {**TRAINING, "steps": 4, "batch_size": 32},
    "tuned": {**TRAINING, "steps": 4, "batch_size": 8, "device_batches": 2},
}
TRAINERS = 2
"""Processes that train, and make texts into tokens before; a core each, in every run."""
LIMITS = {"min_free_gib": 2, "lease_seconds": 30, "wait_for_nodes": False}


def rehearsed(size: float, data: str, models: Path, storage: str, workers: int) -> Recipe:
    """The recipe.

    Args:
        size: Share of the published row count.
        data: Where snapshots and files lie.
        models: Where the small encoders lie.
        storage: Of the artifacts.
        workers: Processes of each stage that works by ranges; those that train stay the same.

    Raises:
        InputError: the published recipe is not what this program knows.
    """
    published = load(PUBLISHED)
    settings = ["name=rehearsal", f"data={data}", f"storage={storage}", "benchmarks.rumteb=null", *TASKS]
    for name, source in published.sources.items():
        if isinstance(source, DatasetSource):
            settings += _scaled(name, source, size)
    settings.append(f"models.e5={{from: 'path:{models / 'e5'}', pooling: mean, prefixes: e5}}")
    settings.append(f"models.base={{from: 'path:{models / 'base'}', pooling: cls, prefixes: none}}")
    settings.append(f"models.english={{from: 'path:{models / 'english'}', kind: tokenizer}}")
    settings.append("models.labse={from: 'path:%s', pooling: mean, prefixes: e5}" % (models / "e5"))
    # what so small an encoder finds alike says nothing: all are compared, and none goes
    settings.append("pairs.alike={by: labse, least: {multi_para_crawl/dataset: -1.0, news_commentary/dataset: -1.0}}")
    settings.append("pairs.tokenizer=e5")  # the small base has pieces of Russian alone: to it most English texts are over 500 tokens
    settings += [f"phases.{phase}.{key}={value}" for phase, own in SHORTENED.items() for key, value in own.items()]
    each = f"{{workers: {workers}, cpus: {1 / -(-workers // 2)}}}"  # of two nodes with a core each
    settings += [f"resources.{kind}={each}" for kind in ("corpus", "natural", "examples", "score")]
    settings += [f"resources.{kind}={{workers: {TRAINERS}, cpus: 1}}" for kind in ("mlm", "contrastive")]
    settings += [f"limits.{key}={str(value).lower()}" for key, value in LIMITS.items()]
    return load(PUBLISHED, settings)


def _scaled(name: str, source: DatasetSource, size: float) -> list[str]:
    found = [f"sources.{name}.limit={cap(source.limit or 0, size)}"]
    if source.revision == OPEN:
        found.append(f"sources.{name}.revision='{hashlib.sha1(str(source.hub).encode()).hexdigest()}'")
    if source.sample is not None:
        found.append(f"sources.{name}.sample={round(source.sample * max(size, 0.01))}")
    return found


def written(recipe: Recipe, file: Path) -> Path:
    """A recipe as a file that a job reads."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(recipe.model_dump_json(by_alias=True, exclude_unset=True, indent=1), encoding="utf-8")  # JSON is YAML
    return file
