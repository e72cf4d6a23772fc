"""What runs in a stage's process. It imports nothing of the stages, so a stage starts fast and alone."""

from typing import Any

import ray

from raysberta.board import attach
from raysberta.pipeline.stages import Run
from raysberta.storage.artifacts import Draft
from raysberta.work import Facts, Work


@ray.remote(num_cpus=0, max_retries=0)
def stage_task(run: Run, work: Work[Any]) -> tuple[Draft, Facts]:
    """Run a stage into its draft; the draft with its counts, and the facts. It asks for no core: the stage's own workers do."""
    attach()
    facts = run(work)
    return work.draft, facts
