"""Rows of pairs to rows of examples on planted vectors, without Ray."""

import math

import numpy as np

from raysberta.mining.choose import Pool
from raysberta.mining.miner import make_pool, mine, sample
from raysberta.recipe import Mining


def row(number: int, query: str, positive: str, **values: object) -> dict:
    base = {"pair_id": f"{number:016x}", "doc_id": f"d{number}", "group": f"g{number}", "split": "train", "source": "s", "kind": "k"}
    return {**base, "task": "retrieval", "language": "ru", "query": query, "positive": positive, "negatives": [], **values}


def planted(rows: list[dict]) -> tuple[Pool, np.ndarray]:
    """Every text of the pool a little further from the queries than the one before it."""
    texts, keys = make_pool(*([item[name] for item in rows] for name in ("positive", "doc_id", "group")))
    angles = np.linspace(0.0, 1.2, len(texts))
    return Pool(texts, keys, np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)), np.tile([1.0, 0.0], (len(rows), 1)).astype(
        np.float32
    )


ROWS = [
    row(0, "Отмена", "a cancel"),
    row(1, "отмена ", "b abort"),
    *(row(number, f"слово {number}", f"{chr(97 + number)} word") for number in range(2, 12)),
]


def test_another_positive_of_the_query_is_no_negative() -> None:
    pool, queries = planted(ROWS)
    settings = Mining(rank_from=0, rank_to=12, negatives=12, sampling="top")
    first, second, third = mine(settings, pool, ROWS, queries, 1)[:3]
    assert "b abort" not in first["negatives"]
    assert "a cancel" not in second["negatives"]
    assert {"a cancel", "b abort"} <= set(third["negatives"])
    assert len(first["negatives"]) == 10


def test_the_share_is_of_the_lowest_positive() -> None:
    rows = [row(0, "вопрос", "a near"), row(1, "вопрос", "l far"), *ROWS[3:11]]
    pool, queries = planted(rows)
    settings = Mining(rank_from=0, rank_to=10, negatives=10, sampling="top", max_share_of_positive=1.0)
    mined = mine(settings, pool, rows, queries, 1)
    assert mined[0]["negatives"] == []
    assert math.isclose(mined[0]["positive_score"], 1.0)
    assert mined[1]["negatives"] == []


def test_random_texts_are_distinct_drawn_by_the_pair_and_never_its_own() -> None:
    pool, _ = planted(ROWS)
    settings = Mining(negatives=5)
    found = sample(settings, pool, ROWS)
    assert all(len(set(item["negatives"])) == 5 for item in found)
    assert not {"a cancel", "b abort"} & {*found[0]["negatives"], *found[1]["negatives"]}
    assert len({tuple(item["negatives"]) for item in found}) > 6
    assert sample(settings, pool, ROWS[::-1]) == found[::-1]
    alone = sample(settings, Pool(pool.texts[:3], pool.keys[:3], pool.vectors[:3]), ROWS[:2])
    assert alone[0]["negatives"] == [pool.texts[2]]


def test_supplied_negatives_come_first_and_count() -> None:
    rows = [row(0, "вопрос", "a answer", negatives=["дано один", "дано два"]), *ROWS[2:]]
    pool, queries = planted(rows)
    mined = mine(Mining(rank_from=1, rank_to=9, negatives=4), pool, rows, queries, 1)[0]
    assert mined["negatives"][:2] == ["дано один", "дано два"]
    assert len(mined["negatives"]) == 4
    assert mined["negative_ranks"][:2] == [-1, -1]
    assert all(rank >= 1 for rank in mined["negative_ranks"][2:])
