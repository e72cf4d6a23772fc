import random

import pyarrow as pa

from raysberta.pairs.match import CROSS_LANGUAGE, LABELLED, same_label

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


def test_the_order_of_the_documents_does_not_matter():
    rows = documents(30) + documents(30, language="en")
    shuffled = list(rows)
    random.Random(1).shuffle(shuffled)
    assert matched(rows).equals(matched(shuffled))
