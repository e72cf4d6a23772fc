"""One self-contained page: what came out, what it was made from, what each stage did and when. Opens without a network.

Sections whose stages are not among the inputs are left out; a number is shown as the manifests hold it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from raysberta.artifacts import Manifest, now
from raysberta.publishing import facts, pictures
from raysberta.publishing.template import PAGE
from raysberta.recipe import Recipe

SAMPLE_CHARACTERS = 240


@dataclass(frozen=True)
class Table:
    """Rows under a head; `numbers` and `codes` are columns set to the right or in a fixed-width face."""

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    numbers: Sequence[int] = ()
    codes: Sequence[int] = ()
    total: Sequence[Any] = field(default_factory=list)


def report(
    recipe: Recipe,
    stages: Mapping[str, Manifest],
    model: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The page.

    Args:
        recipe: The recipe.
        stages: Manifests by stage name.
        model: What export() found: dimension, max_tokens, parameters.
        samples: Rows of the stage synthesis: passage, kind, output, reason.
    """
    scores = facts.scores(stages)
    spans, cuts = facts.without_idle(facts.spans(stages))
    content: dict[str, Any] = {
        "name": recipe.publishing.model_name,
        "description": recipe.publishing.description or f"A sentence-embedding model made with the recipe {recipe.name}.",
        "figures": _figures(scores, stages, model),
        "scores": scores,
        "verdict": verdict(scores),
        "best": {row.task: max((value for value in row.scores.values() if value is not None), default=None) for row in scores.rows},
        "tasks": _tasks(stages),
        "documents": _documents(stages),
        "sources": _sources(stages),
        "pairs": _pairs(stages),
        "synthesis": _synthesis(stages, samples),
        "mining": _mining(stages),
        "training": _training(stages),
        "searches": _searches(stages),
        "beside": _beside(stages),
        "paused": bool(cuts),
        "lineage": _lineage(stages),
        "facts": _facts(recipe, stages, model),
        "pictures": _pictures(scores, stages, spans, cuts),
        "foot": f"RaySBERTa, recipe {recipe.name}, {now()}.",
    }
    content["sections"] = _contents(content)
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False).from_string(PAGE)
    return page.render(content)


def verdict(scores: facts.Scores) -> list[dict[str, Any]]:
    """The result in a sentence or two, text and whether it is bad news; every task that got worse is named."""
    if scores.change is None:
        return [{"text": "Base and final model were not both scored on all tasks, so nothing can be said about the change.", "bad": True}]
    moved = f"{'gains' if scores.change >= 0 else 'loses'} {abs(scores.change):.2f} points"
    ends = f"{scores.means['base']:.2f} to {scores.means['final']:.2f}"
    first = f"On the mean of {len(scores.rows)} tasks the final model {moved}: {ends}."
    if not scores.worse:
        return [{"text": f"{first} No task got worse.", "bad": scores.change < 0}]
    named = ", ".join(f"{row.task} ({row.change:+.2f})" for row in scores.worse)
    return [{"text": first, "bad": scores.change < 0}, {"text": f"Worse than the base: {named}.", "bad": True}]


def _contents(content: Mapping[str, Any]) -> list[dict[str, str]]:
    shown = [
        ("scores", "Scores", bool(content["scores"].rows)),
        ("data", "Documents and pairs", bool(content["sources"])),
        ("synthesis", "Synthetic pairs", bool(content["synthesis"])),
        ("mining", "Hard negatives", bool(content["mining"])),
        ("training", "Training", bool(content["training"])),
        ("searches", "Searches", bool(content["searches"])),
        ("timeline", "Timeline", True),
        ("lineage", "Lineage", True),
    ]
    return [{"id": name, "title": title} for name, title, there in shown if there]


def _figures(scores: facts.Scores, stages: Mapping[str, Manifest], model: Mapping[str, Any]) -> list[dict[str, str]]:
    found = []
    if scores.change is not None:
        found.append({"value": f"{scores.means['final']:.2f}", "label": f"mean score, {scores.change:+.2f} against the base"})
    if "corpus" in stages:
        found.append({"value": f"{stages['corpus'].rows_out:,}", "label": f"documents kept of {stages['corpus'].rows_in:,} read"})
    examples = sum(facts.training_rows(stages).values())
    if examples:
        synthetic = stages["synthesis"].metrics.get("kept", 0) if "synthesis" in stages else 0
        found.append({"value": f"{examples:,}", "label": f"training examples, {synthetic:,} of them synthetic"})
    found.append({"value": f"{model['parameters'] / 1e6:.1f}M", "label": f"parameters, {model['dimension']} dimensions"})
    return found


