"""Which pairs are taken, and whose positives may be negatives, of planted tables."""

import pyarrow as pa
import pytest

from raysberta.errors import InputError
from raysberta.mining.select import keys, pool_of, select, sound
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
    row(4, source="nli", kind="entailment", task="paraphrase"),
    row(5, source="wiki/ru", language="ru"),
)
WRITTEN = table(
    row(11, source="synthetic", kind="llm_query"),
    row(12, source="synthetic", kind="llm_query", language="en"),
    row(13, source="synthetic", kind="llm_paraphrase", task="paraphrase"),
)


def numbers(found: pa.Table) -> list[int]:
    return [int(name, 16) for name in found["pair_id"].to_pylist()]


def test_patterns_name_sources_and_kinds() -> None:
    assert keys(NATURAL).to_pylist()[4] == "wiki/ru/qa"
    assert numbers(select(NATURAL, (), (), "n")) == [1, 2, 3, 4, 5]
    assert numbers(select(NATURAL, ("web/*",), (), "n")) == [1, 2, 3]
    assert numbers(select(NATURAL, ("*/qa", "nli/entail*"), (), "n")) == [1, 2, 4, 5]
    assert numbers(select(NATURAL, ("web/*",), ("en", "de"), "n")) == [2]
    assert numbers(select(NATURAL, (), ("de",), "n")) == []


def test_a_pattern_without_pairs_is_named_with_what_there_is() -> None:
    with pytest.raises(InputError, match=r"examples\.weak\.only: no pairs are 'wab/\*'; there are nli/entailment, web/qa, web/title, wiki"):
        select(NATURAL, ("web/qa", "wab/*"), (), "weak")
    with pytest.raises(InputError, match="there are none at all"):
        select(PAIR.empty_table(), ("web/qa",), (), "weak")


def test_empty_sides_and_repeated_ids_are_left_out_and_counted() -> None:
    rows = [row(1), row(2), row(3)]
    rows += [rows[0], {**rows[1], "pair_id": "empty", "query": "  "}, {**rows[2], "pair_id": "none", "positive": ""}]
    kept, left_out = sound(table(*rows))
    assert kept.equals(table(*rows[:3]))
    assert left_out == {"duplicate_id": 1, "empty_text": 2}


def test_a_pool_holds_the_own_source_and_kind() -> None:
    tables = {"natural": NATURAL}
    assert numbers(pool_of(NATURAL.slice(0, 1), tables, (), ())) == [1, 2]
    assert numbers(pool_of(NATURAL.slice(0, 1), tables, (), ("ru",))) == [1]
    assert numbers(pool_of(NATURAL.slice(3, 1), tables, ("natural",), ())) == [4], "paraphrases get no others"


def test_further_candidates_are_retrieval_pairs_in_the_language_each_once() -> None:
    tables = {"written": WRITTEN, "natural": NATURAL}
    both = ("natural", "written")
    assert sorted(numbers(pool_of(WRITTEN.slice(0, 2), tables, both, ()))) == [1, 2, 3, 5, 11, 12]
    assert sorted(numbers(pool_of(WRITTEN.slice(1, 1), tables, both, ()))) == [2, 11, 12]
    assert sorted(numbers(pool_of(WRITTEN.slice(1, 1), tables, both, ("en",)))) == [2, 12]
    assert sorted(numbers(pool_of(WRITTEN.slice(2, 1), tables, both, ()))) == [13]
    assert sorted(numbers(pool_of(WRITTEN.slice(0, 1), tables, (), ()))) == [11, 12]
