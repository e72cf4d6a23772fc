"""Which texts a vocabulary is fitted to."""

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from vocabulary_pairs import a_pair

from raysberta.prefixes import E5, NOMIC
from raysberta.schema import PAIR, text_id
from raysberta.vocabulary.texts import count_pairs, language_texts, sample_texts, training_texts


def test_a_sample_of_the_training_texts_owes_nothing_to_files(tmp_path: Path) -> None:
    """About as many pairs as asked for, the same ones in any order, also where only pairs of low ids were kept."""
    rows = [a_pair(0, "train", "ru", f"q{number}", f"p{number}") | {"pair_id": text_id(str(number))} for number in range(4000)]
    rows = sorted(rows, key=lambda row: row["pair_id"])[:2000]
    found = []
    for name, order in (("one", rows), ("other", rows[::-1])):
        pq.write_table(pa.Table.from_pylist(order, PAIR), tmp_path / f"{name}.parquet")
        halves = [pads.dataset(tmp_path / f"{name}.parquet")]
        found.append(sorted(text for batch in training_texts(halves, NOMIC, E5, 500) for text in batch))
        assert len([text for batch in training_texts(halves, NOMIC, E5, 2000) for text in batch if text.endswith("0")]) > 300
    assert found[0] == found[1] and 900 < len(found[0]) < 1120


def test_two_tables_are_read_as_one(tmp_path: Path) -> None:
    rows = [a_pair(number, ("train", "dev")[number % 5 == 0], ("ru", "en")[number % 2], f"q{number}", f"p{number}") for number in range(50)]
    tables = []
    for name, part in (("whole", rows), ("one", rows[1::2]), ("other", rows[::2])):
        pq.write_table(pa.Table.from_pylist(part, PAIR), tmp_path / f"{name}.parquet")
        tables.append(pads.dataset(tmp_path / f"{name}.parquet"))
    whole, parts = tables[:1], tables[1:]
    assert count_pairs(whole) == count_pairs(parts) == 40
    assert sample_texts(whole) == sample_texts(parts)
    for read in (lambda given: training_texts(given, NOMIC, E5), lambda given: language_texts(given, "ru")):
        assert sorted(text for batch in read(whole) for text in batch) == sorted(text for batch in read(parts) for text in batch)


def test_a_translation_stands_for_its_query_alone(tmp_path: Path) -> None:
    rows = [a_pair(1, "train", "ru", "да", "yes"), a_pair(2, "train", "ru", "дом", "здание"), a_pair(3, "dev", "ru", "нет", "no")]
    assert [row["kind"] for row in rows[:2]] == ["translation", "term_definition"]
    pq.write_table(pa.Table.from_pylist(rows, PAIR), tmp_path / "pairs.parquet")
    tables = [pads.dataset(tmp_path / "pairs.parquet")]
    assert sample_texts(tables) == {"ru": ["да", "здание"]}
    assert sorted(text for batch in language_texts(tables, "ru") for text in batch) == ["да", "дом", "здание"]
