"""Sentences with their intent, expanded from the templates of the package home-assistant-intents.

Text = sentence, label = intent, group = template (all its expansions share a split). A real home would supply names of rooms and
devices; a few words of our own stand for them. Russian case agreement is as rough as what people say to such an assistant.
"""

import json
from collections.abc import Iterator, Sequence

from raysberta.corpus.documents import Found, broken
from raysberta.corpus.packaged.place import folder
from raysberta.corpus.packaged.templates import TemplateError, sample, slot_values
from raysberta.errors import InputError

PACKAGE = "home_assistant_intents"
PER_TEMPLATE = 12

SPOKEN: dict[str, dict[str, tuple[str, ...]]] = {
    "ru": {
        "area": ("кухне", "спальне", "гостиной", "ванной", "детской", "прихожей", "коридоре", "кабинете", "гараже", "столовой"),
        "floor": ("первом", "втором", "третьем", "верхнем", "нижнем"),
        "name": (
            "торшер",
            "ночник",
            "люстру",
            "чайник",
            "увлажнитель",
            "телевизор",
            "обогреватель",
            "гирлянду",
            "бойлер",
            "тёплый пол",
            "ворота",
            "шторы",
        ),
        "message": ("ужин готов", "пора выходить", "дети пришли из школы", "начинается фильм", "собака просится гулять"),
        "timer_name": ("пицца", "чай", "стирка", "разминка", "пирог", "курица"),
        "timer_command": ("выключи свет", "закрой шторы", "включи вентилятор", "открой гараж", "запусти пылесос"),
        "search_query": ("Чайковского", "джаз", "Кино", "колыбельную", "новый альбом", "Высоцкого", "музыку для сна"),
        "shopping_list_item": ("молоко", "хлеб", "яблоки", "стиральный порошок", "гречку", "сыр", "лампочки"),
        "todo_list_item": ("позвонить маме", "полить цветы", "оплатить счёт", "записаться к врачу", "забрать посылку"),
        "zone": ("дома", "на работе", "в школе", "на даче"),
    },
    "en": {
        "area": ("kitchen", "bedroom", "living room", "bathroom", "nursery", "hallway", "garage", "office", "dining room", "basement"),
        "floor": ("ground", "first", "second", "third", "top"),
        "name": (
            "floor lamp",
            "night light",
            "kettle",
            "humidifier",
            "television",
            "heater",
            "string lights",
            "boiler",
            "ceiling fan",
            "coffee maker",
            "gate",
        ),
        "message": ("dinner is ready", "time to leave", "the movie is starting", "the dog wants out", "the kids are home"),
        "timer_name": ("pizza", "tea", "laundry", "workout", "pie", "chicken"),
        "timer_command": ("turn off the lights", "close the blinds", "start the fan", "open the garage", "start the vacuum"),
        "search_query": ("the Beatles", "some jazz", "classical piano", "a lullaby", "the new album", "Queen", "music for sleep"),
        "shopping_list_item": ("milk", "bread", "apples", "washing powder", "rice", "cheese", "light bulbs"),
        "todo_list_item": ("call mom", "water the plants", "pay the bill", "see the dentist", "pick up the parcel"),
        "zone": ("home", "work", "school", "the cabin"),
    },
}


def parts(languages: Sequence[str]) -> list[tuple[str, ...]]:
    """A work unit a language."""
    return [(language,) for language in languages]


def read(part: Sequence[str], key: str) -> Iterator[Found]:
    """The sentences of one language, at most PER_TEMPLATE a template."""
    (language,) = part
    file = folder(PACKAGE, key) / "data" / f"{language}.json"
    if not file.is_file() or language not in SPOKEN:
        raise InputError(f"{key}.languages: no sentences for {language!r}; right would be {', '.join(SPOKEN)}")
    data = json.loads(file.read_text(encoding="utf-8"))
    rules: dict[str, str] = data["expansion_rules"]
    values = slot_values(data["lists"], rules, SPOKEN[language])
    seen: set[str] = set()
    for intent, described in data["intents"].items():
        for block in described["data"]:
            for template in block["sentences"]:
                group = f"{language} {intent} {template}"
                if group in seen:
                    continue
                seen.add(group)
                try:
                    sentences = sample(template, rules, values, PER_TEMPLATE)
                except TemplateError as error:
                    yield broken(group, str(error))
                    continue
                for sentence in sentences:
                    yield Found(group, "", sentence, language, intent)
