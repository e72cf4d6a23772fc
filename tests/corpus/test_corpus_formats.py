import gzip
import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from raysberta.corpus import stream
from raysberta.corpus.documents import Found
from raysberta.corpus.formats import read_file
from raysberta.corpus.locate import locate
from raysberta.corpus.settings import FilesSource
from raysberta.errors import InputError

Read = Callable[[str, bytes], list[Found]]


@pytest.fixture()
def read(tmp_path: Path) -> Read:
    def write_and_read(name: str, data: bytes, **settings: Any) -> list[Found]:
        path = tmp_path / name
        path.write_bytes(data)
        source = FilesSource(kind="files", path=str(path), **settings)
        (file,) = locate(source.path, "sources.x.path")
        return list(read_file(file, source, "sources.x"))

    return write_and_read


def lines(*records: object) -> bytes:
    return b"".join(record if isinstance(record, bytes) else json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


def warc(*pages: tuple[str, str, bytes]) -> bytes:
    out = b""
    for address, kind, body in pages:
        http = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n".encode() + body
        head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {address}\r\nWARC-Record-ID: <urn:uuid:{address}>\r\n"
        head += f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
        out += head.encode() + http + b"\r\n\r\n"
    return out


PAGE = (
    "<html><head><title>Реки | Сайт</title></head><body><nav><a href=/>меню</a></nav><h1>Реки</h1><p>Река течёт через город, "
    "и весной вода поднимается до самых окон.</p><h2>Мосты</h2><p>Мостов через реку три, и все каменные.</p></body></html>"
)


def reasons(found: list[Found]) -> list[str]:
    return [document.reason for document in found if document.reason]


@pytest.mark.parametrize("encoding", ["utf-8", "windows-1251", "koi8-r", "utf-16"])
def test_html_in_any_encoding(read: Read, encoding: str) -> None:
    (page,) = read("a.html", PAGE.encode(encoding))
    assert page.title == "Реки"
    assert ("Мосты", "Мостов через реку три, и все каменные.") in page.sections
    assert "весной вода поднимается" in page.text
    assert "меню" not in page.text
    assert page.group == "a.html"


def test_markdown(read: Read) -> None:
    (page,) = read(
        "a.md", b"---\ntitle: Guide\n---\n# First\nSome *text* with [a link](http://x).\n\n```\ncode\n```\n\nSecond\n------\nMore `text`.\n"
    )
    assert (page.title, page.sections) == ("Guide", [("First", "Some text with a link."), ("Second", "More text.")])
    assert "code" not in page.text


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_jsonl(read: Read, name: str) -> None:
    data = lines({"title": " Один\nдва ", "text": "раз", "label": "x"}, {"text": "два"})
    data = gzip.compress(data) if name.endswith("gz") else zstandard.compress(data) if name.endswith("zst") else data
    first, second = read(name, data)
    assert (first.title, first.text, first.label) == ("Один два", "раз", "x")
    assert second.text == "два"
    assert first.group != second.group


def test_concatenated_gzip_members_are_all_read(read: Read) -> None:
    data = gzip.compress(lines({"text": "раз"})) + gzip.compress(lines({"text": "два"}))
    assert [document.text for document in read("a.jsonl.gz", data)] == ["раз", "два"]


def test_bad_lines_are_rows_and_good_ones_go_on(read: Read) -> None:
    data = lines(
        {"text": "раз"},
        b"{broken\n",
        b"\n",
        {"other": 1},
        [1],
        b'{"text": "\xff"}\n',
        {"text": "a\0b"},
        b'{"text": "\\ud800"}\n',
        {"text": "два"},
    )
    found = read("a.jsonl", data)
    assert [document.text for document in found if not document.reason] == ["раз", "два"]
    why = reasons(found)
    assert len(why) == 6
    assert all(reason.startswith("unreadable: a.jsonl") for reason in why)
    assert "line 2: no JSON" in why[0]
    assert "line 4: no text in 'text'" in why[1]
    assert "NUL" in why[4]
    assert "surrogate" in why[5]


def test_long_line_is_skipped_without_holding_it(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_RECORD", 1000)
    monkeypatch.setattr(stream, "CHUNK", 128)
    found = read("a.jsonl", lines({"text": "раз"}, {"text": "x" * 5000}, {"text": "два"}))
    assert [document.text for document in found if not document.reason] == ["раз", "два"]
    assert len(reasons(found)) == 1


def test_truncated_gzip_keeps_what_came_before(read: Read) -> None:
    data = gzip.compress(b"".join(lines({"text": f"строка {number} {number * 7919 % 10007}"}) for number in range(50_000)))
    found = read("a.jsonl.gz", data[: len(data) // 2])
    assert len([document for document in found if not document.reason]) > 1000
    assert len(reasons(found)) == 1
    assert "Truncated" in reasons(found)[0]


def test_decompression_bomb_stops(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "FREE_EXPANSION", 1 << 20)
    found = read("a.jsonl.gz", gzip.compress(b"{" + b" " * (64 << 20)))
    assert len(found) == 1
    assert "decompresses to more than" in found[0].reason


@pytest.mark.parametrize("name", ["a.html", "a.md", "a.txt", "a.jsonl", "a.parquet", "a.warc"])
def test_empty_file_is_a_bad_record(read: Read, name: str) -> None:
    (found,) = read(name, b"")
    assert found.reason.startswith("unreadable: ")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.gif.html", b"GIF89a...."),
        ("a.html", b"\x89PNG\r\n\x1a\n"),
        ("a.md", b"PK\x03\x04zip"),
        ("a.txt", b"%PDF-1.7"),
        ("a.jsonl", b"text,label\n"),
        ("a.jsonl.gz", b'{"text": "not compressed"}\n'),
        ("a.jsonl.gz", gzip.compress(b"PAR1....", mtime=0)),
        ("a.jsonl.zst", gzip.compress(b'{"text": "x"}', mtime=0)),
        ("a.parquet", b'{"text": "x"}'),
        ("a.warc", b"<html>"),
        ("a.warc.gz", gzip.compress(b"<html>", mtime=0)),
    ],
)
def test_file_that_is_not_what_its_ending_says(read: Read, name: str, data: bytes) -> None:
    with pytest.raises(InputError, match=rf"sources\.x\.path: .*{name} is not what its ending says"):
        read(name, data)


def test_a_line_that_is_a_list_is_a_bad_record(read: Read) -> None:
    """Data sets of pairs have such lines, documents do not."""
    assert [found.reason.partition(":")[0] for found in read("a.jsonl", b'[1, 2]\n{"text": "x"}\n')] == ["unreadable", ""]


def test_text_files(read: Read) -> None:
    assert read("a.txt", "Привет, мир\r\nи люди\n".encode())[0].text == "Привет, мир\nи люди"
    assert read("b.txt", ("Обычный русский текст, записанный в старой кодировке. " * 5).encode("windows-1251"))[0].text.startswith(
        "Обычный русский"
    )
    assert "invalid UTF-8 at byte" in read("c.txt", "Привет, ".encode() + b"\xff" + "мир и все люди".encode())[0].reason
    assert "NUL" in read("d.txt", b"text\0text")[0].reason


def test_page_limits(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no markup" in read("a.html", b"just words")[0].reason
    assert "deep" in read("b.html", b"<div>" * 20_000 + b"deep")[0].reason
    monkeypatch.setattr(stream, "MAX_RECORD", 1 << 20)
    assert "more than 1 MiB" in read("c.html", b"<p>x</p>" * 200_000)[0].reason


def test_nested_tables_ten_thousand_deep_end_at_once(read: Read) -> None:
    (found,) = read("a.html", b"<table><tr><td>" * 10_000 + "Слова в глубине таблиц".encode())
    assert "deep" in found.reason


def test_parquet(read: Read) -> None:
    sink = io.BytesIO()
    broken = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")])
    pq.write_table(pa.table({"body": pa.chunked_array([pa.array(["раз", None]), broken]), "name": ["A", "B", "C"]}), sink)
    found = read("a.parquet", sink.getvalue(), text_field="body", title_field="name")  # type: ignore[call-arg]
    assert [(document.title, document.text) for document in found if not document.reason] == [("A", "раз")]
    assert len(reasons(found)) == 2
    with pytest.raises(InputError, match=r"sources\.x\.text_field: .* no column 'text' of strings; there are body, name"):
        read("a.parquet", sink.getvalue())
    cut = sink.getvalue()[:-20]
    assert reasons(read("b.parquet", cut))


@pytest.mark.parametrize("compress", [False, True])
def test_warc_takes_html_responses_only(read: Read, compress: bool) -> None:
    data = [warc(("http://a/1", "text/html; charset=utf-8", PAGE.encode())), warc(("http://a/2", "image/png", b"\x89PNG"))]
    data.append(warc(("http://a/3", "text/html", PAGE.replace("Реки", "Озёра").encode("windows-1251"))))
    raw = b"".join(gzip.compress(part) for part in data) if compress else b"".join(data)
    found = read("a.warc.gz" if compress else "a.warc", raw)
    assert [(document.group, document.title) for document in found] == [("http://a/1", "Реки"), ("http://a/3", "Озёра")]


def test_truncated_warc_says_so(read: Read) -> None:
    data = gzip.compress(b"".join(warc((f"http://a/{number}", "text/html", PAGE.encode())) for number in range(3000)))
    found = read("a.warc.gz", data[: len(data) // 2])
    assert any(not document.reason for document in found)
    assert len(reasons(found)) >= 1


@pytest.mark.parametrize("name", ["a.wet", "a.warc.wet.gz"])
def test_wet_texts(read: Read, name: str) -> None:
    data = b""
    for number, text in enumerate(("Река течёт через город.", "плохо\0", "Озеро стоит.")):
        body = text.encode()
        head = f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: http://a/{number}\r\nWARC-Record-ID: <urn:uuid:{number}>\r\n"
        record = f"{head}Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body + b"\r\n\r\n"
        data += gzip.compress(record) if name.endswith("gz") else record
    found = read(name, data)
    assert [(document.group, document.text) for document in found if not document.reason] == [
        ("http://a/0", "Река течёт через город."),
        ("http://a/2", "Озеро стоит."),
    ]
    assert len(reasons(found)) == 1


def test_mojibake_in_records_is_repaired(read: Read) -> None:
    text = "Весной вода поднимается до самых окон."
    (found,) = read("a.jsonl", lines({"title": "Разлив", "text": text.encode().decode("latin-1")}))
    assert (found.title, found.text) == ("Разлив", text)


def test_page_of_two_hundred_megabytes_is_one_bad_record(tmp_path: Path) -> None:
    for name, before, after in (("a.html", b"<p>", b"</p>"), ("b.jsonl", b'{"text": "one"}\n{"text": "', b'"}\n{"text": "two"}\n')):
        path = tmp_path / name
        with path.open("wb") as file:
            file.write(before)
            for _ in range(200):
                file.write(b"x" * (1 << 20))
            file.write(after)
        source = FilesSource(kind="files", path=str(path))
        (file_found,) = locate(source.path, "sources.x.path")
        tracemalloc.start()
        found = list(read_file(file_found, source, "sources.x"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        path.unlink()
        assert [document.text for document in found if not document.reason] == (["one", "two"] if name == "b.jsonl" else [])
        assert len(reasons(found)) == 1
        assert "more than 16 MiB" in reasons(found)[0]
        assert peak < 40 << 20
