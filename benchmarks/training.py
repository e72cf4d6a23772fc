"""Training against its peers, one JSON line a figure: `python benchmarks/training.py [--only NAME ...]`; `make bench-training`.

Each side of a figure runs in a child process of its own, one after the other, in one run. FlagEmbedding has an environment of its own,
which `make bench-training` makes. What needs a GPU says so.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raysberta.training.engine import ALLOCATOR
from training_sized import peak_flops

MEASURE = Path(__file__).with_name("training_measure.py")
MEASURE_FLAGEMBEDDING = Path(__file__).with_name("training_flagembedding.py")
FLAGEMBEDDING = Path(sys.prefix) / "peers-flagembedding" / "bin" / "python"
"""An interpreter that has requirements/bench-flagembedding.txt, where the Makefile puts it."""
Figure = dict[str, Any]

NATURAL = {"queries": 32, "negatives": 7, "limit": 128, "precision": "bf16", "steps": 2, "warm": 1}
OURS = {"chunk_tokens": 4096, "recompute": False, "mini_batch": 32}
PEERS = {
    "cached": "sentence-transformers' CachedMultipleNegativesRankingLoss",
    "plain": "sentence-transformers' MultipleNegativesRankingLoss",
    "flagembedding": "FlagEmbedding's trainer",
}


def start(what: str, side: str, work: Path, ask: dict[str, Any]) -> subprocess.Popen[str]:
    """Start a side."""
    program = [sys.executable, str(MEASURE), what, side]
    if side == "flagembedding":
        if not FLAGEMBEDDING.is_file():
            raise SystemExit(f"error: {FLAGEMBEDDING} is not there; right would be `make bench-training`, which makes it")
        program = [str(FLAGEMBEDDING), str(MEASURE_FLAGEMBEDDING)]
    allocator = {} if side in PEERS or side == "trainer" else ALLOCATOR  # as our training processes are started
    return subprocess.Popen([*program, str(work), json.dumps(ask)], stdout=subprocess.PIPE, text=True, env=os.environ | allocator)


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a side printed last."""
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"error: {process.args} ended with {process.returncode}")
    return json.loads(out.strip().splitlines()[-1])


def measure(what: str, side: str, work: Path, ask: dict[str, Any]) -> dict[str, Any]:
    """Run a side."""
    return result(start(what, side, work, ask))


def figure(name: str, ours: float, peer: float, ratio: float, unit: str, goal: str, met: bool, note: str) -> Figure:
    """One line."""
    rounded = {"ours": round(ours, 4), "peer": round(peer, 4), "ratio": float(f"{ratio:.3g}")}
    return {
        "name": name,
        **rounded,
        "unit": unit,
        "goal": goal,
        "met": bool(met),
        "device": f"CPU, {torch.get_num_threads()} threads",
        "note": note,
    }


def pairs_per_second(found: dict[str, Any]) -> float:
    """Of a contrastive side."""
    return found["pairs"] / sum(found["seconds"])


@cache
def natural(work: Path) -> dict[str, Any]:
    """Our side of the contrastive step, once for all its peers."""
    return measure("contrastive", "ours", work, NATURAL | OURS)


def contrastive_step(work: Path, side: str, goal: float) -> Iterator[Figure]:
    """Pairs per second against a peer."""
    ours, peer = natural(work), measure("contrastive", side, work, NATURAL | OURS)
    ratio = pairs_per_second(ours) / pairs_per_second(peer)
    apart = abs(ours["losses"][0] - peer["losses"][0])
    note = (
        f"{PEERS[side]}; 32 queries, 7 negatives, up to 128 tokens, bf16; {ours['tokens']} tokens in the steps; first losses "
        f"{ours['losses'][0]:.4f} and {peer['losses'][0]:.4f} (apart {apart:.1e}); "
        f"peaks {ours['peak_mib']:.0f} and {peer['peak_mib']:.0f} MiB"
    )
    name = f"contrastive step, {side}"
    yield figure(name, pairs_per_second(ours), pairs_per_second(peer), ratio, "pairs/s", f">= {goal:g}x", ratio >= goal, note)


