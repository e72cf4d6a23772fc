"""Pairs that models write, on Ray: passages to requests, requests through an engine, answers to consistent pairs.

vLLM runs through `ray.data.llm`; where it cannot be imported, the same prompts and sampling settings run through transformers, and
the log says so. Requests are drawn by hash and carry their own seeds, so they are the same in every run; what a model writes may
still differ in a few words where an engine batches by the clock.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import ray
import ray.data
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysberta.errors import InputError
from raysberta.models.describe import describe
from raysberta.pairs.text import normalise
from raysberta.progress import progress
from raysberta.retrieval.workers import embed_texts
from raysberta.schema import PAIR
from raysberta.storage.artifacts import Artifact
from raysberta.storage.location import filesystem
from raysberta.synthesis.answers import Answers, Kept, batches, forget, with_answers
from raysberta.synthesis.decoder import Decoder, prompted, sampling
from raysberta.synthesis.facts import WrittenFacts
from raysberta.synthesis.prompts import clean, judge
from raysberta.synthesis.requests import GENERATION, candidates, choose, pair_of, pairs_table, requests
from raysberta.synthesis.round_trip import ranks
from raysberta.synthesis.seq2seq import Seq2SeqWriter
from raysberta.synthesis.settings import LlmPairs, Seq2SeqPairs, WrittenPairs
from raysberta.synthesis.vllm import bundle, engine_environment, engine_settings
from raysberta.work import Work, Workers

log = logging.getLogger(__name__)

LIGHT = 0.1
"""Cores of what only carries rows to and from the engine."""
SPARE = 4
"""Passages looked at for each one wanted: short and repeated ones are passed over."""


def run(work: Work[WrittenPairs]) -> WrittenFacts:
    """Write the tables `pairs` (PAIR, kept ones) and `generations` (GENERATION, one row a request).

    Raises:
        InputError: no passage fits, or the model has no chat template.
        RuntimeError: more requests failed than `failure_budget` allows.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.issue_detectors_config.detectors = []  # they count a loaded library as a row's memory
    how = work.settings.how
    engine, generations = _llm(work, how) if isinstance(how, LlmPairs) else _seq2seq(work, how)
    rows, pairs = _keep(work, generations.to_pylist())
    work.draft.write_table("generations", pa.Table.from_pylist(rows, GENERATION))
    work.draft.write_table("pairs", pairs)
    facts = _facts(work, rows, pairs, engine)
    forget(work.draft)
    return facts


def _facts(work: Work[WrittenPairs], rows: list[dict[str, Any]], pairs: pa.Table, engine: str) -> WrittenFacts:
    dropped = Counter(row["reason"] for row in rows if row["reason"])
    work.draft.rows_in, work.draft.rows_out = len(rows), pairs.num_rows
    for reason, count in sorted(dropped.items()):
        work.draft.drop(reason, count)
    by_kind = {
        kind: Counter("kept" if not row["reason"] else "dropped" for row in rows if row["kind"] == kind)
        for kind in {row["kind"] for row in rows}
    }
    why = ", ".join(f"{reason} {count}" for reason, count in dropped.most_common())
    counts = f"{len(rows)} requested, {pairs.num_rows} kept, {sum(dropped.values())} dropped"
    log.info("%s: %s%s", work.node, counts, f": {why}" if why else "")
    return WrittenFacts(
        engine=engine,
        requested=len(rows),
        written=sum(bool(row["output"]) for row in rows),
        kept=pairs.num_rows,
        dropped=dict(sorted(dropped.items())),
        kinds={kind: dict(sorted(counts.items())) for kind, counts in sorted(by_kind.items())},
    )


def _requests(work: Work[WrittenPairs], engine: str, kinds: list[str]) -> pa.Table:
    how = work.settings.how
    documents = work.inputs[work.settings.documents].dataset("documents")
    found = candidates(documents, how.language, how.about, SPARE * how.passages, work.seed)
    chosen = choose(found, how.passages, how.max_passage_characters, work.seed)
    if not chosen.num_rows:
        where = ", ".join(how.about) or "any source"
        raise InputError(f"written.{work.node}: no training passage in {how.language!r} of {where} is long enough to write for")
    return requests(chosen, engine, kinds)


def _llm(work: Work[WrittenPairs], how: LlmPairs) -> tuple[str, pa.Table]:
    """Which engine answered, and a decoder's answers."""
    table = _requests(work, "llm", [f"llm_{task}" for task in how.tasks])
    there, problem = ray.get(_probe.remote())
    engine = f"transformers {version('transformers')}" if problem else f"vllm {there}"
    if problem:
        log.info("%s: vllm cannot be imported (%s): the same prompts run through transformers", work.node, problem)
    passages = len(set(table["doc_id"].to_pylist()))
    log.info("%s: engine %s, %d requests for %d passages", work.node, engine, table.num_rows, passages)
    prompts = prompted(work.inputs[how.by].folder("model"), how, table, work.node)
    answers = (_answer_transformers if problem else _answer_vllm)(work, how, prompts, Kept.of(work.draft, engine))
    return engine, with_answers(table, answers, how.failure_budget)


