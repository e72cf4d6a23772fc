"""The stages `models`, `generators` and `vocabulary` as Ray tasks."""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from raysberta.artifacts import Artifact, Draft
from raysberta.encoder.fetch import USES, Role, digests, fetch, model_folder, references
from raysberta.encoder.first_loss import TEXTS, first_losses
from raysberta.encoder.focus import auxiliary, focus
from raysberta.encoder.head import load_head, save_head
from raysberta.encoder.initialise import Found, Initialisation, table
from raysberta.encoder.load import load_encoder, load_tokenizer, save
from raysberta.encoder.procrustes import donated
from raysberta.encoder.vocabulary import Revision, apply, fertility, neighbours, revise
from raysberta.encoder.wechsel import aligned, own_words, piece_vectors, read_dictionary, read_words, wechsel
from raysberta.prefixes import Side
from raysberta.recipe import Recipe
from raysberta.schema import Task

log = logging.getLogger(__name__)

VERSION: int = 2
TRAIN = pads.field("split") == "train"
TASKS: tuple[Task, ...] = get_args(Task)
SIDES: tuple[Side, ...] = get_args(Side)
BATCH = 4096
SAMPLE = 2000
COMPARED = 50_000
"""Pairs that FOCUS reads where it is not chosen but only compared with what is."""
PLAIN: tuple[Initialisation, ...] = ("mean_of_pieces", "gaussian")
"""Initialisations that ask for the old rows alone."""


def fetch_models(recipe: Recipe, inputs: Mapping[str, Artifact], draft: Draft) -> None:
    """The encoder to train, the one that mines, and the vocabulary's donor, each distinct one as a folder."""
    found = references(recipe)
    _store({role: reference for role, reference in found.items() if USES[role] != "generator"}, recipe.encoder.layers, draft)


def fetch_generators(recipe: Recipe, inputs: Mapping[str, Artifact], draft: Draft) -> None:
    """The models that write pairs, each distinct one as a folder; none where synthesis is off."""
    found = references(recipe)
    _store({role: reference for role, reference in found.items() if USES[role] == "generator"}, None, draft)


def _store(wanted: Mapping[Role, str], layers: int | None, draft: Draft) -> None:
    """Write what the roles need; metrics["roles"] says which folder serves which role, metrics["files"] hashes every file."""
    network = os.environ.get("HF_HUB_OFFLINE") == "0"  # set for workers by the job that may fetch
    stored: dict[tuple[str, str, int | None], str] = {}
    draft.metrics.update(roles={}, references={}, files={})
    for role, reference in wanted.items():
        kept = layers if role == "encoder" else None
        key = (reference, USES[role], kept)
        if key not in stored:
            begun = time.monotonic()
            with draft.folder(role) as folder:
                fetch(reference, folder, USES[role], kept, network)
                draft.metrics["files"][role] = digests(folder)
                size = sum(file.stat().st_size for file in Path(folder).iterdir())
            stored[key] = role
            draft.metrics["references"][role] = reference
            log.info("%s: %s, %.0f MB, %.0f s", role, reference, size / 1e6, time.monotonic() - begun)
        draft.metrics["roles"][role] = stored[key]
    draft.rows_out = len(stored)


