"""Places: joined before the options, kept in one form, shown without what must not be seen."""

import logging
import pickle
import traceback
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.fs as pafs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysberta.errors import InputError
from raysberta.storage.location import filesystem, first_line, in_uris, is_uri, join, last, normal, parent, shown, without_user

OPTIONS = "endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"
ADDRESS = st.sampled_from(["", f"?{OPTIONS}", "?region=eu-north-1", "?region=eu-north-1&scheme=https"])
NAME = st.text("abcXYZ019-_.=", min_size=1, max_size=12).filter(lambda name: name.strip("."))
FOLDERS = st.lists(NAME, max_size=4).map("/".join)
SECRET = st.text(min_size=8, max_size=40).map(lambda text: quote(f"S3cr{text}", safe=""))
USER = st.text("ABCDEFGH0123456789", min_size=8, max_size=16).map(lambda text: f"AKIA{text}")


@pytest.mark.parametrize(
    ("place", "below"),
    [
        ("/a", "/a/x/y"),
        ("/a/", "/a/x/y"),
        ("/", "/x/y"),
        ("a", "a/x/y"),
        ("/what?/b", "/what?/b/x/y"),
        ("s3://b", "s3://b/x/y"),
        ("s3://b/?region=r", "s3://b/x/y?region=r"),
        ("s3://b/run//?region=r&scheme=http", "s3://b/run/x/y?region=r&scheme=http"),
        ("file:///", "file:///x/y"),
        ("file:///a", "file:///a/x/y"),
    ],
)
def test_a_place_below_another(place: str, below: str) -> None:
    assert join(place, "x", "y") == below
    assert parent(parent(below)) == join(place) or parent(parent(below)) == normal(place)
    assert last(below) == "y"


@pytest.mark.parametrize(
    ("place", "kept"),
    [
        ("s3://b/", "s3://b"),
        ("s3://b/a/?region=r", "s3://b/a?region=r"),
        ("file:///", "file:///"),
        ("file:///a//", "file:///a"),
        ("/a/../b/", "/b"),
        ("/", "/"),
    ],
)
def test_how_a_place_is_kept(place: str, kept: str) -> None:
    assert normal(place) == kept == normal(kept)


def test_a_relative_folder_is_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert normal("runs") == str(tmp_path / "runs")
    assert filesystem("runs")[1] == str(tmp_path / "runs")


@settings(deadline=None)
@given(NAME, FOLDERS, ADDRESS, st.lists(NAME, min_size=1, max_size=3))
def test_of_a_uri_path_and_options_stay_what_they_were(bucket: str, folder: str, options: str, parts: list[str]) -> None:
    place = normal(f"s3://{bucket}/{folder}{options}")
    below = join(place, *parts)
    assert below.partition("?")[1:] == place.partition("?")[1:]
    assert below.partition("?")[0] == "/".join([place.partition("?")[0], *parts])
    assert normal(below) == below
    assert join(place, *parts) == join(join(place, parts[0]), *parts[1:])
    assert parent(join(place, "a")) == place
    assert last(join(place, *parts)) == parts[-1]
    assert is_uri(below)


@settings(deadline=None)
@given(FOLDERS, st.lists(NAME, min_size=1, max_size=3))
def test_the_file_system_reads_what_was_joined(folder: str, parts: list[str]) -> None:
    for place in (f"s3://KEY:SEC%2FRET@bucket/{folder}?{OPTIONS}", f"/{folder}", f"file:///{folder}"):
        fs, root = filesystem(normal(place))
        there, path = filesystem(join(normal(place), *parts))
        assert path == "/".join([root.rstrip("/"), *parts])
        assert there.equals(fs)


