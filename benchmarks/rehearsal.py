"""The published recipe from end to end at a share of its row count, on two nodes of this machine: `make rehearsal SIZE=0.02`.

Every step goes on from what is there, so a rehearsal may be split over several sittings; what it came to is printed as JSON lines.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pafs

from raysberta.data_sets.settings import DatasetSource
from raysberta.data_sets.snapshot import read_index
from raysberta.errors import InputError
from raysberta.nodes import NATURAL, located
from raysberta.pipeline import local
from raysberta.recipe import Recipe
from raysberta.storage.artifacts import VECTORS, Store
from raysberta.storage.location import filesystem, join
from rehearsal_figures import Figure, figure, growth, made, mining, peak, rows, same, snapshot, stages, storage
from rehearsal_generate import read_plan, write_all
from rehearsal_models import write_models
from rehearsal_recipe import rehearsed, written
from rehearsal_run import ROOT, Sitting, run, s3_server, watched
from rehearsal_texts import read_pools
from rehearsal_watch import read_looks

WORKERS, OTHER_WORKERS = 2, 3
"""Of the run with the kills, and of the one that it is compared with."""
STEPS = ("data", "killed", "other", "s3")
ON_DISK = STEPS[:3]
"""What is done where nothing is asked for, and compared with a tenth of the size."""


class Rehearsal:
    """One size, and the folder where all of it lies."""

    def __init__(self, size: float, place: Path, cores: int) -> None:
        self.size, self.place, self.cores = size, place / f"{size:g}", cores
        self.shared = place
        self.place.mkdir(parents=True, exist_ok=True)

    def recipe(self, name: str, storage: str, workers: int) -> tuple[Recipe, Path]:
        """A run's recipe, and its file."""
        recipe = rehearsed(self.size, str(self.place / "data"), self.shared / "models", storage, workers)
        return recipe, written(recipe, self.place / f"{name}.json")

    def data(self) -> Iterator[Figure]:
        """Write the data sets and the small models, and make the snapshot."""
        begun = time.monotonic()
        recipe, file = self.recipe("killed", str(self.place / "killed"), WORKERS)
        sources = {name: source for name, source in recipe.sources.items() if isinstance(source, DatasetSource)}
        pools = self.shared / "sentences"
        size = write_all(sources, self.place / "downloads", self.place / "data", pools, self.cores)
        write_models(self.shared / "models", read_pools(pools))
        yield figure("seconds of writing the data sets", time.monotonic() - begun, bytes=size)
        begun = time.monotonic()
        command = [sys.executable, "jobs/fetch_data.py", "--recipe", str(file), "--downloads", str(self.place / "downloads")]
        looks = self.place / "fetch.looks.jsonl"
        environment = {**local.environment(ROOT / "runs"), "HF_DATASETS_CACHE": str(self.place / "cache")}
        with watched(command, environment, self.place / "fetch.log", looks) as process:
            pass
        if process.returncode:
            raise SystemExit(f"error: fetch_data ended with {process.returncode}: {(self.place / 'fetch.log').read_text()[-800:]}")
        yield figure("seconds of the snapshot", time.monotonic() - begun)
        placed = {name: source for name, source in located(recipe).sources.items() if name in sources}
        found = {name: read_index(name, source) for name, source in placed.items() if isinstance(source, DatasetSource) and source.hub}
        yield snapshot(read_plan(self.place / "data"), found)
        for line in peak(read_looks(looks)):
            yield line | {"name": "largest process of the snapshot, MiB of its own"}

    def killed(self) -> Iterator[Figure]:
        """The run with the kills, on a local disk."""
        recipe, file = self.recipe("killed", str(self.place / "killed"), WORKERS)
        sitting = run(file, ROOT / "runs", self.place / "run-killed", kills=True)
        yield from self.about(recipe, sitting, "run-killed")

    def other(self) -> Iterator[Figure]:
        """The one with another number of workers, and whether it gives the same."""
        killed, _ = self.recipe("killed", str(self.place / "killed"), WORKERS)
        recipe, file = self.recipe("other", str(self.place / "other"), OTHER_WORKERS)
        run(file, ROOT / "runs", self.place / "run-other", kills=False)
        yield from same(made(killed), made(recipe))

    def s3(self) -> Iterator[Figure]:
        """A run on an S3 server of this machine, whose requests are counted; in one sitting, for the server forgets."""
        requests = self.place / "requests.jsonl"
        requests.unlink(missing_ok=True)
        (self.place / "run-s3" / "sitting.json").unlink(missing_ok=True)
        with s3_server(self.place / "objects", requests) as uri:
            recipe, file = self.recipe("s3", uri, WORKERS)
            sitting = run(file, ROOT / "runs", self.place / "run-s3", kills=True)
            for line in self.about(recipe, sitting, "run-s3"):
                yield line | {"storage": "s3"}
            yield from storage(made(recipe), requests, _vectors(recipe))

    def do(self, step: str) -> list[Figure]:
        """One of STEPS; its lines are printed as they come, and kept."""
        lines: list[Figure] = []
        for line in getattr(self, step)():
            print(json.dumps(line, ensure_ascii=False), flush=True)
            lines.append(line)
        file = _figures(self.place, step)
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines), encoding="utf-8")
        return lines

    def about(self, recipe: Recipe, sitting: Sitting, name: str) -> Iterator[Figure]:
        """What a run came to."""
        nodes, looks = made(recipe), read_looks(self.place / name / "looks.jsonl")
        both = {"worker", "raylet"} == set(sitting.killed)
        yield figure("killed on the way", sitting.killed, "a worker and a raylet", both, attempts=sitting.attempts)
        yield figure("seconds of the run", sitting.seconds)
        yield from rows(read_plan(self.place / "data"), nodes[NATURAL])
        yield from stages(nodes, looks)
        yield mining(nodes["mined"])
        yield from peak(looks)


def _vectors(recipe: Recipe) -> int:
    """Bytes of all vectors in a storage."""
    fs, path = filesystem(join(Store(recipe.storage).uri, VECTORS))
    found = fs.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
    return sum(info.size for info in found if info.is_file)


def main() -> int:
    """Rehearse, print, keep the lines; 2 where the input is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=float, default=0.02, help="share of the published row count (default: %(default)s)")
    parser.add_argument("--place", type=Path, default=ROOT / "runs" / "rehearsal", help="where all of it lies")
    parser.add_argument("--only", choices=STEPS, action="append", help="these steps only; may be repeated")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="processes that write the data sets")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # both nodes and the job end with this process
    rehearsal = Rehearsal(arguments.size, arguments.place.absolute(), arguments.cores)
    try:
        lines = [line for step in arguments.only or ON_DISK for line in rehearsal.do(step)]
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    tenth = arguments.place.absolute() / f"{arguments.size / 10:g}"
    for line in growth(_kept(rehearsal.place), _kept(tenth)):
        print(json.dumps(line, ensure_ascii=False), flush=True)
        lines.append(line)
    return 0 if all(line["met"] is not False for line in lines) else 1


def _figures(place: Path, step: str) -> Path:
    return place / "figures" / f"{step}.jsonl"


def _kept(place: Path) -> list[Figure]:
    """The lines of all steps on a local disk that were done there."""
    files = (_figures(place, step) for step in ON_DISK)
    return [json.loads(line) for file in files if file.exists() for line in file.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    sys.exit(main())
