"""Examples with the real encoder through Ray: text that a reader would call a hard negative, kept supplied ones, reproducible output."""

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import ray
from mined_words import ANIMALS, Commit, Made, told

from raysberta.errors import InputError
from raysberta.mining import parts, stage
from raysberta.mining.judge import CrossEncoder
from raysberta.mining.settings import Examples
from raysberta.models.describe import Description, describe, write_description
from raysberta.prefixes import E5, NOMIC
from raysberta.retrieval.embed import Embedder
from raysberta.schema import PAIR, text_id
from raysberta.storage.artifacts import Artifact, Store
from raysberta.storage.location import join
from raysberta.work import Work, Workers

MINE = {"by": "e5", "ranks": [1, 9], "max_tokens": 32}


def changed(table: pa.Table, **columns: str) -> pa.Table:
    """The same pairs under another source, kind or task, with ids of their own."""
    rows = [{**row, **columns, "pair_id": text_id(row["pair_id"], *columns.values())} for row in table.to_pylist()]
    return pa.Table.from_pylist(rows, schema=PAIR)


def same(left: pa.Table, right: pa.Table) -> bool:
    """As text, for one score is NaN."""
    return repr(left.to_pylist()) == repr(right.to_pylist())


@pytest.fixture
def one_core(ray_local: None) -> Iterator[None]:
    """Of the two cores one is taken."""

    class Holder:
        def here(self) -> None:
            """Answer."""

    holder = ray.remote(num_cpus=1)(Holder).remote()
    ray.get(holder.here.remote())
    yield
    ray.kill(holder)


@pytest.mark.usefixtures("ray_local")
def test_hard_negatives_of_real_words(commit: Commit, make: Made, e5_folder: Path, words: pa.Table) -> None:
    e5 = commit("e5", model=e5_folder)
    held_out = changed(words.slice(0, 2), split="test")
    natural = commit("natural", pa.concat_tables([held_out, words]))
    artifact = make({"mine": {**MINE, "keep_vectors": True}}, e5=e5, natural=natural)
    vectors = {row["key"]: np.array(row["vector"], np.float32) for row in artifact.table("vectors").to_pylist()}
    rows = {row["query"]: row for row in artifact.table("examples").to_pylist()}
    assert len(rows) == artifact.manifest.rows_in == artifact.manifest.rows_out == 24
    assert rows["кошка"]["negatives"][0] == "данный источником"
    assert rows["кошка"]["negative_ranks"][0] == -1
    assert all(len(row["negatives"]) == 4 for row in rows.values())
    for word, row in rows.items():
        assert vectors[f"query: {word}"] @ vectors[f"passage: {row['positive']}"] == pytest.approx(row["positive_score"], abs=2e-3)
    shown = {text for row in rows.values() for text in (row["positive"], *row["negatives"])}
    assert set(vectors) == {f"query: {word}" for word in rows} | {f"passage: {text}" for text in shown}
    assert all(row["positive"] not in row["negatives"] for row in rows.values())
    assert all(row["positive_score"] > 0.7 for row in rows.values())
    same_kind = sum("животное" in text for word in ANIMALS for text in rows[word]["negatives"])
    assert same_kind > len(ANIMALS) * 4 * 0.6, "negatives near the top are of the same kind far above the half that chance gives"
    facts = told(artifact)
    assert sum(facts.histograms["negative_rank"].counts) == facts.negatives - 1
    assert (facts.embedded, facts.reused, facts.bad_vectors) == (49, 0, 0), "the negative that a pair brings may be one of others"
    assert set(facts.histograms) == {"positive_score", "negative_score", "negative_rank", "margin"}
    assert {key: pool.model_dump() for key, pool in facts.pools.items()} == {
        "words/term_definition": {"texts": 25, "window": (1, 9), "search": {"method": "exact"}}
    }
    assert facts.teacher == "e5"
    assert facts.prefixes == E5.model_dump(exclude_none=True)
    assert facts.encoder == e5.manifest.id
    again = make({"mine": MINE}, name="again", e5=e5, natural=commit("reversed", words.take(list(reversed(range(24))))))
    assert (told(again).embedded, told(again).reused) == (0, 49)
    assert same(again.table("examples"), artifact.table("examples")), "the order of the input changes nothing"


