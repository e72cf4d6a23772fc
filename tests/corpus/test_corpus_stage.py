import gzip
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from raysberta.artifacts import Artifact, Store
from raysberta.corpus import read, stage
from raysberta.corpus.read import check_source, source_identity
from raysberta.errors import InputError
from raysberta.recipe import Recipe
from raysberta.schema import DOCUMENT, REJECTED, split_of

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


def a_recipe(folder: Path, **parts: object) -> Recipe:
    sources = {"web": {"kind": "files", "path": str(folder)}, "words": {"kind": "jupyterlab_strings", "limit": 40}}
    return Recipe.model_validate({"name": "test", "sources": sources, "corpus": {"near_duplicates": True}, **parts})


def run(recipe: Recipe, store: Store, models: Artifact, name: str = "c") -> Artifact:
    draft = store.draft("corpus", name)
    stage.run(recipe, {"models": models}, draft)
    return store.commit(draft, "corpus", name, {}, {}, 1, time.time())


def test_all_formats_to_documents(ray_local: None, tmp_path: Path, folder: Path, models_artifact: Commit) -> None:
    store = Store(str(tmp_path / "runs"))
    artifact = run(a_recipe(folder), store, models_artifact(store))
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
    sources = artifact.manifest.metrics["sources"]
    assert sources["words"]["kept"] <= 40
    assert sources["words"]["dropped"]["over_limit"] > 1000
    for counted in sources.values():
        assert counted["read"] == counted["kept"] + sum(counted["dropped"].values())
    assert artifact.manifest.rows_in == sum(counted["read"] for counted in sources.values()) == len(ids) + rejected.num_rows
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
    ray_local: None, tmp_path: Path, folder: Path, models_artifact: Commit, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path / "runs"))
    models = models_artifact(store)
    recipe = a_recipe(folder)
    one = run(recipe, store, models, "one")
    monkeypatch.setattr(read, "SHARD_FILES", 3)
    monkeypatch.setattr(stage, "ROWS_PER_FILE", 400)
    monkeypatch.setattr(stage, "HASHES_PER_TASK", 20)
    turned = recipe.model_copy(update={"sources": dict(reversed(recipe.sources.items()))})
    other = run(turned, store, models, "other")
    assert len([file for file in other.manifest.files if file.path.startswith("rejected/")]) > 1
    for name in ("documents", "rejected", "tally", "samples", "matches", "clusters"):
        assert one.table(name).equals(other.table(name))
    assert one.manifest.metrics["sources"] == {name: other.manifest.metrics["sources"][name] for name in one.manifest.metrics["sources"]}


def test_training_text_that_repeats_held_out_text_goes(ray_local: None, tmp_path: Path, models_artifact: Commit) -> None:
    root = tmp_path / "texts"
    root.mkdir()
    shared = "и вот эта длинная фраза из более чем тринадцати слов стоит сразу в нескольких разных местах нашей книги"
    for number in range(40):
        (root / f"{number}.txt").write_text(f"{story(number)} {shared if number < 30 else 'Так и было'}.", encoding="utf-8")
    public = tmp_path / "public.jsonl"
    public.write_text("".join(json.dumps({"passage": story(number)}) + "\n" for number in range(30, 40)), encoding="utf-8")
    store = Store(str(tmp_path / "runs"))
    recipe = Recipe.model_validate(
        {
            "name": "test",
            "sources": {"web": {"kind": "files", "path": str(root)}},
            "corpus": {"dev": 0.2, "test": 0.2, "near_duplicates": False, "evaluation_sets": [str(public)]},
        }
    )
    artifact = run(recipe, store, models_artifact(store))
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


def test_wrong_input_inside_a_worker_is_one_line(ray_local: None, tmp_path: Path, folder: Path, models_artifact: Commit) -> None:
    (folder / "x.html").write_bytes(b"%PDF-1.4 not a page")
    store = Store(str(tmp_path / "runs"))
    with pytest.raises(InputError, match=r"^sources\.web\.path: .*x\.html is not what its ending says: it is a PDF$"):
        run(a_recipe(folder), store, models_artifact(store))