def _pictures(
    scores: facts.Scores, stages: Mapping[str, Manifest], spans: Sequence[facts.Span], cuts: Sequence[float]
) -> dict[str, Markup | None]:
    sources = stages["corpus"].metrics.get("sources", {}) if "corpus" in stages else {}
    made = stages["pairs"].metrics.get("pairs", {}) if "pairs" in stages else {}
    fates = {name: {"kept": found["kept"], **found.get("dropped", {})} for name, found in sources.items()}
    return {
        "changes": _safe(pictures.changes(scores)) if any(row.change is not None for row in scores.rows) else None,
        "means": _safe(pictures.means(scores)) if sum(value is not None for value in scores.means.values()) > 1 else None,
        "documents": _safe(pictures.stacked(fates, "Documents by source and what became of them")) if fates else None,
        "pairs": _safe(pictures.amounts(made, "Pairs by source and kind", "pairs")) if made else None,
        "timeline": _safe(pictures.timeline(spans, cuts, "When each stage ran")) if spans else None,
    }


def _tasks(stages: Mapping[str, Manifest]) -> Table | None:
    found = stages["benchmark"].metrics.get("tasks", {}) if "benchmark" in stages else {}
    rows = []
    for name, entry in found.items():
        sizes = [", ".join(f"{rows:,} {table}" for table, rows in entry["halves"][half]["rows"].items()) for half in ("dev", "test")]
        rows.append([name, entry["type"], entry["source"] + (f"/{entry['pair']}" if entry["pair"] else ""), entry["language"], *sizes])
    return Table(["task", "type", "source", "language", "dev half", "test half"], rows) if rows else None


def _documents(stages: Mapping[str, Manifest]) -> str:
    if "corpus" not in stages:
        return ""
    corpus = stages["corpus"]
    dropped = sum(corpus.dropped.values())
    why = ", ".join(f"{reason} {count:,}" for reason, count in sorted(corpus.dropped.items(), key=lambda item: -item[1])[:5])
    return f"{corpus.rows_in:,} documents read, {corpus.rows_out:,} kept, {dropped:,} left out{f': {why}' if why else ''}."


def _sources(stages: Mapping[str, Manifest]) -> Table | None:
    found = stages["corpus"].metrics.get("sources", {}) if "corpus" in stages else {}
    if not found:
        return None
    reasons = sorted({reason for source in found.values() for reason in source.get("dropped", {})})
    rows = [
        [name, item["read"], item["kept"], *(item.get("dropped", {}).get(reason, 0) for reason in reasons)] for name, item in found.items()
    ]
    total = ["all", *(sum(row[column] for row in rows) for column in range(1, len(reasons) + 3))]
    return Table(["source", "read", "kept", *reasons], rows, range(1, len(reasons) + 3), total=total)


def _pairs(stages: Mapping[str, Manifest]) -> Table | None:
    found = stages["pairs"].metrics.get("pairs", {}) if "pairs" in stages else {}
    if not found:
        return None
    splits = ("train", "dev", "test")
    rows = [[name, *(counts.get(split, 0) for split in splits)] for name, counts in found.items()]
    return Table(["source/kind", *splits], rows, (1, 2, 3), total=["all", *(sum(row[column] for row in rows) for column in (1, 2, 3))])


