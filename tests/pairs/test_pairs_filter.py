import numpy as np
import pyarrow as pa
import pytest

from raysberta.pairs.filter import Filtered, filter_pairs
from raysberta.pairs.settings import Pairs
from raysberta.schema import PAIR, REJECTED_PAIR, text_id


def pair(query: str, positive: str, split: str = "train", source: str = "s", kind: str = "k") -> dict:
    return {
        "pair_id": text_id(source, kind, split, query, positive), "doc_id": "d", "group": "g", "split": split, "source": source,
        "kind": kind, "task": "retrieval", "language": "ru", "query": query, "positive": positive, "negatives": [],
    }  # fmt: skip


def filtered(*rows: dict, **settings: object) -> Filtered:
    count, own = settings.pop("count", None), settings.pop("own", {})
    if count is not None:
        settings["tokenizer"] = "some"
    return filter_pairs(pa.Table.from_pylist(list(rows), PAIR), Pairs(**settings), count, limits=own)


def reasons(result: Filtered) -> dict[str, str]:
    assert result.rejected.schema.equals(REJECTED_PAIR)
    return dict(zip(result.rejected["query"].to_pylist(), result.rejected["reason"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    "leak", [("Туман ", "другое определение"), ("мгла", "Капли  ВОДЫ в воздухе"), ("капли воды в воздухе", "определение")]
)
def test_a_training_pair_that_shares_a_text_with_held_out_data_is_rejected(leak: tuple[str, str]):
    held_out = pair("туман", "капли воды в воздухе", "test")
    result = filtered(held_out, pair(*leak), pair("снег", "ледяные кристаллы"))
    assert reasons(result) == {leak[0]: "in_evaluation"}
    assert sorted(result.kept["query"].to_pylist()) == ["снег", "туман"]


def test_held_out_pairs_do_not_leak_into_one_another_by_this_rule():
    assert filtered(pair("туман", "капли", "dev"), pair("туман", "пар", "test")).kept.num_rows == 2


def test_trivial_pairs_have_their_reasons():
    result = filtered(pair("да", "коротко и ясно"), pair("эхо эхо", "Эхо  эхо"), pair("пусто", ""))
    assert reasons(result) == {"да": "too_short", "эхо эхо": "query_equals_positive", "пусто": "too_short"}


def test_of_copies_one_stays_whatever_the_order():
    copies = [pair("гроза", "гром и молния", source=source) for source in ("a", "b", "c")]
    first, second = filtered(*copies), filtered(*reversed(copies))
    assert first.kept.num_rows == 1
    assert first.kept.equals(second.kept)
    assert first.dropped == {"duplicate": 2}


def test_limits_keep_a_random_part_of_the_training_pairs_only():
    rows = [pair(f"вопрос {number}", f"ответ {number}") for number in range(200)]
    held_out = [pair(f"проверка {number}", f"истина {number}", "test") for number in range(30)]
    other = [pair(f"иное {number}", f"дело {number}", kind="other") for number in range(20)]
    result = filtered(*rows, *held_out, *other, per_source=50, limits={"s/other": 5})
    kept = result.kept.to_pylist()
    assert sum(row["kind"] == "k" and row["split"] == "train" for row in kept) == 50
    assert sum(row["kind"] == "other" for row in kept) == 5
    assert sum(row["split"] == "test" for row in kept) == 30
    assert result.dropped == {"over_limit": 165}
    numbers = [int(row["query"].split()[1]) for row in kept if row["kind"] == "k" and row["split"] == "train"]
    assert 60 < np.mean(numbers) < 140


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, 30),
        ({"per_source": 20}, 20),
        ({"per_source": 50}, 30),
        ({"limits": {"s/k": 10}}, 10),
        ({"per_source": 5, "limits": {"s/k": 40}}, 30),
    ],
)
def test_the_smaller_of_a_data_sets_own_limit_and_that_of_its_kind_holds(settings: dict, kept: int):
    rows = [pair(f"вопрос {number}", f"ответ {number}") for number in range(100)]
    other = [pair(f"иное {number}", f"дело {number}", kind="other") for number in range(3)]
    result = filtered(*rows, *other, own={"s/k": 30}, **settings)
    ids = [row["pair_id"] for row in result.kept.to_pylist() if row["kind"] == "k"]
    assert ids == sorted(row["pair_id"] for row in rows)[:kept]
    assert result.dropped["over_limit"] == 100 - kept
    assert sum(row["kind"] == "other" for row in result.kept.to_pylist()) == 3
    assert result.rejected.num_rows == 0


def test_long_pairs_are_measured_in_tokens():
    def count(texts: list[str]) -> np.ndarray:
        return np.array([len(text.split()) for text in texts])

    result = filtered(pair("слово", "раз два три четыре"), pair("иное", "раз два"), max_tokens=3, count=count)
    assert reasons(result) == {"слово": "too_long"}
    assert result.rejected["score"].to_pylist() == [4.0]


def test_the_kept_pairs_are_sorted():
    kept = filtered(*(pair(f"слово {number}", f"текст {number}") for number in range(50))).kept["pair_id"].to_pylist()
    assert kept == sorted(kept)
