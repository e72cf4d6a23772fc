"""Fetch a registered mteb benchmark into a pinned, hashed folder, which `benchmarks` of a recipe then names. Needs a network."""

import argparse
import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "platform"))


def main() -> int:
    """0 done, 1 the hub cannot be reached, 2 the input is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to put it")
    parser.add_argument("--benchmark", default="MTEB(rus, v1.1)", help="its name in mteb (default: %(default)s)")
    parser.add_argument("--task", action="append", default=[], help="fetch this task only; may be repeated")
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "0"
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    from raysberta.errors import InputError
    from raysberta.evaluation.snapshot import fetch, write_texts

    try:
        snapshot = fetch(arguments.benchmark, arguments.folder, arguments.task)
        texts = write_texts(arguments.benchmark, arguments.folder)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"failed: {' '.join(str(error).split())}; the same command goes on from there", file=sys.stderr)
        return 1
    size = sum(file.bytes for task in snapshot.tasks.values() for file in task.files)
    print(f"{arguments.folder}: {len(snapshot.tasks)} tasks of {snapshot.benchmark}, {size / 1e6:.0f} MB")
    print(f"{arguments.folder}/texts.parquet: {texts} texts, for corpus.evaluation_sets")
    return 0


if __name__ == "__main__":
    sys.exit(main())
