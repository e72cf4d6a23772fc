"""A run that has a model write, to be killed: `python writing_process.py PICKLED_WORK PYTHONPATH`."""

import pickle
import sys
from pathlib import Path

import ray

sys.path[:0] = sys.argv[2].split(":")

from raysberta.synthesis import stage  # noqa: E402

if __name__ == "__main__":
    ray.init(
        num_cpus=2,
        object_store_memory=80 << 20,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": sys.argv[2]}},
    )
    work, prompts, kept = pickle.loads(Path(sys.argv[1]).read_bytes())
    stage._answer_transformers(work, work.settings.how, prompts, kept)
