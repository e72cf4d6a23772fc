"""Rows from translations: counts against a plain loop, planted languages, and which side is the one that the base knows."""

from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from raysberta.vocabulary.initialise import rows
from raysberta.vocabulary.translations import NEAREST, PRIOR, ROUNDS, aligned_pieces, expected, translated

SIZE = 7
texts = st.lists(st.integers(0, SIZE - 1), max_size=5)


def by_hand(sides: list[list[int]], others: list[list[int]]) -> np.ndarray:
    """IBM model 1 as Brown et al. have it, a piece at a time."""
    known: dict[tuple[int, int], float] = defaultdict(lambda: 1.0)
    for _ in range(ROUNDS):
        counts, totals = np.zeros((SIZE, SIZE)), np.zeros(SIZE)
        for side, other in zip(sides, others, strict=True):
            for piece in side:
                together = sum(known[piece, one] for one in other)
                for one in other:
                    counts[piece, one] += known[piece, one] / together
                    totals[one] += known[piece, one] / together
        known = defaultdict(float, {(int(one), int(two)): counts[one, two] / totals[two] for one, two in np.argwhere(counts)})
    return counts


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=6))
def test_expected_counts_are_those_of_a_plain_loop(pairs: list[tuple[list[int], list[int]]]) -> None:
    sides, others = [side for side, _ in pairs], [other for _, other in pairs]
    found = expected(sides, others, SIZE).toarray()
    np.testing.assert_allclose(found, by_hand(sides, others), atol=1e-9)
    pieces = sum(len(side) for side, other in pairs if other)
    assert found.sum() == pytest.approx(pieces), "each piece comes from somewhere, once"


def words(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({text: number for number, text in enumerate(["<unk>", *texts])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


COUNT = 40


@pytest.fixture(scope="module")
def planted() -> tuple[PreTrainedTokenizerFast, list[tuple[list[str], list[str]]], list[int | tuple[int, ...]]]:
    """Sentences of words a0.. that the base knows and their translations b0.., of which each follows the order of its own language."""
    draw = np.random.default_rng(3)
    tokenizer = words([f"{side}{number}" for side in "ab" for number in range(COUNT)])
    batches = []
    for _ in range(4):
        chosen = [draw.choice(COUNT, 6, replace=False) for _ in range(100)]
        known = [" ".join(f"a{number}" for number in row) for row in chosen]
        new = [" ".join(f"b{number}" for number in draw.permutation(row)) for row in chosen]
        batches.append((new, known))
    return tokenizer, batches, [*range(COUNT + 1), *[(0,)] * COUNT]


@pytest.mark.parametrize("turned", [False, True])
def test_a_new_word_starts_as_its_translation_whichever_side_it_stands_on(planted: tuple, turned: bool) -> None:
    tokenizer, batches, origins = planted
    counts = aligned_pieces(tokenizer, [(second, first) if turned else (first, second) for first, second in batches])
    old = torch.eye(COUNT + 1)
    places, found = translated(counts, origins, old, ([], old[:0]))
    assert places == list(range(COUNT + 1, 2 * COUNT + 1))
    assert torch.equal(found.argmax(1), torch.arange(1, COUNT + 1)) and (found.max(1).values > 0.9).all()
    assert torch.allclose(found.sum(1), torch.ones(COUNT), atol=1e-6) and ((found > 0).sum(1) <= NEAREST).all()
    assert torch.equal(rows(old, origins, "translated", 1, {"translated": (places, found)})[places], found)


def test_what_else_is_known_counts_the_less_the_more_often_a_piece_stands_there(planted: tuple) -> None:
    tokenizer, batches, origins = planted
    counts = aligned_pieces(tokenizer, batches)
    old, other = torch.eye(COUNT + 1), torch.full((1, COUNT + 1), 7.0)
    piece = COUNT + 1
    alone = translated(counts, origins, old, ([], old[:0]))[1][0]
    mixed = translated(counts, origins, old, ([piece], other))[1][0]
    often = float(counts[piece].sum())
    assert often > 10 and torch.allclose(mixed, (often * alone + PRIOR * other[0]) / (often + PRIOR), atol=1e-5)


def test_a_piece_that_stands_for_new_ones_is_on_the_side_that_the_base_knows(planted: tuple) -> None:
    """A new piece in the base's own language is opposite to new pieces of the other: it has nothing to be mixed from there."""
    tokenizer, batches, origins = planted
    origins = list(origins)
    origins[1] = (0,)  # a0 is new as well
    counts = aligned_pieces(tokenizer, batches)
    old = torch.eye(COUNT + 1)
    places, _ = translated(counts, origins, old, ([], old[:0]))
    assert 1 not in places and set(places) <= set(range(COUNT + 1, 2 * COUNT + 1)) and len(places) >= COUNT - 1
    known = old[5:6]
    again, found = translated(counts, origins, old, ([1], known))
    assert again[0] == 1 and torch.equal(found[0], known[0]), "what else is known of it stays"
