import numpy as np
import pyarrow as pa
import pytest

from raysberta.corpus import verdicts as module
from raysberta.corpus.facts import Repeats
from raysberta.corpus.filter import FILTERED
from raysberta.corpus.filter import Settings as Rules
from raysberta.corpus.personal import KINDS
from raysberta.corpus.read import Shard
from raysberta.corpus.settings import Corpus, DictionarySource, FilesSource
from raysberta.corpus.spread import unit_of, with_split
from raysberta.corpus.verdicts import (
    OVER_LIMIT,
    ROWS,
    Verdicts,
    apply_limits,
    check_readable,
    cluster_sizes,
    count,
    drop_exact,
    drop_near,
    drop_repeated,
    repeated,
    tally,
)
from raysberta.errors import InputError
from raysberta.schema import text_id

SOURCES = {"a": FilesSource(kind="files", path="x"), "b": DictionarySource(kind="wiki_ru_wordnet")}


def verdicts(*rows: dict, held_out: tuple[str, ...] = ()) -> Verdicts:
    """Documents of the sources a and b, one work unit for each stretch of rows of one source."""
    filled = [
        {
            **dict.fromkeys(FILTERED.names),
            "row": number,
            "doc_id": text_id(str(number)),
            "group": str(number),
            "source": "a",
            "language": "ru",
            "reason": "",
            "bytes": 10,
            "characters": 10,
            "key": text_id("key", str(number)),
            "masked": [0] * len(KINDS),
            **row,
        }
        for number, row in enumerate(rows)
    ]
    stretches: list[list[dict]] = []
    for row in filled:
        if not stretches or stretches[-1][0]["source"] != row["source"]:
            stretches.append([])
        stretches[-1].append(row)
    units = []
    for number, stretch in enumerate(stretches):
        source = stretch[0]["source"]
        table = with_split(pa.Table.from_pylist(stretch, FILTERED), source in held_out, Rules(Corpus(), ("ru",), None, True, True))
        units.append(unit_of(Shard(source, 2 * number), [table.slice(0, 1), table.slice(1)]))
    return Verdicts.of(reversed(units), ["a", "b"])


def rows_of(found: Verdicts, *places: int) -> np.ndarray:
    unit = np.searchsorted(found.starts, places, side="right") - 1
    return (unit.astype(np.uint64) << np.uint64(ROWS)) + (np.array(places) - found.starts[unit]).astype(np.uint64)


def near(found: Verdicts, *pairs: tuple[int, int]) -> None:
    leasts, others = zip(*pairs, strict=True) if pairs else ((), ())
    drop_near(found, rows_of(found, *leasts), rows_of(found, *others))


def reasons(found: Verdicts) -> list[str]:
    """Of every document, as the tables spell them."""
    spelled = [found.reasons[reason] for reason in found.reason]
    for table, doc_ids in found.decided():
        for row, reason, doc_id in zip(table["row"].to_numpy(), table["reason"].to_pylist(), doc_ids, strict=True):
            place = module.places_of(np.array([row], np.uint64), found.starts)[0]
            assert found.doc_id[place] == doc_id
            spelled[place] = reason
    return spelled


def splits(found: Verdicts) -> np.ndarray:
    return np.array(module.SPLITS)[found.split]


def test_a_document_takes_38_bytes() -> None:
    found = verdicts(*({} for _ in range(1000)))
    arrays = [value for name, value in vars(found).items() if isinstance(value, np.ndarray) and name != "starts"]
    assert sum(array.nbytes for array in arrays) == 38 * 1000 and len(arrays) == 9


