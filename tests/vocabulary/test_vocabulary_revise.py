"""Trimmed, learned and adopted vocabularies, on small trained tokenizers and on the real mE5."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from transformers import AutoTokenizer, BertModel, PreTrainedTokenizerFast

from raysberta.errors import InputError
from raysberta.models.load import load_encoder, load_tokenizer, save
from raysberta.retrieval.embed import Embedder
from raysberta.vocabulary.extend import learn
from raysberta.vocabulary.initialise import install, rows, table
from raysberta.vocabulary.pieces import read
from raysberta.vocabulary.revise import apply, fertility, neighbours, revise
from small_models import a_config, a_phase, described


def tokens(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[str]]:
    return [encoding.tokens for encoding in tokenizer.backend_tokenizer.encode_batch(list(texts))]


def test_trimmed_unigram_is_exact_on_its_corpus(
    tmp_path: Path, unigram: PreTrainedTokenizerFast, unigram_model: BertModel, russian: list[str]
) -> None:
    corpus = russian[:150]
    revision = revise(unigram, [corpus[:70], corpus[70:]], a_phase(trim=True))
    assert revision.counts["trimmed"] > 100 and revision.counts["after"] == len(unigram) - revision.counts["trimmed"]
    before = table(unigram_model).clone()
    save(unigram_model, unigram, tmp_path / "old")
    apply(unigram_model, revision, a_phase(trim=True), seed=1)
    save(unigram_model, revision.tokenizer, tmp_path / "new")
    new = load_tokenizer(tmp_path / "new")
    assert tokens(new, corpus) == tokens(unigram, corpus)
    for text in new.get_vocab():
        assert torch.equal(table(unigram_model)[new.convert_tokens_to_ids(text)], before[unigram.convert_tokens_to_ids(text)])
    ours, theirs = (Embedder(described(tmp_path / name), 64, "fp32", device="cpu").encode(corpus) for name in ("new", "old"))
    assert (ours * theirs).sum(1).min() > 0.99999


def test_special_tokens_survive_a_trim(
    tmp_path: Path, unigram: PreTrainedTokenizerFast, unigram_model: BertModel, russian: list[str]
) -> None:
    revision = revise(unigram, [russian[:20]], a_phase(trim=True))
    apply(unigram_model, revision, a_phase(trim=True), seed=1)
    save(unigram_model, revision.tokenizer, tmp_path)
    new, config = AutoTokenizer.from_pretrained(tmp_path), load_encoder(tmp_path).config
    assert config.vocab_size == len(new) == len(revision.texts)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (new.pad_token_id, new.bos_token_id, new.eos_token_id)
    assert new.mask_token_id == len(new) - 1 != unigram.mask_token_id
    assert new.convert_ids_to_tokens(new("<mask>")["input_ids"])[:1] == ["<s>"] and new.mask_token_id in new("да <mask>")["input_ids"]
    assert new.model_max_length == 64


def test_unseen_words_are_spelled_not_unknown(unigram: PreTrainedTokenizerFast) -> None:
    revision = revise(unigram, [["включи свет", "turn on the light"] * 5], a_phase(trim=True))
    assert revision.counts["after"] < 250
    unseen = ["щука, ёж и фагот!", "quick brown vizier: 0123456789?"]
    known = [text for text in unseen if unigram.unk_token not in tokens(unigram, [text])[0]]
    assert known, "the probe must be spelled by the whole vocabulary"
    for row in tokens(revision.tokenizer, known):
        assert revision.tokenizer.unk_token not in row


def test_learned_pieces_keep_old_ids_and_shorten_texts(unigram: PreTrainedTokenizerFast, russian: list[str], english: list[str]) -> None:
    corpus = russian + english
    revision = revise(unigram, [corpus], a_phase(learn=150))
    old, new = unigram.get_vocab(), revision.tokenizer.get_vocab()
    assert all(new[text] == number for text, number in old.items())
    assert 100 < revision.counts["learned"] <= 150
    added = set(new) - set(old)
    assert min(new[text] for text in added) == len(old)
    before, after = (fertility(tokenizer, {"ru": russian, "en": english}) for tokenizer in (unigram, revision.tokenizer))
    for language in ("ru", "en"):
        assert after[language].fertility < 0.95 * before[language].fertility
        assert after[language].unknown <= before[language].unknown + 0.001
    used = {token for row in tokens(revision.tokenizer, corpus) for token in row}
    assert len(added & used) > 0.9 * len(added)
    assert not [text for text in added if any(character.isdigit() for character in text)]


def test_learning_is_the_same_in_any_order(unigram: PreTrainedTokenizerFast, russian: list[str]) -> None:
    settings = a_phase(trim=True, learn=40)
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
    settings = a_phase(learn=30)
    revision = revise(unigram, [russian], settings)
    apply(unigram_model, revision, settings, seed=1)
    after = table(unigram_model)
    assert torch.equal(after[: len(unigram)], before[: len(unigram)])
    for number in range(len(unigram), len(revision.texts)):
        spelled = [token.id for token in unigram.backend_tokenizer.model.tokenize(revision.texts[number])]
        assert len(spelled) > 1 and torch.allclose(after[number], before[spelled].mean(0))
    samples = neighbours(revision, after)
    assert len(samples) == 20 and all(len(sample.nearest) == 3 for sample in samples)


def test_gaussian_rows_follow_the_old_ones() -> None:
    old = torch.randn(500, 6) * torch.tensor([1.0, 2, 3, 4, 5, 6]) + 7
    new = rows(old, [*range(500), *[(1, 2)] * 4000], "gaussian", seed=3)
    assert torch.equal(new[:500], old)
    assert torch.allclose(new[500:].std(0), old.std(0), rtol=0.1) and torch.allclose(new[500:].mean(0), old.mean(0), atol=0.4)
    assert torch.equal(new, rows(old, [*range(500), *[(1, 2)] * 4000], "gaussian", seed=3))
    assert not torch.equal(new, rows(old, [*range(500), *[(1, 2)] * 4000], "gaussian", seed=4))


def test_untouched_vocabulary_keeps_everything(unigram: PreTrainedTokenizerFast, unigram_model: BertModel) -> None:
    before = table(unigram_model).clone()
    revision = revise(unigram, iter([]), a_phase())
    apply(unigram_model, revision, a_phase(), seed=1)
    assert revision.tokenizer is unigram and torch.equal(table(unigram_model), before)


def test_donor_tokens_are_appended(
    tmp_path: Path,
    russian_bpe: PreTrainedTokenizerFast,
    english_bpe: PreTrainedTokenizerFast,
    bpe_model: BertModel,
    russian: list[str],
    english: list[str],
) -> None:
    settings = a_phase(extend_from="donor")
    revision = revise(russian_bpe, iter([]), settings, english_bpe)
    old, new, donor = russian_bpe.get_vocab(), revision.tokenizer.get_vocab(), english_bpe.get_vocab()
    assert all(new[text] == number for text, number in old.items())
    assert set(new) == set(old) | set(donor)
    assert revision.counts["adopted"] == len(set(donor) - set(old)) > 100
    before, after, alone = (
        fertility(tokenizer, {"ru": russian, "en": english}) for tokenizer in (russian_bpe, revision.tokenizer, english_bpe)
    )
    assert after["en"].fertility < 0.8 * before["en"].fertility
    assert after["en"].fertility < 1.1 * alone["en"].fertility
    assert after["ru"].fertility <= before["ru"].fertility
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
    trimmed = revise(russian_bpe, [corpus], a_phase(trim=True))
    assert trimmed.counts["trimmed"] > 50
    assert tokens(trimmed.tokenizer, corpus) == tokens(russian_bpe, corpus)
    learned = revise(russian_bpe, [russian], a_phase(learn=60))
    assert learned.counts["learned"] == 60
    used = {token for row in tokens(learned.tokenizer, russian) for token in row}
    assert len(used & set(learned.texts[len(russian_bpe) :])) > 30
    assert fertility(learned.tokenizer, {"ru": russian})["ru"].fertility < fertility(russian_bpe, {"ru": russian})["ru"].fertility


def test_an_english_wordpiece_learns_russian(english_wordpiece: PreTrainedTokenizerFast, russian: list[str], english: list[str]) -> None:
    russian = [re.sub("[^а-яё ]+", " ", text.lower()) for text in russian]  # what else stands there is English
    texts = {"ru": russian, "en": english}
    revision = revise(english_wordpiece, [russian], a_phase(learn=300))
    old, new = english_wordpiece.get_vocab(), revision.tokenizer.get_vocab()
    assert all(new[text] == number for text, number in old.items())
    before, after = (fertility(tokenizer, texts) for tokenizer in (english_wordpiece, revision.tokenizer))
    assert before["ru"].fertility > 4 and after["ru"].fertility < 0.6 * before["ru"].fertility
    assert after["ru"].unknown == before["ru"].unknown == 0
    assert tokens(revision.tokenizer, english) == tokens(english_wordpiece, english)
    added = set(new) - set(old)
    used = {token for row in tokens(revision.tokenizer, russian) for token in row}
    assert len(added) == revision.counts["learned"] > 200 and len(added & used) > 0.9 * len(added)
    for number in revision.new:  # what spells a piece is what the old tokenizer makes of it where it begins a word
        text, origin = revision.texts[number], revision.origins[number]
        assert isinstance(origin, tuple)
        spelled = [revision.texts[each] for each in origin]
        assert spelled[0].startswith("##") == text.startswith("##")
        assert "".join(piece.removeprefix("##") for piece in spelled) == text.removeprefix("##")
        if not text.startswith("##"):
            assert [["[CLS]", *spelled, "[SEP]"]] == tokens(english_wordpiece, [text])


def test_an_extended_wordpiece_comes_back_from_its_folder(
    tmp_path: Path, english_wordpiece: PreTrainedTokenizerFast, russian: list[str]
) -> None:
    torch.manual_seed(1)
    model = BertModel(a_config(english_wordpiece), add_pooling_layer=False).eval()
    settings = a_phase(learn=100)
    revision = revise(english_wordpiece, [russian], settings)
    apply(model, revision, settings, seed=1)
    save(model, revision.tokenizer, tmp_path)
    new = load_tokenizer(tmp_path)
    assert tokens(new, russian) == tokens(revision.tokenizer, russian)
    first, *_, last = new("включи свет")["input_ids"]
    assert (first, last) == (new.cls_token_id, new.sep_token_id)


def test_what_cannot_be_done_is_refused(
    unigram: PreTrainedTokenizerFast, english_bpe: PreTrainedTokenizerFast, unigram_model: BertModel
) -> None:
    with pytest.raises(InputError, match="merges bpe into unigram"):
        revise(unigram, iter([]), a_phase(extend_from="donor"), english_bpe)
    pieces = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")), unk_token="[UNK]")
    with pytest.raises(InputError, match="WordPiece"):
        revise(pieces, iter([]), a_phase(trim=True))
    unigram_model.config.model_type = "xlm-roberta"
    with pytest.raises(InputError, match="counts positions"):
        install(unigram_model, english_bpe, table(unigram_model))


def test_real_encoder_trimmed_embeds_as_before(tmp_path: Path, e5_folder: Path, russian: list[str], english: list[str]) -> None:
    corpus = [f"search_query: {text}" for text in russian + english]
    old, model = load_tokenizer(e5_folder), load_encoder(e5_folder)
    revision = revise(old, [corpus], a_phase(trim=True))
    assert 3000 < revision.counts["after"] < 8000
    apply(model, revision, a_phase(trim=True), seed=1)
    save(model, revision.tokenizer, tmp_path)
    new = load_tokenizer(tmp_path)
    assert tokens(new, corpus) == tokens(old, corpus)
    probe = sorted(corpus, key=len)[-40::2]
    ours, theirs = (Embedder(folder, 64, "fp32", device="cpu").encode(probe) for folder in (described(tmp_path, 512), e5_folder))
    assert (ours * theirs).sum(1).min() > 0.99999


def test_pieces_of_a_unigram_donor_are_appended(
    unigram: PreTrainedTokenizerFast, english_unigram: PreTrainedTokenizerFast, english: list[str], russian: list[str]
) -> None:
    donor = english_unigram
    revision = revise(unigram, iter([]), a_phase(extend_from="donor"), donor)
    old, new = unigram.get_vocab(), revision.tokenizer.get_vocab()
    assert all(new[text] == number for text, number in old.items())
    assert set(new) == set(old) | set(donor.get_vocab()) and revision.counts["adopted"] == len(new) - len(old) > 100
    assert revision.counts["adopted_unreachable"] < 0.1 * revision.counts["adopted"]
    before, after = (fertility(tokenizer, {"ru": russian, "en": english}) for tokenizer in (unigram, revision.tokenizer))
    assert after["en"].fertility < 0.95 * before["en"].fertility and after["en"].unknown <= before["en"].unknown
    assert after["ru"].fertility <= 1.01 * before["ru"].fertility
    pieces, theirs = read(revision.tokenizer), read(donor)
    shared = [text for text in theirs.texts if text in old and text not in theirs.special]
    moved = np.median([pieces.scores[old[text]] - theirs.scores[theirs.texts.index(text)] for text in shared])
    added = next(text for text in theirs.texts if text not in old)
    assert pieces.scores[new[added]] == pytest.approx(theirs.scores[theirs.texts.index(added)] + moved)