def equal_losses(work: Path, precision: str) -> Iterator[Figure]:
    """The largest difference of the loss over 50 steps from the same weights and batches."""
    ask = {"queries": 4, "negatives": 1, "limit": 16, "precision": precision, "steps": 50, "warm": 0, **OURS, "chunk_tokens": 128}
    few = Path(measure("prepared", "few", work, {})["few"])
    ours = measure("contrastive", "ours", few, ask)
    for side in PEERS:
        peer = measure("contrastive", side, few, ask)
        differences = [abs(one - other) for one, other in zip(ours["losses"], peer["losses"], strict=True)]
        apart = max(differences)
        note = (
            f"{PEERS[side]}; 4 queries, 1 negative, up to 16 tokens, chunks of 128, only the pieces that the texts use; first step apart "
            f"{differences[0]:.1e}; mean loss {mean(ours['losses'])} and {mean(peer['losses'])}, ours in the first ten steps "
            f"{mean(ours['losses'][:10])}, in the last ten {mean(ours['losses'][-10:])}; ratio is the largest difference"
        )
        name = f"losses over 50 steps, {side}, {precision}"
        yield figure(name, ours["losses"][-1], peer["losses"][-1], apart, "loss", "within 1e-3", apart <= 1e-3, note)


def mean(values: list[float]) -> float:
    """Of some losses, to be read."""
    return round(sum(values) / len(values), 5)


def mlm_tokens(work: Path, model: str, goal: float) -> Iterator[Figure]:
    """Real tokens per second against transformers' Trainer."""
    ask = {"model": model, "batch": 16, "limit": 128, "steps": 2, "chunk_tokens": 2048}
    ours, peer = (measure("mlm", side, work, ask) for side in ("ours", "trainer"))
    speeds = [side["tokens"] / sum(side["seconds"]) for side in (ours, peer)]
    apart = abs(ours["first_loss"] - peer["first_loss"])
    names = {"e5": "mE5-small, 250k pieces", "roberta": "RoBERTa-base, 50k pieces, random weights"}
    note = (
        f"{names[model]}; 16 texts a step, up to 128 tokens, bf16, 15 % masked; loss of the same masked batch "
        f"{ours['first_loss']:.4f} and {peer['first_loss']:.4f} (apart {apart:.1e}); "
        f"peaks {ours['peak_mib']:.0f} and {peer['peak_mib']:.0f} MiB"
    )
    ratio = speeds[0] / speeds[1]
    yield figure(f"MLM tokens, {model}", *speeds, ratio, "tokens/s", f">= {goal:g}x, equal loss", ratio >= goal and apart < 1e-2, note)


def memory(work: Path) -> Iterator[Figure]:
    """Peak resident memory of a step of 256 queries and 9 texts each: chunks of 512 tokens against sub-batches of 32 texts.

    Up to 128 tokens the peers take ten minutes each on two cores, too long for a run of all figures within thirty.
    """
    how = {"recompute": True, "chunk_tokens": 512, "mini_batch": 32}
    ask = {"queries": 256, "negatives": 7, "limit": 32, "precision": "bf16", "steps": 1, "warm": 0, **how}
    ours, cached, flagembedding = (measure("contrastive", side, work, ask) for side in ("ours", "cached", "flagembedding"))
    peer = min(cached["peak_mib"], flagembedding["peak_mib"])
    ratio = ours["peak_mib"] / peer
    shown = [f"{pairs_per_second(side):.2f} pairs/s and {side['peak_mib']:.0f} MiB" for side in (ours, cached, flagembedding)]
    note = (
        f"256 queries, 9 texts each, up to 32 tokens, {ours['tokens'][0]} in all, bf16; ours, recomputed in chunks of 512 tokens: "
        f"{shown[0]}; "
        f"{PEERS['cached']}, mini-batches of 32 texts: {shown[1]}; {PEERS['flagembedding']}, sub-batches of 32 texts and gradient "
        f"checkpointing: {shown[2]}; losses {ours['losses'][0]:.4f}, {cached['losses'][0]:.4f}, {flagembedding['losses'][0]:.4f}; "
        "the plain loss keeps all activations and does not fit"
    )
    yield figure("peak memory", ours["peak_mib"], peer, ratio, "MiB", "<= the lower of the peers'", ratio <= 1, note)


def two_workers(work: Path) -> Iterator[Figure]:
    """Two workers of one thread against one, same global batch."""
    with tempfile.TemporaryDirectory() as aside:
        ask = {"queries": 32, "negatives": 7, "limit": 128, "steps": 2, "warm": 2, "chunk_tokens": 4096, "meet": f"{aside}/meet"}
        one = measure("workers", "1/1", work, ask)
        both = [start("workers", side, work, ask) for side in ("1/2", "2/2")]
        two, _ = [result(process) for process in both]
    speeds = [side["tokens"] / sum(side["seconds"]) for side in (two, one)]
    apart = max(abs(left - right) for left, right in zip(one["losses"], two["losses"], strict=True))
    ratio = speeds[0] / speeds[1]
    note = "2 device batches of 32 queries of different sources, DeepSpeed ZeRO 0 over gloo, the third and fourth step; "
    note += f"losses apart {apart:.1e}; ours against itself"
    yield figure("two workers against one", *speeds, ratio, "tokens/s", ">= 1.7x", ratio >= 1.7, note) | {"device": "CPU, 1 thread each"}


