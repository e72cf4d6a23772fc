import gzip
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from raysberta.corpus import read, stage
from raysberta.corpus.facts import CorpusFacts, Repeats
from raysberta.corpus.settings import Documents
from raysberta.errors import InputError
from raysberta.schema import DOCUMENT, REJECTED, split_of
from raysberta.storage.artifacts import Artifact, Store
from raysberta.work import Work, Workers

Commit = Callable[[Store], Artifact]

NOUNS = (
    "мельница",
    "пристань",
    "кузница",
    "школа",
    "пекарня",
    "больница",
    "дорога",
    "река",
    "гора",
    "берег",
    "сад",
    "мост",
    "город",
    "двор",
)
NOUNS += (
    "зима",
    "весна",
    "осень",
    "утро",
    "вечер",
    "дождь",
    "снег",
    "ветер",
    "мастер",
    "учитель",
    "купец",
    "старик",
    "сосед",
    "хозяин",
    "пастух",
)
VERBS = (
    "строил",
    "видел",
    "помнил",
    "искал",
    "ждал",
    "нашёл",
    "забыл",
    "купил",
    "чинил",
    "красил",
    "вёз",
    "любил",
    "берёг",
    "ломал",
    "хвалил",
)
LINKS = ("и", "а", "но", "потому", "как", "после", "когда", "для", "что", "из-за")


def story(number: int) -> str:
    """About eighty words, unlike those of any other number."""
    chosen = random.Random(number)
    sentences = []
    for _ in range(8):
        first, second, third = chosen.sample(NOUNS, 3)
        verb, other, link = chosen.choice(VERBS), chosen.choice(VERBS), chosen.choice(LINKS)
        sentences.append(f"{first.capitalize()} не {verb} {second}, {link} он {other} на {number} {third}.")
    return " ".join(sentences)


def page(number: int) -> str:
    return f"<html><head><title>История {number}</title></head><body><h1>История {number}</h1><p>{story(number)}</p></body></html>"


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    """Every format at once, with planted duplicates and one broken file."""
    root = tmp_path / "texts"
    (root / "pages").mkdir(parents=True)
    for number in range(20):
        (root / "pages" / f"{number}.html").write_text(page(number), encoding="utf-8" if number % 2 else "windows-1251")
    for number in range(20, 26):
        (root / f"{number}.md").write_text(f"# История {number}\n\n{story(number)}\n", encoding="utf-8")
    (root / "26.txt").write_text(story(26), encoding="utf-8")
    (root / "27.txt").write_text(story(26).replace(".", "!"), encoding="utf-8")
    (root / "copy.txt").write_text(story(3).replace(".", " !"), encoding="utf-8")
    (root / "near.txt").write_text(story(4) + " Так и было.", encoding="utf-8")
    (root / "cut.txt").write_bytes(story(28).encode() + b"\xff\xfe\xff")
    records = [{"title": f"История {number}", "text": story(number), "label": "быль"} for number in range(30, 40)]
    (root / "a.jsonl.gz").write_bytes(gzip.compress(b"".join(json.dumps(record).encode() + b"\n" for record in records)))
    pq.write_table(pa.table({"text": [story(number) for number in range(40, 50)]}), root / "a.parquet")
    (root / "logo.png").write_bytes(b"\x89PNG")
    return root


def settings(sources: dict[str, dict], **rules: object) -> Documents:
    return Documents.model_validate({"languages": ["ru", "en"], "sources": sources, "rules": {"tokenizer": "small", **rules}})


def web_and_words(folder: Path | str) -> Documents:
    return settings({"web": {"kind": "files", "path": str(folder)}, "words": {"kind": "jupyterlab_strings", "limit": 40}})


def run(documents: Documents, store: Store, model: Artifact | None, name: str = "c", workers: int = 2) -> Artifact:
    draft = store.draft("corpus", name)
    inputs = {"small": model} if model is not None else {}
    facts = stage.run(Work(documents, inputs, draft, Workers(workers=workers), node="corpus"))
    return store.commit(draft, "corpus", name, {}, {}, 1, time.time(), facts)


