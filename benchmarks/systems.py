"""The rows of docs/systems.md: embedding systems made of parts, in small, as one plan on one store, a JSON line a row; `make systems`.

What the arms share is made once. Stopped, or with further systems or seeds, the same command goes on from what is there.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from plain_alternative import kinds, means
from plain_run import Finished, finished, printed, run_recipes, write_recipe
from raysberta.aligning.facts import AlignFacts
from raysberta.models.describe import PROBES
from raysberta.models.load import load_tokenizer, parameters
from raysberta.models.model import Model, load_model
from raysberta.parsing import load
from raysberta.recipe import Recipe
from raysberta.training.chunks import Budget, make_chunks, plan_chunks
from raysberta.training.encode import ChunkedEncoder
from raysberta.training.facts import TrainingFacts
from training import measure
from training_data import decoder

ROOT = Path(__file__).parents[1]
Figure = dict[str, Any]

SYSTEMS: dict[str, tuple[int, ...]] = {"lusifer": (42,), "llm2vec": (42, 43, 44), "nv_embed": (42,), "gritlm": (42,)}
"""Each is `recipes/<name>_small.yaml`, with its seeds."""
PUBLISHED = {"tuned": 62.63, "tuned_alone": 57.28, "connector_alone": 44.18, "aligned": 44.45}
"""LUSIFER's own table: mean over 123 data sets in 14 languages, of models fifty times as large (arXiv 2501.00874)."""
RIVALS = ("tuned_alone", "connector_alone", "decoder_alone")
"""What both stages of LUSIFER are to be ahead of."""
STEPS = {
    "bidirectional": ("causal", "full_attention"),
    "MNTP": ("full_attention", "mntp"),
    "SimCSE": ("mntp", "simcse"),
    "pairs": ("mntp", "tuned"),
}
"""LLM2Vec's steps: from which model to which."""
APART, SAME = 0.1, 1e-5
WORSE_PERPLEXITY, WORSE_POINTS, FASTER = 0.05, 1.0, 2.0
ASK = {"queries": 16, "negatives": 1, "limit": 64, "steps": 2, "warm": 1, "lora": {"rank": 16, "alpha": 32}}
OURS = {"chunk_tokens": 2048, "recompute": False, "mini_batch": 32}


def recipes(systems: Sequence[str], storage: str, folder: Path) -> dict[tuple[str, int], Path]:
    """A recipe file of every system and seed, named after both.

    Args:
        systems: Of SYSTEMS.
        storage: Of all of them.
        folder: Where the files are written.
    """
    files = {}
    for system in systems:
        path = ROOT / "recipes" / f"{system}_small.yaml"
        for seed in SYSTEMS[system]:
            made = load(path, [f"storage={storage}", f"seed={seed}", f"name={path.stem}-{seed}"])
            files[system, seed] = write_recipe(made, folder)
    return files


def lines(made: Mapping[tuple[str, int], Recipe]) -> Iterator[Figure]:
    """What finished runs came to, a line each."""
    tell = {"lusifer": lusifer, "llm2vec": llm2vec, "nv_embed": nv_embed, "gritlm": gritlm}
    for system in dict.fromkeys(system for system, _ in made):
        yield from tell[system]([finished(recipe) for (other, _), recipe in made.items() if other == system])


def lusifer(runs: Sequence[Finished]) -> Iterator[Figure]:
    """Arms on Russian tasks beside the paper's; whether the decoder stayed; what tells its states from others'; lengths."""
    for run in runs:
        yield from arms("LUSIFER", run, "general", "Russian tasks", {"tuned": RIVALS}, PUBLISHED)
        facts = run.models["aligned"].told(AlignFacts)
        same = facts.decoder_before == facts.decoder_after
        yield line("LUSIFER, hash of the decoder's weights before and after the first stage", facts.decoder_after[:16], "equal", same)
        if facts.after is not None:
            for kind, losses in (("reconstruction", facts.after.reconstruction), ("completion", facts.after.completion)):
                name = f"LUSIFER, {kind}: loss of a token from other texts' states less that from its own"
                apart = losses.shuffled - losses.own
                yield line(name, round(apart, 3), f">= {APART:g}", apart >= APART, own=losses.own, rows=facts.after.rows)
        yield from lengths(run.folder("aligned"))


