"""What each node that shaped a model did, in one line of Markdown with the numbers that were really used."""

from collections.abc import Sequence

from raysberta.aligning.facts import AlignFacts, Written
from raysberta.aligning.settings import AlignPhase
from raysberta.centring.facts import CentreFacts
from raysberta.centring.settings import Centre
from raysberta.composing.facts import ComposeFacts
from raysberta.composing.settings import Compose
from raysberta.merging.facts import MergeFacts
from raysberta.merging.settings import Greedy, Learned, MergePhase
from raysberta.mining.facts import ExamplesFacts
from raysberta.mining.settings import Examples
from raysberta.pruning.facts import PruneFacts
from raysberta.pruning.settings import Prune
from raysberta.publishing.lineage import Lineage, MadeNode
from raysberta.synthesis.facts import WrittenFacts
from raysberta.synthesis.settings import WrittenPairs
from raysberta.training.facts import DistilFacts, Fidelity, Perplexity, TrainingFacts
from raysberta.training.settings import ContrastivePhase, DistilPhase, Generation, MlmPhase, Training
from raysberta.tuning.choice import with_values
from raysberta.tuning.node import SearchTrials
from raysberta.vocabulary.facts import VocabularyFacts
from raysberta.vocabulary.settings import Vocabulary


def lines(lineage: Lineage) -> list[str]:
    """A line for each of the written pairs, examples and phases, in the order of the graph."""
    found = ((node, line(lineage, node)) for node in lineage)
    return [f"`{node.name}` ({node.kind}): {said}." for node, said in found if said]


def line(lineage: Lineage, node: MadeNode) -> str:
    """What a node did; "" where it shaped no model itself."""
    match node.settings, node.facts:
        case Compose() as settings, ComposeFacts() as facts:
            return _compose(lineage, settings, facts)
        case Vocabulary() as settings, VocabularyFacts() as facts:
            return _vocabulary(lineage, settings, facts)
        case MlmPhase() as settings, TrainingFacts() as facts:
            return _mlm(lineage, settings, facts)
        case ContrastivePhase() as settings, TrainingFacts() as facts:
            return _contrastive(lineage, settings, facts)
        case AlignPhase() as settings, AlignFacts() as facts:
            return _align(lineage, settings, facts)
        case DistilPhase() as settings, DistilFacts() as facts:
            return _distil(lineage, settings, facts)
        case MergePhase() as settings, MergeFacts() as facts:
            return _merge(lineage, settings, facts)
        case Prune() as settings, PruneFacts() as facts:
            return _prune(lineage, settings, facts)
        case Centre() as settings, CentreFacts() as facts:
            return _centre(lineage, settings, facts)
        case WrittenPairs() as settings, WrittenFacts() as facts:
            found_by = settings.how.kept_if_found_by
            kept = f", kept where `{lineage.name_of(found_by)}` finds the passage again" if found_by else ""
            return f"{facts.kept:,} of {facts.requested:,} by `{lineage.name_of(settings.how.by)}`, {facts.engine}{kept}"
        case Examples() as settings, ExamplesFacts() as facts:
            return _examples(lineage, settings, facts)
    return ""


def _compose(lineage: Lineage, settings: Compose, facts: ComposeFacts) -> str:
    named = [f"`{lineage.name_of(part)}`" for part in (settings.encoder, settings.decoder) if part is not None]
    sizes = ", ".join(f"{name} {size / 1e6:.1f}M" for name, size in facts.parts.items())
    sees = f", {facts.attention} attention" if facts.attention else ""
    fitted = ""
    if facts.fitted is not None and facts.fitted.explained is not None:
        fitted = (
            f"; fitted to {facts.fitted.texts:,} texts, the connector says {100 * facts.fitted.explained:.0f} % of the decoder's embeddings"
        )
    return f"of {' and '.join(named)}{sees}: {sizes}; vectors of {facts.dimension} dimensions{fitted}"


def _vocabulary(lineage: Lineage, settings: Vocabulary, facts: VocabularyFacts) -> str:
    alike = f"what `{lineage.name_of(settings.alike_by)}` finds alike" if settings.alike_by else ""
    translated = f"translations{' and ' if alike else ''}{alike}"
    what = {"alike": alike, "translated": translated}.get(settings.initialisation, settings.initialisation)
    done = [
        *([f"those of `{lineage.name_of(settings.extend_from)}` adopted"] if settings.extend_from else []),
        *(
            [f"{facts.pieces['trimmed']:,} {'unused' if settings.size is None else 'least probable'} pieces trimmed"]
            if settings.trim
            else []
        ),
        *([f"{facts.pieces['learned']:,} learned"] if settings.learn else []),
        *([f"new rows by {what}"] if settings.learn or settings.extend_from else []),
    ]
    ends = f"{facts.pieces['before']:,} pieces became {facts.pieces['after']:,}"
    return f"from `{lineage.name_of(settings.from_)}`, {'; '.join([*done, ends])}"