def _seq2seq(work: Work[WrittenPairs], how: Seq2SeqPairs) -> tuple[str, pa.Table]:
    """Which engine answered, and an encoder-decoder's answers."""
    table = _requests(work, "seq2seq", ["seq2seq_question"])
    engine = f"transformers {version('transformers')}"
    log.info("%s: engine seq2seq %s, %d requests", work.node, engine, table.num_rows)
    passages = table.select(["request_id", "passage"])
    order = pc.sort_indices(
        pa.table({"length": pc.utf8_length(passages["passage"]), "id": passages["request_id"]}),
        [("length", "descending"), ("id", "ascending")],
    )
    constructor = (work.inputs[how.by], how, work.workers.cpus)
    answers = _in_actors(work, _Seq2Seq, constructor, passages.take(order), Kept.of(work.draft, engine))
    return engine, with_answers(table, answers, how.failure_budget)


@ray.remote(num_cpus=0, max_retries=0)
def _probe() -> tuple[str, str]:
    """vLLM's version where it and Ray's binding to it can be imported, and otherwise the reason in one line; in a process of its own."""
    try:
        import vllm
        from ray.data.llm import build_processor, vLLMEngineProcessorConfig  # noqa: F401
    except Exception as error:  # an import of compiled code fails in many ways
        return "", f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return vllm.__version__.partition("+")[0], ""


def _answer_vllm(work: Work[WrittenPairs], how: LlmPairs, prompts: pa.Table, kept: Kept) -> Answers:
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    seed = work.seed
    answers, todo = _open(work, prompts, kept)  # a block is the least that a replica takes
    if not todo:
        return answers
    config = vLLMEngineProcessorConfig(
        model_source=_path_on_every_node(work.inputs[how.by], work.workers),
        engine_kwargs=engine_settings(how, work.workers),
        concurrency=work.workers.workers,
        batch_size=how.batch_size,
        placement_group_config={"bundles": [bundle(work.workers)]},
        runtime_env={"env_vars": engine_environment(work.workers)},
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
        should_continue_on_error=True,
        log_engine_metrics=False,
    )

    def ask(row: dict[str, Any]) -> dict[str, Any]:
        return {
            "key": row["request_id"],
            "tokenized_prompt": list(row["tokenized_prompt"]),
            "sampling_params": sampling(how, row["kind"], row["request_id"], seed),
        }

    def tell(row: dict[str, Any]) -> dict[str, Any]:
        return {"key": row["key"], "generated_text": row["generated_text"]}

    light = {"num_cpus": LIGHT}
    processor = build_processor(config, preprocess=ask, postprocess=tell, preprocess_map_kwargs=light, postprocess_map_kwargs=light)
    written = processor(ray.data.from_arrow(todo)).iter_batches(batch_format="pyarrow", batch_size=None)
    return _collect(work, written, ("generated_text", "__inference_error__"), answers, kept, prompts.num_rows)


def _path_on_every_node(model: Artifact, workers: Workers) -> str:
    """The model's folder as a path that holds wherever an engine starts.

    vLLM opens a path in the engine's own process, and Ray's processor calls nothing of ours there. So where storage is remote, every node
    that has room for an engine fetches the model first, each to the same path below its temporary directory; a node that joins later lacks
    it, and an engine that is placed there fails.
    """
    room = bundle(workers)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and all(node["Resources"].get(kind, 0) >= room[kind] for kind in room)]
    if isinstance(filesystem(model.uri)[0], pafs.LocalFileSystem) or not nodes:
        return str(model.folder("model"))
    fetched = [_fetch.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(model) for node in nodes]
    return ray.get(fetched)[0]


@ray.remote(num_cpus=0)
def _fetch(model: Artifact) -> str:
    return str(model.folder("model"))


class _Decode:
    """One actor with a decoder in transformers, which it fetches to its own node where storage is remote."""

    def __init__(self, model: Artifact, settings: LlmPairs, seed: int, cpus: float) -> None:
        torch.set_num_threads(max(1, int(cpus)))
        self.decoder = Decoder(model.folder("model"), settings, seed)

    def __call__(self, batch: pa.Table) -> pa.Table:
        ids = batch["request_id"].to_pylist()
        outputs, errors = self.decoder.answer(batch["prompt"].to_pylist(), batch["kind"].to_pylist(), ids)
        return _answer_table(ids, outputs, errors)


class _Seq2Seq:
    """One actor with an encoder-decoder model, which it fetches to its own node where storage is remote."""

    def __init__(self, model: Artifact, settings: Seq2SeqPairs, cpus: float) -> None:
        torch.set_num_threads(max(1, int(cpus)))
        self.writer = Seq2SeqWriter(model.folder("model"), settings)

    def __call__(self, batch: pa.Table) -> pa.Table:
        outputs, errors = self.writer.write(batch["passage"].to_pylist())
        return _answer_table(batch["request_id"].to_pylist(), outputs, errors)


def _answer_table(ids: list[str], outputs: list[str], errors: list[str]) -> pa.Table:
    return pa.table({name: pa.array(values, pa.string()) for name, values in (("key", ids), ("output", outputs), ("error", errors))})


