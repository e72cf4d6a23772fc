"""Pairs against one another, cut into ranges and runs at random, against one pass over all of them with sets of strings."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysberta.corpus.documents import CANDIDATE, to_tables
from raysberta.corpus.packaged import wiktionary
from raysberta.pairs.compare import OPEN, REPEATED, UNLIKE, VERDICTS, Settled, compare, good_pairs, settle
from raysberta.pairs.filter import KEYS, judge
from raysberta.pairs.make import make
from raysberta.pairs.settings import Pairs
from raysberta.pairs.spread import _open
from raysberta.pairs.text import normalise
from raysberta.schema import PAIR, REJECTED_PAIR, split_of, text_id
from raysberta.storage.runs import Place, Run, RunWriter, numbers, ranges, read_runs

KINDS = ["a/k", "a/other", "b/k"]


def pair(query: str, positive: str, split: str = "train", name: str = "a/k", negatives: Sequence[str] = ()) -> dict:
    source, kind = name.split("/")
    return {
        "pair_id": text_id(source, kind, split, query, positive), "doc_id": "d", "group": "g", "split": split, "source": source,
        "kind": kind, "task": "retrieval", "language": "ru", "query": query, "positive": positive, "negatives": list(negatives),
        "given_score": None,
    }  # fmt: skip


def in_one_pass(
    rows: list[dict], limits: Mapping[str, int], repeated: Mapping[str, str], unlike: Mapping[str, float]
) -> list[tuple[str, str, str, float | None]]:
    """Every row's id, negatives and what becomes of it, by id: the rules as one would write them down for a list."""
    ordered = sorted(rows, key=lambda row: (row["pair_id"], text_id(str(sorted({**row, **alone(row)}.items())))))
    reasons = [alone(row)["reason"] for row in ordered]
    sides = [(normalise(row["query"]), normalise(row["positive"])) for row in ordered]
    training = [row["split"] == "train" for row in ordered]
    seen = set()
    for number, key in enumerate(zip(training, sides, strict=True)):
        if not reasons[number]:
            reasons[number] = "duplicate" if key in seen else ""
            seen.add(key)
    held_out = {text for own, train, reason in zip(sides, training, reasons, strict=True) if not train and not reason for text in own}
    scores: list[float | None] = [None] * len(ordered)
    for number, row in enumerate(ordered):
        if not alone(row)["reason"] and row["pair_id"] in unlike:
            reasons[number], scores[number] = "unlike", unlike[row["pair_id"]]
    counts = Counter()
    for number, row in enumerate(ordered):
        if training[number] and not reasons[number]:
            if held_out & set(sides[number]) or row["pair_id"] in repeated:
                reasons[number] = "in_evaluation"
                continue
            key = f"{row['source']}/{row['kind']}"
            counts[key] += 1
            if counts[key] > limits.get(key, len(rows)):
                reasons[number] = "over_limit"
    given = zip(ordered, reasons, scores, strict=True)
    return [(row["pair_id"], json.dumps(row["negatives"]), reason, score) for row, reason, score in given]


def alone(row: dict) -> dict:
    query, positive = normalise(row["query"]), normalise(row["positive"])
    reason = "too_short" if min(len(query), len(positive)) < 3 else "query_equals_positive" if query == positive else ""
    return {"reason": reason, "score": None}