def test_a_file_system_travels() -> None:
    fs, _ = filesystem(f"s3://KEY:SEC%2FRET@bucket/run?{OPTIONS}")
    assert pickle.loads(pickle.dumps(fs)).equals(fs)
    assert isinstance(filesystem("file:///tmp/a%20b")[0], pafs.LocalFileSystem)
    assert filesystem("file:///tmp/a%20b")[1] == "/tmp/a b"


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("/a\0b", "null byte"),
        ("s3://b/\0", "null byte"),
        ("s3://b/run#1", "right would be %23"),
        ("s3://", "bucket"),
        ("s3:///a", "bucket"),
        ("nonsense://x", "not a URI that pyarrow.fs knows"),
        ("s3://b?colour=red", "not a URI that pyarrow.fs knows.*colour"),
        ("file:///a b", "not a URI that pyarrow.fs knows"),
    ],
)
def test_what_is_no_place(place: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        filesystem(place)
    assert "\n" not in str(caught.value)
    assert "\0" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "printed"),
    [
        ("/a@b/c?key=1", "/a@b/c?key=1"),
        ("s3://b/a@b/c", "s3://b/a@b/c"),
        ("hdfs://node:8020/a@b", "hdfs://node:8020/a@b"),
        ("hdfs://[::1]:8020/a@b", "hdfs://[::1]:8020/a@b"),
        ("s3://K:S@b/a@c?region=r", "s3://b/a@c?region=r"),
        ("s3://K@b", "s3://b"),
        ("s3://K:S@S@b/c", "s3://b/c"),
        ("s3://K:S/S@b/c", "s3://b/c"),
        ("s3://K:S?S@b/c", "s3://b/c"),
        ("s3://K:S S@b/c", "s3://b/c"),
        ("s3://K:S\nS@b/c", "s3://b/c"),
        ("s3://K:1/2@b/c", "s3://b/c"),
        ("s3://K:S", "s3://"),
        ("s3://my bucket/c", "s3://my bucket/c"),
        ("s3://b?access_key=K&region=a%20b&Secret-Key=S&session_token=T", "s3://b?region=a%20b"),
        ("abfs://c@account/x?sas_token=T", "abfs://account/x"),
        ("https://h/x?X-Amz-Signature=S&X-Amz-Credential=C&sig=S&%73ecret=S", "https://h/x"),
    ],
)
def test_what_is_shown(place: str, printed: str) -> None:
    assert shown(place) == printed == shown(printed)


@settings(deadline=None)
@given(USER, SECRET, NAME, FOLDERS, ADDRESS)
def test_no_credentials_are_shown(user: str, secret: str, bucket: str, folder: str, options: str) -> None:
    plain = f"s3://{bucket}/{folder}{options}"
    assert shown(plain) == plain == without_user(plain), "what holds no secret is shown as it is"
    held = f"s3://{user}:{secret}@{bucket}/{folder}{options}"
    assert shown(held) == plain == without_user(held)
    option = f"secret_key={secret}&access_key={user}"
    assert shown(f"{plain}{'&' if options else '?'}{option}") == plain
    assert shown(join(held, "x")) == join(plain, "x")


@settings(deadline=None)
@given(USER, st.text("abcXYZ019+/=? '\"%\n", min_size=8, max_size=40), st.text().filter(lambda text: not set("@#&") & set(text)))
def test_no_error_holds_credentials(user: str, secret: str, rest: str) -> None:
    """Passwords as they come, with what should be escaped in them and what makes the URI one that nobody can read."""
    words = [f"Zz{word}zZ" for word in secret.split() if word]
    secret = " ".join(words)
    for place in (f"s3://{user}:{secret}@bucket/{rest}", f"s3n://{user}:{secret}@b", f"hdfs://{user}:{secret}@b:8020/{rest}"):
        for end in ("?colour=red", "\0", "#"):
            with pytest.raises(InputError) as caught:
                filesystem(place + end)
            said = "".join(traceback.format_exception(caught.value))
            assert user not in said
            assert not [word for word in words if word in said]
    with pytest.raises(InputError) as caught:
        filesystem(f"s3://b?secret_key={secret}")
    assert not [word for word in words if word in "".join(traceback.format_exception(caught.value))]


def test_the_first_line_of_an_error() -> None:
    assert first_line(ValueError("a  b\nc")) == "a b"
    assert first_line(ValueError()) == "ValueError"
    assert first_line(OSError("no 's3://K:S@b/x?token=T&region=r' there")) == "no 's3://b/x?region=r' there"
    odd = "s3://K:it's S@b"
    assert first_line(OSError(f"no '{odd}' there"), odd) == "no 's3://b' there"


def test_uris_within_values() -> None:
    value = {"path": "s3://K:S@b/*.gz?token=T", "text": "see s3://K:S@b here", "list": [1, None, ("s3://K@b",)], "s3://K@b": True}
    assert in_uris(shown, value) == {"path": "s3://b/*.gz", "text": "see s3://K:S@b here", "list": [1, None, ["s3://b"]], "s3://b": True}
    assert in_uris(without_user, value)["path"] == "s3://b/*.gz?token=T"


def test_a_server_that_is_not_there_is_one_line_without_credentials(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raysberta.storage.location.RETRIES", 2)
    with caplog.at_level(logging.DEBUG):
        fs, path = filesystem(f"s3://AKIAPLANTED:planted%2Fsecret@bucket/run?{OPTIONS}")
        with pytest.raises((OSError, pa.ArrowException)) as caught:
            fs.get_file_info(path)
    said = first_line(caught.value)
    assert "127.0.0.1" in said
    assert "PLANTED" not in said + caplog.text
    assert "planted" not in said + caplog.text
