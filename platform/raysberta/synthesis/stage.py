"""Pairs that models write, on Ray: passages to requests, requests through an engine, answers to consistent pairs.

vLLM runs through `ray.data.llm`; where it cannot run, the same prompts and sampling settings go through transformers, and the log
says so. Requests are drawn by hash and carry their own seeds, so they are the same in every run; what a model writes may
still differ in a few words where an engine batches by the clock.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
import torch

from raysberta.errors import InputError
from raysberta.models.arithmetic import has_bf16
from raysberta.models.describe import describe
from raysberta.pairs.text import normalise
from raysberta.progress import progress
from raysberta.retrieval.workers import embed_texts, pooled
from raysberta.schema import PAIR
from raysberta.spread import alone
from raysberta.storage.artifacts import Artifact
from raysberta.storage.location import join
from raysberta.synthesis.answers import FOLDER, Answers, Kept, batches, with_answers
from raysberta.synthesis.decoder import Decoder, prompted, sampling
from raysberta.synthesis.facts import WrittenFacts
from raysberta.synthesis.prompts import clean, judge
from raysberta.synthesis.requests import GENERATION, candidates, choose, digest, keys, pair_of, pairs_table, requests
from raysberta.synthesis.round_trip import ranks
from raysberta.synthesis.seq2seq import Seq2SeqWriter
from raysberta.synthesis.settings import LlmPairs, Seq2SeqPairs, WrittenPairs
from raysberta.synthesis.vllm import Found, engine_environment, engine_settings, place, with_own_model
from raysberta.work import Work

log = logging.getLogger(__name__)

ANSWERED = pa.schema([("key", pa.string()), ("output", pa.string()), ("error", pa.string())])
"""What engines give: an answer, or an error."""
LIGHT = 0.1
"""Cores of what only carries rows to and from the engine."""
LARGE = pa.large_string()
"""A pool's texts may be more than a column of strings holds."""
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
    work.draft.spent.append(join(work.draft.checkpoints, FOLDER))
    return _facts(work, rows, pairs, engine)


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
    found = candidates(documents, how.language, how.about, SPARE * how.passages, how.max_passage_characters, work.seed)
    chosen = choose(found, how.passages)
    if not chosen.num_rows:
        where = ", ".join(how.about) or "any source"
        raise InputError(f"written.{work.node}: no training passage in {how.language!r} of {where} is long enough to write for")
    return requests(chosen, engine, kinds)


def _llm(work: Work[WrittenPairs], how: LlmPairs) -> tuple[str, pa.Table]:
    """Which engine answered, and a decoder's answers."""
    table = _requests(work, "llm", [f"llm_{task}" for task in how.tasks])
    found = alone(_look, work.workers, work.node)  # as an engine would see it, in a process of its own
    engine = f"transformers {version('transformers')}" if found.problem else f"vllm {found.version}"
    if found.problem:
        log.info("%s: vllm cannot run (%s): the same prompts go through transformers", work.node, found.problem)
    passages = len(set(table["doc_id"].to_pylist()))
    log.info("%s: engine %s, %d requests for %d passages", work.node, engine, table.num_rows, passages)
    prompts = prompted(work.inputs[how.by].folder("model", weights=False), how, table, work.node)
    kept = Kept.of(work.draft, engine)
    answers = _answer_transformers(work, how, prompts, kept) if found.problem else _answer_vllm(work, how, prompts, kept, found)
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
    kept = Kept.of(work.draft, engine)
    answers = _in_actors(work, _Seq2Seq, (kept, work.inputs[how.by], how, work.workers.cpus), passages.take(order), kept)
    return engine, with_answers(table, answers, how.failure_budget)


def _look() -> Found:
    """What this process has for an engine."""
    try:
        import vllm
        from ray.data.llm import build_processor, vLLMEngineProcessorConfig  # noqa: F401
        from vllm.platforms import current_platform
    except Exception as error:  # an import of compiled code fails in many ways
        return Found("", "cpu", problem=f"{type(error).__name__}: {' '.join(str(error).split())[:160]}")
    version = vllm.__version__.partition("+")[0]
    if current_platform.is_cpu():
        return Found(version, "cpu", has_bf16(torch.device("cpu")))
    return Found(version, "gpu", problem="" if torch.cuda.is_available() else "it computes on GPUs, and the stage has none")


