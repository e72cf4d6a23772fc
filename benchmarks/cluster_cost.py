"""What a run of the published recipe takes on nodes of eight H100, computed: the tables of docs/cluster.md, as Markdown.

`python benchmarks/cluster_cost.py [--price USD] [--write]`. Pairs and settings come from the recipe, operations from the shapes of its two
models, rates from what was measured, and from assumptions, which are marked, where nothing was. No GPU was asked. Needs no torch.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from raysberta.parsing import load
from raysberta.recipe import Recipe
from raysberta.training.outside import GIB, Sizes, memory_of
from raysberta.training.settings import Contrastive, Mlm

ROOT = Path(__file__).parents[1]
RECIPE, PAGE = ROOT / "recipes" / "ru_en_rosberta.yaml", ROOT / "docs" / "cluster.md"
PRICE = 55.04
"""USD an hour of a node of eight H100 (p5.48xlarge on demand, 6.88 a GPU, as quoted early in 2026)."""
GPUS = 8
"""Of a node."""
SHARES = (0.04, 0.15, 0.25, 0.40)
"""Of the GPU's peak in bf16 that training reaches, padding not counted as work. The first is that of the published MLM phase (10^9 tokens
in a day on two A100), the others a bad, a middling and a good case."""
MIDDLE = 2


@dataclass(frozen=True)
class Cluster:
    """Nodes of eight GPUs, and bytes a second that one sends to the next."""

    name: str
    nodes: int
    network: float


INSTEAD: dict[str, dict[str, Any]] = {
    "texts of 90 tokens, the mean": {"max_tokens": 90, "query_tokens": 90, "document_tokens": 90},
    "recompute, chunks of 65,536": {"recompute": True, "chunk_tokens": 65536},
    "recompute, chunks of 16,384": {"recompute": True, "chunk_tokens": 16384},
    "recompute, recompute_layers": {"recompute": True, "recompute_layers": True},
}
CLUSTERS = (Cluster("8 GPUs", 1, 300e9), Cluster("4 x 8 GPUs, TCP", 4, 6e9), Cluster("4 x 8 GPUs, RDMA", 4, 100e9))
"""ASSUMED: of one node, what NVLink carries from GPU to GPU; half of 100 Gbit/s by TCP; a quarter of 3,200 Gbit/s by RDMA."""


LARGE = Sizes(1024, 4096, 24, 98_505, 514, gated=False)
"""ruRoberta-large with its vocabulary extended."""
SMALL = Sizes(384, 1536, 12, 250_037, 512, gated=False)
"""multilingual-e5-small, which mines."""
BASE = Sizes(768, 3072, 12, 501_153, 512, gated=False)
"""LaBSE, which compares the sides of translations."""


def forward(model: Sizes, length: float) -> float:
    """Operations of a forward pass for each token of texts of this many tokens: 2 a weight, 4 a layer for each pair of numbers."""
    return model.layers * (2 * model.layer + 4 * model.hidden * length)


def head(model: Sizes, share: float) -> float:
    """Operations of a forward pass of the masked-word head for each token, where this share of tokens is predicted."""
    return 2 * share * model.hidden * (model.hidden + model.vocabulary)


# Published: about 10^9 tokens in 11.26 million texts (query, positive and one negative of a pair), so 90 a text
QUERY, DOCUMENT, PREFIX = 40, 115, 4
LONG = 180
"""Tokens of the text that a token stands in, on the mean: longer texts have more of them."""
SCORED = 850_000
"""Texts of MTEB(rus, v1.1): 592,000 passages of its five retrieval and reranking tasks and what the other 18 read."""
SCORED_TOKENS = 150
PAIR_BYTES = 1_600
BOTH = QUERY + DOCUMENT

# Measured on two CPU cores, docs/performance.md
RULES = 98 * 2**20 / 36.9
"""Bytes a second and core of the corpus stage: reading, language, rules, MinHash, writing. Of pairs an upper bound."""
TOKENISED = 125_000
"""Tokens a second and core: mE5's 250,000 pieces made 116 to 167 thousand, a byte-level BPE of 50,257 made 125 to 128."""

# ASSUMED
PEAK, PEAK_FP32 = 989e12, 67e12
"""Dense operations a second of an H100 SXM, from its data sheet: bf16, and fp32 without TF32."""
SHARE_SMALL, SHARE_FP32, SHARE_SEARCH = 0.10, 0.50, 0.20
"""Of those: embedding with the small model in bf16, scoring in fp32, exact search in fp32, whose rest is choosing the best of each row."""
START = 60.0
"""Seconds of every stage in which its processes start and load."""
EMPTY = 900.0
"""Seconds that a GPU node is paid for and does not work: it starts and installs, and idles at the end."""
SPARE = 2
"""Translations that are compared for each that stays."""
SCORE_CPU = 900.0
"""Seconds of the classifiers, clusterings and rankings of a model's scores."""


