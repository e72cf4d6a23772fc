"""mteb scores of every step on the test halves."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "platform"))

from raysberta.command import main
from raysberta.pipeline import SCORED_MODELS

if __name__ == "__main__":
    sys.exit(main(__doc__, [f"score_{step}" for step in SCORED_MODELS]))
