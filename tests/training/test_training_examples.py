import itertools
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from variants import contrastive_settings, mlm_settings

from raysberta.errors import InputError
from raysberta.mining.facts import ExamplesFacts
from raysberta.models.load import load_tokenizer
from raysberta.prefixes import E5, Prefixes
from raysberta.schema import PAIR
from raysberta.storage import on_disk
from raysberta.storage.artifacts import Artifact, Store
from raysberta.training import arrays
from raysberta.training import examples as examples_module
from raysberta.training import survey as survey_module
from raysberta.training.arrays import Tokens, dealt, grouped, is_whole, ranked
from raysberta.training.batches import ContrastivePlan
from raysberta.training.contrastive import make_batch
from raysberta.training.examples import COLUMNS, Examples, prepare, prepare_tables
from raysberta.training.guide import make_guide
from raysberta.training.objectives import relations_of
from raysberta.training.prepare import prepare_examples, prepare_texts, text_units
from raysberta.training.survey import RowGroup, pieces, reading_of


def row(table: pa.Table, **changes) -> dict:
    return table.slice(0, 1).to_pylist()[0] | changes


def made(tiny, table, rows, query_tokens=16, document_tokens=16, negatives=2) -> Examples:
    return prepare_tables(
        [pa.Table.from_pylist(rows, schema=table.schema)], load_tokenizer(tiny), Prefixes(), query_tokens, document_tokens, negatives
    )


def test_each_side_is_read_with_its_prefix_and_cut_to_its_length(tiny, table):
    rows = [row(table, query="мост", positive="река за домом у моста", negatives=["дом"], task="retrieval")]
    examples = made(tiny, table, rows, query_tokens=8, document_tokens=6)
    tokenizer = load_tokenizer(tiny)
    query = examples.tokens[examples.query[0]].tolist()
    assert query == tokenizer("search_query: мост", max_length=8, truncation=True)["input_ids"]
    positive = examples.tokens[examples.positive[0]].tolist()
    assert positive == tokenizer("search_document: река за домом у моста", max_length=6, truncation=True)["input_ids"]
    assert len(positive) == 6 and positive[-1] == tokenizer.sep_token_id
    assert (
        examples.tokens[examples.negatives[0][0]].tolist() == tokenizer("search_document: дом", max_length=6, truncation=True)["input_ids"]
    )


def test_a_text_is_tokenised_once_and_known_again_under_another_prefix(tiny, table):
    rows = [
        row(table, pair_id="a", query="мост", positive="дом", negatives=["мост", "река"], task="retrieval"),
        row(table, pair_id="b", query="дом", positive="река", negatives=[], task="retrieval"),
    ]
    examples = made(tiny, table, rows)
    assert len(examples.tokens) == 5  # мост and дом stand on both sides, under two prefixes each
    assert examples.raw[examples.query[0]] == examples.raw[examples.negatives[0][0]]
    assert examples.query[0] != examples.negatives[0][0] and examples.negatives[0][1] == examples.positive[1]


def test_friends_are_other_answers_and_texts_know_their_groups(tiny, table):
    rows = [
        row(table, pair_id="a", group="1", query="мост", positive="дом", negatives=[]),
        row(table, pair_id="b", group="2", query="мост", positive="река", negatives=[]),
        row(table, pair_id="c", group="1", query="окно", positive="поезд", negatives=[]),
        row(table, pair_id="d", group="3", query="дом", positive="яблоко", negatives=[]),
    ]
    examples = made(tiny, table, rows)
    text = {int(number): name for name, number in zip(["мост", "окно", "дом"], examples.raw[examples.query[[0, 2, 3]]], strict=True)}
    text |= {int(number): name for name, number in zip(["дом", "река", "поезд", "яблоко"], examples.raw[examples.positive], strict=True)}
    queries = examples.raw[examples.query]
    friends = [{text[int(friend)] for friend in examples.friends[query]} for query in queries]
    assert friends[0] == {"мост", "дом", "река"}
    assert friends[1] == {"мост", "дом", "река"}
    assert friends[2] == {"окно", "поезд"}
    assert friends[3] == {"дом", "яблоко", "мост"}
    assert len(set(examples.group[[0, 1, 3]].tolist())) == 3 and examples.group[0] == examples.group[2]
    numbers = {int(number): place for place, number in enumerate(examples.group[[0, 1, 3]])}
    groups = {name: sorted(numbers[int(group)] for group in examples.groups[number]) for number, name in text.items()}
    assert groups == {"мост": [0, 1], "окно": [0], "дом": [0, 2], "река": [1], "поезд": [0], "яблоко": [2]}


