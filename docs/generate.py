"""Write docs/recipe.md from the recipe model, and docs/stages.svg from the stages. `--print` shows the reference instead."""

import sys
from pathlib import Path
from types import UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "platform"))

from raysberta import recipe  # noqa: E402
from raysberta.prefixes import Prefixes  # noqa: E402

HEAD = """# Recipe reference

Generated from `platform/raysberta/recipe.py` by `python docs/generate.py`; a test holds the two together.
A recipe is YAML. `--set a.b=c` changes one setting, `--set sources.x=null` removes a source. Unknown keys are refused.
Everything has a default but `name` and `sources`.
"""

SOURCES = tuple(source.__name__ for source in get_args(get_args(recipe.Source)[0]))
KEYS = {
    "Recipe": "(top level)",
    "Prefixes": "prefixes, mining.prefixes, encoder.base_prefixes",
    "Corpus": "corpus",
    "QualityRules": "corpus.quality_rules.<language>",
    "Pairs": "pairs",
    "Synthesis": "synthesis",
    "Llm": "synthesis.llm",
    "Seq2Seq": "synthesis.seq2seq",
    "Mining": "mining",
    "Encoder": "encoder",
    "Vocabulary": "encoder.vocabulary",
    "Wechsel": "encoder.vocabulary.wechsel",
    "Mlm": "mlm",
    "RetroMae": "mlm.retromae",
    "Contrastive": "contrastive",
    "Lora": "contrastive.lora",
    "Tuning": "tuning",
    "TemperatureSearch": "tuning.temperature",
    "MergeSearch": "tuning.merge",
    "Evaluation": "evaluation",
    "EvaluationTask": "evaluation.tasks.<name>",
    "Publishing": "publishing",
    "Resources": "resources",
    "Workers": "resources.<stage>",
}


def reference() -> str:
    """The whole reference as Markdown."""
    parts = [HEAD]
    for name, key in KEYS.items():
        parts.append(_section(Prefixes if name == "Prefixes" else getattr(recipe, name), f"`{key}`"))
        if name == "Recipe":
            parts.extend(_section(getattr(recipe, source), _source_title(source)) for source in SOURCES)
    return "\n".join(parts)


def _source_title(name: str) -> str:
    (kind,) = get_args(getattr(recipe, name).model_fields["kind"].annotation)
    return f"`sources.<name>` with `kind: {kind}`"


def _section(model: type[BaseModel], title: str) -> str:
    lines = [
        f"## {title}\n",
        " ".join((model.__doc__ or "").split()) + "\n",
        "| key | type | default | what it does |",
        "|---|---|---|---|",
    ]
    for name, field in model.model_fields.items():
        lines.append(f"| `{name}` | {_type(field.annotation)} | {_default(field)} | {' '.join((field.description or '').split())} |")
    return "\n".join(lines) + "\n"


def _type(annotation: object) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _type(get_args(annotation)[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys("null" if part is type(None) else _type(part) for part in get_args(annotation)))
    if origin is tuple:
        return f"list of {_type(get_args(annotation)[0])}"
    if origin is dict:
        return f"mapping to {_type(get_args(annotation)[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "source" if annotation.__name__.endswith("Source") else "section"
    return getattr(annotation, "__name__", str(annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, BaseModel):
        return ""
    if value is None:
        return "null"
    if isinstance(value, str):
        return f'`"{value}"`'
    return f"`{list(value) if isinstance(value, tuple) else value}`"


def picture() -> str:
    """The stages as an SVG: one column a depth, an arrow for what feeds what, but where a longer path says it already."""
    from raysberta.pipeline import SCORED_MODELS, STAGES

    scores = [f"score_{step}" for step in SCORED_MODELS]
    feeds = {stage.name: stage.inputs for stage in STAGES if stage.name not in scores}
    feeds["scores"] = ("benchmark", *dict.fromkeys(model for model in SCORED_MODELS.values()))
    feeds["publish"] = ("merge", "scores")  # it reads every artifact; two arrows say enough
    depth: dict[str, int] = {}
    for name in [*[name for name in feeds if name not in ("publish", "scores")], "scores", "publish"]:
        depth[name] = max((depth[feed] + 1 for feed in feeds[name]), default=0)
    before: dict[str, set[str]] = {}
    for name in depth:
        before[name] = set(feeds[name]).union(*(before[feed] for feed in feeds[name]))
    columns: dict[int, list[str]] = {}
    for name, level in depth.items():
        columns.setdefault(level, []).append(name)
    tallest = max(len(names) for names in columns.values())
    width, height, step_x, step_y = 128, 40, 164, 84
    place = {
        name: (20 + level * step_x, 60 + (row + (tallest - len(names)) / 2) * step_y)
        for level, names in columns.items()
        for row, name in enumerate(names)
    }
    total = (40 + len(columns) * step_x, 90 + tallest * step_y)
    engine = dict.fromkeys(("corpus", "pairs", "synthesis", "mining", "mining_synthetic"), ("#dbeafe", "Ray Data"))
    engine |= dict.fromkeys(("mlm", "contrastive"), ("#dcfce7", "Ray Train + DeepSpeed"))
    engine |= dict.fromkeys(("temperature", "merge"), ("#fef3c7", "Ray Tune"))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total[0]} {total[1]:.0f}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="13">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#64748b"/></marker></defs>',
        f'<rect width="{total[0]}" height="{total[1]:.0f}" fill="white"/>',
    ]
    for number, (colour, text) in enumerate([*dict.fromkeys(engine.values()), ("#f1f5f9", "one Ray task")]):
        lines.append(f'<rect x="{20 + number * 190}" y="14" width="16" height="16" rx="3" fill="{colour}" stroke="#94a3b8"/>')
        lines.append(f'<text x="{42 + number * 190}" y="27" fill="#334155">{text}</text>')
    for name, sources in feeds.items():
        for source in sources:
            if any(source in before[other] for other in sources):
                continue
            (x1, y1), (x2, y2) = place[source], place[name]
            y1, y2, x1 = y1 + height / 2, y2 + height / 2, x1 + width
            bend = (x1 + x2) / 2
            lines.append(
                f'<path d="M{x1:.0f} {y1:.0f} C{bend:.0f} {y1:.0f} {bend:.0f} {y2:.0f} {x2:.0f} {y2:.0f}" '
                'fill="none" stroke="#94a3b8" stroke-width="1.3" marker-end="url(#tip)"/>'
            )
    for name, (x, y) in place.items():
        colour = engine.get(name, ("#f1f5f9", ""))[0]
        lines.append(f'<rect x="{x}" y="{y:.0f}" width="{width}" height="{height}" rx="7" fill="{colour}" stroke="#64748b"/>')
        lines.append(
            f'<text x="{x + width / 2}" y="{y + height / 2 + 5:.0f}" text-anchor="middle" fill="#0f172a">{name.replace("_", " ")}</text>'
        )
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    if "--print" in sys.argv[1:]:
        sys.stdout.write(reference())
    else:
        (ROOT / "docs" / "recipe.md").write_text(reference(), encoding="utf-8")
        (ROOT / "docs" / "stages.svg").write_text(picture(), encoding="utf-8")
