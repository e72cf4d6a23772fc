"""A vocabulary of a given size: which pieces stay, and that what they cut is cut, and embedded, as before."""

import math
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.models import BPE
from transformers import BertModel, PreTrainedTokenizerFast

from raysberta.errors import InputError
from raysberta.models.load import save
from raysberta.parsing import load_all
from raysberta.retrieval.embed import Embedder
from raysberta.vocabulary import trim
from raysberta.vocabulary.pieces import Pieces, read
from raysberta.vocabulary.revise import apply, held_out, revise
from raysberta.vocabulary.scripts import readable, scripts_of
from raysberta.vocabulary.settings import Vocabulary
from raysberta.vocabulary.trim import choose, count, keep
from small_models import a_phase, described

ROOT = Path(__file__).parents[2]


def tokens(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    return list(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).tokens)


def least(pieces: Pieces, counts: np.ndarray) -> int:
    """The least size that is not refused."""
    with pytest.raises(InputError) as refused:
        choose(pieces, counts, 1, 0.5)
    return int(str(refused.value).split("from ")[1].split(", the special")[0].replace(",", ""))


def most(pieces: Pieces, counts: np.ndarray) -> int:
    """The greatest."""
    with pytest.raises(InputError) as refused:
        choose(pieces, counts, 10**9, 0.5)
    return int(str(refused.value).split("signs, to ")[1].split(", all that")[0].replace(",", ""))


@pytest.mark.parametrize("smoothing", [0.0, 0.3, 1.0])
def test_the_choice_is_that_of_a_plain_reference(unigram: PreTrainedTokenizerFast, english: list[str], smoothing: float) -> None:
    """English text: Cyrillic pieces go, whatever the tokenizer holds of them."""
    pieces, counts = read(unigram), count(unigram, [english[:60]]).counts
    uses = Counter(token for text in english[:60] for token in tokens(unigram, text))
    scores = dict(zip(pieces.texts, pieces.scores, strict=True))

    def latin(text: str) -> bool:
        return all("LATIN" in unicodedata.name(letter) for letter in text if letter.isalpha())

    inside = [text for text in pieces.texts if text not in pieces.special and latin(text)]
    own = {text: math.exp(scores[text]) / sum(math.exp(scores[each]) for each in inside) for text in inside}
    probable = {
        text: (1 - smoothing) * uses[text] / uses.total() + smoothing * own.get(text, 0.0)
        for text in pieces.texts
        if text not in pieces.special and (uses[text] or text in own)
    }
    always = {text for text in pieces.texts if text in pieces.special or (len(text) == 1 and latin(text))}
    ranked = sorted(probable, key=lambda text: (-probable[text], -own.get(text, 0.0), pieces.texts.index(text)))
    for size in (len(always), len(always) + 1, 200, 300):
        wanted = always | set([text for text in ranked if text not in always][: size - len(always)])
        assert {pieces.texts[number] for number in choose(pieces, counts, size, smoothing)} == wanted
    assert (least(pieces, counts), most(pieces, counts)) == (len(always), len(always | set(ranked)))


@settings(max_examples=12, deadline=None)
@given(
    used=st.lists(st.tuples(st.integers(0, 799), st.integers(1, 500)), min_size=20, max_size=80),
    smoothing=st.floats(0, 1),
    places=st.lists(st.floats(0, 1), min_size=2, max_size=4),
)
def test_a_greater_size_keeps_all_that_a_smaller_one_keeps(
    unigram: PreTrainedTokenizerFast,
    russian_bpe: PreTrainedTokenizerFast,
    used: list[tuple[int, int]],
    smoothing: float,
    places: list[float],
) -> None:
    for tokenizer in (unigram, russian_bpe):
        pieces = read(tokenizer)
        counts = np.zeros(len(pieces), np.int64)
        for number, times in used:
            counts[number] += times
        low, high = least(pieces, counts), most(pieces, counts)
        before: set[int] = set()
        for size in sorted(low + int(place * (high - low)) for place in places):
            kept = choose(pieces, counts, size, smoothing)
            assert len(kept) == len(set(kept)) == size and kept == sorted(kept) and before <= set(kept)
            before = set(kept)
        assert {number for number, text in enumerate(pieces.texts) if text in pieces.special} <= before


