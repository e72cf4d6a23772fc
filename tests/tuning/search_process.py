"""A process that runs a search, to be killed: python search_process.py <address of Ray> <file with the pickled work>."""

import pickle
import sys
from pathlib import Path

import ray

from raysberta.tuning import stage

if __name__ == "__main__":
    ray.init(address=sys.argv[1], log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": ":".join(sys.path)}})
    stage.run(pickle.loads(Path(sys.argv[2]).read_bytes()))
