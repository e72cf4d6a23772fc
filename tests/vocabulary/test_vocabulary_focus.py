"""FOCUS on planted neighbourhoods: a new piece gets the row of what it is like."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertModel, PreTrainedTokenizerFast

from raysberta.vocabulary.focus import auxiliary, focus, mixtures, sparsemax
from raysberta.vocabulary.initialise import rows, table
from raysberta.vocabulary.revise import apply, revise
from small_models import a_phase

KINDS = 6
EACH = 5


@pytest.fixture(scope="module")
def planted() -> tuple[PreTrainedTokenizerFast, list[str]]:
    """Words `k3w1` of six kinds, each kind among context words of its own; word 4 of each kind is the new one; `never` never occurs."""
    words = [f"k{kind}w{number}" for kind in range(KINDS) for number in range(EACH)] + [
        f"k{kind}c{number}" for kind in range(KINDS) for number in range(8)
    ]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate([*words, "never", "<unk>"])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    draw = random.Random(0)
    texts = []
    for _ in range(3000):
        kind = draw.randrange(KINDS)
        around = [f"k{kind}c{draw.randrange(8)}" for _ in range(4)]
        texts.append(" ".join([*around[:2], f"k{kind}w{draw.randrange(EACH)}", *around[2:]]))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>"), texts


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=12), st.integers(0, 1000))
def test_sparsemax_is_the_nearest_point_of_the_simplex(scores, seed):
    row = torch.tensor([scores], dtype=torch.float64)
    found = sparsemax(row)
    assert found.min() >= 0 and found.sum().item() == pytest.approx(1)
    others = torch.from_numpy(np.random.default_rng(seed).dirichlet(np.full(len(scores), 0.3), 200))
    assert ((others - row) ** 2).sum(1).min() >= ((found - row) ** 2).sum() - 1e-9
    for most in (1, 3):
        assert torch.equal(found, sparsemax(row, most)), "however many scores are looked at first"


def test_new_pieces_get_the_rows_of_their_like_and_nothing_of_others(planted):
    tokenizer, texts = planted
    vectors = auxiliary(tokenizer, [texts[:1000], texts[1000:]], seed=1)
    assert torch.equal(vectors, auxiliary(tokenizer, [texts], seed=1)), "how the corpus is cut into batches does not matter"
    number = tokenizer.get_vocab()
    assert not vectors[number["never"]].any()
    new = [number[f"k{kind}w4"] for kind in range(KINDS)]
    kept = [place for place in range(len(number)) if place not in new and vectors[place].any()]
    kinds = torch.tensor([int(tokenizer.convert_ids_to_tokens(place)[1]) for place in kept])
    onehot = F.one_hot(kinds, KINDS).float()
    mixed = mixtures(vectors, new, kept, onehot)
    assert torch.allclose(mixed.sum(1), torch.ones(KINDS)) and (mixed.diagonal() > 0.9).all()


def test_pieces_that_the_corpus_does_not_hold_start_as_their_mean(planted):
    tokenizer, texts = planted
    vectors = auxiliary(tokenizer, [texts], seed=1)
    number, old = tokenizer.get_vocab(), torch.randn(len(tokenizer), 7)
    origins = [place if text not in ("never", "k0w4") else (0, 1) for text, place in sorted(number.items(), key=lambda item: item[1])]
    found = rows(old, origins, "focus", 0, {"focus": focus(vectors, origins, old)})
    unchanged = [place for place, origin in enumerate(origins) if isinstance(origin, int)]
    assert torch.equal(found[unchanged], old[unchanged])
    assert torch.equal(found[number["never"]], old[[0, 1]].mean(0))
    assert not torch.equal(found[number["k0w4"]], old[[0, 1]].mean(0))


def test_a_learned_vocabulary_can_start_with_focus(unigram: PreTrainedTokenizerFast, unigram_model: BertModel, russian: list[str]) -> None:
    settings = a_phase(learn=60, initialisation="focus")
    revision = revise(unigram, [russian], settings)
    before = table(unigram_model).clone()
    vectors = auxiliary(revision.tokenizer, [russian], 1)
    apply(unigram_model, revision, settings, 1, {"focus": focus(vectors, revision.origins, before)})
    after = table(unigram_model)
    new = revision.new
    assert len(new) > 20 and torch.isfinite(after).all()
    for place, origin in enumerate(revision.origins):
        if isinstance(origin, int):
            assert torch.equal(after[place], before[origin])
    assert after[new].norm(dim=1).max() <= before.norm(dim=1).max() + 1e-5, "a mixture is no longer than what it is made of"