def test_what_is_used_goes_before_what_is_not_without_smoothing(unigram: PreTrainedTokenizerFast, russian: list[str]) -> None:
    pieces, counts = read(unigram), count(unigram, [russian[:60]]).counts
    used = keep(pieces, counts)
    assert choose(pieces, counts, len(used), 0.0) == used and choose(pieces, counts, len(used), 1.0) != used


def test_every_piece_of_a_small_bpe_can_be_reached(russian_bpe: PreTrainedTokenizerFast, russian: list[str]) -> None:
    pieces, counts = read(russian_bpe), count(russian_bpe, [russian[:40]]).counts
    assert scripts_of(readable(pieces), counts) == {"CYRILLIC", "LATIN"} and "свет" in {text.strip() for text in readable(pieces)}
    whole = BPE({text: number for number, text in enumerate(pieces.texts)}, list(pieces.merges))
    reachable = {text for text in pieces.texts if [token.value for token in whole.tokenize(text)] == [text]}
    for size in range(least(pieces, counts), most(pieces, counts), 37):
        small = pieces.select(choose(pieces, counts, size, 0.5))
        model = BPE({text: number for number, text in enumerate(small.texts)}, list(small.merges))
        for text in reachable & set(small.texts) - small.special:
            assert [token.value for token in model.tokenize(text)] == [text]


def test_a_byte_level_bpe_keeps_every_byte(russian_bpe: PreTrainedTokenizerFast) -> None:
    """Also those of letters that no text has: a byte without a piece would vanish from the text."""
    pieces, counts = read(russian_bpe), count(russian_bpe, [["включи свет на кухне"] * 3]).counts
    assert scripts_of(readable(pieces), counts) == {"CYRILLIC"}
    alphabet = {text for text in pieces.texts if len(text) == 1}
    for kept in (keep(pieces, counts), choose(pieces, counts, least(pieces, counts), 0.5)):
        assert len(alphabet) == 256 and alphabet <= {pieces.texts[number] for number in kept}
    latin = {number for number, text in enumerate(readable(pieces)) if text.strip() in ("area", "name", "domain")}
    assert latin and not counts[sorted(latin)].any() and latin.isdisjoint(choose(pieces, counts, most(pieces, counts), 0.5))


@pytest.mark.parametrize("kind", ["unigram", "russian_bpe"])
def test_text_whose_pieces_are_kept_is_cut_as_before(
    request: pytest.FixtureRequest, kind: str, russian: list[str], english: list[str]
) -> None:
    old = request.getfixturevalue(kind)
    corpus = russian + english
    revision = revise(old, [russian[:80] + english[:80]], a_phase(trim=True, size=450))
    assert revision.counts["after"] == len(revision.tokenizer) == 450
    dropped, same = set(old.get_vocab()) - set(revision.texts), 0
    for text in corpus:
        before = tokens(old, text)
        assert (tokens(revision.tokenizer, text) == before) == dropped.isdisjoint(before)
        same += dropped.isdisjoint(before)
    assert 30 < same < len(corpus)


def test_texts_that_are_cut_as_before_have_the_vectors_that_they_had(
    tmp_path: Path, unigram: PreTrainedTokenizerFast, unigram_model: BertModel, russian: list[str], english: list[str]
) -> None:
    settings = a_phase(trim=True, size=500)
    revision = revise(unigram, [russian[:80] + english[:80]], settings)
    same = [text for text in russian + english if tokens(unigram, text) == tokens(revision.tokenizer, text)]
    save(unigram_model, unigram, tmp_path / "old")
    apply(unigram_model, revision, settings, seed=1)
    assert unigram_model.config.vocab_size == 500
    save(unigram_model, revision.tokenizer, tmp_path / "new")
    ours, theirs = (Embedder(described(tmp_path / name), 64, "fp32", device="cpu").encode(same) for name in ("new", "old"))
    assert len(same) > 50 and np.abs(np.asarray(ours) - np.asarray(theirs)).max() <= 1e-6


