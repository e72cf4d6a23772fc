"""Lengths in tokens: those of the tokenizer itself, and where it comes from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from raysberta.corpus import length
from raysberta.corpus.length import SPECIAL, counted_by, surely_within, token_counts
from raysberta.errors import InputError
from raysberta.storage.artifacts import Artifact, Store


def test_token_counts_are_those_of_the_tokenizer(tokenizer_file: Path) -> None:
    counts = token_counts(["", "the", "река течёт", "x" * 100_000], tokenizer_file, 50)
    assert counts[0] == 0
    assert 1 <= counts[1] < counts[2] <= 50
    assert counts[3] > 50
    with pytest.raises(InputError, match=r"no such tokenizer\.json"):
        token_counts(["x"], tokenizer_file.parent / "nowhere", 50)


def test_exact_where_nothing_is_said_of_the_most_and_in_batches(tokenizer_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"река {number} " * number for number in range(40)]
    plain = Tokenizer.from_file(str(tokenizer_file))
    right = [len(plain.encode(text).ids) for text in texts]
    assert token_counts(texts, tokenizer_file).tolist() == right
    monkeypatch.setattr(length, "BATCH", 7)
    assert token_counts(texts, tokenizer_file).tolist() == right
    capped = token_counts(texts, tokenizer_file, 50)
    assert [min(count, 51) for count in right] == np.minimum(capped, 51).tolist()
    assert token_counts([], tokenizer_file).tolist() == []


def test_special_tokens_are_those_of_the_post_processor(tokenizer_file: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.add_special_tokens(["<s>", "</s>"])
    marks = [(mark, tokenizer.token_to_id(mark)) for mark in ("<s>", "</s>")]
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=marks)
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=30)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    texts = ["the", "река течёт через весь город и впадает в холодное северное море"]
    plain, whole = token_counts(texts, tokenizer_file), token_counts(texts, tmp_path / "tokenizer.json", special=True)
    assert whole.tolist() == (plain + 2).tolist(), "neither cut nor padded"
    assert whole[1] > 8


def test_as_many_as_the_model_library_counts(e5_folder: Path) -> None:
    from transformers import AutoTokenizer

    texts = ["", "река", "Словарь объясняет значение каждого слова.", "The function returns 3.14 — really?", "x " * 700]
    right = [len(ids) for ids in AutoTokenizer.from_pretrained(e5_folder)(texts)["input_ids"]]
    assert token_counts(texts, e5_folder / "tokenizer.json", special=True).tolist() == right
    assert right[0] == 2


def test_a_model_without_a_tokenizer_is_named(tmp_path: Path, small_model: Callable[[Store], Artifact]) -> None:
    store = Store(str(tmp_path / "runs"))
    draft = store.draft("model", "bare")
    with draft.folder("model") as folder:
        (folder / "config.json").write_text("{}")
    inputs = {"small": small_model(store), "bare": store.commit(draft, "model", "bare", {}, {}, 1, 0.0)}
    found = counted_by(inputs, "small", "corpus.tokenizer")
    assert found is inputs["small"] and found.file(length.FILE).is_file()
    assert counted_by(inputs, None, "corpus.tokenizer") is None
    with pytest.raises(InputError, match=r"^corpus\.tokenizer: bare has no tokenizer\.json; right would be"):
        counted_by(inputs, "bare", "corpus.tokenizer")


@settings(max_examples=200)
@given(st.one_of(st.text(max_size=60), st.text(st.sampled_from("aя Ж.…½ﷺ㎏ﬃ中한é\u0301\n"), max_size=60)), st.integers(1, 80))
def test_what_is_surely_within_is(e5_folder: Path, smollm_folder: Path, tokenizer_file: Path, text: str, most: int) -> None:
    """Pieces of a unigram model, and of bytes; characters that a normaliser takes apart are among them."""
    if surely_within(text, most):
        for file in (e5_folder / "tokenizer.json", smollm_folder / "tokenizer.json", tokenizer_file):
            assert token_counts([text], file, special=True)[0] <= most


def test_surely_within_counts_bytes_and_leaves_room_for_special_tokens() -> None:
    assert surely_within("x" * 92, 92 + SPECIAL) and not surely_within("x" * 93, 92 + SPECIAL)
    assert surely_within("я" * 46, 92 + SPECIAL) and not surely_within("я" * 47, 92 + SPECIAL)
    assert not surely_within("\ufdfa", 100), "one character of three bytes that becomes eighteen"