@dataclass(frozen=True)
class Stage:
    """A stage on the longest way through the recipe: seconds of work of one core, operations of GPUs."""

    name: str
    what: str
    core_seconds: float = 0.0
    cores: int = 1
    operations: float = 0.0
    rate: float = 0.0
    """Operations a second of a GPU; 0 where training's share of the peak decides."""
    gpus: int = 0
    """At most; 0: all of them."""
    steps: int = 0
    """Optimizer steps, after each of which gradients meet."""
    more: float = 0.0
    """Seconds that more hardware does not shorten."""

    def seconds(self, cluster: Cluster, share: float) -> float:
        """On a cluster where training reaches this share of the peak; nothing is sent while something is computed."""
        gpus = min(self.gpus or GPUS * cluster.nodes, GPUS * cluster.nodes)
        computed = self.operations / ((self.rate or PEAK * share) * gpus)
        # in a ring everybody sends all gradients, and after the step all weights, but for one part; in float32
        sent = 2 * 4 * LARGE.weights * (gpus - 1) / gpus / cluster.network
        return START + self.core_seconds / (self.cores * cluster.nodes) + computed + self.steps * sent + self.more


def pairs_of(recipe: Recipe, patterns: Sequence[str] = ("*",)) -> int:
    """Pairs that the data sets give, by the recipe's limits."""
    chosen = [source for name, source in recipe.sources.items() if any(fnmatch(f"{name}/", each) for each in patterns)]
    return sum(getattr(source, "limit", None) or 0 for source in chosen)


def stages(recipe: Recipe) -> Iterator[Stage]:
    """Those of the longest way, one after the other."""
    pairs, cores = pairs_of(recipe), recipe.resources["natural"].workers
    work = f"{pairs / 1e6:.2f}M pairs, {pairs * PAIR_BYTES / 1e9:.1f} GB: rules, repeats"
    compared = SPARE * pairs_of(recipe, [f"{name.partition('/')[0]}/" for name in (recipe.pairs.alike.least if recipe.pairs.alike else ())])
    if compared:
        work += f"; {2 * compared / 1e6:.2f}M texts compared"
    operations = 2 * compared * QUERY * forward(BASE, QUERY)
    yield Stage("natural", work, pairs * (PAIR_BYTES / RULES + BOTH / TOKENISED), cores, operations, PEAK * SHARE_SMALL)
    yield from mining(recipe)
    yield Stage("extended", "48 thousand pieces", more=120)
    for name, phase in recipe.phases.items():
        if isinstance(phase, Mlm):
            yield mlm(name, phase, pairs)
        elif isinstance(phase, Contrastive):
            yield contrastive(name, phase, pairs)
    yield Stage("softened, merged", "two merges of 1.6 GB", more=120)
    yield scoring(recipe)
    yield Stage("release", "model, card, report", more=60)


def mining(recipe: Recipe) -> Iterator[Stage]:
    """Vectors of all queries and positives, and the search of each query among the positives of its data set."""
    mined = sum(pairs_of(recipe, examples.only) for examples in recipe.examples.values() if examples.mine)
    tokens = mined * (BOTH + 2 * PREFIX)
    work = f"{2 * mined / 1e6:.2f}M texts, {tokens / 1e9:.2f}G tokens through the mining encoder"
    yield Stage("mined, vectors", work, tokens / TOKENISED, 4 * GPUS, tokens * forward(SMALL, LONG), PEAK * SHARE_SMALL)
    products = sum(pairs_of(recipe, [pattern]) ** 2 for examples in recipe.examples.values() if examples.mine for pattern in examples.only)
    work = f"{mined / 1e6:.2f}M queries, each among the passages of its data set, {products / 1e9:.0f}G products, exact"
    yield Stage("mined, search", work, operations=2 * SMALL.hidden * products, rate=PEAK_FP32 * SHARE_SEARCH)


def mlm(name: str, phase: Mlm, pairs: int) -> Stage:
    """Both sides of the pairs; a backward pass is two forward ones."""
    texts, tokens = 2 * pairs * phase.epochs, pairs * BOTH * phase.epochs
    steps = phase.steps or round(texts / phase.batch_size)
    passes = 3 + phase.recompute + getattr(phase, "recompute_layers", False)
    operations = tokens * passes * (forward(LARGE, LONG) + head(LARGE, phase.mask_probability))
    work = f"{texts / 1e6:.2f}M texts, {tokens / 1e9:.2f}G tokens, {steps:,} steps; {passes} passes"
    return Stage(name, work, tokens / TOKENISED, 4 * GPUS, operations, steps=steps)