@pytest.mark.usefixtures("ray_local")
def test_written_pairs_find_negatives_among_natural_ones(commit: Commit, make: Made, e5_folder: Path, words: pa.Table) -> None:
    """The pool is their own texts and all retrieval pairs in their language; without candidates their own alone."""
    e5, natural = commit("e5", model=e5_folder), commit("natural", words)
    rows = [{**row, "positive": f"Слово «{row['query']}» придумано."} for row in changed(words, source="synthetic", kind="q").to_pylist()]
    written = commit("questions", pa.Table.from_pylist(rows[:10], schema=PAIR))
    settings = {"pairs": ["questions"], "candidates": ["natural", "questions"], "mine": MINE}
    wide = make(settings, e5=e5, natural=natural, questions=written)
    alone = make({"pairs": ["questions"], "mine": MINE}, name="alone", e5=e5, questions=written)
    assert told(wide).pools["synthetic/q"].texts == 35, "with the negative that a pair brings"
    assert told(alone).pools["synthetic/q"].texts == 11
    assert wide.table("examples").num_rows == alone.table("examples").num_rows == 10
    theirs = set(words["positive"].to_pylist())
    assert theirs & set(pc.list_flatten(wide.table("examples")["negatives"]).to_pylist())
    assert not theirs & set(pc.list_flatten(alone.table("examples")["negatives"]).to_pylist())
    both = make({"pairs": ["natural", "questions"], "mine": MINE}, name="both", e5=e5, natural=natural, questions=written)
    assert told(both).examples == {"synthetic/q": 10, "words/term_definition": 24}
    own = both.table("examples").filter(pc.equal(both.table("examples")["source"], "synthetic"))
    assert same(own, alone.table("examples")), "what else is mined has no say in it"


@pytest.mark.usefixtures("ray_local")
def test_what_is_not_mined_gets_random_texts_of_its_own_source(commit: Commit, make: Made, words: pa.Table) -> None:
    natural = commit("natural", pa.concat_tables([words, changed(words, source="other", task="topic")]))
    artifact = make({"only": ["words/*"], "negatives": 5}, natural=natural)
    rows = artifact.table("examples").to_pylist()
    assert [row["pair_id"] for row in rows] == sorted(words["pair_id"].to_pylist())
    assert all(len(row["negatives"]) == 5 and row["positive"] not in row["negatives"] for row in rows)
    assert {rank for row in rows for rank in row["negative_ranks"]} == {-1}
    assert np.isnan([row["positive_score"] for row in rows]).all()
    facts = told(artifact)
    assert (facts.embedded, facts.suspects, facts.teacher, facts.encoder, facts.prefixes, facts.false_negatives) == (0, 0, "", "", {}, None)
    assert facts.pools["words/term_definition"].window == (0, 0)
    with pytest.raises(InputError, match=r"examples\.mined\.only: no pairs are 'wurds/\*'; there are other/term_definition, words/"):
        make({"only": ["wurds/*"]}, name="wrong", natural=natural)


@pytest.mark.usefixtures("ray_local")
def test_nothing_to_mine(commit: Commit, make: Made, e5_folder: Path) -> None:
    artifact = make({"mine": MINE}, e5=commit("e5", model=e5_folder), natural=commit("natural", PAIR.empty_table()))
    assert artifact.table("examples").num_rows == 0
    assert told(artifact).examples == {}


@pytest.mark.usefixtures("one_core")
def test_a_cross_encoder_limits_and_estimates_on_one_core(
    commit: Commit, make: Made, e5_folder: Path, cross_folder: Path, words: pa.Table
) -> None:
    """Embedding, ranking and judging within one core, one after the other."""
    settings = {**MINE, "cross_encoder": "cross", "cross_encoder_for": "limits", "margin_to_positive": 0.0}
    inputs = {"e5": commit("e5", model=e5_folder), "natural": commit("natural", words), "cross": commit("cross", model=cross_folder)}
    limited = make({"mine": settings}, Workers(workers=1, cpus=1.0), **inputs)
    facts = told(limited)
    assert facts.false_negatives is not None
    assert facts.false_negatives.share == 0.0, "what scores above the positive was barred"
    assert facts.false_negatives.examples == 24
    assert facts.skipped["within_the_margin"] > 0


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("grant", [1, 2, 3])
def test_any_grant_judges_as_one_worker_does(
    grant: int, commit: Commit, make: Made, e5_folder: Path, cross_folder: Path, words: pa.Table
) -> None:
    """Of two cores; a third worker never starts, and nobody waits for it."""
    settings = {**MINE, "cross_encoder": "cross", "cross_encoder_for": "limits", "margin_to_positive": 0.0}
    inputs = {"e5": commit("e5", model=e5_folder), "natural": commit("natural", words), "cross": commit("cross", model=cross_folder)}
    made = make({"mine": settings, "teacher": "cross"}, Workers(workers=grant, cpus=1.0), **inputs)
    facts = told(made)
    assert facts.false_negatives is not None and facts.false_negatives.share == 0.0 and facts.false_negatives.examples == 24
    judge = CrossEncoder(cross_folder, 256, device="cpu")
    for row in made.table("examples").to_pylist():
        texts = [row["positive"], *row["negatives"]]
        wanted = judge.score([row["query"]] * len(texts), texts)
        np.testing.assert_allclose([row["positive_score"], *row["negative_scores"]], wanted, atol=1e-4)
        assert (wanted[1 + (row["query"] == "кошка") :] <= wanted[0] + 1e-4).all(), "what scores above the positive was barred"


