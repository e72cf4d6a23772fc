"""The stage that fits the vocabulary of a model to the training texts."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow.dataset as pads
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from raysberta.errors import InputError
from raysberta.models.describe import describe, write_description
from raysberta.models.head import MlmHead, load_head, save_head
from raysberta.models.load import load_encoder, load_tokenizer, save
from raysberta.prefixes import Prefixes
from raysberta.progress import progress
from raysberta.retrieval.embed import Embedder
from raysberta.vocabulary.alike import TOKENS, meanings
from raysberta.vocabulary.facts import FirstLoss, VocabularyFacts
from raysberta.vocabulary.first_loss import TEXTS, first_losses
from raysberta.vocabulary.focus import auxiliary, focus
from raysberta.vocabulary.initialise import Found, Initialisation, table
from raysberta.vocabulary.procrustes import donated
from raysberta.vocabulary.revise import Revision, apply, fertility, held_out, neighbours, revise
from raysberta.vocabulary.settings import Vocabulary, Wechsel
from raysberta.vocabulary.texts import count_pairs, document_texts, language_texts, sample_texts, training_texts, translations
from raysberta.vocabulary.translations import AT_MOST, aligned_pieces, translated
from raysberta.vocabulary.wechsel import aligned, own_words, piece_vectors, read_dictionary, read_words, wechsel
from raysberta.work import Work

log = logging.getLogger(__name__)

COMPARED = 50_000
"""Pairs that FOCUS reads where it is not chosen but only compared with what is."""
PLAIN: tuple[Initialisation, ...] = ("mean_of_pieces", "gaussian")
"""Initialisations that ask for the old rows alone."""


@dataclass(frozen=True)
class _Corpus:
    """The training pairs, the prefixes that their texts are read with, and the documents, where those are texts too."""

    pairs: list[pads.Dataset]
    read: Prefixes
    own: Prefixes
    documents: pads.Dataset | None

    def texts(self, at_most: int | None = None) -> Iterator[list[str]]:
        """All texts; those of about `at_most` pairs alone where that is given."""
        yield from training_texts(self.pairs, self.read, self.own, at_most)
        if self.documents is not None and at_most is None:
            yield from document_texts(self.documents)


def run(work: Work[Vocabulary]) -> VocabularyFacts:
    """Write the folder `model`: the encoder and its head for masked words with another vocabulary, described as the model it starts from.

    Raises:
        InputError: naming the phase, the setting and what is wrong.
    """
    try:
        return _fitted(work)
    except InputError as error:
        raise InputError(f"phases.{work.node}: {error}") from error


def _fitted(work: Work[Vocabulary]) -> VocabularyFacts:
    settings, base = work.settings, work.inputs[work.settings.from_].folder("model")
    description = describe(base)
    tokenizer, model = load_tokenizer(base), load_encoder(base)
    head, donor = load_head(base, model), _donor(work)
    tables = [work.inputs[name].dataset("pairs") for name in settings.pairs]
    documents = work.inputs[settings.documents].dataset("documents") if settings.documents else None
    corpus = _Corpus(tables, settings.prefixes or description.prefixes, description.prefixes, documents)
    work.draft.rows_in = count_pairs(tables)
    texts = _watched(work, corpus.texts(), 2 * work.draft.rows_in)
    revision = revise(tokenizer, texts, settings, load_tokenizer(donor) if donor else None)
    parameters, old = model.num_parameters(), table(model)
    found = _found(work, corpus, revision, tokenizer, old, donor) if revision.new else {}
    apply(model, revision, settings, work.seed, found, head)
    with work.draft.folder("model") as folder:
        save(model, revision.tokenizer, folder)
        save_head(head, folder)
        write_description(folder, description)
    sample = sample_texts(tables)
    work.draft.rows_out = len(revision.texts)
    facts = VocabularyFacts(
        pieces=revision.counts,
        parameters_before=parameters,
        parameters_after=model.num_parameters(),
        tokens_before=fertility(tokenizer, sample),
        tokens_after=fertility(revision.tokenizer, sample),
        held_out=held_out(tokenizer, revision.tokenizer, sample_texts(tables, "dev")),
        new_pieces=neighbours(revision, table(model)),
        first_loss=_first_loss(work, model, head, revision, old, found, sample),
    )
    _log(facts)
    return facts


def _donor(work: Work[Vocabulary]) -> Path | None:
    """The folder of `extend_from`.

    Raises:
        InputError: its rows are asked for, and it is a tokenizer alone.
    """
    name = work.settings.extend_from
    if name is None:
        return None
    folder = work.inputs[name].folder("model")
    if work.settings.initialisation == "procrustes" and not any(folder.glob("*.safetensors")):
        raise InputError(f"extend_from: procrustes turns the rows of {name}, a tokenizer alone; right would be kind: encoder there")
    return folder


def _watched(work: Work[Vocabulary], batches: Iterable[list[str]], total: int) -> Iterator[list[str]]:
    """The same batches; how many texts were read is told."""
    done = 0
    for batch in batches:
        yield batch
        done += len(batch)
        progress(work.node, "texts", min(done, total), total)


def _found(
    work: Work[Vocabulary],
    corpus: _Corpus,
    revision: Revision,
    tokenizer: PreTrainedTokenizerFast,
    old: Tensor,
    donor: Path | None,
) -> dict[Initialisation, Found]:
    """What the initialisations that are possible found for the new pieces; those that are only compared may read less of the corpus."""
    settings = work.settings
    at_most = None if settings.initialisation == "focus" else COMPARED
    vectors = auxiliary(revision.tokenizer, corpus.texts(at_most), work.seed)
    found: dict[Initialisation, Found] = {"focus": focus(vectors, revision.origins, old)}
    if settings.wechsel:
        found["wechsel"] = _by_meaning(settings.wechsel, corpus, revision, tokenizer, old, work.seed)
    if settings.alike_by:
        source, target = meanings(Embedder(work.inputs[settings.alike_by].folder("model"), TOKENS), [tokenizer, revision.tokenizer])
        found["alike"] = wechsel(source, target, revision.origins, old)
    if settings.initialisation == "translated":
        counts = aligned_pieces(revision.tokenizer, translations(corpus.pairs, settings.translations, AT_MOST))
        if not counts.nnz:
            named = ", ".join(settings.translations)
            raise InputError(f"translations: no training pairs are {named}; right would be the `source/kind` of translations among `pairs`")
        found["translated"] = translated(counts, revision.origins, old, found.get("alike", ([], old[:0])))
    if settings.initialisation == "procrustes" and donor:
        theirs = table(load_encoder(donor))
        found["procrustes"] = donated(revision.texts, revision.origins, tokenizer, old, load_tokenizer(donor), theirs)
    return found


def _by_meaning(
    settings: Wechsel, corpus: _Corpus, revision: Revision, tokenizer: PreTrainedTokenizerFast, old: Tensor, seed: int
) -> Found:
    words = {}
    for side, language, file in (
        ("source", settings.source, settings.source_vectors),
        ("target", settings.target, settings.target_vectors),
    ):
        read = partial(language_texts, corpus.pairs, language)
        words[side] = read_words(file, f"wechsel.{side}_vectors") if file else own_words(read, seed, f"wechsel.{side}")
    source = aligned(words["source"], words["target"], read_dictionary(settings.dictionary, "wechsel.dictionary"))
    spaces = piece_vectors(source, tokenizer), piece_vectors(words["target"], revision.tokenizer)
    return wechsel(*spaces, revision.origins, old)


def _first_loss(
    work: Work[Vocabulary],
    model: PreTrainedModel,
    head: MlmHead,
    revision: Revision,
    old: Tensor,
    found: Mapping[Initialisation, Found],
    sample: Mapping[str, list[str]],
) -> FirstLoss | None:
    """The masked loss by initialisation; None where there is no new piece, no text or no mask token."""
    texts = [text for language in sample.values() for text in language[: TEXTS // len(sample)]]
    if not (texts and revision.new and revision.tokenizer.mask_token_id is not None):
        return None
    losses = first_losses(model, head, revision, old, (*PLAIN, *found), found, texts, work.seed)
    return FirstLoss(
        chosen=work.settings.initialisation,
        texts=len(texts),
        head=head.dense is not None,
        losses={str(how): loss for how, loss in losses.items()},
    )


def _log(facts: VocabularyFacts) -> None:
    log.info("pieces %(before)d -> %(after)d: trimmed %(trimmed)d, adopted %(adopted)d, learned %(learned)d", facts.pieces)
    for language, before in facts.tokens_before.items():
        log.info("%s: %.3f -> %.3f tokens a word", language, before.fertility, facts.tokens_after[language].fertility)
    for language, held in facts.held_out.items():
        log.info("%s, dev: %.2f %% of %d tokens cut otherwise", language, 100 * held.changed, held.tokens)
    if facts.first_loss:
        losses = facts.first_loss.losses.items()
        log.info("masked loss before training: %s", ", ".join(f"{how} {loss:.3f}" for how, loss in losses))
