import pyarrow as pa

from raysberta.corpus import overlaps
from raysberta.corpus.decontaminate import passages
from raysberta.schema import DOCUMENT

RUN = "один два три четыре пять шесть семь восемь девять десять одиннадцать двенадцать тринадцать"


def table(*rows: tuple[str, str, list[tuple[str, str]]]) -> pa.Table:
    records = [
        {
            **dict.fromkeys(DOCUMENT.names, ""),
            "doc_id": doc_id,
            "text": text,
            "sections": [{"heading": heading, "text": body} for heading, body in sections],
        }
        for doc_id, text, sections in rows
    ]
    return pa.Table.from_pylist(records, schema=DOCUMENT)


def match(training: pa.Table, evaluation: pa.Table, size: int = 13) -> list[str | None]:
    held, said = passages(evaluation, size), passages(training, size)
    names = evaluation.column("doc_id").combine_chunks().take(pa.array(held.rows))
    known = pa.table([held.hashes, names], overlaps.HELD)
    found = overlaps.meet(known, pa.table([said.hashes, said.rows.astype("u8")], overlaps.SAID))
    named = {row["id"]: row["name"] for row in found.to_pylist()}
    return [named.get(row) for row in range(training.num_rows)]


def test_thirteen_words_in_a_row_join_to_the_held_out_document() -> None:
    training = table(
        ("a", f"Начало. {RUN.upper()}! Конец.", []),
        ("b", RUN.replace("семь", "7"), []),
        ("c", " ".join(RUN.split()[:12]), []),
        ("d", "другое", [("usage", f"и вот {RUN}")]),
    )
    evaluation = table(("z", f"совсем другой текст, {RUN}, и ещё", []), ("y", "и тут", [("usage", RUN)]))
    assert match(training, evaluation) == ["y", None, None, "y"]


def test_equal_short_passages_count_on_both_sides() -> None:
    evaluation = table(("z", "Закрыть вкладку", [("translation", "Close Tab")]), ("y", "Глава", [("Введение", "Общие слова")]))
    training = table(
        ("a", "Закрыть вкладку…", [("translation", "Close the tab")]),
        ("b", "Закрыть эту вкладку", [("translation", "close tab")]),
        ("c", "Закрыть окно", [("translation", "Close Window")]),
        ("d", "Другая глава", [("Введение", "Общие слова")]),
    )
    assert match(training, evaluation) == ["z", "z", None, None]


def test_nothing_held_out_matches_nothing() -> None:
    training = table(("a", RUN, []))
    assert match(training, table()) == [None]
    assert match(table(), table()) == []
