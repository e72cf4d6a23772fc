"""Fetch the models of the recipe, from a hub too where it names one, into pinned and hashed folders. Needs a network for a hub."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "platform"))

from raysberta.pipeline.command import main

if __name__ == "__main__":
    sys.exit(main(__doc__, kinds=("model",), network=True))