def _mlm(lineage: Lineage, settings: MlmPhase, facts: TrainingFacts) -> str:
    phase = with_values(settings.phase, facts.chosen)
    retromae = " with RetroMAE" if phase.retromae else ""
    words = " (whole words)" if phase.whole_words else ""
    named = "masked next token prediction" if phase.next_token else "masked language modelling"
    what = f"{named}{retromae}, {100 * phase.mask_probability:g} % of tokens{words}, {phase.batch_size:,} texts a step"
    how = ", ".join([*_parts(phase), _rate(phase)])
    return f"from `{lineage.name_of(phase.from_)}`, {facts.steps:,} steps of {what}, {how}{_searched(facts.chosen)}"


def _contrastive(lineage: Lineage, settings: ContrastivePhase, facts: TrainingFacts) -> str:
    phase = with_values(settings.phase, facts.chosen)
    losses = list(dict.fromkeys(["info_nce", *phase.objectives.values()]))
    extras = [
        *_parts(phase),
        *([f"margin {phase.margin:g}"] if phase.margin else []),
        *(["negatives within each side too"] if phase.same_tower else []),
        *(["negatives of all devices"] if phase.cross_device_negatives else []),
        *(["negatives masked by the mining encoder"] if phase.guide else []),
        *([f"hardness {phase.hardness:g}"] if phase.hardness else []),
        *([f"spread-out term times {phase.spread_out:g}"] if phase.spread_out else []),
        *([f"distance to vectors of `{lineage.name_of(phase.distil.teacher)}` times {phase.distil.weight:g}"] if phase.distil else []),
        *([] if phase.in_batch_negatives else ["no negatives but a query's own hard ones"]),
        *([_generation(lineage, phase.generation)] if phase.generation else []),
        *([f"Matryoshka dimensions {', '.join(map(str, phase.dimensions))}"] if phase.dimensions else []),
    ]
    what = [
        f"from `{lineage.name_of(phase.from_)}`",
        f"on {_named(lineage, phase.examples)}",
        f"{facts.steps:,} steps of {', '.join(losses)} at temperature {phase.temperature:g}",
        f"{phase.device_batches * phase.batch_size:,} queries a step",
        f"up to {phase.negatives} hard negatives a query",
        *extras,
        _rate(phase),
    ]
    return ", ".join(what) + _searched(facts.chosen) + _written(facts.generation)


def _generation(lineage: Lineage, written: Generation) -> str:
    rows = f"{written.batch_size:,} answers of {_named(lineage, written.examples)} a step"
    return f"the loss of writing {rows}, a {written.mean}'s mean, times {written.weight:g}"


def _written(found: Perplexity | None) -> str:
    """How well the model still writes."""
    if found is None:
        return ""
    return f"; perplexity of {found.rows:,} answers set apart, before and after: {found.before:.2f}, {found.after:.2f}"


def _align(lineage: Lineage, settings: AlignPhase, facts: AlignFacts) -> str:
    phase = settings.phase
    what = f"{facts.steps:,} steps of writing {phase.batch_size:,} texts with `{lineage.name_of(phase.decoder)}` frozen"
    share = f"{100 * phase.reconstruction:g} % of them reconstructed, {100 * phase.mask_probability:g} % of the tokens written hidden"
    told = [f"from `{lineage.name_of(phase.from_)}`", f"on {_named(lineage, phase.examples)}", what, share, *_parts(phase), _rate(phase)]
    return ", ".join(told) + _wrote(facts.before, facts.after)


def _wrote(before: Written | None, after: Written | None) -> str:
    """What the decoder wrote from its own states and from others'."""
    if before is None or after is None:
        return ""
    losses = [("reconstruction", before.reconstruction, after.reconstruction), ("completion", before.completion, after.completion)]
    told = "; ".join(
        f"{name} {first.own:.3f} to {last.own:.3f}, from other texts' states {last.shuffled:.3f}" for name, first, last in losses
    )
    return f"; loss of a token on {after.rows:,} rows set apart: {told}"


def _distil(lineage: Lineage, settings: DistilPhase, facts: DistilFacts) -> str:
    phase = settings.phase
    texts = _named(lineage, [*phase.pairs, *phase.examples, *([phase.documents] if phase.documents else [])])
    what = f"{facts.steps:,} steps of {phase.batch_size:,} texts, {phase.loss} distance, {', '.join([*_parts(phase), _rate(phase)])}"
    learned = (
        f"from `{lineage.name_of(phase.from_)}`, vectors of `{lineage.name_of(phase.teacher)}` of {facts.rows['texts']:,} texts of {texts}"
    )
    return f"{learned}, {what}{_agreed(facts.fidelity)}"


