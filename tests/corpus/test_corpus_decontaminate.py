import numpy as np
import pyarrow as pa

from raysberta.corpus.decontaminate import held_out, matches, passages
from raysberta.corpus.spread import evaluation_passages, overlaps
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
    known = held_out([evaluation_passages(evaluation, np.ones(evaluation.num_rows, bool), size)])
    return overlaps(training, np.ones(training.num_rows, bool), size, known)


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
    assert matches(passages(table(), 13), held_out([]), 0) == []


def test_result_does_not_depend_on_blocks() -> None:
    evaluation = table(*((f"{number:04}", f"{RUN} {number}", []) for number in range(20)))
    whole = held_out([evaluation_passages(evaluation, np.ones(20, bool), 13)])
    parts = held_out([evaluation_passages(evaluation.slice(at, 7), np.ones(len(evaluation.slice(at, 7)), bool), 13) for at in (14, 0, 7)])
    assert (whole.hashes == parts.hashes).all()
    assert (whole.owners == parts.owners).all()
    assert whole.names.equals(parts.names)
