"""The stage `synthesis`: passages to requests, requests through vLLM, transformers or a seq2seq model, answers to consistent pairs.

vLLM runs through `ray.data.llm`; where it cannot be imported, the same prompts and sampling settings run through transformers, and
the log says so. Requests are drawn by hash and carry their own seeds, so they are the same in every run; what a model writes may
still differ in a few words where an engine batches by the clock.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
import torch

from raysberta.artifacts import Artifact, Draft
from raysberta.encoder.fetch import model_folder
from raysberta.errors import InputError
from raysberta.pairs.text import normalise
from raysberta.recipe import Llm, Recipe, Seq2Seq, Workers
from raysberta.retrieval.stage import embed_texts
from raysberta.schema import PAIR, text_id
from raysberta.synthesis.decoder import Decoder, sampling
from raysberta.synthesis.prompts import Asked, clean, judge, messages
from raysberta.synthesis.requests import GENERATION, READ, choose, pair_of, pairs_table, requests
from raysberta.synthesis.round_trip import ranks
from raysberta.synthesis.seq2seq import Seq2SeqWriter

log = logging.getLogger(__name__)

VERSION: int = 1

LIGHT = 0.1
"""Cores of what only carries rows to and from the engine."""
SPARE = 4
"""Passages looked at for each one wanted: short and repeated ones are passed over."""
PROGRESS_SECONDS = 10.0

Answers = dict[str, tuple[str, str]]
"""Request id -> what was written, and an error or ""."""


def run(recipe: Recipe, inputs: Mapping[str, Artifact], draft: Draft) -> None:
    """Write the tables `pairs` (PAIR, kept ones) and `generations` (GENERATION, one row a request).

    Raises:
        InputError: no passage fits, or the model has no chat template.
        RuntimeError: more requests failed than `synthesis.failure_budget` allows.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.issue_detectors_config.detectors = []  # they count a loaded library as a row's memory
    settings = recipe.synthesis
    engines = {"llm": _off(settings.llm), "seq2seq": _off(settings.seq2seq)}
    tables = []
    generators = inputs.get("generators", inputs["models"])
    if settings.llm.enabled:
        engines["llm"], table = _llm(recipe, inputs["corpus"], generators)
        tables.append(table)
    if settings.seq2seq.enabled:
        engines["seq2seq"], table = _seq2seq(recipe, inputs["corpus"], generators)
        tables.append(table)
    for name, engine in engines.items():
        if engine.startswith("off"):
            log.info("synthesis: engine for %s %s", name, engine)
    generations = pa.concat_tables(tables) if tables else GENERATION.empty_table()
    rows, pairs = _keep(recipe, inputs, generations.sort_by("request_id").to_pylist())
    draft.write_table("generations", pa.Table.from_pylist(rows, GENERATION))
    draft.write_table("pairs", pairs)
    _count(rows, pairs, engines, draft)


def _off(settings: Llm | Seq2Seq) -> str:
    return f"off: {settings.reason_off or 'the recipe says so'}"


def _count(rows: list[dict[str, Any]], pairs: pa.Table, engines: Mapping[str, str], draft: Draft) -> None:
    dropped = Counter(row["reason"] for row in rows if row["reason"])
    draft.rows_in, draft.rows_out = len(rows), pairs.num_rows
    for reason, count in sorted(dropped.items()):
        draft.drop(reason, count)
    by_kind = {
        kind: Counter("kept" if not row["reason"] else "dropped" for row in rows if row["kind"] == kind)
        for kind in {row["kind"] for row in rows}
    }
    draft.metrics.update(
        engine=dict(engines),
        requested=len(rows),
        written=sum(bool(row["output"]) for row in rows),
        kept=pairs.num_rows,
        dropped=dict(sorted(dropped.items())),
        kinds={kind: dict(sorted(counts.items())) for kind, counts in sorted(by_kind.items())},
    )
    why = ", ".join(f"{reason} {count}" for reason, count in dropped.most_common())
    log.info("synthesis: %d requested, %d kept, %d dropped%s", len(rows), pairs.num_rows, sum(dropped.values()), f": {why}" if why else "")