def test_what_became_a_positive_of_a_query_is_no_negative_of_its_other_rows(tiny, table):
    """As relabelling writes it: the same query and group, the text of another pair as positive."""
    rows = [
        row(table, pair_id="a", group="1", query="мост", positive="дом", negatives=["окно"]),
        row(table, pair_id="b", group="1", query="мост", positive="река", negatives=["окно"]),
        row(table, pair_id="c", group="2", query="поезд", positive="река", negatives=["дом"]),
    ]
    examples = made(tiny, table, rows)
    documents = np.asarray([examples.positive[0], examples.positive[1], examples.negatives[0][0]])
    relations = relations_of(examples, np.arange(3), documents)
    assert relations.tolist() == [[1, 0, -1], [0, 1, -1], [-1, 1, -1]]


def same(one: Examples, other: Examples) -> None:
    """Number for number and token for token."""
    assert one.sources == other.sources and one.ids.tolist() == other.ids.tolist()
    for name in ("raw", "source", "query", "positive", "group", "positive_score", "negative_score", "taught"):
        assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name.endswith("score")), name
    for name in ("negatives", "friends", "groups"):
        assert np.array_equal(getattr(one, name).values, getattr(other, name).values), name
        assert np.array_equal(getattr(one, name).offsets, getattr(other, name).offsets), name
    assert [tokens.tolist() for tokens in map(one.tokens.__getitem__, range(len(one.tokens)))] == [
        tokens.tolist() for tokens in map(other.tokens.__getitem__, range(len(other.tokens)))
    ]
    assert one.tokens.highest == other.tokens.highest and np.array_equal(one.tokens.lengths, other.tokens.lengths)


WORDS = ("мост", "дом", "река", "snow", "road", "", "мост у реки", "поезд за домом и ещё чем-то")
word = st.sampled_from(WORDS)
a_row = st.fixed_dictionaries(
    {
        "group": st.sampled_from("abc"),
        "source": st.sampled_from(["s", "t"]),
        "kind": st.just("k"),
        "task": st.sampled_from(["retrieval", "paraphrase", "topic"]),
        "query": word,
        "positive": word,
        "negatives": st.lists(word, max_size=4),
        "positive_score": st.none() | st.floats(0, 1, width=32),
    }
)


