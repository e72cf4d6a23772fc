"""Texts and vectors that the mining figures are measured on."""

import os
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysberta.mining.deal import batches, deal, gather_passages
from raysberta.mining.parts import make_parts, survey
from raysberta.mining.passages import Numbers, Passages, Pool, pool_numbers
from raysberta.mining.settings import Examples
from raysberta.retrieval.search import Slices, exact, part
from raysberta.retrieval.vectors import BLOCK_TEXTS, Matrix, Vectors, steps, write_block
from raysberta.schema import PAIR, text_id

DATA = "RAYSBERTA_BENCH_DATA"
"""Environment variable: a folder with php_docs/function_pairs.parquet; the dictionary of the laptop recipe where it names none."""


def real_pairs() -> tuple[list[tuple[str, str]], dict[str, str]]:
    """Query and positive, distinct positives, in an order that ids decide; and translations of positives where the data has them."""
    folder = os.environ.get(DATA)
    found: dict[str, tuple[str, str]] = {}
    translations: dict[str, str] = {}
    if folder:
        rows = pq.read_table(Path(folder) / "php_docs" / "function_pairs.parquet").to_pylist()
        for row in rows:
            ru, en = row["desc_ru"] or "", row["desc_en"] or ""
            for query, text in ((row["purpose_ru"], ru), (row["purpose_en"], en)):
                if query and len(text) > 20:
                    found.setdefault(text, (query, text))
            if len(ru) > 20 and len(en) > 20:
                translations[ru], translations[en] = en, ru
    else:
        from raysberta.corpus.packaged import wiktionary

        for part in wiktionary.parts():
            for document in wiktionary.read(part, "bench"):
                if not document.reason and len(document.text) > 20:
                    found.setdefault(document.text, (document.title, document.text))
    return sorted(found.values(), key=lambda pair: text_id(*pair)), translations


def table(pairs: list[tuple[str, str]]) -> pa.Table:
    """Rows of PAIR, each in a document of its own."""
    rows = [
        {
            "pair_id": text_id(query, positive), "doc_id": text_id(positive), "group": text_id(positive), "split": "train",
            "source": "bench", "kind": "pair", "task": "retrieval", "language": "ru", "query": query, "positive": positive, "negatives": [],
        }
        for query, positive in pairs
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=PAIR)


def pool_of(pairs: pa.Table) -> Pool:
    """The passages of pairs of one source and kind, dealt out and gathered as a run does it, in memory and without vectors."""
    parts = make_parts([survey(pairs, "natural")], Examples(), "bench")
    dealt: dict[int, list[pa.RecordBatch]] = defaultdict(list)
    for start, stop in steps(len(pairs), 1 << 16):
        for _, place, batch in batches(deal(pairs.slice(start, stop - start), "natural", parts)[1]):
            dealt[place].append(batch)
    gathered = [gather_passages(dealt[place]) for place in range(parts.every[0].passage_ranges)]
    passages = Passages(Numbers((tuple(rows.num_rows for rows in gathered),), BLOCK_TEXTS), gathered.__getitem__)
    numbers = pool_numbers(passages, parts.pool(0))
    return Pool(passages, numbers, (0,), np.zeros((len(numbers), 0), np.float32))


def texts_of(pool: Pool) -> list[str]:
    """All passages of a pool."""
    return pool.texts(np.arange(len(pool)))


def ranked(documents: Matrix, queries: Matrix, k: int, memory_mib: int, threads: int) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """As a worker searches: first query, the one after the last, scores and rows, slice by slice."""
    slices = Slices.within(memory_mib, documents.shape[1], k)
    find = exact(documents, 0, len(documents), slices, threads)
    for start, stop in steps(len(queries), slices.queries):
        yield start, stop, *find(part(queries, start, stop), min(k, len(documents)))


def reworded(text: str) -> str:
    """The same said again by rule: sentences (or halves) in another order, a tenth of the words gone, the signs with them."""
    draw = random.Random(text_id(text))
    sentences = [part.strip() for part in text.replace("! ", ". ").replace("? ", ". ").split(". ") if part.strip()]
    if len(sentences) == 1:
        words = text.split()
        sentences = [" ".join(words[len(words) // 2 :]), " ".join(words[: len(words) // 2])]
    draw.shuffle(sentences)
    kept = [word.strip(".,;:()«»\"'") for sentence in sentences for word in sentence.split() if draw.random() > 0.1]
    return " ".join(word for word in kept if word)


def unit(rows: int, dimension: int, seed: int) -> np.ndarray:
    """Random unit vectors that float16 holds exactly, float32."""
    found = np.random.default_rng(seed).standard_normal((rows, dimension), dtype=np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found.astype(np.float16).astype(np.float32)


def clustered(rows: int, dimension: int, seed: int, centres: int = 200) -> np.ndarray:
    """Unit vectors around common centres, as texts of some topics lie."""
    draw = np.random.default_rng(seed)
    found = np.random.default_rng(1).standard_normal((centres, dimension), dtype=np.float32)[draw.integers(0, centres, rows)]
    found += 0.7 * draw.standard_normal((rows, dimension), dtype=np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found.astype(np.float16).astype(np.float32)


def write(folder: Path, rows: int, dimension: int, seed: int, plain: Path | None = None) -> Vectors:
    """Random unit vectors as float16 blocks under `folder`, and as one float32 .npy where `plain` names it; a part in memory at a time."""
    file = np.lib.format.open_memmap(plain, "w+", np.float32, (rows, dimension)) if plain else None
    paths = []
    for number, start in enumerate(range(0, rows, 64 * BLOCK_TEXTS)):
        part = unit(min(64 * BLOCK_TEXTS, rows - start), dimension, seed * 1000 + number)
        if file is not None:
            file[start : start + len(part)] = part
        for low in range(0, len(part), BLOCK_TEXTS):
            paths.append(str(folder / f"{(start + low) // BLOCK_TEXTS:06d}.f16"))
            write_block(paths[-1], part[low : low + BLOCK_TEXTS])
    return Vectors(tuple(paths), rows, dimension)