def _answer_vllm(work: Work[WrittenPairs], how: LlmPairs, prompts: pa.Table, kept: Kept, found: Found) -> Answers:
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    seed, model = work.seed, work.inputs[how.by]
    answers, todo = _open(work, prompts, kept)  # a block is the least that a replica takes
    if not todo:
        return answers
    config = vLLMEngineProcessorConfig(
        model_source=str(model.folder("model", weights=False)),  # what Ray looks at here; engines open their own
        engine_kwargs=engine_settings(how, found, work.workers),
        concurrency=(work.workers.workers, work.workers.workers),
        batch_size=how.batch_size,
        placement_group_config=place(work.workers),
        runtime_env={"env_vars": engine_environment(found, work.workers)},
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
    engine = processor.get_stage_by_name("vLLMEngineStage")
    vars(engine)["fn"] = with_own_model(engine.fn)  # an assignment would be validated, and that takes its resources anew
    engine.fn_constructor_kwargs["model"] = model
    columns = {"text": "generated_text", "problem": "__inference_error__"}
    written = processor(ray.data.from_arrow(todo)).map_batches(
        partial(_keep_batch, kept=kept, columns=columns), batch_format="pyarrow", batch_size=None, num_cpus=LIGHT
    )
    return _collect(work, written.iter_batches(batch_format="pyarrow", batch_size=None), answers, prompts.num_rows)


def _keep_batch(batch: pa.Table, kept: Kept, columns: Mapping[str, str]) -> pa.Table:
    """Answers as they come from an engine, kept, and as a table of ANSWERED; a column may be missing where no row has it."""
    texts, problems = (
        [value or "" for value in batch[name].to_pylist()] if name in batch.schema.names else [""] * batch.num_rows
        for name in (columns["text"], columns["problem"])
    )
    return _answered(kept, batch["key"].to_pylist(), texts, problems)


def _answered(kept: Kept, ids: list[str], texts: list[str], problems: list[str]) -> pa.Table:
    """Answers, kept, as a table of ANSWERED."""
    kept.add({key: (text, problem) for key, text, problem in zip(ids, texts, problems, strict=True)})
    return pa.table({"key": ids, "output": texts, "error": problems}, ANSWERED)


class _Decode:
    """One actor with a decoder in transformers, which it fetches to its own node where storage is remote."""

    def __init__(self, kept: Kept, model: Artifact, settings: LlmPairs, seed: int, cpus: float) -> None:
        torch.set_num_threads(max(1, int(cpus)))
        self.kept = kept
        self.decoder = Decoder(model.folder("model"), settings, seed)

    def __call__(self, batch: pa.Table) -> pa.Table:
        ids = batch["request_id"].to_pylist()
        outputs, errors = self.decoder.answer(batch["prompt"].to_pylist(), batch["kind"].to_pylist(), ids)
        return _answered(self.kept, ids, outputs, errors)


class _Seq2Seq:
    """One actor with an encoder-decoder model, which it fetches to its own node where storage is remote."""

    def __init__(self, kept: Kept, model: Artifact, settings: Seq2SeqPairs, cpus: float) -> None:
        torch.set_num_threads(max(1, int(cpus)))
        self.kept = kept
        self.writer = Seq2SeqWriter(model.folder("model"), settings)

    def __call__(self, batch: pa.Table) -> pa.Table:
        outputs, errors = self.writer.write(batch["passage"].to_pylist())
        return _answered(self.kept, batch["request_id"].to_pylist(), outputs, errors)


def _answer_transformers(work: Work[WrittenPairs], how: LlmPairs, prompts: pa.Table, kept: Kept) -> Answers:
    ordered = prompts.sort_by([("kind", "ascending"), ("request_id", "ascending")])
    return _in_actors(work, _Decode, (kept, work.inputs[how.by], how, work.seed, work.workers.cpus), ordered, kept)


def _in_actors(work: Work[WrittenPairs], actor: type, constructor: tuple[Any, ...], table: pa.Table, kept: Kept) -> Answers:
    """Fixed batches in the order of the table, so that no answer depends on the number of workers."""
    answers, todo = _open(work, table, kept)
    return _collect(work, pooled(todo, actor, constructor, work.workers), answers, table.num_rows) if todo else answers


def _open(work: Work[WrittenPairs], table: pa.Table, kept: Kept) -> tuple[Answers, list[pa.Table]]:
    """What an earlier attempt was answered, and the batches that are left to ask."""
    answers = kept.read()
    if answers:
        log.info("%s: %d of %d requests were answered before this attempt", work.node, len(answers), table.num_rows)
    return answers, batches(table, work.settings.how.batch_size, answers)


def _collect(work: Work[WrittenPairs], written: Iterable[pa.Table], answers: Answers, expected: int) -> Answers:
    """Add what is written (ANSWERED) to the answers of an earlier attempt; `expected` is how many requests there are."""
    begun, first = time.monotonic(), 0.0
    for batch in written:
        first = first or time.monotonic() - begun
        answers.update({row["key"]: (row["output"], row["error"]) for row in batch.to_pylist()})
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


def _after(prefix: str, texts: pa.LargeStringArray) -> pa.LargeStringArray:
    return pc.binary_join_element_wise(pa.scalar(prefix, LARGE), texts, pa.scalar("", LARGE))


def _mark_ranks(work: Work[WrittenPairs], finder: Artifact, good: list[dict[str, Any]]) -> None:
    """Whether each passage comes back for its query, with the encoder's retrieval prefixes for every kind: it is a search."""
    how, prefixes = work.settings.how, describe(finder.folder("model", weights=False)).prefixes
    corpus = work.inputs[work.settings.documents].dataset("documents")
    found = candidates(corpus, how.language, (), how.pool, how.max_passage_characters, work.seed)
    others = choose(found, found.num_rows)["text"]
    del found
    own = list(dict.fromkeys(row["passage"] for row in good))
    said = {digest(normalise(text)) for text in own}
    others = others.filter(pa.array([digest(key) not in said for key in keys(others)], pa.bool_()))
    queries = list(dict.fromkeys(row["query"] for row in good))
    pool = pa.concat_arrays([pa.array(own, LARGE), *others.chunks])
    log.info("%s: looking %d passages up among %d", work.node, len(good), len(pool))
    del others
    count = len(pool)
    texts = pa.concat_arrays([_after(prefixes.retrieval_document, pool), _after(prefixes.retrieval_query, pa.array(queries, LARGE))])
    del pool
    vectors = embed_texts(texts, finder, how.find_tokens, work.workers, work.node)
    row_of_query = {text: row for row, text in enumerate(queries)}
    row_of_passage = {text: row for row, text in enumerate(own)}
    found_ranks = ranks(
        vectors[count:][[row_of_query[row["query"]] for row in good]],
        vectors[:count],
        np.array([row_of_passage[row["passage"]] for row in good]),
    )
    for row, rank in zip(good, found_ranks.tolist(), strict=True):
        row["rank"] = rank
        if rank >= how.found_within:
            row["reason"] = "not_found_again"