def test_all_formats_to_documents(ray_local: None, tmp_path: Path, folder: Path, small_model: Commit) -> None:
    store = Store(str(tmp_path / "runs"))
    artifact = run(web_and_words(folder), store, small_model(store))
    documents, rejected = artifact.table("documents"), artifact.table("rejected")
    assert documents.schema.equals(DOCUMENT)
    assert rejected.schema.equals(REJECTED)
    ids = documents.column("doc_id").to_pylist()
    assert ids == sorted(set(ids))
    rows = documents.to_pylist()
    web = [row for row in rows if row["source"] == "web"]
    reasons = {row["group"]: row["reason"] for row in rejected.to_pylist() if row["source"] == "web"}
    assert reasons["cut.txt"].startswith("unreadable: cut.txt: ")
    kept = {row["group"]: row["doc_id"] for row in web}
    stays, goes = ("26.txt", "27.txt") if "26.txt" in kept else ("27.txt", "26.txt")
    assert reasons == {
        "cut.txt": reasons["cut.txt"],
        goes: f"duplicate:{kept[stays]}",
        "copy.txt": f"near_duplicate:{kept['pages/3.html']}",  # the page has its heading in the text, so it is longer
        "pages/4.html": f"near_duplicate:{kept['near.txt']}",
    }
    assert {row["language"] for row in web} == {"ru"}
    assert all(row["split"] == split_of(row["group"], 0.1, 0.1) for row in rows)
    assert {row["title"] for row in web} >= {"История 0", "История 1", "История 20", "История 30"}
    assert {row["label"] for row in web} == {"", "быль"}
    sources = artifact.told(CorpusFacts).sources
    assert sources["words"].kept <= 40
    assert sources["words"].dropped["over_limit"] > 1000
    for counted in sources.values():
        assert counted.read == counted.kept + sum(counted.dropped.values())
    assert sources["web"].languages == {"ru": sources["web"].kept}
    assert artifact.manifest.rows_in == sum(counted.read for counted in sources.values()) == len(ids) + rejected.num_rows
    assert artifact.manifest.rows_out == len(ids)
    counted = artifact.table("tally")
    assert pc.sum(counted.column("documents")).as_py() == artifact.manifest.rows_in
    assert pc.sum(counted.filter(pc.equal(counted.column("reason"), "")).column("documents")).as_py() == artifact.manifest.rows_out
    sizes = {row["doc_id"]: row["documents"] for row in artifact.table("clusters").to_pylist()}
    assert sizes[kept[stays]] == sizes[kept["near.txt"]] == 2
    shown = artifact.table("samples").to_pylist()
    assert {row["reason"].split(":")[0] for row in shown if row["source"] == "web"} == {"", "unreadable", "duplicate", "near_duplicate"}
    assert max(Counter((row["source"], row["reason"].split(":")[0]) for row in shown).values()) == stage.SAMPLES
    assert "near_duplicate" in (artifact.folder("report") / "reasons.svg").read_text()


def test_same_tables_whatever_the_blocks(
    ray_local: None, tmp_path: Path, folder: Path, small_model: Commit, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path / "runs"))
    models = small_model(store)
    documents = web_and_words(folder)
    one = run(documents, store, models, "one")
    monkeypatch.setattr(read, "SHARD_FILES", 3)
    monkeypatch.setattr(stage, "PART_BYTES", 60_000)
    monkeypatch.setattr(stage, "RUN_BYTES", 40_000)
    monkeypatch.setattr(stage, "ROWS_PER_TASK", 100)
    turned = documents.model_copy(update={"sources": dict(reversed(documents.sources.items()))})
    three, single = run(turned, store, models, "three", 3), run(documents, store, models, "single", 1)
    assert len([file for file in three.manifest.files if file.path.startswith("rejected/")]) > 4
    assert all(file.path.split("/")[0] != "scratch" for file in three.manifest.files)
    for name in ("documents", "rejected", "tally", "samples", "matches", "clusters"):
        assert one.table(name).equals(three.table(name)) and one.table(name).equals(single.table(name))
    for file in three.manifest.files:
        assert Path(three.uri, file.path).read_bytes() == Path(single.uri, file.path).read_bytes(), file.path
    assert one.told(CorpusFacts) == three.told(CorpusFacts) == single.told(CorpusFacts)


