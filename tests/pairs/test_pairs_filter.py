import numpy as np
import pyarrow as pa
import pytest

from raysberta.pairs.filter import HELD_OUT, KEYS, OF_TRAINING, PAIR_OF_TEXTS, judge
from raysberta.pairs.settings import Pairs
from raysberta.schema import PAIR, REJECTED_PAIR, text_id
from raysberta.storage.runs import numbers


def pair(query: str, positive: str, split: str = "train", source: str = "s", kind: str = "k") -> dict:
    return {
        "pair_id": text_id(source, kind, split, query, positive), "doc_id": "d", "group": "g", "split": split, "source": source,
        "kind": kind, "task": "retrieval", "language": "ru", "query": query, "positive": positive, "given_score": None, "negatives": [],
    }  # fmt: skip


def judged(*rows: dict, rules: Pairs | None = None, count=None) -> tuple[pa.Table, pa.Table]:
    found, keys = judge(pa.Table.from_pylist(list(rows), PAIR), rules or Pairs(), count)
    assert found.schema.equals(REJECTED_PAIR) and keys.schema.equals(KEYS)
    assert found.select(PAIR.names).to_pylist() == list(rows)
    return found, keys


def test_trivial_pairs_have_their_reasons():
    found, keys = judged(pair("да", "коротко и ясно"), pair("эхо эхо", "Эхо  эхо"), pair("пусто", ""), pair("туман", "капли воды"))
    assert found["reason"].to_pylist() == ["too_short", "query_equals_positive", "too_short", ""]
    assert set(keys["pair"].to_pylist()) == set(numbers(found["pair_id"])[3:].tolist()), "the others are compared with nothing"


def test_a_text_with_itself_stays_where_it_is_meant_so():
    found, _ = judged(pair("эхо в горах", "эхо в горах", kind="text"), pair("эхо в горах", "эхо в горах"), pair("а", "а", kind="text"))
    assert found["reason"].to_pylist() == ["", "query_equals_positive", "too_short"]


def test_long_pairs_are_measured_in_tokens():
    def count(texts: list[str]) -> np.ndarray:
        return np.array([len(text.split()) for text in texts])

    rules = Pairs(max_tokens=3, tokenizer="some")
    found, _ = judged(pair("слово", "раз два три четыре"), pair("иное", "раз два"), rules=rules, count=count)
    assert found["reason"].to_pylist() == ["too_long", ""]
    assert found["score"].to_pylist() == [4.0, None]


def test_no_pairs_have_no_keys():
    found, keys = judged()
    assert found.num_rows == keys.num_rows == 0


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (("туман", "капли воды"), ("Туман ", "капли  ВОДЫ"), True),
        (("туман", "капли воды"), ("туман к", "апли воды"), False),
        (("туман 2", "капли"), ("туман", "2капли"), False),
    ],
)
def test_keys_are_equal_where_texts_count_as_the_same(left: tuple[str, str], right: tuple[str, str], same: bool):
    _, keys = judged(pair(*left), pair(*right))
    both = [(row["high"], row["low"]) for row in keys.to_pylist() if row["role"] == PAIR_OF_TEXTS]
    assert (both[0] == both[1]) == same


def test_keys_say_what_was_hashed():
    _, keys = judged(pair("туман", "капли воды"), pair("туман", "капли воды", "test"))
    rows = keys.to_pylist()
    texts = {(row["high"], row["low"]): set() for row in rows}
    for row in rows:
        texts[row["high"], row["low"]].add(row["role"])
    assert sorted(map(sorted, texts.values())) == [[PAIR_OF_TEXTS], [PAIR_OF_TEXTS], [OF_TRAINING, HELD_OUT], [OF_TRAINING, HELD_OUT]]
