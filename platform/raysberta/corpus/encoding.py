"""Bytes to text: UTF-8 where it is UTF-8, else what the page declares or its bytes look like."""

from resiliparse.parse.encoding import bytes_to_str, detect_encoding

from raysberta.corpus.stream import Unreadable

MAX_REPLACED = 0.01
REPLACEMENT = "\ufffd"


def decode_page(data: bytes) -> str:
    """HTML in any encoding. Single undecodable bytes are left out, as browsers tolerate them.

    Raises:
        Unreadable: more than one character in a hundred cannot be decoded, or there is a NUL.
    """
    if b"\0" in data and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Unreadable("holds a NUL")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    as_utf8 = data.decode("utf-8", "replace")
    broken = as_utf8.count(REPLACEMENT)
    if broken <= MAX_REPLACED * len(as_utf8) and broken * 10 < sum(map(len, _foreign(as_utf8))):
        return as_utf8.replace(REPLACEMENT, "")
    text: str = bytes_to_str(data, detect_encoding(data, from_html_meta=True) or "utf-8", errors="replace", fallback_encodings=())
    if text.count(REPLACEMENT) > MAX_REPLACED * len(text):
        raise Unreadable("in no encoding that is known")
    return text.replace(REPLACEMENT, "")


def decode_text(data: bytes) -> str:
    """Plain text or Markdown: UTF-8, UTF-16 with its mark, or a single-byte encoding that decodes without a fault.

    Raises:
        Unreadable: UTF-8 with faults, a NUL, or no known encoding.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise Unreadable(f"invalid UTF-16 at byte {error.start}") from error
    if b"\0" in data:
        raise Unreadable("holds a NUL")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        as_utf8 = data.decode("utf-8", "replace")
        if as_utf8.count(REPLACEMENT) < len(_foreign(as_utf8)):  # most sequences are UTF-8: a damaged file, not another encoding
            raise Unreadable(f"invalid UTF-8 at byte {error.start}") from error
    try:
        return data.decode(detect_encoding(data) or "utf-8")
    except (UnicodeDecodeError, LookupError) as error:
        raise Unreadable("in no encoding that is known") from error


def _foreign(text: str) -> list[str]:
    """Characters beyond ASCII that were decoded."""
    return [character for character in text if character > "\x7f" and character != REPLACEMENT]
