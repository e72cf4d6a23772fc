"""Bytes of a file, decompressed, with limits: no file can fill the memory, whatever it claims to be."""

from collections.abc import Iterator
from typing import Any, Self

import pyarrow as pa

from raysberta.corpus.locate import File, check_content, check_start
from raysberta.storage.location import filesystem, first_line

CHUNK = 1 << 17
"""Bytes asked for at once; of a stream that breaks off, as much is lost."""
MAX_RECORD = 16 << 20
"""Bytes of one record: a page, a text file, a line of JSON."""
MAX_EXPANSION = 256
"""A compressed file may hold this many times its size."""
FREE_EXPANSION = 64 << 20
"""What any compressed file may hold, however small it is."""


class Unreadable(Exception):
    """A record, or the rest of a file, that cannot be read; the message says why."""


class Stream:
    """A file's content as a readable stream.

    Raises:
        InputError: on opening, where the first bytes contradict the ending.
        Unreadable: on reading, where the file is cut or corrupt, or holds far more than it should.
    """

    def __init__(self, file: File, key: str) -> None:
        system, path = filesystem(file.uri)
        try:
            self._stream: Any = system.open_input_stream(path, compression=None)
            start = self._stream.read(512)
            check_start(file, start, key)
            self._stream.close()
            self._stream = system.open_input_stream(path, compression=file.compression)
        except OSError as error:
            raise Unreadable(first_line(error)[:200]) from error
        self._limit = max(FREE_EXPANSION, file.bytes * MAX_EXPANSION) if file.compression else None
        self._read = 0
        self._file, self._key = file, key

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; b"" at the end. Without a size it reads one chunk: nothing here reads a file whole."""
        try:
            data: bytes = self._stream.read(size if size >= 0 else CHUNK)
        except (OSError, pa.ArrowException) as error:
            raise Unreadable(first_line(error)[:200]) from error
        if not self._read and self._file.compression:
            check_content(self._file, data[:512], self._key)
        self._read += len(data)
        if self._limit is not None and self._read > self._limit:
            raise Unreadable(f"decompresses to more than {self._limit >> 20} MiB, {MAX_EXPANSION} times its size")
        return data

    def tell(self) -> int:
        """Bytes read so far."""
        return self._read

    def whole(self) -> bytes:
        """Everything.

        Raises:
            Unreadable: it is empty or above MAX_RECORD.
        """
        parts: list[bytes] = []
        size = 0
        while data := self.read(CHUNK):
            parts.append(data)
            size += len(data)
            if size > MAX_RECORD:
                raise Unreadable(f"more than {MAX_RECORD >> 20} MiB")
        if not size:
            raise Unreadable("empty file")
        return b"".join(parts)

    def lines(self) -> Iterator[tuple[int, bytes | None]]:
        """Numbered lines without their end; None for one above MAX_RECORD, of which no more than that is ever held."""
        number = 0
        parts: list[bytes] = []
        size = 0
        while data := self.read(CHUNK):
            for index, piece in enumerate(data.split(b"\n")):
                if index:
                    number += 1
                    yield number, b"".join(parts) if size <= MAX_RECORD else None
                    parts, size = [], 0
                size += len(piece)
                if size <= MAX_RECORD:
                    parts.append(piece)
                else:
                    parts.clear()
        if size:
            yield number + 1, b"".join(parts) if size <= MAX_RECORD else None

    def close(self) -> None:
        """Release the file."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