def test_failure_budget(ray_local: None, tmp_path: Path, folder: Path, models_artifact: Commit) -> None:
    for number in range(10):
        (folder / f"cut{number}.txt").write_bytes(f"текст {number} ".encode() + b"\xff\xff")
    store = Store(str(tmp_path / "runs"))
    with pytest.raises(InputError, match=r"^sources\.web\.path: 11 of \d+ records are unreadable"):
        run(a_recipe(folder), store, models_artifact(store))


def test_data_sets_alone_make_an_empty_corpus(tmp_path: Path, models_artifact: Commit) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"query": "a", "positive": "b"}\n')
    recipe = Recipe.model_validate({"name": "test", "sources": {"pairs": {"kind": "dataset", "path": str(file), "task": "retrieval"}}})
    check_source("pairs", recipe.sources["pairs"])
    store = Store(str(tmp_path / "runs"))
    artifact = run(recipe, store, models_artifact(store))
    assert artifact.table("documents").num_rows == 0
    assert artifact.table("rejected").schema.equals(REJECTED)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"kind": "files", "path": "/nowhere/at/all"}, r"^sources\.x\.path: /nowhere/at/all does not exist$"),
        ({"kind": "docstrings", "packages": ["no_such_package"]}, r"^sources\.x\.packages: package 'no_such_package' is not installed"),
        ({"kind": "dataset", "path": "FOLDER/a.html", "task": "topic"}, r"a data set is \.parquet or \.jsonl"),
        ({"kind": "files", "path": "FOLDER/b.parquet"}, r"b\.parquet is not what its ending says: no parquet there, but a gzip stream$"),
    ],
)
def test_sources_are_checked_before_the_run(tmp_path: Path, source: dict, message: str) -> None:
    (tmp_path / "a.html").write_text("<p>x</p>")
    (tmp_path / "b.parquet").write_bytes(gzip.compress(b"x"))
    source = {key: value.replace("FOLDER", str(tmp_path)) if isinstance(value, str) else value for key, value in source.items()}
    with pytest.raises(InputError, match=message):
        check_source("x", Recipe.model_validate({"name": "test", "sources": {"x": source}}).sources["x"])


def test_identity_follows_files_and_not_where_they_lie(tmp_path: Path) -> None:
    def identity(name: str) -> dict:
        return source_identity(Recipe.model_validate({"name": "test", "sources": {"x": {"kind": "files", "path": str(tmp_path / name)}}}))

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        file = tmp_path / name / "a.txt"
        file.write_text("text")
        os.utime(file, ns=(1, 1_000_000_007))
    before = identity("one")
    assert before == identity("two")
    os.utime(tmp_path / "one" / "a.txt", ns=(1, 2_000_000_007))
    assert identity("one") != before
    packaged = source_identity(Recipe.model_validate({"name": "test", "sources": {"x": {"kind": "rl_wsd"}}}))
    assert packaged["x"]["content"] == {"rl_wsd_labeled": "0.1.1"}


def test_scorer_and_language_model_are_part_of_the_identity(tmp_path: Path) -> None:
    def identity(**corpus: object) -> dict:
        return source_identity(Recipe.model_validate({"name": "test", "sources": {"x": {"kind": "rl_wsd"}}, "corpus": corpus}))

    model = tmp_path / "lid.bin"
    model.write_bytes(b"12345")
    found = identity(scorer="json:dumps", language_model=str(model))
    assert found["corpus.language_model"] == 5
    assert found["corpus.scorer"] == identity(scorer="json:loads")["corpus.scorer"] != identity(scorer="csv:reader")["corpus.scorer"]
    assert set(identity()) == {"x"}
    with pytest.raises(InputError, match=r"^corpus\.language_model: .*right would be a fastText file"):
        identity(language_model=str(tmp_path / "none.bin"))
    with pytest.raises(InputError, match=r"^corpus\.scorer: there is no module"):
        identity(scorer="no_such_module_at_all:f")


def test_thousands_of_small_files_are_few_work_units(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"{number}.txt").write_text(f"строка {number}")
    recipe = Recipe.model_validate({"name": "test", "sources": {"x": {"kind": "files", "path": str(tmp_path)}}})
    units = read.shards(recipe)
    assert len(units) == -(-2000 // read.SHARD_FILES)
    texts = [text for unit in units for table in read.read_shard(unit, recipe.sources["x"]) for text in table.column("text").to_pylist()]
    assert sorted(texts) == sorted(f"строка {number}" for number in range(2000))
