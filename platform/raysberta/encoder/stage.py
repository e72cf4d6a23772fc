"""The stages `models`, `generators` and `vocabulary` as Ray tasks."""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from raysberta.artifacts import Artifact, Draft
from raysberta.encoder.fetch import USES, Role, digests, fetch, model_folder, references
from raysberta.encoder.focus import auxiliary
from raysberta.encoder.initialise import table
from raysberta.encoder.load import load_encoder, load_tokenizer, save
from raysberta.encoder.vocabulary import apply, fertility, neighbours, revise
from raysberta.prefixes import Side
from raysberta.recipe import Recipe
from raysberta.schema import Task

log = logging.getLogger(__name__)

VERSION: int = 1
TRAIN = pads.field("split") == "train"
TASKS: tuple[Task, ...] = get_args(Task)
SIDES: tuple[Side, ...] = get_args(Side)
BATCH = 4096
SAMPLE = 2000


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
    """The encoder with its vocabulary fitted to the training texts: never to dev or test."""
    settings = recipe.encoder.vocabulary
    models, pairs = inputs["models"], inputs["pairs"].dataset("pairs")
    tokenizer = load_tokenizer(model_folder(models, "encoder"))
    model = load_encoder(model_folder(models, "encoder"))
    donor = load_tokenizer(model_folder(models, "donor")) if settings.extend_from else None
    draft.rows_in = pairs.count_rows(filter=TRAIN)
    revision = revise(tokenizer, training_texts(pairs, recipe), settings, donor)
    parameters = model.num_parameters()
    focus = settings.initialisation == "focus" and revision.counts["after"] > revision.counts["before"] - revision.counts["trimmed"]
    vectors = auxiliary(revision.tokenizer, training_texts(pairs, recipe), recipe.seed) if focus else None
    apply(model, revision, settings, recipe.seed, vectors)
    with draft.folder("model") as folder:
        save(model, revision.tokenizer, folder)
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


def training_texts(pairs: pads.Dataset, recipe: Recipe) -> Iterator[list[str]]:
    """Both sides of the training pairs as the model reads them, in batches; the recipe's and the base's prefixes first."""
    every = (recipe.prefixes, recipe.encoder.base_prefixes)
    yield [prefixes.of(task, side) for prefixes in every for task in TASKS for side in SIDES]
    for batch in pairs.to_batches(columns=["task", "query", "positive"], filter=TRAIN, batch_size=BATCH):
        tasks = batch["task"].to_pylist()
        for column, side in (("query", SIDES[0]), ("positive", SIDES[1])):
            yield [recipe.prefixes.of(task, side) + text for task, text in zip(tasks, batch[column].to_pylist(), strict=True)]


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