def _passages(corpus: Artifact, language: str, sources: tuple[str, ...], count: int, seed: int) -> pa.Table:
    """Up to `count` training documents, columns READ, the first by hash; ids are read first, texts only of those."""
    fits = (pc.field("split") == "train") & (pc.field("language") == language)
    if sources:
        fits &= pc.field("source").isin(list(sources))
    documents = corpus.dataset("documents")
    ids = documents.to_table(columns=["doc_id"], filter=fits)["doc_id"].to_pylist()
    first = sorted(set(ids), key=lambda doc_id: text_id("synthesis", str(seed), doc_id))[:count]
    return documents.to_table(columns=READ, filter=fits & pc.field("doc_id").isin(pa.array(first, pa.string())))


def _requests(corpus: Artifact, settings: Llm | Seq2Seq, longest: int, engine: str, kinds: list[str], seed: int) -> pa.Table:
    found = _passages(corpus, settings.language, settings.sources, SPARE * settings.passages, seed)
    chosen = choose(found, settings.passages, longest, seed)
    if not chosen.num_rows:
        where = ", ".join(settings.sources) or "any source"
        raise InputError(f"synthesis: no training passage in {settings.language!r} of {where} is long enough to write for")
    return requests(chosen, engine, kinds)


def _llm(recipe: Recipe, corpus: Artifact, generators: Artifact) -> tuple[str, pa.Table]:
    """The decoder's answers, and which engine gave them."""
    settings = recipe.synthesis.llm
    table = _requests(corpus, settings, settings.max_passage_characters, "llm", [f"llm_{task}" for task in settings.tasks], recipe.seed)
    version, problem = ray.get(_probe.remote())
    if problem:
        engine = f"transformers {_version('transformers')}"
        log.info("synthesis: vllm cannot be imported (%s): the same prompts run through transformers", problem)
    else:
        engine = f"vllm {version}"
    log.info("synthesis: engine %s, %d requests for %d passages", engine, table.num_rows, len(set(table["doc_id"].to_pylist())))
    answer = _answer_transformers if problem else _answer_vllm
    prompts = _prompts(model_folder(generators, "llm"), settings, table)
    answers = answer(prompts, settings, generators, recipe.resources.generation, recipe.seed)
    return engine, _answered(table, answers, recipe.synthesis.failure_budget)


def _seq2seq(recipe: Recipe, corpus: Artifact, generators: Artifact) -> tuple[str, pa.Table]:
    """The encoder-decoder's answers."""
    settings, workers = recipe.synthesis.seq2seq, recipe.resources.generation
    table = _requests(corpus, settings, recipe.synthesis.llm.max_passage_characters, "seq2seq", ["seq2seq_question"], recipe.seed)
    engine = f"transformers {_version('transformers')}"
    log.info("synthesis: engine seq2seq %s, %d requests", engine, table.num_rows)
    passages = table.select(["request_id", "passage"])
    order = pc.sort_indices(
        pa.table({"length": pc.utf8_length(passages["passage"]), "id": passages["request_id"]}),
        [("length", "descending"), ("id", "ascending")],
    )
    constructor = (generators, settings, workers.cpus)
    return engine, _answered(
        table, _in_actors(_Seq2Seq, constructor, passages.take(order), settings.batch_size, workers), recipe.synthesis.failure_budget
    )


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


@ray.remote(num_cpus=0, max_retries=0)
def _probe() -> tuple[str, str]:
    """vLLM's version where it and Ray's binding to it can be imported, and otherwise the reason in one line; in a process of its own."""
    try:
        import vllm
        from ray.data.llm import build_processor, vLLMEngineProcessorConfig  # noqa: F401
    except Exception as error:  # an import of compiled code fails in many ways
        return "", f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return vllm.__version__.partition("+")[0], ""


def _prompts(folder: Path, settings: Llm, table: pa.Table) -> pa.Table:
    """Columns request_id, kind, prompt and tokenized_prompt, the chat template applied."""
    from raysberta.encoder.auto import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.chat_template is None:
        raise InputError("synthesis.llm.model: the model has no chat template; right would be an instruction-tuned model")
    prompts = []
    for row in table.select(["kind", "language", "title", "passage"]).to_pylist():
        asked: Asked = "query" if row["kind"] == "llm_query" else "paraphrase"
        chat = messages(asked, settings.language, row["title"], row["passage"])
        prompts.append(str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)))
    ids = tokenizer(prompts, add_special_tokens=False)["input_ids"] if prompts else []
    return pa.table(
        {
            "request_id": table["request_id"],
            "kind": table["kind"],
            "prompt": prompts,
            "tokenized_prompt": pa.array(ids, pa.list_(pa.int64())),
        }
    )