@pytest.fixture(scope="module", params=[None, 4], ids=["at once", "in parts"])
def sorted_so(request) -> Iterator[None]:
    """How many numbers are sorted at once: as always, or so few that it takes many parts, and all on disk."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param is not None:
            patch.setattr(arrays, "AT_ONCE", request.param)
            patch.setattr(arrays, "DRAWN", 2)
            patch.setattr(arrays, "COMPARED_AT_ONCE", 3)
            patch.setattr(on_disk, "IN_MEMORY", 0)
            for module in (arrays, examples_module, survey_module):
                patch.setattr(module, "ROWS_AT_ONCE", request.param)
        yield


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.lists(a_row, min_size=1, max_size=12), st.lists(st.integers(1, 11), max_size=3, unique=True), st.sampled_from([Prefixes(), E5]))
def test_numbers_and_tokens_are_those_of_a_loop_over_the_texts(sorted_so, tiny, table, rows, cuts, prefixes):
    """Whatever the units; dictionaries of texts stand for the hashes."""
    full = [
        row(table, pair_id=f"{number:03d}", **given, negative_scores=[0.5] * len(given["negatives"])) for number, given in enumerate(rows)
    ]
    whole, tokenizer = pa.Table.from_pylist(full, schema=table.schema), load_tokenizer(tiny)
    bounds = [0, *sorted(cut for cut in cuts if cut < len(full)), len(full)]
    parts = [whole.slice(start, stop - start) for start, stop in itertools.pairwise(bounds)]
    found = prepare_tables(parts[::-1], tokenizer, prefixes, 7, 5, 3)
    same(found, prepare_tables([whole], tokenizer, prefixes, 7, 5, 3))
    answers, groups, text_of, read = defaultdict(set), defaultdict(set), {}, {}

    def check(number: int, side: str, text: str, task: str) -> None:
        cut = {"query": 7, "document": 5}[side]
        assert found.tokens[number].tolist() == tokenizer(prefixes.of(task, side) + text, truncation=True, max_length=cut)["input_ids"]
        assert text_of.setdefault(int(found.raw[number]), text) == text
        assert read.setdefault(int(number), (prefixes.of(task, side), cut, text)) == (prefixes.of(task, side), cut, text)

    for number, item in enumerate(full):
        check(found.query[number], "query", item["query"], item["task"])
        check(found.positive[number], "document", item["positive"], item["task"])
        hard = found.negatives[number]
        assert len(hard) == min(3, len(item["negatives"]))
        for sequence, text in zip(hard, item["negatives"], strict=False):
            check(sequence, "document", text, item["task"])
        assert found.sources[found.source[number]] == f"{item['source']}/k"
        answers[item["query"]] |= {item["query"], item["positive"]}
        answers[item["positive"]] |= {item["query"], item["positive"]}
        for side in ("query", "positive"):
            groups[item[side]].add(item["group"])
    assert len(set(text_of.values())) == len(text_of) == len(found.friends) and len(set(read.values())) == len(read) == len(found.tokens)
    names = {int(number): item["group"] for number, item in zip(found.group, full, strict=True)}
    for number, text in text_of.items():
        assert {text_of[int(friend)] for friend in found.friends[number]} == answers[text]
        assert {names[int(group)] for group in found.groups[number]} == groups[text]
    scores = [np.nan if item["positive_score"] is None else item["positive_score"] for item in full]
    assert np.array_equal(found.positive_score, np.asarray(scores, np.float32), equal_nan=True)


def test_the_order_of_rows_and_tables_does_not_matter(tiny, table):
    shuffled = table.take(np.random.default_rng(0).permutation(table.num_rows))
    arguments = (load_tokenizer(tiny), Prefixes(), 16, 16, 2)
    same(prepare_tables([table], *arguments), prepare_tables([shuffled.slice(0, 50), shuffled.slice(50)], *arguments))


def test_row_groups_of_files_give_what_the_table_gives_and_the_same_batches(tiny, table, examples, tmp_path):
    """Files of other sizes, row groups of other sizes, pieces of some hundred tokens."""
    shuffled = table.take(np.random.default_rng(1).permutation(table.num_rows))
    units = []
    for number, (first, last) in enumerate([(0, 0), (0, 90), (90, 243)]):
        pq.write_table(shuffled.slice(first, last - first), tmp_path / f"{number}.parquet", row_group_size=37)
        groups = pq.ParquetFile(tmp_path / f"{number}.parquet").num_row_groups
        units += [RowGroup(str(tmp_path), str(tmp_path / f"{number}.parquet"), group, COLUMNS) for group in range(groups)]
    reading = reading_of({"query": 16, "document": 16}, Prefixes(), negatives=2)
    found = prepare(units, reading, lambda _, unit, wanted: pieces(unit, reading, wanted, load_tokenizer(tiny)))
    same(found, examples)
    chosen = contrastive_settings(chunk_tokens=96)
    plans = [ContrastivePlan(each, 8, 2, {}, seed=0) for each in (found, examples)]
    for step in (0, 5, 40):
        left, right = (
            make_batch(each, plan.step(step), chosen, torch.device("cpu")) for each, plan in zip((found, examples), plans, strict=True)
        )
        assert torch.equal(left.chunks.vocabulary, right.chunks.vocabulary) and torch.equal(left.rows, right.rows)
        assert all(torch.equal(one.tokens, two.tokens) for one, two in zip(left.chunks.chunks, right.chunks.chunks, strict=True))
        assert all(torch.equal(one.relations, two.relations) for one, two in zip(left.batches, right.batches, strict=True))


def test_what_is_saved_is_read_back_by_memory_map(examples, tmp_path):
    examples.save(f"{tmp_path}/data")
    again = Examples.load(f"{tmp_path}/data")
    same(again, examples)
    assert again.sources == ("few/same", "questions/qa", "twins/same")
    for values in (again.tokens.parts[0], again.query, again.friends.values):
        assert isinstance(values.base, np.memmap) and not values.flags.writeable
    (tmp_path / "data" / "index.json").unlink()
    with pytest.raises(FileNotFoundError):
        Examples.load(f"{tmp_path}/data")


@given(st.lists(st.integers(0, 40)), st.sampled_from([np.uint64, np.int32]))
def test_distinct_values_their_first_places_and_numbers_are_numpys(sorted_so, values, kind):
    values = np.asarray(values, kind)
    expected = np.unique(values, return_index=True, return_inverse=True)
    for mine, theirs in zip(ranked(values), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert ranked(values)[0].dtype == kind and ranked(values)[1].dtype == ranked(values)[2].dtype == np.int32


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5))), st.lists(st.integers(0, 11)))
def test_rows_are_grouped_and_taken_as_lists_are(sorted_so, pairs, order):
    rows, values = (np.asarray([pair[side] for pair in pairs], np.int32) for side in (0, 1))
    found = grouped(rows, values, 12)
    expected = [sorted({value for row, value in pairs if row == number}) for number in range(12)]
    assert [found[row].tolist() for row in range(len(found))] == expected
    taken = found.take(np.asarray(order, np.int64))
    assert [taken[row].tolist() for row in range(len(taken))] == [expected[row] for row in order]


@given(st.lists(st.integers(0, 9)))
def test_values_are_dealt_to_rows_in_the_order_in_which_they_come(sorted_so, rows):
    values = np.arange(100, 100 + len(rows), dtype=np.uint64)
    found = dealt(values, np.asarray(rows, np.int32), 12)
    assert [of_row.tolist() for of_row in found] == [
        [100 + place for place, row in enumerate(rows) if row == number] for number in range(12)
    ]


def test_an_array_that_the_disk_has_no_room_for_is_refused_before_anything_is_written():
    with pytest.raises(OSError, match=r"No space left|File too large"):
        on_disk.empty(1 << 60, np.uint8)


def test_what_grows_on_a_full_disk_is_refused_whatever_its_size(tmp_path):
    """A limit on the size of files stands for the disk; it ends a process's every file there, so it is one of its own."""
    program = (
        "import resource, signal, numpy as np; from raysberta.storage.on_disk import joined; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); joined([np.arange(100)] * 10, np.int64)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": "platform"})
    assert done.returncode and "OSError" in done.stderr, done.stderr


