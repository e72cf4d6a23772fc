"""Fetch the data sets of a recipe into its snapshot, which a run then reads: Parquet by ranges, with hashes and a table of licences.

From a hub at the pinned commits, which needs a network, or from a folder of files downloaded before. Goes on where it was cut off.
Sorts what it reads on the disk, in TMPDIR: there must be room for the texts of the largest data set.
"""

import argparse
import logging
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "platform"))


def main() -> int:
    """0 done, 1 the hub cannot be reached, 2 the input is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="recipes/ru_en_rosberta.yaml", help="a recipe, a YAML file (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="change one setting of the recipe; may be repeated")
    parser.add_argument("--only", action="append", default=[], metavar="SOURCE", help="fetch this data set only; may be repeated")
    parser.add_argument(
        "--downloads", type=Path, help="a folder of files that were downloaded before, owner__name@commit each; no hub is asked"
    )
    parser.add_argument("--commits", action="store_true", help="print the commits that data sets with an OPEN revision have today")
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "0" if arguments.downloads is None else "1"
    os.environ.setdefault("HF_DATASETS_CACHE", str(Path(tempfile.gettempdir()) / "raysberta" / "datasets"))  # not into the user's home
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    from raysberta.data_sets.fetch import Unreachable, commits, fetch
    from raysberta.data_sets.licences import write_licences
    from raysberta.data_sets.settings import DatasetSource
    from raysberta.errors import InputError
    from raysberta.nodes import located
    from raysberta.parsing import load

    try:
        recipe = located(load(arguments.recipe, tuple(arguments.set)))
        sources = {name: source for name, source in recipe.sources.items() if isinstance(source, DatasetSource)}
        for name in arguments.only:
            if name not in sources:
                raise InputError(f"--only {name}: no data set of the recipe; there are {', '.join(sources) or 'none'}")
        wanted = {name: source for name, source in sources.items() if not arguments.only or name in arguments.only}
        if arguments.commits:
            for hub, commit in commits(wanted).items():
                print(f"{hub}: {commit}")
            return 0
        found = fetch(wanted, arguments.downloads)
        table = write_licences(wanted, found)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Unreachable as error:
        print(f"failed: {error}; the same command goes on from there", file=sys.stderr)
        return 1
    print(f"{len(found)} data sets, {sum(index.rows for index in found.values()):,} rows; licences: {', '.join(table) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
