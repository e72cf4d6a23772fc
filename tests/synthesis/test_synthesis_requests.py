import pyarrow as pa
import pyarrow.dataset as pads
from chosen import chosen_of

from raysberta.schema import DOCUMENT, text_id
from raysberta.synthesis.requests import GENERATION, MIN_PASSAGE_CHARACTERS, READ, READ_SCHEMA, candidates, choose, requests


def test_passages_are_chosen_by_hash_cut_and_distinct(passages: list[dict]):
    rows = [*passages, *({**row, "doc_id": f"{row['doc_id']}x"} for row in passages[:50])]
    chosen = chosen_of(rows, 40, 150)
    texts = chosen["text"].to_pylist()
    assert len(set(texts)) == chosen.num_rows == 40
    assert all(MIN_PASSAGE_CHARACTERS <= len(text) <= 150 for text in texts)
    assert chosen_of(rows[::-1], 40, 150).equals(chosen)
    assert chosen_of(rows, 60, 150)["doc_id"].to_pylist()[:40] == chosen["doc_id"].to_pylist()
    assert chosen_of(rows, 40, 150, seed=2)["doc_id"].to_pylist() != chosen["doc_id"].to_pylist()
    order = sorted(rows, key=lambda row: text_id("synthesis", "1", row["doc_id"]))
    assert chosen["doc_id"].to_pylist()[0] in [row["doc_id"] for row in order[:2]], "by hash; a copy may stand before its like"


def test_a_request_a_passage_and_kind(passages: list[dict]):
    chosen = chosen_of(passages[:20], 20, 300)
    table = requests(chosen, "llm", ["llm_query", "llm_paraphrase"])
    assert table.schema.equals(GENERATION)
    ids = table["request_id"].to_pylist()
    assert ids == sorted(ids)
    assert len(set(ids)) == 2 * chosen.num_rows


def test_candidates_are_training_passages_of_the_language_and_sources(passages: list[dict]):
    rows = [dict(row) for row in passages[:60]]
    for number, row in enumerate(rows):
        row["split"] = "test" if number % 5 == 0 else "train"
        row["language"] = "ru" if number % 7 == 0 else "en"
        row["source"] = "other" if number % 3 == 0 else "docstrings"
    documents = pads.dataset(pa.Table.from_pylist(rows, DOCUMENT))
    wanted = {row["doc_id"] for row in rows if row["split"] == "train" and row["language"] == "en"}
    every = candidates(documents, "en", (), 1000, 600, 1)
    assert every.column_names == READ
    assert set(every["doc_id"].to_pylist()) == wanted
    some = candidates(documents, "en", ("other",), 1000, 600, 1)
    assert set(some["doc_id"].to_pylist()) == {row["doc_id"] for row in rows if row["source"] == "other"} & wanted
    few = set(candidates(documents, "en", (), 5, 600, 1)["doc_id"].to_pylist())
    assert len(few) == 5
    assert candidates(documents, "fr", (), 1000, 600, 1).equals(READ_SCHEMA.empty_table()), "between the languages that are there"
    assert few == set(choose(every, 5)["doc_id"].to_pylist()), "both go by the same hash"
