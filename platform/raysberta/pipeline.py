"""The stages, what feeds what, what runs side by side: the only file that knows the order.

`STAGES` stands in the order of priority: of two stages that are ready, the earlier one gets the free cores first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from raysberta.artifacts import Artifact, Store, fingerprint
from raysberta.corpus import stage as corpus
from raysberta.corpus.read import source_identity
from raysberta.encoder import stage as encoder
from raysberta.encoder.fetch import generator_identity, model_identity
from raysberta.encoder.wechsel import files_identity
from raysberta.evaluation import stage as evaluation
from raysberta.merging import stage as merging
from raysberta.mining import stage as mining
from raysberta.pairs import stage as pairs
from raysberta.publishing import stage as publishing
from raysberta.recipe import Optimisation, Recipe, Workers, identity
from raysberta.synthesis import stage as synthesis
from raysberta.training import stage as training
from raysberta.tuning import stage as tuning
from raysberta.worker import StageFunction

ONE_CORE = Workers()


@dataclass(frozen=True)
class Stage:
    """One node of the pipeline."""

    name: str
    run: StageFunction
    version: int
    """Of the stage's code; bumped when its result changes, so that old artifacts are not reused."""
    inputs: tuple[str, ...]
    reads: tuple[str, ...]
    """Parts of the recipe that decide the result, as dotted paths."""
    runs_on: str | None = None
    """Field of `resources` that says where it runs; one core where None."""
    outside: Callable[[Recipe], Any] | None = None
    """What decides the result beyond recipe and inputs: versions of packages, sizes and dates of files."""

    def resources(self, recipe: Recipe) -> Workers:
        """The workers that the recipe grants this stage."""
        return getattr(recipe.resources, self.runs_on) if self.runs_on else ONE_CORE


def _trained_on(recipe: Recipe) -> dict[str, Any]:
    """The contrastive settings that decide the result."""
    return _deciding(recipe.contrastive)


def _adapted_on(recipe: Recipe) -> dict[str, Any]:
    settings = _deciding(recipe.mlm)
    del settings["merge_weight"]  # of the stage that follows
    return settings


def _deciding(phase: Optimisation) -> dict[str, Any]:
    """The settings of a phase but for those that only decide speed, memory or when to save and score."""
    settings = phase.model_dump(mode="json")
    for name in ("checkpoint_every", "score_checkpoints", "recompute", "kept_tokens", "offload"):
        del settings[name]
    return settings


SCORING = ("evaluation.max_tokens", "evaluation.precision", "evaluation.benchmark", "evaluation.snapshot")
SCORED_MODELS = {
    "base": "models",
    "vocabulary": "vocabulary",
    "mlm": "mlm",
    "mlm_merged": "mlm_merged",
    "contrastive": "contrastive",
    "final": "merge",
}
"""Which artifact holds the model of each step that `evaluation.steps` names."""

