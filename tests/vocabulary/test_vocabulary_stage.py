"""The stage on real texts and a small real model: what it reads, what it writes, what it tells."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedTokenizerFast
from vocabulary_pairs import a_pair

from raysberta.errors import InputError
from raysberta.models.describe import describe
from raysberta.models.fetch import fetch
from raysberta.models.head import load_head
from raysberta.models.load import load_encoder, load_tokenizer
from raysberta.models.settings import Model
from raysberta.prefixes import E5, NOMIC
from raysberta.schema import DOCUMENT, PAIR
from raysberta.storage.artifacts import Artifact, Store
from raysberta.vocabulary.facts import VocabularyFacts
from raysberta.vocabulary.initialise import table
from raysberta.vocabulary.stage import run
from raysberta.vocabulary.texts import TASKS, training_texts, translations
from raysberta.work import Work
from small_models import a_phase


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def a_model(store: Store, name: str, source: Path, kind: str = "encoder") -> Artifact:
    draft = store.draft("model", name)
    use = {"pooling": "mean", "prefixes": "e5"} if kind == "encoder" else {}
    with draft.folder("model") as folder:
        fetch(Model.model_validate({"from": f"path:{source}", "kind": kind, **use}), folder)
    return store.commit(draft, "model", name, {}, {}, 1, 0.0)


def pairs_of(store: Store, name: str, rows: list[dict[str, object]]) -> Artifact:
    draft = store.draft("pairs", name)
    draft.write_table("pairs", pa.Table.from_pylist(rows, PAIR))
    return store.commit(draft, "pairs", name, {}, {}, 1, 0.0)


@pytest.fixture
def inputs(store: Store, small_folder: Path, russian: list[str], english: list[str]) -> dict[str, Artifact]:
    ru = [a_pair(number, "train", "ru", russian[number], russian[number + 60]) for number in range(60)]
    en = [a_pair(100 + number, "train", "en", english[number], english[number + 60]) for number in range(60)]
    held = [a_pair(200 + number, ("dev", "test")[number % 2], "ru", "Zanzibar ЩЪЭ", "Zanzibar") for number in range(20)]
    return {
        "base": a_model(store, "base", small_folder),
        "natural": pairs_of(store, "natural", ru + held),
        "questions": pairs_of(store, "questions", en),
    }


def made(store: Store, inputs: dict[str, Artifact], **settings: object) -> tuple[Artifact, VocabularyFacts]:
    draft = store.draft("vocabulary", "made")
    facts = run(Work(a_phase(**settings), inputs, draft, seed=42, node="fitted"))
    return store.commit(draft, "vocabulary", "made", {}, {}, 1, 0.0, facts), facts


def test_stage_reads_training_texts_of_all_its_pairs(store: Store, inputs: dict[str, Artifact]) -> None:
    artifact, facts = made(store, inputs, trim=True, learn=40, prefixes="nomic", pairs=["natural", "questions"])
    assert artifact.manifest.rows_in == 120 and artifact.told(VocabularyFacts) == facts
    folder = artifact.folder("model")
    model, tokenizer = load_encoder(folder), load_tokenizer(folder)
    assert facts.pieces["after"] == len(tokenizer) == model.config.vocab_size == artifact.manifest.rows_out
    assert facts.parameters_after == model.num_parameters() < facts.parameters_before
    assert set(facts.tokens_before) == {"ru", "en"}
    assert facts.tokens_after["ru"].fertility < facts.tokens_before["ru"].fertility
    assert len(facts.new_pieces) == min(20, facts.pieces["learned"])
    assert not [text for text in tokenizer.get_vocab() if "Zan" in text]
    prefixes = tokenizer.tokenize("search_query: search_document: classification: clustering: query: passage: ")
    assert "<unk>" not in prefixes and len(prefixes) > 14
    _, alone = made(store, inputs, trim=True)
    assert set(alone.tokens_before) == {"ru"} and alone.pieces["trimmed"] > facts.pieces["trimmed"]


def test_training_documents_are_texts_where_they_are_named(
    store: Store, inputs: dict[str, Artifact], russian: list[str], english: list[str]
) -> None:
    """Their titles, texts and sections, never those of dev; but for prefixes, the pairs alone are Russian."""
    draft = store.draft("corpus", "corpus")
    blank = dict.fromkeys(DOCUMENT.names, "x")
    sections = [{"heading": "usage", "text": " ".join(english[80:])}]
    rows = [
        {**blank, "split": "train", "title": "kitchen", "text": " ".join(english[:80]), "sections": sections},
        {**blank, "split": "dev", "title": "кухня", "text": " ".join(russian[120:]), "sections": []},
    ]
    draft.write_table("documents", pa.Table.from_pylist(rows, DOCUMENT))
    given = {**inputs, "corpus": store.commit(draft, "corpus", "corpus", {}, {}, 1, 0.0)}
    artifact, facts = made(store, given, trim=True, documents="corpus")
    tokenizer, base = (load_tokenizer(each.folder("model")) for each in (artifact, inputs["base"]))
    assert all(tokenizer.tokenize(text) == base.tokenize(text) for text in ("kitchen", *english))
    assert any(tokenizer.tokenize(text) != base.tokenize(text) for text in russian[120:])
    _, alone = made(store, inputs, trim=True)
    assert alone.pieces["trimmed"] > facts.pieces["trimmed"] + 50


def test_a_size_is_met_and_told(store: Store, inputs: dict[str, Artifact]) -> None:
    artifact, facts = made(store, inputs, trim=True, size=400, pairs=["natural", "questions"])
    assert facts.pieces == {"before": 900 + 1, "adopted": 0, "adopted_unreachable": 0, "trimmed": 501, "learned": 0, "after": 400}
    assert len(load_tokenizer(artifact.folder("model"))) == load_encoder(artifact.folder("model")).config.vocab_size == 400
    assert facts.parameters_before - facts.parameters_after == (901 + 5 - 400) * 16
    assert set(facts.held_out) == {"ru"} and facts.held_out["ru"].tokens > 0 and facts.held_out["ru"].changed > 0
    with pytest.raises(InputError, match=r"^phases\.fitted: size: 20 cannot be; right would be from "):
        made(store, inputs, trim=True, size=20)


def test_the_model_is_described_as_the_one_it_starts_from(store: Store, inputs: dict[str, Artifact]) -> None:
    """Prefixes that a later phase will teach are read, not yet claimed."""
    folder = made(store, inputs, trim=True, prefixes="nomic")[0].folder("model")
    assert describe(folder) == describe(inputs["base"].folder("model"))
    assert describe(folder).prefixes == E5 and describe(folder).max_tokens == 64
    loaded = SentenceTransformer(str(folder), device="cpu")
    assert loaded.encode(["борщ"], prompt_name="search_query").shape == (1, 16)


def test_without_prefixes_texts_are_read_with_the_models_own(inputs: dict[str, Artifact]) -> None:
    tables = [inputs["natural"].dataset("pairs"), inputs["questions"].dataset("pairs")]
    texts = [text for batch in training_texts(tables, NOMIC, E5) for text in batch]
    assert not [text for text in texts if "Zanzibar" in text]
    assert texts[:16] == [prefixes.of(task, side) for prefixes in (NOMIC, E5) for task in TASKS for side in ("query", "document")]
    assert sum(text.startswith("search_query: ") for text in texts) == 120 + 1
    own = [text for batch in training_texts(tables, E5, E5) for text in batch]
    assert sum(text.startswith("passage: ") for text in own) == 120 + 2


def test_a_donor_may_be_a_tokenizer_unless_its_rows_are_asked_for(
    store: Store, inputs: dict[str, Artifact], wide_folder: Path, unigram: PreTrainedTokenizerFast
) -> None:
    given = {**inputs, "donor": a_model(store, "donor", wide_folder, "tokenizer")}
    artifact, facts = made(store, given, extend_from="donor")
    assert facts.pieces["adopted"] > 100 and len(load_tokenizer(artifact.folder("model"))) > len(unigram)
    with pytest.raises(InputError, match=r"^phases\.fitted: extend_from: procrustes turns the rows of donor, a tokenizer alone"):
        made(store, given, extend_from="donor", initialisation="procrustes")


def test_the_stage_compares_all_that_is_at_hand_and_carries_the_head(
    tmp_path: Path,
    store: Store,
    inputs: dict[str, Artifact],
    wide_folder: Path,
    unigram: PreTrainedTokenizerFast,
    russian: list[str],
    english: list[str],
) -> None:
    """A donor of its own width, vectors and a dictionary in files, an encoder: six initialisations, the chosen one in the model."""
    given = {**inputs, "donor": a_model(store, "donor", wide_folder)}
    draw = np.random.default_rng(0)
    for name, texts in (("en", english), ("ru", russian)):
        words = list(dict.fromkeys(word for text in texts for word in text.split()))[:200]
        lines = [f"{word} {' '.join(map(str, vector))}" for word, vector in zip(words, draw.normal(size=(200, 5)).round(4), strict=True)]
        (tmp_path / f"{name}.vec").write_text("\n".join([f"{len(lines)} 5", *lines]))
        (tmp_path / f"{name}.txt").write_text("\n".join(words))
    columns = [(tmp_path / f"{name}.txt").read_text().split("\n") for name in ("ru", "en")]
    (tmp_path / "d.tsv").write_text("\n".join(map("\t".join, zip(*columns, strict=True))))
    files = {"dictionary": "d.tsv", "source_vectors": "ru.vec", "target_vectors": "en.vec"}
    wechsel = {"source": "ru", "target": "en", **{key: str(tmp_path / name) for key, name in files.items()}}
    settings = {"extend_from": "donor", "initialisation": "procrustes", "learn": 20, "wechsel": wechsel, "alike_by": "base"}
    artifact, facts = made(store, given, pairs=["natural", "questions"], **settings)
    first = facts.first_loss
    assert first is not None and list(first.losses) == ["mean_of_pieces", "gaussian", "focus", "wechsel", "alike", "procrustes"]
    assert first.chosen == "procrustes" and first.head is True and len(set(first.losses.values())) == 6
    fitted, start = artifact.folder("model"), inputs["base"].folder("model")
    model, base = load_encoder(fitted), load_encoder(start)
    head, before = load_head(fitted, model), load_head(start, base)
    assert head.dense is not None and torch.equal(head.dense.weight, before.dense.weight) and before.bias.std() > 0.5
    assert torch.equal(head.bias[: len(unigram)], before.bias[: len(unigram)]) and len(head.bias) == len(table(model))
    piece = len(unigram) + 3
    spelled = [token.id for token in unigram.backend_tokenizer.model.tokenize(load_tokenizer(fitted).convert_ids_to_tokens(piece))]
    assert head.bias[piece].item() == pytest.approx(before.bias[spelled].mean().item(), abs=1e-6)
    assert torch.equal(table(model)[: len(unigram)], table(base)[: len(unigram)])


def test_translations_among_the_pairs_are_read_or_missed(store: Store, inputs: dict[str, Artifact]) -> None:
    """Both initialisations by meaning are compared; of pairs without a translation nothing can be learned."""
    _, facts = made(store, inputs, learn=20, initialisation="translated", alike_by="base")
    first = facts.first_loss
    assert first is not None and first.chosen == "translated" and list(first.losses)[2:] == ["focus", "alike", "translated"]
    with pytest.raises(
        InputError, match=r"^phases\.fitted: translations: no training pairs are \*/translation; right would be the `source/kind`"
    ):
        made(store, inputs, learn=20, initialisation="translated", pairs=["questions"])


def test_translations_are_those_that_are_named_and_of_many_about_so_many(store: Store) -> None:
    rows = [a_pair(number << 20 | number % 2, "train", "ru" if number % 2 else "en", f"q{number}", f"p{number}") for number in range(2000)]
    held = [a_pair(1, "dev", "ru", "held", "held")]
    tables = [pairs_of(store, "many", rows + held).dataset("pairs")]
    found = [list(zip(*batch, strict=True)) for batch in translations(tables, ["*/translation"], 10**6)]
    assert [pair for batch in found for pair in batch] == [(f"q{number}", f"p{number}") for number in range(1, 2000, 2)]
    assert sum(len(first) for first, _ in translations(tables, ["x/*"], 10**6)) == 2000
    assert not any(first for first, _ in translations(tables, ["y/*", "*/opening_rest"], 10**6))
    few = sum(len(first) for first, _ in translations(tables, ["*/translation"], 250))
    assert 200 < few < 600, "the lower half of an id decides"