def test_pieces_that_stay_where_they_were_leave_a_smaller_table(
    bpe_model: BertModel, russian_bpe: PreTrainedTokenizerFast, russian: list[str]
) -> None:
    """By rank alone the first pieces of a BPE stay, each at its id."""
    settings = a_phase(trim=True, size=len(russian_bpe) - 100, smoothing=1.0)
    revision = revise(russian_bpe, [russian], settings)
    apply(bpe_model, revision, settings, seed=1)
    assert bpe_model.config.vocab_size == len(revision.texts) == len(russian_bpe) - 100


def test_words_are_cut_anew_before_pieces_are_learned(unigram: PreTrainedTokenizerFast, russian: list[str], english: list[str]) -> None:
    """Used pieces were dropped; what is learned is spelled by what stayed, and is none of the dropped ones."""
    corpus = russian + english
    revision = revise(unigram, [corpus], a_phase(trim=True, size=300, learn=60))
    assert revision.counts["after"] == 300 + revision.counts["learned"] and revision.counts["learned"] > 30
    new = {revision.texts[number] for number in revision.new}
    assert not new & set(unigram.get_vocab())
    plain = revise(unigram, [corpus], a_phase(trim=True, size=300))
    shorter = [sum(len(tokens(each.tokenizer, text)) for text in corpus) for each in (revision, plain)]
    assert shorter[0] < 0.97 * shorter[1]


def test_held_out_texts_are_compared_token_by_token(unigram: PreTrainedTokenizerFast, russian: list[str]) -> None:
    new = revise(unigram, [["а б в"]], a_phase(trim=True)).tokenizer
    text = max(russian, key=len)
    found = held_out(unigram, new, {"ru": [text], "en": []})["ru"]
    places = [
        {(tokenizer.convert_ids_to_tokens(number), offset) for number, offset in zip(each.ids, each.offsets, strict=True)}
        for tokenizer in (unigram, new)
        for each in [tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)]
    ]
    assert found.tokens == len(places[0]) and found.changed == pytest.approx(1 - len(places[0] & places[1]) / len(places[0]), abs=1e-6)
    assert found.changed > 0.3 and found.fertility_before < found.fertility_after
    again = held_out(unigram, unigram, {"ru": russian})["ru"]
    assert again.changed == 0 and again.fertility_before == again.fertility_after


def test_a_size_that_cannot_be_is_refused(unigram: PreTrainedTokenizerFast, russian: list[str]) -> None:
    for size in (10, 5000):
        with pytest.raises(InputError, match=rf"^size: {size:,} cannot be; right would be from \d+, .* \(Cyrillic, Latin\) have$"):
            revise(unigram, [russian], a_phase(trim=True, size=size))
    with pytest.raises(ValueError, match="right would be trim: true with it"):
        a_phase(size=300)


def test_sizes_are_compared_by_one_plan() -> None:
    recipes = load_all([ROOT / "recipes" / "laptop.yaml"], ["phases.trimmed.documents=corpus"], ["phases.trimmed.size=20000,48000,90000"])
    phases = [recipe.phases["trimmed"] for recipe in recipes]
    assert [phase.size for phase in phases if isinstance(phase, Vocabulary)] == [20000, 48000, 90000]


def test_byte_pieces_always_stay(unigram: PreTrainedTokenizerFast, russian: list[str]) -> None:
    pieces, counts = read(unigram), count(unigram, [russian]).counts
    wide = Pieces("unigram", [*pieces.texts, "<0xD0>"], [*pieces.scores, -20.0], [], pieces.special)
    kept = choose(wide, np.append(counts, 0), 400, 0.5)
    assert len(wide) - 1 in kept and len(wide) - 1 in keep(wide, np.append(counts, 0))


def test_of_very_many_words_the_frequent_ones_are_counted(unigram: PreTrainedTokenizerFast, english: list[str], monkeypatch) -> None:
    batches = [english[start : start + 20] for start in range(0, 200, 20)]
    whole = count(unigram, batches, words=True).words
    assert len(whole) > 400
    monkeypatch.setattr(trim, "WORDS", 400)
    some = count(unigram, batches, words=True)
    assert len(some.words) <= 400 and some.words.total() < whole.total()
    assert {word for word, _ in whole.most_common(20)} <= set(some.words)
    assert np.array_equal(some.counts, count(unigram, batches).counts), "pieces are all counted"