def _agreed(fidelity: Fidelity | None) -> str:
    """How far the student came to agree with its teacher."""
    if fidelity is None:
        return ""
    before, after = fidelity.before, fidelity.after
    measures = [("cosine", before.cosine, after.cosine), ("cosine of centred vectors", before.centred, after.centred)]
    measures.append(("Spearman's correlation of pairwise cosines", before.ranks, after.ranks))
    told = ", ".join(f"{name} {first:.3f} to {last:.3f}" for name, first, last in measures if first is not None and last is not None)
    return f"; agreement with it on {fidelity.texts:,} dev texts, before and after: {told}"


def _merge(lineage: Lineage, settings: MergePhase, facts: MergeFacts) -> str:
    shares = zip(settings.phase.of, facts.shares, strict=True)
    parts = ", ".join(f"{share:.4g} of `{lineage.name_of(model)}`" for model, share in shares)
    what = "encoder layers alone" if settings.phase.scope == "encoder_layers" else "all tensors"
    how = f"{settings.phase.method} of {what}"
    if settings.phase.start is not None:
        norm = facts.chosen.get("norm", settings.phase.norm)
        how += f", {norm:.4g} times the difference from `{lineage.name_of(settings.phase.start)}`"
    return f"{how}, {parts}{_weighed(lineage, settings, facts.chosen)}"


def _weighed(lineage: Lineage, settings: MergePhase, chosen: dict[str, float]) -> str:
    """How the weights of a merge came about."""
    node = lineage.get(lineage.name_of(settings.choice)) if settings.choice is not None else None
    choose = node.settings.choose if node is not None and isinstance(node.settings, SearchTrials) else None
    if isinstance(choose, Greedy):
        return "; weights chosen greedily by dev scores"
    if isinstance(choose, Learned):
        return f"; weights learned in {choose.steps:,} steps on {choose.probe:,} examples of `{lineage.name_of(choose.examples)}`"
    return _searched(chosen)


def _prune(lineage: Lineage, settings: Prune, facts: PruneFacts) -> str:
    how = "dropped one by one by what their absence changes" if facts.removals else "named in the recipe"
    kept = f"layers {', '.join(map(str, facts.kept))} of {facts.layers_before} (counted from 0), {how}"
    sizes = f"{facts.parameters_before / 1e6:.1f}M parameters became {facts.parameters_after / 1e6:.1f}M"
    if facts.similarity is None or facts.first_layers is None:
        return f"from `{lineage.name_of(settings.from_)}`, {kept}, {sizes}"
    near = f"mean centred cosine with the whole model {facts.similarity:.4f} on {facts.texts:,} texts"
    return f"from `{lineage.name_of(settings.from_)}`, {kept}, {near} ({facts.first_layers:.4f} by the first {len(facts.kept)}), {sizes}"


def _centre(lineage: Lineage, settings: Centre, facts: CentreFacts) -> str:
    cosine = f"mean cosine of two of them {facts.cosine_before:.3f} before, {facts.cosine_after:.3f} after"
    return f"from `{lineage.name_of(settings.from_)}`, less {settings.share:g} of the mean vector of {facts.texts:,} texts: {cosine}"


def _examples(lineage: Lineage, settings: Examples, facts: ExamplesFacts) -> str:
    mine = settings.mine
    if mine is not None:
        negatives = f"up to {settings.negatives} negatives mined by `{lineage.name_of(mine.by)}`, ranks {mine.ranks[0]} to {mine.ranks[1]}"
    else:
        negatives = f"up to {settings.negatives} negatives, supplied or drawn" if settings.negatives else "no hard negatives"
    teacher = f", scored by `{lineage.name_of(settings.teacher)}`" if settings.teacher else ""
    return f"{sum(facts.examples.values()):,} pairs of {_named(lineage, settings.pairs)}, {negatives}{teacher}"


def _named(lineage: Lineage, artifacts: Sequence[str]) -> str:
    return ", ".join(f"`{lineage.name_of(artifact)}`" for artifact in artifacts)


def _parts(phase: Training) -> list[str]:
    """What is not trained whole."""
    adapters = [f"LoRA of rank {phase.lora.rank}"] if phase.lora else []
    return adapters + [f"{name.replace('_', ' ')} {how}" for name, how in phase.parts.items()]


def _rate(phase: Training) -> str:
    return f"peak rate {phase.learning_rate:g}"


def _searched(chosen: dict[str, float]) -> str:
    return "; found by search: " + ", ".join(f"{name} {value:g}" for name, value in chosen.items()) if chosen else ""
