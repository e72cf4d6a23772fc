"""The stage that aligns: texts by two tokenizers, training on Ray Train, and what the decoder writes before and after."""

import logging
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any

from raysberta.aligning.align import Texts, decoder_hash, measure, train_align
from raysberta.aligning.facts import AlignFacts
from raysberta.aligning.settings import Align, AlignPhase
from raysberta.models.load import load_tokenizer
from raysberta.prefixes import NONE
from raysberta.spread import results
from raysberta.storage.artifacts import Artifact
from raysberta.storage.location import join
from raysberta.training.arrays import Tokens
from raysberta.training.examples import COLUMNS, Each, Examples
from raysberta.training.prepare import read_rows, read_texts
from raysberta.training.ray_train import Fit, fit_on_ray, halves_of, train_on_worker
from raysberta.training.survey import reading_of, row_groups
from raysberta.work import Work

log = logging.getLogger(__name__)

READ, WRITTEN = "data", "written"


def run(work: Work[AlignPhase]) -> AlignFacts:
    """Examples, a model of parts and its generator, to the folder `model`.

    Raises:
        InputError: there are no examples, they do not fit the model, the model has no decoder, or the generator is another.
        RuntimeError: the decoder's weights are not what they were.
    """
    phase, draft = work.settings.phase, work.draft
    model, generator = work.inputs[phase.from_], work.inputs[phase.decoder]
    mined, each = [work.inputs[name] for name in phase.examples], partial(results, workers=work.workers)
    examples, written = prepare(phase, model, generator, mined, draft.checkpoints, each)
    draft.rows_in = draft.rows_out = len(examples)
    count = examples.tokens.count
    rows = {name: int((examples.source == number).sum()) for number, name in enumerate(examples.sources)}
    log.info("%s: %d rows, %d tokens to read, %d to write", work.node, len(examples), count, written.count)
    result, curve = fit_on_ray(_worker, Fit(phase, model, work, join(draft.checkpoints, READ), halves_of(work)))
    facts = AlignFacts(**result, dev_curve=curve, tokens=count, rows=rows, chosen={})
    if facts.decoder_before != facts.decoder_after:
        raise RuntimeError(f"{work.node}: the decoder's weights are not what they were: {facts.decoder_before}, {facts.decoder_after}")
    return facts


def prepare(
    phase: Align, model: Artifact, generator: Artifact, mined: list[Artifact], place: str, each: Each = starmap
) -> tuple[Examples, Tokens]:
    """What the encoder reads, and the same sequences as the decoder writes them.

    Args:
        phase: Its settings.
        model: Whose tokenizer reads.
        generator: Whose tokenizer writes.
        mined: Examples.
        place: Folder or URI to write to; what is there whole is read.
        each: Where the passes over the tables run.

    Raises:
        InputError: there is no row at all.
    """
    units = [unit for artifact in mined for unit in row_groups(artifact, "examples", COLUMNS)]
    limits = ((model, phase.max_tokens), (generator, phase.written_tokens))
    readings = [reading_of({"query": most, "document": most}, NONE) for _, most in limits]
    examples = read_rows(units, readings[0], model, join(place, READ), each)
    written = read_texts(units, readings[1], generator, join(place, WRITTEN), each)
    return examples, written


def _worker(config: dict[str, Any]) -> None:
    fit: Fit = config["fit"]
    phase, model = fit.phase, fit.model.folder("model")
    assert isinstance(phase, Align)
    generator = fit.work.inputs[phase.decoder].folder("model")
    examples, written = Examples.load(fit.data), Tokens.load(join(fit.work.draft.checkpoints, WRITTEN))

    def train(output: Path | None, **running: Any) -> list[dict[str, float]]:
        return train_align(phase, model, generator, examples, written, output, **running)

    def told(output: Path) -> dict[str, Any]:
        texts = Texts(examples, written, load_tokenizer(generator), phase, fit.work.seed)
        found = {"before": measure(model, generator, texts), "after": measure(output, generator, texts)}
        losses = {when: losses.model_dump() if losses is not None else None for when, losses in found.items()}
        return {**losses, "decoder_before": decoder_hash(model), "decoder_after": decoder_hash(output)}

    train_on_worker(fit, train, told)