STAGES: tuple[Stage, ...] = (
    Stage(
        "models",
        encoder.fetch_models,
        encoder.VERSION,
        (),
        ("encoder.base", "encoder.layers", "encoder.vocabulary.extend_from", "mining.encoder", "mining.cross_encoder"),
        outside=model_identity,
    ),
    Stage(
        "generators",
        encoder.fetch_generators,
        encoder.VERSION,
        (),
        ("synthesis.llm.model", "synthesis.llm.enabled", "synthesis.seq2seq.model", "synthesis.seq2seq.enabled"),
        outside=generator_identity,
    ),
    Stage("corpus", corpus.run, corpus.VERSION, ("models",), ("languages", "corpus"), "corpus", source_identity),
    Stage("pairs", pairs.run, pairs.VERSION, ("models", "corpus"), ("sources", "pairs")),
    Stage(
        "vocabulary",
        encoder.vocabulary,
        encoder.VERSION,
        ("models", "pairs"),
        ("encoder", "prefixes"),
        outside=files_identity,
    ),
    Stage("benchmark", evaluation.benchmark, evaluation.VERSION, ("corpus", "pairs"), ("evaluation.tasks",)),
    Stage("mlm", training.mlm, training.VERSION, ("vocabulary", "pairs"), (), "mlm", _adapted_on),
    Stage(
        "synthesis",
        synthesis.run,
        synthesis.VERSION,
        ("models", "generators", "corpus"),
        ("synthesis", "mining.prefixes", "mining.pooling", "mining.max_tokens"),
        "generation",
    ),
    Stage("mining", mining.run, mining.VERSION, ("models", "pairs"), ("mining", "sources"), "embedding"),
    Stage("mining_synthetic", mining.run, mining.VERSION, ("models", "pairs", "synthesis"), ("mining", "sources"), "embedding"),
    Stage("mlm_merged", merging.merge_after_mlm, merging.VERSION, ("vocabulary", "mlm"), ("mlm.merge_weight", "mlm.enabled")),
    Stage(
        "temperature",
        tuning.temperature,
        tuning.VERSION,
        ("mlm_merged", "mining", "mining_synthetic", "benchmark"),
        ("tuning.temperature", "tuning.tasks", "prefixes", "encoder.pooling", *SCORING),
        "tuning",
        _trained_on,
    ),
    Stage(
        "contrastive",
        training.contrastive,
        training.VERSION,
        ("mlm_merged", "mining", "mining_synthetic", "temperature"),
        ("prefixes", "encoder.pooling"),
        "contrastive",
        _trained_on,
    ),
    Stage(
        "merge",
        tuning.merge,
        tuning.VERSION,
        ("mlm_merged", "contrastive", "benchmark"),
        ("tuning.merge", "tuning.tasks", "prefixes", "encoder.pooling", *SCORING),
        "tuning",
    ),
    *(
        Stage(
            f"score_{step}",
            partial(evaluation.score, step=step, model=model),
            evaluation.VERSION,
            (model, "benchmark"),
            ("prefixes", "encoder.pooling", "encoder.base_prefixes", "encoder.base_pooling", *SCORING),
            "evaluation",
        )
        for step, model in SCORED_MODELS.items()
    ),
    Stage(
        "publish",
        publishing.publish,
        publishing.VERSION,
        (
            "models",
            "generators",
            "corpus",
            "pairs",
            "synthesis",
            "mining",
            "mining_synthetic",
            "vocabulary",
            "mlm",
            "mlm_merged",
            "benchmark",
            "temperature",
            "contrastive",
            "merge",
        ),
        ("name", "publishing", "prefixes", "encoder.pooling", "encoder.max_tokens", "evaluation.steps", "sources"),
    ),
)


@dataclass(frozen=True)
class Planned:
    """A stage of one run: its fingerprint, and its artifact where it is already there."""

    stage: Stage
    fingerprint: str
    identity: Mapping[str, Any]
    inputs: Mapping[str, str]
    """Fingerprints of the inputs, by stage name."""
    artifact: Artifact | None


def stages_of(recipe: Recipe) -> tuple[Stage, ...]:
    """The stages that a recipe runs: scores only of the steps it names, and publishing reads just those; phases that score checkpoints
    read the held-out tasks."""
    scores = tuple(f"score_{step}" for step in SCORED_MODELS if step in recipe.evaluation.steps)
    chosen = []
    for stage in STAGES:
        if stage.name.startswith("score_") and stage.name not in scores:
            continue
        if stage.name == "publish":
            stage = replace(stage, inputs=(*stage.inputs, *scores))
        if stage.name in ("mlm", "contrastive") and getattr(recipe, stage.name).score_checkpoints:
            stage = replace(stage, inputs=(*stage.inputs, "benchmark"))
        chosen.append(stage)
    return tuple(chosen)


def plan(recipe: Recipe, store: Store, targets: Sequence[str] = ("publish",)) -> list[Planned]:
    """What a run would do: the targets and all they need, in order of priority, each with what is already there.

    Targets that this recipe does not run, such as the score of a step that it does not name, are passed over.
    """
    stages = {stage.name: stage for stage in stages_of(recipe)}
    needed: set[str] = set()
    todo = [name for name in targets if name in stages]
    while todo:
        name = todo.pop()
        if name not in needed:
            needed.add(name)
            todo.extend(stages[name].inputs)
    planned: dict[str, Planned] = {}
    for name, stage in stages.items():  # inputs stand before what they feed
        if name in needed:
            planned[name] = _planned(recipe, store, stage, {feed: planned[feed].fingerprint for feed in stage.inputs})
    return list(planned.values())


def _planned(recipe: Recipe, store: Store, stage: Stage, inputs: Mapping[str, str]) -> Planned:
    what = {"version": stage.version, **identity(recipe, *stage.reads)}
    if stage.outside is not None:
        what["outside"] = stage.outside(recipe)
    mark = fingerprint(stage.name, what, inputs, recipe.seed)
    return Planned(stage, mark, what, inputs, store.find(stage.name, mark))
