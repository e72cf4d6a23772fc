"""Russian dictionary articles of the package wiki-ru-wordnet: one document a sense.

Title = headword, text = definition without markup and labels, sections "usage" = usage examples, label = field of knowledge where
the article names one of the large ones, group = headword (all senses of a word share a split). Senses that teach nothing
(names, "kind of mineral", "the same as X", a few words) or that the dictionary marks as vulgar carry the reason.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence

from raysberta.corpus.documents import Found
from raysberta.corpus.packaged.markup import expand, plain
from raysberta.corpus.packaged.place import folder

PACKAGE = "wiki_ru_wordnet"
LANGUAGE = "ru"
PARTS = 8
MIN_DEFINITION = 25
MIN_USAGE = 30
MAX_USAGES = 6
RIVER = "— одна из многочисленных рек"
"""A sentence that stands in hundreds of articles."""

TOPICS = {
    "мед.": "медицина",
    "анат.": "медицина",
    "лингв.": "лингвистика",
    "грам.": "лингвистика",
    "техн.": "техника",
    "ботан.": "ботаника",
    "бот.": "ботаника",
    "хим.": "химия",
    "биохим.": "химия",
    "зоол.": "зоология",
    "орнит.": "зоология",
    "орнитол.": "зоология",
    "ихтиол.": "зоология",
    "энтомол.": "зоология",
    "религ.": "религия",
    "церк.": "религия",
    "физ.": "физика",
    "биол.": "биология",
    "генет.": "биология",
    "муз.": "музыка",
    "матем.": "математика",
    "геометр.": "математика",
    "спорт.": "спорт",
    "комп.": "информатика",
    "информ.": "информатика",
    "прогр.": "информатика",
    "интернет.": "информатика",
    "военн.": "военное дело",
    "воен.": "военное дело",
    "юр.": "право",
    "экон.": "экономика",
    "фин.": "экономика",
    "кулин.": "кулинария",
    "гастрон.": "кулинария",
    "геол.": "геология",
    "морск.": "мореходство",
}
"""Label templates of the fields that have some hundred articles, with the name of the field."""

VULGAR = frozenset(("вульг.", "обсц.", "мат", "мат.", "бран.", "груб.", "неценз.", "табу", "сексол.", "крим. жарг."))
OBSCENE = re.compile(
    r"\b(?:(?:на|по|о|до|ни|от|за|с)?ху(?:й|и|е|я|ё)|(?:\w{1,3})?пизд"
    r"|(?:на|за|про|по|о|от|до|подъ|разъ|въ|вы|съ|у)?[её]б(?:а[тлнш]|н[уи]|у[тч]|л[аоия]|ись)|бля(?:д|т|\b)|залуп|муд(?:ак|ил|о[зё]))",
    re.IGNORECASE,
)
REFERENCES = frozenset(
    {"=", "действие", "свойство", "соотн.", "наречие", "нареч.", "прич.", "дееприч.", "страд.", "возвр.", "женск."}
    | {"умласк.", "уменьш.", "ласк.", "увелич.", "однокр.", "сов.", "несов."}
)
"""Templates that only point to another headword: `{{действие|переводить|text}}`. A text given with them is a definition of its own."""
SPELLED = {"-": " — ", "--": "— ", "---": " — ", "итп": "и т. п.", "итд": "и т. д.", "др": "и др.", "тж.": "также", "тж": "также"}
NAMES = re.compile(
    r"(?:\S+ )?(?:(?:мужск|женск|личн)\S*(?: и \S+| или \S+)? имя|(?:\S+ и )?(?:\S+ )?фамилия\b|отчество\b)"
    r"|(?:сокращение|производное) от имени|имя;",
    re.IGNORECASE,
)
MINERAL = re.compile(r"(?:редкий |вид )?минерал", re.IGNORECASE)
POINTER = re.compile(
    r"то же,? что|см\.? |(?:прил|сущ|прич|нареч|сокр|уменьш|увелич|ласк|собир|женск|страд|субст)\S*\.? (?:(?:или|и) \S+ )?(?:к|от|по)\b"
    r"|(?:действие|состояние|свойство)\S* по "
    r"|(?:\S+, )?\S+ (?:такого|такой|этого|этой) (?:же )?(?:действия|процесса|состояния|свойства)"
    r"|(?:краткая|ласкательная|уменьшительная|сокращённая) форма|форма (?:\S+ )?(?:числа|лица|падежа|рода|степени|глагола)"
    r"|(?:связанный, )?соотносящийся (?:по знач|с сущ)|прилагательное|причастие|наречие|женск\S* к ",
    re.IGNORECASE,
)
SAME_AS = re.compile(r"^то же,? что [^;]{1,60};\s*", re.IGNORECASE)
PLAIN_LABEL = re.compile(
    r"^(?:(?:истор|ист|разг|устар|перен|прост|книжн|спец|мн|ед|поэт|шутл|рег|обл|жарг|сленг|тж|собир|неодуш|одуш|безл|ирон|редк|филос|лингв|техн|мед|муз|юр|экон|фин|матем|хим|физ|биол|спорт|воен|военн|морск|церк"
    r"|обычно \S+ л)\.[,:]?\s*)+",
    re.IGNORECASE,
)
TRAILING_EXAMPLE = re.compile(r"\.\s*''([^']{20,})''\s*$")
LEADING = re.compile(r"^[\s,;:.—–)\-]+")
INSIDE = re.compile(r"\(\s*[,;:]*\s*\)|\[[IVX\d,.; -]+\]|\{[^{}]*\}?|[{}]")


def parts() -> list[tuple[str, ...]]:
    """Work units: residues of the row number."""
    return [(str(part), str(PARTS)) for part in range(PARTS)]


def read(part: Sequence[str], key: str) -> Iterator[Found]:
    """The senses of one work unit."""
    rest, of = int(part[0]), int(part[1])
    database = folder(PACKAGE, key) / "database" / "wikiwordnet.db"
    connection = sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True)
    try:
        rows = connection.execute("SELECT lemma, definition FROM synsets WHERE rowid % ? = ? ORDER BY rowid", (of, rest))
        for lemma, definition in rows:
            # lemma~ru~lemma~ru~<markup>~number~number
            yield article(lemma, "~".join(definition.split("~")[4:-2]))
    finally:
        connection.close()


def article(lemma: str, markup: str) -> Found:
    """One sense as a document.

    Args:
        lemma: Headword.
        markup: Its definition with examples, in wiki markup.
    """
    usages: list[str] = []
    labels: set[str] = set()
    topics: list[str] = []

    def template(name: str, positional: Sequence[str], named: dict[str, str]) -> str:
        if name == "пример":
            usages.append(named.get("текст", named.get("text", positional[0] if positional else "")))
            return ""
        if name == "выдел":
            return positional[0] if positional else ""
        labels.add(name)
        if name in TOPICS:
            topics.append(TOPICS[name])
        return _written_out(name, positional, named)

    body = expand(markup, template).split("||")[0].rstrip(" \n#")
    inline = TRAILING_EXAMPLE.search(body)
    if inline:
        usages.append(inline[1])
        body = body[: inline.start() + 1]
    text = _definition(body)
    title = plain(lemma)
    group = title.lower().replace("ё", "е")
    sections = [("usage", usage) for usage in _usable(usages)]
    label = topics[0] if topics else ""
    return Found(group, title, text, LANGUAGE, label, sections, _reason(text, labels))


def _written_out(name: str, positional: Sequence[str], named: dict[str, str]) -> str:
    if name in SPELLED:
        return SPELLED[name]
    if name in REFERENCES:
        return next((value for value in positional[1:] if len(value) >= MIN_DEFINITION), "")
    if name in ("сокр.", "аббр."):
        return " — ".join(value for value in positional[1:3] if value)
    if name == "хим-элем":
        return positional[2] if len(positional) > 2 else ""
    if name == "значение":
        return named.get("определение", "")
    if name == '"':
        return f"«{positional[0]}»" if positional else ""
    if name == "lang":
        return positional[1] if len(positional) > 1 else ""
    return ""  # labels of style, grammar and region


def _definition(body: str) -> str:
    text = INSIDE.sub("", plain(body))
    for _ in range(2):  # a label may stand behind punctuation, and the other way round
        text = PLAIN_LABEL.sub("", LEADING.sub("", text))
    return plain(SAME_AS.sub("", text)).rstrip(" ,;:—#")


def _usable(usages: Sequence[str]) -> list[str]:
    cleaned = (plain(usage.replace("//", " ")) for usage in usages)
    fit = (usage for usage in cleaned if len(usage) >= MIN_USAGE and not OBSCENE.search(usage) and RIVER not in usage)
    return list(dict.fromkeys(fit))[:MAX_USAGES]


def _reason(text: str, labels: set[str]) -> str:
    if NAMES.match(text):
        return "personal_name"
    if MINERAL.match(text) and len(text) < 60:
        return "mineral"
    if labels & VULGAR or OBSCENE.search(text):
        return "vulgar"
    if len(text) < MIN_DEFINITION:
        return "short_definition"
    if POINTER.match(text) and len(text) < 90:
        return "cross_reference"
    return ""