def _answer_transformers(work: Work[WrittenPairs], how: LlmPairs, prompts: pa.Table, kept: Kept) -> Answers:
    ordered = prompts.sort_by([("kind", "ascending"), ("request_id", "ascending")])
    return _in_actors(work, _Decode, (work.inputs[how.by], how, work.seed, work.workers.cpus), ordered, kept)


def _in_actors(work: Work[WrittenPairs], actor: type, constructor: tuple[Any, ...], table: pa.Table, kept: Kept) -> Answers:
    """Fixed batches in the order of the table, so that no answer depends on the number of workers."""
    workers = work.workers
    answers, todo = _open(work, table, kept)
    if not todo:
        return answers
    written = ray.data.from_arrow(todo).map_batches(
        actor,
        fn_constructor_args=constructor,
        batch_format="pyarrow",
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=min(workers.workers, len(todo))),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus,
    )
    found = written.iter_batches(batch_format="pyarrow", batch_size=None)
    return _collect(work, found, ("output", "error"), answers, kept, table.num_rows)


def _open(work: Work[WrittenPairs], table: pa.Table, kept: Kept) -> tuple[Answers, list[pa.Table]]:
    """What an earlier attempt was answered, and the batches that are left to ask."""
    answers = kept.read()
    if answers:
        log.info("%s: %d of %d requests were answered before this attempt", work.node, len(answers), table.num_rows)
    return answers, batches(table, work.settings.how.batch_size, answers)


def _collect(
    work: Work[WrittenPairs], written: Iterable[Any], columns: tuple[str, str], answers: Answers, kept: Kept, expected: int
) -> Answers:
    """Add what is written to the answers of an earlier attempt, and keep it for a later one as it comes.

    Args:
        work: The node.
        written: Tables with the column `key`.
        columns: The names of the text and of the error; either may be missing in a table.
        answers: Of an earlier attempt.
        kept: Where answers outlive this one.
        expected: How many requests there are.
    """
    begun, first = time.monotonic(), 0.0
    for batch in written:
        first = first or time.monotonic() - begun
        outputs, errors = (batch[name].to_pylist() if name in batch.schema.names else [""] * batch.num_rows for name in columns)
        keys = batch["key"].to_pylist()
        fresh = {key: (text or "", problem or "") for key, text, problem in zip(keys, outputs, errors, strict=True)}
        kept.add(fresh)
        answers.update(fresh)
        progress(work.node, "answers written", len(answers), expected)
    seconds = time.monotonic() - begun
    log.info("%s: %d of %d answered after %.0f s, the first after %.0f s", work.node, len(answers), expected, seconds, first)
    return answers


def _keep(work: Work[WrittenPairs], rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], pa.Table]:
    """Reasons and ranks filled in, and the pairs of what stays."""
    for row in rows:
        asked: Literal["query", "paraphrase"] = "paraphrase" if row["kind"] == "llm_paraphrase" else "query"
        text = clean(asked, row["output"])
        row["reason"], row["query"] = ("failed", "") if row["error"] else judge(asked, text, row["title"], row["passage"])
    good = [row for row in rows if not row["reason"]]
    finder = work.settings.how.kept_if_found_by
    if good and finder is not None:
        _mark_ranks(work, work.inputs[finder], good)
    return rows, pairs_table([pair_of(row, row["query"]) for row in rows if not row["reason"]]) if rows else PAIR.empty_table()


def _mark_ranks(work: Work[WrittenPairs], finder: Artifact, good: list[dict[str, Any]]) -> None:
    """Whether each passage comes back for its query, with the encoder's retrieval prefixes for every kind: it is a search."""
    how, prefixes = work.settings.how, describe(finder.folder("model", weights=False)).prefixes
    documents = work.inputs[work.settings.documents].dataset("documents")
    found = candidates(documents, how.language, (), how.pool, work.seed)
    others = choose(found, found.num_rows, how.max_passage_characters, work.seed)["text"].to_pylist()
    own = list(dict.fromkeys(row["passage"] for row in good))
    keys = {normalise(text) for text in own}
    pool = own + [text for text in others if normalise(text) not in keys]
    queries = list(dict.fromkeys(row["query"] for row in good))
    texts = [prefixes.retrieval_document + text for text in pool] + [prefixes.retrieval_query + text for text in queries]
    log.info("%s: looking %d passages up among %d", work.node, len(good), len(pool))
    vectors = embed_texts(texts, finder, how.find_tokens, work.workers, work.node)
    row_of_query = {text: row for row, text in enumerate(queries)}
    row_of_passage = {text: row for row, text in enumerate(own)}
    found_ranks = ranks(
        vectors[len(pool) :][[row_of_query[row["query"]] for row in good]],
        vectors[: len(pool)],
        np.array([row_of_passage[row["passage"]] for row in good]),
    )
    for row, rank in zip(good, found_ranks.tolist(), strict=True):
        row["rank"] = rank
        if rank >= how.found_within:
            row["reason"] = "not_found_again"
