"""Registered tasks of each of mteb's types in the snapshot layout, with texts of our own in the place of the public data."""

import json
from collections.abc import Iterable
from pathlib import Path

import mteb

from evaluation.conftest import CAPITALS, INTENTS, ROOMS
from raysberta.evaluation import snapshot

NAME = "MTEB(rus, v1.1)"
TYPES = {
    "TERRa": "PairClassification",
    "RuBQRetrieval": "Retrieval",
    "RuBQReranking": "Reranking",
    "STS22": "STS",
    "CEDRClassification": "MultilabelClassification",
    "MassiveIntentClassification": "Classification",
    "RuSciBenchGRNTIClusteringP2P": "Clustering",
}


def write_snapshot(root: Path) -> Path:
    """A snapshot of all of them."""
    for name in TYPES:
        data = mteb.get_task(name).metadata.dataset
        folder = root / "data" / f"{data['path'].replace('/', '__')}@{data['revision']}"
        folder.mkdir(parents=True)
        WRITERS[name](folder)
    snapshot.seal(NAME, root, list(TYPES))
    return root


def countries() -> list[tuple[str, str]]:
    """Country and capital."""
    return [(entry.split()[0], entry.split()[1]) for entry in CAPITALS.split(";")]


def intents(rooms: Iterable[str]) -> list[dict[str, object]]:
    return [
        {"text": template.format(room), "label": label} for label, templates in INTENTS.items() for template in templates for room in rooms
    ]


def _lines(file: Path, rows: Iterable[dict[str, object]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _readme(folder: Path, **configs: dict[str, str]) -> None:
    parts = ["configs:"]
    for name, splits in configs.items():
        files = ", ".join(f"{{split: {split}, path: {path}}}" for split, path in splits.items())
        parts += [f"- config_name: {name}", f"  data_files: [{files}]"]
    (folder / "README.md").write_text("\n".join(["---", *parts, "---", ""]), encoding="utf-8")


def _terra(folder: Path) -> None:
    _readme(folder, default={"dev": "dev.jsonl"})
    pairs = [(f"столица страны {country}", f"главный город страны {country} это {city}", 1) for country, city in countries()]
    pairs += [(pairs[place][0], pairs[(place + 7) % len(pairs)][1], 0) for place in range(len(pairs))]
    _lines(folder / "dev.jsonl", [{"sentence1": one, "sentence2": two, "labels": label} for one, two, label in pairs])


def _search(folder: Path) -> None:
    docs = [(f"d{place}", city, f"{city} — столица страны {country}.") for place, (country, city) in enumerate(countries())]
    docs += [(f"e{place}", "", f"В стране {country} говорят о погоде.") for place, (country, _) in enumerate(countries())]
    _lines(folder / "corpus.jsonl", [{"_id": name, "title": title, "text": text} for name, title, text in docs])
    _lines(
        folder / "queries.jsonl",
        [{"_id": f"q{place}", "text": f"главный город {country}"} for place, (country, _) in enumerate(countries())],
    )
    _lines(folder / "qrels.jsonl", [{"query-id": f"q{place}", "corpus-id": f"d{place}", "score": 1} for place in range(len(countries()))])


def _retrieval(folder: Path) -> None:
    _readme(folder, default={"test": "qrels.jsonl"}, corpus={"corpus": "corpus.jsonl"}, queries={"queries": "queries.jsonl"})
    _search(folder)


def _reranking(folder: Path) -> None:
    ranked = {"top_ranked": {"test": "ranked.jsonl"}}
    _readme(folder, default={"test": "qrels.jsonl"}, corpus={"corpus": "corpus.jsonl"}, queries={"queries": "queries.jsonl"}, **ranked)
    _search(folder)
    count = len(countries())
    near = {
        place: [f"d{(place + step) % count}" for step in range(6)] + [f"e{(place + step) % count}" for step in range(3)]
        for place in range(count)
    }
    _lines(folder / "ranked.jsonl", [{"query-id": f"q{place}", "corpus-ids": names} for place, names in near.items()])


def _sts(folder: Path) -> None:
    _readme(folder, default={"test": "data/*.jsonl"}, ru={"test": "data/ru.jsonl"})
    rows = [
        (f"столица страны {country}", f"{word} города {city}", score)
        for country, city in countries()
        for word, score in (("столица", 4.0), ("погода около", 2.0), ("рецепт супа из", 1.0))
    ]
    _lines(folder / "data" / "ru.jsonl", [{"sentence1": one, "sentence2": two, "score": score, "lang": "ru"} for one, two, score in rows])


def _multilabel(folder: Path) -> None:
    _readme(folder, default={"train": "train.jsonl", "test": "test.jsonl"})
    numbers = {label: number for number, label in enumerate(INTENTS)}
    for split, rooms in (("train", ROOMS[:6]), ("test", ROOMS[6:])):
        rows = intents(rooms)
        both = [
            {"text": f"{one['text']} и {two['text']}", "label": [numbers[one["label"]], numbers[two["label"]]]}
            for one, two in zip(rows, rows[30:], strict=False)
        ]  # type: ignore[index]
        _lines(folder / f"{split}.jsonl", [*({**row, "label": [numbers[row["label"]]]} for row in rows), *both])  # type: ignore[index]


def _classification(folder: Path) -> None:
    _readme(folder, default={split: f"{split}.jsonl" for split in ("train", "validation", "test")})
    for split, rooms in (("train", ROOMS[:6]), ("validation", ROOMS[6:8]), ("test", ROOMS[8:])):
        _lines(folder / f"{split}.jsonl", [{**row, "lang": "ru"} for row in intents(rooms)])


def _clustering(folder: Path) -> None:
    _readme(folder, default={"train": "train.jsonl", "test": "test.jsonl"})
    for split, rooms in (("train", ROOMS[:2]), ("test", ROOMS)):
        _lines(folder / f"{split}.jsonl", intents(rooms))


WRITERS = {
    "TERRa": _terra,
    "RuBQRetrieval": _retrieval,
    "RuBQReranking": _reranking,
    "STS22": _sts,
    "CEDRClassification": _multilabel,
    "MassiveIntentClassification": _classification,
    "RuSciBenchGRNTIClusteringP2P": _clustering,
}
