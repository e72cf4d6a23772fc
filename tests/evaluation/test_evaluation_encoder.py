"""The search that mteb is given: against all products at once, whatever the slices; titles, instructions and bounds."""

from pathlib import Path

import mteb
import numpy as np
import pytest
from datasets import Dataset
from mteb.types import PromptType

from evaluation.registered import countries
from raysberta.errors import InputError
from raysberta.evaluation import encoder as room
from raysberta.evaluation.encoder import Best, PrefixedEncoder, Remembered
from raysberta.prefixes import E5
from raysberta.retrieval.embed import Embedder

TASK = mteb.get_task("RuBQRetrieval").metadata
CORPUS = Dataset.from_list(
    [
        {"id": f"d{place}", "title": city if place % 2 else "", "text": f" {city} — столица страны {country}. "}
        for place, (country, city) in enumerate(countries())
    ]
)
QUERIES = Dataset.from_list([{"id": f"q{place}", "text": f"главный город {country}"} for place, (country, _) in enumerate(countries())])


@pytest.mark.parametrize("slice_rows", [1, 7, 1000])
def test_the_best_are_those_of_all_products(slice_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SCORES", 50)
    vectors = np.random.default_rng(3).normal(size=(40, 8)).astype(np.float32)
    queries = np.random.default_rng(4).normal(size=(9, 8)).astype(np.float32)
    best = Best(9, 6)
    for first in range(0, 40, slice_rows):
        best.add(queries, vectors[first : first + slice_rows], first)
    order = np.argsort(-(queries @ vectors.T), axis=1)[:, :6]
    assert np.array_equal(np.sort(best.rows, axis=1), np.sort(order, axis=1))
    assert np.allclose(np.take_along_axis(queries @ vectors.T, best.rows, 1), best.scores, atol=1e-6)


@pytest.mark.parametrize("slice_rows", [5, 16_384])
def test_a_search_ranks_what_mtebs_own_ranks(encoder: Path, slice_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SLICE", slice_rows)
    embed = Remembered(Embedder(encoder, 32, "fp32").encode)
    mine = PrefixedEncoder(embed, E5, "raysberta/probe", "r1")
    theirs = mteb.models.SearchEncoderWrapper(PrefixedEncoder(embed, E5, "raysberta/probe", "r1"))
    ranked = {f"q{place}": [f"d{place}", f"d{(place + 5) % len(CORPUS)}", "d3"] for place in range(len(QUERIES) - 1)}
    for top_ranked in (None, ranked):
        found = []
        for searcher in (mine, theirs):
            asked = {
                "task_metadata": TASK,
                "hf_split": "test",
                "hf_subset": "default",
                "encode_kwargs": {"batch_size": 8},
                "num_proc": None,
            }
            searcher.index(CORPUS, **asked)
            found.append(searcher.search(QUERIES, top_k=4, top_ranked=top_ranked, **asked))
        assert found[0].keys() == found[1].keys()
        for query, near in found[1].items():
            assert found[0][query] == pytest.approx(near, abs=1e-6)
    assert len(embed.vectors) == len(CORPUS) + len(QUERIES)


def test_instructions_stand_behind_queries_and_conversations_are_refused() -> None:
    seen: list[str] = []

    def embed(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        return np.ones((len(texts), 1), np.float32)

    asking = PrefixedEncoder(embed, E5, "raysberta/probe", "r1")
    asking.index(CORPUS)
    asking.search(QUERIES.select([0]).add_column("instruction", ["Назови столицу."]), task_metadata=TASK, top_k=2)
    assert seen[0] == "query: главный город Россия Назови столицу."
    assert seen[1:3] == ["passage: Москва — столица страны Россия.", "passage: Париж  Париж — столица страны Франция."]
    with pytest.raises(InputError, match="RuBQRetrieval: its queries are conversations"):
        asking.search(Dataset.from_list([{"id": "q", "text": ["здравствуйте", "да?"]}]), task_metadata=TASK, top_k=2)


def test_what_mteb_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    asking = PrefixedEncoder(lambda texts: np.ones((len(texts), 1 << 18), np.float32), E5, "raysberta/probe", "r1")
    monkeypatch.setattr(room, "VECTORS_MIB", 1)
    with pytest.raises(
        InputError, match="RuBQRetrieval: 2 texts are 2 MiB of vectors, and mteb holds all of a task at once; right would be at most 1"
    ):
        asking.encode([{"text": ["один", "два"]}], task_metadata=TASK, prompt_type=PromptType.document)
    monkeypatch.setattr(room, "FOUND", 100)
    asking.index(CORPUS)
    with pytest.raises(InputError, match="24 queries, and mteb holds 10 results of each; right would be at most 10"):
        asking.search(QUERIES, task_metadata=TASK, top_k=10)