def test_exact_then_near_duplicates_name_who_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPARED", 2)
    monkeypatch.setattr(module, "SLICE", 3)
    key = text_id("k")
    found = verdicts(
        {"key": key, "characters": 5},
        {"key": key, "characters": 9},
        {},
        {"characters": 50, "source": "b"},
        {"reason": "short", "key": "", "characters": 99},
    )
    drop_exact(found)
    near(found, (2, 3))
    ids = [text_id(str(number)) for number in range(5)]
    assert reasons(found) == [f"duplicate:{ids[1]}", "", f"near_duplicate:{ids[3]}", "", "short"]
    near(found)
    assert found.stays().of(rows_of(found, 0, 1, 2, 3, 4)).tolist() == [False, True, False, True, False]
    assert found.open().tolist() == [1, 3]


def test_identical_documents_leave_the_one_that_was_read_first() -> None:
    found = verdicts({"doc_id": "a" * 16, "key": "0" * 16}, {"doc_id": "a" * 16, "key": "0" * 16})
    drop_exact(found)
    assert reasons(found) == ["", f"duplicate:{'a' * 16}"]


def test_of_each_component_one_stays() -> None:
    found = verdicts({"characters": 1}, {"characters": 2}, {"characters": 9}, {}, {"characters": 3, "source": "b"}, {"source": "b"})
    near(found, (0, 4), (1, 3), (1, 5), (0, 2))
    ids = [text_id(str(number)) for number in range(6)]
    kept = min(ids[3], ids[5])
    expected = {0: ids[2], 4: ids[2], 1: kept, **({3: kept} if kept == ids[5] else {5: kept})}
    assert reasons(found) == [f"near_duplicate:{expected[number]}" if number in expected else "" for number in range(6)]


def test_cluster_sizes_count_exact_copies_of_near_duplicates() -> None:
    a, b, c, f = (letter * 16 for letter in "abcf")
    rows = [(a, "0" * 15 + "1", 9), (b, "0" * 15 + "2", 5), (b, "0" * 15 + "2", 5), (b, "0" * 15 + "2", 5), (c, "0" * 15 + "3", 4)]
    rows += [(f, "0" * 15 + "4", 2), (f, "0" * 15 + "4", 2)]
    found = verdicts(*({"doc_id": doc_id, "key": key, "characters": size} for doc_id, key, size in rows))
    drop_exact(found)
    near(found, (0, 1), (0, 4))
    expected = ["", f"near_duplicate:{a}", f"duplicate:{b}", f"duplicate:{b}", f"near_duplicate:{a}", "", f"duplicate:{f}"]
    assert reasons(found) == expected
    assert cluster_sizes(found).to_pylist() == [{"doc_id": a, "documents": 5}, {"doc_id": f, "documents": 2}]
    assert cluster_sizes(verdicts({}, {})).num_rows == 0


def test_tally_and_matches() -> None:
    found = verdicts({}, {"key": text_id("key", "0"), "characters": 1}, {"doc_id": "d" * 16}, {"source": "b"}, {"source": "b", "bytes": 7})
    drop_exact(found)
    held = pa.table({"id": rows_of(found, 4, 2), "name": ["Set#1", "e" * 16]})
    assert drop_repeated(found, held, passages=True) == Repeats(texts=2, passages_dropped=True)
    assert reasons(found)[2:] == [f"in_evaluation:{'e' * 16}", "", "in_evaluation:Set#1"]
    rows = {(row["source"], row["reason"]): (row["documents"], row["bytes"]) for row in tally(found).to_pylist()}
    assert rows == {
        ("a", ""): (1, 10), ("a", "duplicate"): (1, 10), ("a", "in_evaluation"): (1, 10), ("b", ""): (1, 10),
        ("b", "in_evaluation"): (1, 7),
    }  # fmt: skip
    expected = sorted([("d" * 16, "e" * 16), (text_id("4"), "Set#1")])
    assert [tuple(row.values()) for row in repeated(found).to_pylist()] == expected