@pytest.mark.usefixtures("ray_local")
def test_workers_and_files_change_no_byte(
    commit: Commit, make: Made, e5_folder: Path, words: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker and one file against two workers and five files in another order, with ranges of eight rows."""
    monkeypatch.setattr(parts, "RANGE_ROWS", 8)
    e5, shuffled = commit("e5", model=e5_folder), words.take(np.random.default_rng(1).permutation(len(words)))
    settings = {"mine": {**MINE, "keep_vectors": True, "search": "ivf", "recall": 1.0}}
    one = make(settings, Workers(workers=1), name="one", e5=e5, natural=commit("whole", words))
    two = make(settings, Workers(workers=2), name="two", e5=e5, natural=commit("cut", shuffled, files=5))
    assert hashes(one) == hashes(two) and len([name for name in hashes(one) if name.startswith("examples/")]) > 2
    assert not any("scratch" in file.path for file in one.manifest.files)
    search = told(one).pools["words/term_definition"].search
    assert search is not None and search["recall_measured"] == 1.0 and search["indexes"][0]["device"] == "cpu"


@pytest.mark.usefixtures("ray_local")
def test_a_worker_that_is_killed_changes_nothing(commit: Commit, make: Made, e5_folder: Path, words: pa.Table) -> None:
    """It dies while it embeds; another starts in its place and is asked again."""
    e5, natural = commit("e5", model=e5_folder), commit("natural", words)
    killed: list[int] = []
    ended = threading.Event()

    def kill() -> None:
        while not killed and not ended.wait(0.05):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if not killed and process.cmdline()[:1] == ["ray::Worker.embed_passages"]:
                        process.kill()
                        killed.append(process.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        one = make({"mine": MINE}, name="one", e5=e5, natural=natural)
    finally:
        ended.set()
        thread.join()
    assert len(killed) == 1
    assert hashes(one) == hashes(make({"mine": MINE}, name="two", e5=e5, natural=natural))


def hashes(artifact: Artifact) -> dict[str, str]:
    return {file.path: hashlib.sha256(Path(artifact.uri, file.path).read_bytes()).hexdigest() for file in artifact.manifest.files}


@pytest.mark.usefixtures("ray_local")
def test_requests_to_an_object_store_are_counted(s3: str, s3_log: Path, e5_folder: Path, words: pa.Table, tmp_path: Path) -> None:
    """As many as the server saw of the stage's own, and no more bytes of vectors than there are for each worker."""
    model = Store(str(tmp_path)).draft("e5", "f")
    with model.folder("model") as target:
        for file in e5_folder.iterdir():
            (target / file.name).symlink_to(file)
    e5 = Store(str(tmp_path)).commit(model, "e5", "f", {}, {}, 42, time.time())
    store = Store(join(s3, "mined"))
    draft = store.draft("natural", "f")
    draft.write_table("pairs", words)
    natural = store.commit(draft, "natural", "f", {}, {}, 42, time.time())
    draft, before = store.draft("examples", "f"), len(requests(s3_log))
    work = Work(Examples.model_validate({"negatives": 4, "mine": MINE}), {"e5": e5, "natural": natural}, draft, Workers(), 42, "mined")
    facts = stage.run(work)
    seen = requests(s3_log)[before:]
    vectors = [line for line in seen if ".f16" in line and line.startswith("GET")]
    assert len(vectors) == 2, "queries and passages, each once"
    assert facts.storage.requests <= len(seen) <= facts.storage.requests + 12, "listings and the removal of the scratch are not counted"
    artifact = store.commit(draft, "examples", "f", {}, {}, 42, time.time(), facts)
    assert artifact.table("examples").num_rows == 24


def requests(log: Path) -> list[str]:
    return re.findall(r'"(?:\x1b\[[0-9;]*m)*((?:GET|PUT|POST|HEAD|DELETE) [^"]*) HTTP', log.read_text())


@pytest.mark.usefixtures("ray_local")
def test_a_cross_encoder_relabels_what_it_scores_as_high_as_the_positive(
    commit: Commit, make: Made, e5_folder: Path, cross_folder: Path, words: pa.Table
) -> None:
    """Against its scores of all texts: every query gains the best two of those above its positive, and no such text is a negative."""
    settings = {**MINE, "ranks": [0, 24], "cross_encoder": "cross", "cross_encoder_for": "limits", "keep_vectors": True}
    inputs = {"e5": commit("e5", model=e5_folder), "natural": commit("natural", words), "cross": commit("cross", model=cross_folder)}
    artifact = make({"mine": {**settings, "promoted": 2}, "passages": "positives"}, **inputs)
    judge, texts = CrossEncoder(cross_folder, 256, device="cpu"), words["positive"].to_pylist()
    expected, relevant = set(), set()
    for row in words.to_pylist():
        scores = dict(zip(texts, judge.score([row["query"]] * len(texts), texts).tolist(), strict=True))
        above = sorted((text for text in texts if scores[text] > scores[row["positive"]]), key=scores.__getitem__, reverse=True)
        expected |= {(row["query"], text) for text in (row["positive"], *above[:2])}
        relevant |= {(row["query"], text) for text in (row["positive"], *above)}
    rows, facts = artifact.table("examples").to_pylist(), told(artifact)
    assert {(row["query"], row["positive"]) for row in rows} == expected and len(expected) > 36
    assert not relevant & {(row["query"], text) for row in rows for text in row["negatives"]}
    assert facts.promoted == len(rows) - 24 == artifact.manifest.rows_out - artifact.manifest.rows_in
    assert (
        facts.false_negatives is not None and facts.false_negatives.share == 0.0 and facts.skipped["judged_relevant"] > facts.promoted / 2
    )
    assert len(artifact.table("vectors")) == 48 and len({row["pair_id"] for row in rows}) == len(rows)


@pytest.mark.usefixtures("ray_local")
def test_a_teacher_of_another_prefix_and_pooling_scores_every_text(
    commit: Commit, make: Made, e5_folder: Path, words: pa.Table, tmp_path: Path
) -> None:
    """Against one text at a time, supplied negatives too, by the teacher's own description; which negatives there are stays the same."""
    folder = tmp_path / "teacher"
    folder.mkdir()
    for file in e5_folder.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    write_description(folder, Description("cls", NOMIC, 16))
    assert describe(e5_folder).prefixes != NOMIC
    natural = pa.concat_tables([words, changed(words.slice(0, 6), kind="same", task="topic")])
    inputs = {"e5": commit("e5", model=e5_folder), "teacher": commit("teacher", model=folder), "natural": commit("natural", natural)}
    plain = make({"mine": MINE}, name="plain", **inputs)
    taught = make({"mine": MINE, "teacher": "teacher"}, name="taught", **inputs)
    names = [name for name in taught.table("examples").column_names if not name.endswith(("_score", "_scores"))]
    assert taught.table("examples").select(names).equals(plain.table("examples").select(names))
    assert taught.table("suspects").num_rows == plain.table("suspects").num_rows
    embedder = Embedder(folder, device="cpu")
    for row in taught.table("examples").to_pylist():
        before, after = NOMIC.of(row["task"], "query"), NOMIC.of(row["task"], "document")
        vectors = embedder.encode([before + row["query"], after + row["positive"], *(after + text for text in row["negatives"])])
        found = [row["positive_score"], *row["negative_scores"]]
        np.testing.assert_allclose(found, vectors[1:] @ vectors[0], atol=0.01, err_msg=row["query"])
    facts = told(taught)
    assert facts.teacher == "teacher"
    assert facts.embedded > 0, "the teacher has vectors of its own"
    assert sum(facts.histograms["negative_score"].counts) == facts.negatives
    unmined = make({"teacher": "teacher"}, name="unmined", **inputs)
    assert np.isfinite(pc.list_flatten(unmined.table("examples")["negative_scores"]).to_numpy()).all()
    assert told(unmined).suspects == 0


@pytest.mark.usefixtures("ray_local")
def test_a_cross_encoder_teaches_with_its_outputs(commit: Commit, make: Made, cross_folder: Path, words: pa.Table) -> None:
    inputs = {"cross": commit("cross", model=cross_folder), "natural": commit("natural", words)}
    taught = make({"teacher": "cross", "teacher_tokens": 24}, **inputs)
    judge = CrossEncoder(cross_folder, 24, device="cpu")
    for row in taught.table("examples").to_pylist():
        texts = [row["positive"], *row["negatives"]]
        wanted = judge.score([row["query"]] * len(texts), texts)
        np.testing.assert_allclose([row["positive_score"], *row["negative_scores"]], wanted, atol=1e-4)
    assert told(taught).teacher == "cross"
