"""Compiled gettext catalogues (.mo): messages and their translations, read from the bytes."""

import struct
from pathlib import Path

LITTLE, BIG = b"\xde\x12\x04\x95", b"\x95\x04\x12\xde"


def translations(file: Path) -> dict[str, str]:
    """Message to translation, in the order of the file; headers, contexts and plural forms are left out.

    Format: GNU gettext manual, "The Format of GNU MO Files".

    Raises:
        ValueError: it is no such file, or is cut short.
    """
    data = file.read_bytes()
    order = {LITTLE: "<", BIG: ">"}.get(data[:4])
    if order is None:
        raise ValueError(f"{file.name}: no compiled gettext catalogue")
    try:
        count, messages, translated = struct.unpack_from(f"{order}3I", data, 8)
        pairs = [(_string(data, order, messages + 8 * each), _string(data, order, translated + 8 * each)) for each in range(count)]
    except struct.error as error:
        raise ValueError(f"{file.name}: cut short") from error
    return {message: translation for message, translation in pairs if message and not {"\x00", "\x04"}.intersection(message)}


def _string(data: bytes, order: str, at: int) -> str:
    length, start = struct.unpack_from(f"{order}2I", data, at)
    if start + length > len(data):
        raise struct.error("the text ends early")
    return data[start : start + length].decode("utf-8")
