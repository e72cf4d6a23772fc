"""What runs in a stage's process. It imports nothing of the other stages, so a stage starts fast and alone."""

import logging
from collections.abc import Callable, Mapping

import ray

from raysberta.artifacts import Artifact, Draft
from raysberta.recipe import Recipe

QUIET = ("ray", "transformers", "DeepSpeed", "deepspeed", "mteb", "sentence_transformers", "datasets", "httpx", "faiss")

StageFunction = Callable[[Recipe, Mapping[str, Artifact], Draft], None]
"""Reads its inputs, writes tables and folders into the draft, counts and measures there; does not commit."""


@ray.remote(num_cpus=0, max_retries=0)
def stage_task(run: StageFunction, recipe: Recipe, inputs: Mapping[str, Artifact], draft: Draft) -> Draft:
    """Run a stage into its draft, and give the draft back with its counts. It asks for no core: the stage's own workers do."""
    configure_logging()
    run(recipe, inputs, draft)
    return draft


def configure_logging() -> None:
    """Lines that a person watching wants to read, from this package; only warnings of the others."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S", force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
