"""The held-out tasks: what is in them, that halves do not cross, that nothing depends on row order."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from raysberta.errors import InputError
from raysberta.evaluation import task_folder
from raysberta.evaluation.guard import check_readable, readable_tasks
from raysberta.evaluation.settings import OwnTask


def texts(folder: Path) -> set[str]:
    found: set[str] = set()
    for file in folder.rglob("*.parquet"):
        table = pq.read_table(file)
        for name in set(table.column_names) & {"text", "sentence1", "sentence2"}:
            found |= set(table[name].to_pylist())
    return found


def test_halves_share_no_text(held_out: Path) -> None:
    assert len(texts(held_out / "dev")) > 200
    assert not texts(held_out / "dev") & texts(held_out / "test")


def test_retrieval_keeps_all_positives_and_leaves_out_what_training_reads(held_out: Path) -> None:
    folder = held_out / "dev" / "Capitals"
    corpus = dict(zip(*pq.read_table(folder / "corpus.parquet").to_pydict().values(), strict=True))
    queries = dict(zip(*pq.read_table(folder / "queries.parquet").to_pydict().values(), strict=True))
    relevant: dict[str, set[str]] = {}
    for row in pq.read_table(folder / "relevant.parquet").to_pylist():
        relevant.setdefault(queries[row["query_id"]], set()).add(corpus[row["corpus_id"]])
    assert len(queries) == 24
    assert relevant["столица страны Франция"] == {
        "Париж (dev) — столица страны Франция.",
        "В городе Париж сидит правительство (dev): Франция.",
    }
    assert relevant["столица страны Россия"] == {"В городе Москва сидит правительство (dev): Россия."}, (
        "the other one is in the training pairs"
    )
    assert len(corpus) == 47
    assert task_folder.read(held_out)[1].left_out == {"Capitals/dev": 1}


def test_distractors_come_from_the_same_half(pairs: pa.Table, documents: pa.Table, tmp_path: Path) -> None:
    task = OwnTask(type="Retrieval", source="atlas", pair="heading_section", language="ru", queries=20, documents=45)
    task_folder.write(tmp_path / "b", {"Few": task}, pads.dataset(pairs), pads.dataset(documents), seed=1)
    for half in ("dev", "test"):
        corpus = pq.read_table(tmp_path / "b" / half / "Few" / "corpus.parquet")["text"].to_pylist()
        assert len(corpus) == 45
        assert all(f"({half})" in text for text in corpus)


def test_word_senses_are_balanced_and_stay_with_one_word(held_out: Path, documents: pa.Table) -> None:
    rows = pq.read_table(held_out / "test" / "Senses" / "pairs.parquet").to_pylist()
    assert Counter(row["labels"] for row in rows) == {0: len(rows) // 2, 1: len(rows) // 2}
    assert len(rows) >= 20
    word = dict(zip(documents["text"].to_pylist(), documents["group"].to_pylist(), strict=True))
    label = dict(zip(documents["text"].to_pylist(), documents["label"].to_pylist(), strict=True))
    for row in rows:
        assert word[row["sentence1"]] == word[row["sentence2"]]
        assert (label[row["sentence1"]] == label[row["sentence2"]]) == bool(row["labels"])


def test_senses_of_a_word_are_found_by_title_where_each_context_is_a_group(documents: pa.Table, pairs: pa.Table, tmp_path: Path) -> None:
    words = documents.filter(pc.equal(documents["source"], "words"))
    titled = words.set_column(words.schema.get_field_index("title"), "title", words["group"])
    titled = titled.set_column(words.schema.get_field_index("group"), "group", words["doc_id"])
    task = {"Senses": OwnTask(type="PairClassification", source="words", language="ru")}
    by_title = task_folder.write(tmp_path / "title", task, pads.dataset(pairs), pads.dataset(titled), seed=42)
    by_group = task_folder.write(tmp_path / "group", task, pads.dataset(pairs), pads.dataset(words), seed=42)
    assert by_title.tasks == by_group.tasks


def test_probe_sides_share_no_template_and_cover_the_same_labels(held_out: Path, documents: pa.Table) -> None:
    group = dict(zip(documents["text"].to_pylist(), documents["group"].to_pylist(), strict=True))
    sides = {name: pq.read_table(held_out / "test" / "Intents" / f"{name}.parquet") for name in ("train", "test")}
    groups = {name: {group[text] for text in table["text"].to_pylist()} for name, table in sides.items()}
    assert groups["train"] and groups["test"] and not groups["train"] & groups["test"]
    assert set(sides["train"]["name"].to_pylist()) == set(sides["test"]["name"].to_pylist()) == {"light_on", "heat_up", "play", "clean"}
    assert max(Counter(sides["train"]["name"].to_pylist()).values()) <= 16


def test_row_order_changes_nothing_and_the_seed_does(
    held_out: Path, tasks: dict, pairs: pa.Table, documents: pa.Table, tmp_path: Path
) -> None:
    shuffle = np.random.default_rng(7)
    mixed = [pads.dataset(table.take(shuffle.permutation(table.num_rows))) for table in (pairs, documents)]
    again = task_folder.write(tmp_path / "again", tasks, *mixed, seed=42)
    other = task_folder.write(tmp_path / "other", tasks, *mixed, seed=43)
    first = task_folder.read(held_out)[1]
    assert again == first
    assert other.tasks["Themes"].halves["dev"].revision != first.tasks["Themes"].halves["dev"].revision


def test_rare_labels_are_left_out(documents: pa.Table, pairs: pa.Table, tmp_path: Path) -> None:
    few = documents.filter(pc.or_(pc.not_equal(documents["label"], "clean"), pc.match_substring(documents["text"], "пропылесось")))
    few = few.filter(pc.or_(pc.not_equal(few["label"], "play"), pc.match_substring(few["text"], "кухне")))
    task = {"Intents": OwnTask(type="Classification", source="home", language="ru")}
    with pytest.raises(
        InputError, match=r"Intents: the (dev|test) half comes out with \d+ queries or texts from \d+ labelled documents of home in ru"
    ):
        task_folder.write(tmp_path / "b", task, pads.dataset(pairs), pads.dataset(few.filter(pc.equal(few["split"], "dev"))), seed=42)
    task_folder.write(tmp_path / "c", task, pads.dataset(pairs), pads.dataset(few), seed=42)
    assert set(pq.read_table(tmp_path / "c" / "dev" / "Intents" / "test.parquet")["name"].to_pylist()) == {"light_on", "heat_up"}


def test_a_task_that_comes_out_too_small_is_named(pairs: pa.Table, documents: pa.Table, tmp_path: Path) -> None:
    task = OwnTask(type="Retrieval", source="atlas", pair="heading_section", language="en")
    with pytest.raises(InputError, match=r"tasks.English: the test half comes out with 0 .* pairs atlas/heading_section in en"):
        task_folder.write(tmp_path / "b", {"English": task}, pads.dataset(pairs), pads.dataset(documents), seed=42)


def test_own_tasks_may_not_bear_public_names(tasks: dict, pairs: pa.Table, documents: pa.Table, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="TERRa: that is the name of a public task"):
        task_folder.write(tmp_path / "b", {"TERRa": tasks["Senses"]}, pads.dataset(pairs), pads.dataset(documents), seed=42)


def test_guard() -> None:
    check_readable("dev", "tuning", ["Mine"], ["Mine"])
    check_readable("test", "report", ["Mine"], [])
    with pytest.raises(InputError, match="may not read test halves"):
        check_readable("test", "tuning", ["Mine"], [])
    for public in ("RuBQRetrieval", "TERRa", "STS22"):
        with pytest.raises(InputError, match=f"{public} is a public task of mteb, which nothing may be tuned on; right would be Mine"):
            check_readable("dev", "tuning", ["Mine"], [public])
    with pytest.raises(InputError, match="no task 'Min'; there are Mine"):
        check_readable("dev", "report", ["Mine"], ["Min"])


def test_a_search_reads_what_it_names_or_all_dev_halves() -> None:
    own = ["Mine", "Yours"]
    assert readable_tasks(own) == ("Mine", "Yours")
    assert readable_tasks(own, ("Yours",)) == ("Yours",)
    with pytest.raises(InputError, match=r"search\.tasks: STS22 is a public task"):
        readable_tasks(own, ("Yours", "STS22"))
    with pytest.raises(InputError, match="no task 'Ours'; there are Mine, Yours"):
        readable_tasks(own, ("Ours",))
    with pytest.raises(InputError, match="there are no tasks; right would be entries under tasks"):
        readable_tasks([])
