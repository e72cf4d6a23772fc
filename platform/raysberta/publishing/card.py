"""The model card: YAML front matter in mteb's form, prompts, how to use it, what it was made from, where it is weak."""

from collections.abc import Mapping
from typing import Any

import yaml

from raysberta.artifacts import Manifest
from raysberta.publishing import facts
from raysberta.recipe import Recipe

SHOWN_METRICS = {
    "Retrieval": ("ndcg_at_1", "ndcg_at_10", "map_at_10", "mrr_at_10", "recall_at_10", "recall_at_100"),
    "BitextMining": ("f1", "accuracy", "precision", "recall"),
    "PairClassification": ("max_ap", "max_f1", "max_accuracy", "cosine_ap"),
    "Classification": ("accuracy", "f1", "f1_weighted"),
    "Clustering": ("v_measure", "v_measure_std"),
}
MOST_METRICS = 12


def card(recipe: Recipe, stages: Mapping[str, Manifest], model: Mapping[str, Any]) -> str:
    """The text of README.md.

    Args:
        recipe: The recipe.
        stages: Manifests by stage name.
        model: What export() found: dimension, max_tokens, parameters.
    """
    scores = facts.scores(stages)
    parts = [
        "---\n" + yaml.safe_dump(front_matter(recipe, stages), allow_unicode=True, sort_keys=False, width=120) + "---",
        _introduction(recipe, scores, model),
        _usage(recipe),
        _scores(scores),
        _data(recipe, stages),
        _training(recipe, stages),
        _limitations(recipe, scores, model),
        _lineage(stages),
    ]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def front_matter(recipe: Recipe, stages: Mapping[str, Manifest]) -> dict[str, Any]:
    """What the hub and mteb read of a card."""
    details = stages["score_final"].metrics["details"] if "score_final" in stages else {}
    results = [_result(name, detail) for name, detail in details.items()]
    matter: dict[str, Any] = {
        "language": list(recipe.languages),
        "license": recipe.publishing.license,
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "sentence-similarity", "feature-extraction", "mteb", "transformers", "raysberta"],
    }
    if recipe.encoder.base.startswith("hub:"):
        matter["base_model"] = recipe.encoder.base.removeprefix("hub:").partition("@")[0]
    matter["model-index"] = [{"name": recipe.publishing.model_name, "results": results}]
    return matter


def _result(name: str, detail: Mapping[str, Any]) -> dict[str, Any]:
    """One score in mteb's form: percent, the main score once more under `main_score`."""
    metrics = detail["metrics"]
    names = [metric for metric in SHOWN_METRICS.get(detail["type"], tuple(sorted(metrics))[:MOST_METRICS]) if metric in metrics]
    shown = [
        {"type": metric, "value": 100 * metrics[metric]} for metric in (*(name for name in names if name != "main_score"), "main_score")
    ]
    title = f"{name} (held out)" if detail["held_out"] else f"MTEB {name} ({detail['config']})"
    return {
        "task": {"type": detail["type"]},
        "dataset": {
            "type": f"raysberta/{name}" if detail["held_out"] else name,
            "name": title,
            "config": detail["config"],
            "split": detail["split"],
            "revision": detail["revision"],
        },
        "metrics": shown,
    }


def _introduction(recipe: Recipe, scores: facts.Scores, model: Mapping[str, Any]) -> str:
    lines = [f"# {recipe.publishing.model_name}", "", recipe.publishing.description or "A sentence-embedding model made by RaySBERTa.", ""]
    size = f"{model['parameters'] / 1e6:.1f}M parameters, vectors of {model['dimension']} dimensions"
    lines.append(f"{size}, texts of up to {model['max_tokens']} tokens, {recipe.encoder.pooling} pooling, L2-normalised.")
    lines.append(f"Made from `{recipe.encoder.base}` with the recipe `{recipe.name}`.")
    if scores.change is not None:
        final, base = scores.means["final"], scores.means["base"]
        lines += ["", f"Mean of {len(scores.rows)} tasks: {final:.2f}, the base model {base:.2f} ({scores.change:+.2f})."]
    return "\n".join(lines)


def _usage(recipe: Recipe) -> str:
    prefixes = recipe.prefixes
    rows = [
        ["`search_query`", f"`{prefixes.retrieval_query!r}`", "questions and terms that are searched for"],
        ["`search_document`", f"`{prefixes.retrieval_document!r}`", "passages that are searched"],
        ["`classification`", f"`{prefixes.paraphrase!r}`", "paraphrases, translations, entailment; classification by meaning"],
        ["`clustering`", f"`{prefixes.topic!r}`", "themes: clustering, topics, title and body"],
    ]
    return f"""## Usage

The model expects a prefix before each text; it carries them as prompts.

{_markdown(["prompt name", "prefix", "for"], rows)}

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/{recipe.publishing.model_name}")
query = model.encode("замок", prompt_name="search_query")
passages = model.encode(["устройство, которое запирает дверь", "древнее оружие для стрельбы"], prompt_name="search_document")
print(model.similarity(query, passages))
```

`model.encode_query` and `model.encode_document` choose the retrieval prompts by themselves. The prompts are there under mteb's names as
well (`Retrieval-query`, `STS`, `Clustering`, ...), so `mteb.evaluate(model, tasks)` uses them without further settings."""