def lengths(folder: Path) -> Iterator[Figure]:
    """What padding, other texts, their order and chunks change in a vector."""
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    texts = [np.asarray(ids) for ids in tokenizer([*PROBES, PROBES[1] * 4])["input_ids"]]
    alone = torch.cat([vectors(model, [text]) for text in texts])
    found = {
        "padded on the right": vectors(model, texts),
        "in another order": vectors(model, texts[::-1]).flip(0),
    }
    encoder = ChunkedEncoder(model, "fp32", False)
    lengths = np.asarray([len(text) for text in texts])
    with torch.no_grad():
        found["in chunks"] = encoder.embed(make_chunks(texts, plan_chunks(lengths, Budget(60, 1))))
        one = torch.ones(1, 5, dtype=torch.long)
        _, mask = model.parts[0](model.encoder(input_ids=one * 7, attention_mask=one).last_hidden_state, one)
    yield line("LUSIFER, places that the decoder reads of 5 tokens", int(mask.sum()), "6", int(mask.sum()) == 6)
    for how, other in found.items():
        worst = float((other - alone).abs().max())
        yield line(f"LUSIFER, greatest change of a vector's numbers {how}", worst, f"<= {SAME:g}", worst <= SAME)


@torch.no_grad()
def vectors(model: Model, texts: Sequence[np.ndarray]) -> torch.Tensor:
    """L2-normalised vectors of texts in one batch, padded on the right, as an encoder reads them."""
    longest = max(map(len, texts))
    tokens, mask = (torch.zeros(len(texts), longest, dtype=torch.long) for _ in range(2))
    for row, text in enumerate(texts):
        tokens[row, : len(text)], mask[row, : len(text)] = torch.from_numpy(text), 1
    found = model(mask, input_ids=tokens)
    return F.normalize(found, dim=-1)


def arms(
    system: str, run: Finished, kind: str, tasks: str, goals: Mapping[str, Sequence[str]], published: Mapping[str, float]
) -> Iterator[Figure]:
    """The mean of each scored model over the tasks of a kind."""
    values = {name: score(run, name, kind) for name in run.known}
    for name, value in values.items():
        rivals = goals.get(name, ())
        goal = f"> {', '.join(rivals)}" if rivals else None
        met = all(value > values[rival] for rival in rivals) if rivals else None
        more: Figure = {"parameters": parameters(run.folder(name)), "seconds": round(run.models[name].manifest.seconds, 1)}
        yield line(f"{system}, {name}, mean of {tasks}", round(value, 2), goal, met, published=published.get(name), **more)


def llm2vec(runs: Sequence[Finished]) -> Iterator[Figure]:
    """What each step adds, by seed. Tokens that see all others without having been trained to are expected to lose."""
    for run in runs[:1]:
        yield from arms("LLM2Vec", run, "all", "all tasks", {}, {})
    for step, (before, after) in STEPS.items():
        yield gains(f"LLM2Vec, + {step}", runs, before, after, "all", None if step == "bidirectional" else 0.0)


def nv_embed(runs: Sequence[Finished]) -> Iterator[Figure]:
    """Latent attention against mean and end token; two stages against one."""
    for run in runs[:1]:
        yield from arms("NV-Embed", run, "all", "all tasks", {}, {})
    for other in ("single_averaged", "single_ended"):
        yield gains(f"NV-Embed, latent attention against {other}", runs, other, "single", "all", None)
    for kind, goal in (("Classification", 0.0), ("Retrieval", None)):
        yield gains(f"NV-Embed, two stages against one, {kind}", runs, "single", "blended", kind, goal)


