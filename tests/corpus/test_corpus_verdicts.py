import numpy as np
import pyarrow as pa
import pytest

from raysberta.corpus.duplicates import BANDS, clusters, near
from raysberta.corpus.filter import FILTERED
from raysberta.corpus.personal import KINDS
from raysberta.corpus.settings import Corpus, DictionarySource, FilesSource
from raysberta.corpus.spread import LIGHT, band_parts, meet, part_of
from raysberta.corpus.verdicts import Verdicts, apply_limits, check_readable, cluster_sizes, count, drop_exact, drop_near, repeated, tally
from raysberta.errors import InputError
from raysberta.schema import text_id

SOURCES = {"a": FilesSource(kind="files", path="x"), "b": DictionarySource(kind="wiki_ru_wordnet")}


def verdicts(*rows: dict) -> Verdicts:
    filled = [
        {
            "row": number,
            "doc_id": text_id(str(number)),
            "group": str(number),
            "source": "a",
            "language": "ru",
            "reason": "",
            "bytes": 10,
            "characters": 10,
            "key": str(number),
            "masked": [0] * len(KINDS),
            "signed": False,
            **row,
        }
        for number, row in enumerate(rows)
    ]
    schema = pa.schema([("signed", pa.bool_()) if name == "signed" else FILTERED.field(name) for name in LIGHT])
    return Verdicts.of(pa.Table.from_pylist(filled, schema=schema), Corpus())


def test_exact_then_near_duplicates_name_who_stays() -> None:
    found = verdicts(
        {"key": "k", "characters": 5},
        {"key": "k", "characters": 9},
        {},
        {"characters": 50, "source": "b"},
        {"reason": "short", "key": "k", "characters": 99},
    )
    drop_exact(found)
    drop_near(found, np.array([[3, 2]]))
    ids = found.table.column("doc_id").to_pylist()
    assert found.reasons.tolist() == [f"duplicate:{ids[1]}", "", f"near_duplicate:{ids[3]}", "", "short"]
    drop_near(found, np.empty((0, 2), np.int64))
    assert len(found.open()) == 2


def test_identical_documents_leave_one() -> None:
    found = verdicts({"doc_id": "a" * 16, "key": "k"}, {"doc_id": "a" * 16, "key": "k"})
    drop_exact(found)
    assert sorted(found.reasons.tolist()) == ["", f"duplicate:{'a' * 16}"]


@pytest.mark.parametrize("parts", [1, 3, 8])
def test_meetings_over_ranges_are_those_of_whole_bands(parts: int) -> None:
    dice = np.random.default_rng(3)
    hashes = dice.integers(0, 2**64, (40, BANDS), dtype=np.uint64)
    for row in range(20, 40):
        hashes[row, dice.integers(BANDS)] = hashes[row - 20, 0] if row % 2 else hashes[row, 0]
        if row % 3 == 0:
            hashes[row, 5] = hashes[row - 20, 5]
    column = pa.FixedSizeListArray.from_arrays(pa.array(hashes.reshape(-1)), BANDS)
    blocks = [pa.table({"bands": column.slice(0, 15)}), pa.table({"bands": column.slice(15)})]
    asked = np.ones(40, dtype=bool)
    asked[7] = False
    pieces = [band_parts(blocks[0], asked[:15], 0, parts), band_parts(blocks[1], asked[15:], 15, parts)]
    pairs = np.concatenate([meet(pieces[0][number], pieces[1][number]) for number in range(BANDS * parts)])
    ranks = dice.permutation(40)
    assert len(pairs)
    assert clusters(pairs, ranks).tolist() == near(hashes, asked, ranks).tolist()


def test_cluster_sizes_count_exact_copies_of_near_duplicates() -> None:
    a, b, c = (letter * 16 for letter in "abc")
    reasons = ["", f"near_duplicate:{a}", f"duplicate:{b}", f"duplicate:{b}", f"near_duplicate:{a}", "", f"duplicate:{'f' * 16}"]
    ids = [a, b, b, b, c, "f" * 16, "f" * 16]
    found = verdicts(*({"doc_id": doc_id, "reason": reason} for doc_id, reason in zip(ids, reasons, strict=True)))
    assert cluster_sizes(found).to_pylist() == [{"doc_id": a, "documents": 5}, {"doc_id": "f" * 16, "documents": 2}]


def test_tally_and_matches() -> None:
    found = verdicts(
        {}, {"reason": "duplicate:ff"}, {"reason": "in_evaluation:ee", "doc_id": "d" * 16}, {"source": "b"}, {"reason": "duplicate:ee"}
    )
    rows = {(row["source"], row["reason"]): (row["documents"], row["bytes"]) for row in tally(found).to_pylist()}
    assert rows == {("a", ""): (1, 10), ("a", "duplicate"): (2, 20), ("a", "in_evaluation"): (1, 10), ("b", ""): (1, 10)}
    assert repeated(found).to_pylist() == [{"doc_id": "d" * 16, "held_out": "ee"}]


def test_limit_takes_the_same_documents_whatever_else_there_is() -> None:
    few = verdicts(*({"doc_id": text_id(str(number))} for number in range(50)))
    many = verdicts(*({"doc_id": text_id(str(number)), "source": "b" if number >= 50 else "a"} for number in reversed(range(80))))
    for found in (few, many):
        apply_limits(found, {"a": 20, "b": None})
    kept = [set(found.column("doc_id")[found.open()][found.column("source")[found.open()] == "a"]) for found in (few, many)]
    assert len(kept[0]) == 20
    assert kept[0] == kept[1]


def test_splits_follow_groups() -> None:
    found = verdicts(*({"group": f"word {number % 300}"} for number in range(900)))
    groups = {}
    for group, split in zip(found.column("group"), found.splits, strict=True):
        assert groups.setdefault(group, split) == split
    assert {"train", "dev", "test"} == set(found.splits)


def test_a_source_that_is_held_out_whole_has_nothing_to_train_on_and_two_halves() -> None:
    rows = [{"group": f"word {number}", "source": source} for number in range(2000) for source in ("a", "b")]
    found = Verdicts.of(verdicts(*rows).table, Corpus(), ["b"])
    own, general = (found.splits[found.column("source") == name] for name in ("a", "b"))
    assert set(general) == {"dev", "test"} and 0.46 < (general == "test").mean() < 0.54
    assert (own == verdicts(*rows).splits[::2]).all() and "train" in own
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
    found = verdicts({}, {"reason": "duplicate:ff"}, {"reason": "unreadable: x"}, {"source": "b"}, {"reason": "duplicate:ee"})
    counts = count(found, SOURCES)
    assert counts["a"].dropped == {"duplicate": 2, "unreadable": 1}
    assert (counts["a"].read, counts["a"].kept, counts["a"].bytes_in, counts["a"].bytes_out) == (4, 1, 40, 10)
    for counted in counts.values():
        assert counted.read == counted.kept + sum(counted.dropped.values())
        assert sum(counted.splits.values()) == counted.kept == sum(counted.languages.values())


def test_ranges_of_ids_cover_everything_in_order() -> None:
    ids = sorted(text_id(str(number)) for number in range(1000))
    parts = part_of(ids, 7)
    assert set(parts.tolist()) == set(range(7))
    assert parts.tolist() == sorted(parts.tolist())
    assert set(part_of(ids, 1).tolist()) == {0}
