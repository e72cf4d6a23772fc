"""Trimmed, learned and adopted vocabularies, on small trained tokenizers and on the real mE5."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from transformers import AutoTokenizer, BertModel, PreTrainedTokenizerFast

from raysberta.artifacts import Artifact, Store
from raysberta.encoder.extend import learn
from raysberta.encoder.fetch import fetch, model_folder
from raysberta.encoder.head import load_head
from raysberta.encoder.initialise import install, rows, table
from raysberta.encoder.load import load_encoder, load_tokenizer, save
from raysberta.encoder.pieces import read
from raysberta.encoder.stage import sample_texts, training_texts, vocabulary
from raysberta.encoder.vocabulary import apply, fertility, neighbours, revise
from raysberta.errors import InputError
from raysberta.recipe import Recipe, Vocabulary
from raysberta.retrieval.embed import Embedder
from raysberta.schema import PAIR, text_id


def tokens(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[str]]:
    return [encoding.tokens for encoding in tokenizer.backend_tokenizer.encode_batch(list(texts))]


def test_trimmed_unigram_is_exact_on_its_corpus(
    tmp_path: Path, unigram: PreTrainedTokenizerFast, unigram_model: BertModel, russian: list[str]
) -> None:
    corpus = russian[:150]
    revision = revise(unigram, [corpus[:70], corpus[70:]], Vocabulary(trim=True))
    assert revision.counts["trimmed"] > 100 and revision.counts["after"] == len(unigram) - revision.counts["trimmed"]
    before = table(unigram_model).clone()
    save(unigram_model, unigram, tmp_path / "old")
    apply(unigram_model, revision, Vocabulary(trim=True), seed=1)
    save(unigram_model, revision.tokenizer, tmp_path / "new")
    new = load_tokenizer(tmp_path / "new")
    assert tokens(new, corpus) == tokens(unigram, corpus)
    for text in new.get_vocab():
        assert torch.equal(table(unigram_model)[new.convert_tokens_to_ids(text)], before[unigram.convert_tokens_to_ids(text)])
    ours, theirs = (Embedder(tmp_path / name, "mean", 64, "fp32", device="cpu").encode(corpus) for name in ("new", "old"))
    assert (ours * theirs).sum(1).min() > 0.99999


def test_special_tokens_survive_a_trim(
    tmp_path: Path, unigram: PreTrainedTokenizerFast, unigram_model: BertModel, russian: list[str]
) -> None:
    revision = revise(unigram, [russian[:20]], Vocabulary(trim=True))
    apply(unigram_model, revision, Vocabulary(trim=True), seed=1)
    save(unigram_model, revision.tokenizer, tmp_path)
    new, config = AutoTokenizer.from_pretrained(tmp_path), load_encoder(tmp_path).config
    assert config.vocab_size == len(new) == len(revision.texts)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (new.pad_token_id, new.bos_token_id, new.eos_token_id)
    assert new.mask_token_id == len(new) - 1 != unigram.mask_token_id
    assert new.convert_ids_to_tokens(new("<mask>")["input_ids"])[:1] == ["<s>"] and new.mask_token_id in new("да <mask>")["input_ids"]
    assert new.model_max_length == 64


def test_unseen_words_are_spelled_not_unknown(unigram: PreTrainedTokenizerFast) -> None:
    revision = revise(unigram, [["включи свет", "turn on the light"] * 5], Vocabulary(trim=True))
    assert revision.counts["after"] < 250
    unseen = ["щука, ёж и фагот!", "quick brown vizier: 0123456789?"]
    known = [text for text in unseen if unigram.unk_token not in tokens(unigram, [text])[0]]
    assert known, "the probe must be spelled by the whole vocabulary"
    for row in tokens(revision.tokenizer, known):
        assert revision.tokenizer.unk_token not in row


def test_learned_pieces_keep_old_ids_and_shorten_texts(unigram: PreTrainedTokenizerFast, russian: list[str], english: list[str]) -> None:
    corpus = russian + english
    revision = revise(unigram, [corpus], Vocabulary(learn=150))
    old, new = unigram.get_vocab(), revision.tokenizer.get_vocab()
    assert all(new[text] == number for text, number in old.items())
    assert 100 < revision.counts["learned"] <= 150
    added = set(new) - set(old)
    assert min(new[text] for text in added) == len(old)
    before, after = (fertility(tokenizer, {"ru": russian, "en": english}) for tokenizer in (unigram, revision.tokenizer))
    for language in ("ru", "en"):
        assert after[language]["fertility"] < 0.95 * before[language]["fertility"]
        assert after[language]["unknown"] <= before[language]["unknown"] + 0.001
    used = {token for row in tokens(revision.tokenizer, corpus) for token in row}
    assert len(added & used) > 0.9 * len(added)
    assert not [text for text in added if any(character.isdigit() for character in text)]


def test_learning_is_the_same_in_any_order(unigram: PreTrainedTokenizerFast, russian: list[str]) -> None:
    settings = Vocabulary(trim=True, learn=40)
    forward, backward = revise(unigram, [russian], settings), revise(unigram, [russian[::-1][:99], russian[::-1][99:]], settings)
    assert forward.texts == backward.texts


def test_learn_counts_by_hand(unigram: PreTrainedTokenizerFast) -> None:
    pieces = read(unigram)
    number = {text: place for place, text in enumerate(pieces.texts)}
    letters = {character: number[character] for character in "абвг"}
    word = tuple(letters[character] for character in "абв")
    other = tuple(letters[character] for character in "абг")
    learned = learn(pieces, {word: 8, other: 6, (letters["г"],): 14}, 5)
    new = dict(zip(learned.texts[len(pieces) :], learned.scores[len(pieces) :], strict=True))
    # "аб" 14 times, then "абв" 8 and "абг" 6 times absorb it; what is left unused is not kept
    assert set(new) == {"абв", "абг"}
    assert new["абв"] == pytest.approx(np.log(8 / 28)) and new["абг"] == pytest.approx(np.log(6 / 28))


def test_new_rows_are_the_mean_of_the_pieces_that_spell_them(
    unigram: PreTrainedTokenizerFast, unigram_model: BertModel, russian: list[str]
) -> None:
    before = table(unigram_model).clone()
    settings = Vocabulary(learn=30)
    revision = revise(unigram, [russian], settings)
    apply(unigram_model, revision, settings, seed=1)
    after = table(unigram_model)
    assert torch.equal(after[: len(unigram)], before[: len(unigram)])
    for number in range(len(unigram), len(revision.texts)):
        spelled = [token.id for token in unigram.backend_tokenizer.model.tokenize(revision.texts[number])]
        assert len(spelled) > 1 and torch.allclose(after[number], before[spelled].mean(0))
    samples = neighbours(revision, after)
    assert len(samples) == 20 and all(len(sample["nearest"]) == 3 for sample in samples)


def test_gaussian_rows_follow_the_old_ones() -> None:
    old = torch.randn(500, 6) * torch.tensor([1.0, 2, 3, 4, 5, 6]) + 7
    new = rows(old, [*range(500), *[(1, 2)] * 4000], "gaussian", seed=3)
    assert torch.equal(new[:500], old)
    assert torch.allclose(new[500:].std(0), old.std(0), rtol=0.1) and torch.allclose(new[500:].mean(0), old.mean(0), atol=0.4)
    assert torch.equal(new, rows(old, [*range(500), *[(1, 2)] * 4000], "gaussian", seed=3))
    assert not torch.equal(new, rows(old, [*range(500), *[(1, 2)] * 4000], "gaussian", seed=4))


def test_untouched_vocabulary_keeps_everything(unigram: PreTrainedTokenizerFast, unigram_model: BertModel) -> None:
    before = table(unigram_model).clone()
    revision = revise(unigram, iter([]), Vocabulary())
    apply(unigram_model, revision, Vocabulary(), seed=1)
    assert revision.tokenizer is unigram and torch.equal(table(unigram_model), before)


def test_donor_tokens_are_appended(
    tmp_path: Path,
    russian_bpe: PreTrainedTokenizerFast,
    english_bpe: PreTrainedTokenizerFast,
    bpe_model: BertModel,
    russian: list[str],
    english: list[str],
) -> None:
    settings = Vocabulary(extend_from="path:/donor")
    revision = revise(russian_bpe, iter([]), settings, english_bpe)
    old, new, donor = russian_bpe.get_vocab(), revision.tokenizer.get_vocab(), english_bpe.get_vocab()
    assert all(new[text] == number for text, number in old.items())
    assert set(new) == set(old) | set(donor)
    assert revision.counts["adopted"] == len(set(donor) - set(old)) > 100
    before, after, alone = (
        fertility(tokenizer, {"ru": russian, "en": english}) for tokenizer in (russian_bpe, revision.tokenizer, english_bpe)
    )
    assert after["en"]["fertility"] < 0.8 * before["en"]["fertility"]
    assert after["en"]["fertility"] < 1.1 * alone["en"]["fertility"]
    assert after["ru"]["fertility"] <= before["ru"]["fertility"]
    assert revision.counts["adopted_unreachable"] < 0.1 * revision.counts["adopted"]
    apply(bpe_model, revision, settings, seed=1)
    save(bpe_model, revision.tokenizer, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in (*russian[:100], *english[:100]):
        ids = loaded(text)["input_ids"]
        assert ids == revision.tokenizer(text)["input_ids"]
        assert loaded.decode(ids, skip_special_tokens=True) == text
        assert (ids[0], ids[-1]) == (loaded.bos_token_id, loaded.eos_token_id)


def test_trimmed_bpe_is_exact_and_learns_merges(russian_bpe: PreTrainedTokenizerFast, russian: list[str]) -> None:
    corpus = russian[:40]
    trimmed = revise(russian_bpe, [corpus], Vocabulary(trim=True))
    assert trimmed.counts["trimmed"] > 50
    assert tokens(trimmed.tokenizer, corpus) == tokens(russian_bpe, corpus)
    learned = revise(russian_bpe, [russian], Vocabulary(learn=60))
    assert learned.counts["learned"] == 60
    used = {token for row in tokens(learned.tokenizer, russian) for token in row}
    assert len(used & set(learned.texts[len(russian_bpe) :])) > 30
    assert fertility(learned.tokenizer, {"ru": russian})["ru"]["fertility"] < fertility(russian_bpe, {"ru": russian})["ru"]["fertility"]


def test_what_cannot_be_done_is_refused(
    unigram: PreTrainedTokenizerFast, english_bpe: PreTrainedTokenizerFast, unigram_model: BertModel
) -> None:
    with pytest.raises(InputError, match="merges bpe into unigram"):
        revise(unigram, iter([]), Vocabulary(extend_from="path:/donor"), english_bpe)
    pieces = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")), unk_token="[UNK]")
    with pytest.raises(InputError, match="WordPiece"):
        revise(pieces, iter([]), Vocabulary(trim=True))
    unigram_model.config.model_type = "xlm-roberta"
    with pytest.raises(InputError, match="counts positions"):
        install(unigram_model, english_bpe, table(unigram_model))


def a_pair(number: int, split: str, language: str, query: str, positive: str) -> dict[str, object]:
    kind = "translation" if language == "ru" and number % 2 else "term_definition"
    row: dict[str, object] = dict.fromkeys(PAIR.names, "x")
    return {
        **row,
        "pair_id": f"{number:016x}",
        "split": split,
        "task": "retrieval",
        "kind": kind,
        "language": language,
        "query": query,
        "positive": positive,
        "negatives": [],
    }


@pytest.fixture
def inputs(tmp_path: Path, small_folder: Path, russian: list[str], english: list[str]) -> dict[str, Artifact]:
    store = Store(str(tmp_path / "inputs"))
    models = store.draft("models", "m")
    with models.folder("encoder") as folder:
        save(load_encoder(small_folder), load_tokenizer(small_folder), folder)
    models.metrics["roles"] = {"encoder": "encoder"}
    pairs = store.draft("pairs", "p")
    ru = [a_pair(number, "train", "ru", russian[number], russian[number + 60]) for number in range(60)]
    en = [a_pair(100 + number, "train", "en", english[number], english[number + 60]) for number in range(60)]
    held = [a_pair(200 + number, ("dev", "test")[number % 2], "ru", "Zanzibar ЩЪЭ", "Zanzibar") for number in range(20)]
    pairs.write_table("pairs", pa.Table.from_pylist(ru + held + en, PAIR))
    return {name: store.commit(draft, name, name[0], {}, {}, 1, 0.0) for name, draft in (("models", models), ("pairs", pairs))}


def test_stage_reads_training_texts_alone(tmp_path: Path, ray_local: None, inputs: dict[str, Artifact]) -> None:
    recipe = Recipe.model_validate(
        {"name": "test", "sources": {"words": {"kind": "wiki_ru_wordnet"}}, "encoder": {"vocabulary": {"trim": True, "learn": 40}}}
    )
    texts = [text for batch in training_texts(inputs["pairs"].dataset("pairs"), recipe) for text in batch]
    assert not [text for text in texts if "Zanzibar" in text]
    assert "search_document: " in texts and "passage: " in texts
    assert sum(text.startswith("search_query: ") for text in texts) == 120 + 1
    sample = sample_texts(inputs["pairs"].dataset("pairs"))
    assert {language: len(rows) for language, rows in sample.items()} == {"en": 60, "ru": 60}
    store = Store(str(tmp_path / "out"))
    draft = store.draft("vocabulary", "v")
    vocabulary(recipe, inputs, draft)
    assert draft.rows_in == 120
    made = store.commit(draft, "vocabulary", "v", {}, {}, 1, 0.0)
    metrics = made.manifest.metrics
    model, tokenizer = load_encoder(made.folder("model")), load_tokenizer(made.folder("model"))
    assert metrics["pieces"]["after"] == len(tokenizer) == model.config.vocab_size == draft.rows_out
    assert metrics["parameters"]["after"] == model.num_parameters() < metrics["parameters"]["before"]
    assert metrics["tokens"]["after"]["ru"]["fertility"] < metrics["tokens"]["before"]["ru"]["fertility"]
    assert len(metrics["new_pieces"]) == min(20, metrics["pieces"]["learned"])
    assert not [text for text in tokenizer.get_vocab() if "Zan" in text]
    prefixes = tokens(tokenizer, ["search_query: search_document: classification: clustering: query: passage: "])[0]
    assert "<unk>" not in prefixes and len(prefixes) > 14


def test_real_encoder_trimmed_embeds_as_before(tmp_path: Path, e5_folder: Path, russian: list[str], english: list[str]) -> None:
    corpus = [f"search_query: {text}" for text in russian + english]
    old, model = load_tokenizer(e5_folder), load_encoder(e5_folder)
    revision = revise(old, [corpus], Vocabulary(trim=True))
    assert 3000 < revision.counts["after"] < 8000
    apply(model, revision, Vocabulary(trim=True), seed=1)
    save(model, revision.tokenizer, tmp_path)
    new = load_tokenizer(tmp_path)
    assert tokens(new, corpus) == tokens(old, corpus)
    probe = sorted(corpus, key=len)[-40::2]
    ours, theirs = (Embedder(folder, "mean", 64, "fp32", device="cpu").encode(probe) for folder in (tmp_path, e5_folder))
    assert (ours * theirs).sum(1).min() > 0.99999


def test_pieces_of_a_unigram_donor_are_appended(
    unigram: PreTrainedTokenizerFast, english_unigram: PreTrainedTokenizerFast, english: list[str], russian: list[str]
) -> None:
    donor = english_unigram
    revision = revise(unigram, iter([]), Vocabulary(extend_from="path:/donor"), donor)
    old, new = unigram.get_vocab(), revision.tokenizer.get_vocab()
    assert all(new[text] == number for text, number in old.items())
    assert set(new) == set(old) | set(donor.get_vocab()) and revision.counts["adopted"] == len(new) - len(old) > 100
    assert revision.counts["adopted_unreachable"] < 0.1 * revision.counts["adopted"]
    before, after = (fertility(tokenizer, {"ru": russian, "en": english}) for tokenizer in (unigram, revision.tokenizer))
    assert after["en"]["fertility"] < 0.95 * before["en"]["fertility"] and after["en"]["unknown"] <= before["en"]["unknown"]
    assert after["ru"]["fertility"] <= 1.01 * before["ru"]["fertility"]
    pieces, theirs = read(revision.tokenizer), read(donor)
    shared = [text for text in theirs.texts if text in old and text not in theirs.special]
    moved = np.median([pieces.scores[old[text]] - theirs.scores[theirs.texts.index(text)] for text in shared])
    added = next(text for text in theirs.texts if text not in old)
    assert pieces.scores[new[added]] == pytest.approx(theirs.scores[theirs.texts.index(added)] + moved)


def test_a_sample_of_the_training_texts_owes_nothing_to_files(tmp_path: Path) -> None:
    """About as many pairs as asked for, the same ones in any order, also where only pairs of low ids were kept."""
    rows = [a_pair(0, "train", "ru", f"q{number}", f"p{number}") | {"pair_id": text_id(str(number))} for number in range(4000)]
    rows = sorted(rows, key=lambda row: row["pair_id"])[:2000]
    recipe = Recipe.model_validate({"name": "test", "sources": {"words": {"kind": "wiki_ru_wordnet"}}})
    found = []
    for name, order in (("one", rows), ("other", rows[::-1])):
        pq.write_table(pa.Table.from_pylist(order, PAIR), tmp_path / f"{name}.parquet")
        dataset = pads.dataset(tmp_path / f"{name}.parquet")
        found.append(sorted(text for batch in training_texts(dataset, recipe, 500) for text in batch))
        assert len([text for batch in training_texts(dataset, recipe, 2000) for text in batch if text.endswith("0")]) > 300
    assert found[0] == found[1] and 900 < len(found[0]) < 1120


def test_the_stage_compares_all_that_is_at_hand_and_carries_the_head(
    tmp_path: Path,
    ray_local: None,
    inputs: dict[str, Artifact],
    small_folder: Path,
    wide_folder: Path,
    unigram: PreTrainedTokenizerFast,
    russian: list[str],
    english: list[str],
) -> None:
    """A donor of its own width, vectors and a dictionary in files: five initialisations, the chosen one in the model."""
    store = Store(str(tmp_path / "more"))
    models = store.draft("models", "m")
    for role, source in (("encoder", small_folder), ("donor_encoder", wide_folder)):
        with models.folder(role) as folder:
            fetch(f"path:{source}", folder)
    models.metrics["roles"] = {"encoder": "encoder", "donor_encoder": "donor_encoder"}
    given = {**inputs, "models": store.commit(models, "models", "m", {}, {}, 1, 0.0)}
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
    settings = {"extend_from": "path:/donor", "initialisation": "procrustes", "learn": 20, "wechsel": wechsel}
    recipe = Recipe.model_validate({"name": "test", "sources": {"words": {"kind": "wiki_ru_wordnet"}}, "encoder": {"vocabulary": settings}})
    draft = store.draft("vocabulary", "v")
    vocabulary(recipe, given, draft)
    metrics = draft.metrics["first_loss"]
    assert list(metrics["losses"]) == ["mean_of_pieces", "gaussian", "focus", "wechsel", "procrustes"]
    assert metrics["chosen"] == "procrustes" and metrics["head"] is True and len(set(metrics["losses"].values())) == 5
    made = store.commit(draft, "vocabulary", "v", {}, {}, 1, 0.0).folder("model")
    model, base = load_encoder(made), load_encoder(model_folder(given["models"], "encoder"))
    head, before = load_head(made, model), load_head(model_folder(given["models"], "encoder"), base)
    assert head.dense is not None and torch.equal(head.dense.weight, before.dense.weight) and before.bias.std() > 0.5
    assert torch.equal(head.bias[: len(unigram)], before.bias[: len(unigram)]) and len(head.bias) == len(table(model))
    piece = len(unigram) + 3
    spelled = [token.id for token in unigram.backend_tokenizer.model.tokenize(load_tokenizer(made).convert_ids_to_tokens(piece))]
    assert head.bias[piece].item() == pytest.approx(before.bias[spelled].mean().item(), abs=1e-6)
    assert torch.equal(table(model)[: len(unigram)], table(base)[: len(unigram)])
