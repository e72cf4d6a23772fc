"""Held-out hashes meet those of other texts by ranges, against a dictionary of all of them."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from raysberta.corpus.evaluation_sets import evaluation_files
from raysberta.corpus.overlaps import (
    BITS_A_HASH,
    FOUND,
    HELD,
    MOST_BITS,
    SAID,
    bits,
    bits_of_range,
    may_be_held,
    meet_in_range,
    set_runs,
    smallest,
    width_of,
)
from raysberta.corpus.shingles import mix
from raysberta.storage.runs import Place, ranges, read_runs

HASHES = st.integers(0, 30).map(lambda number: int(mix(np.array([number + 1], np.uint64))[0]))


@settings(max_examples=100, deadline=None)
@given(
    held=st.lists(st.tuples(HASHES, st.sampled_from(["b", "a", "Set#1", "Набор#2", "passage:a"])), max_size=40),
    said=st.lists(st.tuples(HASHES, st.integers(0, 8)), max_size=40),
    parts=st.sampled_from([1, 2, 8]),
    most=st.sampled_from([1, 1 << 20]),
)
def test_ranges_give_what_a_dictionary_gives(held: list, said: list, parts: int, most: int):
    with TemporaryDirectory() as folder:
        place = Place(folder, 8, most)
        runs = []
        for schema, rows in ((HELD, held), (SAID, said)):
            writer = place.writer("rows")
            for start in range(0, len(rows), 3):
                own = rows[start : start + 3]
                table = pa.table([pa.array([row[column] for row in own], schema.types[column]) for column in (0, 1)], schema)
                writer.add(table, table["hash"].to_numpy())
            runs.append(writer.done())
        width = width_of(len(held), 8)
        table = np.concatenate([bits_of_range(runs, first, last, 8, width) for first, last in ranges(8, parts)])
        found = [run for first, last in ranges(8, parts) for run in meet_in_range(runs, first, last, place)]
        result = smallest(read_runs(found, 0, 8, FOUND)).to_pylist()
    expected: dict[int, str] = {}
    for hashed, name in sorted(said):
        names = [owner for held_hash, owner in held if held_hash == hashed]
        if names:
            known = [expected[name]] if name in expected else []
            expected[name] = min([*names, *known], key=lambda each: (each.startswith("passage:"), each))
    assert {row["id"]: row["name"] for row in result} == expected and len(result) == len(expected)
    known = np.array([row[0] for row in held], np.uint64)
    assert may_be_held(known, table).all()


def test_few_other_hashes_pass():
    dice = np.random.default_rng(2)
    held, others = (dice.integers(0, 2**64, 20_000, dtype=np.uint64) for _ in range(2))
    width = width_of(len(held), 64)
    assert 1 << width <= BITS_A_HASH * len(held) < 2 << width
    table = bits(held, 0, 64, 64, width)
    assert len(table) == (1 << width) // 8
    assert may_be_held(held, table).all() and may_be_held(others, table).mean() < 1.5 * 2 / BITS_A_HASH
    assert 1 << width_of(10**12, 64) == MOST_BITS and 1 << width_of(0, 64) == 512


def test_items_of_a_set_hold_out_their_runs_of_words(tmp_path: Path):
    text = "раз два три четыре пять шесть"
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ({"item": "Set#9", "q": text}, {"q": text + " семь"})))
    (file,) = evaluation_files([str(tmp_path / "set.jsonl")])
    runs = set_runs(file, 5, Place(str(tmp_path), 8, 1 << 20))
    assert not isinstance(runs, str)
    names = read_runs(runs, 0, 8, HELD)["name"].to_pylist()
    assert sorted(names) == ["Set#9"] * 3 + ["set.jsonl#2"] * 4, "runs of five words, and the whole"
    (tmp_path / "set.jsonl").write_text('{"q": "a"}\n{"q": \n')
    assert "set.jsonl is unreadable" in str(set_runs(file, 5, Place(str(tmp_path), 8, 1 << 20)))