def _scores(scores: facts.Scores) -> str:
    if not scores.rows:
        return ""
    head = ["task", "type", "metric", *scores.steps, "change"]
    rows = [
        [row.task, row.type, row.metric, *(_number(row.scores[step]) for step in scores.steps), _signed(row.change)] for row in scores.rows
    ]
    rows.append(["**mean**", "", "", *(f"**{_number(scores.means[step])}**" for step in scores.steps), f"**{_signed(scores.change)}**"])
    return (
        "## Scores\n\nTest halves, main score x 100. `base` is the model before anything was done to it, scored with its own prefixes; "
        f"`change` is `final` minus `base`.\n\n{_markdown(head, rows)}"
    )


def _data(recipe: Recipe, stages: Mapping[str, Manifest]) -> str:
    counts = facts.training_rows(stages)
    if not counts:
        return ""
    rows = []
    for key, count in sorted(counts.items()):
        source, _, kind = key.partition("/")
        origin = recipe.sources[source].kind if source in recipe.sources else "written by a model"
        rows.append([source, kind, origin, f"{count:,}", facts.licence(recipe, source)])
    rows.append(["**all**", "", "", f"**{sum(counts.values()):,}**", ""])
    return f"## Training data\n\n{_markdown(['source', 'pairs', 'read from', 'examples', 'licence'], rows)}"


def _training(recipe: Recipe, stages: Mapping[str, Manifest]) -> str:
    settings, lines = recipe.contrastive, []
    metrics = {name: item.metrics for name, item in stages.items()}
    if recipe.mlm.enabled and _steps(metrics.get("mlm", {})):
        decoder = " with RetroMAE" if recipe.mlm.retromae else ""
        what = f"{_steps(metrics['mlm'])} steps{decoder}, peak rate {recipe.mlm.learning_rate:g}"
        lines.append(f"- Masked language modelling: {what}; then merged with weight {recipe.mlm.merge_weight:g} of the encoder before it.")
    if _steps(metrics.get("contrastive", {})):
        temperature = metrics["contrastive"].get("temperature", settings.temperature)
        what = f"{_steps(metrics['contrastive'])} steps of InfoNCE at temperature {temperature:g}, peak rate {settings.learning_rate:g}"
        lines.append(f"- Contrastive: {what}, up to {settings.negatives} hard negatives a query, batches of one source.")
    if "merge" in metrics:
        weight = metrics["merge"].get("best", recipe.tuning.merge.default)
        lines.append(f"- Final merge (SLERP): weight {weight:g} of the encoder before contrastive training.")
    if "synthesis" in metrics:
        engines = ", ".join(f"{name}: {engine}" for name, engine in metrics["synthesis"].get("engine", {}).items())
        lines.append(f"- Synthetic pairs: {engines}; {metrics['synthesis'].get('kept', 0):,} kept.")
    return "## Training\n\n" + "\n".join(lines) if lines else ""


def _steps(metrics: Mapping[str, Any]) -> int:
    """The last step of a training's curve; 0 where there is none."""
    return metrics["curve"][-1]["step"] if metrics.get("curve") else 0


def _limitations(recipe: Recipe, scores: facts.Scores, model: Mapping[str, Any]) -> str:
    lines = [f"- Trained for {', '.join(recipe.languages)}; other languages were not looked at."]
    lines.append(f"- Texts of more than {model['max_tokens']} tokens are cut. Without its prefix a text gets a worse vector.")
    if any(row.task in recipe.evaluation.tasks for row in scores.rows):
        lines.append(
            "- Held-out tasks are made from other documents of the sources that it was trained on: they say little about other texts."
        )
    if scores.worse:
        named = ", ".join(f"{row.task} ({row.change:+.2f})" for row in scores.worse)
        lines.append(f"- Worse than the base model on: {named}.")
    elif scores.change is not None:
        lines.append("- On none of the tasks worse than the base model.")
    return "## Limitations\n\n" + "\n".join(lines)


def _lineage(stages: Mapping[str, Manifest]) -> str:
    if not stages:
        return ""
    rows = [
        [name, f"`{item.fingerprint}`", f"{item.seconds:.0f}"] for name, item in sorted(stages.items(), key=lambda pair: pair[1].started)
    ]
    last = max(stages.values(), key=lambda item: item.started)
    versions = ", ".join(f"{name} {version}" for name, version in last.versions.items())
    commit = f"Code at commit `{last.commit}`. " if last.commit else ""
    return f"## Lineage\n\n{commit}Seed {last.seed}. {versions}.\n\n{_markdown(['stage', 'fingerprint', 'seconds'], rows)}"


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table; what the recipe's author wrote cannot break out of a cell."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"
