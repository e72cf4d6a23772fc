"""The report's parts: what each node has to say of itself, under its own name."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from raysberta import pictures
from raysberta.centring.facts import CentreFacts
from raysberta.composing.facts import ComposeFacts
from raysberta.corpus.facts import CorpusFacts, Repeats
from raysberta.evaluation.facts import BenchmarkFacts, TasksFacts
from raysberta.evaluation.settings import HeldOutTasks
from raysberta.merging.facts import MergeFacts
from raysberta.merging.settings import Merge, MergePhase
from raysberta.mining.facts import ExamplesFacts, Histogram
from raysberta.mining.settings import Examples
from raysberta.models.facts import ModelFacts
from raysberta.pairs.facts import PairsFacts
from raysberta.pruning.facts import PruneFacts
from raysberta.publishing import phases
from raysberta.publishing.lineage import BenchmarkName, CorpusSources, DataSets, Kind, Lineage, MadeNode
from raysberta.schema import Split
from raysberta.synthesis.facts import WrittenFacts
from raysberta.synthesis.settings import WrittenPairs
from raysberta.training.facts import DevPoint, TrainingFacts
from raysberta.tuning.facts import Position, SearchFacts, Trial
from raysberta.tuning.node import SearchTrials
from raysberta.vocabulary.facts import FirstLoss, VocabularyFacts

SAMPLE_CHARACTERS = 240
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
MEANS: dict[str, Callable[[Trial | DevPoint], float | None]] = {
    "own mean": lambda scored: scored.own,
    "general mean": lambda scored: scored.general,
}
"""Of what was scored on dev halves."""
Sample = Mapping[str, str]
"""A generation: kind, passage, output, reason."""


@dataclass(frozen=True)
class Table:
    """Rows under a head; `numbers` and `codes` are columns set to the right or in a fixed-width face."""

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    numbers: Sequence[int] = ()
    codes: Sequence[int] = ()
    total: Sequence[Any] = ()


@dataclass(frozen=True)
class Part:
    """What a node says, or one aspect of it."""

    title: str
    kind: str = ""
    """Of the node; "" where the part goes on about the node before it."""
    text: str = ""
    picture: Markup | None = None
    caption: str = ""
    table: Table | None = None
    samples: Sequence[Sample] = ()


def documents(lineage: Lineage) -> list[Part]:
    """The corpus and the natural pairs."""
    found = [_corpus(lineage, name, facts) for name, _, facts in lineage.each(CorpusSources, CorpusFacts) if facts.sources]
    return found + [_pairs(name, facts) for name, _, facts in lineage.each(DataSets, PairsFacts) if facts.pairs]


def _corpus(lineage: Lineage, name: str, facts: CorpusFacts) -> Part:
    reasons = sorted({reason for source in facts.sources.values() for reason in source.dropped})
    counts = {name: [each.read, each.kept, *(each.dropped.get(reason, 0) for reason in reasons)] for name, each in facts.sources.items()}
    read, kept, *dropped = (sum(column) for column in zip(*counts.values(), strict=True))
    most = sorted(zip(reasons, dropped, strict=True), key=lambda item: -item[1])[:5]
    why = ", ".join(f"{reason} {count:,}" for reason, count in most if count)
    text = f"{read:,} documents read, {kept:,} kept, {sum(dropped):,} left out{f': {why}' if why else ''}."
    languages, masked = _summed(each.languages for each in facts.sources.values()), _summed(each.masked for each in facts.sources.values())
    text += f" By language: {_counted(languages)}." if languages else ""
    text += f" Personal data replaced: {_counted(masked)}." if masked else ""
    text += _repeated("Training documents", facts.repeats)
    fates = {source: {"kept": each.kept, **each.dropped} for source, each in facts.sources.items()}
    drawn = Markup(pictures.stacked(fates, f"{name}: documents by source and what became of them"))
    rows = [[source, *row] for source, row in counts.items()]
    table = Table(["source", "read", "kept", *reasons], rows, range(1, len(reasons) + 3), total=["all", read, kept, *dropped])
    return Part(name, "corpus", text, drawn, "What became of the documents that were read, by source.", table)


def _repeated(what: str, repeats: Repeats) -> str:
    """How many rows share words with what models are scored on."""
    if not (repeats.texts or repeats.passages):
        return ""
    fate = "dropped too" if repeats.passages_dropped else "kept"
    others = f"with passages that a benchmark searches alone: {repeats.passages:,}, {fate}"
    return f" {what} that share words with a held-out or test text: {repeats.texts:,}, dropped; {others}."


def _summed(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for each in counts:
        found.update(each)
    return +found


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common())


def _pairs(name: str, facts: PairsFacts) -> Part:
    made = {key: {str(split): counts.get(split, 0) for split in SPLITS} for key, counts in facts.pairs.items()}
    rows = [[key, *counts.values()] for key, counts in made.items()]
    total = ["all", *(sum(counts[split] for counts in made.values()) for split in SPLITS)]
    drawn = Markup(pictures.amounts(made, f"{name}: pairs by source and kind", "pairs"))
    table = Table(["source/kind", *SPLITS], rows, (1, 2, 3), total=total)
    text = _repeated("Pairs of data sets", facts.repeats).strip()
    return Part(name, "natural", text, drawn, "Pairs by source and kind, and the split they fell into.", table)


def written(lineage: Lineage, samples: Mapping[str, Sequence[Sample]]) -> list[Part]:
    """Written pairs, each node with a few of its generations."""
    found = []
    for name, settings, facts in lineage.each(WrittenPairs, WrittenFacts):
        dropped = sorted(facts.dropped.items(), key=lambda item: -item[1])
        counts = [["requested", facts.requested], ["written", facts.written], ["kept", facts.kept]]
        counts += [[f"dropped: {reason}", count] for reason, count in dropped]
        shown = [{**sample, "passage": _cut(sample["passage"]), "output": _cut(sample["output"])} for sample in samples.get(name, ())]
        text = f"By {lineage.name_of(settings.how.by)}, {facts.engine}."
        found.append(Part(name, "written", text, table=Table(["", "generations"], counts, (1,)), samples=shown))
    return found


def examples(lineage: Lineage) -> list[Part]:
    """Pairs with their negatives, by node."""
    found = []
    for name, settings, facts in lineage.each(Examples, ExamplesFacts):
        mined = settings.mine is not None
        rows = [
            [key, count, facts.pools[key].texts, " to ".join(f"{rank:,}" for rank in facts.pools[key].window) if mined else ""]
            for key, count in facts.examples.items()
        ]
        about = f"{facts.negatives:,} negatives" + (f", {facts.suspects:,} suspect positives" if mined else "")
        table = Table(
            ["source/kind", "examples", "candidates", "ranks"], rows, (1, 2, 3), total=["all", sum(facts.examples.values()), None, about]
        )
        found.append(Part(name, "examples", f"{_told(lineage, name)}{_doubts(facts)}", _histograms(name, facts), table=table))
    return found


def _doubts(facts: ExamplesFacts) -> str:
    if facts.false_negatives is None:
        return ""
    share, looked = facts.false_negatives.share, facts.false_negatives.negatives
    relabelled = f" By its verdict {facts.promoted:,} candidates became positives." if facts.promoted else ""
    return f" A cross-encoder scores {100 * share:.1f} % of {looked:,} negatives at least as high as their positive.{relabelled}"


def _histograms(name: str, facts: ExamplesFacts) -> Markup | None:
    if not any(sum(histogram.counts) for histogram in facts.histograms.values()):
        return None
    positives, negatives, ranks = (_bins(facts.histograms[key]) for key in ("positive_score", "negative_score", "negative_rank"))
    return Markup(pictures.histograms(positives, negatives, ranks, f"{name}: cosines and ranks"))


def _bins(histogram: Histogram) -> pictures.Bins:
    return histogram.edges, histogram.counts


def trained(lineage: Lineage) -> list[Part]:
    """The phases, in the order of the graph."""
    found: list[Part] = []
    for node in lineage:
        match node.settings, node.facts:
            case _, VocabularyFacts() as facts:
                found += _vocabulary(lineage, node, facts)
            case _, TrainingFacts() as facts:
                found += _training(lineage, node, facts)
            case MergePhase() as settings, MergeFacts() as facts:
                found.append(_merge(lineage, node, settings, facts))
            case _, ComposeFacts() | CentreFacts():
                found.append(Part(node.name, node.kind, _told(lineage, node.name)))
            case _, PruneFacts() as facts:
                found.append(_prune(lineage, node, facts))
    return found


def _training(lineage: Lineage, node: MadeNode, facts: TrainingFacts) -> list[Part]:
    text, drawn = _told(lineage, node.name), None
    if facts.curve:
        first, last = facts.curve[0], facts.curve[-1]
        speed = sum(point.tokens_per_second for point in facts.curve) / len(facts.curve)
        text += f" {facts.seconds:,.0f} s; loss {first.loss:.3f} to {last.loss:.3f}; {speed:,.0f} tokens a second."
        steps, losses = [point.step for point in facts.curve], [point.loss for point in facts.curve]
        drawn = Markup(pictures.curve(steps, losses, [point.learning_rate for point in facts.curve], f"{node.name}: loss"))
    found = [Part(node.name, node.kind, text, drawn, "Pale: each point. Bold: mean of its neighbours.")]
    if facts.dev_curve:
        tasks = list(facts.dev_curve[-1].scores)
        means = {name: mean for name, mean in MEANS.items() if mean(facts.dev_curve[-1]) is not None}
        rows = [
            [f"{point.step:,}", *(_percent(mean(point)) for mean in means.values()), *(_percent(point.scores[task]) for task in tasks)]
            for point in facts.dev_curve
        ]
        best = {name: max(facts.dev_curve, key=lambda point: mean(point) or 0.0).step for name, mean in means.items()}
        text = "Dev halves after each checkpoint and at the end, scored beside the training; "
        text += "; ".join(f"the {name} best after step {step:,}" for name, step in best.items()) + "."
        table = Table(["step", *means, *tasks], rows, tuple(range(1, len(means) + len(tasks) + 1)))
        found.append(Part(f"{node.name}: dev scores", text=text, table=table))
    return found


def _vocabulary(lineage: Lineage, node: MadeNode, facts: VocabularyFacts) -> list[Part]:
    counts = "; ".join(f"{name} {count:,}" for name, count in facts.pieces.items())
    sizes = f"{facts.parameters_before / 1e6:.1f}M parameters became {facts.parameters_after / 1e6:.1f}M"
    rows = []
    for language, before in facts.tokens_before.items():
        after = facts.tokens_after[language]
        rows.append([language, "tokens a word", f"{before.fertility:.4f}", f"{after.fertility:.4f}"])
        rows.append([language, "share of unknown tokens", f"{before.unknown:.4f}", f"{after.unknown:.4f}"])
    for language, held in facts.held_out.items():
        rows.append([language, "tokens a word, dev texts", f"{held.fertility_before:.4f}", f"{held.fertility_after:.4f}"])
        rows.append([language, "share of tokens cut otherwise, dev texts", "", f"{held.changed:.4f}"])
    table = Table(["language", "measure", "before", "after"], rows, (2, 3)) if rows else None
    found = [Part(node.name, node.kind, f"{_told(lineage, node.name)} Pieces: {counts}. {sizes}.", table=table)]
    if facts.first_loss is not None:
        found.append(_first_loss(node.name, facts.first_loss))
    if facts.new_pieces:
        text = "Some new pieces, each with the old pieces whose embeddings are nearest to where it starts."
        near = Table(["new piece", "nearest"], [[new.piece, ", ".join(new.nearest)] for new in facts.new_pieces], codes=(0, 1))
        found.append(Part(f"{node.name}: neighbours of new pieces", text=text, table=near))
    return found


def _first_loss(name: str, facts: FirstLoss) -> Part:
    text = f"Masked loss of {facts.texts:,} training texts before any training, by how the embeddings of new pieces start."
    if not facts.head:
        text += (
            " The base brings no head for masked words, so its states go to the table as they are: read the differences, not the height."
        )
    rows = [[f"{how} (chosen)" if how == facts.chosen else how, f"{loss:.4f}"] for how, loss in facts.losses.items()]
    return Part(f"{name}: initialisation of new pieces", text=text, table=Table(["initialisation", "loss"], rows, (1,)))


def _merge(lineage: Lineage, node: MadeNode, settings: MergePhase, facts: MergeFacts) -> Part:
    text = f"{_told(lineage, node.name)} {facts.merged:,} of {facts.tensors:,} tensors merged, {facts.copied:,} copied from the first."
    near = f" {facts.linear:,} were so nearly parallel that they were interpolated linearly." if facts.linear else ""
    rows = [[lineage.name_of(model), f"{share:.4g}"] for model, share in zip(settings.phase.of, facts.shares, strict=True)]
    if not facts.factors:
        return Part(node.name, node.kind, f"{text}{near}", table=Table(["model", "weight"], rows, (1,)))
    rows = [[*row, f"{factor:.4g}"] for row, factor in zip(rows, facts.factors, strict=True)]
    return Part(node.name, node.kind, text, table=Table(["model", "weight", "factor on its difference"], rows, (1, 2)))


def _prune(lineage: Lineage, node: MadeNode, facts: PruneFacts) -> Part:
    text, table = _told(lineage, node.name), None
    if facts.removals:
        text += " Each row is a step: the mean centred cosine with the whole model's vectors without each of the layers that were left."
        tried = facts.tried()
        values = [[removal.similarities.get(layer) for layer in tried] for removal in facts.removals]
        rows = [
            [str(removal.layer), *("" if value is None else f"{value:.4f}" for value in row)]
            for removal, row in zip(facts.removals, values, strict=True)
        ]
        table = Table(["dropped", *map(str, tried)], rows, range(len(tried) + 1))
    return Part(node.name, node.kind, text, table=table)


def searches(lineage: Lineage) -> list[Part]:
    """Every trial with its values, scores and seconds; every step of weights that were learned."""
    found = []
    for name, settings, facts in lineage.each(SearchTrials, SearchFacts):
        if facts.positions:
            found.append(_learned(lineage, name, settings, facts.positions))
            continue
        tasks = list(dict.fromkeys(task for trial in facts.trials for task in trial.scores))
        ended = _ended(facts.trials)
        rows = [[*_trial(trial, facts.best, early), *_results(trial, tasks)] for trial, early in zip(facts.trials, ended, strict=True)]
        head = [*facts.best, "", *tasks, *MEANS, "maximised", "steps", "seconds"]
        table = Table(head, rows, [column for column in range(len(head)) if column != len(facts.best)])
        chosen = ", ".join(f"{field} {value:g}" for field, value in facts.best.items())
        text = f"{chosen}: the best of {len(facts.trials)} tried, in {sum(trial.seconds for trial in facts.trials):,.0f} s."
        text += f" {sum(ended):,} ended early." if any(ended) else ""
        drawn = None
        if len(facts.trials) > 1:
            values, scores = [trial.values for trial in facts.trials], [trial.score for trial in facts.trials]
            sides = {side: [mean(trial) for trial in facts.trials] for side, mean in MEANS.items()}
            drawn = Markup(pictures.trials(values, scores, sides, ended, facts.best, f"{name}: score of each trial"))
        caption = "The choice is circled; trials that ended early are hollow." if any(ended) else "The choice is circled."
        found.append(Part(name, "search", text, drawn, caption, table))
    return found


def _learned(lineage: Lineage, name: str, settings: SearchTrials, positions: Sequence[Position]) -> Part:
    models = [lineage.name_of(model) for model in settings.phase.of] if isinstance(settings.phase, Merge) else []
    first, last = positions[0], positions[-1]
    chosen = ", ".join(f"{model} {weight:.4g}" for model, weight in zip(models, last.weights, strict=True))
    text = f"{chosen}, norm {last.norm:.4g}: learned in {len(positions) - 1:,} steps; loss {first.loss:.4f} to {positions[-2].loss:.4f}."
    rows = [
        [f"{step:,}", *(f"{value:.4f}" for value in (*at.weights, at.norm)), "" if at.loss is None else f"{at.loss:.4f}"]
        for step, at in enumerate(positions)
    ]
    table = Table(["step", *models, "norm", "loss"], rows, tuple(range(len(models) + 3)))
    return Part(name, "search", text, table=table)


def _ended(trials: Sequence[Trial]) -> list[bool]:
    """Which trials made fewer steps than the longest: ASHA ended them."""
    most = max((trial.steps for trial in trials if trial.steps is not None), default=0)
    return [trial.steps is not None and trial.steps < most for trial in trials]


def _trial(trial: Trial, best: Mapping[str, float], early: bool) -> list[str]:
    fate = "chosen" if trial.values == best else "ended early" if early else ""
    return [*(f"{trial.values[field]:g}" for field in best), fate]


def _results(trial: Trial, tasks: Sequence[str]) -> list[Any]:
    scores = [100 * trial.scores[task] if task in trial.scores else None for task in tasks]
    return [*scores, *(_percent(mean(trial)) for mean in MEANS.values()), 100 * trial.score, trial.steps, f"{trial.seconds:,.1f}"]


def tasks(lineage: Lineage) -> list[Part]:
    """What the models are scored on."""
    found = []
    for name, _, facts in lineage.each(HeldOutTasks, TasksFacts):
        rows = []
        for task, about in facts.tasks.items():
            sizes = [", ".join(f"{count:,} {table}" for table, count in about.halves[half].rows.items()) for half in ("dev", "test")]
            source, side = about.source + (f"/{about.pair}" if about.pair else ""), "general" if about.general else "own"
            rows.append([task, side, about.type, source, about.language, *sizes])
        found.append(Part(name, "tasks", table=Table(["task", "", "type", "source", "language", "dev half", "test half"], rows)))
    for name, settings, benchmark in lineage.each(BenchmarkName, BenchmarkFacts):
        learned = f" In domain: {', '.join(benchmark.in_domain)}." if benchmark.in_domain else ""
        found.append(Part(name, "benchmark", f"{settings.name}, {len(benchmark.tasks)} tasks: {', '.join(benchmark.tasks)}.{learned}"))
    return found


def models(lineage: Lineage) -> Table | None:
    """The models from outside."""
    rows = [
        [name, settings.kind, facts.origin, "" if facts.parameters is None else f"{facts.parameters / 1e6:.1f}M"]
        for name, settings, facts in lineage.each(Kind, ModelFacts)
    ]
    return Table(["model", "what it is", "from", "parameters"], rows, (3,), (2,)) if rows else None


def _told(lineage: Lineage, name: str) -> str:
    node = lineage.get(name)
    said = phases.line(lineage, node).replace("`", "") if node is not None else ""
    return f"{said[:1].upper()}{said[1:]}." if said else ""


def _percent(score: float | None) -> str | None:
    return None if score is None else f"{100 * score:.2f}"


def _cut(text: str) -> str:
    return text if len(text) <= SAMPLE_CHARACTERS else text[:SAMPLE_CHARACTERS].rstrip() + " ..."
