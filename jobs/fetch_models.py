"""Fetch the recipe's models, from a hub too where it names one, into a pinned and hashed snapshot."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "platform"))

from raysberta.command import main

if __name__ == "__main__":
    sys.exit(main(__doc__, ["models", "generators"], network=True))