def contrastive(name: str, phase: Contrastive, pairs: int) -> Stage:
    """Each query with its positive and its negatives; what is recomputed costs one more forward pass each."""
    tokens = pairs * phase.epochs * (QUERY + PREFIX + (1 + phase.negatives) * (DOCUMENT + PREFIX))
    steps = phase.steps or round(pairs * phase.epochs / (phase.batch_size * phase.device_batches))
    passes = 3 + phase.recompute + getattr(phase, "recompute_layers", False)
    texts = pairs * phase.epochs * (2 + phase.negatives)
    work = f"{texts / 1e6:.1f}M texts, {tokens / 1e9:.2f}G tokens, {steps:,} steps; {passes} passes"
    return Stage(name, work, pairs * BOTH / TOKENISED, 4 * GPUS, tokens * passes * forward(LARGE, LONG), steps=steps)


def scoring(recipe: Recipe) -> Stage:
    """All models at the end, each on its own GPUs."""
    models, tokens, place = len(recipe.score), SCORED * SCORED_TOKENS, recipe.resources["score"]
    work = f"{models} models, {tokens / 1e9:.2f}G tokens each, {recipe.scoring.precision}; {models * place.workers} GPUs"
    rate = PEAK_FP32 * SHARE_FP32 if recipe.scoring.precision == "fp32" else PEAK * SHARES[MIDDLE]
    operations = models * tokens * forward(LARGE, LONG)
    return Stage("score", work, tokens / TOKENISED, place.cpus, operations, rate, models * place.workers, more=SCORE_CPU)


def times(found: Sequence[Stage]) -> Iterator[str]:
    """Minutes of each stage."""
    yield f"| stage | work | operations | {' | '.join(cluster.name for cluster in CLUSTERS)} |"
    yield "|---|---|---|" + "---|" * len(CLUSTERS)
    for stage in found:
        minutes = [f"{stage.seconds(cluster, SHARES[MIDDLE]) / 60:.0f} min" for cluster in CLUSTERS]
        yield f"| {stage.name} | {stage.what} | {f'{stage.operations:.1e}' if stage.operations else ''} | {' | '.join(minutes)} |"


def costs(found: Sequence[Stage], price: float) -> Iterator[str]:
    """Hours and money of the whole."""
    yield f"| training's share of the peak | {' | '.join(cluster.name for cluster in CLUSTERS)} |"
    yield "|---|" + "---|" * len(CLUSTERS)
    for share in SHARES:
        hours = [(sum(stage.seconds(cluster, share) for stage in found) + EMPTY) / 3600 for cluster in CLUSTERS]
        cells = [f"{each:.1f} h, {each * cluster.nodes * price:,.0f} USD" for each, cluster in zip(hours, CLUSTERS, strict=True)]
        yield f"| {share:.0%} | {' | '.join(cells)} |"


def memory(recipe: Recipe) -> Iterator[str]:
    """Of one of eight GPUs, as a dry run estimates it, for each phase as it is and with other settings."""
    yield "| phase | with | weights, gradients | optimizer | activations | in all, GiB |"
    yield "|---|---|---|---|---|---|"
    for name, phase in recipe.phases.items():
        if isinstance(phase, Contrastive | Mlm):
            for told, other in {"what the recipe says": {}, **INSTEAD}.items():
                found = memory_of(phase.model_copy(update=other), LARGE, GPUS)
                parts = [found.weights, found.optimizer, found.activations, found.total]
                yield f"| {name} | {told} | {' | '.join(f'{size / GIB:.1f}' for size in parts)} |"


def tables(recipe: Recipe, price: float = PRICE) -> dict[str, str]:
    """What is computed, by the names that the document gives it."""
    found = list(stages(recipe))
    return {
        "times": "\n".join(times(found)),
        "costs": "\n".join(costs(found, price)),
        "memory": "\n".join(memory(recipe)),
    }


def with_tables(text: str, made: Mapping[str, str]) -> str:
    """The document with each table between its marks."""
    for name, table in made.items():
        begin, end = f"<!-- computed: {name} -->\n", f"\n<!-- {name} -->"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}{table}{end}{rest.partition(end)[2]}"
    return text


def main() -> int:
    """Print the tables, or put them into the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--price", type=float, default=PRICE, help="USD an hour of a node of eight GPUs (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="into docs/cluster.md")
    arguments = parser.parse_args()
    made = tables(load(RECIPE), arguments.price)
    if arguments.write:
        PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")
    else:
        print("\n\n".join(made.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
