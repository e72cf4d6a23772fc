"""Small text work that pairs need: comparing, cutting at a sentence end, spelling a qualified name as words."""

import re

_SENTENCE_END = re.compile(r"[.!?…。]+[\"'»”)\]]*(?=\s|$)")
_HUMP = re.compile(r"(?<=[a-zа-яё0-9])(?=[A-ZА-ЯЁ])|(?<=[A-ZА-ЯЁ])(?=[A-ZА-ЯЁ][a-zа-яё])")


def normalise(text: str) -> str:
    """The key under which texts count as the same: case and blanks do not matter."""
    return " ".join(text.casefold().split())


def cut(text: str, max_characters: int) -> str:
    """The text up to the last sentence end within `max_characters`; up to the last blank where no sentence ends, else cut hard."""
    text = text.strip()
    if len(text) <= max_characters:
        return text
    ends = [match.end() for match in _SENTENCE_END.finditer(text, 0, max_characters + 1) if match.end() <= max_characters]
    if ends:
        return text[: ends[-1]]
    blank = text.rfind(" ", 0, max_characters + 1)
    return text[: blank if blank > 0 else max_characters].rstrip()


def name_words(name: str) -> str:
    """`pandas.core.MultiIndex.get_loc` becomes `pandas core multi index get loc`; a part that repeats the one before it is said once."""
    words = [word for part in re.split(r"[._\s]+", name) for word in _HUMP.sub(" ", part).casefold().split()]
    return " ".join(word for number, word in enumerate(words) if number == 0 or word != words[number - 1])
