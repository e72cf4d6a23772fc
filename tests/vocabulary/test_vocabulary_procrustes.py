"""A donor's rows in the base's space, on planted turns: what was turned away comes back."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from raysberta.errors import InputError
from raysberta.vocabulary.initialise import rows
from raysberta.vocabulary.procrustes import donated, rotation, turned
from raysberta.vocabulary.revise import Revision, revise
from small_models import a_phase


def orthonormal(long: int, short: int, seed: int) -> torch.Tensor:
    """[long, short] with orthonormal columns."""
    return torch.linalg.qr(torch.randn(long, short, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).Q


def planted(texts: set[str], width: int) -> dict[str, torch.Tensor]:
    """A vector for every text, by the text alone."""
    return {text: torch.randn(width, generator=torch.Generator().manual_seed(sum(text.encode()) * 997 + len(text))) for text in texts}


def a_table(tokenizer: PreTrainedTokenizerFast, world: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack([world[str(text)] for text in tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10**6))
def test_a_turned_moved_and_scaled_space_comes_back(wide: int, narrow: int, seed: int) -> None:
    """Both ways, square or not: what is only turned, moved and scaled is found again, anchors or not."""
    wide, narrow = max(wide, narrow), min(wide, narrow)
    draw = torch.Generator().manual_seed(seed)
    true = torch.randn(wide + 30, narrow, generator=draw, dtype=torch.float64) + 3
    other = 2.5 * true @ orthonormal(wide, narrow, seed + 1).T + torch.randn(wide, generator=draw, dtype=torch.float64)
    anchors = slice(0, wide + 10)
    assert torch.allclose(turned(other, other[anchors], true[anchors]), true, atol=1e-8)
    assert torch.allclose(turned(true, true[anchors], other[anchors]), other, atol=1e-8)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 10**6))
def test_no_other_turn_agrees_more(first: int, second: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    source, target = (torch.randn(9, width, generator=draw, dtype=torch.float64) for width in (first, second))
    found = rotation(source, target)
    assert torch.allclose(found @ found.T if first <= second else found.T @ found, torch.eye(min(first, second), dtype=torch.float64))
    best = (source @ found * target).sum()
    for other in range(60):
        turn = orthonormal(max(first, second), min(first, second), seed + other)
        turn = turn.T if first < second else turn
        assert (source @ turn * target).sum() <= best + 1e-9


def test_new_rows_vary_as_old_ones_do_however_bad_the_fit() -> None:
    draw = torch.Generator().manual_seed(0)
    source, target = (torch.randn(400, 8, generator=draw) for _ in range(2))
    found = turned(source, source, 3 * target + 5)
    assert found.std(0).mean().item() == pytest.approx(3, rel=0.1) and found.mean().item() == pytest.approx(5, abs=0.2)


@pytest.fixture
def merged(russian_bpe: PreTrainedTokenizerFast, english_bpe: PreTrainedTokenizerFast, russian: list[str]) -> Revision:
    """The paper's case, small, with pieces learned on top."""
    revision = revise(russian_bpe, [russian], a_phase(extend_from="donor", learn=20), english_bpe)
    assert revision.counts["adopted"] > 100 and revision.counts["learned"] == 20
    return revision


@pytest.mark.parametrize("width", [16, 24])
def test_a_donor_that_is_the_base_turned_gives_the_bases_rows(
    russian_bpe: PreTrainedTokenizerFast, english_bpe: PreTrainedTokenizerFast, merged: Revision, width: int
) -> None:
    world = planted(set(russian_bpe.get_vocab()) | set(english_bpe.get_vocab()), 16)
    old = a_table(russian_bpe, world)
    theirs = 0.7 * (a_table(english_bpe, world).double() @ orthonormal(width, 16, 5).T).float() + 0.3
    strange = [piece for piece, number in english_bpe.get_vocab().items() if ord(piece[0]) > 126 and len(piece) == 1]
    assert len(strange) > 100 and "Ġ" in strange
    halves = [english_bpe.get_vocab()[piece] for piece in strange if piece != "Ġ"]
    theirs[halves] = 50.0  # bytes that are no text: as anchors they would spoil the map
    places, found = donated(merged.texts, merged.origins, russian_bpe, old, english_bpe, theirs)
    assert [merged.texts[place] for place in places] == [
        text for text in merged.texts[len(russian_bpe) :] if text in english_bpe.get_vocab()
    ]
    assert len(places) == merged.counts["adopted"]
    new = rows(old, merged.origins, "procrustes", 1, {"procrustes": (places, found)})
    assert torch.equal(new[: len(russian_bpe)], old)
    expected = torch.stack([world[merged.texts[place]] for place in places])
    assert (new[places] - expected).abs().max() < 1e-5
    for place in set(merged.new) - set(places):  # learned: the donor has no row for them
        assert torch.allclose(new[place], old[list(merged.origins[place])].mean(0))


def test_too_few_anchors_are_counted(russian_bpe: PreTrainedTokenizerFast, english_bpe: PreTrainedTokenizerFast, merged: Revision) -> None:
    shared = set(russian_bpe.get_vocab()) & set(english_bpe.get_vocab())
    special = set(russian_bpe.all_special_tokens)
    text = {piece for piece in shared - special if len(piece) > 1 or "!" <= piece <= "~" or piece == "Ġ"}
    old, theirs = torch.randn(len(russian_bpe), 400), torch.randn(len(english_bpe), 500)
    with pytest.raises(InputError, match=rf"initialisation: procrustes has {len(text)} anchors.*more than the 400 dimensions"):
        donated(merged.texts, merged.origins, russian_bpe, old, english_bpe, theirs)


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_goes_through_a_merged_vocabulary_and_back(merged_once: PreTrainedTokenizerFast, text: str) -> None:
    ids = merged_once(text, add_special_tokens=False)["input_ids"]
    if not any(special in text for special in merged_once.all_special_tokens):
        assert merged_once.decode(ids) == text
    assert all(0 <= number < len(merged_once) for number in ids) and merged_once.unk_token_id not in ids


@pytest.fixture(scope="module")
def merged_once(russian_bpe: PreTrainedTokenizerFast, english_bpe: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    return revise(russian_bpe, iter([]), a_phase(extend_from="donor"), english_bpe).tokenizer


def test_old_text_is_cut_as_before(russian_bpe: PreTrainedTokenizerFast, merged_once: PreTrainedTokenizerFast, russian: list[str]) -> None:
    """Old ids and old merges come first: only where a donor's token joins what the base left apart does Russian text change."""
    new = len(russian_bpe)
    for text in russian[:300]:
        before, after = (tokenizer(text, add_special_tokens=False)["input_ids"] for tokenizer in (russian_bpe, merged_once))
        if np.max(after) < new:
            assert before == after
        else:
            assert len(after) < len(before)
