"""Scores through mteb with the real multilingual-e5-small, and the prefix that each text really got."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from raysberta.errors import InputError
from raysberta.evaluation import benchmark, tasks
from raysberta.evaluation.encoder import PrefixedEncoder
from raysberta.evaluation.score import mean, score_model, score_own
from raysberta.prefixes import E5, Prefixes
from raysberta.recipe import Evaluation
from raysberta.retrieval.embed import Embedder


class Recording(Embedder):
    """The real embedder, which also writes down what reaches it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "mean", 48, "bf16")
        self.seen: list[str] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.seen.extend(texts)
        return super().encode(texts)


@pytest.fixture(scope="module")
def recorder(e5_folder: Path) -> Recording:
    return Recording(e5_folder)


def column(held_out: Path, task: str, file: str, name: str = "text") -> set[str]:
    return set(pq.read_table(held_out / "test" / task / f"{file}.parquet")[name].to_pylist())


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("Capitals", [("search_query: ", "queries", "text"), ("search_document: ", "corpus", "text")]),
        ("Atlas", [("classification: ", "pairs", "sentence1"), ("classification: ", "pairs", "sentence2")]),
        ("Senses", [("classification: ", "pairs", "sentence1"), ("classification: ", "pairs", "sentence2")]),
        ("Intents", [("classification: ", "train", "text"), ("classification: ", "test", "text")]),
        ("Themes", [("clustering: ", "texts", "text")]),
    ],
)
def test_every_text_of_a_task_reaches_the_embedder_with_its_prefix(recorder: Recording, held_out: Path, task: str, expected: list) -> None:
    recorder.seen = []
    scored = score_own(recorder.encode, Prefixes(), held_out, "test", [task])
    wanted = {prefix + text for prefix, file, name in expected for text in column(held_out, task, file, name)}
    assert set(recorder.seen) == wanted
    assert len(recorder.seen) == len(wanted), "each distinct text is embedded once"
    assert 0 < scored.scores[task] <= 1


def test_the_name_and_the_revision_are_in_the_results(recorder: Recording, held_out: Path) -> None:
    own = score_own(recorder.encode, Prefixes(), held_out, "test", ["Capitals"], "raysberta/probe", "r1")
    result = own.results["Capitals"]
    assert result["task_name"] == "Capitals.test"
    assert result["dataset_revision"] == benchmark.read(held_out)[1].tasks["Capitals"].halves["test"].revision
    assert result["scores"]["test"][0]["main_score"] == own.scores["Capitals"]
    meta = PrefixedEncoder(recorder.encode, E5, "raysberta/probe", "r1").mteb_model_meta
    assert (meta.name, meta.revision) == ("raysberta/probe", "r1")


def test_the_same_scores_twice_and_better_than_chance(e5_folder: Path, held_out: Path) -> None:
    settings = Evaluation(max_tokens=48, precision="bf16")
    given = {"pooling": "mean", "prefixes": E5, "benchmark": held_out, "half": "dev", "evaluation": settings, "purpose": "tuning"}
    first, second = (score_model(e5_folder, **given) for _ in range(2))
    assert first == second
    assert list(first) == ["Capitals", "Atlas", "Senses", "Intents", "Themes"]
    assert first["Capitals"] > 0.5 and first["Atlas"] > 0.5 and first["Intents"] > 0.4
    assert mean(first) == pytest.approx(sum(first.values()) / 5)


def test_scores_follow_the_vectors(held_out: Path) -> None:
    """Vectors that know the answer score 1, vectors that know nothing do not: the wiring of relevance and labels is right."""
    answers = {row["text"]: row["label"] for row in pq.read_table(held_out / "test" / "Themes" / "texts.parquet").to_pylist()}
    answers |= {
        row["text"]: row["label"]
        for name in ("train", "test")
        for row in pq.read_table(held_out / "test" / "Intents" / f"{name}.parquet").to_pylist()
    }

    def oracle(texts: Sequence[str]) -> np.ndarray:
        noise = np.random.default_rng(0).normal(scale=0.01, size=(len(texts), 8)).astype(np.float32)
        noise[np.arange(len(texts)), [answers[text.split(": ", 1)[1]] for text in texts]] += 1
        return noise / np.linalg.norm(noise, axis=1, keepdims=True)

    def ignorant(texts: Sequence[str]) -> np.ndarray:
        noise = np.random.default_rng(0).normal(size=(len(texts), 8)).astype(np.float32)
        return noise / np.linalg.norm(noise, axis=1, keepdims=True)

    knows = score_own(oracle, Prefixes(), held_out, "test", ["Intents", "Themes"]).scores
    guesses = score_own(ignorant, Prefixes(), held_out, "test", ["Intents", "Themes"]).scores
    assert knows["Intents"] == 1.0 and knows["Themes"] > 0.95
    assert guesses["Intents"] < 0.6 and guesses["Themes"] < 0.3


def test_tuning_is_refused_what_it_may_not_read(e5_folder: Path, held_out: Path, tmp_path: Path) -> None:
    given = {"pooling": "mean", "prefixes": E5, "evaluation": Evaluation(), "purpose": "tuning"}
    with pytest.raises(InputError, match="test halves"):
        score_model(e5_folder, benchmark=held_out, half="test", **given)
    with pytest.raises(InputError, match="RuBQRetrieval is a public task"):
        score_model(e5_folder, benchmark=held_out, half="dev", tasks=["RuBQRetrieval"], **given)
    with pytest.raises(InputError, match=r"no benchmark\.json"):
        score_model(e5_folder, benchmark=tmp_path, half="dev", **given)


def test_languages_of_all_tasks_are_those_that_mteb_knows() -> None:
    assert tasks.language_script("ru") == "rus-Cyrl"
    assert tasks.language_script("en") == "eng-Latn"
    with pytest.raises(InputError, match="language 'xx'"):
        tasks.language_script("xx")
