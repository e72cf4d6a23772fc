"""A part of the pipeline: the nodes that `--until` names and what they need, and nothing else."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "platform"))

from raysberta.pipeline.command import main

if __name__ == "__main__":
    sys.exit(main(__doc__, ask_until=True))