def _synthesis(stages: Mapping[str, Manifest], samples: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if "synthesis" not in stages:
        return None
    metrics = stages["synthesis"].metrics
    counts = [[name, metrics.get(name, 0)] for name in ("requested", "written", "kept")]
    counts += [[f"dropped: {reason}", count] for reason, count in sorted(metrics.get("dropped", {}).items(), key=lambda item: -item[1])]
    shown = [{**sample, "passage": _cut(sample["passage"]), "output": _cut(sample["output"])} for sample in samples]
    return {"engines": list(metrics.get("engine", {}).items()), "counts": Table(["", "generations"], counts, (1,)), "samples": shown}


def _mining(stages: Mapping[str, Manifest]) -> list[dict[str, Any]]:
    found = []
    for name, title in (("mining", "Pairs of the corpus"), ("mining_synthetic", "Synthetic pairs")):
        metrics = stages[name].metrics if name in stages else {}
        examples = metrics.get("examples", {})
        if not examples:
            continue
        pools = metrics.get("pools", {})
        rows = [
            [key, count, pools.get(key, {}).get("texts"), " to ".join(f"{rank:,}" for rank in pools.get(key, {}).get("window", ()))]
            for key, count in examples.items()
        ]
        total = [
            "all",
            sum(examples.values()),
            None,
            f"{metrics.get('negatives', 0):,} negatives, {metrics.get('suspects', 0):,} suspect positives",
        ]
        histograms = metrics.get("histograms", {})
        drawn = _safe(pictures.histograms(histograms, title)) if any(item.get("counts") for item in histograms.values()) else None
        found.append(
            {
                "title": title,
                "counts": Table(["source/kind", "examples", "candidates", "ranks"], rows, (1, 2, 3), total=total),
                "picture": drawn,
            }
        )
    return found


def _training(stages: Mapping[str, Manifest]) -> list[dict[str, Any]]:
    found = []
    if "vocabulary" in stages and stages["vocabulary"].metrics.get("pieces"):
        found.append(_vocabulary(stages["vocabulary"].metrics))
        found += _first_loss(stages["vocabulary"].metrics) + _neighbours(stages["vocabulary"].metrics)
    for name, title in (("mlm", "Masked language modelling"), ("contrastive", "Contrastive")):
        points = stages[name].metrics.get("curve", []) if name in stages else []
        if points:
            last = points[-1]
            speed = [point["tokens_per_second"] for point in points if point.get("tokens_per_second")]
            text = f"{last['step']:,} steps in {stages[name].seconds:,.0f} s; loss {points[0]['loss']:.3f} to {last['loss']:.3f}"
            text += f"; {sum(speed) / len(speed):,.0f} tokens a second." if speed else "."
            drawn = _safe(pictures.curve(points, title))
            found.append(
                {
                    "title": title,
                    "text": text,
                    "picture": drawn,
                    "caption": "Pale: each point. Bold: mean of its neighbours.",
                    "table": None,
                }
            )
            found += _dev_curve(stages[name].metrics, title)
    return found


def _dev_curve(metrics: Mapping[str, Any], title: str) -> list[dict[str, Any]]:
    points = metrics.get("dev_curve")
    if not points:
        return []
    tasks = list(points[-1]["scores"])
    rows = [[f"{point['step']:,}", *(f"{100 * score:.2f}" for score in (point["score"], *point["scores"].values()))] for point in points]
    best = max(points, key=lambda point: point["score"])
    text = f"Dev halves after each checkpoint and at the end, scored beside the training; best after step {best['step']:,}."
    table = Table(["step", "mean", *tasks], rows, tuple(range(1, len(tasks) + 2)))
    return [{"title": f"{title}: dev scores", "text": text, "picture": None, "caption": "", "table": table}]


def _vocabulary(metrics: Mapping[str, Any]) -> dict[str, Any]:
    pieces, parameters = metrics["pieces"], metrics.get("parameters", {})
    text = "; ".join(f"{name} {count:,}" for name, count in pieces.items()) + " pieces."
    if parameters:
        text += f" {parameters['before'] / 1e6:.1f}M parameters became {parameters['after'] / 1e6:.1f}M."
    tokens = metrics.get("tokens", {})
    names = list(dict.fromkeys(name for side in ("before", "after") for item in tokens.get(side, {}).values() for name in item))
    rows = [
        [language, name, *(tokens[side].get(language, {}).get(name) for side in ("before", "after"))]
        for language in tokens.get("before", {})
        for name in names
    ]
    rows = [
        [language, name, *(round(value, 4) if isinstance(value, float) else value for value in values)] for language, name, *values in rows
    ]
    table = (
        Table(["language", "measure", "before", "after"], [[*row[:2], *(_exact(value) for value in row[2:])] for row in rows], (2, 3))
        if rows
        else None
    )
    return {"title": "Vocabulary", "text": text, "picture": None, "caption": "", "table": table}


def _first_loss(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = metrics.get("first_loss")
    if not found:
        return []
    text = f"Masked loss of {found['texts']:,} training texts before any training, by how the embeddings of new pieces start."
    if not found["head"]:
        text += (
            " The base brings no head for masked words, so its states go to the table as they are: read the differences, not the height."
        )
    rows = [[f"{how} (chosen)" if how == found["chosen"] else how, f"{loss:.4f}"] for how, loss in found["losses"].items()]
    table = Table(["initialisation", "loss"], rows, (1,))
    return [{"title": "Initialisation of new pieces", "text": text, "picture": None, "caption": "", "table": table}]


def _neighbours(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = [[item["piece"], ", ".join(item["nearest"])] for item in metrics.get("new_pieces", [])]
    if not rows:
        return []
    text = "Some new pieces, each with the old pieces whose embeddings are nearest to where it starts."
    table = Table(["new piece", "nearest"], rows, codes=(0, 1))
    return [{"title": "Neighbours of new pieces", "text": text, "picture": None, "caption": "", "table": table}]


def _searches(stages: Mapping[str, Manifest]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for stage, setting, title in (
        ("temperature", "temperature", "Contrastive temperature"),
        ("merge", "weight", "Weight of the final merge"),
    ):
        metrics = stages[stage].metrics if stage in stages else {}
        best, trials = metrics.get("best"), metrics.get("trials", [])
        if best is None:
            continue
        if not trials:
            found.append({"title": title, "text": f"Not searched; {best:g} from the recipe.", "picture": None, "table": None})
            continue
        tasks = list(dict.fromkeys(task for trial in trials for task in trial.get("scores", {})))
        ordered = sorted(trials, key=lambda trial: trial[setting])
        rows = [
            [
                _exact(trial[setting]),
                *(100 * trial["scores"][task] if task in trial.get("scores", {}) else None for task in tasks),
                100 * trial["score"],
            ]
            for trial in ordered
        ]
        table = Table([setting, *tasks, "mean"], rows, range(1, len(tasks) + 2))
        text = f"{best:g} of {len(trials)} tried, {stages[stage].seconds:,.0f} s."
        drawn = _safe(pictures.trials(ordered, setting, best, title)) if len(trials) > 1 else None
        found.append({"title": title, "text": text, "picture": drawn, "table": table})
    return found


def _beside(stages: Mapping[str, Manifest]) -> str:
    """What ran at the same time, in words."""
    spans = facts.spans(stages)
    shared = facts.overlaps(spans)
    if not shared:
        return "The stages ran one after the other."
    longest = ", ".join(f"{first} and {second} {seconds:,.0f} s" for first, second, seconds in shared[:3])
    return f"Stages that do not depend on one another run side by side: {len(shared)} pairs of stages shared time, {longest} the longest."


def _lineage(stages: Mapping[str, Manifest]) -> Table:
    rows = []
    for span in facts.spans(stages):
        item = stages[span.stage]
        rows.append([span.stage, item.fingerprint, ", ".join(item.inputs) or "", item.rows_in, item.rows_out, f"{item.seconds:,.1f}"])
    return Table(["stage", "fingerprint", "inputs", "rows in", "rows out", "seconds"], rows, (3, 4, 5), (1,))


def _facts(recipe: Recipe, stages: Mapping[str, Manifest], model: Mapping[str, Any]) -> list[tuple[str, str]]:
    last = max(stages.values(), key=lambda item: item.started, default=None)
    found = [
        ("recipe", recipe.name),
        ("base model", recipe.encoder.base),
        ("prefixes", ", ".join(repr(prefix) for prefix in recipe.prefixes.model_dump().values())),
        ("longest text", f"{model['max_tokens']} tokens"),
        ("languages", ", ".join(recipe.languages)),
        ("seed", str(recipe.seed)),
    ]
    if last is not None:
        found += [
            ("commit", last.commit or "not in a checkout"),
            ("versions", ", ".join(f"{name} {version}" for name, version in last.versions.items())),
        ]
    return found


def _exact(value: Any) -> Any:
    """A number as it is written in a recipe, not rounded to two digits."""
    return f"{value:g}" if isinstance(value, float) else value


def _cut(text: str) -> str:
    return text if len(text) <= SAMPLE_CHARACTERS else text[:SAMPLE_CHARACTERS].rstrip() + " ..."


def _safe(svg: str) -> Markup:
    """Markup made in pictures.py, where matplotlib escapes what it writes."""
    return Markup(svg)