def vocabulary(recipe: Recipe, inputs: Mapping[str, Artifact], draft: Draft) -> None:
    """The encoder and its head with their vocabulary fitted to the training texts: never to dev or test."""
    settings = recipe.encoder.vocabulary
    models, pairs = inputs["models"], inputs["pairs"].dataset("pairs")
    base = model_folder(models, "encoder")
    tokenizer, model = load_tokenizer(base), load_encoder(base)
    head = load_head(base, model)
    donor_role: Role = "donor_encoder" if settings.initialisation == "procrustes" else "donor"
    donor = load_tokenizer(model_folder(models, donor_role)) if settings.extend_from else None
    draft.rows_in = pairs.count_rows(filter=TRAIN)
    revision = revise(tokenizer, training_texts(pairs, recipe), settings, donor)
    parameters, old = model.num_parameters(), table(model)
    found = _found(recipe, inputs, revision, tokenizer, old) if revision.new else {}
    apply(model, revision, settings, recipe.seed, found, head)
    with draft.folder("model") as folder:
        save(model, revision.tokenizer, folder)
        save_head(head, folder)
    sample = sample_texts(pairs)
    draft.rows_out = len(revision.texts)
    draft.metrics.update(
        pieces=revision.counts,
        parameters={"before": parameters, "after": model.num_parameters()},
        tokens={"before": fertility(tokenizer, sample), "after": fertility(revision.tokenizer, sample)},
        new_pieces=neighbours(revision, table(model)),
    )
    log.info("pieces %(before)d -> %(after)d: trimmed %(trimmed)d, adopted %(adopted)d, learned %(learned)d", revision.counts)
    for language, before in draft.metrics["tokens"]["before"].items():
        log.info("%s: %.3f -> %.3f tokens a word", language, before["fertility"], draft.metrics["tokens"]["after"][language]["fertility"])
    texts = [text for language in sample.values() for text in language[: TEXTS // len(sample)]]
    if texts and revision.new and revision.tokenizer.mask_token_id is not None:
        losses = first_losses(model, head, revision, old, (*PLAIN, *found), found, texts, recipe.seed)
        draft.metrics["first_loss"] = {
            "chosen": settings.initialisation,
            "texts": len(texts),
            "head": head.dense is not None,
            "losses": losses,
        }
        log.info("masked loss before training: %s", ", ".join(f"{how} {loss:.3f}" for how, loss in losses.items()))


def _found(
    recipe: Recipe, inputs: Mapping[str, Artifact], revision: Revision, tokenizer: PreTrainedTokenizerFast, old: Tensor
) -> dict[Initialisation, Found]:
    """What the initialisations that are possible found for the new pieces; those that are only compared may read less of the corpus."""
    settings, seed = recipe.encoder.vocabulary, recipe.seed
    pairs = inputs["pairs"].dataset("pairs")
    at_most = None if settings.initialisation == "focus" else COMPARED
    vectors = auxiliary(revision.tokenizer, training_texts(pairs, recipe, at_most), seed)
    found: dict[Initialisation, Found] = {"focus": focus(vectors, revision.origins, old)}
    if settings.wechsel:
        words = {}
        for side, language, file in (
            ("source", settings.wechsel.source, settings.wechsel.source_vectors),
            ("target", settings.wechsel.target, settings.wechsel.target_vectors),
        ):
            key = f"encoder.vocabulary.wechsel.{side}"
            read = partial(language_texts, pairs, language)
            words[side] = read_words(file, f"{key}_vectors") if file else own_words(read, seed, key)
        source = aligned(words["source"], words["target"], read_dictionary(settings.wechsel.dictionary))
        spaces = piece_vectors(source, tokenizer), piece_vectors(words["target"], revision.tokenizer)
        found["wechsel"] = wechsel(*spaces, revision.origins, old)
    if settings.initialisation == "procrustes":
        donor = model_folder(inputs["models"], "donor_encoder")
        theirs = table(load_encoder(donor))
        found["procrustes"] = donated(revision.texts, revision.origins, tokenizer, old, load_tokenizer(donor), theirs)
    return found


def training_texts(pairs: pads.Dataset, recipe: Recipe, at_most: int | None = None) -> Iterator[list[str]]:
    """Both sides of the training pairs as the model reads them, in batches; the recipe's and the base's prefixes first.

    Of more than `at_most` pairs about so many, chosen by their ids.
    """
    every = (recipe.prefixes, recipe.encoder.base_prefixes)
    yield [prefixes.of(task, side) for prefixes in every for task in TASKS for side in SIDES]
    chosen, share = TRAIN, at_most / max(pairs.count_rows(filter=TRAIN), 1) if at_most else 1.0
    if share < 1:  # limits kept the pairs of lowest ids: the latter half of an id, 8 hex digits, is still evenly spread
        chosen &= pc.utf8_slice_codeunits(pads.field("pair_id"), 8) < f"{int(share * 2**32):08x}"
    for batch in pairs.to_batches(columns=["task", "query", "positive"], filter=chosen, batch_size=BATCH):
        tasks = batch["task"].to_pylist()
        for column, side in (("query", SIDES[0]), ("positive", SIDES[1])):
            yield [recipe.prefixes.of(task, side) + text for task, text in zip(tasks, batch[column].to_pylist(), strict=True)]


def language_texts(pairs: pads.Dataset, language: str) -> Iterator[list[str]]:
    """The sides of the training pairs that are in a language, in batches: of a translation, whose sides differ, the query."""
    for batch in pairs.to_batches(
        columns=["kind", "query", "positive"], filter=TRAIN & (pads.field("language") == language), batch_size=BATCH
    ):
        yield batch["query"].to_pylist()
        yield batch.filter(pc.not_equal(batch["kind"], "translation"))["positive"].to_pylist()


def sample_texts(pairs: pads.Dataset) -> dict[str, list[str]]:
    """Up to SAMPLE positives of training pairs a language, those with the lowest ids; translations, whose sides differ, by their query."""
    lowest: dict[str, pa.Table] = {}
    for batch in pairs.to_batches(columns=["pair_id", "language", "kind", "query", "positive"], filter=TRAIN, batch_size=BATCH):
        table = pa.Table.from_batches([batch])
        for language in table["language"].unique().to_pylist():
            more = table.filter(pc.equal(table["language"], language))
            seen = pa.concat_tables([lowest[language], more]) if language in lowest else more
            lowest[language] = seen.take(pc.select_k_unstable(seen, min(SAMPLE, len(seen)), [("pair_id", "ascending")]))
    found = {}
    for language, table in sorted(lowest.items()):
        rows = table.sort_by("pair_id").select(["kind", "query", "positive"]).to_pylist()
        found[language] = [row["query"] if row["kind"] == "translation" else row["positive"] for row in rows]
    return found
