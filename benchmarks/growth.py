"""How memory and time of `pairs` and `corpus` grow with the rows, one JSON line a figure: `python benchmarks/growth.py [--rows 50000]`.

Both stages run on a local Ray over sentences of real documentation and a real dictionary, recombined, with copies, near-copies and held-out
texts planted; once with `--rows` rows and once with ten times as many. The figure of memory is of the largest process: its own pages,
without those that it shares (Ray's object store, libraries).
"""

import argparse
import json
import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from raysberta.corpus import stage as corpus_stage
from raysberta.corpus.packaged import docstrings, wiktionary
from raysberta.corpus.settings import Documents
from raysberta.pairs import stage as pairs_stage
from raysberta.pairs.settings import NaturalPairs
from raysberta.schema import DOCUMENT
from raysberta.storage.artifacts import Artifact, Store
from raysberta.work import Work, Workers

SMALL, LARGE = 1, 10
FILES = 8


class Peaks(threading.Thread):
    """Looks at the processes of this one's Ray five times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most: dict[str, int] = {}
        self._over = threading.Event()

    def run(self) -> None:
        """Look until `stop`."""
        while not self._over.wait(0.2):
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
                try:
                    name = process.cmdline()[0].split()[0] if process.pid != os.getpid() else "driver"
                    if name == "driver" or name.startswith("ray::"):
                        self.most[name] = max(self.most.get(name, 0), process.memory_full_info().uss)
                except (psutil.Error, IndexError):
                    continue

    def stop(self) -> tuple[str, float]:
        """The largest, and its MiB."""
        self._over.set()
        self.join()
        name = max(self.most, key=lambda each: self.most[each])
        return name, self.most[name] / 2**20


def sentences() -> list[str]:
    """Real ones, Russian and English."""
    texts = [found.text for item in wiktionary.parts() for found in wiktionary.read(item, "sources.words")]
    for item in docstrings.parts(("numpy", "pandas"), "sources.docs"):
        texts.extend(found.text for found in docstrings.read(item, "sources.docs"))
    found = sorted({piece.strip() for text in texts for piece in text.replace("\n", " ").split(". ") if 30 < len(piece) < 300})
    random.Random(1).shuffle(found)
    return found


def made(number: int, all_sentences: list[str], count: int) -> str:
    """A text of some sentences; every twentieth repeats an earlier one, every twentieth but for its last sentence."""
    dice = random.Random(number if number % 20 else number // 40)
    text = [dice.choice(all_sentences) for _ in range(count)]
    if number % 20 == 10:
        dice = random.Random(number - 9)
        text = [*(dice.choice(all_sentences) for _ in range(count)), "Так и было"]
    return ". ".join(text) + "."


def tokenizer(store: Store, texts: list[str]) -> Artifact:
    """A model that has nothing but one."""
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel()
    found.train_from_iterator(texts[:2000], trainers.BpeTrainer(vocab_size=4000, show_progress=False))
    draft = store.draft("model", "m")
    with draft.folder("model") as folder:
        found.save(str(folder / "tokenizer.json"))
    return store.commit(draft, "model", "m", {}, {}, 1, 0.0)


def data_set(folder: Path, rows: int, texts: list[str]) -> None:
    """Pairs in some files, each with a supplied negative."""
    schema = pa.schema([("query", pa.string()), ("positive", pa.string()), ("negatives", pa.list_(pa.string()))])
    for part in range(FILES):
        with pq.ParquetWriter(folder / f"{part}.parquet", schema, compression="zstd") as writer:
            for start in range(part, rows, FILES * 2000):
                numbers = range(start, min(rows, start + FILES * 2000), FILES)
                columns = [[made(number, texts, 1) for number in numbers], [made(number, texts, 5) for number in numbers]]
                writer.write_table(pa.table([*columns, [[made(number + 7, texts, 5)] for number in numbers]], schema))


def pages(folder: Path, rows: int, texts: list[str]) -> None:
    """Documents as JSON lines in some files."""
    for part in range(FILES):
        with (folder / f"{part}.jsonl").open("w", encoding="utf-8") as stream:
            for number in range(part, rows, FILES):
                stream.write(json.dumps({"text": made(number, texts, 9)}, ensure_ascii=False) + "\n")


@contextmanager
def watched(name: str, rows: int) -> Iterator[dict[str, float]]:
    """Prints what a run took; `rows_out` is filled in by it."""
    peaks, said = Peaks(), {}
    peaks.start()
    started = time.monotonic()
    yield said
    seconds = time.monotonic() - started
    process, mib = peaks.stop()
    goal = {"goal": "<= 4096 MiB", "met": mib <= 4096}
    print(
        json.dumps({"name": name, "rows": rows, "seconds": round(seconds, 1), "process": process, "mib": round(mib), **goal, **said}),
        flush=True,
    )


def run_pairs(store: Store, model: Artifact, folder: Path, rows: int, workers: int) -> None:
    """The stage over one data set; a hundred documents are held out."""
    draft = store.draft("corpus", f"p{rows}")
    draft.write_table("documents", DOCUMENT.empty_table())
    nothing = store.commit(draft, "corpus", f"p{rows}", {}, {}, 1, 0.0)
    source = {"kind": "dataset", "path": str(folder / "*.parquet"), "task": "retrieval", "language": "ru", "limit": int(0.8 * rows)}
    asked = {
        "documents": "corpus",
        "kinds": {},
        "data_sets": {"given": source},
        "rules": {"max_tokens": 500, "tokenizer": "small"},
        "evaluation_sets": [str(folder.parent / "held_out.jsonl")],
    }
    draft = store.draft("natural", f"{rows}")
    with watched("pairs", rows) as said:
        work = Work(
            NaturalPairs.model_validate(asked), {"corpus": nothing, "small": model}, draft, Workers(workers=workers), node="natural"
        )
        pairs_stage.run(work)
        said.update(rows_out=draft.rows_out, **draft.dropped)


def run_corpus(store: Store, model: Artifact, folder: Path, rows: int, workers: int) -> None:
    """The stage over one source of files."""
    asked = {
        "languages": ["ru", "en"],
        "sources": {"web": {"kind": "files", "path": str(folder)}},
        "rules": {"tokenizer": "small", "quality": False},
    }
    draft = store.draft("documents", f"{rows}")
    with watched("corpus", rows) as said:
        corpus_stage.run(Work(Documents.model_validate(asked), {"small": model}, draft, Workers(workers=workers), node="corpus"))
        said.update(rows_out=draft.rows_out, **draft.dropped)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", choices=("pairs", "corpus"), nargs="*", default=("pairs", "corpus"))
    asked = parser.parse_args()
    texts = sentences()
    path = str(Path(__file__).parents[1] / "platform")
    ray.init(num_cpus=asked.workers, object_store_memory=1 << 30, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": path}})
    with tempfile.TemporaryDirectory() as root:
        store = Store(f"{root}/store")
        model = tokenizer(store, texts)
        held_out = [json.dumps({"text": made(41 * number, texts, 5)}, ensure_ascii=False) for number in range(100)]
        (Path(root) / "held_out.jsonl").write_text("\n".join(held_out), encoding="utf-8")
        for name, write, run in (("pairs", data_set, run_pairs), ("corpus", pages, run_corpus)):
            for scale in (SMALL, LARGE):
                folder = Path(root) / f"{name}{scale}"
                folder.mkdir()
                if name in asked.only:
                    write(folder, asked.rows * scale, texts)
                    run(store, model, folder, asked.rows * scale, asked.workers)


if __name__ == "__main__":
    main()