@pytest.mark.parametrize("dropped", [True, False])
def test_what_repeats_a_passage_goes_where_that_is_asked_for(dropped: bool) -> None:
    found = verdicts({}, {}, {}, {})
    held = pa.table({"id": rows_of(found, 0, 1, 2), "name": ["passage:Set#5", "Set#1", "passage:Set#5"]})
    assert drop_repeated(found, held, dropped) == Repeats(texts=1, passages=2, passages_dropped=dropped)
    passage = "in_passages:Set#5" if dropped else ""
    assert reasons(found) == [passage, "in_evaluation:Set#1", passage, ""]
    assert sorted(repeated(found)["held_out"].to_pylist()) == ["Set#1", *["Set#5"] * (2 * dropped)]


@pytest.mark.parametrize("at_once", [7, 1_000_000])
def test_limit_takes_the_same_documents_whatever_else_there_is(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE", at_once)
    few = verdicts(*({"doc_id": text_id(str(number))} for number in range(50)))
    many = verdicts(*({"doc_id": text_id(str(number)), "source": "b" if number >= 50 else "a"} for number in reversed(range(80))))
    for found in (few, many):
        apply_limits(found, {"a": 20, "b": None})
        assert (found.reason == OVER_LIMIT).sum() == 30 and "over_limit" in reasons(found)
    kept = [set(found.doc_id[found.open()][found.source[found.open()] == 0].tolist()) for found in (few, many)]
    assert len(kept[0]) == 20
    assert kept[0] == kept[1]


def test_splits_follow_groups() -> None:
    found = verdicts(*({"group": f"word {number % 300}"} for number in range(900)))
    groups = {}
    for number, split in enumerate(splits(found)):
        assert groups.setdefault(number % 300, split) == split
    assert {"train", "dev", "test"} == set(splits(found))


def test_a_source_that_is_held_out_whole_has_nothing_to_train_on_and_two_halves() -> None:
    rows = [{"group": f"word {number}", "source": source} for source in ("a", "b") for number in range(2000)]
    found = verdicts(*rows, held_out=("b",))
    own, general = splits(found)[:2000], splits(found)[2000:]
    assert set(general) == {"dev", "test"} and 0.46 < (general == "test").mean() < 0.54
    assert (own == splits(verdicts(*rows))[:2000]).all() and "train" in own
    assert (general[own == "test"] == "test").all(), "a group in both is in the test half of both, as far as the shares go"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"reason": "input_error: sources.a.path: x.html is a PDF"}], r"^sources\.a\.path: x\.html is a PDF$"),
        ([{"source": "b"}], r"^sources\.a\.path: there is not one record in it$"),
        (
            [{"reason": "unreadable: f: cut"}, {}, {"source": "b"}],
            r"^sources\.a\.path: 1 of 2 records are unreadable.*0\.1; the first: f: cut$",
        ),
    ],
)
def test_wrong_input_ends_the_run(rows: list[dict], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_readable(verdicts(*rows), 0.1, SOURCES)


def test_few_broken_records_are_within_the_budget() -> None:
    check_readable(verdicts({"reason": "unreadable: f: cut"}, *({} for _ in range(20)), {"source": "b"}), 0.1, SOURCES)


def test_counts_add_up() -> None:
    rows = [{}, {"key": text_id("key", "0")}, {"reason": "unreadable: x"}, {"source": "b"}, {"key": text_id("key", "0")}]
    found = verdicts(*(row | {"masked": [number, *[0] * (len(KINDS) - 1)]} for number, row in enumerate(rows)))
    drop_exact(found)
    counts = count(found, SOURCES)
    assert counts["a"].dropped == {"duplicate": 2, "unreadable": 1}
    assert (counts["a"].masked, counts["b"].masked) == ({"email": 7}, {"email": 3})
    assert (counts["a"].read, counts["a"].kept, counts["a"].bytes_in, counts["a"].bytes_out) == (4, 1, 40, 10)
    for counted in counts.values():
        assert counted.read == counted.kept + sum(counted.dropped.values())
        assert sum(counted.splits.values()) == counted.kept == sum(counted.languages.values())
