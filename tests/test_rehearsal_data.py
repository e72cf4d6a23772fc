"""benchmarks/rehearsal_*.py: data sets for the rehearsal hold what their plan says, whoever writes them."""

import csv
import gzip
import hashlib
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from raysberta.corpus.documents import Found
from raysberta.corpus.normal import words
from raysberta.corpus.packaged import docstrings, legal, wiktionary
from raysberta.data_sets.fetch import fetch
from raysberta.data_sets.outside import units
from raysberta.data_sets.read import read
from raysberta.data_sets.rows import value_at
from raysberta.data_sets.settings import DatasetSource
from raysberta.errors import InputError
from raysberta.nodes import located
from raysberta.pairs.text import normalise
from source_tree import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from rehearsal_generate import download_place, read_plan, write_all
from rehearsal_recipe import rehearsed
from rehearsal_records import Planned, planned, put
from rehearsal_sets import collections
from rehearsal_texts import END, RUN, SCHEMA, Pool, make_pool, read_pools

SIZE = 0.0002
BROKEN = object()
Sources = Mapping[str, DatasetSource]


def a_pool(documents: Iterator[Found], most: int) -> Pool:
    return make_pool(islice(documents, most))


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pools")
    english = (found for part in docstrings.parts(("numpy",), "test") for found in docstrings.read(part, "test"))
    russian = (found for module in (wiktionary, legal) for part in module.parts() for found in islice(module.read(part, "test"), 900))
    for name, documents in (("ru", russian), ("en", english)):
        pool = a_pool(documents, 7000)
        flags = [False] * len(pool.sentences) + [True] * len(pool.aside)
        pq.write_table(pa.table([[*pool.sentences, *pool.aside], flags], SCHEMA), folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def sources(place: Path, pools: Path) -> Sources:
    """The recipe's data sets, with their files, and paths where they lie."""
    recipe = located(rehearsed(SIZE, str(place / "data"), place / "models", str(place / "store"), 2))
    found = {name: source for name, source in recipe.sources.items() if isinstance(source, DatasetSource)}
    write_all(found, place / "downloads", place / "data", pools, 2)
    return found


def test_every_text_of_a_pool_is_another_one(pools: Path) -> None:
    given_pool = read_pools(pools)["ru"]
    pool = Pool(given_pool.sentences[:61], given_pool.aside)
    texts = {pool.text(number, 2, 6) for number in range(pool.numbers)}
    assert len(texts) == pool.numbers == 61 * 61
    assert not texts & {pool.long_text(number) for number in range(200)}
    assert all(len(pool.long_text(number).split()) > 500 for number in range(20))
    assert len({pool.query(number) for number in range(1000, 1061)}) == 61
    assert all(END.split(text)[0] in pool.sentences for text in islice(texts, 50))


def test_sentences_kept_aside_share_no_run_of_words_with_others(pools: Path) -> None:
    for pool in read_pools(pools).values():
        assert len(pool.aside) > 10 and len(pool.sentences) > 1500
        runs = set(all_runs(pool.sentences))
        assert all(own and not own & runs for own in (set(all_runs([sentence])) for sentence in pool.aside))
        assert sum(len(set(all_runs([sentence]))) for sentence in pool.aside) == len(set(all_runs(pool.aside))), "nor with one another"
        assert not set(all_runs(pool.text(number, 2, 6) for number in range(3000))) & set(all_runs(pool.aside)), "nor where sentences meet"
        assert len({normalise(sentence) for sentence in pool.sentences}) == len(pool.sentences)


def test_what_two_sentences_could_spell_where_they_meet_is_not_kept_aside() -> None:
    start = "one two three four five six seven eight nine ten eleven twelve"
    others = [f"Sentence {number} has nothing to do with the others at all." for number in range(50)]
    met = [f"{start}, in the above example.", *others[1:], "In the end nobody knows.", f"{start}."]
    assert not make_pool([Found("", "", " ".join(met))]).aside
    assert make_pool([Found("", "", " ".join(met[:50]))]).aside == met[:1], "but for these two it would be"


def test_at_full_size_the_plan_is_the_published_mixture() -> None:
    recipe = rehearsed(1.0, "data", Path("models"), "store", 2)
    data_sets = {name: source for name, source in recipe.sources.items() if isinstance(source, DatasetSource)}
    plan = {name: own for each in collections(data_sets) for name, own in planned(each).items()}
    assert len(plan) == 54
    assert sum(own.kept for own in plan.values()) == 3_797_000
    assert all(own.kept == data_sets[name].limit for name, own in plan.items())


def test_the_plan_is_what_a_plain_reader_counts(sources: Sources, place: Path) -> None:
    plan = read_plan(place / "data")
    assert plan.keys() == sources.keys()
    held = pq.read_table(place / "data" / "rumteb" / "texts.parquet").to_pylist()
    texts = set(all_runs(row["text"] for row in held if row["part"] == "text"))
    passages = set(all_runs(row["text"] for row in held if row["part"] == "passage"))
    counted = {name: count(name, source, place, texts, passages) for name, source in sources.items()}
    owners: dict[tuple[str, str], str] = {}
    shared: Counter[tuple[str, str]] = Counter()
    for name, (own, keys) in counted.items():
        for key in keys:
            if key in owners:
                shared[name, owners[key]] += 1
                own.rejected["shared"] += 1
            owners.setdefault(key, name)
    for name, (own, keys) in counted.items():
        wanted = plan[name]
        assert own.rows == wanted.rows, name
        assert own.unreadable == wanted.unreadable, name
        assert +own.left_out == +Counter(wanted.left_out), name
        assert own.pairs == wanted.pairs, name
        assert own.passages == wanted.passages, name
        copies = sum(wanted.shared.values())
        assert own.rejected == Counter(wanted.rejected) + Counter(shared=copies), name
        assert {other: number for (mine, other), number in shared.items() if mine == name} == dict(wanted.shared), name
        lost = sum(number for (_, other), number in shared.items() if other == name)
        assert len(keys) - copies - lost >= wanted.kept == sources[name].limit, name


def test_the_plan_is_what_the_platform_reads_from_a_snapshot(sources: Sources, place: Path) -> None:
    plan, indexes = read_plan(place / "data"), fetch(sources, place / "downloads")
    for name, source in sources.items():
        taken = [each for unit in units(name, source) for each in read(unit, source, 100_000)]
        dropped = Counter(indexes[name].dropped if name in indexes else {})
        for each in taken:
            dropped.update(each.dropped)
        assert +dropped == +Counter(plan[name].left_out), name
        assert sum(each.rejected.num_rows for each in taken) == plan[name].unreadable, name
        assert sum(each.pairs.num_rows for each in taken) == plan[name].pairs, name
        if name in indexes:
            assert indexes[name].rows_read == plan[name].rows, name
            assert indexes[name].unreadable == plan[name].unreadable, name


def test_bytes_are_the_same_for_any_number_of_processes(sources: Sources, place: Path, pools: Path, tmp_path: Path) -> None:
    recipe = rehearsed(SIZE, "data", Path("models"), "store", 2)
    some = ("ag_news", "wow", "xsum", "xnli", "paraphrase_nmt_leipzig", "habr_qna_qa", "habr_qna_title_body", "miracl", "opus_100")
    chosen = {name: source for name, source in recipe.sources.items() if isinstance(source, DatasetSource) and name in some}
    found = []
    for workers in (1, 3):
        folder = tmp_path / str(workers)
        write_all(chosen, folder, folder / "data", pools, workers)
        found.append({path.relative_to(folder): digest(path) for path in folder.rglob("*") if path.is_file()})
    assert found[0] == found[1]
    assert {path.suffix for path in found[0]} >= {".parquet", ".csv", ".zst", ".jsonl", ".md", ".json"}


def test_what_is_there_is_not_written_again(sources: Sources, place: Path, pools: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*.*") if path.name not in ("README.md", "plan.json")}
    assert place / "data" / "rumteb" / "texts.parquet" in before
    write_all(sources, place / "downloads", place / "data", pools, 1)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_files_of_another_plan_are_not_taken_for_this_ones(sources: Sources, place: Path, pools: Path) -> None:
    changed = {name: source.model_copy(update={"limit": (source.limit or 0) + 1}) for name, source in sources.items()}
    with pytest.raises(InputError, match="its files are of another recipe or generator; right would be to remove it"):
        write_all(changed, place / "downloads", place / "data", pools, 1)


COLUMNS = st.sampled_from(["query", "answers.text", "translation.ru"])


@settings(max_examples=50)
@given(COLUMNS, st.lists(st.text(min_size=1), min_size=1, max_size=4))
def test_columns_are_read_as_they_were_put(column: str, texts: list[str]) -> None:
    value: Any = texts if column.startswith("answers") else texts[0]
    record: dict[str, Any] = {}
    put(record, column, value)
    assert value_at(record, column) == value
    put(record, "set.0", texts[0])
    put(record, "set.1:", texts)
    assert value_at(record, "set.0") == texts[0] and value_at(record, "set.1:") == texts


def test_a_narrow_encoder_is_the_beginning_of_the_real_one(e5_folder: Path) -> None:
    import torch

    from raysberta.models.load import load_encoder
    from rehearsal_models import INNER, WIDTH, narrow

    whole = load_encoder(e5_folder, layers=1)
    small = narrow(whole)
    query = "encoder.layer.0.attention.self.query.weight"
    assert torch.equal(small.state_dict()[query], whole.state_dict()[query][:WIDTH, :WIDTH])
    assert small.config.intermediate_size == INNER
    assert small(torch.tensor([[0, 5, 6, 2]])).last_hidden_state.shape == (1, 4, WIDTH)


def all_runs(texts: Any) -> Iterator[tuple[str, ...]]:
    for text in texts:
        own = words(text)
        yield from (tuple(own[start : start + RUN]) for start in range(len(own) - RUN + 1))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def count(name: str, source: DatasetSource, place: Path, texts: set, passages: set) -> tuple[Planned, set[tuple[str, str]]]:
    """What a data set holds, read by nothing of the platform but its notation of columns."""
    own, keys = Planned(), set[tuple[str, str]]()
    for query, positives in _taken(source, place, own):
        for positive in positives or [""]:
            own.pairs += 1
            key = (normalise(query), normalise(positive))
            runs = set(all_runs([positive]))
            own.passages += bool(runs & passages) and not runs & texts and key not in keys
            if min(map(len, key)) < 3:
                own.rejected["too_short"] += 1
            elif key[0] == key[1]:
                own.rejected["query_equals_positive"] += 1
            elif len(positive.split()) > 500:
                own.rejected["too_long"] += 1
            elif key in keys:
                own.rejected["duplicate"] += 1
            elif runs & texts:
                own.rejected["in_evaluation"] += 1
            else:
                keys.add(key)
    return own, keys


def _taken(source: DatasetSource, place: Path, own: Planned) -> Iterator[tuple[str, list[str]]]:
    """The queries and positives of all records that the entry does not leave out."""
    grouped: dict[str, list[dict]] = {}
    for record in _records(source, place):
        own.rows += 1
        if record is BROKEN or not isinstance(record, dict):
            own.unreadable += 1
        elif any(str(value_at(record, column)) != wanted for column, wanted in source.where.items()):
            own.left_out["where"] += 1
        elif source.label_field and source.labels.get(str(record[source.label_field]), "unused") == "unused":
            own.left_out["label"] += 1
        elif below := [column for column, least in source.minimum.items() if float(record.get(column) or "-inf") < least]:
            own.left_out[f"minimum:{below[0]}"] += 1
        elif source.label_field or source.order_field:
            grouped.setdefault(record[source.query_field], []).append(record)
        else:
            yield _text(record, source.query_field), _texts(record, source.positive_field)
    for query, records in grouped.items():
        if source.order_field:
            ordered = sorted(records, key=lambda record: int(re.findall(r"\d+$", record[str(source.order_field)])[0]))
            yield query, [" ".join(_text(record, source.positive_field) for record in ordered)]
            continue
        positives = [record for record in records if source.labels[str(record[str(source.label_field)])] == "positive"]
        if positives:
            yield query, [_text(record, source.positive_field) for record in positives]
        else:
            own.left_out["no_positive"] += len(records)


def _text(record: dict, column: str) -> str:
    return (_texts(record, column) or [""])[0]


def _texts(record: dict, column: str) -> list[str]:
    value = value_at(record, column)
    if isinstance(value, list):
        return value
    return [value] if isinstance(value, str) else []


def _records(source: DatasetSource, place: Path) -> Iterator[Any]:
    root = download_place(source, place / "downloads") if source.hub else Path("/")
    patterns = source.files or source.path or f"{source.config or 'data'}/{source.split}-*.parquet"
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        files = sorted(root.glob(pattern.lstrip("/")))
        assert files, pattern
        for file in files:
            yield from _of_file(file)


def _of_file(file: Path) -> Iterator[Any]:
    data = file.read_bytes()
    if file.suffix == ".parquet":
        for number in range((table := pq.read_table(file)).num_rows):
            try:
                yield table.slice(number, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield BROKEN
        return
    if file.suffix == ".gz":
        data = gzip.decompress(data)
    if file.suffix == ".zst":
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    if file.suffix == ".json":
        yield from (record if isinstance(record, dict) else BROKEN for record in json.loads(data))
    elif file.suffix == ".csv":
        header, *rows = csv.reader(io.StringIO(data.decode(), newline=""))
        yield from (dict(zip(header, row, strict=True)) if len(row) == len(header) else BROKEN for row in rows)
    else:
        for line in data.splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                yield BROKEN