def _answer_vllm(prompts: pa.Table, settings: Llm, generators: Artifact, workers: Workers, seed: int) -> Answers:
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    config = vLLMEngineProcessorConfig(
        model_source=str(model_folder(generators, "llm")),
        engine_kwargs=_engine_settings(settings, workers),
        concurrency=workers.workers,
        batch_size=settings.batch_size,
        placement_group_config={"bundles": [{"CPU": workers.cpus, **({"GPU": workers.gpus} if workers.gpus else {})}]},
        runtime_env={"env_vars": _engine_environment(workers)},
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
            "sampling_params": sampling(settings, row["kind"], row["request_id"], seed),
        }

    def tell(row: dict[str, Any]) -> dict[str, Any]:
        return {"key": row["key"], "generated_text": row["generated_text"]}

    light = {"num_cpus": LIGHT}
    processor = build_processor(config, preprocess=ask, postprocess=tell, preprocess_map_kwargs=light, postprocess_map_kwargs=light)
    written = processor(ray.data.from_arrow(_slices(prompts, settings.batch_size)))  # a block is the least that a replica takes
    return _collect(
        written.iter_batches(batch_format="pyarrow", batch_size=None), "generated_text", "__inference_error__", prompts.num_rows
    )


def _engine_settings(settings: Llm, workers: Workers) -> dict[str, Any]:
    """vLLM's arguments. Off a GPU prompts are never split: a split one rewinds its seeded generator, which CPU generators cannot."""
    if workers.gpus:
        return {"max_model_len": settings.max_model_length, "tensor_parallel_size": max(1, int(workers.gpus))}
    return {
        "dtype": "bfloat16",
        "max_model_len": settings.max_model_length,
        "enforce_eager": True,
        "enable_prefix_caching": True,  # the examples are the same in every prompt
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(4096, settings.max_model_length),
        "max_num_seqs": 2 * settings.batch_size,
    }


def _engine_environment(workers: Workers) -> dict[str, str]:
    """Off a GPU: its cores and no more, bound to none of them, so that the system can share them with what else runs."""
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR", "TOKENIZERS_PARALLELISM": "false"}
    if workers.gpus:
        return quiet
    threads = str(max(1, int(workers.cpus)))
    one_process = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"} if threads == "1" else {}
    return {**quiet, **one_process, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": threads}


class _Decode:
    """One actor with a decoder in transformers."""

    def __init__(self, generators: Artifact, settings: Llm, seed: int, cpus: float) -> None:
        torch.set_num_threads(max(1, int(cpus)))
        self.decoder = Decoder(model_folder(generators, "llm"), settings, seed)

    def __call__(self, batch: pa.Table) -> pa.Table:
        ids = batch["request_id"].to_pylist()
        outputs, errors = self.decoder.answer(batch["prompt"].to_pylist(), batch["kind"].to_pylist(), ids)
        return _answer_table(ids, outputs, errors)


class _Seq2Seq:
    """One actor with an encoder-decoder model."""

    def __init__(self, generators: Artifact, settings: Seq2Seq, cpus: float) -> None:
        torch.set_num_threads(max(1, int(cpus)))
        self.writer = Seq2SeqWriter(model_folder(generators, "seq2seq"), settings)

    def __call__(self, batch: pa.Table) -> pa.Table:
        outputs, errors = self.writer.write(batch["passage"].to_pylist())
        return _answer_table(batch["request_id"].to_pylist(), outputs, errors)


def _answer_table(ids: list[str], outputs: list[str], errors: list[str]) -> pa.Table:
    return pa.table({name: pa.array(values, pa.string()) for name, values in (("key", ids), ("output", outputs), ("error", errors))})


def _answer_transformers(prompts: pa.Table, settings: Llm, generators: Artifact, workers: Workers, seed: int) -> Answers:
    ordered = prompts.sort_by([("kind", "ascending"), ("request_id", "ascending")])
    return _in_actors(_Decode, (generators, settings, seed, workers.cpus), ordered, settings.batch_size, workers)


def _in_actors(actor: type, constructor: tuple[Any, ...], table: pa.Table, batch_size: int, workers: Workers) -> Answers:
    """Fixed batches in the order of the table, so that no answer depends on the number of workers."""
    batches = _slices(table, batch_size)
    written = ray.data.from_arrow(batches).map_batches(
        actor,
        fn_constructor_args=constructor,
        batch_format="pyarrow",
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=min(workers.workers, len(batches))),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus,
    )
    return _collect(written.iter_batches(batch_format="pyarrow", batch_size=None), "output", "error", table.num_rows)


