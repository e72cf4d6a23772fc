"""Which pairs are taken, whose passages may be negatives, and that ranges hold the same whatever files and batches the pairs come in."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pools import parts_of, passages_of

from raysberta.errors import InputError
from raysberta.mining import parts as module
from raysberta.mining.deal import batches, deal, gather_pairs
from raysberta.mining.ids import id_of, normalise
from raysberta.mining.parts import Parts
from raysberta.mining.passages import pool_numbers
from raysberta.schema import PAIR


def row(number: int, **values: object) -> dict:
    base = {"pair_id": f"{number:016x}", "doc_id": f"d{number}", "group": f"g{number}", "split": "train", "source": "web", "kind": "qa"}
    base |= {"task": "retrieval", "language": "ru", "query": f"q{number}", "positive": f"p{number}", "negatives": []}
    return {**base, **values}


def table(*rows: dict) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=PAIR)


NATURAL = table(
    row(1),
    row(2, language="en"),
    row(3, kind="title"),
    row(4, source="nli", kind="entailment", task="paraphrase", negatives=["n4", "p4"]),
    row(5, source="wiki/ru", language="ru"),
)
WRITTEN = table(
    row(11, source="synthetic", kind="llm_query"),
    row(12, source="synthetic", kind="llm_query", language="en"),
    row(13, source="synthetic", kind="llm_paraphrase", task="paraphrase"),
)
BOTH = {"written": WRITTEN, "natural": NATURAL}


def pairs_of(tables: dict[str, pa.Table], parts: Parts) -> dict[tuple[int, int], list[dict]]:
    """What each range gets."""
    dealt: dict[tuple[int, int], list[pa.RecordBatch]] = {}
    for name, rows in tables.items():
        for number, place, batch in batches(deal(rows, name, parts)[0]):
            dealt.setdefault((number, place), []).append(batch)
    return {place: gather_pairs(found)[0].to_pylist() for place, found in dealt.items()}


def chosen(tables: dict[str, pa.Table], **settings: object) -> list[int]:
    parts = parts_of(tables, **settings)
    return sorted(int(item["pair_id"], 16) for found in pairs_of(tables, parts).values() for item in found)


def pooled(part: str, tables: dict[str, pa.Table], **settings: object) -> list[str]:
    parts = parts_of(tables, **settings)
    passages = passages_of(tables, parts)
    number = [each.name for each in parts.every].index(part)
    return sorted(passages.texts(pool_numbers(passages, parts.pool(number))))


def test_patterns_name_sources_and_kinds() -> None:
    tables = {"natural": NATURAL}
    assert chosen(tables) == [1, 2, 3, 4, 5]
    assert chosen(tables, only=["web/*"]) == [1, 2, 3]
    assert chosen(tables, only=["*/qa", "nli/entail*"]) == [1, 2, 4, 5]
    assert chosen(tables, only=["web/*"], languages=["en", "de"]) == [2]
    assert chosen(tables, languages=["de"]) == []
    assert parts_of(tables, only=["web/*"]).rows == 3


def test_a_pattern_without_pairs_is_named_with_what_there_is() -> None:
    with pytest.raises(InputError, match=r"examples\.mined\.only: no pairs are 'wab/\*'; there are nli/entailment, web/qa, web/ti"):
        parts_of({"natural": NATURAL}, only=["web/qa", "wab/*"])
    with pytest.raises(InputError, match="there are none at all"):
        parts_of({"natural": PAIR.empty_table()}, only=["web/qa"])


def test_empty_sides_and_repeated_ids_are_left_out_and_counted() -> None:
    rows = [row(1), row(2), row(3)]
    rows += [rows[0], {**rows[1], "pair_id": "empty", "query": "  "}, {**rows[2], "pair_id": "none", "positive": ""}]
    parts = parts_of({"natural": table(*rows)})
    pairs, passages, empty = deal(table(*rows), "natural", parts)
    kept, again = gather_pairs([batch for _, _, batch in batches(pairs)])
    assert kept.equals(table(*rows[:3])) and (empty, again) == (2, 1)
    assert set(passages["text"].to_pylist()) == {"p1", "p2", "p3"}


def test_a_pool_holds_the_own_source_and_kind() -> None:
    tables = {"natural": NATURAL}
    assert pooled("web/qa", tables) == ["p1", "p2"]
    assert pooled("web/qa", tables, languages=["ru"]) == ["p1"]
    assert pooled("nli/entailment", tables) == ["n4", "p4"], "with what a pair brings, each text once"
    assert pooled("nli/entailment", tables, passages="positives") == ["p4"]
    assert pooled("nli/entailment", tables, candidates=["natural"]) == ["n4", "p4"], "paraphrases get no others"


def test_further_candidates_are_retrieval_pairs_in_the_language_each_once() -> None:
    both = {"pairs": ["written"], "candidates": ["natural", "written"]}
    assert pooled("synthetic/llm_query", BOTH, **both) == ["p1", "p11", "p12", "p2", "p3", "p5"]
    assert pooled("synthetic/llm_query", BOTH, **both, languages=["en"]) == ["p12", "p2"]
    assert pooled("synthetic/llm_paraphrase", BOTH, **both) == ["p13"]
    assert pooled("synthetic/llm_query", BOTH, pairs=["written"]) == ["p11", "p12"]
    same = {"written": WRITTEN, "natural": table(row(1), row(2, positive="p11"))}
    assert pooled("synthetic/llm_query", same, **both) == ["p1", "p11", "p12"]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 40))
def test_ranges_owe_nothing_to_files_batches_and_order(seed: int, size: int) -> None:
    """With small ranges: the same pairs and passages in each, in the same order, and all pairs of a query in one."""
    draw = np.random.default_rng(seed)
    rows = [
        row(n, query=f"Q{draw.integers(30)}{'!' * int(draw.integers(2))}", positive=f"p{draw.integers(60)}" * 2, negatives=[f"n{n % 7}"])
        for n in range(120)
    ]
    before, module.RANGE_ROWS = module.RANGE_ROWS, 16
    try:
        found = []
        for order in (np.arange(120), draw.permutation(120)):
            whole = table(*(rows[at] for at in order))
            parts = parts_of({"natural": whole})
            cut = [whole.slice(start, size) for start in range(0, 120, size)]
            ranges: dict[tuple[int, int], list[pa.RecordBatch]] = {}
            for each in cut:
                for number, place, batch in batches(deal(each, "natural", parts)[0]):
                    ranges.setdefault((number, place), []).append(batch)
            passages = passages_of({"natural": whole}, parts)
            numbers = pool_numbers(passages, parts.pool(0))
            pairs = {place: gather_pairs(dealt)[0].to_pylist() for place, dealt in ranges.items()}
            found.append((pairs, passages.texts(numbers), passages.column("id", numbers).tolist()))
    finally:
        module.RANGE_ROWS = before
    assert found[0] == found[1]
    pairs, texts, ids = found[0]
    assert len(pairs) > 4 and ids == [id_of(text) for text in texts] and sorted(texts) == sorted({*texts})
    homes = {normalise(item["query"]): place for place, items in pairs.items() for item in items}
    assert all(homes[normalise(item["query"])] == place for place, items in pairs.items() for item in items)
    assert sorted(item["pair_id"] for items in pairs.values() for item in items) == sorted(item["pair_id"] for item in rows)


def test_passages_are_found_by_id_and_keep_the_documents_of_all_their_pairs() -> None:
    rows = [row(n, positive=f"text {n % 50} " * (1 + n % 3), doc_id=f"d{n}", negatives=[f"other {n % 9}"]) for n in range(200)]
    tables = {"natural": table(*rows)}
    before, module.RANGE_ROWS = module.RANGE_ROWS, 32
    try:
        parts = parts_of(tables)
        passages = passages_of(tables, parts)
    finally:
        module.RANGE_ROWS = before
    texts = sorted({item["positive"] for item in rows} | {f"other {n}" for n in range(9)})
    numbers = passages.find(0, np.array([id_of(text) for text in texts], np.uint64))
    assert passages.texts(numbers) == texts and len(set(numbers.tolist())) == len(texts)
    assert passages.find(0, np.array([id_of("never seen"), 0, 2**64 - 1], np.uint64)).tolist() == [-1, -1, -1]
    keys, owners = passages.keys(numbers)
    tied = [(at, item) for at, text in enumerate(texts) for item in rows if item["positive"] == text]
    expected = {(id_of(item[name]), at) for at, item in tied for name in ("doc_id", "group")}
    assert set(zip(keys.tolist(), owners.tolist(), strict=True)) == expected and len(keys) == len(expected)
    assert passages.column("words", numbers).tolist() == [id_of(normalise(text)) for text in texts]
