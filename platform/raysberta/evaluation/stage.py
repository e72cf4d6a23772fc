"""The stages `benchmark` and `score_<step>` as Ray tasks: a model is scored from its saved folder, in processes of its own."""

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray

from raysberta.artifacts import Artifact, Draft
from raysberta.encoder.fetch import model_folder
from raysberta.encoder.pool import Pooling
from raysberta.evaluation import benchmark as held_out
from raysberta.prefixes import Prefixes
from raysberta.recipe import Recipe

log = logging.getLogger(__name__)

VERSION: int = 1
COLUMNS = ("scores", "results", "seconds", "types")
TRAINED = ("contrastive", "final")
"""Steps whose model knows the recipe's own prefixes; the others keep the base's."""


def benchmark(recipe: Recipe, inputs: Mapping[str, Artifact], draft: Draft) -> None:
    """Held-out tasks from the dev and test documents; metrics["tasks"] has their sizes.

    Raises:
        InputError: a task comes out too small, or the snapshot of a registered benchmark is missing or altered.
    """
    settings = recipe.evaluation
    if settings.benchmark is not None:
        from raysberta.evaluation import snapshot

        draft.metrics["registered"] = sorted(snapshot.load(settings.benchmark, settings.snapshot, hashes=True))
    with draft.folder(held_out.FOLDER) as folder:
        index = held_out.write(folder, settings.tasks, inputs["pairs"].dataset("pairs"), inputs["corpus"].dataset("documents"), recipe.seed)
    draft.metrics["tasks"] = {name: entry.model_dump() for name, entry in index.tasks.items()}
    draft.rows_in = sum(file.rows or 0 for name in ("pairs", "corpus") for file in inputs[name].manifest.files)
    draft.rows_out = sum(half.scored for entry in index.tasks.values() for half in entry.halves.values())
    for rows in index.left_out.values():
        draft.drop("in training or in the other half", rows)
    log.info("%d tasks: %s", len(index.tasks), ", ".join(f"{name} {entry.halves['test'].scored}" for name, entry in index.tasks.items()))


def score(recipe: Recipe, inputs: Mapping[str, Artifact], draft: Draft, *, step: str, model: str) -> None:
    """Score one model on the test halves and on the registered benchmark, if there is one.

    Writes folder `results` with mteb's full result of each task; metrics "scores" {task: fraction}, "details" {task: what a model
    card needs}, "seconds" {task: seconds}, "prefixes", "pooling".

    Args:
        recipe: The recipe.
        inputs: `benchmark` and the artifact of the model.
        draft: Where to write.
        step: Which step of the pipeline the model is: base, vocabulary, mlm, mlm_merged, contrastive or final.
        model: Name of the input that holds the model.
    """
    own = step in TRAINED
    pooling: Pooling = recipe.encoder.pooling if own else recipe.encoder.base_pooling
    prefixes = recipe.prefixes if own else recipe.encoder.base_prefixes
    identity = (f"{recipe.publishing.model_name}/{step}", inputs[model].manifest.fingerprint)
    workers = recipe.resources.evaluation
    task = _score_part.options(name=f"score_{step}", num_cpus=workers.cpus, num_gpus=workers.gpus)
    started = time.monotonic()
    parts = ray.get([task.remote(recipe, inputs, step, model, names, pooling, prefixes, identity) for names in _parts(recipe)])
    scores, results, seconds, types = ({name: value for part in parts for name, value in part[column].items()} for column in COLUMNS)
    with draft.folder("results") as folder:
        for name, result in results.items():
            (folder / f"{name}.json").write_text(json.dumps(result, ensure_ascii=False, indent=2), encoding="utf-8")
    ordered = [*recipe.evaluation.tasks, *sorted(set(scores) - set(recipe.evaluation.tasks))]
    draft.metrics["scores"] = {name: scores[name] for name in ordered}
    draft.metrics["details"] = {name: _detail(name, types[name], results[name], inputs["benchmark"]) for name in ordered}
    draft.metrics["seconds"] = seconds
    draft.metrics["prefixes"] = prefixes.model_dump()
    draft.metrics["pooling"] = pooling
    draft.rows_out = len(scores)
    mean = sum(scores.values()) / len(scores)
    log.info("%s: mean %.2f over %d tasks in %.1f s", step, 100 * mean, len(scores), time.monotonic() - started)


@ray.remote(max_retries=0)
def _score_part(
    recipe: Recipe,
    inputs: Mapping[str, Artifact],
    step: str,
    model: str,
    names: list[str],
    pooling: Pooling,
    prefixes: Prefixes,
    identity: tuple[str, str],
) -> dict[str, Any]:
    """Scores of one worker's share of the tasks."""
    import torch

    from raysberta.evaluation import snapshot
    from raysberta.evaluation.score import Scored, score_own, score_tasks
    from raysberta.retrieval.embed import Embedder

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S", force=True)
    for noisy in ("mteb", "datasets", "transformers"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    torch.set_num_threads(max(1, int(recipe.resources.evaluation.cpus)))
    settings = recipe.evaluation
    folder: Path = model_folder(inputs[model], "encoder") if step == "base" else inputs[model].folder("model")
    embed = Embedder(folder, pooling, settings.max_tokens, settings.precision).encode
    scored = Scored()
    own = [name for name in names if name in settings.tasks]
    if own:
        scored = score_own(embed, prefixes, inputs["benchmark"], "test", own, *identity)
    registered = [name for name in names if name not in settings.tasks]
    if settings.benchmark is not None and registered:
        found = snapshot.load(settings.benchmark, settings.snapshot)
        public = score_tasks(
            {name: found[name] for name in registered},
            embed,
            prefixes,
            overrides=snapshot.overrides(prefixes),
            name=identity[0],
            revision=identity[1],
        )
        scored.add(public)
    return {column: getattr(scored, column) for column in COLUMNS}


def _parts(recipe: Recipe) -> list[list[str]]:
    """The tasks dealt out to the workers, none left empty."""
    names = [*recipe.evaluation.tasks]
    if recipe.evaluation.benchmark is not None:
        from raysberta.evaluation import snapshot

        names += sorted(snapshot.load(recipe.evaluation.benchmark, recipe.evaluation.snapshot))
    count = min(recipe.resources.evaluation.workers, len(names))
    return [names[worker::count] for worker in range(count)]


def _detail(name: str, type_: str, result: Mapping[str, Any], artifact: Artifact) -> dict[str, Any]:
    """What a model card says of one score: the data set, its split and revision, and every metric of the first subset."""
    entry = artifact.manifest.metrics["tasks"].get(name)
    split, subsets = next(iter(result["scores"].items()))
    first = subsets[0]
    metrics = {key: value for key, value in first.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    kept = {key: value for key, value in metrics.items() if not key.startswith("nauc")}
    return {
        "dataset": f"held out from {entry['source']}" if entry else name,
        "held_out": entry is not None,
        "type": type_,
        "config": first["hf_subset"],
        "split": split,
        "revision": result["dataset_revision"],
        "languages": first["languages"],
        "metrics": kept,
        "scored": entry["halves"]["test"]["scored"] if entry else None,
    }