def test_what_grows_is_whole_whatever_the_parts():
    grown = on_disk.joined((np.arange(3), np.arange(0), np.arange(3, 9, 2)), np.int32)
    assert grown.tolist() == [0, 1, 2, 3, 5, 7] and grown.dtype == np.int32
    assert on_disk.joined((), np.uint64).tolist() == []


def test_no_examples_at_all_is_an_error(tiny, table):
    with pytest.raises(InputError, match="no training example at all"):
        prepare_tables([table.slice(0, 0)], load_tokenizer(tiny), Prefixes(), 16, 16, 2)


def test_the_guides_vectors_follow_their_texts(tiny, table, tmp_path):
    rows = [row(table, query="мост", positive="дом", negatives=["река", "чужой"], task="retrieval")]
    keys = ["query: мост", "passage: дом", "passage: река"]
    values = np.eye(3, dtype=np.float16)
    vectors = pa.table({"key": keys, "vector": pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1), pa.float16()), 3)})
    nothing = pa.table({"key": pa.array([], pa.string()), "vector": pa.array([], pa.list_(pa.float16(), 0))})
    rows = pa.Table.from_pylist(rows, schema=table.schema)
    examples = prepare_tables([rows], load_tokenizer(tiny), Prefixes(), 16, 16, 2, make_guide([vectors, nothing], E5))
    examples.save(f"{tmp_path}/data")
    examples = Examples.load(f"{tmp_path}/data")
    assert examples.guide[examples.query].tolist() == [[1, 0, 0]]
    assert examples.guide[examples.positive].tolist() == [[0, 1, 0]]
    assert examples.guide[examples.negatives[0]].tolist() == [[0, 0, 1], [0, 0, 0]], "a supplied negative has none"
    blind = prepare_tables([rows], load_tokenizer(tiny), Prefixes(), 16, 16, 2, make_guide([nothing], E5))
    assert blind.guide[np.arange(4)].shape == (4, 0) and not relations_of(blind, np.arange(1), np.arange(4), 0.0).all()


