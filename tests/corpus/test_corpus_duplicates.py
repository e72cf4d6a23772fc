import random
import re
import unicodedata
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysberta.corpus.duplicates import bands, clusters, exact, minhashes, near, preference
from raysberta.corpus.normal import content_key, normalise, words


def decide(texts: list[str], ids: list[str], order: list[int]) -> dict[str, str]:
    """Which id stays for each id, deciding over the texts in the given order."""
    texts, ids = [texts[index] for index in order], [ids[index] for index in order]
    ranks = preference(np.array([len(text) for text in texts]), np.array(ids), np.arange(len(texts)))
    kept = exact(np.array([content_key(text) for text in texts]), ranks)
    still = np.flatnonzero(kept == np.arange(len(texts)))
    signatures, has = minhashes([texts[index] for index in still])
    clusters = near(bands(signatures), has, ranks[still])
    found = {ids[index]: ids[kept[index]] for index in range(len(texts))}
    found.update({ids[still[index]]: ids[still[clusters[index]]] for index in range(len(still))})
    return found


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("йод", "иод"),
        ("все", "всё"),
        ("счёт 5 к 1", "счёт 7 к 1"),
        ("язык C", "язык C++"),
        ("C#", "C"),
        ("x > y", "x < y"),
        ("1.5", "15"),
        ("-5 градусов", "5 градусов"),
    ],
)
def test_different_texts_keep_different_keys(left: str, right: str) -> None:
    assert content_key(left) != content_key(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Привет,  МИР!", "привет мир"),
        ("за́мок", "замок"),
        ("и\u0306од", "йод"),
        ("«ёлка» — дерево", 'ёлка - "дерево"'),
        ("Всё…", "всё"),
    ],
)
def test_same_texts_share_their_key(left: str, right: str) -> None:
    assert content_key(left) == content_key(right)


def test_punctuation_alone_stands_for_itself() -> None:
    assert normalise("…!?") == ""
    assert content_key("…") != content_key("!?")


def planted(count: int, seed: int) -> list[str]:
    """Random texts; every second one with copies that differ in one to many words."""
    generator = random.Random(seed)
    vocabulary = [f"слово{number}" for number in range(3000)]
    texts = []
    for number in range(count):
        base = generator.choices(vocabulary, k=generator.randint(30, 120))
        texts.append(" ".join(base))
        if number % 2:
            for changes in (1, 2, 10, 30):
                copy = list(base)
                for _ in range(changes):
                    copy[generator.randrange(len(copy))] = generator.choice(vocabulary)
                texts.append(" ".join(copy))
    return texts


def test_planted_near_duplicates_against_exact_jaccard() -> None:
    texts = planted(100, 1)
    sets = [{tuple(own[at : at + 5]) for at in range(len(own) - 4)} for own in map(words, texts)]
    signatures, has = minhashes(texts)
    hashes = bands(signatures)
    assert has.all()
    high = [
        pair
        for pair in combinations(range(len(texts)), 2)
        if len(sets[pair[0]] & sets[pair[1]]) >= 0.85 * len(sets[pair[0]] | sets[pair[1]])
    ]
    low = [
        pair for pair in combinations(range(len(texts)), 2) if len(sets[pair[0]] & sets[pair[1]]) < 0.4 * len(sets[pair[0]] | sets[pair[1]])
    ]
    assert len(high) >= 30
    met = sum(bool((hashes[a] == hashes[b]).any()) for a, b in high)
    assert met >= 0.95 * len(high)
    assert sum(bool((hashes[a] == hashes[b]).any()) for a, b in low) <= 0.001 * len(low)


def test_signatures_estimate_jaccard() -> None:
    texts = planted(30, 2)
    signatures, _ = minhashes(texts)
    sets = [{tuple(own[at : at + 5]) for at in range(len(own) - 4)} for own in map(words, texts)]
    errors = [
        float((signatures[a] == signatures[b]).mean()) - len(sets[a] & sets[b]) / len(sets[a] | sets[b])
        for a, b in combinations(range(len(texts)), 2)
        if sets[a] & sets[b]
    ]
    assert abs(np.mean(errors)) < 0.02
    assert np.std(errors) < 0.06


def test_choice_does_not_depend_on_order_or_batches() -> None:
    texts = planted(40, 3)
    texts += texts[:5] + [text.upper() + "!" for text in texts[5:10]]
    ids = [f"{random.Random(index).getrandbits(64):016x}" for index in range(len(texts))]
    order = list(range(len(texts)))
    forward = decide(texts, ids, order)
    assert len(set(forward.values())) < len(texts) - 20
    for seed in (4, 5):
        random.Random(seed).shuffle(order)
        assert decide(texts, ids, order) == forward
    whole, _ = minhashes(texts)
    pieces = np.concatenate([minhashes(texts[at : at + 7])[0] for at in range(0, len(texts), 7)])
    assert (whole == pieces).all()


def test_longest_stays_then_smallest_id() -> None:
    base = " ".join(f"слово{number}" for number in range(60))
    kept = decide([base, base + " и ещё одно", base.upper()], ["c", "b", "a"], [0, 1, 2])
    assert kept == {"a": "b", "b": "b", "c": "a"}
    assert set(decide([base, base], ["d", "c"], [0, 1]).values()) == {"c"}


def test_short_texts_have_no_signature() -> None:
    signatures, has = minhashes(["раз два три четыре", "раз два три четыре пять", "", "!!!"])
    assert has.tolist() == [False, True, False, False]
    assert near(bands(signatures), has, np.arange(4)).tolist() == [0, 1, 2, 3]
    assert minhashes([])[0].shape == (0, 112)


def test_near_duplicates_with_numbers_and_letters_stay_apart_when_short() -> None:
    texts = ["химический элемент с атомным номером 53, йод", "химический элемент с атомным номером 35, бром"]
    signatures, has = minhashes(texts)
    assert len(set(near(bands(signatures), has, np.arange(2)).tolist())) == 2


SEPARATORS = re.compile(r"(?:[\s\"'`«»„“”‘’‚.,:;!?…()\[\]{}—–―·•_|\\]|(?<!\w)-+(?!\d)|-+(?![\w-]))+")


@given(st.lists(st.sampled_from([*"aЙё5-_. +#«²\n", "--", "---", "\u0301", "\xa0", "\u2028"]), max_size=14).map("".join))
def test_comparable_form_against_one_expression(text: str) -> None:
    composed = re.sub("[\u0300\u0301]", "", unicodedata.normalize("NFC", text.lower()))
    assert normalise(text) == SEPARATORS.sub(" ", composed).strip()
    assert words(text) == normalise(text).split()


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30), st.randoms())
def test_clusters_are_connected_components_in_any_order(pairs: list[tuple[int, int]], dice: random.Random) -> None:
    ranks = np.array(dice.sample(range(20), 20))
    reached = {node: {node} for node in range(20)}
    for _ in range(20):  # as many rounds as the longest path
        for left, right in pairs:
            reached[left] = reached[right] = reached[left] | reached[right]
            for node in reached[left]:
                reached[node] = reached[node] | reached[left]
    expected = [min(reached[node], key=lambda other: ranks[other]) for node in range(20)]
    for _ in range(3):
        dice.shuffle(pairs)
        turned = [pair[::-1] if dice.random() < 0.5 else pair for pair in pairs]
        assert clusters(np.array(turned, np.int64).reshape(-1, 2), ranks).tolist() == expected
