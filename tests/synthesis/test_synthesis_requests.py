import pyarrow as pa

from raysberta.schema import DOCUMENT
from raysberta.synthesis.requests import GENERATION, MIN_PASSAGE_CHARACTERS, choose, requests


def test_passages_are_chosen_by_hash_cut_and_distinct(passages: list[dict]):
    table = pa.Table.from_pylist([*passages, *({**row, "doc_id": f"{row['doc_id']}x"} for row in passages[:50])], DOCUMENT)
    chosen = choose(table, 40, 150, 1)
    texts = chosen["text"].to_pylist()
    assert len(set(texts)) == chosen.num_rows == 40
    assert all(MIN_PASSAGE_CHARACTERS <= len(text) <= 150 for text in texts)
    reversed_table = table.take(list(range(table.num_rows - 1, -1, -1)))
    assert choose(reversed_table, 40, 150, 1).equals(chosen)
    assert choose(table, 60, 150, 1)["doc_id"].to_pylist()[:40] == chosen["doc_id"].to_pylist()
    assert choose(table, 40, 150, 2)["doc_id"].to_pylist() != chosen["doc_id"].to_pylist()


def test_a_request_a_passage_and_kind(passages: list[dict]):
    chosen = choose(pa.Table.from_pylist(passages[:20], DOCUMENT), 20, 300, 1)
    table = requests(chosen, "llm", ["llm_query", "llm_paraphrase"])
    assert table.schema.equals(GENERATION)
    ids = table["request_id"].to_pylist()
    assert ids == sorted(ids)
    assert len(set(ids)) == 2 * chosen.num_rows
