"""Scores through mteb with the real multilingual-e5-small, and the prefix that each text really got."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from raysberta.errors import InputError
from raysberta.evaluation import task_folder, tasks
from raysberta.evaluation.encoder import PrefixedEncoder
from raysberta.evaluation.means import two_means
from raysberta.evaluation.score import dev_scores, score_model, score_own
from raysberta.evaluation.settings import Scoring
from raysberta.models.describe import Description, write_description
from raysberta.prefixes import E5, NOMIC, Prefixes
from raysberta.retrieval.embed import Embedder


class Recording(Embedder):
    """The real embedder, which also writes down what reaches it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, 48, "bf16")
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
    assert result["dataset_revision"] == task_folder.read(held_out)[1].tasks["Capitals"].halves["test"].revision
    assert result["scores"]["test"][0]["main_score"] == own.scores["Capitals"]
    meta = PrefixedEncoder(recorder.encode, E5, "raysberta/probe", "r1").mteb_model_meta
    assert (meta.name, meta.revision) == ("raysberta/probe", "r1")


def test_the_same_scores_twice_and_better_than_chance(e5_folder: Path, held_out: Path) -> None:
    first, second = (dev_scores(e5_folder, held_out, (), Scoring(max_tokens=48, precision="bf16")) for _ in range(2))
    assert first == second
    assert list(first) == ["Capitals", "Atlas", "Senses", "Intents", "Themes"]
    assert first["Capitals"] > 0.5 and first["Atlas"] > 0.5 and first["Intents"] > 0.4


def test_two_means_count_every_task_alike_and_are_weighted_for_a_search_alone() -> None:
    scores = {"Capitals": 0.25, "Atlas": 0.5, "Senses": 0.75, "Intents": 0.1}
    means = two_means(scores, ["Senses", "Intents", "Unread"])
    assert (means.own, means.general) == (pytest.approx(0.375), pytest.approx(0.425))
    assert means.weighted(0.5) == pytest.approx(0.4) and means.weighted(0.2) == pytest.approx(0.385)
    assert str(means) == "own mean 37.50, general mean 42.50"
    only = two_means(scores, scores)
    assert only.own is None and only.weighted(0.0) == only.general == pytest.approx(0.4)
    assert two_means(scores, ()).weighted(1.0) == pytest.approx(0.4)
    with pytest.raises(ValueError, match="no score"):
        two_means({}, ()).weighted(0.5)


def test_a_spoiled_model_scores_worse(encoder: Path, spoiled: Path, held_out: Path) -> None:
    good, bad = (dev_scores(folder, held_out, (), Scoring(max_tokens=48)) for folder in (encoder, spoiled))
    assert bad["Capitals"] < 0.3 < good["Capitals"] and bad["Atlas"] < 0.1 < good["Atlas"], "what only words tell apart"
    assert bad["Senses"] < good["Senses"] - 0.1 and bad["Intents"] < good["Intents"] - 0.05
    assert sum(bad.values()) < sum(good.values()) - 0.5


def test_a_model_is_scored_as_its_folder_says(encoder: Path, held_out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(encoder, folder)
    some = ["Capitals", "Atlas"]
    as_trained = score_model(encoder, held_out, "test", Scoring(), some)
    assert as_trained == score_own(Embedder(encoder, 128, "fp32").encode, E5, held_out, "test", some).scores
    write_description(folder, Description("cls", NOMIC, 512))
    otherwise = score_model(folder, held_out, "test", Scoring(), some)
    assert otherwise == score_own(Embedder(folder, 128, "fp32").encode, NOMIC, held_out, "test", some).scores
    assert all(otherwise[task] != as_trained[task] for task in some)
    cut = score_model(encoder, held_out, "test", Scoring(max_tokens=5), ["Capitals"])
    assert list(cut) == ["Capitals"] and cut["Capitals"] < as_trained["Capitals"]


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


def test_tuning_is_refused_what_it_may_not_read(encoder: Path, held_out: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="test halves"):
        score_model(encoder, held_out, "test", Scoring(), purpose="tuning")
    never = Path("never opened")
    with pytest.raises(InputError, match="RuBQRetrieval is a public task"):
        score_model(never, held_out, "dev", Scoring(), ["RuBQRetrieval"], "tuning")
    with pytest.raises(InputError, match="RuBQRetrieval is a public task"):
        dev_scores(never, held_out, ["RuBQRetrieval"], Scoring())
    with pytest.raises(InputError, match="no task 'Capital'; there are Atlas, Capitals"):
        dev_scores(never, held_out, ["Capital"], Scoring())
    with pytest.raises(InputError, match=r"no tasks\.json there"):
        dev_scores(encoder, tmp_path, (), Scoring())


def test_languages_of_all_tasks_are_those_that_mteb_knows() -> None:
    assert tasks.language_script("ru") == "rus-Cyrl"
    assert tasks.language_script("en") == "eng-Latn"
    with pytest.raises(InputError, match="language 'xx'"):
        tasks.language_script("xx")
