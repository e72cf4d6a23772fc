"""Texts by number: sentences of packaged Russian and English text recombined, the same for a number on every machine, none twice.

A sentence of the pool ends where one ends and holds no such place inside, so a text falls into the same sentences again; the first two of
them spell its number. Sentences for evaluation sets are kept aside: they share no run of words with those that texts are made of, nor with
one another.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raysberta.corpus.documents import Found
from raysberta.corpus.normal import words
from raysberta.corpus.packaged import cloud, diseases, docstrings, legal, senses, wiktionary
from raysberta.pairs.text import normalise

END = re.compile(r"(?<=[.!?…])\s+")
"""Between two sentences."""
SENTENCE = range(5, 31)
"""Words of a sentence of the pool."""
RUN = 13
"""Words in a row by which a text is taken for an evaluation text."""
SHARED = 5
"""Words in a row that no sentence kept aside shares with another one: RUN words of a text reach over three sentences at most, of which
one then gives SHARED or more, for the shortest has so many.
"""
ASIDE = 50
"""One of so many sentences is kept aside."""
LONGEST = 220
"""Characters of a sentence of the pool."""
MOST_CHARACTERS = 900
"""Of a text, so that no tokenizer of words' pieces makes 500 tokens of it."""
LONG_WORDS = 520
"""Of a text that is more than 500 tokens to any tokenizer."""
PACKAGES = ("torch", "numpy", "pandas", "scipy", "sklearn", "ray", "transformers", "pyarrow", "matplotlib", "sympy", "networkx")
SERVICES = ("s3", "ec2", "lambda", "rds", "iam", "dynamodb", "sagemaker", "glue", "ssm", "ecs", "eks", "quicksight", "connect", "iot")
SCHEMA = pa.schema([("sentence", pa.string()), ("aside", pa.bool_())])
LANGUAGES = ("ru", "en")


@dataclass(frozen=True)
class Pool:
    """The sentences of a language."""

    sentences: Sequence[str]
    aside: Sequence[str]

    @property
    def numbers(self) -> int:
        """How many texts there are."""
        return len(self.sentences) ** 2

    def query(self, number: int) -> str:
        """A sentence; so many in a row as the pool has sentences are all different."""
        return self.sentences[number * step(len(self.sentences)) % len(self.sentences)]

    def text(self, number: int, least: int, most: int) -> str:
        """From `least` (2 or more) to `most` sentences, as many as the number says, within MOST_CHARACTERS; another one for each number."""
        size = len(self.sentences)
        stride = step(size)
        first = number * stride % size
        chosen = [first, (first * stride + number // size) % size]  # of one first sentence, size different second ones
        mixed = mix(number)
        chosen += [mix(mixed + place) % size for place in range(least + mixed % (most - least + 1) - 2)]
        texts = [self.sentences[place] for place in chosen]
        held = 0
        for count, text in enumerate(texts):
            held += len(text) + 1
            if held > MOST_CHARACTERS and count >= 2:
                return " ".join(texts[:count])
        return " ".join(texts)

    def long_text(self, number: int) -> str:
        """A text of LONG_WORDS words or some more; another one for each number, and none of `text`'s."""
        text = self.text(number, 2, 2)
        mixed = mix(number)
        place, parts, held = 0, [text], text.count(" ") + 1
        while held < LONG_WORDS:
            part = self.sentences[mix(mixed + place) % len(self.sentences)]
            parts.append(part)
            held += part.count(" ") + 1
            place += 1
        return " ".join(parts)


def mix(number: int) -> int:
    """64 bits that look drawn (the finaliser of SplitMix64)."""
    value = (number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)


def step(size: int) -> int:
    """A step that goes through all of `size` places."""
    step = max(1, int(size * 0.6180339887))
    while math.gcd(step, size) > 1:
        step += 1
    return step


def make_pool(documents: Iterable[Found]) -> Pool:
    """The sentences of documents: each once, whatever its case, in the order in which they come."""
    found: dict[str, str] = {}
    for text in _texts(documents):
        for sentence in END.split(" ".join(text.split())):
            if sentence.endswith((".", "!", "?", "…")) and sentence.count(" ") + 1 in SENTENCE and len(sentence) <= LONGEST:
                found.setdefault(normalise(sentence), sentence)
    sentences = list(found.values())
    kept = [sentence for number, sentence in enumerate(sentences) if number % ASIDE]
    others = [sentence for number, sentence in enumerate(sentences) if number % ASIDE == 0 and len(words(sentence)) >= RUN]
    wanted = Counter(run for sentence in others for run in set(_runs(sentence)))
    shared = {run for sentence in kept for run in _runs(sentence) if run in wanted} | {run for run, times in wanted.items() if times > 1}
    aside = [sentence for sentence in others if shared.isdisjoint(_runs(sentence))]
    return Pool(kept, aside)


def write_pools(folder: Path) -> None:
    """Write the pool of each language, `<language>.parquet`."""
    folder.mkdir(parents=True, exist_ok=True)
    for language in LANGUAGES:
        pool = make_pool(packaged(language))
        flags = [False] * len(pool.sentences) + [True] * len(pool.aside)
        aside = folder / f"{language}.new"
        pq.write_table(pa.table([[*pool.sentences, *pool.aside], flags], SCHEMA), aside, compression="zstd")
        aside.replace(folder / f"{language}.parquet")


def read_pools(folder: Path) -> dict[str, Pool]:
    """What `write_pools` wrote."""
    pools = {}
    for language in LANGUAGES:
        rows = pq.read_table(folder / f"{language}.parquet").to_pylist()
        pools[language] = Pool(*([row["sentence"] for row in rows if row["aside"] is aside] for aside in (False, True)))
    return pools


def packaged(language: str) -> Iterator[Found]:
    """The documents that sentences are taken from: none of those that the rehearsal's tasks are made of."""
    key = "rehearsal"
    if language == "ru":
        for module in (wiktionary, senses, legal):
            for part in module.parts():
                yield from module.read(part, key)
        return
    for part in docstrings.parts(PACKAGES, key):
        yield from docstrings.read(part, key)
    for part in cloud.parts(SERVICES):
        yield from cloud.read(part, key)
    for part in diseases.parts():
        yield from diseases.read(part, key)


def _texts(documents: Iterable[Found]) -> Iterator[str]:
    for document in documents:
        yield document.text
        yield from (text for _, text in document.sections)


def _runs(sentence: str) -> Iterator[tuple[str, ...]]:
    own = words(sentence)
    for start in range(len(own) - SHARED + 1):
        yield tuple(own[start : start + SHARED])