def gritlm(runs: Sequence[Finished]) -> Iterator[Figure]:
    """Whether it still writes, and embeds as without writing."""
    for run in runs:
        yield from arms("GRIT", run, "all", "all tasks", {}, {})
        found = run.models["unified"].told(TrainingFacts).generation
        if found is not None:
            change = found.after / found.before - 1
            met = change <= WORSE_PERPLEXITY
            more = {"before": found.before, "after": found.after, "rows": found.rows}
            yield line("GRIT, change of perplexity on answers set apart", round(change, 4), f"<= {WORSE_PERPLEXITY:g}", met, **more)
    yield gains("GRIT, writing beside against embedding alone", runs, "embedding_alone", "unified", "all", -WORSE_POINTS)


def gains(name: str, runs: Sequence[Finished], before: str, after: str, kind: str, goal: float | None) -> Figure:
    """Points from one model to another, by seed; the goal is one of every seed."""
    points = [score(run, after, kind) - score(run, before, kind) for run in runs]
    met = None if goal is None else all(each > goal for each in points)
    told = None if goal is None else f"> {goal:g} with every seed"
    return line(name, round(sum(points) / len(points), 2), told, met, by_seed=[round(each, 2) for each in points])


def score(run: Finished, model: str, kind: str) -> float:
    """Mean x 100 of a model over tasks: all, own or general ones, or those of an mteb type."""
    names = {"all": list(run.told), **kinds(run)}.get(kind) or [name for name, task in run.told.items() if task.type == kind]
    found = means(run.known[model], {kind: names})[kind]
    assert found is not None, f"no {kind} tasks"
    return found


def speed() -> Iterator[Figure]:
    """A contrastive step with adapters against sentence-transformers: same weights, rows, adapters and clipping."""
    with tempfile.TemporaryDirectory() as folder:
        work = decoder(Path(folder))
        for precision in ("fp32", "bf16"):
            ask = {**ASK, **OURS, "precision": precision}
            ours, theirs = (measure("contrastive", side, work, ask) for side in ("ours", "plain"))
            each = [sum(side["tokens"]) / sum(side["seconds"]) for side in (ours, theirs)]
            name = f"SmolLM2-135M with LoRA, {precision}: tokens a second of a contrastive step, times sentence-transformers'"
            ratio = each[0] / each[1]
            yield line(name, round(ratio, 2), f">= {FASTER:g}", ratio >= FASTER, ours=round(each[0]), theirs=round(each[1]))
            bound = measure("products", "", work, ask)
            most = sum(bound["tokens"]) / sum(bound["seconds"])
            name = f"SmolLM2-135M, {precision}: the same if a step were its products with frozen matrices and nothing else"
            yield line(name, round(most / each[1], 2), None, None, tokens_a_second=round(most), of_which_ours=round(each[0] / most, 2))
            if precision == "fp32":
                worst = max(abs(one - other) / other for one, other in zip(ours["losses"], theirs["losses"], strict=True))
                yield line("the same, greatest relative difference of a loss", worst, "<= 0.001", worst <= 1e-3, losses=ours["losses"])


def line(name: str, value: Any, goal: str | None, met: bool | None, **more: Any) -> Figure:
    """A row."""
    return {"name": name, "value": value, "goal": goal, "met": met, **{key: each for key, each in more.items() if each is not None}}


def rows(systems: Sequence[str], store: str) -> Iterator[Figure]:
    """Run what is not there yet of the systems; their rows, and `speed`'s where asked for."""
    yield from lines(run_recipes(recipes([name for name in SYSTEMS if name in systems], store, Path("runs/systems-recipes"))))
    if "speed" in systems:
        yield from speed()


def main() -> int:
    """Run what is not there yet, then print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[*SYSTEMS, "speed"], default=[*SYSTEMS, "speed"], help="which systems")
    parser.add_argument("--store", default="runs/systems", help="folder or URI of all artifacts")
    arguments = parser.parse_args()
    return printed(rows(arguments.only, arguments.store))


if __name__ == "__main__":
    sys.exit(main())
