"""What pieces mean to a real encoder: words of one meaning find each other across languages, and what says nothing has no vector."""

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from raysberta.retrieval.embed import Embedder
from raysberta.vocabulary.alike import TOKENS, meanings, piece_texts
from small_models import a_wordpiece, intents

MEANT = {"песню": {"song"}, "часов": {"hour", "hours"}, "здесь": {"here"}, "все": {"all", "every"}, "ламп": {"lights", "light", "lamp"}}
"""Russian pieces that are words, or nearly, and English ones of which one is to be nearest."""


@pytest.fixture(scope="module")
def english_pieces() -> PreTrainedTokenizerFast:
    return a_wordpiece(list(dict.fromkeys(intents("en"))), 600)


@pytest.fixture(scope="module")
def russian_pieces() -> PreTrainedTokenizerFast:
    return a_wordpiece(list(dict.fromkeys(intents("ru"))), 600)


def test_a_word_lies_nearest_to_its_translation(
    e5_folder: Path, english_pieces: PreTrainedTokenizerFast, russian_pieces: PreTrainedTokenizerFast
) -> None:
    source, target = meanings(Embedder(e5_folder, TOKENS), [english_pieces, russian_pieces])
    ours, theirs = piece_texts(english_pieces), piece_texts(russian_pieces)
    assert len(source) == len(ours) and len(target) == len(theirs)
    for vectors, texts in ((source, ours), (target, theirs)):
        assert torch.allclose(vectors.norm(dim=1), torch.tensor([1.0 if text else 0.0 for text in texts]), atol=1e-5)
    assert source[[bool(text) for text in ours]].mean(0).norm() < 0.2, "what all have in common is taken away: no narrow cone"
    for word, wanted in MEANT.items():
        found = ours[int((source @ target[theirs.index(word)]).argmax())]
        assert found in wanted, f"{word}: {found}"


def test_what_is_no_text_is_left_out(english_wordpiece: PreTrainedTokenizerFast, unigram: PreTrainedTokenizerFast) -> None:
    """Special tokens, single letters and signs; a continuing piece and one that begins a word say the same."""
    for tokenizer in (english_wordpiece, unigram):
        texts = piece_texts(tokenizer)
        pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        assert len(texts) == len(tokenizer) and all(not text or len(text) > 1 for text in texts)
        for piece, text in zip(pieces, texts, strict=True):
            assert text in ("", piece.removeprefix("##").lstrip("▁"))
        assert all(not texts[number] for number in tokenizer.all_special_ids)
        assert sum(bool(text) for text in texts) > len(texts) / 2
    assert any(piece.startswith("##") and len(piece) > 4 for piece in english_wordpiece.get_vocab())
