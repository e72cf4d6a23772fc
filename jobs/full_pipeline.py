"""The whole pipeline: from raw text to a published model and its report."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "platform"))

from raysberta.pipeline.command import main

if __name__ == "__main__":
    sys.exit(main(__doc__))