@pytest.fixture
def mined(tmp_path, table):
    """Commits an artifact of examples whose negatives an encoder mined, or none where it is ""; with vectors where asked."""

    def commit(name: str, encoder: str = "models/e5", vectors: bool = True, prefixes: Prefixes = E5) -> Artifact:
        counted = {name: 0 for name, field in ExamplesFacts.model_fields.items() if field.annotation is int}
        empty = {"examples": {}, "pools": {}, "skipped": {}, "histograms": {}, "false_negatives": None, "teacher": ""}
        empty |= {"storage": {"requests": 0, "bytes_read": 0, "bytes_written": 0}}
        facts = ExamplesFacts(**counted, **empty, prefixes=prefixes.model_dump(exclude_none=True) if encoder else {}, encoder=encoder)
        draft = Store(str(tmp_path)).draft("examples", name * 16)
        rows = [row(table, pair_id=name, query="мост", positive="дом", negatives=["река"], task="retrieval")]
        draft.write_table("examples", pa.Table.from_pylist(rows, schema=table.schema))
        if vectors:
            keys = [prefixes.of("retrieval", "query") + "мост", prefixes.of("retrieval", "document") + "дом"]
            values = pa.FixedSizeListArray.from_arrays(pa.array(np.eye(2, dtype=np.float16).reshape(-1), pa.float16()), 2)
            draft.write_table("vectors", pa.table({"key": keys, "vector": values}))
        return Store(str(tmp_path)).commit(draft, "examples", name * 16, {}, {}, 0, 0.0, facts)

    return commit


@pytest.fixture
def model(tmp_path, tiny) -> Artifact:
    """The small encoder as a node's output."""
    draft = Store(str(tmp_path)).draft("model", "0" * 16)
    with draft.folder("model") as folder:
        shutil.copytree(tiny, folder, dirs_exist_ok=True)
    return Store(str(tmp_path)).commit(draft, "model", "0" * 16, {}, {}, 0, 0.0)


