"""cluster.yaml and the manifest for KubeRay against what Ray makes of them, and against what the published recipe asks for."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config

from raysberta.parsing import load
from source_tree import ROOT

CONFIG = yaml.safe_load((ROOT / "cluster.yaml").read_text())
MANIFEST = yaml.safe_load((ROOT / "docs" / "kuberay.yaml").read_text())
RECIPE = load(ROOT / "recipes" / "ru_en_rosberta.yaml")
DERIVED = _derive_autoscaling_config_from_ray_cr(MANIFEST)
CLUSTER_FIELDS = {"rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec", "workerGroupSpecs"}
GROUP_FIELDS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
"""Of KubeRay's API ray.io/v1; where a manifest has another name, Kubernetes drops it in silence or refuses the whole."""


def pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([^#=\s]+)==(\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))


def test_rays_schema_accepts_it() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(CONFIG, schema)
    validate_config(prepare_config(CONFIG))


@pytest.mark.parametrize("config", [CONFIG, DERIVED], ids=["cluster.yaml", "kuberay.yaml"])
def test_it_has_a_head_that_does_nothing_and_nodes_for_all_that_the_recipe_asks_for(config) -> None:
    types = dict(config["available_node_types"])
    assert types.pop(config["head_node_type"])["resources"]["CPU"] == 0
    assert any("GPU" not in kind["resources"] for kind in types.values()), "filtering would hold GPUs"
    for name, place in RECIPE.resources.items():
        room = 0
        for kind in types.values():
            there = kind["resources"]
            each = there["CPU"] // place.cpus
            room += kind["max_workers"] * int(min(each, there.get("GPU", 0) // place.gpus) if place.gpus else each)
        assert room >= place.workers, f"resources.{name}"


def test_a_node_of_gpus_holds_a_whole_training() -> None:
    for config in (CONFIG, DERIVED):
        (most,) = (kind["resources"] for kind in config["available_node_types"].values() if "GPU" in kind["resources"])
        for name in ("mlm", "contrastive"):
            place = RECIPE.resources[name]
            assert place.workers * place.gpus <= most["GPU"] and place.workers * place.cpus <= most["CPU"]


def test_every_node_of_aws_has_an_image_of_its_own_choice_and_may_read_the_bucket() -> None:
    for name, kind in CONFIG["available_node_types"].items():
        assert kind["node_config"]["ImageId"] == "ami-00000000000000000", "what docs/cluster.md replaces"
        role = "raysberta-head" if name == CONFIG["head_node_type"] else "raysberta-worker"
        assert kind["node_config"]["IamInstanceProfile"] == {"Name": role}


def test_the_head_asks_aws_by_a_boto3_that_fits_the_pinned_botocore() -> None:
    asked = dict(word.split("==") for word in " ".join(CONFIG["head_setup_commands"]).split() if "==" in word)
    tested = pins("s3.txt")
    assert asked == {name: tested[name] for name in ("boto3", "s3transfer")}
    assert pins("cuda.txt")["botocore"] == tested["botocore"]


def test_all_nodes_have_the_token() -> None:
    assert CONFIG["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("RAY_AUTH_MODE=token" in command for command in CONFIG["setup_commands"])
    assert MANIFEST["spec"]["authOptions"] == {"mode": "token"}


def test_kuberay_knows_every_field_and_the_pinned_ray() -> None:
    spec = MANIFEST["spec"]
    assert (MANIFEST["apiVersion"], MANIFEST["kind"]) == ("ray.io/v1", "RayCluster")
    assert set(spec) <= CLUSTER_FIELDS
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    assert all(set(group) <= GROUP_FIELDS for group in groups)
    assert all(isinstance(value, str) for group in groups for value in group["rayStartParams"].values()), "the API takes text alone"
    assert spec["rayVersion"] == pins("cuda.txt")["ray"] == ray.__version__
    assert all(group["template"]["spec"]["restartPolicy"] == "Never" for group in groups), "as Ray's autoscaler of version 2 asks"


def test_the_image_has_the_pins_of_the_gpu_environment() -> None:
    text = (ROOT / "requirements" / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (.*) /requirements/$", text, re.MULTILINE)
    names = [name for line in copied for name in line.split()]
    assert names == ["build.txt", "cuda.txt"] and all((ROOT / "requirements" / name).is_file() for name in names)
    assert all(f"/requirements/{name}" in text for name in names)