def _slices(table: pa.Table, rows: int) -> list[pa.Table]:
    return [table.slice(start, rows).combine_chunks() for start in range(0, table.num_rows, rows)]


def _collect(batches: Iterable[Any], output: str, error: str, expected: int) -> Answers:
    answers: Answers = {}
    begun = shown = time.monotonic()
    first = 0.0
    for batch in batches:
        first = first or time.monotonic() - begun
        names = batch.schema.names
        outputs = batch[output].to_pylist() if output in names else [""] * batch.num_rows
        errors = batch[error].to_pylist() if error in names else [""] * batch.num_rows
        for key, text, problem in zip(batch["key"].to_pylist(), outputs, errors, strict=True):
            answers[key] = (text or "", problem or "")
        if time.monotonic() - shown > PROGRESS_SECONDS:
            shown = time.monotonic()
            log.info("synthesis: %d of %d written", len(answers), expected)
    seconds = time.monotonic() - begun
    log.info("synthesis: %d of %d written in %.0f s, the first after %.0f s", len(answers), expected, seconds, first)
    return answers


def _answered(table: pa.Table, answers: Answers, budget: float) -> pa.Table:
    """The requests with their answers; one that never came back is a failure like any other.

    Raises:
        RuntimeError: more failed than the budget allows.
    """
    rows = table.to_pylist()
    for row in rows:
        row["output"], row["error"] = answers.get(row["request_id"], ("", "no answer came back"))
    failed = [row["error"] for row in rows if row["error"]]
    if len(failed) > budget * len(rows):
        raise RuntimeError(
            f"synthesis: {len(failed)} of {len(rows)} generations failed, failure_budget is {budget:g}; the first: {failed[0]}"
        )
    return pa.Table.from_pylist(rows, GENERATION)


def _keep(recipe: Recipe, inputs: Mapping[str, Artifact], rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], pa.Table]:
    """Reasons and ranks filled in, and the pairs of what stays."""
    for row in rows:
        asked: Literal["query", "paraphrase"] = "paraphrase" if row["kind"] == "llm_paraphrase" else "query"
        text = clean(asked, row["output"])
        row["reason"], row["query"] = ("failed", "") if row["error"] else judge(asked, text, row["title"], row["passage"])
    for language in sorted({row["language"] for row in rows}):
        good = [row for row in rows if not row["reason"] and row["language"] == language]
        if good:
            _mark_ranks(recipe, inputs, language, good)
    return rows, pairs_table([pair_of(row, row["query"]) for row in rows if not row["reason"]]) if rows else PAIR.empty_table()


def _mark_ranks(recipe: Recipe, inputs: Mapping[str, Artifact], language: str, good: list[dict[str, Any]]) -> None:
    """Whether each passage comes back for its query, with the miner's retrieval prefixes for every kind: it is a search."""
    longest = recipe.synthesis.llm.max_passage_characters
    found = _passages(inputs["corpus"], language, (), recipe.synthesis.round_trip_pool, recipe.seed)
    others = choose(found, found.num_rows, longest, recipe.seed)["text"].to_pylist()
    own = list(dict.fromkeys(row["passage"] for row in good))
    keys = {normalise(text) for text in own}
    pool = own + [text for text in others if normalise(text) not in keys]
    prefixes, mining = recipe.mining.prefixes, recipe.mining
    queries = list(dict.fromkeys(row["query"] for row in good))
    texts = [prefixes.retrieval_document + text for text in pool] + [prefixes.retrieval_query + text for text in queries]
    log.info("synthesis: looking %d passages up among %d in %s", len(good), len(pool), language)
    vectors = embed_texts(texts, inputs["models"], "miner", mining.pooling, mining.max_tokens, recipe.resources.generation)
    row_of_query = {text: row for row, text in enumerate(queries)}
    row_of_passage = {text: row for row, text in enumerate(own)}
    found_ranks = ranks(
        vectors[len(pool) :][[row_of_query[row["query"]] for row in good]],
        vectors[: len(pool)],
        np.array([row_of_passage[row["passage"]] for row in good]),
    )
    for row, rank in zip(good, found_ranks.tolist(), strict=True):
        row["rank"] = rank
        if rank >= recipe.synthesis.round_trip_top_k:
            row["reason"] = "not_found_again"