def by_ranges(
    rows: list[dict],
    limits: Mapping[str, int],
    repeated: Mapping[str, str],
    unlike: Mapping[str, float],
    folder: str,
    cut: int,
    most: int,
    parts: int,
) -> list[Settled]:
    """The same by the steps of the stage, tables of `cut` rows and runs of `most` bytes."""
    kinds = sorted({f"{row['source']}/{row['kind']}" for row in rows})
    names = ("pairs", "keys", "open", "repeated", "unlike", "verdicts")
    writers = {name: RunWriter(Place(folder, 64, most), name) for name in names}
    for start in range(0, len(rows), cut):
        judged, keys = judge(pa.Table.from_pylist(rows[start : start + cut], PAIR), Pairs())
        ids = numbers(judged["pair_id"])
        writers["pairs"].add(judged, ids)
        writers["keys"].add(keys, keys["high"].to_numpy())
        still = _open(judged, ids, kinds)
        writers["open"].add(still, still["pair"].to_numpy())
    known = numbers(pa.array(list(repeated), pa.string()))
    writers["repeated"].add(pa.table([known, pa.array(list(repeated.values()), pa.string())], REPEATED), known)
    odd = numbers(pa.array(list(unlike), pa.string()))
    writers["unlike"].add(pa.table([odd, pa.array(list(unlike.values()), pa.float32())], UNLIKE), odd)
    runs: dict[str, list[Run]] = {name: writer.done() for name, writer in writers.items() if name != "verdicts"}
    for first, last in ranges(64, parts):
        found = compare(read_runs(runs["keys"], first, last, KEYS))
        writers["verdicts"].add(found, found["pair"].to_numpy())
    runs["verdicts"] = writers["verdicts"].done()
    settled, before = [], [0] * len(kinds)
    for first, last in ranges(64, parts):
        room = {name: max(0, limits[name] - before[kinds.index(name)]) for name in limits if name in kinds}
        named = {"open": OPEN, "verdicts": VERDICTS, "repeated": REPEATED, "unlike": UNLIKE}
        still, verdicts, again, apart = (read_runs(runs[name], first, last, schema) for name, schema in named.items())
        good = good_pairs(still, verdicts, again, apart, len(kinds))
        before = [had + more for had, more in zip(before, good.tolist(), strict=True)]
        settled.append(settle(read_runs(runs["pairs"], first, last, REJECTED_PAIR), verdicts, again, apart, room))
    return settled


