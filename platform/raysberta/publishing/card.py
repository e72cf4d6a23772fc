"""The model card: YAML front matter in mteb's form, prompts, how to use it, what it was made from, where it is weak."""

from typing import Any

import yaml

from raysberta.evaluation.facts import ScoreDetail
from raysberta.publishing import gather, phases
from raysberta.publishing.gather import Scores, Told
from raysberta.publishing.verdict import NO_GENERAL, changed, scored

SHOWN_METRICS = {
    "Retrieval": ("ndcg_at_1", "ndcg_at_10", "map_at_10", "mrr_at_10", "recall_at_10", "recall_at_100"),
    "BitextMining": ("f1", "accuracy", "precision", "recall"),
    "PairClassification": ("max_ap", "max_f1", "max_accuracy", "cosine_ap"),
    "Classification": ("accuracy", "f1", "f1_weighted"),
    "Clustering": ("v_measure", "v_measure_std"),
}
MOST_METRICS = 12
TEXTS = {
    "ru": ("замок", "устройство, которое запирает дверь", "древнее оружие для стрельбы"),
    "en": ("lock", "a device that keeps a door shut", "an old weapon that shoots arrows"),
}
"""A query, a passage that answers it and one that does not."""


def card(told: Told) -> str:
    """The text of README.md."""
    parts = [
        "---\n" + yaml.safe_dump(front_matter(told), allow_unicode=True, sort_keys=False, width=120) + "---",
        _introduction(told),
        _usage(told),
        _scores(told.scores),
        _data(told),
        _training(told),
        _limitations(told),
        _lineage(told),
    ]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def front_matter(told: Told) -> dict[str, Any]:
    """What the hub and mteb read of a card."""
    about, origin = told.settings.about, gather.origin_of(told.lineage, told.settings.base)
    matter: dict[str, Any] = {
        "language": list(told.settings.languages),
        "license": about.license,
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "sentence-similarity", "feature-extraction", "mteb", "transformers", "raysberta"],
    }
    if origin.startswith("hub:"):
        matter["base_model"] = origin.removeprefix("hub:").partition("@")[0]
    results = [_result(name, detail) for name, detail in told.scores.details.items()]
    matter["model-index"] = [{"name": about.model_name, "results": results}]
    return matter


def _result(name: str, detail: ScoreDetail) -> dict[str, Any]:
    """One score in mteb's form: percent, the main score once more under `main_score`."""
    metrics = detail.metrics
    names = [metric for metric in SHOWN_METRICS.get(detail.type, tuple(sorted(metrics))[:MOST_METRICS]) if metric in metrics]
    shown = [
        {"type": metric, "value": 100 * metrics[metric]} for metric in (*(name for name in names if name != "main_score"), "main_score")
    ]
    title = f"{name} (held out)" if detail.held_out else f"MTEB {detail.dataset} ({detail.config})"
    return {
        "task": {"type": detail.type},
        "dataset": {
            "type": f"raysberta/{name}" if detail.held_out else detail.dataset,
            "name": title,
            "config": detail.config,
            "split": detail.split,
            "revision": detail.revision,
        },
        "metrics": shown,
    }


def _introduction(told: Told) -> str:
    settings, model, scores = told.settings, told.model, told.scores
    lines = [f"# {settings.about.model_name}", "", settings.about.description or "A sentence-embedding model made by RaySBERTa.", ""]
    size = f"{model.parameters / 1e6:.1f}M parameters, vectors of {model.dimension} dimensions"
    without = "" if told.description.include_prompt else " without the prefix"
    lines.append(f"{size}, texts of up to {model.max_tokens} tokens, {told.description.pooling} pooling{without}, L2-normalised.")
    lines.append(f"Made from `{gather.origin_of(told.lineage, settings.base)}` with the recipe `{settings.recipe}`.")
    lines += ["", *(sentence.text for sentence in scores.verdict())] if scores.tables else []
    return "\n".join(lines)


