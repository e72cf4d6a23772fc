"""The stage: a folder with its hashes, and what its manifest says."""

from pathlib import Path

import pytest

from raysberta.errors import InputError
from raysberta.models.describe import describe
from raysberta.models.facts import ModelFacts
from raysberta.models.fetch import digests
from raysberta.models.load import load_encoder
from raysberta.models.settings import Model
from raysberta.models.stage import fetch
from raysberta.storage.artifacts import Artifact, Store
from raysberta.work import Work


def made(store: Store, **settings: object) -> tuple[Artifact, ModelFacts]:
    draft = store.draft("model", "abc")
    facts = fetch(Work(Model.model_validate(settings), {}, draft, node="mine"))
    return store.commit(draft, "model", "abc", {}, {}, 1, 0.0, facts), facts


def test_an_encoder_is_a_folder_that_describes_itself(tmp_path: Path, small_folder: Path) -> None:
    artifact, facts = made(Store(str(tmp_path)), **{"from": f"path:{small_folder}", "pooling": "cls", "prefixes": "e5"})
    folder = artifact.folder("model")
    assert artifact.told(ModelFacts) == facts and facts.origin == f"path:{small_folder}"
    assert facts.files == digests(folder) and {"model.safetensors", "mlm_head.safetensors", "1_Pooling/config.json"} <= set(facts.files)
    assert facts.parameters == load_encoder(folder).num_parameters()
    assert describe(folder).pooling == "cls" and artifact.manifest.rows_out == 1


def test_what_is_stored_as_it_comes_has_no_description(tmp_path: Path, small_folder: Path) -> None:
    artifact, facts = made(Store(str(tmp_path)), **{"from": f"path:{small_folder}", "kind": "cross_encoder"})
    assert facts.parameters is None and "modules.json" not in facts.files
    assert digests(artifact.folder("model")).items() <= digests(small_folder).items()


def test_errors_name_the_model(tmp_path: Path, small_folder: Path) -> None:
    with pytest.raises(InputError, match=r"right would be to name pooling: under models\.mine"):
        made(Store(str(tmp_path)), **{"from": f"path:{small_folder}"})