def test_examples_are_read_as_the_model_reads_or_as_it_is_to_learn(mined, model, tiny, tmp_path):
    tokenizer, artifacts = load_tokenizer(tiny), [mined("a"), mined("b", encoder="", vectors=False)]
    for number, (chosen, before) in enumerate(((contrastive_settings(), "search_query: "), (contrastive_settings(prefixes=E5), "query: "))):
        found = prepare_examples(chosen, model, artifacts, f"{tmp_path}/data{number}")
        assert found.ids.tolist() == [b"a", b"b"]
        assert found.tokens[found.query[0]].tolist() == tokenizer(f"{before}мост")["input_ids"]
        assert found.guide.dimension == 0


def test_the_guide_is_the_encoder_that_mined_with_its_own_prefixes(mined, model, tmp_path):
    guided, places = contrastive_settings(guide=True), iter(f"{tmp_path}/guided{number}" for number in range(9))
    found = prepare_examples(guided, model, [mined("a"), mined("b", encoder="", vectors=False)], next(places))
    assert found.guide[found.query].tolist() == [[1, 0]] * 2 and found.guide[found.positive].tolist() == [[0, 1]] * 2
    with pytest.raises(InputError, match=r"^guide: examples/c+ keep no vectors; right would be mine: {keep_vectors: true}"):
        prepare_examples(guided, model, [mined("a"), mined("c", vectors=False)], next(places))
    with pytest.raises(InputError, match=r"^guide: the examples keep no vectors"):
        prepare_examples(guided, model, [mined("b", encoder="", vectors=False)], next(places))
    with pytest.raises(InputError, match=r"^guide: the examples were mined by models/e5 and models/other; right would be one encoder"):
        prepare_examples(guided, model, [mined("a"), mined("d", encoder="models/other")], next(places))


def test_what_a_killed_run_left_half_is_made_again_and_what_is_whole_is_read(mined, model, tmp_path):
    place, artifacts = f"{tmp_path}/data", [mined("a"), mined("b")]
    first = prepare_examples(contrastive_settings(), model, artifacts, place)
    same(first, prepare_examples(contrastive_settings(), model, [], place))
    (tmp_path / "data" / "index.json").unlink()
    np.save(tmp_path / "data" / "tokens-000009-0000.npy", np.zeros(3, np.int32))
    assert not is_whole(place)
    same(prepare_examples(contrastive_settings(), model, artifacts, place), first)


def test_masked_texts_are_the_distinct_ones_of_training_pairs_in_an_order_of_their_own(model, table, tiny, tmp_path):
    rows = [item | {"split": ("train", "dev")[number % 5 == 0]} for number, item in enumerate(table.select(PAIR.names).to_pylist())]
    tokenizer, found = load_tokenizer(tiny), []
    for number, parts in enumerate(([rows], [rows[150:], rows[:150]])):
        pairs = []
        for part in parts:
            mark = f"{number}{len(pairs)}" * 8
            draft = Store(str(tmp_path)).draft("pairs", mark)
            draft.write_table("pairs", pa.Table.from_pylist(part, schema=PAIR))
            pairs.append(Store(str(tmp_path)).commit(draft, "pairs", mark, {}, {}, 0, 0.0))
        named = {f"p{place}": artifact for place, artifact in enumerate(pairs)}
        phase = mlm_settings(max_tokens=6, pairs=tuple(named))
        tokens = prepare_texts(phase, model, text_units(phase, named), f"{tmp_path}/texts{number}")
        found.append([tokens[text].tolist() for text in range(len(tokens))])
    texts = {item[side] for item in rows if item["split"] == "train" for side in ("query", "positive")}
    assert found[0] == found[1] and len(found[0]) == len(texts)
    assert sorted(found[0]) == sorted(tokenizer(sorted(texts), truncation=True, max_length=6)["input_ids"])
    assert isinstance(tokens, Tokens) and tokens.count == sum(map(len, found[0]))
    with pytest.raises(InputError, match="no training text at all"):
        prepare_texts(mlm_settings(), model, [], f"{tmp_path}/none")
