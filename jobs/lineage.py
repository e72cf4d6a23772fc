"""Everything that a model, or any other artifact, came from: a tree down to source files, with counts and hashes."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "platform"))


def main() -> int:
    """0 done, 1 the storage does not answer, 2 the input is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a node of the recipe, an id kind/fingerprint, or a folder such as runs/laptop/latest-laptop/model")
    parser.add_argument("--recipe", default="recipes/laptop.yaml", help="the recipe, for names and storage (default: recipes/laptop.yaml)")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="change one setting of the recipe; may be repeated")
    arguments = parser.parse_args()
    from rich.console import Console

    from raysberta.parsing import load
    from raysberta.pipeline.command import reported
    from raysberta.pipeline.lineage import find, tree
    from raysberta.pipeline.optional import with_what_is_there
    from raysberta.pipeline.plan import plan
    from raysberta.storage.artifacts import Store

    def show() -> int:
        recipe = with_what_is_there(load(arguments.recipe, tuple(arguments.set)), fetch=False)
        store = Store(recipe.storage)
        links = plan([recipe], store).ids[recipe.name]
        found = find(store, arguments.model, links)
        Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(
            tree(store, found, arguments.model if arguments.model in links else "")
        )
        return 0

    return reported(show)


if __name__ == "__main__":
    sys.exit(main())
