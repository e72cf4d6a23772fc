import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pytest
from variants import contrastive_settings

from raysberta.errors import InputError
from raysberta.mining.facts import ExamplesFacts
from raysberta.models.load import load_tokenizer
from raysberta.prefixes import E5, Prefixes
from raysberta.storage.artifacts import Artifact, Store
from raysberta.training.examples import Examples, prepare, prepared
from raysberta.training.guide import make_guide
from raysberta.training.objectives import relations_of


def row(table: pa.Table, **changes) -> dict:
    return table.slice(0, 1).to_pylist()[0] | changes


def made(tiny, table, rows, query_tokens=16, document_tokens=16, negatives=2) -> Examples:
    return prepare(
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
    friends = [{text[int(friend)] for friend in examples.friends[number]} for number in range(4)]
    assert friends[0] == {"мост", "дом", "река"}
    assert friends[1] == {"мост", "дом", "река"}
    assert friends[2] == {"окно", "поезд"}
    assert friends[3] == {"дом", "яблоко", "мост"}
    assert examples.group.tolist() == [0, 1, 0, 2]
    groups = {name: examples.groups[number].tolist() for number, name in text.items()}
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
    rows = pa.Table.from_pylist(rows, schema=table.schema)
    examples = prepare([rows], load_tokenizer(tiny), Prefixes(), 16, 16, 2, make_guide([vectors, nothing], E5))
    examples.save(f"{tmp_path}/data", pafs.LocalFileSystem())
    examples = Examples.load(f"{tmp_path}/data", pafs.LocalFileSystem())
    assert examples.guide[examples.query[0]].tolist() == [1, 0, 0]
    assert examples.guide[examples.positive[0]].tolist() == [0, 1, 0]
    assert examples.guide[examples.negatives[0]].tolist() == [[0, 0, 1], [0, 0, 0]], "a supplied negative has none"
    blind = prepare([rows], load_tokenizer(tiny), Prefixes(), 16, 16, 2, make_guide([nothing], E5))
    assert blind.guide.shape == (4, 1) and not blind.guide.any()


@pytest.fixture
def mined(tmp_path, table):
    """Commits an artifact of examples whose negatives an encoder mined, or none where it is ""; with vectors where asked."""

    def commit(name: str, encoder: str = "models/e5", vectors: bool = True, prefixes: Prefixes = E5) -> Artifact:
        counted = {name: 0 for name, field in ExamplesFacts.model_fields.items() if field.annotation is int}
        empty = {"examples": {}, "pools": {}, "skipped": {}, "histograms": {}, "false_negatives": None, "teacher": ""}
        empty |= {"storage": {"requests": 0, "bytes_read": 0, "bytes_written": 0}}
        facts = ExamplesFacts(**counted, **empty, prefixes=prefixes.model_dump() if encoder else {}, encoder=encoder)
        draft = Store(str(tmp_path)).draft("examples", name * 16)
        rows = [row(table, pair_id=name, query="мост", positive="дом", negatives=["река"], task="retrieval")]
        draft.write_table("examples", pa.Table.from_pylist(rows, schema=table.schema))
        if vectors:
            keys = [prefixes.of("retrieval", "query") + "мост", prefixes.of("retrieval", "document") + "дом"]
            values = pa.FixedSizeListArray.from_arrays(pa.array(np.eye(2, dtype=np.float16).reshape(-1), pa.float16()), 2)
            draft.write_table("vectors", pa.table({"key": keys, "vector": values}))
        return Store(str(tmp_path)).commit(draft, "examples", name * 16, {}, {}, 0, 0.0, facts)

    return commit


def test_examples_are_read_as_the_model_reads_or_as_it_is_to_learn(mined, tiny):
    tokenizer, artifacts = load_tokenizer(tiny), [mined("a"), mined("b", encoder="", vectors=False)]
    for settings, before in ((contrastive_settings(), "search_query: "), (contrastive_settings(prefixes=E5), "query: ")):
        found = prepared(settings, tiny, artifacts)
        assert found.ids.tolist() == [b"a", b"b"]
        assert found.tokens[found.query[0]].tolist() == tokenizer(f"{before}мост")["input_ids"]
        assert found.guide.shape[1] == 0


def test_the_guide_is_the_encoder_that_mined_with_its_own_prefixes(mined, tiny):
    guided = contrastive_settings(guide=True)
    found = prepared(guided, tiny, [mined("a"), mined("b", encoder="", vectors=False)])
    assert found.guide[found.query[0]].tolist() == [1, 0] and found.guide[found.positive[0]].tolist() == [0, 1]
    with pytest.raises(InputError, match=r"^guide: examples/c+ keep no vectors; right would be mine: {keep_vectors: true}"):
        prepared(guided, tiny, [mined("a"), mined("c", vectors=False)])
    with pytest.raises(InputError, match=r"^guide: the examples keep no vectors"):
        prepared(guided, tiny, [mined("b", encoder="", vectors=False)])
    with pytest.raises(InputError, match=r"^guide: the examples were mined by models/e5 and models/other; right would be one encoder"):
        prepared(guided, tiny, [mined("a"), mined("d", encoder="models/other")])
