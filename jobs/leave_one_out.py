"""What each source is worth to a contrastive phase: it is trained without one after the other, and scored on dev halves alone."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "platform"))

from raysberta.pipeline.ablation_command import main

if __name__ == "__main__":
    sys.exit(main(__doc__))
