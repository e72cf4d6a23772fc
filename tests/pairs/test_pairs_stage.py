"""The stage through a real Ray: documents in several files and a data set to one sorted table, the same however the input lies."""

import hashlib
import json
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

from raysberta.corpus.facts import Repeats
from raysberta.corpus.packaged import interface
from raysberta.errors import InputError
from raysberta.pairs import alike, match, stage, units
from raysberta.pairs.facts import PairsFacts
from raysberta.pairs.settings import NaturalPairs
from raysberta.retrieval.embed import Embedder
from raysberta.schema import DOCUMENT, PAIR, REJECTED_PAIR, split_of, text_id
from raysberta.storage.artifacts import Artifact, Draft, Store
from raysberta.work import Work, Workers

pytestmark = pytest.mark.usefixtures("ray_local")


def documents() -> list[dict]:
    rows = []
    for number in range(120):
        title, split = f"слово{number}", split_of(f"слово{number}", 0.1, 0.1)
        usage = [{"heading": "usage", "text": f"В этом примере стоит слово{number}, как и положено."}]
        shared = {"group": title, "split": split, "language": "ru"}
        text = f"Определение под номером {number}, довольно ясное."
        rows.append(
            {**shared, "doc_id": text_id("d", title), "source": "dictionary", "title": title, "text": text, "label": "", "sections": usage}
        )
        rows.append(
            {
                **shared,
                "doc_id": text_id("i", title),
                "source": "intents",
                "title": "",
                "text": f"включи лампу {number}",
                "label": f"on{number % 3}",
            }
        )
    return rows


def corpus(store: Store, rows: list[dict], files: int) -> Artifact:
    draft = store.draft("corpus", f"{files}")
    fs, path = draft.path("documents")
    table = pa.Table.from_pylist(rows, DOCUMENT)
    size = -(-table.num_rows // files)
    for number in range(files):
        pq.write_table(table.slice(number * size, size), f"{path}/part-{number:05}.parquet", filesystem=fs)
    draft.rows_out = table.num_rows
    return store.commit(draft, "corpus", f"{files}", {}, {}, 42, time.time())


KINDS = {
    "dictionary": {"term_definition": "retrieval", "definition_usage": "topic"},
    "intents": {"same_label": "paraphrase"},
}


def settings(folder: Path, sets: tuple[str, ...] = (), given: dict | None = None, **rules: object) -> NaturalPairs:
    with (folder / "given.jsonl").open("w") as stream:
        for number in range(10):
            stream.write(json.dumps({"query": f"Кто написал книгу номер {number}?", "positive": f"Её написал автор {number}."}) + "\n")
        stream.write(json.dumps({"query": f"слово{held_out()}", "positive": "То, что встречается и в проверке."}) + "\n")
    source = {"kind": "dataset", "path": str(folder / "*.jsonl"), "task": "retrieval", **(given or {})}
    return NaturalPairs.model_validate(
        {"documents": "corpus", "kinds": KINDS, "data_sets": {"given": source}, "rules": rules, "evaluation_sets": sets}
    )


def held_out() -> int:
    return next(number for number in range(120) if split_of(f"слово{number}", 0.1, 0.1) == "test")


def ran(
    store: Store, asked: NaturalPairs, files: int = 1, workers: int = 1, rows: list[dict] | None = None, **models: Artifact
) -> tuple[Draft, Artifact]:
    name = f"{files}-{workers}"
    draft = store.draft("natural", name)
    inputs = {"corpus": corpus(store, documents() if rows is None else rows, files), **models}
    facts = stage.run(Work(asked, inputs, draft, Workers(workers=workers), node="natural"))
    return draft, store.commit(draft, "natural", name, {}, {}, 42, time.time(), facts)


def test_pairs_of_documents_labels_and_data_sets(tmp_path: Path):
    draft, artifact = ran(Store(str(tmp_path / "store")), settings(tmp_path, limits={"dictionary/definition_usage": 20}))
    pairs, rejected = artifact.table("pairs"), artifact.table("rejected")
    assert pairs.schema.equals(PAIR)
    assert rejected.schema.equals(REJECTED_PAIR)
    ids = pairs["pair_id"].to_pylist()
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids) == draft.rows_out
    metrics = artifact.told(PairsFacts).pairs
    assert metrics["dictionary/term_definition"]["train"] > 80
    assert metrics["dictionary/definition_usage"]["train"] == 20
    assert metrics["intents/same_label"]["train"] > 80
    assert metrics["given/dataset"] == {"train": 10, "dev": 0, "test": 0}
    assert sum(sum(split.values()) for split in metrics.values()) == draft.rows_out
    assert rejected.filter(pa.compute.equal(rejected["source"], "given"))["reason"].to_pylist() == ["in_evaluation"]
    assert draft.rows_in == draft.rows_out + sum(draft.dropped.values())
    train, test = (pairs.filter(pa.compute.equal(pairs["split"], split)) for split in ("train", "test"))
    assert not set(train["query"].to_pylist()) & set(test["query"].to_pylist())