def test_training_text_that_repeats_held_out_text_goes(ray_local: None, tmp_path: Path, small_model: Commit) -> None:
    root = tmp_path / "texts"
    root.mkdir()
    shared = "и вот эта длинная фраза из более чем тринадцати слов стоит сразу в нескольких разных местах нашей книги"
    for number in range(40):
        (root / f"{number}.txt").write_text(f"{story(number)} {shared if number < 30 else 'Так и было'}.", encoding="utf-8")
    public = tmp_path / "public.jsonl"
    public.write_text("".join(json.dumps({"question": story(number)}) + "\n" for number in range(30, 40)), encoding="utf-8")
    store = Store(str(tmp_path / "runs"))
    web = {"web": {"kind": "files", "path": str(root)}}
    documents = settings(web, dev=0.2, test=0.2, near_duplicates=False, evaluation_sets=[str(public)])
    artifact = run(documents, store, small_model(store))
    kept = artifact.table("documents").to_pylist()
    assert not [row for row in kept if row["split"] == "train" and shared in row["text"]]
    held = {row["doc_id"] for row in kept if row["split"] != "train" and shared in row["text"]}
    assert held
    dropped = [row for row in artifact.table("rejected").to_pylist() if row["reason"].startswith("in_evaluation:")]
    assert dropped
    owners = {row["reason"].split(":", 1)[1] for row in dropped}
    named = {owner for owner in owners if owner.startswith("public.jsonl#")}
    assert owners - named <= held and owners - named
    trained = {row["text"] for row in kept if row["split"] == "train"}
    assert named and not [number for number in range(30, 40) if f"{story(number)} Так и было." in trained]
    assert all(row["split"] == "train" for row in dropped)
    matches = artifact.table("matches").to_pylist()
    assert {row["doc_id"]: row["held_out"] for row in matches} == {row["doc_id"]: row["reason"].split(":")[1] for row in dropped}
    assert artifact.manifest.dropped["in_evaluation"] == len(dropped)