TEXTS = st.sampled_from(["да", "туман", "Туман ", "мгла", "МГЛА", "капли воды", "капли  воды", "снег идёт", "пар", ""])
ROWS = st.lists(
    st.builds(
        pair,
        TEXTS,
        TEXTS,
        st.sampled_from(["train", "train", "train", "dev", "test"]),
        st.sampled_from(KINDS),
        st.sampled_from([(), ("лёд",), ("лёд", "иней")]),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(
    rows=ROWS,
    limits=st.dictionaries(st.sampled_from(KINDS), st.integers(1, 6)),
    share=st.integers(0, 4),
    odd=st.integers(0, 4),
    cut=st.integers(1, 60),
    most=st.sampled_from([1, 2000, 1 << 20]),
    parts=st.sampled_from([1, 2, 8, 64]),
)
def test_ranges_give_what_one_pass_gives(rows: list[dict], limits: dict, share: int, odd: int, cut: int, most: int, parts: int):
    training = sorted({row["pair_id"] for row in rows if row["split"] == "train"})
    repeated = {pair_id: "Set#1" for number, pair_id in enumerate(training) if share and number % share == 0}
    every = sorted({row["pair_id"] for row in rows})
    unlike = {pair_id: number / 64 for number, pair_id in enumerate(every) if odd and number % odd == 1}
    check(rows, limits, repeated, unlike, cut, most, parts)


def check(rows: list[dict], limits: dict, repeated: dict, unlike: dict, cut: int, most: int, parts: int) -> Counter[str]:
    with TemporaryDirectory() as folder:
        settled = by_ranges(rows, limits, repeated, unlike, folder, cut, most, parts)
    expected = in_one_pass(rows, limits, repeated, unlike)
    kept = [(row["pair_id"], json.dumps(row["negatives"])) for own in settled for row in own.kept.to_pylist()]
    gone = [row for own in settled for row in own.rejected.to_pylist()]
    rejected = [(row["pair_id"], json.dumps(row["negatives"]), row["reason"], row["score"]) for row in gone]
    assert kept == [(pair_id, negatives) for pair_id, negatives, reason, _ in expected if not reason]
    assert rejected == [row for row in expected if row[2] not in ("", "over_limit")]
    dropped = sum((own.dropped for own in settled), Counter())
    assert dropped == Counter(row[2] for row in expected if row[2])
    return dropped


def test_articles_of_a_dictionary(tmp_path: Path):
    """Definitions and usages of real words, some twice under another name, cut and limited."""
    found = wiktionary.read(wiktionary.parts()[0], "sources.words")
    tables = list(islice(to_tables("words", (each for each in found if not each.reason), 0), 2))
    documents = [{**row, "split": split_of(row["group"], 0.1, 0.1)} for table in tables for row in table.to_pylist()]
    again = [{**row, "source": "again", "doc_id": text_id(row["doc_id"])} for row in documents[::5]]
    mappings = {name: {"term_definition": "retrieval", "definition_usage": "topic"} for name in ("words", "again")}
    rows = make(pa.Table.from_pylist([*documents, *again], CANDIDATE), mappings, 120).to_pylist()
    repeated = {row["pair_id"]: "Set#1" for row in rows[::97] if row["split"] == "train"}
    limits = {"words/term_definition": 700, "again/definition_usage": 9}
    dropped = check(rows, limits, repeated, {row["pair_id"]: 0.25 for row in rows[::83]}, 300, 100_000, 16)
    assert len(rows) > 3000 and {"duplicate", "in_evaluation", "over_limit", "unlike"} <= dropped.keys()
    assert min(dropped.values()) > 10


def settled(tmp_path: Path, *rows: dict, **limits: int) -> Settled:
    named = {name.replace("_", "/"): most for name, most in limits.items()}
    (found,) = by_ranges(list(rows), named, {}, {}, str(tmp_path), 7, 1 << 20, 1)
    return found


def reasons(found: Settled) -> dict[str, str]:
    return dict(zip(found.rejected["query"].to_pylist(), found.rejected["reason"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    "leak", [("Туман ", "другое определение"), ("мгла", "Капли  ВОДЫ в воздухе"), ("капли воды в воздухе", "определение")]
)
def test_a_training_pair_that_shares_a_text_with_held_out_data_is_rejected(tmp_path: Path, leak: tuple[str, str]):
    found = settled(tmp_path, pair("туман", "капли воды в воздухе", "test"), pair(*leak), pair("снег", "ледяные кристаллы"))
    assert reasons(found) == {leak[0]: "in_evaluation"}
    assert sorted(found.kept["query"].to_pylist()) == ["снег", "туман"]


def test_held_out_pairs_do_not_leak_into_one_another_by_this_rule(tmp_path: Path):
    assert settled(tmp_path, pair("туман", "капли", "dev"), pair("туман", "пар", "test")).kept.num_rows == 2


def test_a_held_out_pair_that_is_rejected_by_itself_holds_nothing_out(tmp_path: Path):
    found = settled(tmp_path, pair("туман", "Туман", "test"), pair("туман", "капли воды"))
    assert found.dropped == {"query_equals_positive": 1}


def test_of_rows_with_one_id_the_same_one_stays_whatever_the_order(tmp_path: Path):
    copies = [pair("гроза", "гром и молния", negatives=[word]) for word in ("град", "снег", "лёд")]
    first, second = settled(tmp_path, *copies), settled(tmp_path, *reversed(copies))
    assert first.kept.num_rows == 1
    assert first.kept.equals(second.kept) and first.rejected.equals(second.rejected)
    assert first.dropped == {"duplicate": 2}


def test_limits_keep_a_random_part_of_the_training_pairs_only(tmp_path: Path):
    rows = [pair(f"вопрос {number}", f"ответ {number}") for number in range(200)]
    held_out = [pair(f"проверка {number}", f"истина {number}", "test") for number in range(30)]
    other = [pair(f"иное {number}", f"дело {number}", name="a/other") for number in range(20)]
    found = settled(tmp_path, *rows, *held_out, *other, a_k=50, a_other=5)
    kept = found.kept.to_pylist()
    assert Counter((row["kind"], row["split"]) for row in kept) == {("k", "train"): 50, ("other", "train"): 5, ("k", "test"): 30}
    assert found.dropped == {"over_limit": 165} and not found.rejected.num_rows
    chosen = [int(row["query"].split()[1]) for row in kept if (row["kind"], row["split"]) == ("k", "train")]
    assert 60 < sum(chosen) / len(chosen) < 140
