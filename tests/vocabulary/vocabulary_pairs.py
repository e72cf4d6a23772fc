"""Pairs that the tests of vocabularies read."""

from raysberta.schema import PAIR


def a_pair(number: int, split: str, language: str, query: str, positive: str) -> dict[str, object]:
    kind = "translation" if language == "ru" and number % 2 else "term_definition"
    row: dict[str, object] = dict.fromkeys(PAIR.names, "x")
    return {
        **row,
        "pair_id": f"{number:016x}",
        "split": split,
        "task": "retrieval",
        "kind": kind,
        "language": language,
        "query": query,
        "positive": positive,
        "negatives": [],
        "given_score": None,
    }
