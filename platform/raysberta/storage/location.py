"""Folders and URIs: places below a URI that carries options, file systems, and how either is shown without what must not be seen.

A URI may hold options after `?` (`endpoint_override`, `region`, `scheme` and the like, as pyarrow.fs reads them) and credentials, before
the host or among the options. Places are joined before the options; credentials are never shown.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.fs as pafs

from raysberta.errors import InputError

SECRET = re.compile(r"key|secret|token|pass|pwd|credential|sig|auth", re.IGNORECASE)
"""An option whose name holds one of these is not shown."""
RETRIES = 10
"""Of a request to an S3 storage that fails or stalls: the first after 25 ms, each other one after twice the wait before, 26 s in all."""
STALLED_SECONDS = 10.0
"""A request that brings no byte for so long has failed."""
_USER = re.compile(r"(?<=://)[^/?#]*@")
"""User and password before a host."""
_WELL_FORMED = re.compile(
    r"(?!(?:s3|gs|gcs)://[^/?#@]*:[^/?#@]*(?:[/?#]|$))"  # buckets have no port
    r"[^:/]*://(?:[A-Za-z0-9._~!$&'()*+,;=:%-]*@)?(?:\[[^]/?#@]*\]|[^\s/?#@:[\]]*)(?::\d*)?(?=[/?#]|$)"
)
"""What comes before the path is as RFC 3986 says, so it is clear where a password ends."""
_ALL_BEFORE = re.compile(r"(?<=://)(?:.*@|[^/?#]*:[^/?#]*)", re.DOTALL)
"""Where a URI is not so, whatever may be a user and a password with characters that should be escaped, such as / as %2F."""
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"]+")
"""Within a text."""
_WHOLE_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")


def is_uri(place: str) -> bool:
    """Whether a place is a URI; a path on this machine otherwise."""
    return "://" in place


def normal(place: str) -> str:
    """A place as it is kept: a URI without a slash at the end of its path, a folder absolute."""
    if not is_uri(place):
        return os.path.abspath(place)
    start, path, options = _parts(place)
    return f"{start}{path or '/'}{options}"


def join(place: str, *parts: str) -> str:
    """A place below another, before the options of a URI, in which the parts stand as they are: escaped by the caller where need be."""
    start, path, options = _parts(place)
    return f"{start}{'/'.join([path, *parts])}{options}"


def under(root: str, place: str) -> str:
    """A place as it is where it is absolute or a URI; otherwise below a root, escaped where that is a URI."""
    if is_uri(place) or place.startswith("/"):
        return place
    return join(root, quote(place, safe="/*[]!=") if is_uri(root) else place)


def parent(place: str) -> str:
    """The place above."""
    start, path, options = _parts(place)
    above = path.rpartition("/")[0]
    return f"{start}{above or ('/' if path.startswith('/') else '')}{options}"


def last(place: str) -> str:
    """The last part of a place's path."""
    return _parts(place)[1].rpartition("/")[2]


def filesystem(place: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a place, and the path in it.

    Raises:
        InputError: it is no URI that pyarrow.fs knows, or holds a null byte or `#`.
    """
    if "\0" in place:
        raise InputError(f"{shown(place)!r}: a path cannot hold a null byte")
    if not is_uri(place):
        return pafs.LocalFileSystem(), os.path.abspath(place)
    if "#" in place:  # what follows it is no part of the path: all places below would be one
        raise InputError(f"{shown(place)}: a URI cannot hold #; right would be %23")
    # without the cause, which quotes the URI with its credentials: tracebacks are printed, and Ray sends them around
    try:
        fs, path = pafs.FileSystem.from_uri(place)
    except pa.ArrowInvalid as error:
        raise InputError(f"{shown(place)}: not a URI that pyarrow.fs knows: {first_line(error, place)}") from None
    except OSError as error:
        raise InputError(f"{shown(place)}: cannot be reached: {first_line(error, place)}") from None
    if not path:
        raise InputError(f"{shown(place)}: names no bucket or folder")
    return _patient(fs.__reduce__()[1][0]) if isinstance(fs, pafs.S3FileSystem) else fs, path


class _Patient(pafs.S3FileSystem):
    """S3 whose failed requests are repeated, also after it has travelled: pyarrow forgets its strategy then.

    From a URI pyarrow makes one that repeats every 0.2 s, 6 s long. Google's and Azure's have strategies of their own, with longer waits.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _patient, super().__reduce__()[1]


def _patient(options: Mapping[str, Any]) -> _Patient:
    """S3 with these options, as pyarrow pickles them. A file is opened when its size is known: a small one is one request."""
    strategy = pafs.AwsDefaultS3RetryStrategy(max_attempts=RETRIES)
    return _Patient(**{**options, "request_timeout": STALLED_SECONDS, "allow_delayed_open": True}, retry_strategy=strategy)


def shown(place: str) -> str:
    """A place as it may be printed: without user, password and whatever option holds a secret. Anything else stays as it is."""
    if not is_uri(place):
        return place
    text = without_user(place) if _WELL_FORMED.match(place) else _ALL_BEFORE.sub("", place, count=1)
    head, mark, options = text.partition("?")
    kept = [option for option in options.split("&") if not SECRET.search(unquote(option.partition("=")[0]))]
    return f"{head}?{'&'.join(kept)}" if mark and kept else head


def without_user(place: str) -> str:
    """A URI without user and password: whoever reads it, it is the same place."""
    return _USER.sub("", place, count=1)


def in_uris(change: Callable[[str], str], value: Any) -> Any:
    """JSON values, each string and each key that is a URI changed."""
    if isinstance(value, str):
        return change(value) if _WHOLE_URI.fullmatch(value) else value
    if isinstance(value, Mapping):
        return {in_uris(change, key): in_uris(change, each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [in_uris(change, each) for each in value]
    return value


def first_line(error: BaseException, place: str = "") -> str:
    """What an error says, in one line, URIs in it as they may be shown; `place` is one that it may quote, whatever characters are in it."""
    text = str(error).replace(place, shown(place)) if place else str(error)
    line = " ".join(text.split("\n")[0].split()) or type(error).__name__
    return _URI.sub(lambda found: shown(found.group()), line)


def _parts(place: str) -> tuple[str, str, str]:
    """What comes before the path of a URI (`s3://`), the path without slashes at its end, and the options with their `?`."""
    if not is_uri(place):
        return "", place.rstrip("/"), ""
    scheme, mark, rest = place.partition("://")
    path, question, options = rest.partition("?")
    return f"{scheme}{mark}", path.rstrip("/"), f"{question}{options}"
