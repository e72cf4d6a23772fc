"""Folders of composed models, and the encoder that they are made of."""

from pathlib import Path
from typing import Any

import pytest

from raysberta.composing.compose import composed, write
from raysberta.composing.settings import Compose
from raysberta.models.fetch import fetch
from raysberta.models.settings import Model


@pytest.fixture(scope="session")
def encoder(small_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT that pools by the mean and reads E5's prefixes."""
    folder = tmp_path_factory.mktemp("encoder") / "model"
    fetch(Model.model_validate({"from": f"path:{small_folder}", "pooling": "mean", "prefixes": "e5"}), folder)
    return folder


def a_model(target: Path, encoder: Path | None, decoder: Path | None, seed: int = 0, **settings: Any) -> Path:
    """What a phase of kind `compose` with these settings writes."""
    named = {name: name for name, folder in (("encoder", encoder), ("decoder", decoder)) if folder is not None}
    made = composed(Compose(kind="compose", **named, **settings), encoder, decoder, seed)
    write(made, target, decoder if encoder is None else None)
    return target
