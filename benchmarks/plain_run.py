"""A finished run of a recipe, found through the plan and the store: nothing is made, but scores that the run has not."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from raysberta.errors import InputError
from raysberta.evaluation.facts import ScoresFacts, TaskFacts, TasksFacts
from raysberta.evaluation.score import score_model
from raysberta.evaluation.settings import ModelScores, Scoring
from raysberta.models.describe import describe
from raysberta.nodes import RELEASE, TASKS, first_model, nodes_of
from raysberta.parsing import load
from raysberta.pipeline.plan import Planned, plan
from raysberta.publishing.settings import Release
from raysberta.publishing.stage import draws as draws_of
from raysberta.recipe import Recipe
from raysberta.storage.artifacts import Artifact, Store

JOB = Path(__file__).parents[1] / "jobs" / "full_pipeline.py"
Key = TypeVar("Key")
COLUMNS = ["pair_id", "task", "query", "positive"]


@dataclass(frozen=True)
class Finished:
    """What the comparison takes from a run."""

    base: str
    """Name of the encoder from outside that the final model began with, unchanged."""
    final: str
    models: dict[str, Artifact]
    """By name: what the final model is made from, itself, and what else was scored."""
    examples: tuple[Artifact, ...]
    """What the contrastive phases before the final model were given."""
    tasks: Artifact
    told: dict[str, TaskFacts]
    """The held-out tasks, by name."""
    how: Scoring
    known: dict[str, dict[str, float]]
    """Scores on the test halves by name of the model, fractions by task, of those that the run has scored."""
    drawn: dict[str, dict[str, np.ndarray]]
    """Of the same models the score of each held-out task in each draw of the bootstrap, float64 [draws], fractions."""
    seconds: float
    """Wall time in which something that the final model is made from was in the making: raw text, pairs and mining included."""

    @cached_property
    def pairs(self) -> pa.Table:
        """COLUMNS of every one of the examples, each pair once, by `pair_id`.

        Raises:
            InputError: there are none.
        """
        if not self.examples:
            raise InputError("the final model has no contrastive phase before it, so there are no pairs to train on")
        table = pa.concat_tables([examples.table("examples", COLUMNS) for examples in self.examples])
        first = {pair: row for row, pair in reversed(list(enumerate(table["pair_id"].to_pylist())))}
        return table.take([first[pair] for pair in sorted(first)])

    def folder(self, name: str) -> Path:
        """Of a model."""
        return self.models[name].folder("model")

    def scores(self, name: str) -> dict[str, float]:
        """A model's scores on the test halves: the run's own, else made now by the same scorer."""
        return self.known.get(name) or score_model(self.folder(name), self.tasks, "test", self.how)


def write_recipe(recipe: Recipe, folder: Path) -> Path:
    """A recipe as a file of a folder, called as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{recipe.name}.yaml"  # JSON is YAML
    file.write_text(recipe.model_dump_json(by_alias=True, exclude_unset=True, indent=1), encoding="utf-8")
    return file


def run_recipes(files: Mapping[Key, Path]) -> dict[Key, Recipe]:
    """Run recipes as one plan, of which what is there stays; the recipes by the keys of their files.

    Raises:
        subprocess.CalledProcessError: the run ended with an error, which it has told.
    """
    if files:
        words = [part for file in files.values() for part in ("--recipe", str(file))]
        subprocess.run([sys.executable, str(JOB), *words], stdout=sys.stderr, check=True)
    return {key: load(file) for key, file in files.items()}


def printed(rows: Iterable[Mapping[str, Any]]) -> int:
    """Print rows as they come, a JSON line each, or one line of why there are no more; the program's exit status."""
    try:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False), flush=True)
    except subprocess.CalledProcessError as error:
        return error.returncode
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def finished(recipe: Recipe) -> Finished:
    """Find what a run of the recipe left in its storage.

    Raises:
        InputError: it has no final model or no tasks, or a node is not there.
    """
    store, nodes = Store(recipe.storage), nodes_of(recipe)
    if RELEASE not in nodes or TASKS not in nodes:
        raise InputError(f"{recipe.name}: has no final model or no tasks; right would be a recipe with phases and tasks")
    whole = {item.node.name: item for item in plan([recipe], store).nodes}
    release = whole[RELEASE].node.settings
    assert isinstance(release, Release)
    final = str(release.final)
    steps = [*plan([recipe], store, [final]).nodes, whole[TASKS]]
    for item in steps:
        if item.artifact is None:
            raise InputError(f"{store.shown}: has no finished {item.node.name}; right would be to run the recipe there first")
    made = {item.node.name: item.artifact for item in steps if item.artifact is not None}
    told = made[TASKS].told(TasksFacts).tasks
    models = {name: artifact for name, artifact in made.items() if nodes[name].makes == "encoder"}
    known, drawn = {}, {}
    for item in whole.values():
        settings = item.node.settings
        if isinstance(settings, ModelScores) and item.artifact is not None and (model := whole[settings.model].artifact) is not None:
            known[str(settings.model)], models[str(settings.model)] = _own(item.artifact, told), model
            drawn[str(settings.model)] = {task: draws for task, draws in draws_of(item.artifact).items() if task in told}
    spans = ((artifact.manifest.started, artifact.manifest.seconds) for name, artifact in made.items() if name != TASKS)
    base = first_model(nodes, final)
    return Finished(base, final, models, _examples(steps, made), made[TASKS], told, recipe.scoring, known, drawn, covered(spans))


def _examples(steps: Sequence[Planned], made: dict[str, Artifact]) -> tuple[Artifact, ...]:
    """Of the contrastive phases, each once."""
    names = dict.fromkeys(name for item in steps if item.node.kind == "contrastive" for name in item.inputs)
    return tuple(made[name] for name in names if made[name].manifest.kind == "examples")


def _own(scores: Artifact, told: dict[str, TaskFacts]) -> dict[str, float]:
    """Of a model's scores those on held-out tasks."""
    found = scores.told(ScoresFacts).scores
    return {name: found[name] for name in told}


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds that lie within at least one span (start, length): nodes overlap, and a resumed run has gaps."""
    total, end = 0.0, float("-inf")
    for start, length in sorted(spans):
        total += max(0.0, start + length - max(start, end))
        end = max(end, start + length)
    return total


def general(told: dict[str, TaskFacts]) -> list[str]:
    """Names of the general tasks, whose sources are held out whole; the others are the recipe's own."""
    return [name for name, task in told.items() if task.general]


def with_prompts(pairs: pa.Table, model: Path) -> pa.Table:
    """The columns query, positive, and before_query and before_positive: what the encoder's folder says goes before them.

    Args:
        pairs: Rows of COLUMNS.
        model: An encoder folder that describes itself.
    """
    prefixes, tasks = describe(model).prefixes, pairs["task"].to_pylist()
    return pa.table(
        {
            "query": pairs["query"],
            "positive": pairs["positive"],
            "before_query": [prefixes.of(task, "query") for task in tasks],
            "before_positive": [prefixes.of(task, "document") for task in tasks],
        }
    )