def test_labels_of_a_dictionary_add_pairs_and_change_no_other(tmp_path: Path):
    """Every third document names its field, one of four."""
    store = Store(str(tmp_path / "store"))
    rows = [{**row, "label": ("", f"field{number % 4}", "")[number // 2 % 3]} for number, row in enumerate(documents()[::2])]
    given, tables = corpus(store, rows, 3), {}
    for name, more in (("plain", {}), ("labels", {"same_label": "topic"})):
        asked = {"documents": "corpus", "kinds": {"dictionary": {**KINDS["dictionary"], **more}}, "data_sets": {}, "rules": {}}
        draft = store.draft("natural", name)
        stage.run(Work(NaturalPairs.model_validate(asked), {"corpus": given}, draft))
        tables[name] = store.commit(draft, "natural", name, {}, {}, 42, time.time()).table("pairs").to_pylist()
    added = [pair for pair in tables["labels"] if pair["kind"] == "same_label"]
    assert [pair for pair in tables["labels"] if pair["kind"] != "same_label"] == tables["plain"]
    field = {row["text"]: row["label"] for row in rows}
    assert len(added) > 30
    assert all(field[pair["query"]] == field[pair["positive"]] != "" and pair["task"] == "topic" for pair in added)
    assert {pair["group"] for pair in added if pair["split"] == "train"} <= {f"dictionary/field{number}/train" for number in range(4)}


def contents(artifact: Artifact) -> dict[str, str]:
    """The hash of every file, by its name."""
    return {file.path: hashlib.sha256(Path(artifact.uri, file.path).read_bytes()).hexdigest() for file in artifact.manifest.files}


def test_workers_blocks_and_runs_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """To the byte, with several files of each table: copies, leaks, limits and repeats of an evaluation set in them."""
    store, sets = Store(str(tmp_path / "store")), tmp_path / "evaluation.parquet"
    pq.write_table(pa.table({"item": ["Books#a", "Books#b"], "text": ["кто написал книгу номер 3", "Её написал автор 7!"]}), sets)
    asked = settings(tmp_path, (str(sets),), per_source=60, limits={"dictionary/definition_usage": 20})
    for name in ("copies.jsonl", "more.jsonl"):
        (tmp_path / name).write_text((tmp_path / "given.jsonl").read_text())
    monkeypatch.setattr(stage, "PART_BYTES", 8000)
    plain, first = ran(store, asked)
    monkeypatch.setattr(stage, "RUN_BYTES", 3000)
    monkeypatch.setattr(stage, "ROWS_PER_TASK", 100)
    monkeypatch.setattr(units, "UNIT_BYTES", 5000)
    assert len([name for name in contents(first) if name.startswith("pairs/")]) > 4
    assert plain.dropped["duplicate"] == 22 and plain.dropped["over_limit"] > 50 and plain.dropped["in_evaluation"] == 3
    for workers, files in ((1, 3), (2, 1), (3, 5)):
        rows = documents()
        random.Random(files).shuffle(rows)
        draft, other = ran(store, asked, files, workers, rows)
        assert contents(other) == contents(first)
        assert (draft.dropped, draft.rows_in, other.told(PairsFacts)) == (plain.dropped, plain.rows_in, first.told(PairsFacts))


def test_a_label_of_many_documents_is_cut_into_circles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store, asked = Store(str(tmp_path / "store")), settings(tmp_path)
    monkeypatch.setattr(match, "CIRCLE", 10)
    monkeypatch.setattr(stage, "CIRCLE", 10)
    first, second = ran(store, asked, 1)[1], ran(store, asked, 4, 2)[1]
    assert contents(first) == contents(second)
    pairs = [row for row in first.table("pairs").to_pylist() if row["kind"] == "same_label" and row["split"] == "train"]
    ids = {row["text"]: row["doc_id"] for row in documents()}
    of = {row["label"]: 0 for row in documents() if row["label"]}
    for row in documents():
        of[row["label"]] = of.get(row["label"], 0) + (row["split"] == "train")
    assert len(pairs) > 80
    for row in pairs:
        cut = -(-of[row["group"].split("/")[1]] // 10)
        circles = {int(text_id("circle", ids[row[side]]), 16) * cut >> 64 for side in ("query", "positive")}
        assert cut > 2 and len(circles) == 1


def test_pairs_of_data_sets_that_repeat_an_evaluation_set_go(tmp_path: Path):
    sets = tmp_path / "evaluation.parquet"
    texts = ["кто написал книгу номер 3", "Её написал автор 7!", "совсем другой вопрос о книгах"]
    pq.write_table(pa.table({"item": ["Books#a", "Books#b", "Books#c"], "text": texts}), sets)
    _, artifact = ran(Store(str(tmp_path / "store")), settings(tmp_path, (str(sets),)))
    assert artifact.told(PairsFacts).pairs["given/dataset"]["train"] == 8
    rejected = {row["pair_id"]: row for row in artifact.table("rejected").to_pylist()}
    joined = {rejected[row["pair_id"]]["query"]: row["held_out"] for row in artifact.table("matches").to_pylist()}
    assert joined == {"Кто написал книгу номер 3?": "Books#a", "Кто написал книгу номер 7?": "Books#b"}
    assert {rejected[row["pair_id"]]["reason"] for row in artifact.table("matches").to_pylist()} == {"in_evaluation"}


def test_what_repeats_only_a_passage_of_a_benchmark_goes_where_that_is_asked_for(tmp_path: Path):
    """Book 3 is asked for by a test, 7 is only told of in what the test searches, 5 is both."""
    sets = tmp_path / "evaluation.parquet"
    texts = [
        "кто написал книгу номер 3",
        "Её написал автор номер 7!",
        "Её написал автор 5.",
        "кто написал книгу номер 5",
        "кто написал книгу номер 7",
    ]
    parts = ["text", "passage", "passage", "text", "passage"]
    pq.write_table(pa.table({"item": ["B#q3", "B#p7", "B#p5", "B#q5", "B#p8"], "text": texts, "part": parts}), sets)
    asked = settings(tmp_path, (str(sets),))
    _, kept = ran(Store(str(tmp_path / "store")), asked)
    assert kept.told(PairsFacts).pairs["given/dataset"]["train"] == 8
    assert kept.told(PairsFacts).repeats == Repeats(texts=2, passages=1, passages_dropped=False)
    found = {row["held_out"] for row in kept.table("matches").to_pylist()}
    assert found == {"B#q3", "B#q5", "passage:B#p8"}, "what is both counts as the text"
    _, less = ran(Store(str(tmp_path / "other")), asked.model_copy(update={"decontaminate_passages": True}))
    assert less.told(PairsFacts).pairs["given/dataset"]["train"] == 7
    assert less.told(PairsFacts).repeats == Repeats(texts=2, passages=1, passages_dropped=True)


def test_bad_rows_end_the_stage_with_their_line(tmp_path: Path):
    asked = settings(tmp_path)
    (tmp_path / "worse.jsonl").write_text('{"query": "x"}\n')
    with pytest.raises(
        InputError, match=r"^sources\.given\.positive_field: no record up to worse\.jsonl line 1 has 'positive'; there are query$"
    ):
        ran(Store(str(tmp_path / "store")), asked)


def test_nothing_to_train_on_is_bad_input(tmp_path: Path):
    store = Store(str(tmp_path / "store"))
    asked = NaturalPairs.model_validate({"documents": "corpus", "kinds": {"dictionary": KINDS["dictionary"]}, "data_sets": {}, "rules": {}})
    rows = [{**row, "split": "test"} for row in documents()]
    with pytest.raises(InputError, match="no training pair"):
        stage.run(Work(asked, {"corpus": corpus(store, rows, 1)}, store.draft("natural", "f")))


def test_data_sets_alone_are_enough(tmp_path: Path):
    asked = settings(tmp_path).model_copy(update={"kinds": {}})
    _, artifact = ran(Store(str(tmp_path / "store")), asked)
    assert artifact.told(PairsFacts).pairs == {"given/dataset": {"train": 11, "dev": 0, "test": 0}}


def test_a_data_set_is_kept_within_its_own_limit(tmp_path: Path):
    store = Store(str(tmp_path / "store"))
    _, whole = ran(store, settings(tmp_path), 1)
    draft, limited = ran(store, settings(tmp_path, given={"limit": 4}), 2)
    own = [row["pair_id"] for row in whole.table("pairs").to_pylist() if row["source"] == "given"]
    kept = [row["pair_id"] for row in limited.table("pairs").to_pylist() if row["source"] == "given"]
    assert kept == own[:4], "the ones with the least ids, which are hashes"
    assert draft.dropped["over_limit"] == 6
    assert {**whole.told(PairsFacts).pairs, "given/dataset": {"train": 4, "dev": 0, "test": 0}} == limited.told(PairsFacts).pairs
    tighter, _ = ran(store, settings(tmp_path, given={"limit": 4}, limits={"given/dataset": 3}), 3)
    assert tighter.dropped["over_limit"] == 7
    looser, _ = ran(store, settings(tmp_path, given={"limit": 4}, per_source=9), 4)
    assert looser.dropped["over_limit"] > 6


def test_a_given_language_is_that_of_every_pair_of_the_data_set(tmp_path: Path):
    _, artifact = ran(Store(str(tmp_path / "store")), settings(tmp_path, given={"language": "kk"}))
    languages = {(row["source"] == "given", row["language"]) for row in artifact.table("pairs").to_pylist()}
    assert languages == {(True, "kk"), (False, "ru")}


def test_lengths_are_counted_with_the_special_tokens_of_the_named_tokenizer(tmp_path: Path):
    store = Store(str(tmp_path / "store"))
    tokenizer = Tokenizer(WordLevel({"?": 0, "<s>": 1, "</s>": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    marks = [("<s>", 1), ("</s>", 2)]
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=marks)
    tokenizer.enable_truncation(3)
    draft = store.draft("model", "m")
    with draft.folder("model") as folder:
        tokenizer.save(str(folder / "tokenizer.json"))
    words = store.commit(draft, "model", "m", {}, {}, 42, time.time())
    asked = settings(tmp_path, max_tokens=6, tokenizer="words")
    _, artifact = ran(store, asked, words=words)
    kept, rejected = artifact.table("pairs").to_pylist(), artifact.table("rejected").to_pylist()

    def longest(row: dict) -> int:
        return max(len(row["query"].split()), len(row["positive"].split())) + 2

    assert kept and max(map(longest, kept)) <= 6
    long = [row for row in rejected if row["reason"] == "too_long"]
    assert long and all(row["score"] == longest(row) > 6 for row in long)


def test_pairs_whose_sides_an_encoder_finds_unlike_go(tmp_path: Path, e5_folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Real translations, a third of them given to another text: by rows one after the other, and by ranges."""
    store = Store(str(tmp_path / "store"))
    model = store.draft("model", "m")
    with model.folder("model") as folder:
        shutil.copytree(e5_folder, folder, dirs_exist_ok=True)
    e5 = store.commit(model, "model", "m", {}, {}, 42, time.time())
    both = translations()[:45]
    rows = [(left, both[number - 3][1] if number % 3 == 2 else right) for number, (left, right) in enumerate(both)]
    for number in range(0, 45, 20):
        lines = [json.dumps({"query": left, "positive": right}) for left, right in rows[number : number + 20]]
        (tmp_path / f"bitext-{number}.jsonl").write_text("\n".join(lines))
    asked = settings(tmp_path, alike={"by": "e5", "least": {"given/dataset": 0.85}}, limits={"given/dataset": 20})
    _, artifact = ran(store, asked, e5=e5)
    found = [row for row in artifact.table("rejected").to_pylist() if row["reason"] == "unlike"]
    kept = [row for row in artifact.table("pairs").to_pylist() if row["source"] == "given"]
    sides = [[f"query: {row[side]}" for row in (*found, *kept)] for side in ("query", "positive")]
    cosines = (Embedder(e5_folder, 128).encode(sides[0]) * Embedder(e5_folder, 128).encode(sides[1])).sum(1)
    assert (cosines[: len(found)] < 0.85).all() and (cosines[len(found) :] >= 0.85).all()
    np.testing.assert_allclose([row["score"] for row in found], cosines[: len(found)], atol=1e-5)
    shuffled = {pair for number, pair in enumerate(rows) if number % 3 == 2}
    assert len(kept) == 20, "the limit counts what is left"
    wrong = sum((row["query"], row["positive"]) in shuffled for row in found)
    assert wrong > 10 and len(found) - wrong < 5
    monkeypatch.setattr(stage, "PART_BYTES", 8000)
    monkeypatch.setattr(alike, "ROWS", 15)
    _, again = ran(store, asked, 3, e5=e5)
    ids = [{row["pair_id"]: row["reason"] for row in each.table("rejected").to_pylist()} for each in (artifact, again)]
    assert ids[0] == ids[1]
    assert again.table("pairs")["pair_id"].to_pylist() == artifact.table("pairs")["pair_id"].to_pylist()


def translations() -> list[tuple[str, str]]:
    """Real ones: strings of an interface."""
    found = [each for part in interface.parts() for each in interface.read(part, "sources.interface") if not each.reason]
    return list(dict.fromkeys((each.text, each.sections[0][1]) for each in found if 30 < len(each.text) < 200))


def test_credentials_are_in_no_message(tmp_path: Path):
    asked = settings(tmp_path, given={"path": f"file://{tmp_path}/*.jsonl?region=here&secret_key=planted"})
    _, artifact = ran(Store(str(tmp_path / "store")), asked)
    assert artifact.told(PairsFacts).pairs["given/dataset"]["train"] == 10
    (tmp_path / "worse.jsonl").write_text('{"query": "x"}\n')
    with pytest.raises(InputError, match=r"no record up to worse\.jsonl line 1 has 'positive'") as raised:
        ran(Store(str(tmp_path / "store")), asked, 2)
    assert "planted" not in str(raised.value)
