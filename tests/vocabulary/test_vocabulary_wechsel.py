"""WECHSEL on planted languages: a new piece gets the row of what means the same, and files that are no vectors are refused."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from raysberta.errors import InputError
from raysberta.vocabulary import wechsel as room
from raysberta.vocabulary.initialise import rows
from raysberta.vocabulary.wechsel import (
    Words,
    aligned,
    own_words,
    piece_vectors,
    read_dictionary,
    read_words,
    wechsel,
)

WIDTH = 6
COUNT = 40


def whole_words(texts: list[str]) -> PreTrainedTokenizerFast:
    """Each word is a piece."""
    tokenizer = Tokenizer(models.WordLevel({text: number for number, text in enumerate(["<unk>", *texts])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@pytest.fixture
def languages() -> tuple[Words, Words]:
    """Words a0.. and their translations b0..: the same vectors, turned."""
    draw = torch.Generator().manual_seed(1)
    vectors = torch.randn(COUNT, WIDTH, generator=draw)
    turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=draw)).Q
    return Words([f"a{number}" for number in range(COUNT)], vectors), Words([f"b{number}" for number in range(COUNT)], vectors @ turn)


def test_a_new_word_starts_as_what_it_means(languages: tuple[Words, Words]) -> None:
    source, target = languages
    turned = aligned(source, target, [(f"a{number}", f"b{number}") for number in range(20)])
    assert torch.allclose(turned.vectors, target.vectors, atol=1e-5), "words that the dictionary lacks are turned too"
    old_tokenizer, new_tokenizer = whole_words(source.texts), whole_words([*source.texts, *target.texts])
    old = torch.eye(len(old_tokenizer))
    origins = [*range(len(old_tokenizer)), *[(1, 2)] * COUNT]
    spaces = piece_vectors(turned, old_tokenizer), piece_vectors(target, new_tokenizer)
    places, found = wechsel(*spaces, origins, old)
    assert places == list(range(COUNT + 1, 2 * COUNT + 1))
    assert torch.allclose(found.sum(1), torch.ones(COUNT)) and torch.equal(found.argmax(1), torch.arange(1, COUNT + 1))
    assert ((found > 0).sum(1) == 10).all()
    new = rows(old, origins, "wechsel", 1, {"wechsel": (places, found)})
    assert torch.equal(new[: COUNT + 1], old) and torch.equal(new[COUNT + 1 :], found)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(0, 8), st.integers(0, 10**6))
def test_rows_are_the_softmax_of_the_ten_nearest(known: int, fresh: int, seed: int) -> None:
    """Against numpy, piece by piece; pieces without vector are neither given rows nor mixed."""
    draw = np.random.default_rng(seed)
    source, target = draw.normal(size=(known, 4)).astype(np.float32), draw.normal(size=(known + fresh, 4)).astype(np.float32)
    source[draw.random(known) < 0.2] = 0
    target[draw.random(known + fresh) < 0.2] = 0
    old = draw.normal(size=(known, 5)).astype(np.float32)
    origins = [*range(known), *[(0,)] * fresh]
    places, found = wechsel(*map(torch.from_numpy, (source, target)), origins, torch.from_numpy(old))
    there = [number for number in range(known) if source[number].any()]
    assert places == [place for place in range(known, known + fresh) if there and target[place].any()]
    for place, row in zip(places, found.numpy(), strict=True):
        cosines = {
            number: source[number] @ target[place] / np.linalg.norm(source[number]) / np.linalg.norm(target[place]) for number in there
        }
        nearest = sorted(there, key=lambda number: -cosines[number])[:10]
        weights = np.exp([cosines[number] / 0.1 for number in nearest])
        assert np.allclose(row, weights / weights.sum() @ old[nearest], atol=1e-4)


def test_pieces_get_the_mean_of_their_words_by_frequency(unigram: PreTrainedTokenizerFast) -> None:
    texts = ["включи", "свет", "выключи", "light", "turn", "включить"]
    words = Words(texts, torch.randn(len(texts), WIDTH, generator=torch.Generator().manual_seed(2)))
    found = piece_vectors(words, unigram)
    sums, totals = np.zeros((len(unigram), WIDTH)), np.zeros(len(unigram))
    for rank, (text, vector) in enumerate(zip(texts, words.vectors.numpy(), strict=True), 1):
        for piece in unigram.backend_tokenizer.encode(text, add_special_tokens=False).ids:
            sums[piece] += vector / rank
            totals[piece] += 1 / rank
    totals[unigram.all_special_ids] = 0
    assert (totals > 0).sum() > 5
    assert np.allclose(found[totals > 0], sums[totals > 0] / totals[totals > 0][:, None], atol=1e-6)
    assert not found[totals == 0].any()


def test_a_dictionary_that_ties_too_few_words_is_refused(languages: tuple[Words, Words]) -> None:
    pairs = [(f"a{number}", f"b{number}") for number in range(WIDTH)] + [("a7", "nothing"), ("nothing", "b7")]
    with pytest.raises(InputError, match=rf"wechsel\.dictionary: {WIDTH} of its pairs have vectors.*more than the {WIDTH} dimensions"):
        aligned(*languages, pairs)


def test_files_are_read_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "w.vec").write_text("3 2\nсобака 1.5 -2\nNew York 0 1e-3 \n\u00a0 1 1\n", encoding="utf-8")
    words = read_words(str(tmp_path / "w.vec"), "key")
    assert words.texts == ["собака", "New York", "\u00a0"]
    assert torch.equal(words.vectors, torch.tensor([[1.5, -2], [0, 1e-3], [1, 1]]))
    (tmp_path / "d.tsv").write_text("\ufeffdog\tсобака\nnew house\tновый дом\ncat кошка\n", encoding="utf-8")
    assert read_dictionary(str(tmp_path / "d.tsv"), "key") == [("dog", "собака"), ("new house", "новый дом"), ("cat", "кошка")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "first line"),
        (b"dog 1 2 3\n", "first line"),
        (b"2 9999999\n", "first line"),
        (b"\x1f\x8b\x08\x00rubbish", "first line"),
        (b"2 3\ndog 1 2 3\ncat 1 2\n", "line 3 is not a word and 3 numbers"),
        (b"2 3\ndog 1 2 x\n", "line 2 is not a word and 3 numbers"),
        (b"2 3\ndog 1 2 inf\n", "line 2 is not"),
        (b"2 3\ndog 1 2 1e99\n", "line 2 is not"),
        (b"2 3\n", "no words there"),
        (b"2 3\n" + b"x" * (1 << 17), "line 2 has over"),
    ],
)
def test_what_is_no_file_of_vectors_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "w.vec").write_bytes(content)
    with pytest.raises(InputError, match=rf"key: .*w\.vec: .*{says}"):
        read_words(str(tmp_path / "w.vec"), "key")


def test_what_is_no_dictionary_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "d.tsv"
    file.write_text("dog\tсобака\nthree small words\n")
    with pytest.raises(InputError, match=r"key\.dictionary: .*line 2 is not a source word and a target word"):
        read_dictionary(str(file), "key.dictionary")
    monkeypatch.setattr(room, "MAX_PAIRS", 2)
    file.write_text("a b\nc d\ne f\n")
    with pytest.raises(InputError, match="over 2 pairs"):
        read_dictionary(str(file), "key.dictionary")
    monkeypatch.setattr(room, "MAX_WORDS", 2)
    (tmp_path / "w.vec").write_text("3 1\na 1\nb 2\nc 3\n")
    assert read_words(str(tmp_path / "w.vec"), "key").texts == ["a", "b"]


def test_words_of_the_corpus_have_vectors_where_no_file_has(russian: list[str]) -> None:
    words = own_words(lambda: [russian[::2], russian[1::2]], 1, "key")
    assert len(words.texts) == len(words.vectors) > 50 and "<unk>" not in words.texts
    counts = Counter(word for text in russian for word in re.findall(r"\w+|[^\w\s]+", text))
    assert [counts[word] for word in words.texts] == sorted((count for count in counts.values() if count >= 5), reverse=True)
    assert (words.vectors.norm(dim=1) > 0.99).float().mean() > 0.9
    again = own_words(lambda: [russian], 1, "key")
    assert again.texts == words.texts and torch.equal(again.vectors, words.vectors)
    with pytest.raises(InputError, match="key: the training texts hold hardly a word"):
        own_words(lambda: [["одно слово"]], 1, "key")
