"""cluster.yaml against Ray's own schema and checks."""

import json
from pathlib import Path

import jsonschema
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[1]
CONFIG = yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_rays_schema_accepts_it() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(CONFIG, schema)
    validate_config(prepare_config(CONFIG))


def test_it_has_a_head_cpu_workers_and_gpu_workers() -> None:
    types = CONFIG["available_node_types"]
    assert CONFIG["head_node_type"] in types
    workers = [kind["resources"] for name, kind in types.items() if name != CONFIG["head_node_type"]]
    assert any(resources.get("GPU", 0) >= 8 for resources in workers)
    assert any(resources["CPU"] > 0 and "GPU" not in resources for resources in workers)