LENGTHS = {"512 tokens": {"limit": 512, "filled": True}, "natural lengths up to 512": {"limit": 512, "filled": False}}
GPU = {"size": "large", "device": "cuda", "chunk_tokens": 16384, "recompute": False, "precision": "bf16", "steps": 8, "warm": 3}
GPU |= {"queries": 8, "negatives": 7, "batch": 64}


def gpu(work: Path) -> Iterator[Figure]:
    """Model FLOP utilisation of RoBERTa-large, and the peers beside it."""
    if torch.cuda.is_available():
        yield from utilisation(work, GPU, torch.cuda.get_device_name())
    else:
        yield {"name": "GPU model FLOP utilisation, RoBERTa-large", "goal": UTILISATION, "met": None, "device": "no GPU"}


def rehearsal(work: Path) -> Iterator[Figure]:
    """What `gpu` does, with a tiny model on the CPU as if that were an L40S: shows that it runs, its figures mean nothing."""
    small = {"size": "tiny", "device": "cpu", "steps": 2, "warm": 1, "queries": 4, "negatives": 2, "batch": 8, "chunk_tokens": 2048}
    yield from utilisation(work, GPU | small, "no L40S: a rehearsal on the CPU")


UTILISATION = ">= 45 % and >= 2x the peer"


def utilisation(work: Path, ask: dict[str, Any], device: str) -> Iterator[Figure]:
    """Model FLOP utilisation and speed against the peer, for both kinds of training and of lengths."""
    peak = peak_flops(device)
    peers = {"contrastive": "plain", "mlm": "trainer"}
    names = {"contrastive": "sentence-transformers' MultipleNegativesRankingLoss", "mlm": "transformers' Trainer"}
    for what, side in peers.items():
        for name, shape in LENGTHS.items():
            peer = measure(what, side, work, ask | shape)
            plain, compiled = (measure(what, "ours", work, ask | shape | {"compile": compile}) for compile in (False, True))
            ours = min(plain, compiled, key=lambda found: sum(found["seconds"]))
            rates = [found["flops"] / sum(found["seconds"]) / 1e12 for found in (ours, peer)]
            used = [rate * 1e12 / peak for rate in rates] if peak else []
            ratio = sum(peer["seconds"]) / sum(ours["seconds"]) * ours["flops"] / peer["flops"]
            tokens = [int(np.sum(found["tokens"]) / sum(found["seconds"])) for found in (ours, peer)]
            note = f"{names[what]}; {ask['size']}, bf16, {tokens[0]} and {tokens[1]} tokens/s without padding, "
            note += f"ours {sum(plain['seconds']):.2f} s, compiled {sum(compiled['seconds']):.2f} s, "
            note += f"peaks {ours['peak_mib']:.0f} and {peer['peak_mib']:.0f} MiB; "
            note += f"model FLOP utilisation {used[0]:.1%} and {used[1]:.1%}" if used else UNKNOWN
            met = bool(used) and used[0] >= 0.45 and ratio >= 2
            line = figure(f"{what} step on a GPU, {name}", *rates, ratio, "model TFLOP/s", UTILISATION, met, note)
            yield line | {"device": device} | ({} if used else {"met": None})


UNKNOWN = "the device's peak is not known: right would be a line for it in PEAK_FLOPS of benchmarks/training_sized.py"


FIGURES: dict[str, Callable[[Path], Iterator[Figure]]] = {
    "step-cached": lambda work: contrastive_step(work, "cached", 3.0),
    "step-plain": lambda work: contrastive_step(work, "plain", 2.0),
    "step-flagembedding": lambda work: contrastive_step(work, "flagembedding", 2.0),
    "losses": lambda work: equal_losses(work, "fp32"),
    "losses-bf16": lambda work: equal_losses(work, "bf16"),
    "mlm": lambda work: mlm_tokens(work, "e5", 8.0),
    "mlm-roberta": lambda work: mlm_tokens(work, "roberta", 2.5),
    "memory": memory,
    "workers": two_workers,
    "gpu": gpu,
    "gpu-rehearsal": rehearsal,
}


def main() -> None:
    """Print the figures asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=FIGURES, default=[name for name in FIGURES if name != "gpu-rehearsal"], help="these figures alone"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/bench-training"), help="folder for the models and texts")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        for line in FIGURES[name](arguments.work.absolute()):
            print(json.dumps(line, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