def test_what_repeats_only_a_passage_of_a_benchmark_goes_where_that_is_asked_for(
    ray_local: None, tmp_path: Path, small_model: Commit
) -> None:
    """Of 20 texts 5 hold a test's questions, 10 what it searches, 3 of these the questions too."""
    root = tmp_path / "texts"
    root.mkdir()
    for number in range(20):
        (root / f"{number}.txt").write_text(f"{story(number)} Так и было.", encoding="utf-8")
    rows = [{"question": story(number)} for number in range(5)] + [{"passage": story(number)} for number in range(2, 12)]
    (tmp_path / "public.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    web = {"web": {"kind": "files", "path": str(root)}}
    rules = {"dev": 0.0, "test": 0.0, "near_duplicates": False, "quality": False, "evaluation_sets": [str(tmp_path / "public.jsonl")]}
    for asked, left in ((False, 15), (True, 8)):
        store = Store(str(tmp_path / f"runs-{asked}"))
        artifact = run(settings(web, **rules, decontaminate_passages=asked), store, small_model(store))
        facts = artifact.told(CorpusFacts)
        assert facts.repeats == Repeats(texts=5, passages=7, passages_dropped=asked)
        assert artifact.table("documents").num_rows == left
        assert facts.sources["web"].dropped == {"in_evaluation": 5, **({"in_passages": 7} if asked else {})}


def test_training_text_that_repeats_a_source_held_out_whole_goes(ray_local: None, tmp_path: Path, small_model: Commit) -> None:
    shared = "и вот эта длинная фраза из более чем тринадцати слов стоит сразу в нескольких разных местах нашей книги"
    for name, first in (("web", 0), ("kept", 100)):
        (tmp_path / name).mkdir()
        for number in range(first, first + 20):
            text = f"{story(number)} {shared if number % 20 < 10 else 'Так и было'}."
            (tmp_path / name / f"{number}.txt").write_text(text, encoding="utf-8")
    sources = {name: {"kind": "files", "path": str(tmp_path / name), "held_out": name == "kept"} for name in ("web", "kept")}
    store = Store(str(tmp_path / "runs"))
    artifact = run(settings(sources, dev=0.0, test=0.0, near_duplicates=False, quality=False), store, small_model(store))
    rows = artifact.table("documents").to_pylist()
    assert {row["split"] for row in rows if row["source"] == "kept"} == {"dev", "test"}
    assert {row["split"] for row in rows if row["source"] == "web"} == {"train"}
    assert sum(row["source"] == "kept" for row in rows) == 20
    assert not [row for row in rows if row["source"] == "web" and shared in row["text"]]
    assert artifact.told(CorpusFacts).sources["web"].dropped["in_evaluation"] == 10


def test_wrong_input_inside_a_worker_is_one_line(ray_local: None, tmp_path: Path, folder: Path, small_model: Commit) -> None:
    (folder / "x.html").write_bytes(b"%PDF-1.4 not a page")
    store = Store(str(tmp_path / "runs"))
    with pytest.raises(InputError, match=r"^sources\.web\.path: .*x\.html is not what its ending says: it is a PDF$"):
        run(web_and_words(folder), store, small_model(store))


def test_failure_budget(ray_local: None, tmp_path: Path, folder: Path, small_model: Commit) -> None:
    for number in range(10):
        (folder / f"cut{number}.txt").write_bytes(f"текст {number} ".encode() + b"\xff\xff")
    store = Store(str(tmp_path / "runs"))
    with pytest.raises(InputError, match=r"^sources\.web\.path: 11 of \d+ records are unreadable"):
        run(web_and_words(folder), store, small_model(store))


def test_no_sources_make_an_empty_corpus(tmp_path: Path) -> None:
    artifact = run(settings({}), Store(str(tmp_path / "runs")), None)
    assert artifact.table("documents").num_rows == 0
    assert artifact.table("documents").schema.equals(DOCUMENT)
    assert artifact.table("rejected").schema.equals(REJECTED)
    assert artifact.told(CorpusFacts).sources == {}


def test_without_a_tokenizer_no_length_is_wrong(ray_local: None, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for number in range(3):
        (tmp_path / "texts" / f"{number}.txt").write_text(f"{story(number)} " * 40, encoding="utf-8")
    (tmp_path / "texts" / "short.txt").write_text("Да.", encoding="utf-8")
    web = {"web": {"kind": "files", "path": str(tmp_path / "texts"), "language": "ru"}}
    documents = settings(web, tokenizer=None, quality=False, max_tokens=100)
    artifact = run(documents, Store(str(tmp_path / "runs")), None)
    assert artifact.manifest.rows_out == 4


def test_files_behind_a_uri_with_options(ray_local: None, tmp_path: Path, folder: Path, small_model: Commit) -> None:
    (folder / "ещё одна.txt").write_text(story(70), encoding="utf-8")
    store = Store(str(tmp_path / "runs"))
    model = small_model(store)
    plain = run(web_and_words(folder), store, model, "plain")
    behind = run(web_and_words(f"file://{folder}?region=here&secret_key=planted"), store, model, "behind")
    for name in ("documents", "rejected", "tally"):
        assert plain.table(name).equals(behind.table(name))
    assert "ещё одна.txt" in behind.table("documents").column("group").to_pylist()
    (folder / "x.html").write_bytes(b"%PDF-1.4 not a page")
    with pytest.raises(InputError, match=r"x\.html\?region=here is not what its ending says: it is a PDF$") as raised:
        run(web_and_words(f"file://{folder}?region=here&secret_key=planted"), store, model, "wrong")
    assert "planted" not in str(raised.value)