def _usage(told: Told) -> str:
    prefixes = told.description.prefixes
    prompted = any(prefixes.named_prompts().values())
    query, right, wrong = TEXTS["ru" if "ru" in told.settings.languages else "en"]
    name_of_query, name_of_document = (f', prompt_name="{name}"' if prompted else "" for name in ("search_query", "search_document"))
    trust = ", trust_remote_code=True" if told.model.own_parts else ""
    code = f'''```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/{told.settings.about.model_name}"{trust})
query = model.encode("{query}"{name_of_query})
passages = model.encode(["{right}", "{wrong}"]{name_of_document})
print(model.similarity(query, passages))
```'''
    if told.model.own_parts:
        code += (
            "\n\nParts of the model are classes of the package `raysberta`, which has to be installed; the folder holds no code. "
            "sentence-transformers wants `trust_remote_code` before it imports them."
        )
    code += f"\n\n{_serving(told, prompted)}"
    if not prompted:
        return f"## Usage\n\nThe model reads texts as they are, without any prefix.\n\n{code}"
    rows = [
        ["`search_query`", f"`{prefixes.retrieval_query!r}`", "questions and terms that are searched for"],
        ["`search_document`", f"`{prefixes.retrieval_document!r}`", "passages that are searched"],
        ["`classification`", f"`{prefixes.paraphrase!r}`", "paraphrases, translations, entailment; classification by meaning"],
        ["`clustering`", f"`{prefixes.topic!r}`", "themes: clustering, topics, title and body"],
    ]
    return f"""## Usage

The model expects a prefix before each text; it carries them as prompts.

{_markdown(["prompt name", "prefix", "for"], rows)}

{code}

`model.encode_query` and `model.encode_document` choose the retrieval prompts by themselves. The prompts are there under mteb's names as
well (`Retrieval-query`, `STS`, `Clustering`, ...), so `mteb.evaluate(model, tasks)` uses them without further settings."""


def _serving(told: Told, prompted: bool) -> str:
    """Whether vLLM serves the model, and what is then left to who asks it."""
    if why := told.model.not_served:
        return f"vLLM does not serve it: {why}."
    prefix = "put the prefix before each text yourself, and " if prompted else ""
    cut = f'ask for `"truncate_prompt_tokens": {told.model.max_tokens}`, for longer texts are refused'
    return f"vLLM gives the same vectors: `vllm serve path/to/{told.settings.about.model_name} --runner pooling`; {prefix}{cut} otherwise."


def _scores(scores: Scores) -> str:
    if not scores.tables:
        return ""
    parts = [
        "## Scores\n\n"
        f"Test halves, main score x 100; each model with its own prefixes. `{scores.final}` is this model, `{scores.base}` the base "
        f"model; the change is `{scores.final}` minus `{scores.base}`. Intervals are 95 % by bootstrap over queries, pairs or texts, "
        "paired where they are of a change."
    ]
    for name, table in scores.tables.items():
        head = ["task", "type", "metric", *scores.models, "change"]
        rows = [
            [row.task, row.type, row.metric, *(scored(row.scores[model]) for model in scores.models), changed(row.change)]
            for row in table.rows
        ]
        last = [*(scored(table.means[model]) for model in scores.models), changed(table.change)]
        rows.append(["**mean**", "", "", *(f"**{each}**" if each else "" for each in last)])
        parts.append(f"### {name.capitalize()} tasks\n\n{_markdown(head, rows)}")
    return "\n\n".join(parts)


def _data(told: Told) -> str:
    found = gather.learned(told.lineage, told.settings.final)
    if not found:
        return ""
    rows = [[each.examples, each.source, each.pairs, each.read_from, f"{each.rows:,}", each.licence] for each in found]
    rows.append(["**all**", "", "", "", f"**{sum(each.rows for each in found):,}**", ""])
    return f"## Training data\n\n{_markdown(['examples', 'source', 'pairs', 'read from', 'rows', 'licence'], rows)}"


def _training(told: Told) -> str:
    lines = phases.lines(told.lineage.origins(told.settings.final))
    return "## Training\n\n" + "\n".join(f"- {line}" for line in lines) if lines else ""


def _limitations(told: Told) -> str:
    scores = told.scores
    lines = [f"- Trained for {', '.join(told.settings.languages)}; other languages were not looked at."]
    prefix = " Without its prefix a text gets a worse vector." if any(told.description.prefixes.named_prompts().values()) else ""
    lines.append(f"- Texts of more than {told.model.max_tokens} tokens are cut.{prefix}")
    if scores.own.rows:
        lines.append("- Own tasks are made from other documents of the sources that it was trained on: they say little about other texts.")
    lines += [f"- {sentence.text}" for sentence in scores.verdict() if sentence.bad]
    if scores.tables and not scores.general.rows:
        lines.append(f"- {NO_GENERAL}")
    return "## Limitations\n\n" + "\n".join(lines)


def _lineage(told: Told) -> str:
    made = sorted(told.lineage, key=lambda node: node.manifest.started)
    rows = [[node.name, node.kind, f"`{node.manifest.fingerprint}`", f"{node.manifest.seconds:.0f}"] for node in made]
    last = made[-1].manifest
    versions = ", ".join(f"{name} {version}" for name, version in last.versions.items())
    commit = f"Code at commit `{last.commit}`. " if last.commit else ""
    drawn = "".join(f"Seed {seed}. " for seed in gather.seeds(told.lineage))
    return f"## Lineage\n\n{commit}{drawn}{versions}.\n\n{_markdown(['node', 'kind', 'fingerprint', 'seconds'], rows)}"


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table; what the recipe's author wrote cannot break out of a cell."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
