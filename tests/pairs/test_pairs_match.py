import random

import pyarrow as pa

from raysberta.corpus.settings import DictionarySource
from raysberta.pairs.match import CROSS_LANGUAGE, LABELLED, same_label
from raysberta.prefixes import NOMIC
from raysberta.schema import text_id

SCHEMA = pa.schema([(name, pa.string()) for name in LABELLED])


def documents(
    count: int, label: str = "turn_on", language: str = "ru", split: str = "train", group: str | None = None
) -> list[dict[str, str]]:
    return [
        {
            "doc_id": f"{label}-{language}-{split}-{number}",
            "group": group or f"{label}-{language}-{number // 2}",
            "split": split,
            "source": "intents",
            "language": language,
            "label": label,
            "text": f"{label} {language} {number}",
        }
        for number in range(count)
    ]


def matched(rows: list[dict[str, str]]) -> pa.Table:
    return same_label(pa.Table.from_pylist(rows, SCHEMA), {"intents": "paraphrase"}, 100)


def test_partners_share_label_and_split_and_come_from_other_groups():
    rows = documents(20) + documents(20, "turn_off") + documents(8, split="test") + documents(1, "alone") + documents(5, "")
    by_text = {row["text"] + row["split"]: row for row in rows}
    found = matched(rows).to_pylist()
    assert len(found) == 48
    for pair in found:
        left, right = by_text[pair["query"] + pair["split"]], by_text[pair["positive"] + pair["split"]]
        assert left["label"] == right["label"] != ""
        assert left["group"] != right["group"]
        assert pair["group"] == f"intents/{left['label']}/{pair['split']}"


def test_no_pair_comes_twice_the_other_way_round():
    for count in (2, 3, 7):
        found = matched(documents(count)).to_pylist()
        ways = {frozenset((pair["query"], pair["positive"])) for pair in found}
        assert len(ways) == len(found) == (1 if count == 2 else count)


def test_a_group_of_its_own_is_paired_within_where_there_is_no_other():
    assert matched(documents(4, group="one")).num_rows >= 3


def test_some_pairs_cross_languages_and_most_do_not():
    rows = documents(200) + documents(200, language="en")
    crossing = [pair["query"].split()[1] != pair["positive"].split()[1] for pair in matched(rows).to_pylist()]
    assert 0.6 * CROSS_LANGUAGE < sum(crossing) / len(crossing) < 1.4 * CROSS_LANGUAGE


def test_definitions_of_one_field_are_pairs_under_the_prefix_of_topics():
    """Headwords are groups: two senses of one word are no pair while there is another word, and all of a field are tied together."""
    source = DictionarySource.model_validate({"kind": "wiki_ru_wordnet", "pairs": {"same_label": "topic"}})
    assert "same_label" not in DictionarySource(kind="wiki_ru_wordnet").pairs
    rows = [
        {**row, "source": "dictionary", "group": row["doc_id"][:-1]} for field in ("медицина", "физика", "") for row in documents(30, field)
    ]
    found = same_label(pa.Table.from_pylist(rows, SCHEMA), {"dictionary": source.pairs["same_label"]}, 100).to_pylist()
    assert len(found) == 60
    words = {row["text"]: row["group"] for row in rows}
    for pair in found:
        field = pair["query"].split()[0]
        assert field == pair["positive"].split()[0] and words[pair["query"]] != words[pair["positive"]]
        assert (pair["kind"], pair["group"]) == ("same_label", f"dictionary/{field}/train")
        assert NOMIC.of(pair["task"], "query") == NOMIC.of(pair["task"], "document") == "clustering: "


def test_partners_are_those_of_a_plain_search_round_the_circle():
    """One candidate after the other, from the next in the order of hashes on; three languages, groups of many sizes."""
    rows = [row for language in ("ru", "en", "kk") for row in documents(40, language=language)]
    rows = [{**row, "group": f"g{number * number % 37}"} for number, row in enumerate(rows)]
    ordered = sorted(rows, key=lambda row: text_id("same_label", row["doc_id"]))
    taken, expected = set(), []
    for number, row in enumerate(ordered):
        crossing = int(text_id("cross", row["doc_id"]), 16) < CROSS_LANGUAGE * 16**16
        circle = [*range(number + 1, len(ordered)), *range(number)]
        free = [other for other in circle if (ordered[other]["language"] != row["language"]) == crossing]
        free = [other for other in free if frozenset((number, other)) not in taken]
        best = next((other for other in free if ordered[other]["group"] != row["group"]), free[0])
        taken.add(frozenset((number, best)))
        expected.append((row["text"], ordered[best]["text"]))
    assert [(pair["query"], pair["positive"]) for pair in matched(rows).to_pylist()] == expected


def test_the_order_of_the_documents_does_not_matter():
    rows = documents(30) + documents(30, language="en")
    shuffled = list(rows)
    random.Random(1).shuffle(shuffled)
    assert matched(rows).equals(matched(shuffled))
