"""A store in a folder, and one in a bucket of an S3 server."""

import uuid
from pathlib import Path

import pytest

from raysberta.storage.artifacts import Store
from raysberta.storage.location import join


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place of a test's own."""
    if request.param == "folder":
        return str(tmp_path / "store")
    base: str = request.getfixturevalue("s3")
    return join(base, uuid.uuid4().hex)


@pytest.fixture
def store(place: str) -> Store:
    """The store there."""
    return Store(place)
