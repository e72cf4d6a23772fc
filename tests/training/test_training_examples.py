import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from raysberta.encoder.load import load_tokenizer
from raysberta.errors import InputError
from raysberta.prefixes import E5, Prefixes
from raysberta.training.examples import Examples, prepare
from raysberta.training.guide import make_guide


def row(table: pa.Table, **changes) -> dict:
    return table.slice(0, 1).to_pylist()[0] | changes


def prepared(tiny, table, rows, query_tokens=16, document_tokens=16, negatives=2) -> Examples:
    made = pa.Table.from_pylist(rows, schema=table.schema)
    return prepare([made], load_tokenizer(tiny), Prefixes(), query_tokens, document_tokens, negatives)


def test_each_side_is_read_with_its_prefix_and_cut_to_its_length(tiny, table):
    rows = [row(table, query="мост", positive="река за домом у моста", negatives=["дом"], task="retrieval")]
    examples = prepared(tiny, table, rows, query_tokens=8, document_tokens=6)
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
    examples = prepared(tiny, table, rows)
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
    examples = prepared(tiny, table, rows)
    text = {int(number): name for name, number in zip(["мост", "окно", "дом"], examples.raw[examples.query[[0, 2, 3]]], strict=True)}
    text |= {int(number): name for name, number in zip(["дом", "река", "поезд", "яблоко"], examples.raw[examples.positive], strict=True)}
    friends = [{text[int(friend)] for friend in examples.friends[number]} for number in range(4)]
    assert friends[0] == {"мост", "дом", "река"}
    assert friends[1] == {"мост", "дом", "река"}
    assert friends[2] == {"окно", "поезд"}
    assert friends[3] == {"дом", "яблоко", "мост"}
    assert examples.group.tolist() == [0, 1, 0, 2]
    groups = {name: examples.groups[number].tolist() for number, name in text.items()}
    assert groups == {"мост": [0, 1], "окно": [0], "дом": [0, 2], "река": [1], "поезд": [0], "яблоко": [2]}


def test_the_order_of_rows_and_tables_does_not_matter(tiny, table):
    shuffled = table.take(np.random.default_rng(0).permutation(table.num_rows))
    arguments = (load_tokenizer(tiny), Prefixes(), 16, 16, 2)
    one, other = prepare([table], *arguments), prepare([shuffled.slice(0, 50), shuffled.slice(50)], *arguments)
    assert np.array_equal(one.tokens.values, other.tokens.values) and np.array_equal(one.query, other.query)
    assert np.array_equal(one.negatives.values, other.negatives.values) and one.ids.tolist() == other.ids.tolist()


def test_what_is_saved_is_read_back(examples, tmp_path):
    fs = pafs.LocalFileSystem()
    examples.save(f"{tmp_path}/data.safetensors", fs)
    again = Examples.load(f"{tmp_path}/data.safetensors", fs)
    assert again.sources == examples.sources == ("few/same", "questions/qa", "twins/same")
    assert again.ids.tolist() == examples.ids.tolist()
    for name in ("raw", "source", "query", "positive", "group"):
        assert np.array_equal(getattr(again, name), getattr(examples, name))
    for name in ("tokens", "negatives", "friends", "groups"):
        assert np.array_equal(getattr(again, name).values, getattr(examples, name).values)
        assert np.array_equal(getattr(again, name).offsets, getattr(examples, name).offsets)


def test_no_examples_at_all_is_an_error(tiny, table):
    with pytest.raises(InputError, match="no training example at all"):
        prepare([table.slice(0, 0)], load_tokenizer(tiny), Prefixes(), 16, 16, 2)


def test_the_guides_vectors_follow_their_texts(tiny, table, tmp_path):
    rows = [row(table, query="мост", positive="дом", negatives=["река", "чужой"], task="retrieval")]
    keys = ["query: мост", "passage: дом", "passage: река"]
    values = np.eye(3, dtype=np.float16)
    vectors = pa.table({"key": keys, "vector": pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1), pa.float16()), 3)})
    nothing = pa.table({"key": pa.array([], pa.string()), "vector": pa.array([], pa.list_(pa.float16(), 0))})
    made = pa.Table.from_pylist(rows, schema=table.schema)
    examples = prepare([made], load_tokenizer(tiny), Prefixes(), 16, 16, 2, make_guide([vectors, nothing], E5))
    examples.save(f"{tmp_path}/data", pafs.LocalFileSystem())
    examples = Examples.load(f"{tmp_path}/data", pafs.LocalFileSystem())
    assert examples.guide[examples.query[0]].tolist() == [1, 0, 0]
    assert examples.guide[examples.positive[0]].tolist() == [0, 1, 0]
    assert examples.guide[examples.negatives[0]].tolist() == [[0, 0, 1], [0, 0, 0]], "a supplied negative has none"
    blind = prepare([made], load_tokenizer(tiny), Prefixes(), 16, 16, 2, make_guide([nothing], E5))
    assert blind.guide.shape == (4, 1) and not blind.guide.any()
